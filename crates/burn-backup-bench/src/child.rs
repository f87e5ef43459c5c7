//! Measurements that need a process of their own: this program calls itself.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// This program, with a hidden subcommand.
pub struct Child {
    name: &'static str,
    command: Command,
}

impl Child {
    /// A process that runs `subcommand`.
    pub fn new(subcommand: &'static str) -> Result<Self> {
        let program = std::env::current_exe().context("this program can't be found")?;
        let mut command = Command::new(program);
        command.arg(subcommand).stderr(Stdio::inherit());
        Ok(Self {
            name: subcommand,
            command,
        })
    }

    /// With a flag.
    pub fn flag(mut self, flag: &str) -> Self {
        self.command.arg(flag);
        self
    }

    /// With an option.
    pub fn option(self, option: &str, value: impl AsRef<OsStr>) -> Self {
        let mut child = self.flag(option);
        child.command.arg(value);
        child
    }

    /// With an environment variable.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it, and gives what it has [`answer`]ed.
    pub fn run<T: DeserializeOwned>(mut self) -> Result<T> {
        let output = self
            .command
            .output()
            .context("this program can't be started once more")?;
        ensure!(
            output.status.success(),
            "`{}` failed in a process of its own: {}",
            self.name,
            output.status,
        );
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("`{}` gave no answer", self.name))
    }
}

/// Answers the process that has started this one.
pub fn answer(answer: &impl Serialize) -> Result<()> {
    writeln!(io::stdout(), "{}", serde_json::to_string(answer)?).context("nobody hears the answer")
}
