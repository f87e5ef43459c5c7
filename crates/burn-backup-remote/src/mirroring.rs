//! Mirroring during a training. Committed generations are put into the mirror, the newest first, on a thread that does
//! not block the training.

pub(crate) mod shared;
pub(crate) mod task;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use burn_backup_store::{GenerationId, Store};
use object_store::path::Path;

use crate::error::MirrorError;
use crate::fetch::Transfer;
use crate::finish::clear;
use crate::keys::Keys;
use crate::place::Place;
use crate::prune::Deleter;
use crate::worker::Worker;
use shared::{EndRequest, Shared};

pub(crate) use task::Task;

/// How long the end of a process waits until the lease is released.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);

/// How often a waiting caller is told the progress of a transfer.
const TOLD_EVERY: Duration = Duration::from_millis(250);

/// After this many failed tries, waiting ends.
const TRIES: u64 = 2;

/// Mirrors the generations of a store. Dropping it releases the lease, so that no other process has to wait for it.
/// Generations that are not in the mirror by then are left out.
pub struct Mirroring {
    store: Arc<Store>,
    shared: Arc<Shared>,
    place: Place,
    keys: Keys,
    worker: Arc<Worker>,
}

/// The state of mirroring.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct MirrorStatus {
    /// The newest generation that is whole in the mirror.
    pub mirrored: Option<GenerationId>,
    /// The newest committed generation, which will be mirrored.
    pub committed: Option<GenerationId>,
    /// The number of generations that this process has put.
    pub published: u64,
    /// The number of generations that were skipped, because a newer one was committed before their turn.
    pub skipped: u64,
    /// The number of bytes that this process has sent.
    pub bytes: u64,
    /// The number of failed tries.
    pub failures: u64,
    /// Whether the last try failed.
    pub is_failing: bool,
    /// The state of the permission to write.
    pub lease: LeaseStatus,
    /// The last failure.
    pub last_error: Option<Arc<MirrorError>>,
    /// Why mirroring has stopped, if it has.
    pub stopped: Option<Arc<MirrorError>>,
    /// How long the last generation took, from its first byte on.
    pub upload_last: Option<Duration>,
    /// When the current upload began.
    pub uploading_since: Option<Instant>,
}

/// Which process may write to a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LeaseStatus {
    /// Unknown: the mirror is not reached yet, or another process may still hold the lease.
    #[default]
    Waiting,
    /// This process holds the lease.
    Held,
    /// Another process holds the lease, and mirroring has stopped.
    Lost,
}

/// Reports the state of mirroring. Cloning is cheap.
#[derive(Clone)]
pub struct MirrorWatch(Arc<Shared>);

impl MirrorWatch {
    /// The current state.
    pub fn status(&self) -> MirrorStatus {
        self.0.status()
    }
}

impl fmt::Debug for MirrorWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MirrorWatch").field(&self.status()).finish()
    }
}

/// An event that is reported immediately.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum MirrorEvent {
    /// A try has failed after a successful one. It will be repeated.
    Failed(Arc<MirrorError>),
    /// A try has succeeded after a failed one.
    Recovered,
    /// This generation is whole in the mirror.
    Mirrored(GenerationId),
    /// Mirroring has stopped.
    Stopped(Arc<MirrorError>),
}

/// A callback for events. Called on the mirror's thread.
pub type Listener = Box<dyn Fn(MirrorEvent) + Send + Sync>;

/// The remains of a finished training in the mirror.
pub struct Leftovers {
    worker: Arc<Worker>,
    place: Place,
    keys: Keys,
    /// Objects that a listing may not have yet.
    known: BTreeSet<Path>,
}

impl Mirroring {
    pub(crate) fn start(worker: Arc<Worker>, task: Task, store: Arc<Store>) -> Self {
        let shared = Arc::new(Shared::default());
        let (place, keys) = (task.place.clone(), task.keys());
        worker.lower_priority();
        worker.spawn(task::run(task, shared.clone()));
        Self {
            store,
            shared,
            place,
            keys,
            worker,
        }
    }

