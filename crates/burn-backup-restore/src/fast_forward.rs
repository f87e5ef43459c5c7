//! Bringing the loaders to where they were: as many iterators as the undisturbed training had asked
//! for, and the trained batches skipped.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::train::TrainingError;

use crate::burn_api::{self, Items};
use crate::error::BackupError;
use crate::state::{DataProgress, Phase, TrainingState};

const LOG: &str = "burn_backup::fast_forward";

/// Where a training is taken up.
#[derive(Debug, Clone)]
pub(crate) struct Resumption {
    state: TrainingState,
    backup_dir: PathBuf,
    /// Whether the data is split among the devices as it was when the backup was made.
    is_same_split: bool,
}

impl Resumption {
    /// Checks that a training, whose data is `split` among so many devices, can be taken up at
    /// `state` (see [`Execution::split`](crate::loops::Execution::split)). Among another number of
    /// devices each sees other items: that works at an epoch's start.
    pub(crate) fn new(
        state: &TrainingState,
        split: Option<usize>,
        train_items: usize,
        backup_dir: &Path,
    ) -> Result<Self, TrainingError> {
        let resumption = Self {
            state: state.clone(),
            backup_dir: backup_dir.to_path_buf(),
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
        if recorded > 0 && train_items > 0 && recorded != train_items {
            let what = "the number of items in an epoch";
            return Err(mismatch(backup_dir, what, recorded, train_items));
        }
        log::warn!(
            target: LOG,
            "the training goes on with its data split among {} devices, and among {} before: the \
             next epochs have their batches in another order than the undisturbed training",
            devices(split), devices(state.split),
        );
        Ok(resumption)
    }
}

/// What a loader has left of the epoch in progress.
pub(crate) enum Rest<'l, O> {
    /// The epoch has not begun: its iterator is still to be asked for.
    WholeEpoch,
    /// What comes after the batches that were `skipped`, if anything.
    Batches {
        rest: Batches<'l, O>,
        skipped: usize,
    },
    /// Only the validation is left.
    Validation,
}

/// The batches of one epoch that are still to be trained.
pub(crate) struct Batches<'l, O> {
    /// Fetched already, to see whether there is one.
    peeked: Option<Option<O>>,
    iterator: Box<dyn DataLoaderIterator<O> + 'l>,
}

impl<'l, O> Batches<'l, O> {
    /// All of them.
    pub(crate) fn of(loader: &'l Arc<dyn DataLoader<O>>) -> Self {
        Self {
            peeked: None,
            iterator: loader.iter(),
        }
    }

    /// The next batch; `seed` is called before it is fetched.
    pub(crate) fn next(&mut self, seed: impl FnOnce()) -> Option<Result<O, DatasetError>> {
        match self.peeked.take() {
            Some(peeked) => peeked.map(Ok),
            None => {
                seed();
                self.iterator.next()
            }
        }
    }

    /// Whether a batch is left, of those that were looked at.
    pub(crate) fn has_more(&self) -> bool {
        !matches!(self.peeked, Some(None))
    }

    /// How far the epoch is, as the loader tells it.
    pub(crate) fn progress(&self) -> Progress {
        self.iterator.progress()
    }

    /// How far the epoch is, in items.
    pub(crate) fn items(&self) -> Items {
        burn_api::items(self.iterator.as_ref())
    }
}

/// Brings the training loader of the device with the index `device` to where the training was, and
/// checks on the way that it yields what it did when the backup was made. `seed` is called before
/// the first batch that is still to be trained is fetched.
pub(crate) fn train_loader<'l, O>(
    loader: &'l Arc<dyn DataLoader<O>>,
    resumption: &Resumption,
    device: usize,
    seed: impl FnOnce(),
) -> Result<Rest<'l, O>, TrainingError> {
    let state = &resumption.state;
    let check = Check {
        state,
        recorded: state.recorded(device).filter(|_| resumption.is_same_split),
        is_only_loader: state.split.is_none(),
        backup_dir: &resumption.backup_dir,
    };
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
    let (batch_items, mut skipped) = check.first_batch(iterator.as_mut())?;
    if state.phase == Phase::Validate {
        return Ok(Rest::Validation);
    }
    for _ in 1..state.position.step_in_epoch {
        if !check.skip(iterator.as_mut(), skipped)? {
            break;
        }
        skipped += 1;
    }
    check.items(
        "the number of items in the batches trained so far",
        |recorded| recorded.items_processed,
        burn_api::items(iterator.as_ref()),
        batch_items,
    )?;
    seed();
    let next = iterator.next().transpose()?;
    let rest = Batches {
        peeked: Some(next),
        iterator,
    };
    Ok(Rest::Batches { rest, skipped })
}

/// Brings the validation loader to the position in `state`.
pub(crate) fn valid_loader<O>(loader: &Arc<dyn DataLoader<O>>, state: &TrainingState) {
    for _ in 0..state.epochs_done() {
        drop(loader.iter());
    }
}

struct Check<'a> {
    state: &'a TrainingState,
    /// What the loader said when the backup was made, if that can be compared.
    recorded: Option<&'a DataProgress>,
    /// Of several loaders, some may have fewer batches in an epoch.
    is_only_loader: bool,
    backup_dir: &'a Path,
}

impl Check<'_> {
    /// Skips the first batch of an epoch, and gives the items in a whole batch, and how many batches
    /// were skipped.
    fn first_batch<O>(
        &self,
        iterator: &mut dyn DataLoaderIterator<O>,
    ) -> Result<(usize, usize), TrainingError> {
        let skipped = usize::from(self.skip(iterator, 0)?);
        let items = burn_api::items(iterator);
        let recorded = self
            .recorded
            .map_or(0, |recorded| recorded.first_batch_items);
        let batch_items = recorded.max(items.processed);
        self.items(
            "the number of items in the first batch of an epoch",
            |recorded| recorded.first_batch_items,
            items,
            batch_items,
        )?;
        Ok((batch_items, skipped))
    }

    /// Skips a batch, after so many that were `skipped`; says whether there was one.
    fn skip<O>(
        &self,
        iterator: &mut dyn DataLoaderIterator<O>,
        skipped: usize,
    ) -> Result<bool, TrainingError> {
        match (iterator.next(), self.recorded) {
            (Some(batch), _) => batch.map(|_| true).map_err(TrainingError::from),
            (None, Some(recorded)) if self.is_only_loader => {
                let total = burn_api::items(iterator).total;
                self.equal(
                    "the number of items in an epoch",
                    recorded.items_total,
                    total,
                )?;
                let trained = self.state.position.step_in_epoch;
                Err(mismatch(
                    self.backup_dir,
                    "the number of batches in an epoch, at least,",
                    trained,
                    skipped,
                ))
            }
            (None, _) => Ok(false),
        }
    }

    fn items(
        &self,
        what: &'static str,
        recorded: impl FnOnce(&DataProgress) -> usize,
        found: Items,
        batch_items: usize,
    ) -> Result<(), TrainingError> {
        let Some(progress) = self.recorded else {
            return Ok(());
        };
        let recorded = recorded(progress);
        let total = progress.items_total;
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
        Err(mismatch(self.backup_dir, what, recorded, found))
    }
}

fn mismatch(backup_dir: &Path, what: &'static str, recorded: usize, found: usize) -> TrainingError {
    BackupError::into_training_error(Arc::new(BackupError::DataMismatch {
        path: backup_dir.to_path_buf(),
        what,
        recorded,
        found,
    }))
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
