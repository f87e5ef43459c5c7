//! The thread that writes backups: encode, persist, commit, prune.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvError, SendError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use burn::train::Interrupter;
use burn_backup_store::{Committed, GenerationId, Store};

use super::encode::{Encoder, Memories};
use super::retention::Retention;
use super::snapshot::{Metrics, TrainingSnapshot};
use crate::error::{BackupError, with_causes};
use crate::handle::BackupHandle;
use crate::mirror::Mirroring;
use crate::on_backup_error::OnBackupError;
use crate::panics::{attempt, panic_message};
use crate::spans;
use crate::state::Moment;

const LOG: &str = "burn_backup::commit";

/// What the thread works with.
pub(crate) struct WriterContext {
    pub store: Arc<Store>,
    /// Where what is committed goes besides.
    pub mirror: Option<Arc<Mirroring>>,
    pub handle: BackupHandle,
    pub retention: Arc<Retention>,
    pub skip_nan: bool,
    pub on_error: OnBackupError,
    pub interrupter: Interrupter,
    /// The training is over, or unwinds: nobody waits for much.
    pub is_left: AtomicBool,
}

/// What the thread says of a snapshot, in this order.
enum Report {
    /// It is done, and this says whether it was committed.
    Outcome(bool),
    /// All work after it is done too.
    Idle,
}

/// What became of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was committed, and is of this moment.
    Committed(Moment),
    /// It failed; the handle has the error.
    Failed,
}

/// Writes snapshots, one at a time, on a thread of its own. Dropping it waits for the last one.
///
/// The thread catches and reports panics while it writes. A panic elsewhere, in a logger say, ends
/// it: that fails the snapshot in flight, and the next snapshot starts another thread.
pub(crate) struct Background {
    context: Arc<WriterContext>,
    writer: Option<Writer>,
    in_flight: Option<Moment>,
    /// When that one's backup began.
    begun: Instant,
    /// Whether one has failed since that was last asked.
    has_failed: bool,
    /// How many snapshots still keep the thread at work.
    unfinished: usize,
}

/// The thread.
struct Writer {
    snapshots: Sender<Job>,
    reports: Receiver<Report>,
    thread: JoinHandle<()>,
}

/// A snapshot, and when its backup began.
type Job = (TrainingSnapshot, Instant);

impl Writer {
    fn start(context: Arc<WriterContext>, memories: Memories) -> Result<Self, BackupError> {
        let (snapshots, inbox) = channel();
        let (outbox, reports) = channel();
        let thread = std::thread::Builder::new()
            .name("backup".to_owned())
            .spawn(move || work(&context, memories, &inbox, &outbox))
            .map_err(BackupError::Thread)?;
        Ok(Self {
            snapshots,
            reports,
            thread,
        })
    }

    /// Waits for the thread's end. Gives the message of the panic that ended it, if one did.
    fn join(self) -> Option<String> {
        drop(self.snapshots);
        let panic = self.thread.join().err()?;
        Some(panic_message(panic.as_ref()))
    }
}

impl Background {
    pub(crate) fn start(context: WriterContext, memories: Memories) -> Result<Self, BackupError> {
        let context = Arc::new(context);
        Ok(Self {
            writer: Some(Writer::start(context.clone(), memories)?),
            context,
            in_flight: None,
            begun: Instant::now(),
            has_failed: false,
            unfinished: 0,
        })
    }

    /// Hands a snapshot over, whose backup has `begun` then. At most one is in flight:
    /// [`settle`](Self::settle) comes first.
    pub(crate) fn submit(&mut self, snapshot: TrainingSnapshot, begun: Instant) {
        self.in_flight = Some(snapshot.state.moment());
        self.begun = begun;
        self.unfinished += 1;
        let mut job = (snapshot, begun);
        // A thread that has ended since its last snapshot gives it back.
        if let Some(writer) = &self.writer {
            match writer.snapshots.send(job) {
                Ok(()) => return,
                Err(SendError(returned)) => job = returned,
            }
            self.bury();
        }
        match Writer::start(self.context.clone(), Memories::new()) {
            Ok(writer) => {
                // It waits for this one first.
                let _ = writer.snapshots.send(job);
                self.writer = Some(writer);
            }
            // The next one tries again. What becomes of this one shows when it is settled.
            Err(error) => report(&self.context, Arc::new(error)),
        }
    }

