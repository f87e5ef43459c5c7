//! Checks the metrics of training batches as they are computed, on a Burn thread behind the training.
//!
//! The training records the batch of each expected logger call, and the logger is called in this order. A
//! [`WatchMark`] is reached when all calls have arrived that the training expected when the mark was made.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use burn::train::logger::MetricLogger;
use burn::train::metric::store::{EpochSummary, MetricsUpdate, NumericMetricUpdate, Split};
use burn::train::metric::{MetricDefinition, MetricId, NumericEntry};

use super::lag::{self, ReceiverProgress};
use crate::divergence::{Detector, DivergenceRule, Finding, Record};

/// The detector of a training and its finding. Clones share it.
#[derive(Clone)]
pub(crate) struct MetricWatch {
    shared: Arc<Shared>,
}

struct Shared {
    has_diverged: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    detector: Detector,
    finding: Option<Finding>,
    /// The batch of each call that is still expected; `None` if the call does not belong to a batch.
    expected: VecDeque<Option<u64>>,
    expected_calls: u64,
    received_calls: u64,
    marks: Vec<(u64, Weak<OnceLock<CheckResult>>)>,
    /// The metrics of the training, if a batch has arrived and a watched metric is missing.
    others: Option<Vec<String>>,
    has_checked: bool,
    /// Whether no more calls will come.
    is_abandoned: bool,
}

/// The result of the checks up to a moment.
#[derive(Clone)]
pub(crate) struct CheckResult {
    pub record: Record,
    pub has_diverged: bool,
}

/// A moment up to which all metrics must be checked.
#[derive(Clone)]
pub(crate) struct WatchMark {
    watch: MetricWatch,
    reached: Arc<OnceLock<CheckResult>>,
}

impl MetricWatch {
    pub(crate) fn new(detector: Detector) -> Self {
        let state = State {
            detector,
            finding: None,
            expected: VecDeque::new(),
            expected_calls: 0,
            received_calls: 0,
            marks: Vec::new(),
            others: None,
            has_checked: false,
            is_abandoned: false,
        };
        Self {
            shared: Arc::new(Shared {
                has_diverged: AtomicBool::new(false),
                state: Mutex::new(state),
                changed: Condvar::new(),
            }),
        }
    }

    /// Called before Burn gets an event for which it calls the logger once for the training split. `batch` is the
    /// batch that the event belongs to, if any.
    pub(crate) fn expect_call(&self, batch: Option<u64>) {
        let mut state = self.state();
        state.expected_calls += 1;
        state.expected.push_back(batch);
    }

    /// Checks a value of a batch from a hand-written loop.
    pub(crate) fn check(&self, metric: &str, batch: u64, value: f64) {
        let mut state = self.state();
        let metrics = &state.detector.rule().metrics;
        state.has_checked |= metrics.iter().any(|name| name == metric);
        self.take(&mut state, metric, batch, value);
    }

    /// Whether a divergence was found. After that, nothing more is checked until [`resume`](Self::resume).
    pub(crate) fn has_diverged(&self) -> bool {
        self.shared.has_diverged.load(Ordering::Acquire)
    }

    /// Whether a value of a batch was checked.
    pub(crate) fn has_checked(&self) -> bool {
        self.state().has_checked
    }

    pub(crate) fn finding(&self) -> Option<Finding> {
        self.state().finding.clone()
    }

    /// The rule of the detector.
    pub(crate) fn rule(&self) -> DivergenceRule {
        self.state().detector.rule().clone()
    }

    /// The names of all metrics of the training, if a watched metric is missing.
    pub(crate) fn others(&self) -> Option<Vec<String>> {
        self.state().others.clone()
    }

    /// Continues from the record in a backup. A later finding is forgotten.
    pub(crate) fn resume(&self, record: Record) {
        let mut state = self.state();
        state.detector.resume(record);
        state.finding = None;
        self.shared.has_diverged.store(false, Ordering::Release);
    }

    /// A mark for this moment.
    pub(crate) fn mark(&self) -> WatchMark {
        let reached = Arc::new(OnceLock::new());
        let mut state = self.state();
        let expected_calls = state.expected_calls;
        state.marks.push((expected_calls, Arc::downgrade(&reached)));
        state.settle();
        drop(state);
        WatchMark {
            watch: self.clone(),
            reached,
        }
    }

    fn take(&self, state: &mut State, metric: &str, batch: u64, value: f64) {
        if state.finding.is_some() {
            return;
        }
        state.finding = state.detector.take(metric, batch, value);
        if state.finding.is_some() {
            self.shared.has_diverged.store(true, Ordering::Release);
        }
    }

    /// The data is plain, so a panic elsewhere leaves nothing half done in it.
    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.shared.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Completes the marks that are reached.
    fn settle(&mut self) {
        let Self {
            received_calls,
            marks,
            detector,
            finding,
            ..
        } = self;
        marks.retain(|(at, mark)| {
            let Some(mark) = mark.upgrade() else {
                return false;
            };
            if *at > *received_calls {
                return true;
            }
            let _ = mark.set(CheckResult {
                record: detector.record().clone(),
                has_diverged: finding.is_some(),
            });
            false
        });
    }
}

