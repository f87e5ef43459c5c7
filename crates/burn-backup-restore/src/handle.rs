use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use burn_backup_store::{Committed, Filesystem, GenerationId, OpenOptions, Store};
use jiff::{SignedDuration, Timestamp};

use crate::error::{BackupError, FailureKind, with_causes};
use crate::event::Event;
use crate::event_sender::{Callback, EventSender, HangGuard, Watched};
use crate::exit_code;
use crate::heartbeat::Beat;
#[cfg(feature = "mirror")]
use crate::mirror::MirrorError;
use crate::mirror::{LeaseStatus, Mirror, MirrorStatus, MirrorWatch};
use crate::notice::Notice;
use crate::outcome::Outcome;
use crate::position::Position;

/// An estimate needs at least this much time to be useful. Burn's own estimate waits as long.
const MIN_MEASURED: Duration = Duration::from_secs(10);

/// Answers questions about a training's backups, during and after the training. Cloning is cheap.
#[derive(Clone)]
pub struct BackupHandle {
    backup_dir: PathBuf,
    filesystem: Arc<dyn Filesystem>,
    state: Arc<Mutex<HandleState>>,
    progress_count: Arc<AtomicU64>,
    event_sender: EventSender,
}

/// The cost of backups so far in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BackupStats {
    /// Backups that were committed.
    pub committed: u64,
    /// Backups that failed.
    pub failed: u64,
    /// The failed backups that were refused because the model held NaN.
    pub refused: u64,
    /// How often the running training was rolled back to a backup after a divergence.
    pub rolled_back: u64,
    /// Bytes in the committed backups.
    pub bytes: u64,
    /// How many of these bytes were hard-linked from the previous backup instead of written, because the parameters
    /// have not changed.
    pub linked: u64,
    /// How long backups blocked the training thread: for snapshots, and for waits until the previous
    /// backup was written.
    pub blocked_total: Duration,
    /// The longest time that one backup blocked the training thread.
    pub blocked_max: Duration,
    /// How much longer the training's steps took because backups were being written meanwhile. It
    /// is measured with [`SaveFreq::Auto`](crate::SaveFreq::Auto) only.
    pub slowed_total: Duration,
    /// The total time from the committed backups' snapshots until the backups were on disk.
    pub persist_total: Duration,
    /// The time from the snapshot of the last committed backup until it was on disk.
    pub persist_last: Duration,
}

#[derive(Default)]
struct HandleState {
    restored_from: Option<Restored>,
    /// The last backup of this process, and its commit time.
    last_backup: Option<(Position, SystemTime)>,
    last_error: Option<Arc<BackupError>>,
    /// The number of backups that have failed since the last committed one.
    failures: u64,
    /// The kinds of these failures. Each kind is logged once.
    kinds: Vec<FailureKind>,
    notice: Option<Notice>,
    stopped_at: Option<Position>,
    /// Whether a backup was refused because the model held NaN, and none was committed since.
    is_poisoned: bool,
    interval: Option<u64>,
    outcome: Option<Outcome>,
    exit_code: Option<u8>,
    /// The training's position.
    position: Option<Position>,
    /// The trained share of all epochs: the first value in this process, and the current one.
    progress: Option<(Progress, Progress)>,
    /// How the training began, in words.
    beginning: Option<String>,
    /// Warnings that were not shown to the user yet.
    notes: Vec<String>,
    stats: BackupStats,
    /// The mirror's configuration.
    mirror: Option<Mirror>,
    mirroring: Option<MirrorWatch>,
    /// The position of each backup that the mirror has or may get.
    positions: BTreeMap<GenerationId, Position>,
}

/// The state of a training's mirror.
#[cfg(feature = "mirror")]
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MirrorStats {
    /// The position of the newest complete backup in the mirror; `None` if there is none, or if that is not
    /// known yet.
    pub last: Option<Position>,
    /// How many backups the mirror is behind.
    pub behind: u64,
    /// Backups that this process has mirrored.
    pub committed: u64,
    /// Backups that were skipped, because a newer one existed before their turn came.
    pub skipped: u64,
    /// Bytes that this process has sent. Parameters that training leaves unchanged are sent once.
    pub bytes: u64,
    /// Failed attempts.
    pub failed: u64,
    /// Whether this process may write to the mirror.
    pub lease: LeaseStatus,
    /// The upload time of the last backup.
    pub upload_last: Option<Duration>,
    /// The last failure. Later successes don't clear it.
    pub last_error: Option<Arc<MirrorError>>,
    /// Why mirroring has stopped, if it has.
    pub stopped: Option<Arc<MirrorError>>,
}

