//! The training that is killed: a process of its own, which says on its standard output what it has
//! trained.

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

/// The hidden subcommand that [`train_alone`] is.
pub const SUBCOMMAND: &str = "train";

/// A training, as its first process and each later one is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub struct Training {
    #[arg(long, value_parser = State::named)]
    pub state: State,
    /// How many batches an epoch has.
    #[arg(long)]
    pub batches: usize,
    #[arg(long)]
    pub epochs: usize,
}

impl Training {
    /// How many batches it has in all its epochs.
    pub fn total(&self) -> u64 {
        self.batches as u64 * self.epochs as u64
    }
}

/// What a process is told.
#[derive(Debug, Args)]
pub struct Alone {
    #[command(flatten)]
    training: Training,
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    policy: Policy,
    /// Which of Burn's checkpoints to resume from.
    #[arg(long)]
    checkpoint: Option<usize>,
}

impl Alone {
    /// A process of `training` with its files in `dir`.
    pub fn new(training: Training, dir: PathBuf, policy: Policy) -> Self {
        Self {
            training,
            dir,
            policy,
            checkpoint: None,
        }
    }

    /// Resumes from that one of Burn's checkpoints.
    pub fn at_checkpoint(mut self, checkpoint: Option<usize>) -> Self {
        self.checkpoint = checkpoint;
        self
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The process, not started yet.
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

/// What a process says: one line of JSON each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// It begins or resumes with so many batches trained.
    Resumed(u64),
    /// It has trained one more, which makes so many of the whole training.
    Trained(u64),
}

/// Trains, and says after each batch that it is trained.
pub fn train_alone(alone: &Alone) -> Result<()> {
    let Training {
        state,
        batches,
        epochs,
    } = alone.training;
    let backup = alone.policy.backup(&alone.dir);
    let handle = backup.as_ref().map(BackupAndRestore::handle);
    let from_checkpoint = alone.checkpoint.unwrap_or(0) * batches;
    let resumed_at = move || match handle.as_ref().and_then(BackupHandle::restored_from) {
        Some(position) => position.global_step,
        None => from_checkpoint as u64,
    };
    let feed = marking(state.feed(EpochLengths::all(batches)), resumed_at);
    let training = training::supervised(&alone.dir, feed, epochs);
    let training = match backup {
        Some(backup) => training.backup_and_restore(backup),
        None if alone.policy == Policy::Burns => training.with_default_checkpointers(),
        None => training,
    };
    let training = match alone.checkpoint {
        Some(checkpoint) => training.checkpoint(checkpoint),
        None => training,
    };
    training::run(training, state.fresh_learner())
}

/// A loader that says what is trained whenever it is asked for a batch. It is also asked for those
/// that are skipped after a restore; so the model counts.
fn marking(feed: Feed, resumed_at: impl Fn() -> u64 + Send + 'static) -> Feed {
    let mut begun = None;
    let mut said = 0;
    feed.on_pause(move |_| {
        let resumed = *begun.get_or_insert_with(|| {
            let resumed = resumed_at();
            say(Mark::Resumed(resumed));
            resumed
        });
        let taken = model::steps_taken();
        if taken > said {
            said = taken;
            say(Mark::Trained(resumed + taken));
        }
    })
}

fn say(mark: Mark) {
    let said = serde_json::to_string(&mark)
        .map_err(io::Error::from)
        .and_then(|line| writeln!(io::stdout(), "{line}"));
    if said.is_err() {
        // The measurement is gone. Nobody else would end this process.
        std::process::exit(1);
    }
}