impl WatchMark {
    /// Waits until all metrics up to this moment are checked. Returns `None` if that can't happen. `has_failed` says
    /// whether the training has failed.
    pub(crate) fn wait(&self, has_failed: impl Fn() -> bool) -> Option<CheckResult> {
        let progress = |state: &State| ReceiverProgress {
            calls: state.received_calls,
            is_abandoned: state.is_abandoned,
        };
        let changed = &self.watch.shared.changed;
        lag::wait(
            self.watch.state(),
            changed,
            progress,
            &self.reached,
            has_failed,
        )
    }
}

/// Passes the metrics that Burn logs to a watch. Burn calls it on its own thread.
pub(crate) struct WatchLogger {
    watch: MetricWatch,
    names: Vec<(MetricId, String)>,
}

impl WatchLogger {
    pub(crate) fn new(watch: MetricWatch) -> Self {
        Self {
            watch,
            names: Vec::new(),
        }
    }

    fn check(&self, state: &mut State, batch: u64, updates: &[NumericMetricUpdate]) {
        if !std::mem::replace(&mut state.has_checked, true) {
            let is_there = |wanted: &String| self.names.iter().any(|(_, name)| name == wanted);
            let wanted = &state.detector.rule().metrics;
            if !wanted.iter().all(is_there) {
                state.others = Some(self.names.iter().map(|(_, name)| name.clone()).collect());
            }
        }
        for update in updates {
            let id = &update.entry.metric_id;
            let name = self.names.iter().find(|(known, _)| known == id);
            if let (Some((_, name)), Some(value)) = (name, value(update)) {
                self.watch.take(state, name, batch, value);
            }
        }
    }
}

/// The value of a metric for a batch.
fn value(update: &NumericMetricUpdate) -> Option<f64> {
    let parsed = || NumericEntry::deserialize(&update.entry.serialized_entry.serialized).ok();
    let entry = update.numeric_entry.clone().or_else(parsed)?;
    Some(entry.current())
}

impl MetricLogger for WatchLogger {
    fn log(&mut self, update: MetricsUpdate, _epoch: usize, split: &Split) {
        if *split != Split::Train {
            return;
        }
        let mut state = self.watch.state();
        if let Some(batch) = state.expected.pop_front().flatten() {
            self.check(&mut state, batch, &update.entries_numeric);
        }
        state.received_calls += 1;
        state.settle();
        drop(state);
        self.watch.shared.changed.notify_all();
    }

    /// This logger keeps no values, so Burn asks another one.
    fn read_numeric(
        &mut self,
        name: &str,
        _epoch: usize,
        _split: &Split,
    ) -> Result<Vec<NumericEntry>, String> {
        Err(format!("no values of '{name}' are kept here"))
    }

    fn log_metric_definition(&mut self, definition: MetricDefinition) {
        let name = definition.name.to_string();
        self.names.push((definition.metric_id, name));
    }

    fn log_epoch_summary(&mut self, _summary: EpochSummary) {}
}

impl Drop for WatchLogger {
    /// Also runs if the Burn thread that owns this logger panics.
    fn drop(&mut self) {
        self.watch.state().is_abandoned = true;
        self.watch.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> MetricWatch {
        MetricWatch::new(Detector::new(DivergenceRule::default()))
    }

    fn nothing() -> MetricsUpdate {
        MetricsUpdate::new(Vec::new(), Vec::new())
    }

    #[test]
    fn a_mark_is_reached_once_all_earlier_values_have_arrived() {
        let watch = watch();
        let mut logger = WatchLogger::new(watch.clone());
        watch.expect_call(Some(1));
        let mark = watch.mark();
        watch.expect_call(None);
        assert!(mark.reached.get().is_none());
        // A call for the validation split does not count.
        logger.log(nothing(), 1, &Split::Valid);
        assert!(mark.reached.get().is_none());
        logger.log(nothing(), 1, &Split::Train);
        let seen = mark.wait(|| false).unwrap();
        assert!(!seen.has_diverged);
        assert!(watch.mark().reached.get().is_none());
        logger.log(nothing(), 1, &Split::Train);
        assert!(watch.mark().reached.get().is_some());
    }

    #[test]
    fn a_finding_stays_until_the_training_is_rolled_back() {
        let watch = watch();
        watch.check("Loss", 3, f64::NAN);
        watch.check("Loss", 4, f64::INFINITY);
        assert!(watch.has_diverged());
        assert_eq!(watch.finding().unwrap().first, 3);
        assert!(watch.mark().wait(|| false).unwrap().has_diverged);
        watch.resume(Record::default());
        assert!(!watch.has_diverged() && watch.finding().is_none());
        assert!(!watch.mark().wait(|| false).unwrap().has_diverged);
    }

    #[test]
    fn without_a_logger_nobody_waits_for_it() {
        let watch = watch();
        let logger = WatchLogger::new(watch.clone());
        watch.expect_call(Some(1));
        drop(logger);
        assert!(watch.mark().wait(|| false).is_none());
    }

    #[test]
    fn a_missing_metric_is_detected_at_the_first_batch() {
        let watch = watch();
        let mut logger = WatchLogger::new(watch.clone());
        watch.expect_call(Some(1));
        assert!(watch.others().is_none());
        logger.log(nothing(), 1, &Split::Train);
        assert_eq!(watch.others(), Some(Vec::new()));
    }
}
