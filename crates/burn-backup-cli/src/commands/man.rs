//! `man`: prints or writes the manual pages.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::atomic_write;
use crate::exit::Exit;
use crate::options::Options;
use crate::output::Output;

/// Prints the manual page, or writes the pages of all commands
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory for the pages of all commands
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
}

pub fn run(args: &Args, output: &Output) -> Result<Exit> {
    let command = Options::command();
    match &args.to {
        None => output.write(&page(command)?)?,
        Some(dir) => {
            let name = command.get_name().to_owned();
            for subcommand in command.get_subcommands() {
                let name = format!("{name}-{}", subcommand.get_name());
                // clap needs a name that lives as long as the program.
                let named: &'static str = name.clone().leak();
                let page = page(subcommand.clone().name(named))?;
                put(&dir.join(format!("{name}.1")), &page)?;
            }
            put(&dir.join(format!("{name}.1")), &page(command)?)?;
        }
    }
    Ok(Exit::Good)
}

fn page(command: clap::Command) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    let rendered = Man::new(command).render(&mut page);
    rendered.context("cannot create the manual page")?;
    Ok(page)
}

fn put(path: &std::path::Path, page: &[u8]) -> Result<()> {
    atomic_write::write(path, true, |file| {
        let written = file.write_all(page);
        written.with_context(|| format!("cannot write '{}'", path.display()))
    })
}