/// The progress of a training, as a share of all epochs.
#[derive(Debug, Clone, Copy)]
struct Progress {
    share: f64,
    at: Instant,
}

/// The backup that was restored.
#[derive(Clone, Copy)]
struct Restored {
    position: Position,
    created: SystemTime,
    /// The backup's age when it was restored.
    age: Duration,
}

impl HandleState {
    /// The estimated remaining time of the training, from the progress of this process. `None` if it is unknown.
    fn time_left(&self) -> Option<Duration> {
        let (first, now) = self.progress?;
        let trained = now.share - first.share;
        let took = now.at.duration_since(first.at);
        if trained <= 0.0 || took < MIN_MEASURED {
            return None;
        }
        let left = took.as_secs_f64() * (1.0 - now.share) / trained;
        Duration::try_from_secs_f64(left).ok()
    }
}

impl fmt::Debug for BackupHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackupHandle")
            .field("backup_dir", &self.backup_dir)
            .finish_non_exhaustive()
    }
}

impl BackupHandle {
    pub(crate) fn new(backup_dir: PathBuf, filesystem: Arc<dyn Filesystem>) -> Self {
        Self {
            backup_dir,
            filesystem,
            state: Arc::default(),
            progress_count: Arc::default(),
            event_sender: EventSender::default(),
        }
    }

    /// Sends events to `callback` from now on.
    pub(crate) fn listen(&self, callback: Callback) {
        self.event_sender.listen(callback);
    }

    #[cfg(feature = "testing")]
    pub(crate) fn hung_after(&self, least: Duration) {
        self.event_sender.hung_after(least);
    }

    /// Sends the event to the callback, if there is one, on another thread.
    pub(crate) fn send(&self, event: Event) {
        self.event_sender.send(event);
    }

    /// Checks that the training makes progress, until the returned guard is dropped. A hang is sent to the callback.
    pub(crate) fn watch(&self) -> HangGuard {
        let state = self.state.clone();
        self.event_sender.watch(Watched {
            progress_count: self.progress_count.clone(),
            position: Arc::new(move || {
                let state = state.lock().unwrap_or_else(PoisonError::into_inner);
                state.position
            }),
        })
    }

    /// Sends the event that the backup is in the mirror.
    pub(crate) fn send_mirrored(&self, id: GenerationId) {
        self.send(Event::Mirrored {
            position: self.position_of(Some(id)),
            generation: id.number(),
        });
    }

    #[cfg(feature = "testing")]
    pub(crate) fn set_filesystem(&mut self, filesystem: Arc<dyn Filesystem>) {
        self.filesystem = filesystem;
    }

    pub(crate) fn backup_dir(&self) -> &Path {
        &self.backup_dir
    }

    pub(crate) fn filesystem(&self) -> Arc<dyn Filesystem> {
        self.filesystem.clone()
    }

    /// The position at which this process resumed the training. `None` if it started a new training, or was not
    /// launched.
    pub fn restored_from(&self) -> Option<Position> {
        self.state().restored_from.map(|from| from.position)
    }

    /// The age of the restored backup at the time of the restore, by the clock of the machine. `None` if this process
    /// restored none.
    pub fn restored_age(&self) -> Option<Duration> {
        self.state().restored_from.map(|from| from.age)
    }

    /// The position of the last backup that this process committed.
    pub fn last_backup(&self) -> Option<Position> {
        self.state().last_backup.map(|(position, _)| position)
    }

    /// The notice of a preemption, if one has arrived (see
    /// [`save_before_preemption`](crate::BackupAndRestore::save_before_preemption)).
    pub fn notice(&self) -> Option<Notice> {
        self.state().notice.clone()
    }

    /// The position at which a training was saved when it was stopped before its end, by a notice or through
    /// Burn's [`Interrupter`](burn::train::Interrupter). `None` if it was not stopped, or could not be saved.
    pub fn stopped_at(&self) -> Option<Position> {
        self.state().stopped_at
    }

