use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::{memory, overhead};

/// Measures backups against Burn's own checkpoints, and both against the bare disk and memory.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct Options {
    /// Where the results are written as JSON.
    #[arg(long, value_name = "PATH", default_value = "backup-bench.json")]
    pub json: PathBuf,

    /// Where backups are written, in a new directory that is removed at the end: the file system
    /// to be measured.
    #[arg(long, value_name = "PATH", default_value = ".")]
    pub dir: PathBuf,

    /// Takes only this measurement. Can be given several times.
    #[arg(long, value_enum, value_name = "NAME")]
    pub only: Vec<Measurement>,

    /// Checks that everything runs, on small states and with few repetitions. The numbers say
    /// little.
    #[arg(long)]
    pub quick: bool,

    /// What to do when it has called itself.
    #[command(subcommand)]
    pub task: Option<Task>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Measurement {
    /// How long a backup holds the training thread.
    Stall,
    /// What backups add to a training's time.
    Overhead,
    /// How fast backups get to the disk.
    Persist,
    /// How long it takes to continue a training.
    Restore,
    /// How much memory backups take.
    Memory,
    /// How long the batches of a loader take.
    Loading,
    /// What a session adds to each step of a loop.
    Session,
}

/// What this program does in a process of its own.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Trains, and prints the most memory that was allocated.
    #[command(hide = true, name = memory::SUBCOMMAND)]
    Peak(memory::Alone),
    /// Trains with and without backups in turn, and prints the times.
    #[command(hide = true, name = overhead::SUBCOMMAND)]
    Turns(overhead::Alone),
}

impl Options {
    /// What to measure, in the order of the table.
    pub fn measurements(&self) -> Vec<Measurement> {
        Measurement::value_variants()
            .iter()
            .copied()
            .filter(|measurement| self.only.is_empty() || self.only.contains(measurement))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurements(arguments: &[&str]) -> Vec<Measurement> {
        let program = ["burn-backup-bench"];
        Options::parse_from(program.iter().chain(arguments)).measurements()
    }

    #[test]
    fn everything_is_measured_unless_something_is_picked() {
        assert_eq!(measurements(&[]).len(), 7);
        assert_eq!(
            measurements(&["--only", "restore", "--only", "stall"]),
            [Measurement::Stall, Measurement::Restore]
        );
    }
}
