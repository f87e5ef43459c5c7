//! `completions`: prints the completion script for a shell.

use anyhow::Result;
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::exit::Exit;
use crate::options::Options;
use crate::output::Output;

/// Prints a script that completes the arguments of burn-backup in a shell
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

pub fn run(args: &Args, output: &Output) -> Result<Exit> {
    let mut script = Vec::new();
    let mut command = Options::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    output.write(&script)?;
    Ok(Exit::Good)
}