    /// How the training ended; `None` until `launch` or `Session::finish` has returned.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use burn_backup_restore::{BackupHandle, Outcome};
    ///
    /// fn may_publish(handle: &BackupHandle) -> bool {
    ///     handle.outcome() == Some(Outcome::Finished) && handle.exit_code() == 0
    /// }
    /// ```
    pub fn outcome(&self) -> Option<Outcome> {
        self.state().outcome
    }

    /// The code with which the program should exit. It tells a supervisor whether to start the program again.
    ///
    /// It is 0 if the training is finished and its model does not contain NaN. Otherwise it is one of
    /// [`exit_code`](crate::exit_code). It is 1 before the training has ended.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use std::process::ExitCode;
    ///
    /// use burn_backup_restore::BackupAndRestore;
    ///
    /// fn main() -> ExitCode {
    ///     let backup = BackupAndRestore::new("backup");
    ///     let handle = backup.handle();
    ///     // train, and save the model if the code is 0
    ///     ExitCode::from(handle.exit_code())
    /// }
    /// ```
    pub fn exit_code(&self) -> u8 {
        self.state().exit_code.unwrap_or(exit_code::FAILED)
    }

    /// The error of the last failed backup. Later successes don't clear it.
    pub fn last_error(&self) -> Option<Arc<BackupError>> {
        self.state().last_error.clone()
    }

    /// The number of batches after which [`SaveFreq::Auto`](crate::SaveFreq::Auto) takes the next backup. It is based
    /// on the cost of the last backups, or on an assumed cost before the first one. `None` with any other frequency,
    /// and before the first batch.
    pub fn interval(&self) -> Option<u64> {
        self.state().interval
    }

    /// The cost of backups so far.
    pub fn stats(&self) -> BackupStats {
        self.state().stats
    }

    /// The mirror's state. `None` if there is no mirror, or the training has not begun.
    #[cfg(feature = "mirror")]
    pub fn mirror_stats(&self) -> Option<MirrorStats> {
        let watch = self.state().mirroring.clone()?;
        let status = watch.status();
        Some(MirrorStats {
            last: self.position_of(status.mirrored),
            behind: behind(&status),
            committed: status.published,
            skipped: status.skipped,
            bytes: status.bytes,
            failed: status.failures,
            lease: status.lease,
            upload_last: status.upload_last,
            last_error: status.last_error,
            stopped: status.stopped,
        })
    }

    /// Deletes the backup on this disk, and in the mirror if there is one.
    ///
    /// It is for programs that save their model first, and therefore turned
    /// [`delete_checkpoint`](crate::BackupAndRestore::delete_checkpoint) off. It deletes only files that this crate
    /// wrote, and the directory if nothing else is in it. If there is no backup, it does nothing.
    ///
    /// # Errors
    ///
    /// [`BackupError::LastGoodBackup`] if the training ended with NaN in its model and there is a backup.
    /// [`BackupError::Store`] if the training is still running, or a file can't be deleted. [`BackupError::Mirror`] if
    /// the mirror can't be marked as finished; nothing is deleted then.
    pub fn discard(&self) -> Result<(), BackupError> {
        let store = match Store::is_present(&self.backup_dir, self.filesystem.as_ref())? {
            true => {
                let options = OpenOptions::default().filesystem(self.filesystem.clone());
                let store = Store::open(&self.backup_dir, options)?;
                if self.is_poisoned() && store.has_backup()? {
                    return Err(BackupError::LastGoodBackup {
                        path: self.backup_dir.clone(),
                    });
                }
                Some(store)
            }
            false => None,
        };
        // The mirror first: from it, other processes learn that the training is finished.
        let leftovers = match self.mirror() {
            Some(mirror) => {
                let run_id = store.as_ref().map(|store| store.identity().run_id.clone());
                let has_backup = store.as_ref().map(Store::has_backup).transpose()?;
                let connection = mirror.connect()?;
                let has_backup = has_backup.unwrap_or(false);
                let found = connection.find(&run_id.unwrap_or_default(), has_backup)?;
                connection.finish(&found)?
            }
            None => None,
        };
        if let Some(store) = store {
            store.remove()?;
        }
        if let Some(leftovers) = leftovers {
            leftovers.clear()?;
        }
        Ok(())
    }

