//! Trainings in their own processes.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use burn_backup_tests::Backend;

/// A process that trains with a backup every `frequency` batches, or each epoch if that is 0. It follows the
/// instructions `told` (see the binary `trainee`).
pub fn trainee(backend: Backend, backup_dir: &Path, frequency: usize, told: &[&str]) -> Command {
    trainee_on(&format!("{backend:?}"), backup_dir, frequency, told)
}

/// The same on the backend or the server with this name.
pub fn trainee_on(backend: &str, backup_dir: &Path, frequency: usize, told: &[&str]) -> Command {
    let mut command = with_default_signals(env!("CARGO_BIN_EXE_trainee"));
    command
        .arg(backend)
        .arg(backup_dir)
        .arg(frequency.to_string())
        .args(told);
    if let Some(scratch) = backup_dir.parent() {
        // Files that a killed process leaves are deleted with the test.
        command.env("TMPDIR", scratch);
    }
    command
}

/// A process that doesn't ignore SIGINT. A shell makes its background processes ignore it, which may include
/// the tests. Each process passes that on to its children.
fn with_default_signals(program: &str) -> Command {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // The lowest bit belongs to signal 1.
    if ignored.is_none_or(|mask| mask & 0b10 == 0) {
        return Command::new(program);
    }
    let mut command = Command::new("env");
    command.arg("--default-signal=INT").arg(program);
    command
}

/// The start of the first line that a process prints about its result.
const FIRST: &str = "restored ";

/// The output of a process that ran to its end.
#[derive(Debug, Default)]
pub struct Said {
    /// Batches that were trained before this process.
    pub restored: usize,
    pub committed: usize,
    pub failed: usize,
    /// What ended the training; empty if nothing did.
    pub error: String,
    /// What has interrupted it; empty if nothing has.
    pub interrupted: String,
    /// Batches that were trained when it was saved after the interruption.
    pub stopped_at: Option<usize>,
    /// The notice of a preemption; empty if none came.
    pub notice: String,
    pub weights: String,
    /// Empty if nothing was trained.
    pub records: String,
    /// What the program's own handler got after the training; empty if nothing.
    pub heard: String,
}

impl Said {
    /// The outputs of several processes, one after the other.
    pub fn parse_each(stdout: &str) -> Vec<Self> {
        let mut each = Vec::new();
        for line in stdout.lines() {
            match each.last_mut() {
                Some(said) if !line.starts_with(FIRST) => *said = format!("{said}\n{line}"),
                _ => each.push(line.to_owned()),
            }
        }
        each.iter().map(|said| Self::parse(said)).collect()
    }

    pub fn parse(stdout: &str) -> Self {
        let mut said = Self::default();
        for line in stdout.lines() {
            let (what, value) = line.split_once(' ').unwrap_or((line, ""));
            match what {
                "restored" => said.restored = value.parse().unwrap(),
                "committed" => said.committed = value.parse().unwrap(),
                "failed" => said.failed = value.parse().unwrap(),
                "error" => value.clone_into(&mut said.error),
                "interrupted" => value.clone_into(&mut said.interrupted),
                "notice" => value.clone_into(&mut said.notice),
                "stopped-at" => said.stopped_at = value.parse().ok(),
                "weights" => value.clone_into(&mut said.weights),
                "heard" => value.clone_into(&mut said.heard),
                "records" => value.clone_into(&mut said.records),
                _ => {}
            }
        }
        said
    }
}

/// Runs a process until it ends in any way.
pub fn run(command: &mut Command) -> (ExitStatus, Said) {
    let output = command.stderr(Stdio::null()).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    (output.status, Said::parse(&stdout))
}

/// Runs a process that must succeed.
#[track_caller]
pub fn run_well(command: &mut Command) -> Said {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    Said::parse(&String::from_utf8(output.stdout).unwrap())
}

/// A process with the instruction `wait`, which waits now and then.
pub struct Waiting {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Waiting {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// Returns once the process waits. If it ends instead, the error is its output.
    pub fn waits(&mut self) -> Result<(), Box<Said>> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        if line == "waiting\n" {
            return Ok(());
        }
        self.stdout.read_to_string(&mut line).unwrap();
        Err(Box::new(Said::parse(&line)))
    }

    /// Lets the process continue.
    pub fn proceed(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets the process run to its end.
    pub fn end(mut self) -> Said {
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout).unwrap();
        assert!(self.child.wait().unwrap().success());
        Said::parse(&stdout)
    }
}

/// A process that runs `script` with `sh`, with the arguments from `$0` on.
pub fn shell<S: AsRef<OsStr>>(script: &str, arguments: &[S]) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).args(arguments);
    command
}

/// The trainee and its arguments, without the program that gives it the default signals.
pub fn trainee_itself(command: &Command) -> Vec<&OsStr> {
    let line = command_line(command).into_iter();
    line.skip_while(|argument| *argument != env!("CARGO_BIN_EXE_trainee"))
        .collect()
}

/// The program and its arguments.
pub fn command_line(command: &Command) -> Vec<&OsStr> {
    let program = std::iter::once(command.get_program());
    program.chain(command.get_args()).collect()
}
