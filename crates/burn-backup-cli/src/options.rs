use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{
    completions, diff, discard, doctor, export, history, list, man, migrate, prune, pull, push,
    show, unquarantine, verify,
};
use crate::exit;
use crate::output::Output;

/// Inspects, verifies, exports and maintains backups of trainings with Burn.
///
/// PLACE is a backup directory, or the URL of a mirror: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or
/// file:///DIRECTORY. Commands that only read don't disturb a running training.
#[derive(Debug, Parser)]
#[command(name = "burn-backup", version, after_help = exit::HELP, disable_help_subcommand = true)]
pub struct Options {
    /// Prints one JSON document. `run` prints one line of JSON for each event, on the standard error.
    #[arg(long, global = true)]
    pub json: bool,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    List(list::Args),
    Show(show::Args),
    Verify(verify::Args),
    History(history::Args),
    Export(export::Args),
    Prune(prune::Args),
    Discard(discard::Args),
    Unquarantine(unquarantine::Args),
    Pull(pull::Args),
    Push(push::Args),
    Migrate(migrate::Args),
    Doctor(doctor::Args),
    #[cfg(unix)]
    Run(crate::run::Arguments),
    Completions(completions::Args),
    Man(man::Args),
}

impl Command {
    pub fn run(&self, output: &Output) -> anyhow::Result<ExitCode> {
        let exit = match self {
            // It ends with the exit code of the command that it runs.
            #[cfg(unix)]
            Self::Run(arguments) => return crate::run::run(arguments, output.is_json()),
            Self::List(args) => list::run(args, output)?,
            Self::Show(args) => match args.diff.as_slice() {
                [from, to] => diff::run(args, *from, *to, output)?,
                _ => show::run(args, output)?,
            },
            Self::Verify(args) => verify::run(args, output)?,
            Self::History(args) => history::run(args, output)?,
            Self::Export(args) => export::run(args, output)?,
            Self::Prune(args) => prune::run(args, output)?,
            Self::Discard(args) => discard::run(args, output)?,
            Self::Unquarantine(args) => unquarantine::run(args, output)?,
            Self::Pull(args) => pull::run(args, output)?,
            Self::Push(args) => push::run(args, output)?,
            Self::Migrate(args) => migrate::run(args, output)?,
            Self::Doctor(args) => doctor::run(args, output)?,
            Self::Completions(args) => completions::run(args, output)?,
            Self::Man(args) => man::run(args, output)?,
        };
        Ok(exit.into())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_options_are_valid() {
        Options::command().debug_assert();
    }
}