    #[cfg(feature = "mirror")]
    pub(crate) fn set_mirror(&self, mirror: Mirror) {
        self.state().mirror = Some(mirror);
    }

    /// The mirror's configuration, if there is one.
    pub(crate) fn mirror(&self) -> Option<Mirror> {
        self.state().mirror.clone()
    }

    /// Backups are mirrored from now on.
    pub(crate) fn mirrors(&self, watch: MirrorWatch) {
        self.state().mirroring = Some(watch);
    }

    /// The newest backup in the mirror, and its position if that is known.
    pub(crate) fn mirrored(&self) -> Option<(GenerationId, Option<Position>)> {
        let watch = self.state().mirroring.clone()?;
        let id = watch.status().mirrored?;
        Some((id, self.position_of(Some(id))))
    }

    fn position_of(&self, id: Option<GenerationId>) -> Option<Position> {
        self.state().positions.get(&id?).copied()
    }

    pub(crate) fn restored(
        &self,
        id: GenerationId,
        position: Position,
        created: SystemTime,
    ) -> Duration {
        let age = created.elapsed().unwrap_or_default();
        let mut state = self.state();
        state.positions.insert(id, position);
        state.restored_from = Some(Restored {
            position,
            created,
            age,
        });
        age
    }

    /// The training was rolled back to this position, which is this share of all epochs.
    pub(crate) fn rolled_back(&self, position: Position, share: f64) {
        self.state().stats.rolled_back += 1;
        self.advanced(position, share);
    }

    /// The training is at this position, which is this share of all epochs.
    pub(crate) fn advanced(&self, position: Position, share: f64) {
        let now = Progress {
            share,
            at: Instant::now(),
        };
        let mut state = self.state();
        let first = state.progress.map_or(now, |(first, _)| first);
        state.progress = Some((first, now));
        state.position = Some(position);
    }

    pub(crate) fn began(&self, beginning: String) {
        self.state().beginning = Some(beginning);
    }

    /// How the training began, in words.
    pub(crate) fn beginning(&self) -> String {
        let beginning = self.state().beginning.clone();
        beginning.unwrap_or_else(|| "a new training".to_owned())
    }

    /// Keeps a warning to the user until the terminal is free.
    pub(crate) fn note(&self, note: String) {
        self.state().notes.push(note);
    }

