//! The command's process.

mod orphan;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::tail::Tail;

/// Where the process leaves its heartbeat. The name is burn-backup-restore's.
const HEARTBEAT: &str = "BURN_BACKUP_HEARTBEAT";

/// How the process before it ended.
const LAST_END: &str = "BURN_BACKUP_LAST_END";

pub struct Child {
    pid: Pid,
    /// Whether it leads a process group, whose members end with it.
    is_leader: bool,
    /// `None` if it writes to a terminal itself.
    tail: Option<Tail>,
    has_ended: bool,
}

impl Child {
    pub fn start(
        command: &[OsString],
        heartbeat: &Path,
        last_end: Option<&str>,
    ) -> io::Result<Self> {
        let Some((program, arguments)) = command.split_first() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        // A group of its own can't read from the terminal, and hears nothing of its Ctrl-C.
        let is_leader = !io::stdin().is_terminal();
        // Burn's dashboard has the terminal; what is written beside it would be on it.
        let is_seen = !io::stdout().is_terminal();
        let mut command = Command::new(program);
        command.args(arguments).env(HEARTBEAT, heartbeat);
        match last_end {
            Some(end) => command.env(LAST_END, end),
            None => command.env_remove(LAST_END),
        };
        if is_leader {
            command.process_group(0);
        }
        if is_seen {
            command.stderr(Stdio::piped());
        }
        orphan::end_with_parent(&mut command);
        let mut child = command.spawn()?;
        let tail = child.stderr.take().map(Tail::of).transpose();
        Ok(Self {
            pid: Pid::from_raw(child.id().cast_signed()),
            is_leader,
            tail: tail?,
            has_ended: false,
        })
    }

    pub fn id(&self) -> Pid {
        self.pid
    }

    /// How it ended, if it has. As process 1 of a container this one takes leave of orphans, too.
    pub fn try_wait(&mut self) -> io::Result<Option<WaitStatus>> {
        let any = std::process::id() == 1;
        loop {
            let whom = (!any).then_some(self.pid);
            match waitpid(whom, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => return Ok(None),
                Ok(status) if status.pid() == Some(self.pid) => {
                    self.has_ended = true;
                    return Ok(Some(status));
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Passes a signal on that this process got. What a terminal sends, it sends to the child as well.
    pub fn pass_on(&self, signal: Signal) {
        let is_terminals = matches!(signal, Signal::SIGINT | Signal::SIGQUIT | Signal::SIGHUP);
        let has_it = !self.is_leader && is_terminals;
        if !has_it {
            self.send(signal);
        }
    }

    /// Asks it for the stacks of its threads, if it has a handler for that signal.
    pub fn ask_for_stacks(&self) -> bool {
        let asks = orphan::handles(self.pid, Signal::SIGQUIT);
        if asks {
            self.send(Signal::SIGQUIT);
        }
        asks
    }

    pub fn terminate(&self) {
        self.send(Signal::SIGTERM);
    }

    pub fn kill(&self) {
        self.send(Signal::SIGKILL);
    }

    fn send(&self, signal: Signal) {
        // It may have ended meanwhile. Nobody else has its number until it is waited for.
        let _ = kill(self.pid, signal);
    }

    /// Ends what it has left behind. Gives the last lines of its error output.
    pub fn finish(mut self) -> Vec<String> {
        self.end_group();
        match self.tail.take() {
            Some(tail) => tail.finish(),
            None => Vec::new(),
        }
    }

    fn end_group(&self) {
        if self.is_leader {
            // Most often there is none left.
            let _ = killpg(self.pid, Signal::SIGKILL);
        }
    }
}

/// However this process ends, none is left behind.
impl Drop for Child {
    fn drop(&mut self) {
        if !self.has_ended {
            self.kill();
            // It does not survive that.
            let _ = waitpid(self.pid, None);
        }
        self.end_group();
    }
}
