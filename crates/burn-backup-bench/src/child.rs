//! Measurements that need a process of their own: this program calls itself.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{self, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::device::Backend;

/// Makes glibc's allocator keep the memory that it has, where it gives some back by default.
const STEADY_HEAP: (&str, &str) = (
    "GLIBC_TUNABLES",
    "glibc.malloc.trim_threshold=1099511627776:glibc.malloc.mmap_threshold=33554432",
);

/// This program, with a hidden subcommand.
pub struct Child {
    name: &'static str,
    command: Command,
}

impl Child {
    /// A process that runs `subcommand`.
    pub fn new(subcommand: &'static str) -> Result<Self> {
        Self::of(Command::new(program()?), subcommand)
    }

    /// The same, with what other processes leave of the processors.
    pub fn of_lowest_priority(subcommand: &'static str) -> Result<Self> {
        let mut command = Command::new("chrt");
        command.args(["--idle", "0"]).arg(program()?);
        Self::of(command, subcommand)
    }

    fn of(mut command: Command, subcommand: &'static str) -> Result<Self> {
        command.arg(subcommand).stderr(Stdio::inherit());
        let child = Self {
            name: subcommand,
            command,
        };
        Ok(child.option("--device", Backend::chosen().name()))
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

    /// With an allocator that takes as long for a step with backups as for one without: see
    /// [`overhead`](crate::overhead).
    pub fn steady_heap(mut self) -> Self {
        let (name, value) = STEADY_HEAP;
        self.command.env(name, value);
        self
    }

    /// Starts it, with its standard output in a pipe and its standard error in `errors`.
    pub fn start(mut self, errors: File) -> Result<process::Child> {
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .context("this program can't be started once more")
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

fn program() -> Result<PathBuf> {
    std::env::current_exe().context("this program can't be found")
}

/// Answers the process that has started this one.
pub fn answer(answer: &impl Serialize) -> Result<()> {
    writeln!(io::stdout(), "{}", serde_json::to_string(answer)?).context("nobody hears the answer")
}