    /// Whether the thread is at work, as far as is known: it writes a snapshot or prunes after it.
    pub(crate) fn is_busy(&self) -> bool {
        self.unfinished > 0
    }

    /// How long the snapshot in flight has been; nothing if there is none.
    pub(crate) fn in_flight_for(&self) -> Option<Duration> {
        self.in_flight.map(|_| self.begun.elapsed())
    }

    /// What became of the snapshot in flight, if that is known by now.
    pub(crate) fn poll(&mut self) -> Option<Outcome> {
        let mut outcome = None;
        while self.unfinished > 0 {
            let Some(writer) = &self.writer else {
                return outcome.or(self.lose());
            };
            match writer.reports.try_recv() {
                Ok(report) => outcome = self.take(report).or(outcome),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    let failed = self.thread_ended();
                    return outcome.or(failed);
                }
            }
        }
        outcome
    }

    /// Waits until nothing is in flight, and says what became of it.
    pub(crate) fn settle(&mut self) -> Option<Outcome> {
        while self.in_flight.is_some() {
            let Some(writer) = &self.writer else {
                return self.lose();
            };
            match writer.reports.recv() {
                Ok(report) => {
                    if let Some(outcome) = self.take(report) {
                        return Some(outcome);
                    }
                }
                Err(RecvError) => return self.thread_ended(),
            }
        }
        None
    }

    /// Waits until the thread has nothing to do, not even to prune, and goes on with one that knows this of the parts.
    pub(crate) fn restart(&mut self, memories: Memories) -> Result<(), BackupError> {
        self.settle();
        if let Some(writer) = self.writer.take() {
            drop(writer.join());
        }
        self.unfinished = 0;
        self.writer = Some(Writer::start(self.context.clone(), memories)?);
        Ok(())
    }

    /// Whether a backup has failed since the last call.
    pub(crate) fn take_failure(&mut self) -> bool {
        std::mem::take(&mut self.has_failed)
    }

    /// What became of the snapshot, if the report is of that.
    fn take(&mut self, report: Report) -> Option<Outcome> {
        match report {
            Report::Outcome(true) => self.in_flight.take().map(Outcome::Committed),
            Report::Outcome(false) => self.lose(),
            Report::Idle => {
                self.unfinished = self.unfinished.saturating_sub(1);
                None
            }
        }
    }

    /// The snapshot in flight, if there is one, has failed.
    fn lose(&mut self) -> Option<Outcome> {
        let lost = self.in_flight.take()?;
        log::debug!(target: LOG, "no backup of {}", lost.position);
        self.has_failed = true;
        if self.writer.is_none() {
            self.unfinished = 0;
        }
        Some(Outcome::Failed)
    }

    /// The thread has ended, which it never does by itself while it is needed.
    fn thread_ended(&mut self) -> Option<Outcome> {
        let message = self.bury();
        // Once the outcome is known, what is left undone is a prune: the next one does it.
        if self.in_flight.is_some() {
            report(&self.context, Arc::new(BackupError::Panicked { message }));
        }
        self.lose()
    }

    /// Takes leave of a thread that has ended; gives the reason.
    fn bury(&mut self) -> String {
        let message = self.writer.take().and_then(Writer::join);
        let message = message.unwrap_or_else(|| "it ended by itself".to_owned());
        log::error!(
            target: LOG,
            "the thread that writes backups has ended: {message}; the next backup starts another one",
        );
        self.unfinished = usize::from(self.in_flight.is_some());
        message
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.context.is_left.store(true, Ordering::Relaxed);
        if let Some(writer) = self.writer.take() {
            drop(writer.join());
        }
    }
}

