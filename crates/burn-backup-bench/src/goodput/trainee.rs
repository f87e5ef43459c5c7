//! The training that is killed. It runs in its own process, and reports its progress on its
//! standard output.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Result;
use burn_backup_restore::{BackupAndRestore, BackupExt as _, BackupHandle};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::child::Child;
use crate::feed::{EpochLengths, Feed};
use crate::goodput::policy::Policy;
use crate::state::State;
use crate::{model, training};

/// The hidden subcommand that runs [`train_in_child`].
pub const SUBCOMMAND: &str = "train";

/// A training, in the form that each of its processes gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub struct Training {
    #[arg(long, value_parser = State::named)]
    pub state: State,
    /// The number of batches in an epoch.
    #[arg(long)]
    pub batches: usize,
    #[arg(long)]
    pub epochs: usize,
}

impl Training {
    /// The number of batches in all epochs.
    pub fn total(&self) -> u64 {
        self.batches as u64 * self.epochs as u64
    }
}

/// The arguments of a process.
#[derive(Debug, Args)]
pub struct ChildArgs {
    #[command(flatten)]
    training: Training,
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    policy: Policy,
    /// The epoch of Burn's checkpoint to resume from.
    #[arg(long)]
    checkpoint: Option<usize>,
}

impl ChildArgs {
    /// A process of `training` with its files in `dir`.
    pub fn new(training: Training, dir: PathBuf, policy: Policy) -> Self {
        Self {
            training,
            dir,
            policy,
            checkpoint: None,
        }
    }

    /// Resumes from this checkpoint of Burn.
    pub fn at_checkpoint(mut self, checkpoint: Option<usize>) -> Self {
        self.checkpoint = checkpoint;
        self
    }

    /// The directory for its files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The process, which is not started yet.
    pub fn child(&self) -> Result<Child> {
        let child = Child::new(SUBCOMMAND)?
            .option("--state", self.training.state.name)
            .option("--batches", self.training.batches.to_string())
            .option("--epochs", self.training.epochs.to_string())
            .option("--dir", &self.dir)
            .option("--policy", self.policy.to_string())
            .steady_heap();
        Ok(match self.checkpoint {
            Some(checkpoint) => child.option("--checkpoint", checkpoint.to_string()),
            None => child,
        })
    }
}

/// A report of a process: one line of JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// The process begins or resumes after this number of batches.
    Resumed(u64),
    /// The process has trained another batch. Contains the total number of trained batches.
    Trained(u64),
}

/// Trains, and reports each trained batch.
pub fn train_in_child(args: &ChildArgs) -> Result<()> {
    let Training {
        state,
        batches,
        epochs,
    } = args.training;
    let backup = args.policy.backup(&args.dir);
    let handle = backup.as_ref().map(BackupAndRestore::handle);
    let from_checkpoint = args.checkpoint.unwrap_or(0) * batches;
    let resumed_at = move || match handle.as_ref().and_then(BackupHandle::restored_from) {
        Some(position) => position.global_step,
        None => from_checkpoint as u64,
    };
    let feed = marking(state.feed(EpochLengths::all(batches)), resumed_at);
    let training = training::supervised(&args.dir, feed, epochs);
    let training = match backup {
        Some(backup) => training.backup_and_restore(backup),
        None if args.policy == Policy::Burns => training.with_default_checkpointers(),
        None => training,
    };
    let training = match args.checkpoint {
        Some(checkpoint) => training.checkpoint(checkpoint),
        None => training,
    };
    training::run(training, state.fresh_learner())
}

/// A loader that reports the trained batches whenever it is asked for a batch.
///
/// It uses the model's count, because it is also asked for batches that a restore skips.
fn marking(feed: Feed, resumed_at: impl Fn() -> u64 + Send + 'static) -> Feed {
    let mut begun = None;
    let mut reported = 0;
    feed.on_pause(move |_| {
        let resumed = *begun.get_or_insert_with(|| {
            let resumed = resumed_at();
            report(Mark::Resumed(resumed));
            resumed
        });
        let taken = model::steps_taken();
        if taken > reported {
            reported = taken;
            report(Mark::Trained(resumed + taken));
        }
    })
}

fn report(mark: Mark) {
    let reported = serde_json::to_string(&mark)
        .map_err(io::Error::from)
        .and_then(|line| writeln!(io::stdout(), "{line}"));
    if reported.is_err() {
        // The parent process is gone, so nothing else would end this process.
        std::process::exit(1);
    }
}
