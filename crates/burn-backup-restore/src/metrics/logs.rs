//! Metric logs that continue after a restart as if there had been no interruption: Burn's files, line by line.
//!
//! Burn computes metrics on its own threads, behind the training. A backup must contain exactly the lines up to its
//! own moment. So the training counts the calls that it causes, and the logger counts the calls that it receives. A
//! [`Mark`] is reached when the two counts are equal.

mod running;
mod writer;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use burn::train::metric::NumericEntry;
use burn::train::metric::store::Split;

use crate::metrics::lag::{self, ReceiverProgress};
use crate::metrics::{History, MetricHistory};
use crate::position::Position;

pub(crate) use running::OpenLog;
pub(crate) use writer::Writer;

const LOG: &str = "burn_backup::metrics";

/// The metric logs of a training. Clones share them.
#[derive(Clone)]
pub(crate) struct MetricLogs {
    shared: Arc<Shared>,
}

struct Shared {
    directory: PathBuf,
    metric_history: MetricHistory,
    /// The number of logger calls that the training has caused so far.
    expected_calls: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The number of calls received so far.
    received_calls: u64,
    /// The current logs of the epoch in progress.
    open: Vec<OpenLog>,
    /// The logs that were open in a backup, until the first update arrives.
    carried: Vec<OpenLog>,
    /// The epoch whose training was interrupted, if any.
    interrupted: Option<usize>,
    /// The number of times the logs resumed from a backup.
    resumptions: u64,
    marks: Vec<(u64, Weak<OnceLock<Logged>>)>,
    /// Whether no more calls will come.
    is_abandoned: bool,
    /// Files that may not be on disk yet.
    unsynced: BTreeSet<PathBuf>,
    /// Directories that are known to be on disk.
    synced_directories: BTreeSet<PathBuf>,
}

/// Everything that was logged up to a moment.
#[derive(Clone)]
pub(crate) struct Logged {
    pub open: Vec<OpenLog>,
    pub history: Arc<History>,
}

/// A moment up to which everything must be logged.
#[derive(Clone)]
pub(crate) struct Mark {
    logs: MetricLogs,
    reached: Arc<OnceLock<Logged>>,
}

impl MetricLogs {
    /// Logs in `directory`. The values of metrics are recorded in `metric_history`.
    pub(crate) fn new(directory: PathBuf, metric_history: MetricHistory) -> Self {
        Self {
            shared: Arc::new(Shared {
                directory,
                metric_history,
                expected_calls: AtomicU64::new(0),
                state: Mutex::default(),
                changed: Condvar::new(),
            }),
        }
    }

    /// Called before Burn gets an event for which it makes `calls` calls of the logger.
    pub(crate) fn expect_calls(&self, calls: u64) {
        self.shared
            .expected_calls
            .fetch_add(calls, Ordering::Relaxed);
    }

    /// Runs `tell`, which sends an event to Burn. It panics if Burn's metric thread has ended. In that case, nothing
    /// more is logged.
    pub(crate) fn abandon_on_panic<T>(&self, tell: impl FnOnce() -> T) -> T {
        let unless_told = AbandonedWhenDropped(Some(self));
        let told = tell();
        unless_told.disarm();
        told
    }

    /// Marks the logs as abandoned: nothing more is logged, and no thread may wait for it.
    pub(crate) fn abandon(&self) {
        self.state().is_abandoned = true;
        self.shared.changed.notify_all();
    }

