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

/// The context of the thread.
pub(crate) struct WriterContext {
    pub store: Arc<Store>,
    /// The mirror that committed backups are uploaded to, if any.
    pub mirror: Option<Arc<Mirroring>>,
    pub handle: BackupHandle,
    pub retention: Arc<Retention>,
    pub refuse_nan: bool,
    pub on_error: OnBackupError,
    pub interrupter: Interrupter,
    /// Whether the training has ended or is unwinding, so that the thread must not wait for metrics.
    pub is_left: AtomicBool,
}

/// The thread's reports about a snapshot, in this order.
enum Report {
    /// Whether the snapshot was committed.
    Outcome(bool),
    /// The work after the commit is done as well.
    Idle,
}

/// The result of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A backup of this moment was committed.
    Committed(Moment),
    /// The backup failed. The handle has the error.
    Failed,
}

/// Writes snapshots, one at a time, on a separate thread. Dropping it waits for the last one.
///
/// The thread catches and reports panics while it writes. A panic elsewhere, for example in a logger, ends the thread
/// and fails the snapshot in flight. The next snapshot starts another thread.
pub(crate) struct Background {
    context: Arc<WriterContext>,
    writer: Option<Writer>,
    in_flight: Option<Moment>,
    /// When the backup in flight began.
    begun: Instant,
    /// Whether a backup has failed since the last call of [`take_failure`](Self::take_failure).
    has_failed: bool,
    /// The number of snapshots that still keep the thread busy.
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

    /// Waits until the thread ends. Returns its panic message if it panicked.
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

    /// Sends a snapshot to the thread. Its backup began at `begun`. At most one snapshot may be in flight, so call
    /// [`settle`](Self::settle) first.
    pub(crate) fn submit(&mut self, snapshot: TrainingSnapshot, begun: Instant) {
        self.in_flight = Some(snapshot.state.moment());
        self.begun = begun;
        self.unfinished += 1;
        let mut job = (snapshot, begun);
        // If the thread has ended since its last snapshot, the send returns the job.
        if let Some(writer) = &self.writer {
            match writer.snapshots.send(job) {
                Ok(()) => return,
                Err(SendError(returned)) => job = returned,
            }
            self.join_ended_writer();
        }
        match Writer::start(self.context.clone(), Memories::new()) {
            Ok(writer) => {
                // The new thread first waits for this job.
                let _ = writer.snapshots.send(job);
                self.writer = Some(writer);
            }
            // The next backup tries again. `settle` reports the result of this one.
            Err(error) => report(&self.context, Arc::new(error)),
        }
    }

    /// Whether the thread is known to be busy: it writes a snapshot or prunes after it.
    pub(crate) fn is_busy(&self) -> bool {
        self.unfinished > 0
    }

    /// How long the snapshot in flight has taken so far; `None` if there is none.
    pub(crate) fn in_flight_for(&self) -> Option<Duration> {
        self.in_flight.map(|_| self.begun.elapsed())
    }

    /// The result of the snapshot in flight, if it is known.
    pub(crate) fn poll(&mut self) -> Option<Outcome> {
        let mut outcome = None;
        while self.unfinished > 0 {
            let Some(writer) = &self.writer else {
                return outcome.or(self.fail_in_flight());
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

    /// Waits until no snapshot is in flight, and returns the result.
    pub(crate) fn settle(&mut self) -> Option<Outcome> {
        while self.in_flight.is_some() {
            let Some(writer) = &self.writer else {
                return self.fail_in_flight();
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

    /// Waits until the thread has finished all work, including pruning. Then starts a new one with these `memories`
    /// of the parts.
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

    /// The result of the snapshot, if the report contains it.
    fn take(&mut self, report: Report) -> Option<Outcome> {
        match report {
            Report::Outcome(true) => self.in_flight.take().map(Outcome::Committed),
            Report::Outcome(false) => self.fail_in_flight(),
            Report::Idle => {
                self.unfinished = self.unfinished.saturating_sub(1);
                None
            }
        }
    }

    /// Marks the snapshot in flight, if there is one, as failed.
    fn fail_in_flight(&mut self) -> Option<Outcome> {
        let lost = self.in_flight.take()?;
        log::debug!(target: LOG, "no backup of {}", lost.position);
        self.has_failed = true;
        if self.writer.is_none() {
            self.unfinished = 0;
        }
        Some(Outcome::Failed)
    }

    /// Called when the thread has ended, which it never does while it is needed, unless it panics.
    fn thread_ended(&mut self) -> Option<Outcome> {
        let message = self.join_ended_writer();
        // If the result was already known, only a prune is missing, and the next one makes up for it.
        if self.in_flight.is_some() {
            report(&self.context, Arc::new(BackupError::Panicked { message }));
        }
        self.fail_in_flight()
    }

    /// Joins a thread that has ended, and returns the reason.
    fn join_ended_writer(&mut self) -> String {
        let message = self.writer.take().and_then(Writer::join);
        let message = message.unwrap_or_else(|| "it ended without a panic".to_owned());
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
        refuse_nan: context.refuse_nan,
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
        // Announce it to the mirror before sending the outcome, because the receiver of the outcome may wait
        // for the mirror.
        if let (Some(mirror), Some(committed)) = (&context.mirror, &committed) {
            mirror.announce(committed.id());
        }
        // Send the outcome before pruning, because no other thread has to wait for the prune.
        let outcome = outbox.send(Report::Outcome(committed.is_some()));
        if let Some(committed) = committed {
            // Tell the mirror before the backup could be pruned.
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
    // Check for a divergence first, because NaN in the model may be a consequence of it.
    if let Some(mark) = watched {
        let seen = mark.wait(has_failed).ok_or(BackupError::MetricsMissing)?;
        if seen.has_diverged {
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
            // Sync the logs, so that the backup's record of them is still true after a power cut.
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
    let stay = |newest_first: &[GenerationId]| context.retention.kept(newest_first);
    if let Err(error) = context.store.prune_with(committed, &stay) {
        // The backup exists. An extra old backup only costs space, and the next prune tries again.
        log::warn!(target: LOG, "{}", with_causes(&BackupError::from(error)));
    }
}

fn report(context: &WriterContext, error: Arc<BackupError>) {
    if matches!(*error, BackupError::DivergedBefore) {
        // The training itself reacts: it goes back or ends.
        log::info!(target: LOG, "{error}");
        return;
    }
    // Log repeated failures of the same kind, for example on a full disk, as errors only once.
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
