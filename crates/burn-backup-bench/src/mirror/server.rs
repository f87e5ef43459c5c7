//! The S3 server, in its own process.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context as _, Result};
use clap::Args;
use s3_server::S3Server;

use crate::child::Child;

/// The hidden subcommand that runs [`serve_in_child`].
pub const SUBCOMMAND: &str = "serve";

/// The arguments of a process.
#[derive(Debug, Args)]
pub struct ChildArgs {
    #[arg(long)]
    dir: PathBuf,
}

/// A server that is killed when it is dropped. It uses only the processor time that the training leaves, because a
/// server on another machine would use none.
pub struct Server {
    process: process::Child,
    endpoint: String,
}

impl Server {
    /// Starts a server with its objects in `dir`.
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

    /// The URL of the server.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The server may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Serves until it is killed.
pub fn serve_in_child(args: &ChildArgs) -> Result<()> {
    let server = S3Server::start(&args.dir)?;
    writeln!(io::stdout(), "{}", server.endpoint())?;
    loop {
        std::thread::park();
    }
}
