use std::path::Path;

use burn::train::SupervisedTraining;
use burn::train::checkpoint::KeepLastNCheckpoints;
use burn_backup_restore::{BackupAndRestore, BackupExt as _, Snapshot};
use clap::ValueEnum;

use crate::burns;
use crate::model::Stack;

/// What is done after each epoch of a training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Variant {
    /// Nothing.
    Without,
    /// Our backup, as it is by default.
    Ours,
    /// Our backup, whose snapshot holds the training until it needs the training's tensors no
    /// longer.
    Blocking,
    /// Burn's own checkpoint, of which the last one is kept.
    Burns,
}

impl Variant {
    /// Adds it to a training, with its files in `dir`.
    pub fn add_to(
        self,
        training: SupervisedTraining<Stack>,
        dir: &Path,
    ) -> SupervisedTraining<Stack> {
        let backup = || BackupAndRestore::new(dir.join("backup"));
        match self {
            Self::Without => training,
            Self::Ours => training.backup_and_restore(backup()),
            Self::Blocking => training.backup_and_restore(backup().snapshot(Snapshot::Blocking)),
            Self::Burns => {
                let dir = dir.join("checkpoint");
                burns::with_checkpoints(training, &dir, KeepLastNCheckpoints::new(1))
            }
        }
    }
}
