//! Bringing the loaders to where they were: as many iterators as the undisturbed training had asked
//! for, and the trained batches skipped.
//!
//! ```text
//! check     whether a loader gives what it gave when the backup was made
//! replay    the other way: everything is loaded once more
//! ```

mod check;
mod replay;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::train::TrainingError;

use crate::burn_api::{self, Items};
use crate::change::{Change, Changes};
use crate::data_loader;
use crate::error::BackupError;
use crate::state::{Entered, Phase, TrainingState};
use check::{Check, First, batches_left};

pub(crate) use check::WholeEpoch;
pub(crate) use replay::replay;

const LOG: &str = "burn_backup::fast_forward";

/// Where a training is taken up.
#[derive(Debug, Clone)]
pub(crate) struct Resumption {
    state: TrainingState,
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

    /// Whether the error is of a change that is meant to be.
    fn allows(&self, error: &TrainingError) -> Option<Change> {
        match BackupError::find(error) {
            Some(BackupError::DataMismatch { change, .. }) if self.changes.allows(*change) => {
                Some(*change)
            }
            _ => None,
        }
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
    /// What comes after the items that were trained, in batches or of data that are changed on purpose.
    Entered {
        rest: Batches<'l, O>,
        at: Entered,
        /// `None` if an earlier restart has found it.
        change: Option<Change>,
    },
    /// The epoch begins anew: batches or data are changed on purpose, and the loader can't go on in
    /// between.
    Anew(Change),
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

    /// Those that are left, with the next one fetched to see whether there is one.
    fn peeked(mut iterator: Box<dyn DataLoaderIterator<O> + 'l>) -> Result<Self, TrainingError> {
        let next = iterator.next().transpose()?;
        Ok(Self {
            peeked: Some(next),
            iterator,
        })
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
    let entered = state.recorded(device).and_then(|data| data.entered);
    let rest = match entered {
        Some(entered) => {
            for _ in 0..state.epochs_done() {
                drop(loader.iter());
            }
            enter(loader, resumption, entered, None)
        }
        None => skip(loader, resumption, device, seed),
    };
    let error = match rest {
        Ok(rest) => return Ok(rest),
        Err(error) => error,
    };
    let Some(change) = resumption.allows(&error) else {
        return Err(error);
    };
    match (state.phase, state.position.step_in_epoch) {
        (Phase::Validate, _) => Ok(Rest::Validation),
        (Phase::Train, 0) => Ok(Rest::WholeEpoch),
        (Phase::Train, batches) => {
            let items = state
                .recorded(device)
                .map_or(0, |data| data.items_processed);
            enter(loader, resumption, Entered { items, batches }, Some(change))
        }
    }
}

/// Goes on in the epoch in progress after so many items, and after the batches that were trained since, if
/// the loader can.
fn enter<'l, O>(
    loader: &'l Arc<dyn DataLoader<O>>,
    resumption: &Resumption,
    at: Entered,
    change: Option<Change>,
) -> Result<Rest<'l, O>, TrainingError> {
    let state = &resumption.state;
    // Several devices have parts of the data, whose ends are elsewhere than they were.
    let entered = match state.split {
        None => data_loader::enter(state.epochs_done() as u64, at.items, || loader.iter()),
        Some(_) => None,
    };
    let Some(mut iterator) = entered else {
        return Ok(Rest::Anew(change.unwrap_or(Change::BatchSize)));
    };
    let since = state.position.step_in_epoch.saturating_sub(at.batches);
    if let Some(last) = since.checked_sub(1) {
        iterator.nth(last).transpose()?;
        // They may be of yet another size, or of other data.
        let found = burn_api::items(iterator.as_ref());
        let (data, path) = (&state.data, &resumption.backup_dir);
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
    Ok(Rest::Entered {
        rest: Batches::peeked(iterator)?,
        at,
        change,
    })
}

fn skip<'l, O>(
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
        loader: burn_api::loader_kind(loader.as_ref()),
        backup_dir: &resumption.backup_dir,
    };
    let done = state.epochs_done();
    let is_between_epochs = state.position.step_in_epoch == 0;
    for epoch in 1..=done {
        let mut iterator = loader.iter();
        // Between epochs, the batch size shows in the epoch before.
        if is_between_epochs && epoch == done && state.position.global_step > 0 {
            if device == 0 {
                say_what_is_loaded(iterator.as_ref(), 0);
            }
            check.first_batch(iterator.as_mut())?;
        }
    }
    if is_between_epochs {
        return Ok(Rest::WholeEpoch);
    }

    let mut iterator = loader.iter();
    if device == 0 {
        let batches = match state.phase {
            Phase::Train => state.position.step_in_epoch,
            Phase::Validate => 0,
        };
        say_what_is_loaded(iterator.as_ref(), batches);
    }
    let First {
        whole,
        batches,
        ahead,
    } = check.first_batch(iterator.as_mut())?;
    if state.phase == Phase::Validate {
        return Ok(Rest::Validation);
    }
    let mut others = state.position.step_in_epoch.saturating_sub(1);
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
        // It is one of those that are skipped.
        (Some(_), _) => others -= 1,
        (None, _) => {}
    }
    let looked_at = state.position.step_in_epoch - others;
    let skipped = looked_at.min(batches + 1) + check.skip(iterator.as_mut(), others, looked_at)?;
    check.trained(burn_api::items(iterator.as_ref()), whole)?;
    seed();
    Ok(Rest::Batches {
        rest: Batches::peeked(iterator)?,
        skipped,
    })
}

/// Brings the validation loader to the position in `state`.
pub(crate) fn valid_loader<O>(loader: &Arc<dyn DataLoader<O>>, state: &TrainingState) {
    for _ in 0..state.epochs_done() {
        drop(loader.iter());
    }
}

/// Says what it costs to skip `batches` of a loader that knows no other way than to load them, and on what
/// condition such a loader is exact.
fn say_what_is_loaded<O>(iterator: &dyn DataLoaderIterator<O>, batches: usize) {
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

#[cfg(test)]
mod tests;
