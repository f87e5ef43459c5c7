//! Takes backups and tracks whether they succeed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use burn::store::RecordError;
use burn::tensor::Device;
use burn::train::Interrupter;
use burn_backup_store::Store;

use super::{LOG, mirror};
use crate::burn_api::DeviceRead;
use crate::error::{BackupError, with_causes};
use crate::handle::BackupHandle;
use crate::messages::warn;
use crate::mirror::Mirroring;
use crate::panics::attempt;
use crate::part::{MODEL, failed};
use crate::parts::{State, parts_of};
use crate::save::{
    Background, Contents, Fit, Metrics, Outcome, PartSnapshot, Records, RunningStates, SavePart,
    SharedPart, TrainingSnapshot, refuse_nan,
};
use crate::settings::NamedState;
use crate::state::{Moment, TrainingState};

/// An object with parts to save.
pub(crate) trait HasParts {
    /// The parts, with their names.
    fn named_parts(&self) -> Vec<(String, &dyn SavePart)>;
}

impl<S: State> HasParts for S {
    fn named_parts(&self) -> Vec<(String, &dyn SavePart)> {
        parts_of("", self)
    }
}

/// Computes metrics outside the training thread.
pub(crate) trait MetricSource {
    /// Waits until everything sent to it is computed, and reports errors to the interrupter.
    fn drain(&mut self, interrupter: &Interrupter);
}

/// A training without metrics, or with metrics that are computed immediately.
pub(crate) struct NoMetrics;

impl MetricSource for NoMetrics {
    fn drain(&mut self, _interrupter: &Interrupter) {}
}

/// The store, and the thread that writes to it.
pub(super) struct Saver {
    pub store: Arc<Store>,
    pub mirror: Option<Arc<Mirroring>>,
    /// Dropped before [`on_thread`](Self::on_thread), because it waits for the thread that reads the tensors held
    /// there.
    pub background: Background,
    pub handle: BackupHandle,
    pub committed: Option<Moment>,
    /// Reads the records on the training thread, if that is necessary.
    pub on_thread: Option<OnThread>,
    /// The states named in the settings, in addition to the training's own.
    pub states: Vec<NamedState>,
    /// Known once the parameters are initialized.
    pub running_states: Option<BTreeMap<String, RunningStates>>,
    pub refuse_nan: bool,
    pub delete_at_end: bool,
}

/// Reads the records of each backup on the training thread.
pub(super) struct OnThread {
    /// When the data on a device is read.
    pub read: DeviceRead,
    /// The known fit of each part.
    pub known: BTreeMap<String, Fit>,
    /// The devices that must finish computing before another thread reads from them.
    pub devices: Vec<Device>,
    /// The tensors of the backup in flight, while they may still be read from their device. Like the training's
    /// tensors, they are dropped on this thread.
    pub held: Vec<Box<dyn SharedPart>>,
}

impl OnThread {
    pub(super) fn new(read: DeviceRead, devices: Vec<Device>) -> Self {
        Self {
            read,
            known: BTreeMap::new(),
            devices,
            held: Vec::new(),
        }
    }

    fn take(&mut self, name: &str, shared: Box<dyn SharedPart>) -> Contents {
        let fit = self.known.entry(name.to_owned()).or_default();
        let records = attempt(|| Records::of(name, shared.as_ref(), fit, self.read));
        if self.read == DeviceRead::Later {
            self.held.push(shared);
        }
        Contents::Taken(records)
    }

    /// Waits until the devices have executed all work from this thread, because a read from another thread does not
    /// wait for it.
    fn compute(&self) -> Result<(), BackupError> {
        self.devices.iter().try_for_each(|device| {
            let computed = device.sync();
            computed.map_err(|error| failed(MODEL)(RecordError::Io(error.to_string())))
        })
    }
}

