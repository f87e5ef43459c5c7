//! Moves the loaders to their position: requests as many iterators as the uninterrupted training had, and skips the
//! trained batches.

use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::train::TrainingError;

use super::LOG;
use super::check::{self, Check, FirstBatch, batches_left};
use super::plan::Plan;
use crate::burn_api::{self, Items};
use crate::change::Change;
use crate::data_loader;
use crate::state::{EnteredEpoch, Phase, TrainingState};

/// The batches that a loader has left in the current epoch.
pub(crate) enum Rest<'l, O> {
    /// The epoch has not begun. Its iterator must still be requested.
    WholeEpoch,
    /// The batches after the `skipped` ones, if any.
    Batches {
        rest: Batches<'l, O>,
        skipped: usize,
    },
    /// Only the validation is left.
    Validation,
    /// The batches after the trained items, with batches or data that were changed on purpose.
    EnteredEpoch {
        rest: Batches<'l, O>,
        at: EnteredEpoch,
        /// `None` if an earlier restart has already found the change.
        change: Option<Change>,
    },
    /// The epoch starts again, because batches or data were changed on purpose and the loader can't continue inside
    /// the epoch.
    RestartEpoch(Change),
}

/// The batches of one epoch that remain to be trained.
pub(crate) struct Batches<'l, O> {
    /// The next batch, if it was already fetched to find out whether there is one.
    peeked: Option<Option<O>>,
    pub(super) iterator: Box<dyn DataLoaderIterator<O> + 'l>,
}

impl<'l, O> Batches<'l, O> {
    /// All batches of an epoch.
    pub(crate) fn of(loader: &'l Arc<dyn DataLoader<O>>) -> Self {
        Self::left_in(loader.iter())
    }

    /// The remaining batches of an iterator.
    pub(super) fn left_in(iterator: Box<dyn DataLoaderIterator<O> + 'l>) -> Self {
        Self {
            peeked: None,
            iterator,
        }
    }

    /// Fetches the next batch to find out whether there is one. Calls `seed` before.
    pub(crate) fn look_ahead(&mut self, seed: impl FnOnce()) -> Result<(), TrainingError> {
        if self.peeked.is_none() {
            seed();
            self.peeked = Some(self.iterator.next().transpose()?);
        }
        Ok(())
    }

    /// Returns the next batch. Calls `seed` before it is fetched.
    pub(crate) fn next(&mut self, seed: impl FnOnce()) -> Option<Result<O, DatasetError>> {
        match self.peeked.take() {
            Some(peeked) => peeked.map(Ok),
            None => {
                seed();
                self.iterator.next()
            }
        }
    }

    /// Whether a batch is left, as far as [`look_ahead`](Self::look_ahead) has checked.
    pub(crate) fn has_more(&self) -> bool {
        !matches!(self.peeked, Some(None))
    }

    /// The progress of the epoch, as reported by the loader.
    pub(crate) fn progress(&self) -> Progress {
        self.iterator.progress()
    }

    /// The progress of the epoch, in items.
    pub(crate) fn items(&self) -> Items {
        burn_api::items(self.iterator.as_ref())
    }
}

impl<O> Rest<'_, O> {
    /// Fetches the next batch to find out whether there is one. Calls `seed` before.
    pub(crate) fn look_ahead(&mut self, seed: impl FnOnce()) -> Result<(), TrainingError> {
        match self {
            Self::Batches { rest, .. } | Self::EnteredEpoch { rest, .. } => rest.look_ahead(seed),
            Self::WholeEpoch | Self::Validation | Self::RestartEpoch(_) => Ok(()),
        }
    }
}

/// Moves a training loader to the position of the training. Checks that it gives the same data as when the backup was
/// made.
pub(crate) fn train_loader<'l, O>(
    loader: &'l Arc<dyn DataLoader<O>>,
    plan: &Plan,
) -> Result<Rest<'l, O>, TrainingError> {
    let entered = plan.recorded.and_then(|data| data.entered);
    let rest = match entered {
        Some(entered) => {
            for _ in 0..plan.iterators {
                drop(loader.iter());
            }
            enter(loader, plan, entered, None)
        }
        None => skip(loader, plan),
    };
    let error = match rest {
        Ok(rest) => return Ok(rest),
        Err(error) => error,
    };
    let Some(change) = plan.allows(&error) else {
        return Err(error);
    };
    match (plan.phase, plan.batches) {
        (Phase::Validate, _) => Ok(Rest::Validation),
        (Phase::Train, 0) => Ok(Rest::WholeEpoch),
        (Phase::Train, batches) => {
            let items = plan.recorded.map_or(0, |data| data.items_processed);
            enter(loader, plan, EnteredEpoch { items, batches }, Some(change))
        }
    }
}

