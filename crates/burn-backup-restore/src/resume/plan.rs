//! Where a restored training and each of its loaders continue.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::train::TrainingError;

use super::{LOG, check};
use crate::change::{Change, Changes};
use crate::error::BackupError;
use crate::state::{DataProgress, Phase, TrainingState};

/// Where a training resumes.
#[derive(Debug, Clone)]
pub(crate) struct Resumption {
    pub(super) state: TrainingState,
    backup_dir: PathBuf,
    changes: Changes,
    /// Whether the data is split among the same number of devices as when the backup was made.
    is_same_split: bool,
}

impl Resumption {
    /// Checks that a training can resume at `state` with its data `split` among this many devices (see
    /// [`Execution::split`](crate::execution::Execution::split)). With a different number, each device sees other
    /// items, which is possible only at the start of an epoch.
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
            "the training continues with its data split among {} devices instead of {}: the next epochs have \
             their batches in a different order than an uninterrupted training",
            devices(split), devices(state.split),
        );
        Ok(resumption)
    }

    /// The number of items in the first batch of the epoch begun last, on the first device.
    pub(crate) fn first_batch(&self) -> Option<usize> {
        let recorded = self.state.recorded(0);
        recorded.map(|data| data.first_batch_items)
    }

    /// Where the loader of the device with this index continues.
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

/// Where a loader continues.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The number of iterators requested before the current epoch.
    pub iterators: usize,
    /// The number of batches that it has given in that epoch.
    pub batches: usize,
    pub phase: Phase,
    /// Whether any batch was trained.
    pub has_trained: bool,
    /// The progress recorded in the backup, if it can be compared.
    pub recorded: Option<DataProgress>,
    /// Whether this is the only loader. One of several loaders may have fewer batches in an epoch.
    pub is_only_loader: bool,
    /// Whether this is the first loader, which logs for all of them.
    pub is_first: bool,
    pub backup_dir: PathBuf,
    pub changes: Changes,
}

impl Plan {
    /// The change that causes the error, if it is allowed.
    pub(super) fn allows(&self, error: &TrainingError) -> Option<Change> {
        match BackupError::find(error) {
            Some(BackupError::DataMismatch { change, .. }) if self.changes.allows(*change) => {
                Some(*change)
            }
            _ => None,
        }
    }
}