    /// Whether the logs are abandoned.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.state().is_abandoned
    }

    /// A mark for this moment.
    pub(crate) fn mark(&self) -> Mark {
        let reached = Arc::new(OnceLock::new());
        let told = self.shared.expected_calls.load(Ordering::Relaxed);
        let mut state = self.state();
        state.marks.push((told, Arc::downgrade(&reached)));
        self.settle(&mut state);
        drop(state);
        Mark {
            logs: self.clone(),
            reached,
        }
    }

    /// Continues the training logs of the current epoch that were `open` in a backup at `position`. Lines written
    /// after the backup are removed.
    pub(crate) fn resume(&self, position: Position, open: Vec<OpenLog>) {
        let train = Split::Train.to_string();
        let is_continued = |log: &OpenLog| {
            log.epoch == position.epoch && log.split == train && log.is_of_this_directory()
        };
        let carried: Vec<_> = open.into_iter().filter(is_continued).collect();
        for log in &carried {
            let path = self.path(log);
            if let Err(error) = cut(&path, log.bytes) {
                log::warn!(
                    target: LOG,
                    "the metric log '{}' lacks lines that were logged before the backup; logging continues \
                     after the lines that are left: {error}",
                    path.display(),
                );
            }
        }
        self.write_past_again(position.epoch);
        let mut state = self.state();
        state.open.clone_from(&carried);
        state.resumptions += 1;
        state.interrupted = (position.step_in_epoch > 0).then_some(position.epoch);
        state.carried = carried;
    }

    /// Writes the values of the epochs up to this one again, if the program has cleared the directory at its start.
    /// Burn's summary reads these files. The value of the current epoch is its training value, available once its
    /// training has ended.
    fn write_past_again(&self, epoch: usize) {
        for past in self.shared.metric_history.history().up_to(epoch) {
            let log = OpenLog::of(past.metric, past.split, past.epoch);
            let path = self.path(&log);
            if !log.is_of_this_directory() || path.exists() {
                continue;
            }
            let line = NumericEntry::Final(past.value).serialize();
            match writer::append(&path, &line) {
                Ok(_) => {
                    self.state().unsynced.insert(path);
                }
                Err(error) => writer::failed(&path, &error),
            }
        }
    }

    /// Completes the training logs of an epoch that has no batches left. Burn makes no further calls for its
    /// training.
    pub(crate) fn end_training(&self) {
        let mut state = self.state();
        let State {
            carried,
            open,
            unsynced,
            ..
        } = &mut *state;
        let without_value = |log: &&mut OpenLog| !log.is_final && !log.is_text;
        for log in carried.iter_mut().filter(without_value) {
            let (true, Some(mean)) = (log.is_mean, log.mean()) else {
                log::warn!(
                    target: LOG,
                    "the value of the metric '{}' in the training of epoch {} is unknown: it is not the mean of \
                     its lines, and the part before the interruption is lost",
                    log.metric, log.epoch,
                );
                continue;
            };
            let path = self.path(log);
            let line = NumericEntry::Final(mean).serialize();
            match writer::append(&path, &line) {
                Ok(bytes) => log.bytes += bytes,
                Err(error) => writer::failed(&path, &error),
            }
            log.is_final = true;
            unsynced.insert(path);
            let metric_history = &self.shared.metric_history;
            metric_history.record(&log.metric, &Split::Train, log.epoch, mean);
        }
        open.clone_from(carried);
    }

    /// Syncs everything that was logged to disk.
    pub(crate) fn sync(&self) {
        let (files, known) = {
            let mut state = self.state();
            let files = std::mem::take(&mut state.unsynced);
            (files, state.synced_directories.clone())
        };
        let directories: BTreeSet<_> = files
            .iter()
            .flat_map(|file| file.ancestors().skip(1))
            .filter(|directory| directory.starts_with(&self.shared.directory))
            .filter(|directory| !known.contains(*directory))
            .map(Path::to_path_buf)
            .collect();
        for path in files {
            if let Err(error) = sync_file(&path) {
                log::warn!(
                    target: LOG,
                    "the metric log '{}' may not be on disk: {error}",
                    path.display(),
                );
            }
        }
        for directory in &directories {
            // Some systems can't open a directory, and don't need this sync.
            let _ = File::open(directory).and_then(|directory| directory.sync_all());
        }
        self.state().synced_directories.extend(directories);
    }

    fn path(&self, log: &OpenLog) -> PathBuf {
        log.path(&self.shared.directory)
    }

    /// Completes the marks that are reached.
    fn settle(&self, state: &mut State) {
        let State {
            received_calls,
            open,
            marks,
            ..
        } = state;
        marks.retain(|(at, mark)| {
            let Some(mark) = mark.upgrade() else {
                return false;
            };
            if *at > *received_calls {
                return true;
            }
            let _ = mark.set(Logged {
                open: open.clone(),
                history: self.shared.metric_history.history(),
            });
            false
        });
    }

    /// Called after another logger call. `open` are the current logs, and `written` the files that may have changed.
    fn record_call(&self, open: Vec<OpenLog>, written: Vec<PathBuf>) {
        let mut state = self.state();
        state.received_calls += 1;
        state.open = open;
        state.unsynced.extend(written);
        self.settle(&mut state);
        drop(state);
        self.shared.changed.notify_all();
    }

    /// The data is plain, so a panic elsewhere leaves nothing half done in it.
    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.shared.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }
}