/// Continues the current epoch after the items in `at`, and after the batches trained since then, if the loader
/// supports it.
fn enter<'l, O>(
    loader: &'l Arc<dyn DataLoader<O>>,
    plan: &Plan,
    at: EnteredEpoch,
    change: Option<Change>,
) -> Result<Rest<'l, O>, TrainingError> {
    // With several devices, each has a part of the data, and the parts no longer begin and end at the same
    // items.
    let entered = match plan.is_only_loader {
        true => data_loader::enter(plan.iterators as u64, at.items, || loader.iter()),
        false => None,
    };
    let Some(mut iterator) = entered else {
        return Ok(Rest::RestartEpoch(change.unwrap_or(Change::BatchSize)));
    };
    let since = plan.batches.saturating_sub(at.batches);
    if let (Some(last), Some(data)) = (since.checked_sub(1), &plan.recorded) {
        iterator.nth(last).transpose()?;
        // The program may have changed the batch size or the data once more.
        let found = burn_api::items(iterator.as_ref());
        let path = &plan.backup_dir;
        if found.total != data.items_total {
            let what = "the number of items in an epoch";
            let (before, now) = (data.items_total, found.total);
            return Err(check::mismatch(path, Change::Data, what, before, now));
        }
        if found.processed != data.items_processed {
            let what = "the number of items in the batches trained so far";
            let (before, now) = (data.items_processed, found.processed);
            return Err(check::mismatch(path, Change::BatchSize, what, before, now));
        }
    }
    Ok(Rest::EnteredEpoch {
        rest: Batches::left_in(iterator),
        at,
        change,
    })
}

fn skip<'l, O>(
    loader: &'l Arc<dyn DataLoader<O>>,
    plan: &Plan,
) -> Result<Rest<'l, O>, TrainingError> {
    let check = Check {
        plan,
        loader: burn_api::loader_kind(loader.as_ref()),
    };
    let is_between_epochs = plan.batches == 0;
    for epoch in 1..=plan.iterators {
        let mut iterator = loader.iter();
        // Between epochs, take the batch size from the previous epoch.
        if is_between_epochs && epoch == plan.iterators && plan.has_trained {
            if plan.is_first {
                log_loaded_batches(iterator.as_ref(), 0);
            }
            check.first_batch(iterator.as_mut())?;
        }
    }
    if is_between_epochs {
        return Ok(Rest::WholeEpoch);
    }

    let mut iterator = loader.iter();
    if plan.is_first {
        let batches = match plan.phase {
            Phase::Train => plan.batches,
            Phase::Validate => 0,
        };
        log_loaded_batches(iterator.as_ref(), batches);
    }
    let FirstBatch {
        whole,
        batches,
        ahead,
    } = check.first_batch(iterator.as_mut())?;
    if plan.phase == Phase::Validate {
        return Ok(Rest::Validation);
    }
    let mut others = plan.batches.saturating_sub(1);
    match (ahead, others) {
        (Some(ahead), 0) => {
            let rest = Batches {
                peeked: Some(Some(ahead)),
                iterator,
            };
            return Ok(Rest::Batches {
                rest,
                skipped: batches,
            });
        }
        // The batch ahead is one of those to skip.
        (Some(_), _) => others -= 1,
        (None, _) => {}
    }
    let looked_at = plan.batches - others;
    let skipped = looked_at.min(batches + 1) + check.skip(iterator.as_mut(), others, looked_at)?;
    check.trained(burn_api::items(iterator.as_ref()), whole)?;
    Ok(Rest::Batches {
        rest: Batches::left_in(iterator),
        skipped,
    })
}

/// Moves the validation loader to the position in `state`.
pub(crate) fn valid_loader<O>(loader: &Arc<dyn DataLoader<O>>, state: &TrainingState) {
    for _ in 0..state.epochs_done() {
        drop(loader.iter());
    }
}

/// Logs that `batches` batches are loaded only to be skipped, if the loader can't skip them in another way.
fn log_loaded_batches<O>(iterator: &dyn DataLoaderIterator<O>, batches: usize) {
    if batches_left(iterator).is_some() {
        return;
    }
    if batches > 0 {
        log::info!(
            target: LOG,
            "{batches} trained batches of this epoch are loaded only to be skipped",
        );
    }
}
