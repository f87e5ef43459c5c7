//! Mirroring while a training runs: committed generations are put into the mirror, the newest first, on a thread on
//! which nobody waits.

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
use crate::prune::Broom;
use crate::worker::Worker;
use shared::{Ask, Shared};

pub(crate) use task::Task;

/// How long the end of a process waits until the mirror knows of it.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);

/// How often whoever waits is told how far a transfer is.
const TOLD_EVERY: Duration = Duration::from_millis(250);

/// After so many failed tries nobody waits any longer.
const TRIES: u64 = 2;

/// Mirrors the generations of a store. Dropping it lets go of the mirror, so that no other process has to wait for it;
/// what is not there by then is left out.
pub struct Mirroring {
    store: Arc<Store>,
    shared: Arc<Shared>,
    place: Place,
    keys: Keys,
    worker: Arc<Worker>,
}

/// How mirroring goes.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct MirrorStatus {
    /// The newest generation that is whole in the mirror.
    pub mirrored: Option<GenerationId>,
    /// The newest one that is to be.
    pub committed: Option<GenerationId>,
    /// Generations that this process has put there.
    pub published: u64,
    /// Generations that were left out, because a newer one was there before their turn came.
    pub skipped: u64,
    /// Bytes that this process has sent.
    pub bytes: u64,
    /// Tries that failed.
    pub failures: u64,
    /// Whether the last try did.
    pub is_failing: bool,
    /// Who may write to the mirror.
    pub lease: LeaseStatus,
    /// The last failure.
    pub last_error: Option<Arc<MirrorError>>,
    /// Why nothing is mirrored any more, if that is so.
    pub stopped: Option<Arc<MirrorError>>,
    /// How long the last generation took, from its first byte on.
    pub upload_last: Option<Duration>,
    /// Since when one is being put there.
    pub uploading_since: Option<Instant>,
}

/// Who may write to a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LeaseStatus {
    /// Not known yet: the mirror is not reached, or another process may still hold it.
    #[default]
    Waiting,
    /// This process.
    Held,
    /// Another process: nothing is mirrored any more.
    Lost,
}

/// Tells how mirroring goes. Cloning is cheap.
#[derive(Clone)]
pub struct MirrorWatch(Arc<Shared>);

impl MirrorWatch {
    /// How it goes.
    pub fn status(&self) -> MirrorStatus {
        self.0.status()
    }
}

impl fmt::Debug for MirrorWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MirrorWatch").field(&self.status()).finish()
    }
}

/// What whoever mirrors should know of at once.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum MirrorEvent {
    /// A try has failed, after one that went well. It is tried again.
    Failed(Arc<MirrorError>),
    /// The next one went well.
    Recovered,
    /// This generation is whole in the mirror.
    Mirrored(GenerationId),
    /// Nothing is mirrored any more.
    Stopped(Arc<MirrorError>),
}

/// Is called on the mirror's thread.
pub type Listener = Box<dyn Fn(MirrorEvent) + Send + Sync>;

/// What is left in the mirror of a training that is finished.
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

    /// The generation `id` is committed, and is about to be [given](Self::committed): whoever flushes waits for it.
    pub fn announce(&self, id: GenerationId) {
        self.shared.announce(id);
    }

    /// The generation `id` is committed: it is mirrored next. It stays on the disk until it is, or until a newer one
    /// takes its place. This takes as long as its manifest is read.
    pub fn committed(&self, id: GenerationId) {
        match self.store.pin(id) {
            Ok(Some(pinned)) => self.shared.submit(Arc::new(pinned)),
            Ok(None) => self.shared.gone(id, MirrorError::Gone { generation: id }),
            Err(error) => self.shared.gone(id, error.into()),
        }
    }

    /// How it goes.
    pub fn status(&self) -> MirrorStatus {
        self.shared.status()
    }

    /// Tells how it goes, also after the end.
    pub fn watch(&self) -> MirrorWatch {
        MirrorWatch(self.shared.clone())
    }

    /// Waits until the newest committed generation is in the mirror, or it is `until`. Without a time, it gives up
    /// after two failed tries. `on_transfer` is called several times a second, and can end the wait.
    ///
    /// # Errors
    ///
    /// What the last try failed with, and [`MirrorError::OutOfTime`].
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

    /// Marks the training as finished: from then on nothing of it is read any more, and nothing is mirrored. What is
    /// left in the mirror is to be [cleared](Leftovers::clear) once the local backup is gone.
    ///
    /// # Errors
    ///
    /// [`MirrorError::LeaseLost`], [`MirrorError::InUse`] and [`MirrorError::Request`]: the backups in the mirror
    /// are as they were.
    pub fn finish(&self) -> Result<Leftovers, Arc<MirrorError>> {
        let (out, done) = channel();
        self.shared.ask(Ask::Finish(out));
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
        self.shared.ask(Ask::Leave(out));
        // It may be that nobody answers, because it has ended.
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

    /// Deletes what is left. What can't be deleted is left to the next training in the same mirror.
    ///
    /// # Errors
    ///
    /// [`MirrorError::Request`] if it can't be listed.
    pub fn clear(self) -> Result<(), MirrorError> {
        let Self {
            worker,
            place,
            keys,
            known,
        } = self;
        worker.call(async move { clear(&place, &keys, known, &mut Broom::default()).await })
    }
}