    /// Announces that the generation `id` is committed and will be [given](Self::committed). A flush then waits for it.
    pub fn announce(&self, id: GenerationId) {
        self.shared.announce(id);
    }

    /// Mirrors the committed generation `id` next. It stays on the disk until it is mirrored, or until a newer one
    /// replaces it. This call reads its manifest.
    pub fn committed(&self, id: GenerationId) {
        match self.store.pin(id) {
            Ok(Some(pinned)) => self.shared.submit(Arc::new(pinned)),
            Ok(None) => self.shared.gone(id, MirrorError::Gone { generation: id }),
            Err(error) => self.shared.gone(id, error.into()),
        }
    }

    /// The current state.
    pub fn status(&self) -> MirrorStatus {
        self.shared.status()
    }

    /// A handle that reports the state, also after the end.
    pub fn watch(&self) -> MirrorWatch {
        MirrorWatch(self.shared.clone())
    }

    /// Waits until the newest committed generation is in the mirror, or until the time `until`. Without a time limit,
    /// gives up after two failed tries. `on_transfer` is called several times a second, and can end the wait.
    ///
    /// # Errors
    ///
    /// The error of the last try, and [`MirrorError::OutOfTime`].
    pub fn flush(
        &self,
        until: Option<Instant>,
        on_transfer: &mut dyn FnMut(Transfer) -> ControlFlow<()>,
    ) -> Result<(), Arc<MirrorError>> {
        let began = Instant::now();
        let tries = self.shared.status().failures + TRIES;
        self.shared.hurry();
        loop {
            if let Some(result) = self.shared.is_flushed() {
                return result;
            }
            let now = Instant::now();
            let is_over = until.is_some_and(|until| until <= now);
            if is_over || on_transfer(self.shared.transfer()).is_break() {
                return Err(Arc::new(MirrorError::OutOfTime {
                    mirror: self.place.name.to_string(),
                    limit: now - began,
                }));
            }
            let status = self.shared.status();
            if until.is_none()
                && status.failures >= tries
                && let Some(error) = status.last_error
            {
                return Err(error);
            }
            let limit = until.map_or(TOLD_EVERY, |until| TOLD_EVERY.min(until - now));
            self.shared.wait(limit);
        }
    }

    /// Marks the training as finished. From then on, nothing of it is read or mirrored. [Clear](Leftovers::clear) the
    /// rest of the mirror once the local backup is gone.
    ///
    /// # Errors
    ///
    /// [`MirrorError::LeaseLost`], [`MirrorError::LeaseDeleted`], [`MirrorError::InUse`] and [`MirrorError::Request`].
    /// The backups in the mirror are then unchanged.
    pub fn finish(&self) -> Result<Leftovers, Arc<MirrorError>> {
        let (out, done) = channel();
        self.shared.ask(EndRequest::Finish(out));
        let finished = done.recv().unwrap_or_else(|_| Err(self.shared.reason()));
        Ok(Leftovers::new(
            self.worker.clone(),
            self.place.clone(),
            self.keys.clone(),
            finished?,
        ))
    }
}

impl Drop for Mirroring {
    fn drop(&mut self) {
        let (out, left) = channel();
        self.shared.ask(EndRequest::Leave(out));
        // There may be no answer, because the thread has ended.
        let _ = left.recv_timeout(LEAVE_LIMIT);
    }
}

impl Leftovers {
    pub(crate) fn new(
        worker: Arc<Worker>,
        place: Place,
        keys: Keys,
        known: BTreeSet<Path>,
    ) -> Self {
        Self {
            worker,
            place,
            keys,
            known,
        }
    }

    /// Deletes the remains. The next training in the same mirror deletes what can't be deleted now.
    ///
    /// # Errors
    ///
    /// [`MirrorError::Request`] if the remains can't be listed.
    pub fn clear(self) -> Result<(), MirrorError> {
        let Self {
            worker,
            place,
            keys,
            known,
        } = self;
        worker.call(async move { clear(&place, &keys, known, &mut Deleter::default()).await })
    }
}