    /// Takes the warnings that were not shown to the user yet.
    pub(crate) fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut self.state().notes)
    }

    /// The training has ended with this outcome, and with this error if there is one.
    pub(crate) fn ended(&self, outcome: Outcome, error: Option<&BackupError>) {
        let code = match outcome {
            Outcome::Finished if self.is_poisoned() => exit_code::FIX_FIRST,
            Outcome::Finished => 0,
            Outcome::Stopped { .. } => exit_code::START_AGAIN,
            Outcome::PastLastEpoch { .. } => exit_code::FIX_FIRST,
            Outcome::Refused | Outcome::Failed => {
                error.map_or(exit_code::FAILED, BackupError::exit_code)
            }
        };
        let mut state = self.state();
        state.outcome = Some(outcome);
        state.exit_code = Some(code);
        drop(state);
        self.send(Event::Finished {
            outcome,
            exit_code: code,
            error: error.map(|error| with_causes(error)),
            last_backup: self.newest(),
        });
        self.event_sender.finish();
    }

    /// Counts progress: a batch of the training or the validation, or a fetched piece of a backup.
    pub(crate) fn count_progress(&self) {
        self.progress_count.fetch_add(1, Ordering::Relaxed);
    }

    /// The heartbeat for the supervisor.
    pub(crate) fn beat(&self) -> Beat {
        let state = self.state();
        Beat {
            process: std::process::id(),
            count: self.progress_count.load(Ordering::Relaxed),
            position: state.position,
            restored: state.restored_from.map(|from| from.position),
            committed: state.last_backup.map(|(position, _)| position),
            commits: state.stats.committed,
        }
    }

    /// The newest backup that this process knows of.
    pub(crate) fn newest(&self) -> Option<Position> {
        self.last_backup().or_else(|| self.restored_from())
    }

    pub(crate) fn held(&self, held: Duration) {
        let stats = &mut self.state().stats;
        stats.blocked_total += held;
        stats.blocked_max = stats.blocked_max.max(held);
    }

    pub(crate) fn measured(&self, interval: u64, slowed: Duration) {
        let mut state = self.state();
        state.interval = Some(interval);
        state.stats.slowed_total = slowed;
    }

    /// Records a committed backup. Returns the number of failures since the previous one.
    pub(crate) fn committed(
        &self,
        position: Position,
        committed: &Committed,
        persist: Duration,
    ) -> u64 {
        let mut state = self.state();
        state.last_backup = Some((position, SystemTime::now()));
        if let Some(watch) = state.mirroring.clone() {
            if let Some(mirrored) = watch.status().mirrored {
                // The mirror never goes back to an older backup.
                state.positions = state.positions.split_off(&mirrored);
            }
            state.positions.insert(committed.id(), position);
        }
        let failures = std::mem::take(&mut state.failures);
        state.kinds.clear();
        state.is_poisoned = false;
        let stats = &mut state.stats;
        stats.committed += 1;
        stats.bytes += committed.bytes();
        stats.linked += committed.linked();
        stats.persist_total += persist;
        stats.persist_last = persist;
        drop(state);
        self.send(Event::Committed {
            position,
            generation: committed.id().number(),
            bytes: committed.bytes(),
            linked: committed.linked(),
            took: persist,
        });
        failures
    }

    /// Whether a backup has failed with this kind of error since the last committed one.
    pub(crate) fn is_failing_like(&self, error: &BackupError) -> bool {
        self.state().kinds.contains(&error.kind())
    }

    /// A summary of the failures since the last committed backup, if some of them were not logged. The log has one line
    /// for each kind.
    pub(crate) fn unlogged_failures(&self) -> Option<String> {
        let state = self.state();
        let is_more = state.failures > state.kinds.len() as u64;
        is_more.then(|| {
            format!(
                "{} backups have failed, and none was committed since: see the first failure of each kind",
                state.failures,
            )
        })
    }

    pub(crate) fn failed(&self, error: Arc<BackupError>) {
        let mut state = self.state();
        let is_refused = matches!(*error, BackupError::ContainsNan { .. });
        // A failure of another kind says nothing about NaN in the model, so it does not clear this.
        state.is_poisoned |= is_refused;
        state.stats.failed += 1;
        state.stats.refused += u64::from(is_refused);
        let kind = error.kind();
        if !state.kinds.contains(&kind) {
            state.kinds.push(kind);
        }
        state.last_error = Some(error.clone());
        state.failures += 1;
        let failures = state.failures;
        drop(state);
        let (text, cause) = (with_causes(error.as_ref()), error);
        self.send(match is_refused {
            true => Event::Refused {
                error: text,
                failures,
                cause,
            },
            false => Event::Failed {
                error: text,
                failures,
                cause,
            },
        });
    }

    pub(crate) fn noticed(&self, notice: Notice) {
        let event = Event::Noticed {
            reason: notice.reason().to_owned(),
            deadline: notice.deadline(),
        };
        self.state().notice = Some(notice);
        self.send(event);
    }

    pub(crate) fn saved_when_stopped(&self, position: Position) {
        self.state().stopped_at = Some(position);
    }

    /// One line about the position at which the training would resume. It may be shown long after it is written, so it
    /// has times and no ages.
    pub(crate) fn summary(&self) -> String {
        let state = self.state();
        let now = SystemTime::now();
        let mut summary = match (state.last_backup, state.restored_from) {
            (Some((position, at)), _) => saved_at(position, at, now),
            (None, Some(from)) => format!(
                "none yet; restored from {}",
                saved_at(from.position, from.created, now)
            ),
            (None, None) => "none yet".to_owned(),
        };
        if let (Some(_), Some(left)) = (state.restored_from, state.time_left()) {
            // Burn's estimate counts the epochs before the restart as trained in this process.
            summary.push_str(&format!(
                "; about {} left (Burn's own estimate is wrong after a restart)",
                whole_seconds(left)
            ));
        }
        if let (true, Some(error)) = (state.failures > 0, &state.last_error) {
            summary.push_str(&format!("; the last one FAILED: {error}"));
        }
        if let Some(watch) = &state.mirroring {
            summary.push_str(&mirror_summary(&watch.status()));
        }
        if !state.notes.is_empty() {
            summary.push_str("; NOTE: ");
            summary.push_str(&state.notes.join("; "));
        }
        if let Some(notice) = &state.notice {
            summary.push_str(&format!("; {notice}"));
        }
        summary
    }

    /// Whether a backup was refused because the model held NaN, and none was committed since.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.state().is_poisoned
    }

    /// A poisoned lock is ignored, because no update leaves `HandleState` inconsistent when a thread panics.
    fn state(&self) -> MutexGuard<'_, HandleState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many backups the mirror is behind.
