//! Measurements that need their own process: the program starts itself again.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{self, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::device::Backend;

/// Makes glibc's allocator keep memory that it returns to the system by default.
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

    /// A process with the lowest priority, which runs only when a processor is idle.
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

    /// Adds a flag.
    pub fn flag(mut self, flag: &str) -> Self {
        self.command.arg(flag);
        self
    }

    /// Adds an option.
    pub fn option(self, option: &str, value: impl AsRef<OsStr>) -> Self {
        let mut child = self.flag(option);
        child.command.arg(value);
        child
    }

    /// Makes a step with backups as fast in the allocator as a step without. See
    /// [`overhead`](crate::overhead).
    pub fn steady_heap(mut self) -> Self {
        let (name, value) = STEADY_HEAP;
        self.command.env(name, value);
        self
    }

    /// Starts the process, with its standard output in a pipe and its standard error in `errors`.
    pub fn start(mut self, errors: File) -> Result<process::Child> {
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .context("this program can't be started again")
    }

    /// Runs the process, and returns its [`answer`].
    pub fn run<T: DeserializeOwned>(mut self) -> Result<T> {
        let output = self
            .command
            .output()
            .context("this program can't be started again")?;
        ensure!(
            output.status.success(),
            "`{}` failed in its own process: {}",
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

/// Sends an answer to the process that started this one.
pub fn answer(answer: &impl Serialize) -> Result<()> {
    writeln!(io::stdout(), "{}", serde_json::to_string(answer)?)
        .context("the answer cannot be sent")
}