impl Saver {
    /// All parts of the training's state.
    fn all_parts<'p>(&'p self, training: &'p dyn HasParts) -> Vec<(String, &'p dyn SavePart)> {
        let mut parts = training.named_parts();
        for (name, state) in &self.states {
            parts.extend(parts_of(name, state.as_ref()));
        }
        parts
    }

    /// Determines which parts have running states, unless that is already known.
    pub(super) fn find_running_states(&mut self, training: &dyn HasParts) {
        if self.running_states.is_none() {
            let parts = self.all_parts(training).into_iter();
            let found = parts.map(|(name, part)| (name, part.running_states()));
            self.running_states = Some(found.collect());
        }
    }

    /// Applies pending updates of running states. A read of them, such as a snapshot, also applies the update. A
    /// model may use them without that read, so the result must not depend on how often backups are taken.
    pub(super) fn settle_running_states(&self, training: &dyn HasParts) {
        let Some(running_states) = &self.running_states else {
            return;
        };
        let are_possible = |states: &RunningStates| *states == RunningStates::Possible;
        if !running_states.values().any(are_possible) {
            return;
        }
        for (name, part) in self.all_parts(training) {
            if running_states.get(&name).is_some_and(are_possible) {
                part.settle_running_states();
            }
        }
    }

    /// A snapshot of this moment that shares the training's tensors.
    pub(super) fn snapshot(
        &self,
        training: &dyn HasParts,
        state: TrainingState,
        metrics: Metrics,
    ) -> TrainingSnapshot {
        let known = self.running_states.as_ref();
        let part = |(name, part): (String, &dyn SavePart)| {
            let known = known.and_then(|known| known.get(&name));
            let running_states = known.copied().unwrap_or(RunningStates::Possible);
            PartSnapshot {
                contents: Contents::Shared(part.snapshot(running_states)),
                name,
            }
        };
        let parts = self.all_parts(training).into_iter().map(part).collect();
        TrainingSnapshot {
            state,
            metrics,
            watched: None,
            parts,
        }
    }

    pub(super) fn submit(&mut self, snapshot: TrainingSnapshot) {
        let begun = Instant::now();
        let snapshot = self.read_on_thread(snapshot);
        self.background.submit(snapshot, begun);
    }

    /// Reads the snapshot's records immediately, if the training thread must do so.
    fn read_on_thread(&mut self, mut snapshot: TrainingSnapshot) -> TrainingSnapshot {
        let Some(on_thread) = &mut self.on_thread else {
            return snapshot;
        };
        let parts = snapshot.parts.into_iter().map(|part| {
            let PartSnapshot { name, contents } = part;
            let contents = match contents {
                Contents::Shared(shared) => on_thread.take(&name, shared),
                taken @ Contents::Taken(_) => taken,
            };
            PartSnapshot { name, contents }
        });
        snapshot.parts = parts.collect();
        if let Err(error) = attempt(|| on_thread.compute())
            && let Some(part) = snapshot.parts.first_mut()
        {
            part.contents = Contents::Taken(Err(error));
        }
        snapshot
    }

    /// Records the result of a snapshot. Returns whether it was committed, if there is a new result.
    pub(super) fn note(&mut self, outcome: Option<Outcome>) -> Option<bool> {
        let outcome = outcome?;
        if let Some(on_thread) = &mut self.on_thread {
            on_thread.held.clear();
        }
        match outcome {
            Outcome::Committed(moment) => {
                self.committed = Some(moment);
                Some(true)
            }
            Outcome::Failed => Some(false),
        }
    }

    /// Checks the final model for NaN. If no backup is taken at the end, nothing else has checked it.
    pub(super) fn check_final_model(&mut self, training: &dyn HasParts) {
        if !self.refuse_nan {
            return;
        }
        let check = || {
            let parts = self.all_parts(training).into_iter();
            let mut models = parts.filter_map(|(_, part)| part.model());
            models.try_for_each(refuse_nan)
        };
        if let Err(error) = attempt(check) {
            log::error!(target: LOG, "the last backup stays: {}", with_causes(&error));
            self.handle.failed(Arc::new(error));
            self.delete_at_end = false;
        }
    }

    /// Stops the thread that writes backups, and deletes what is no longer needed. `is_flushed` says that the
    /// training has already waited for the mirror. `has_second_notice` says whether there is no time to wait for it.
    pub(super) fn clear_away(
        self,
        is_complete: bool,
        is_flushed: bool,
        mut has_second_notice: impl FnMut() -> bool,
    ) {
        let Self {
            store,
            mirror,
            background,
            handle,
            committed,
            delete_at_end,
            ..
        } = self;
        drop(background);
        if !(is_complete && delete_at_end) {
            return leave(&handle, mirror, is_flushed, has_second_notice);
        }
        if handle.is_poisoned() && committed.is_some() {
            log::error!(
                target: LOG,
                "the training ended, but its model contains NaN: the last good backup stays",
            );
            return leave(&handle, mirror, is_flushed, has_second_notice);
        }
        // Finish in the mirror first: it tells processes that were killed that the training is complete.
        let finished =
            mirror.map(|mirror| mirror::finish(&handle, &mirror, &mut has_second_notice));
        let leftovers = match finished.transpose() {
            Ok(leftovers) => leftovers,
            Err(error) => {
                let error = Arc::new(BackupError::from(error));
                warn(
                    &handle,
                    &format!(
                        "the backup stays, on this disk and in the mirror, because the mirror could not be marked \
                         as finished: {}; BackupHandle::discard deletes both",
                        with_causes(error.as_ref()),
                    ),
                );
                handle.failed(error);
                return;
            }
        };
        let Some(store) = Arc::into_inner(store) else {
            log::error!(target: LOG, "the backup stays because it is still being written");
            return;
        };
        if let Err(error) = store.remove() {
            let error = Arc::new(BackupError::from(error));
            log::error!(target: LOG, "the backup is only partly deleted: {}", with_causes(error.as_ref()));
            handle.failed(error);
        }
        if let Some(leftovers) = leftovers {
            mirror::clear(leftovers);
        }
    }
}

