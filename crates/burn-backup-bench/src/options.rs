use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::device::Backend;
use crate::state::State;
use crate::{goodput, memory, mirror, overhead};

/// Measures backups against Burn's own checkpoints, and both against the bare disk and memory.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct Options {
    /// The file for the results, as JSON.
    #[arg(long, value_name = "PATH", default_value = "backup-bench.json")]
    pub json: PathBuf,

    /// The directory whose file system is measured. Backups are written in a new directory in it,
    /// which is removed at the end.
    #[arg(long, value_name = "PATH", default_value = ".")]
    pub dir: PathBuf,

    /// The directory for the charts, as SVG. The default is the directory of the JSON file.
    #[arg(long, value_name = "DIR")]
    pub charts: Option<PathBuf>,

    /// Takes only this measurement. Can be given several times. Goodput takes hours, and is
    /// measured only if it is named.
    #[arg(long, value_enum, value_name = "NAME")]
    pub only: Vec<Measurement>,

    /// The measured states. The default is 1M, 10M, 63M and "2000 tensors". There is also 250M, which takes 10 GB of
    /// memory and 12 GB of the disk.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = State::named)]
    pub states: Vec<State>,

    /// The device of the trainings. A GPU must be among the features of the build.
    #[arg(long, value_enum, value_name = "NAME", default_value_t, global = true)]
    pub device: Backend,

    /// Checks that everything runs, on small states with few repetitions. The results have little
    /// meaning.
    #[arg(long)]
    pub quick: bool,

    #[command(flatten)]
    pub goodput: goodput::Settings,

    /// Another task, or the task of a child process.
    #[command(subcommand)]
    pub task: Option<Task>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Measurement {
    /// How long a backup pauses the training thread.
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
    /// How much of the time a training makes progress if it is killed again and again.
    Goodput,
}

/// Tasks other than measuring, and tasks of child processes.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Draws the charts and prints the table from earlier measurements.
    Charts(Charts),
    /// Trains, and prints the peak of allocated memory.
    #[command(hide = true, name = memory::SUBCOMMAND)]
    Peak(memory::ChildArgs),
    /// Trains with and without backups in turn, and prints the times.
    #[command(hide = true, name = overhead::SUBCOMMAND)]
    Turns(overhead::ChildArgs),
    /// Trains, and reports its progress, until it is killed.
    #[command(hide = true, name = goodput::SUBCOMMAND)]
    Train(goodput::ChildArgs),
    /// Runs an S3 server until it is killed.
    #[command(hide = true, name = mirror::SUBCOMMAND)]
    Serve(mirror::ChildArgs),
}

/// The sources and the destination of charts.
#[derive(Debug, Args)]
pub struct Charts {
    /// The JSON files of one or several measurements, oldest first. Later results replace earlier
    /// ones of the same kind.
    #[arg(required = true, value_name = "FROM")]
    pub from: Vec<PathBuf>,

    /// The directory for the charts, as SVG. The default is the directory of the first JSON file.
    #[arg(long, value_name = "DIR")]
    pub charts: Option<PathBuf>,
}

impl Options {
    /// The measurements to take, in the order of the table.
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
    fn everything_except_goodput_is_measured_by_default() {
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
