//! The state shared by the thread of a mirror and its users.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use burn_backup_store::{GenerationId, Pinned};
use object_store::path::Path;
use tokio::sync::Notify;

use super::{LeaseStatus, MirrorStatus};
use crate::error::MirrorError;
use crate::fetch::Transfer;
use crate::publish::Sent;

#[derive(Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Notified when the state has changed.
    changed: Condvar,
    /// Notified when there is something to do.
    wake: Notify,
    /// Notified when a caller waits, so that the thread retries at once.
    hurry: Notify,
    pub(crate) sent: Arc<Sent>,
}

#[derive(Default)]
struct State {
    status: MirrorStatus,
    /// The generation to mirror next.
    job: Option<Arc<Pinned>>,
    /// The generation that is committed, but not submitted yet.
    announced: Option<GenerationId>,
    /// Whether a generation is being sent, or waits for another try.
    is_busy: bool,
    ask: Option<EndRequest>,
    /// Whether the thread has ended.
    has_ended: bool,
}

/// A request to end mirroring.
pub(crate) enum EndRequest {
    /// The training is finished. The answer is the objects known to be in the mirror.
    Finish(Sender<Result<BTreeSet<Path>, Arc<MirrorError>>>),
    /// The process ends, or gives up the training.
    Leave(Sender<()>),
}

/// The next thing to do.
pub(crate) enum Next {
    Publish(Arc<Pinned>),
    End(EndRequest),
}

impl Shared {
    /// Announces a generation that will be submitted.
    pub(crate) fn announce(&self, id: GenerationId) {
        self.update(|state| {
            state.announced = state.announced.max(Some(id));
            state.status.committed = state.status.committed.max(Some(id));
        });
    }

    /// Submits the generation to mirror next.
    pub(crate) fn submit(&self, pinned: Arc<Pinned>) {
        let id = pinned.id();
        // Dropping a replaced generation unpins it, which may have to wait.
        let replaced = self.update(|state| {
            state.arrives(id);
            match state.has_ended {
                true => Some(pinned),
                false => {
                    let replaced = state.job.replace(pinned);
                    state.status.skipped += u64::from(replaced.is_some());
                    replaced
                }
            }
        });
        drop(replaced);
        self.wake.notify_one();
    }

    /// Records that the generation can't be submitted.
    pub(crate) fn gone(&self, id: GenerationId, error: MirrorError) {
        log::warn!(target: crate::LOG, "{error}");
        self.update(|state| state.arrives(id));
        self.failed(Arc::new(error));
    }

    /// Submits a generation again after a failed try.
    pub(crate) fn again(&self, pinned: Arc<Pinned>) {
        let surplus = self.update(|state| match state.job {
            Some(_) => Some(pinned),
            None => state.job.replace(pinned),
        });
        drop(surplus);
    }

    /// Asks for the end. If the thread has ended already, there is no answer.
    pub(crate) fn ask(&self, ask: EndRequest) {
        let refused = self.update(|state| match state.has_ended {
            true => Some(ask),
            false => state.ask.replace(ask),
        });
        drop(refused);
        self.wake.notify_one();
        self.hurry.notify_one();
    }

    /// Ends the wait before the next try.
    pub(crate) fn hurry(&self) {
        self.hurry.notify_one();
    }

    pub(crate) async fn is_hurried(&self) {
        self.hurry.notified().await;
    }