/// Releases the mirror, after the last backup is uploaded.
fn leave(
    handle: &BackupHandle,
    mirror: Option<Arc<Mirroring>>,
    is_flushed: bool,
    has_second_notice: impl FnMut() -> bool,
) {
    let Some(mirror) = mirror else {
        return;
    };
    if !is_flushed && let Err(error) = mirror::flush(handle, &mirror, None, has_second_notice) {
        log::error!(target: LOG, "the last backup is not in the mirror: {}", with_causes(error.as_ref()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::save::{OtherRecords, SharedModel};

    /// A part that keeps its tensors alive as long as it exists.
    struct Part {
        _tensors: Arc<()>,
    }

    impl SharedPart for Part {
        fn model(&self, _read: DeviceRead) -> Option<SharedModel> {
            None
        }

        fn others(&self, _fit: &mut Fit) -> Result<OtherRecords, BackupError> {
            Ok(OtherRecords::default())
        }

        fn again(&self) -> Box<dyn SharedPart> {
            Box::new(Self {
                _tensors: self._tensors.clone(),
            })
        }
    }

    #[test]
    fn tensors_that_are_read_later_are_kept() {
        for (read, is_kept) in [(DeviceRead::Now, false), (DeviceRead::Later, true)] {
            let tensors = Arc::new(());
            let mut on_thread = OnThread::new(read, Vec::new());
            let part = Part {
                _tensors: tensors.clone(),
            };
            let taken = on_thread.take("", Box::new(part));
            assert!(matches!(taken, Contents::Taken(Ok(_))));
            drop(taken);
            assert_eq!(Arc::strong_count(&tensors) == 2, is_kept, "{read:?}");
        }
    }
}
