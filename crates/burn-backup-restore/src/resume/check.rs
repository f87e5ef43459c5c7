//! Checks whether a loader gives the same data as when the backup was made.

use std::path::Path;
use std::sync::Arc;

use burn::data::dataloader::DataLoaderIterator;
use burn::data::dataset::DatasetError;
use burn::train::TrainingError;

use super::LOG;
use super::plan::Plan;
use crate::burn_api::{self, Items, LoaderKind};
use crate::change::Change;
use crate::error::BackupError;

/// The number of remaining batches, if the iterator knows it. Such an iterator is expected to skip on its own.
pub(super) fn batches_left<O>(iterator: &dyn DataLoaderIterator<O>) -> Option<usize> {
    let (least, most) = iterator.size_hint();
    most.filter(|most| *most == least)
}

/// A loader that claims to support skipping, but did not skip as requested.
#[derive(Debug, thiserror::Error)]
#[error(
    "the training loader reported {left} remaining batches and skipped {batches} of them, but the number that it \
     reports now is not their difference; the backup was not touched: make `nth` and `size_hint` count the batches \
     that `next` gives (an `nth` that passes over errors of the dataset does not), or keep the default `size_hint`"
)]
struct Miscount {
    left: usize,
    batches: usize,
}

/// An epoch whose loader says that it has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WholeEpoch {
    /// The number of items that the loader gave, and the number that it promised.
    pub items: Items,
    /// The number of items in its first batch; `None` if unknown.
    pub first_batch: Option<usize>,
    pub loader: LoaderKind,
}

impl WholeEpoch {
    /// The number of items that the loader should have given, if it gave fewer. `recorded` is the number in the first
    /// complete epoch.
    ///
    /// An epoch of Burn's loader with workers ends early if a worker panics. A loader that drops an incomplete last
    /// batch does so in each epoch.
    pub(crate) fn check(self, recorded: Option<usize>) -> Option<usize> {
        let Items { processed, total } = self.items;
        if processed >= total {
            return None;
        }
        if let Some(recorded) = recorded {
            return (processed < recorded).then_some(recorded);
        }
        let leaves_out_less_than_a_batch = self
            .first_batch
            .is_some_and(|batch| total - processed < batch);
        match self.loader {
            LoaderKind::Other if leaves_out_less_than_a_batch => None,
            // Burn's own loaders drop nothing.
            _ => Some(total),
        }
    }
}

/// Compares a loader with its recorded progress.
pub(super) struct Check<'a> {
    pub plan: &'a Plan,
    pub loader: LoaderKind,
}

/// The first batch of an epoch.
pub(super) struct FirstBatch<O> {
    /// The number of items in a full batch.
    pub whole: usize,
    /// The number of batches that were fetched: 0 or 1.
    pub batches: usize,
    /// The batch after it, if that one was fetched as well.
    pub ahead: Option<O>,
}

