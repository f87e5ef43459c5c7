//! The S3 server, in a process of its own.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context as _, Result};
use clap::Args;
use s3_server::S3Server;

use crate::child::Child;

/// The hidden subcommand that [`serve_alone`] is.
pub const SUBCOMMAND: &str = "serve";

/// The server of one process.
#[derive(Debug, Args)]
pub struct Alone {
    #[arg(long)]
    dir: PathBuf,
}

/// A server that is killed when it is dropped. A server elsewhere takes nothing of the processors here, and this one only
/// what the training leaves.
pub struct Server {
    process: process::Child,
    endpoint: String,
}

impl Server {
    /// Starts one with its objects in `dir`.
    pub fn start(dir: &Path) -> Result<Self> {
        let errors = tempfile::tempfile().context("cannot make a file")?;
        let child = Child::of_lowest_priority(SUBCOMMAND)?.option("--dir", dir);
        let mut process = child.start(errors)?;
        let output = process.stdout.take().context("it has no output")?;
        let mut endpoint = String::new();
        BufReader::new(output).read_line(&mut endpoint)?;
        Ok(Self {
            process,
            endpoint: endpoint.trim().to_owned(),
        })
    }

    /// Its URL.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Serves until it is killed.
pub fn serve_alone(alone: &Alone) -> Result<()> {
    let server = S3Server::start(&alone.dir)?;
    writeln!(io::stdout(), "{}", server.endpoint())?;
    loop {
        std::thread::park();
    }
}
