//! An S3 server on loopback that runs until it is killed. Prints the environment that its clients need.

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use s3_server::{ACCESS_KEY, S3Server, SECRET_KEY};

/// An S3 server on loopback that runs until it is killed.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where the objects are.
    directory: PathBuf,

    /// The port; any that is free if none is given.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let server = S3Server::start_at(arguments.directory, arguments.port)?;
    let mut output = io::stdout().lock();
    writeln!(output, "AWS_ENDPOINT_URL={}", server.endpoint())?;
    writeln!(output, "AWS_ACCESS_KEY_ID={ACCESS_KEY}")?;
    writeln!(output, "AWS_SECRET_ACCESS_KEY={SECRET_KEY}")?;
    writeln!(output, "AWS_REGION=us-east-1")?;
    output.flush()?;
    loop {
        std::thread::park();
    }
}
