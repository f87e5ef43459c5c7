//! Where a restored training goes on, and where each of its loaders does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::train::TrainingError;

use super::{LOG, check};
use crate::change::{Change, Changes};
use crate::error::BackupError;
use crate::state::{DataProgress, Phase, TrainingState};

/// Where a training is resumed.
#[derive(Debug, Clone)]
pub(crate) struct Resumption {
    pub(super) state: TrainingState,
    backup_dir: PathBuf,
    changes: Changes,
    /// Whether the data is split among the devices as it was when the backup was made.
    is_same_split: bool,
}

impl Resumption {
    /// Checks that a training, whose data is `split` among so many devices, can be taken up at
    /// `state` (see [`Execution::split`](crate::execution::Execution::split)). Among another number of
    /// devices each sees other items: that works at an epoch's start.
    pub(crate) fn new(
        state: &TrainingState,
        split: Option<usize>,
        changes: &Changes,
        train_items: usize,
        backup_dir: &Path,
    ) -> Result<Self, TrainingError> {
        let resumption = Self {
            state: state.clone(),
            backup_dir: backup_dir.to_path_buf(),
            changes: changes.clone(),
            is_same_split: state.split == split,
        };
        if resumption.is_same_split {
            return Ok(resumption);
        }
        let devices = |split: Option<usize>| split.unwrap_or(1);
        if state.position.step_in_epoch > 0 && state.phase == Phase::Train {
            let error = BackupError::DevicesMismatch {
                path: backup_dir.to_path_buf(),
                position: state.position,
                recorded: devices(state.split),
                found: devices(split),
            };
            return Err(BackupError::into_training_error(Arc::new(error)));
        }
        let recorded = state.items_total();
        let is_changed = recorded > 0 && train_items > 0 && recorded != train_items;
        if is_changed && !changes.allows(Change::Data) {
            let what = "the number of items in an epoch";
            return Err(check::mismatch(
                backup_dir,
                Change::Data,
                what,
                recorded,
                train_items,
            ));
        }
        log::warn!(
            target: LOG,
            "the training goes on with its data split among {} devices, and among {} before: the \
             next epochs have their batches in another order than the undisturbed training",
            devices(split), devices(state.split),
        );
        Ok(resumption)
    }

    /// How many items the first batch had of the epoch that was begun last, on the first device.
    pub(crate) fn first_batch(&self) -> Option<usize> {
        let recorded = self.state.recorded(0);
        recorded.map(|data| data.first_batch_items)
    }

    /// Where the loader of the device with this index goes on.
    pub(crate) fn loader(&self, device: usize) -> Plan {
        let state = &self.state;
        let recorded = state.recorded(device).filter(|_| self.is_same_split);
        Plan {
            iterators: state.epochs_done(),
            batches: state.position.step_in_epoch,
            phase: state.phase,
            has_trained: state.position.global_step > 0,
            recorded: recorded.copied(),
            is_only_loader: state.split.is_none(),
            is_first: device == 0,
            backup_dir: self.backup_dir.clone(),
            changes: self.changes.clone(),
        }
    }
}

/// Where a loader goes on.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// How many iterators it was asked for before the epoch in progress.
    pub iterators: usize,
    /// How many batches of that epoch it has given.
    pub batches: usize,
    pub phase: Phase,
    /// Whether a batch was trained at all.
    pub has_trained: bool,
    /// What it said when the backup was made, if that can be compared.
    pub recorded: Option<DataProgress>,
    /// Of several loaders, some may have fewer batches in an epoch.
    pub is_only_loader: bool,
    /// Of several loaders, this one speaks for all.
    pub is_first: bool,
    pub backup_dir: PathBuf,
    pub changes: Changes,
}

impl Plan {
    /// Whether the error is of a change that is meant to be.
    pub(super) fn allows(&self, error: &TrainingError) -> Option<Change> {
        match BackupError::find(error) {
            Some(BackupError::DataMismatch { change, .. }) if self.changes.allows(*change) => {
                Some(*change)
            }
            _ => None,
        }
    }
}
