use std::path::Path;

use burn::train::SupervisedTraining;
use burn::train::checkpoint::KeepLastNCheckpoints;
use burn_backup_restore::{BackupAndRestore, BackupExt as _, Snapshot};
use clap::ValueEnum;

use crate::burns;
use crate::model::Stack;

/// The action after each epoch of a training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Variant {
    /// No action.
    Without,
    /// Our backup with its default settings.
    Ours,
    /// Our backup with a snapshot that pauses the training as long as it needs the training's
    /// tensors.
    Blocking,
    /// Burn's own checkpoint. Only the last one is kept.
    Burns,
}

impl Variant {
    /// Adds the action to a training, with its files in `dir`.
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