    /// Waits until there is something to do.
    pub(crate) async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.try_next() {
                return next;
            }
            self.wake.notified().await;
        }
    }

    fn try_next(&self) -> Option<Next> {
        let mut state = self.state();
        // A request to finish comes after the committed generations, but a request to leave comes first.
        match (state.ask.take(), state.job.is_some()) {
            (Some(ask @ EndRequest::Leave(_)), _) => Some(Next::End(ask)),
            (ask, true) => {
                state.ask = ask;
                state.is_busy = true;
                state.job.take().map(Next::Publish)
            }
            (Some(ask), false) => Some(Next::End(ask)),
            (None, false) => None,
        }
    }

    /// Refuses a request to finish with `error`. Returns whether there was such a request.
    pub(crate) fn refuse_to_finish(&self, error: &Arc<MirrorError>) -> bool {
        let mut state = self.state();
        match state.ask.take() {
            Some(EndRequest::Finish(out)) => {
                drop(state);
                drop(out.send(Err(error.clone())));
                true
            }
            ask => {
                state.ask = ask;
                false
            }
        }
    }

    /// Waits for a request to leave.
    pub(crate) async fn is_left(&self) {
        loop {
            if matches!(self.state().ask, Some(EndRequest::Leave(_))) {
                return;
            }
            self.wake.notified().await;
        }
    }

    /// Records that this process holds the lease, and the newest generation in the mirror.
    pub(crate) fn held(&self, newest: Option<GenerationId>) {
        self.update(|state| {
            state.status.lease = LeaseStatus::Held;
            state.status.mirrored = newest;
            state.status.is_failing = false;
        });
    }

    pub(crate) fn begins(&self) {
        self.update(|state| state.status.uploading_since = Some(Instant::now()));
    }

    /// Records that the generation is in the mirror.
    pub(crate) fn mirrored(&self, id: GenerationId, is_new: bool) {
        self.update(|state| {
            let status = &mut state.status;
            let began = status.uploading_since.take();
            if is_new {
                status.upload_last = began.map(|began| began.elapsed());
                status.published += 1;
            }
            status.mirrored = Some(id);
            status.is_failing = false;
            state.is_busy = false;
        });
    }

    pub(crate) fn failed(&self, error: Arc<MirrorError>) {
        self.update(|state| {
            let status = &mut state.status;
            status.uploading_since = None;
            status.failures += 1;
            status.is_failing = true;
            status.last_error = Some(error);
        });
    }

    /// Records that mirroring has stopped, and the error if there is one.
    pub(crate) fn ends(&self, error: Option<Arc<MirrorError>>) {
        let left = self.update(|state| {
            let status = &mut state.status;
            if error.as_ref().is_some_and(|error| error.is_loss()) {
                status.lease = LeaseStatus::Lost;
            }
            status.uploading_since = None;
            if !state.has_ended {
                status.stopped = error;
            }
            state.has_ended = true;
            state.is_busy = false;
            (state.job.take(), state.ask.take())
        });
        drop(left);
    }

    /// The reason why mirroring has stopped.
    pub(crate) fn reason(&self) -> Arc<MirrorError> {
        let stopped = self.state().status.stopped.clone();
        stopped.unwrap_or_else(|| Arc::new(MirrorError::ThreadEnded))
    }

    /// Whether the newest generation is in the mirror; `None` while this is unknown.
    pub(crate) fn is_flushed(&self) -> Option<Result<(), Arc<MirrorError>>> {
        let state = self.state();
        let status = &state.status;
        if status.committed <= status.mirrored {
            return Some(Ok(()));
        }
        if state.has_ended {
            drop(state);
            return Some(Err(self.reason()));
        }
        let is_waiting = state.job.is_some() || state.is_busy || state.announced.is_some();
        match (&status.last_error, is_waiting) {
            // The generation could not be read.
            (Some(error), false) => Some(Err(error.clone())),
            _ => None,
        }
    }

    pub(crate) fn status(&self) -> MirrorStatus {
        let mut status = self.state().status.clone();
        status.bytes = self.sent.total.load(Ordering::Relaxed);
        status
    }

    pub(crate) fn transfer(&self) -> Transfer {
        Transfer {
            done: self.sent.done.load(Ordering::Relaxed),
            of: self.sent.of.load(Ordering::Relaxed),
        }
    }

    /// Waits until something has changed, for at most `limit`.
    pub(crate) fn wait(&self, limit: Duration) {
        let waited = self.changed.wait_timeout(self.state(), limit);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state());
        self.changed.notify_all();
        changed
    }

    /// The state is plain data: a panic elsewhere leaves no partial change in it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Records that the generation was submitted, or will not be.
    fn arrives(&mut self, id: GenerationId) {
        self.status.committed = self.status.committed.max(Some(id));
        self.announced = self.announced.filter(|announced| *announced > id);
    }
}