struct AbandonedWhenDropped<'l>(Option<&'l MetricLogs>);

impl AbandonedWhenDropped<'_> {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for AbandonedWhenDropped<'_> {
    fn drop(&mut self) {
        if let Some(logs) = self.0 {
            logs.abandon();
        }
    }
}

impl Mark {
    /// The logs that the mark belongs to.
    pub(crate) fn logs(&self) -> &MetricLogs {
        &self.logs
    }

    /// Waits until everything up to this moment is logged. Returns `None` if that can't happen. `has_failed` says
    /// whether the training has failed.
    pub(crate) fn wait(&self, has_failed: impl Fn() -> bool) -> Option<Logged> {
        let progress = |state: &State| ReceiverProgress {
            calls: state.received_calls,
            is_abandoned: state.is_abandoned,
        };
        let changed = &self.logs.shared.changed;
        lag::wait(
            self.logs.state(),
            changed,
            progress,
            &self.reached,
            has_failed,
        )
    }
}

/// Removes everything after the first `bytes` bytes of a log.
fn cut(path: &Path, bytes: u64) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    let length = file.metadata()?.len();
    if length < bytes {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("the file has {length} bytes instead of at least {bytes}"),
        ));
    }
    file.set_len(bytes)
}

/// Windows syncs only files that are open for writing.
fn sync_file(path: &Path) -> io::Result<()> {
    File::options().write(true).open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn log_of(bytes: u64) -> OpenLog {
        let mut log = OpenLog::new("Loss", &Split::Train, 1);
        log.bytes = bytes;
        log
    }

    fn logs() -> MetricLogs {
        MetricLogs::new(PathBuf::new(), MetricHistory::default())
    }

    #[test]
    fn a_mark_contains_only_what_was_logged_before_it() {
        let logs = logs();
        logs.expect_calls(2);
        let mark = logs.mark();
        logs.expect_calls(1);
        for bytes in 1..=3 {
            logs.record_call(vec![log_of(bytes)], Vec::new());
        }
        let logged = mark.wait(|| false).unwrap();
        assert_eq!(logged.open, [log_of(2)]);
        // The training has caused no calls since.
        let logged = logs.mark().wait(|| false).unwrap();
        assert_eq!(logged.open, [log_of(3)]);
    }

    #[test]
    fn a_mark_that_is_reached_later_wakes_its_waiter() {
        let logs = logs();
        logs.expect_calls(1);
        let mark = logs.mark();
        let logged = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| mark.wait(|| false));
            logs.record_call(vec![log_of(7)], Vec::new());
            waiting.join().unwrap()
        });
        assert_eq!(logged.unwrap().open, [log_of(7)]);
    }

    #[test]
    fn a_mark_that_is_never_reached_is_given_up_after_a_failure() {
        let logs = logs();
        logs.expect_calls(1);
        assert!(logs.mark().wait(|| true).is_none());
    }

    #[test]
    fn once_logging_has_ended_nobody_waits_for_it() {
        let logs = logs();
        let reached = logs.mark();
        logs.expect_calls(1);
        let mark = logs.mark();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| mark.wait(|| false));
            let result = catch_unwind(AssertUnwindSafe(|| {
                logs.abandon_on_panic(|| panic!("this panic is part of the test"))
            }));
            assert!(result.is_err());
            assert!(waiting.join().unwrap().is_none());
        });
        assert!(reached.wait(|| false).is_some(), "it was reached before");
    }

    #[test]
    fn without_a_logger_nobody_waits_for_it() {
        let logs = logs();
        let writer = Writer::new(logs.clone());
        logs.abandon_on_panic(|| logs.expect_calls(1));
        assert!(!logs.state().is_abandoned);
        drop(writer);
        assert!(logs.mark().wait(|| false).is_none());
    }

    #[test]
    fn a_mark_that_nobody_waits_for_is_forgotten() {
        let logs = logs();
        logs.expect_calls(1);
        drop(logs.mark());
        logs.record_call(Vec::new(), Vec::new());
        assert!(logs.state().marks.is_empty());
    }
}
