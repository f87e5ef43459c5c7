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

/// The path of the heartbeat file. burn-backup-restore reads this variable.
const HEARTBEAT: &str = "BURN_BACKUP_HEARTBEAT";

/// How the previous process ended.
const LAST_END: &str = "BURN_BACKUP_LAST_END";

pub struct Child {
    pid: Pid,
    /// Whether it leads a process group. The group's members are killed when it ends.
    is_leader: bool,
    /// `None` if its error output is not captured.
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
        // On a terminal there is no separate group: it could not read from the terminal, and would not get its Ctrl-C.
        let is_leader = !io::stdin().is_terminal();
        // On a terminal the command may show Burn's dashboard, and passed-on lines would be drawn over it.
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

    /// The status of the child, if it has ended. As process 1 of a container, this process also reaps orphans.
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

    /// Passes on a signal that this process got. A terminal sends its signals to the child itself, unless the child has
    /// its own group.
    pub fn pass_on(&self, signal: Signal) {
        let is_terminals = matches!(signal, Signal::SIGINT | Signal::SIGQUIT | Signal::SIGHUP);
        let has_it = !self.is_leader && is_terminals;
        if !has_it {
            self.send(signal);
        }
    }

    /// Asks the child for the stacks of its threads, if it handles SIGQUIT. Returns whether it does.
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
        // It may have ended meanwhile. Its ID is not reused before it is reaped.
        let _ = kill(self.pid, signal);
    }

    /// Kills the remaining processes of its group. Returns the last lines of its error output.
    pub fn finish(mut self) -> Vec<String> {
        self.end_group();
        match self.tail.take() {
            Some(tail) => tail.finish(),
            None => Vec::new(),
        }
    }

    fn end_group(&self) {
        if self.is_leader {
            // This usually fails, because the group is empty.
            let _ = killpg(self.pid, Signal::SIGKILL);
        }
    }
}

/// Leaves no process behind, also if the supervisor returns with an error.
impl Drop for Child {
    fn drop(&mut self) {
        if !self.has_ended {
            self.kill();
            // A killed process always ends.
            let _ = waitpid(self.pid, None);
        }
        self.end_group();
    }
}
