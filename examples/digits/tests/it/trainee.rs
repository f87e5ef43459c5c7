use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use burn_backup_restore::exit_code::START_AGAIN;
use tempfile::TempDir;

/// A directory in which the example is run.
pub struct Scratch {
    dir: TempDir,
}

/// How a process ended.
#[derive(Debug)]
pub enum End {
    /// By itself, with what it printed last.
    Finished {
        digest: String,
    },
    /// In order, after a notice.
    Interrupted,
    Killed,
}

/// A running process, and when it printed each line.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
    started: Instant,
}

impl Scratch {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn backup(&self) -> PathBuf {
        self.dir.path().join("backup")
    }

    /// The metric logs, by their paths in the artifact directory.
    pub fn metric_logs(&self) -> BTreeMap<PathBuf, String> {
        let artifacts = self.dir.path().join("artifacts");
        let mut logs = BTreeMap::new();
        let mut directories = vec![artifacts.clone()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                    continue;
                }
                let log = std::fs::read_to_string(&path).unwrap();
                logs.insert(path.strip_prefix(&artifacts).unwrap().to_path_buf(), log);
            }
        }
        logs
    }

    /// The generations in place, oldest first.
    pub fn generations(&self) -> Vec<PathBuf> {
        let mut found: Vec<_> = match std::fs::read_dir(self.backup().join("generations")) {
            Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
            Err(_) => Vec::new(),
        };
        found.sort();
        found
    }

    /// The example with its directories in this one.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_digits"));
        command
            .args(arguments)
            .arg("--backup-dir")
            .arg(self.backup())
            .arg("--artifact-dir")
            .arg(self.dir.path().join("artifacts"));
        command
    }

    /// Runs the example to its end, and returns its output.
    pub fn train(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {stderr}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the example, which must refuse its arguments, and returns its message.
    pub fn refuse(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    /// Starts the example in a process of its own, with a backup after each batch.
    pub fn start(&self) -> Process {
        let mut child = self
            .command(&["--epochs", "1", "--save-freq", "1", "--keep-last", "2"])
            .env("RUST_LOG", "burn_backup=debug")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let started = Instant::now();
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Process {
            child,
            lines,
            said: Vec::new(),
            started,
        }
    }
}

impl Process {
    /// Waits until the process prints `what`, and returns the time since its start; `None` if it ends before.
    pub fn wait_for(&mut self, what: &str) -> Option<Duration> {
        while let Ok(line) = self.lines.recv() {
            let is_it = line.contains(what);
            self.said.push(line);
            if is_it {
                return Some(self.started.elapsed());
            }
        }
        None
    }

    /// Lets the process run for so long, or until it ends.
    pub fn run_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Kills the process (SIGKILL). Returns whether it had ended before, and its output.
    pub fn kill(mut self) -> (End, Vec<String>) {
        // It may have ended.
        let _ = self.child.kill();
        self.end()
    }

    /// Asks the process to end (SIGTERM). Returns how it ended, and its output.
    pub fn terminate(self) -> (End, Vec<String>) {
        let pid = self.child.id().to_string();
        // It may have ended.
        let kill = Command::new("sh")
            .args(["-c", "kill -s TERM $0 2>/dev/null", &pid])
            .status();
        kill.unwrap();
        self.end()
    }

    /// Waits for the end of the process.
    pub fn end(mut self) -> (End, Vec<String>) {
        let mut stdout = String::new();
        let mut pipe = self.child.stdout.take().unwrap();
        pipe.read_to_string(&mut stdout).unwrap();
        self.said.extend(self.lines.iter());
        let status = self.child.wait().unwrap();
        const SIGNALS: [Option<i32>; 2] = [Some(9), Some(15)];
        let said = self.said.join("\n");
        let end = if SIGNALS.contains(&status.signal()) {
            End::Killed
        } else if stdout.contains("interrupted: SIGTERM; the training is saved at ") {
            let again = Some(START_AGAIN.into());
            assert_eq!(status.code(), again, "{status}, after {said}\n{stdout}");
            End::Interrupted
        } else {
            assert!(status.success(), "{status}, after {said}\n{stdout}");
            let digest = stdout.lines().last().unwrap_or_default().to_owned();
            assert!(digest.starts_with("digest of the weights: "), "{stdout}");
            End::Finished { digest }
        };
        (end, self.said)
    }

    pub fn started(&self) -> Instant {
        self.started
    }
}

/// Damages a generation: changes one byte of its model.
pub fn damage(generation: &Path) {
    let part = generation.join("model.bpk");
    let mut bytes = std::fs::read(&part).unwrap();
    let middle = bytes.len() / 2;
    *bytes.get_mut(middle).unwrap() ^= 1;
    std::fs::write(part, bytes).unwrap();
}