fn work(
    context: &WriterContext,
    memories: Memories,
    inbox: &Receiver<Job>,
    outbox: &Sender<Report>,
) {
    let mut encoder = Encoder {
        memories,
        skip_nan: context.skip_nan,
    };
    while let Ok((snapshot, begun)) = inbox.recv() {
        let position = snapshot.state.position;
        let outcome = attempt(|| save(context, snapshot, &mut encoder));
        let committed = match outcome {
            Ok(committed) => {
                let persist = begun.elapsed();
                log::info!(
                    target: LOG,
                    "backup {} at {position}: {} bytes, {} of them linked, in {persist:.1?}",
                    committed.id(), committed.bytes(), committed.linked(),
                );
                let failures = context.handle.committed(position, &committed, persist);
                if failures > 0 {
                    log::warn!(target: LOG, "backups work again, after {failures} that failed");
                }
                Some(committed)
            }
            Err(error) => {
                report(context, Arc::new(error));
                None
            }
        };
        // Whoever hears of the outcome may wait for the mirror.
        if let (Some(mirror), Some(committed)) = (&context.mirror, &committed) {
            mirror.announce(committed.id());
        }
        // Nobody need wait for what is pruned.
        let outcome = outbox.send(Report::Outcome(committed.is_some()));
        if let Some(committed) = committed {
            // Before it could be pruned.
            if let Some(mirror) = &context.mirror {
                mirror.committed(committed.id());
            }
            prune(context, &committed);
        }
        if outcome.and_then(|()| outbox.send(Report::Idle)).is_err() {
            return;
        }
    }
}

fn save(
    context: &WriterContext,
    snapshot: TrainingSnapshot,
    encoder: &mut Encoder,
) -> Result<Committed, BackupError> {
    let TrainingSnapshot {
        mut state,
        metrics,
        watched,
        parts,
    } = snapshot;
    let staging = {
        let _span = spans::encode();
        let mut staging = context.store.stage()?;
        let encoded = encoder.encode(parts, &mut state, &mut staging);
        encoded.map(|()| staging)
    };
    let has_failed =
        || context.interrupter.error().is_some() || context.is_left.load(Ordering::Relaxed);
    // Whether it has diverged comes first: NaN in the model is what follows from it.
    if let Some(mark) = watched {
        let seen = mark.wait(has_failed).ok_or(BackupError::MetricsMissing)?;
        if seen.has_found {
            return Err(BackupError::DivergedBefore);
        }
        state.divergence = Some(seen.record);
    }
    let staging = staging?;
    match metrics {
        Metrics::Known(history) => state.history = Arc::unwrap_or_clone(history),
        Metrics::Until(mark) => {
            let logged = mark.wait(has_failed);
            let logged = logged.ok_or(BackupError::MetricsMissing)?;
            state.history = Arc::unwrap_or_clone(logged.history);
            state.logs = logged.open;
            // What the backup says of them is to be true after a power cut, too.
            mark.logs().sync();
        }
    }
    let _span = spans::commit();
    let committed = staging.commit(&state)?;
    let (id, created) = (committed.id(), committed.created());
    context.retention.committed(id, created, &state);
    Ok(committed)
}

fn prune(context: &WriterContext, committed: &Committed) {
    let _span = spans::prune();
    let stay = |newest_first: &[GenerationId]| context.retention.stay(newest_first);
    if let Err(error) = context.store.prune_with(committed, &stay) {
        // The backup is there; one too many costs space only, and the next prune tries again.
        log::warn!(target: LOG, "{}", with_causes(&BackupError::from(error)));
    }
}

fn report(context: &WriterContext, error: Arc<BackupError>) {
    if matches!(*error, BackupError::DivergedBefore) {
        // What follows is the training's matter: it goes back, or ends.
        log::info!(target: LOG, "{error}");
        return;
    }
    // What keeps failing in the same ways, on a full disk say, is said loudly once.
    let level = match context.handle.is_failing_like(&error) {
        true => log::Level::Debug,
        false => log::Level::Error,
    };
    log::log!(target: LOG, level, "backup failed: {}", with_causes(error.as_ref()));
    context.handle.failed(error.clone());
    if context.on_error == OnBackupError::Stop {
        context
            .interrupter
            .fail(BackupError::into_training_error(error));
    }
}
