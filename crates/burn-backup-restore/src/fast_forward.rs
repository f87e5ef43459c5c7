//! Bringing the loaders to where they were: as many iterators as the undisturbed training had asked
//! for, and the trained batches skipped.

use std::path::Path;
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator};
use burn::train::TrainingError;

use crate::burn_api::{self, Items};
use crate::error::BackupError;
use crate::state::{DataProgress, Phase, TrainingState};

const LOG: &str = "burn_backup::fast_forward";

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
    check.first_batch(iterator.as_mut())?;
    for skipped in 1..state.position.step_in_epoch {
        check.skip(iterator.as_mut(), skipped)?;
    }
    check.processed(&burn_api::items(iterator.as_ref()))?;
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

    fn processed(&self, items: &Items) -> Result<(), TrainingError> {
        let data = &self.state.data;
        if is_reordered(data, items.processed) {
            log::warn!(
                target: LOG,
                "the training loader yields its batches in another order than before the \
                 interruption, as Burn's does with workers: what is skipped is not exactly what \
                 was trained",
            );
            return Ok(());
        }
        self.equal(
            "the number of items in the batches trained so far",
            data.items_processed,
            items.processed,
        )
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

/// Whether `processed` items instead of those that were recorded come from nothing but the epoch's
/// one short batch standing elsewhere.
fn is_reordered(data: &DataProgress, processed: usize) -> bool {
    let short = match data.items_total.checked_rem(data.first_batch_items) {
        Some(short) if short > 0 => data.first_batch_items - short,
        _ => return false,
    };
    data.items_processed.abs_diff(processed) == short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_short_batch_that_stands_elsewhere_makes_another_order() {
        // Batches of 4, 4, 4, 4, 4 and 2 items; what was recorded, and what is found.
        let table = [
            (12, 12, false),
            (12, 10, true),
            (10, 12, true),
            (12, 9, false),
            (12, 15, false),
            (12, 16, false),
        ];
        for (recorded, found, expected) in table {
            let data = DataProgress {
                items_total: 22,
                first_batch_items: 4,
                items_processed: recorded,
            };
            assert_eq!(is_reordered(&data, found), expected, "{recorded}, {found}");
        }
        let no_short_batch = DataProgress {
            items_total: 24,
            first_batch_items: 4,
            items_processed: 12,
        };
        assert!(!is_reordered(&no_short_batch, 8));
    }
}
