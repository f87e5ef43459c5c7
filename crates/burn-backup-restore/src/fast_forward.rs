//! Bringing the loaders to where they were: as many iterators as the undisturbed training had asked
//! for, and the trained batches skipped.

use std::path::Path;
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator};
use burn::train::TrainingError;

use crate::burn_api::{self, Items};
use crate::error::BackupError;
use crate::state::{Phase, TrainingState};

/// What is left of the epoch in progress.
pub(crate) enum Rest<'l, O> {
    /// The epoch has not begun: its iterator is still to be asked for.
    WholeEpoch,
    /// Batches are left, `first` among them.
    Batches {
        first: O,
        iterator: Box<dyn DataLoaderIterator<O> + 'l>,
    },
    /// Only the validation is left.
    Validation,
}

/// Brings the training loader to the position in `state`, and checks on the way that it yields
/// what it did when the backup was made. `seed_step` is called before the first batch that is
/// still to be trained is fetched.
pub(crate) fn train_loader<'l, O>(
    loader: &'l Arc<dyn DataLoader<O>>,
    state: &TrainingState,
    backup_dir: &Path,
    seed_step: impl FnOnce(),
) -> Result<Rest<'l, O>, TrainingError> {
    let check = Check { state, backup_dir };
    let done = state.epochs_done();
    let is_between_epochs = state.position.step_in_epoch == 0;
    for epoch in 1..=done {
        let mut iterator = loader.iter();
        // Between epochs, the batch size shows in the epoch before.
        if is_between_epochs && epoch == done {
            check.first_batch(iterator.as_mut())?;
        }
    }
    if is_between_epochs {
        return Ok(Rest::WholeEpoch);
    }

    let mut iterator = loader.iter();
    if state.phase == Phase::Validate {
        check.first_batch(iterator.as_mut())?;
        return Ok(Rest::Validation);
    }
    for skipped in 0..state.position.step_in_epoch {
        check.skip(iterator.as_mut(), skipped)?;
    }
    let items = burn_api::items(iterator.as_ref());
    check.total(&items)?;
    check.equal(
        "the number of items in the batches trained so far",
        state.data.items_processed,
        items.processed,
    )?;
    seed_step();
    match iterator.next() {
        Some(first) => Ok(Rest::Batches {
            first: first?,
            iterator,
        }),
        None => Ok(Rest::Validation),
    }
}

/// Brings the validation loader to the position in `state`.
pub(crate) fn valid_loader<O>(loader: &Arc<dyn DataLoader<O>>, state: &TrainingState) {
    for _ in 0..state.epochs_done() {
        drop(loader.iter());
    }
}

struct Check<'a> {
    state: &'a TrainingState,
    backup_dir: &'a Path,
}

impl Check<'_> {
    fn first_batch<O>(
        &self,
        iterator: &mut dyn DataLoaderIterator<O>,
    ) -> Result<(), TrainingError> {
        if self.state.data.first_batch_items == 0 {
            // No epoch of this training had a batch.
            return Ok(());
        }
        self.skip(iterator, 0)?;
        let items = burn_api::items(iterator);
        self.total(&items)?;
        self.equal(
            "the number of items in the first batch of an epoch",
            self.state.data.first_batch_items,
            items.processed,
        )
    }

    fn skip<O>(
        &self,
        iterator: &mut dyn DataLoaderIterator<O>,
        skipped: usize,
    ) -> Result<(), TrainingError> {
        match iterator.next() {
            Some(batch) => batch.map(drop).map_err(TrainingError::from),
            None => {
                self.total(&burn_api::items(iterator))?;
                let trained = self.state.position.step_in_epoch;
                Err(self.mismatch(
                    "the number of batches in an epoch, at least,",
                    trained,
                    skipped,
                ))
            }
        }
    }

    fn total(&self, items: &Items) -> Result<(), TrainingError> {
        self.equal(
            "the number of items in an epoch",
            self.state.data.items_total,
            items.total,
        )
    }

    fn equal(
        &self,
        what: &'static str,
        recorded: usize,
        found: usize,
    ) -> Result<(), TrainingError> {
        if recorded == found {
            return Ok(());
        }
        Err(self.mismatch(what, recorded, found))
    }

    fn mismatch(&self, what: &'static str, recorded: usize, found: usize) -> TrainingError {
        BackupError::into_training_error(Arc::new(BackupError::DataMismatch {
            path: self.backup_dir.to_path_buf(),
            what,
            recorded,
            found,
        }))
    }
}
