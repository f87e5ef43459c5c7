//! The thread that writes backups: encode, persist, commit, prune.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use burn::train::metric::store::EventStoreClient;
use burn::train::{Interrupter, LearnerModel};
use burn_backup_store::{Committed, Store};

use crate::builder::OnBackupError;
use crate::burn_api::RecordReader;
use crate::encode::{Encoder, Frozen};
use crate::error::{BackupError, with_causes};
use crate::handle::BackupHandle;
use crate::snapshot::{Metrics, Taken};
use crate::state::Moment;

const LOG: &str = "burn_backup::commit";

/// What the thread works with.
pub(crate) struct Desk {
    pub store: Arc<Store>,
    pub handle: BackupHandle,
    pub keep_last: usize,
    pub skip_nan: bool,
    pub on_error: OnBackupError,
    pub interrupter: Interrupter,
    pub event_store: Arc<EventStoreClient>,
}

/// What the thread says of a snapshot, in this order.
enum Report {
    /// It is done, and this says whether it was committed.
    Outcome(bool),
    /// So is all that comes after it.
    Idle,
}

/// Writes snapshots, one at a time, on a thread of its own. Dropping it waits for the last one.
pub(crate) struct Background<M: LearnerModel> {
    snapshots: Option<Sender<(Taken<M>, Instant)>>,
    reports: Receiver<Report>,
    in_flight: Option<Moment>,
    /// When that one's backup began.
    begun: Instant,
    /// Whether one has failed since that was last asked.
    has_failed: bool,
    /// How many snapshots still keep the thread at work.
    unfinished: usize,
    thread: Option<JoinHandle<()>>,
}

impl<M: LearnerModel> Background<M> {
    pub(crate) fn start(desk: Desk, frozen: Frozen) -> Result<Self, BackupError> {
        let (snapshots, inbox) = channel();
        let (outbox, reports) = channel();
        let thread = std::thread::Builder::new()
            .name("backup".to_owned())
            .spawn(move || work(&desk, frozen, &inbox, &outbox))
            .map_err(BackupError::Thread)?;
        Ok(Self {
            snapshots: Some(snapshots),
            reports,
            in_flight: None,
            begun: Instant::now(),
            has_failed: false,
            unfinished: 0,
            thread: Some(thread),
        })
    }