fn behind(status: &MirrorStatus) -> u64 {
    let number = |id: Option<GenerationId>| id.map_or(0, GenerationId::number);
    number(status.committed).saturating_sub(number(status.mirrored))
}

/// `; the mirror is 2 backups behind`.
fn mirror_summary(status: &MirrorStatus) -> String {
    if let Some(error) = &status.stopped {
        return format!("; NO LONGER MIRRORED: {error}");
    }
    let mut summary = match (behind(status), status.lease) {
        (0, LeaseStatus::Held) => "; mirrored".to_owned(),
        (_, lease) if lease != LeaseStatus::Held => "; waiting for the mirror".to_owned(),
        (1, _) => "; the mirror is 1 backup behind".to_owned(),
        (behind, _) => format!("; the mirror is {behind} backups behind"),
    };
    if let (true, Some(error)) = (behind(status) > 0 && status.is_failing, &status.last_error) {
        summary.push_str(&format!("; the last upload FAILED: {error}"));
    }
    summary
}

/// `epoch 3, batch 120, saved at 14:02:11Z`, with the date unless it is today.
fn saved_at(position: Position, at: SystemTime, now: SystemTime) -> String {
    let Position {
        epoch,
        step_in_epoch,
        ..
    } = position;
    let saved = format!("epoch {epoch}, batch {step_in_epoch}, saved");
    let (Ok(at), Ok(now)) = (Timestamp::try_from(at), Timestamp::try_from(now)) else {
        return saved;
    };
    let day = |time: Timestamp| time.strftime("%F").to_string();
    let time = match day(at) == day(now) {
        true => at.strftime("%TZ"),
        false => at.strftime("%F %TZ"),
    };
    format!("{saved} at {time}")
}

/// `1h 2m 3s`.
pub(crate) fn whole_seconds(duration: Duration) -> String {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    format!("{:#}", SignedDuration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_of_another_day_is_shown_with_its_date() {
        let at: Timestamp = "2026-02-03T14:02:11.7Z".parse().unwrap();
        let at = SystemTime::from(at);
        let position = Position {
            epoch: 3,
            step_in_epoch: 120,
            global_step: 1120,
        };
        let today = at + Duration::from_secs(9 * 3600);
        let shown = "epoch 3, batch 120, saved at 14:02:11Z";
        assert_eq!(saved_at(position, at, today), shown);
        let tomorrow = at + Duration::from_secs(10 * 3600);
        let shown = "epoch 3, batch 120, saved at 2026-02-03 14:02:11Z";
        assert_eq!(saved_at(position, at, tomorrow), shown);
    }

    #[test]
    fn the_time_left_follows_from_the_progress_of_this_process() {
        let now = Instant::now();
        let state = |first: f64, share: f64, took: u64| HandleState {
            progress: Some((
                Progress {
                    share: first,
                    at: now,
                },
                Progress {
                    share,
                    at: now + Duration::from_secs(took),
                },
            )),
            ..HandleState::default()
        };
        // A tenth took 100 seconds, and a tenth is left. Burn would count all nine tenths as trained by this process.
        let left = state(0.8, 0.9, 100).time_left().unwrap();
        assert_eq!(left.as_secs_f64().round(), 100.0);
        assert_eq!(state(0.0, 1.0, 100).time_left(), Some(Duration::ZERO));
        // Too early for an estimate, and no progress.
        assert_eq!(state(0.0, 0.1, 9).time_left(), None);
        assert_eq!(state(0.5, 0.5, 100).time_left(), None);
        assert_eq!(HandleState::default().time_left(), None);
    }
}
