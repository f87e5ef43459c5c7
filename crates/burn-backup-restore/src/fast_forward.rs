//! Bringing the loaders to where they were: as many iterators as the undisturbed training had asked
//! for, and the trained batches skipped.

use std::path::Path;
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator};
use burn::train::TrainingError;

use crate::burn_api::{self, Items};
use crate::error::BackupError;
use crate::state::{Phase, TrainingState};

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
        if is_between_epochs && epoch == done && state.position.global_step > 0 {
            check.first_batch(iterator.as_mut())?;
        }
    }
    if is_between_epochs {
        return Ok(Rest::WholeEpoch);
    }

    let mut iterator = loader.iter();
    let batch_items = check.first_batch(iterator.as_mut())?;
    if state.phase == Phase::Validate {
        return Ok(Rest::Validation);
    }
    for skipped in 1..state.position.step_in_epoch {
        check.skip(iterator.as_mut(), skipped)?;
    }
    check.items(
        "the number of items in the batches trained so far",
        state.data.items_processed,
        burn_api::items(iterator.as_ref()),
        batch_items,
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
    /// Skips the first batch of an epoch, and gives the items in a whole batch.
    fn first_batch<O>(
        &self,
        iterator: &mut dyn DataLoaderIterator<O>,
    ) -> Result<usize, TrainingError> {
        self.skip(iterator, 0)?;
        let items = burn_api::items(iterator);
        let recorded = self.state.data.first_batch_items;
        let batch_items = recorded.max(items.processed);
        self.items(
            "the number of items in the first batch of an epoch",
            recorded,
            items,
            batch_items,
        )?;
        Ok(batch_items)
    }

    fn skip<O>(
        &self,
        iterator: &mut dyn DataLoaderIterator<O>,
        skipped: usize,
    ) -> Result<(), TrainingError> {
        match iterator.next() {
            Some(batch) => batch.map(drop).map_err(TrainingError::from),
            None => {
                let total = burn_api::items(iterator).total;
                self.equal(
                    "the number of items in an epoch",
                    self.state.data.items_total,
                    total,
                )?;
                let trained = self.state.position.step_in_epoch;
                Err(self.mismatch(
                    "the number of batches in an epoch, at least,",
                    trained,
                    skipped,
                ))
            }
        }
    }

    fn items(
        &self,
        what: &'static str,
        recorded: usize,
        found: Items,
        batch_items: usize,
    ) -> Result<(), TrainingError> {
        let total = self.state.data.items_total;
        self.equal("the number of items in an epoch", total, found.total)?;
        if is_reordered(total, batch_items, recorded, found.processed) {
            log::warn!(
                target: LOG,
                "the training loader yields its batches in another order than before the \
                 interruption, as Burn's does with workers: what is skipped is not exactly what \
                 was trained",
            );
            return Ok(());
        }
        self.equal(what, recorded, found.processed)
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

/// Whether `found` items instead of those `recorded`, after the same number of batches, come from
/// nothing but the epoch's one short batch standing elsewhere.
fn is_reordered(total: usize, batch_items: usize, recorded: usize, found: usize) -> bool {
    match total.checked_rem(batch_items) {
        Some(short) if short > 0 => recorded.abs_diff(found) == batch_items - short,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_short_batch_that_stands_elsewhere_makes_another_order() {
        // The epoch, a whole batch, what was recorded, and what is found.
        let table = [
            // Batches of 4, 4, 4, 4, 4 and 2 items.
            (22, 4, 12, 12, false),
            (22, 4, 12, 10, true),
            (22, 4, 10, 12, true),
            (22, 4, 4, 2, true),
            (22, 4, 12, 9, false),
            (22, 4, 12, 15, false),
            (22, 4, 12, 16, false),
            // Another batch size.
            (22, 5, 4, 5, false),
            // No short batch, and a loader that doesn't tell.
            (24, 4, 12, 8, false),
            (0, 0, 0, 0, false),
        ];
        for (total, batch, recorded, found, expected) in table {
            let is_reordered = is_reordered(total, batch, recorded, found);
            assert_eq!(
                is_reordered, expected,
                "{total}, {batch}, {recorded}, {found}"
            );
        }
    }
}