    /// Hands a snapshot over, whose backup has `begun` then. At most one is in flight:
    /// [`settle`](Self::settle) comes first.
    pub(crate) fn submit(&mut self, snapshot: Taken<M>, begun: Instant) {
        self.in_flight = Some(snapshot.state.moment());
        self.begun = begun;
        self.unfinished += 1;
        if let Some(snapshots) = &self.snapshots {
            // A thread that is gone shows when it is settled.
            let _ = snapshots.send((snapshot, begun));
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

    /// What was committed since the last call, if that is known by now.
    pub(crate) fn poll(&mut self) -> Option<Moment> {
        let mut committed = None;
        while let Ok(report) = self.reports.try_recv() {
            committed = self.take(report).flatten().or(committed);
        }
        committed
    }

    /// Waits until nothing is in flight, and says what was committed since the last call.
    pub(crate) fn settle(&mut self) -> Option<Moment> {
        while self.in_flight.is_some() {
            match self.reports.recv() {
                Ok(report) => {
                    if let Some(outcome) = self.take(report) {
                        return outcome;
                    }
                }
                Err(_) => {
                    log::error!(target: LOG, "the thread that writes backups is gone");
                    self.in_flight = None;
                }
            }
        }
        None
    }

    /// Whether a backup has failed since the last call.
    pub(crate) fn take_failure(&mut self) -> bool {
        std::mem::take(&mut self.has_failed)
    }

    /// What was committed, if the report is an outcome.
    fn take(&mut self, report: Report) -> Option<Option<Moment>> {
        match report {
            Report::Outcome(is_committed) => {
                let moment = self.in_flight.take();
                self.has_failed |= !is_committed;
                Some(moment.filter(|_| is_committed))
            }
            Report::Idle => {
                self.unfinished = self.unfinished.saturating_sub(1);
                None
            }
        }
    }
}

impl<M: LearnerModel> Drop for Background<M> {
    fn drop(&mut self) {
        self.snapshots = None;
        if let Some(thread) = self.thread.take() {
            // Its panics are caught and reported, one snapshot at a time.
            let _ = thread.join();
        }
    }
}

fn work<M: LearnerModel>(
    desk: &Desk,
    frozen: Frozen,
    inbox: &Receiver<(Taken<M>, Instant)>,
    outbox: &Sender<Report>,
) {
    let new_reader = || RecordReader::new(desk.event_store.clone());
    let mut encoder = Encoder {
        reader: new_reader(),
        frozen,
        skip_nan: desk.skip_nan,
    };
    while let Ok((snapshot, begun)) = inbox.recv() {
        let position = snapshot.state.position;
        let outcome = attempt(|| save(desk, snapshot, &mut encoder));
        if let Err(BackupError::Panicked { .. }) = outcome {
            // Half of a record may still be on its way through this one.
            encoder.reader = new_reader();
        }

        let committed = match outcome {
            Ok(committed) => {
                let persist = begun.elapsed();
                log::info!(
                    target: LOG,
                    "backup {} at {position}: {} bytes, {} of them linked, in {persist:.1?}",
                    committed.id(), committed.bytes(), committed.linked(),
                );
                desk.handle.committed(position, &committed, persist);
                Some(committed)
            }
            Err(error) => {
                report(desk, Arc::new(error));
                None
            }
        };
        // Nobody need wait for what is pruned.
        let outcome = outbox.send(Report::Outcome(committed.is_some()));
        if let Some(committed) = committed {
            prune(desk, &committed);
        }
        if outcome.and_then(|()| outbox.send(Report::Idle)).is_err() {
            return;
        }
    }
}

fn save<M: LearnerModel>(
    desk: &Desk,
    snapshot: Taken<M>,
    encoder: &mut Encoder<M>,
) -> Result<Committed, BackupError> {
    let Taken {
        mut state,
        metrics,
        contents,
    } = snapshot;
    let mut staging = desk.store.stage()?;
    encoder.encode(contents, &mut state, &mut staging)?;
    match metrics {
        Metrics::Known(history) => state.history = Arc::unwrap_or_clone(history),
        Metrics::Until(mark) => {
            let has_failed = || desk.interrupter.error().is_some();
            let logged = mark.wait(has_failed);
            let logged = logged.ok_or(BackupError::MetricsMissing)?;
            state.history = Arc::unwrap_or_clone(logged.history);
            state.logs = logged.open;
            // What the backup says of them is to be true after a power cut, too.
            mark.logs().sync();
        }
    }
    let state = serde_json::to_value(&state).map_err(BackupError::State)?;
    Ok(staging.commit(state)?)
}

fn prune(desk: &Desk, committed: &Committed) {
    if let Err(error) = desk.store.prune(committed, desk.keep_last) {
        // The backup is there; one too many costs space only, and the next prune tries again.
        log::warn!(target: LOG, "{}", with_causes(&BackupError::from(error)));
    }
}

fn report(desk: &Desk, error: Arc<BackupError>) {
    // A model that holds NaN once does so from then on: that is said loudly once.
    let level = match *error {
        BackupError::Poisoned { .. } if desk.handle.is_poisoned() => log::Level::Debug,
        _ => log::Level::Error,
    };
    log::log!(target: LOG, level, "backup failed: {}", with_causes(error.as_ref()));
    desk.handle.failed(error.clone());
    if desk.on_error == OnBackupError::Stop {
        desk.interrupter
            .fail(BackupError::into_training_error(error));
    }
}

/// Does what Burn, or a device, may panic in. A panic is an error like any other.
pub(crate) fn attempt<T>(work: impl FnOnce() -> Result<T, BackupError>) -> Result<T, BackupError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(BackupError::Panicked {
            message: panic_message(panic.as_ref()),
        })
    })
}

/// What a panic says.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
