use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::device::Backend;
use crate::state::State;
use crate::{goodput, memory, mirror, overhead};

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

    /// Where the charts are written as SVG; beside the JSON unless it is given.
    #[arg(long, value_name = "DIR")]
    pub charts: Option<PathBuf>,

    /// Takes only this measurement. Can be given several times. Goodput takes hours, and is only
    /// measured when it is given.
    #[arg(long, value_enum, value_name = "NAME")]
    pub only: Vec<Measurement>,

    /// The states that are measured: 1M, 10M, 63M and "2000 tensors" unless some are named. There is 250M too,
    /// which takes 10 GB of memory and 12 GB of the disk.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = State::named)]
    pub states: Vec<State>,

    /// What the trainings run on. A GPU has to be among the features of the build.
    #[arg(long, value_enum, value_name = "NAME", default_value_t, global = true)]
    pub device: Backend,

    /// Checks that everything runs, on small states and with few repetitions. The numbers say
    /// little.
    #[arg(long)]
    pub quick: bool,

    #[command(flatten)]
    pub goodput: goodput::Settings,

    /// What to do instead, or when it has called itself.
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
    /// What a mirror costs, and how fast it is.
    Mirror,
    /// How long the batches of a loader take.
    Loading,
    /// What a session adds to each step of a loop.
    Session,
    /// How much of the time a training makes progress that is killed again and again.
    Goodput,
}

/// What this program does instead of measuring, and in a process of its own.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Makes the charts, and prints the table, from what was measured before.
    Charts(Charts),
    /// Trains, and prints the most memory that was allocated.
    #[command(hide = true, name = memory::SUBCOMMAND)]
    Peak(memory::Alone),
    /// Trains with and without backups in turn, and prints the times.
    #[command(hide = true, name = overhead::SUBCOMMAND)]
    Turns(overhead::Alone),
    /// Trains, and says what is trained, until it is killed.
    #[command(hide = true, name = goodput::SUBCOMMAND)]
    Train(goodput::Alone),
    /// An S3 server, until it is killed.
    #[command(hide = true, name = mirror::SUBCOMMAND)]
    Serve(mirror::Alone),
}

/// What charts are made from.
#[derive(Debug, Args)]
pub struct Charts {
    /// The JSON files of one measurement, or of several that were taken one after the other. What a
    /// later one holds replaces what an earlier one holds of the same.
    #[arg(required = true, value_name = "FROM")]
    pub from: Vec<PathBuf>,

    /// Where the charts are written as SVG; beside the first JSON file unless it is given.
    #[arg(long, value_name = "DIR")]
    pub charts: Option<PathBuf>,
}

impl Options {
    /// What to measure, in the order of the table.
    pub fn measurements(&self) -> Vec<Measurement> {
        Measurement::value_variants()
            .iter()
            .copied()
            .filter(|measurement| match self.only.as_slice() {
                [] => *measurement != Measurement::Goodput,
                only => only.contains(measurement),
            })
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
    fn everything_but_goodput_is_measured_unless_something_is_picked() {
        assert_eq!(measurements(&[]).len(), 8);
        assert_eq!(
            measurements(&["--only", "restore", "--only", "stall"]),
            [Measurement::Stall, Measurement::Restore]
        );
        assert_eq!(
            measurements(&["--only", "goodput", "--mtbf", "5,15,60"]),
            [Measurement::Goodput]
        );
    }
}
