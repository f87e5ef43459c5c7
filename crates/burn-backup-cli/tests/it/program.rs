//! Runs the program.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A temporary directory in which the program runs.
pub struct Scratch {
    temporary: TempDir,
}

/// The result of a run.
pub struct Ran {
    pub command: String,
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Scratch {
    pub fn new() -> Self {
        Self {
            temporary: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self) -> PathBuf {
        self.temporary.path().canonicalize().unwrap()
    }

    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.path().join(path)
    }

    /// Creates a directory for a mirror, and returns its URL.
    pub fn mirror(&self, name: &str) -> String {
        std::fs::create_dir_all(self.join(name)).unwrap();
        format!("file://{}", self.join(name).display())
    }

    /// The program with these arguments, separated by spaces.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_burn-backup"));
        command.args(arguments.split_whitespace());
        command.current_dir(self.path()).stdin(Stdio::null());
        for name in ["CI", "NO_COLOR", "RUST_LOG"] {
            command.env_remove(name);
        }
        command
    }

    pub fn run(&self, arguments: &str) -> Ran {
        Ran::of(arguments, &self.command(arguments).output().unwrap())
    }
}

impl Ran {
    pub fn of(arguments: &str, output: &Output) -> Self {
        Self {
            command: format!("burn-backup {arguments}"),
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout.clone()).unwrap(),
            err: String::from_utf8(output.stderr.clone()).unwrap(),
        }
    }

    #[track_caller]
    pub fn good(self) -> Self {
        self.ends_with(0)
    }

    #[track_caller]
    pub fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.text());
        self
    }

    /// Checks that the error output contains all of these.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(
                self.err.contains(text),
                "{text:?} is not in {}",
                self.text()
            );
        }
        self
    }

    #[track_caller]
    pub fn prints(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(
                self.out.contains(text),
                "{text:?} is not in {}",
                self.text()
            );
        }
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The whole output, as in a terminal.
    pub fn text(&self) -> String {
        let mut text = format!("$ {}\n{}", self.command, self.out);
        for line in self.err.lines() {
            writeln!(text, "! {line}").unwrap();
        }
        if self.code != 0 {
            writeln!(text, "exit code {}", self.code).unwrap();
        }
        text
    }
}