impl Check<'_> {
    /// Fetches the first batch of an epoch. If the loader's short batch may come first, fetches the second one too.
    pub(super) fn first_batch<O>(
        &self,
        iterator: &mut dyn DataLoaderIterator<O>,
    ) -> Result<FirstBatch<O>, TrainingError> {
        let has_order = self.loader == LoaderKind::Single || batches_left(iterator).is_some();
        let batches = self.skip(iterator, 1, 0)?;
        let items = burn_api::items(iterator);
        let first = |whole, ahead| FirstBatch {
            whole,
            batches,
            ahead,
        };
        let Some(recorded) = &self.plan.recorded else {
            return Ok(first(items.processed, None));
        };
        let what = "the number of items in an epoch";
        self.equal(Change::Data, what, recorded.items_total, items.total)?;
        let known = recorded.first_batch_items.max(recorded.largest_batch);
        if known == 0 {
            return Ok(first(items.processed, None));
        }
        // The short batch may have come first before. Now all batches may be that short.
        let is_same = recorded.first_batch_items == items.processed;
        if is_same && (has_order || items.processed == known) {
            return Ok(first(known, None));
        }
        let what = "the number of items in the first batch of an epoch";
        let differ = || {
            let (recorded, found) = (recorded.first_batch_items, items.processed);
            self.differ(Change::BatchSize, what, recorded, found)
        };
        if has_order {
            return Err(differ());
        }
        let ahead = iterator.next().transpose()?;
        let second = burn_api::items(iterator)
            .processed
            .saturating_sub(items.processed);
        let found = items.processed.max(second);
        // With a single batch, it is unknown whether it was the short one.
        let may_be_short =
            recorded.items_processed == recorded.first_batch_items || recorded.largest_batch == 0;
        let is_same_size = found == known || (found > known && may_be_short);
        let whole = known.max(found);
        if is_same {
            let what = "the number of items in a batch";
            self.equal(Change::BatchSize, what, known, found)?;
            return Ok(first(known, ahead));
        }
        let (before, now) = (recorded.first_batch_items, items.processed);
        if !is_same_size || !is_reordered(items.total, whole, before, now) {
            return Err(differ());
        }
        warn_of_order();
        Ok(first(whole, ahead))
    }

    /// Skips `batches` batches, after `skipped` earlier ones. Returns how many batches there were.
    pub(super) fn skip<O>(
        &self,
        iterator: &mut dyn DataLoaderIterator<O>,
        batches: usize,
        skipped: usize,
    ) -> Result<usize, TrainingError> {
        let Some(last) = batches.checked_sub(1) else {
            return Ok(0);
        };
        if let Some(left) = batches_left(iterator) {
            let there = left.min(batches);
            if iterator.nth(last).transpose()?.is_some() != (there == batches)
                || batches_left(iterator) != Some(left - there)
            {
                // An `nth` that loads the skipped batches discards them together with their errors.
                let miscount = Miscount { left, batches };
                return Err(DatasetError::new(miscount).into());
            }
            return match there == batches {
                true => Ok(batches),
                false => self.at_end(iterator, left, skipped),
            };
        }
        for there in 0..batches {
            if iterator.next().transpose()?.is_none() {
                return self.at_end(iterator, there, skipped);
            }
        }
        Ok(batches)
    }

    /// Checks the number of items in the batches trained so far. `whole` is the number in a full batch.
    pub(super) fn trained(&self, found: Items, whole: usize) -> Result<(), TrainingError> {
        let Some(recorded) = &self.plan.recorded else {
            return Ok(());
        };
        let has_order = self.loader == LoaderKind::Single;
        let (before, now) = (recorded.items_processed, found.processed);
        if !has_order && is_reordered(found.total, whole, before, now) {
            warn_of_order();
            return Ok(());
        }
        let what = "the number of items in the batches trained so far";
        self.equal(Change::BatchSize, what, before, now)
    }

    /// Called when the epoch had only `batches` batches after the `skipped` ones.
    fn at_end<O>(
        &self,
        iterator: &dyn DataLoaderIterator<O>,
        batches: usize,
        skipped: usize,
    ) -> Result<usize, TrainingError> {
        let recorded = self.plan.recorded.as_ref();
        let Some(recorded) = recorded.filter(|_| self.plan.is_only_loader) else {
            return Ok(batches);
        };
        let total = burn_api::items(iterator).total;
        let what = "the number of items in an epoch";
        self.equal(Change::Data, what, recorded.items_total, total)?;
        let what = "the number of batches in an epoch (at least)";
        let trained = self.plan.batches;
        Err(self.differ(Change::BatchSize, what, trained, skipped + batches))
    }

    fn equal(
        &self,
        change: Change,
        what: &'static str,
        recorded: usize,
        found: usize,
    ) -> Result<(), TrainingError> {
        match recorded == found {
            true => Ok(()),
            false => Err(self.differ(change, what, recorded, found)),
        }
    }

    fn differ(
        &self,
        change: Change,
        what: &'static str,
        recorded: usize,
        found: usize,
    ) -> TrainingError {
        mismatch(&self.plan.backup_dir, change, what, recorded, found)
    }
}

pub(super) fn mismatch(
    backup_dir: &Path,
    change: Change,
    what: &'static str,
    recorded: usize,
    found: usize,
) -> TrainingError {
    BackupError::into_training_error(Arc::new(BackupError::DataMismatch {
        path: backup_dir.to_path_buf(),
        what,
        recorded,
        found,
        change,
    }))
}

fn warn_of_order() {
    log::warn!(
        target: LOG,
        "the training loader gives its batches in a different order than before the interruption, as Burn's \
         loader with workers does: the skipped batches are not exactly the trained ones; \
         burn_backup_restore::data::DataLoaderBuilder makes loaders whose order is always the same",
    );
}

/// Whether the difference between `found` and `recorded` items after the same number of batches is explained by a
/// different place of the epoch's one short batch.
pub(super) fn is_reordered(
    total: usize,
    batch_items: usize,
    recorded: usize,
    found: usize,
) -> bool {
    match total.checked_rem(batch_items) {
        Some(short) if short > 0 => recorded.abs_diff(found) == batch_items - short,
        _ => false,
    }
}
