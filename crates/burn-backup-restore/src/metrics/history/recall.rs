use std::sync::Arc;

use burn::train::logger::MetricLogger;
use burn::train::metric::store::{Aggregate, EpochSummary, EventStoreClient, MetricsUpdate, Split};
use burn::train::metric::{MetricDefinition, NumericEntry};

use super::MetricHistory;

const LOG: &str = "burn_backup::metrics";

/// Answers queries for metric values from the history. If the history lacks a value, asks the training's own loggers
/// and records the answer.
///
/// Burn's strategies query an event store, which queries a metric logger. This type takes the place of that logger.
pub(crate) struct QueryRecorder {
    metric_history: MetricHistory,
    loggers: Arc<EventStoreClient>,
    has_warned: bool,
}

impl QueryRecorder {
    pub(crate) fn new(metric_history: MetricHistory, loggers: Arc<EventStoreClient>) -> Self {
        Self {
            metric_history,
            loggers,
            has_warned: false,
        }
    }

    fn value(&mut self, name: &str, epoch: usize, split: &Split) -> Option<f64> {
        // Loggers may still have files of a later epoch, written by work that was lost.
        if !self.metric_history.is_visible(epoch) {
            return None;
        }
        let known = self.metric_history.value(name, split, epoch);
        if known.is_some() {
            return known;
        }
        let value = self
            .loggers
            .find_metric(name, epoch, Aggregate::Mean, split);
        match value {
            Some(value) => self.metric_history.record(name, split, epoch, value),
            None => self.warn(name, epoch, split),
        }
        value
    }

    /// Some loggers count only the epochs of their own process, so after a restart they don't know earlier epochs by
    /// number.
    fn warn(&mut self, name: &str, epoch: usize, split: &Split) {
        let is_restored = !self.metric_history.past().is_empty();
        if is_restored && !std::mem::replace(&mut self.has_warned, true) {
            log::warn!(
                target: LOG,
                "the training's metric loggers have no value of '{name}' ({split}) for epoch {epoch}, so nothing \
                 can decide by this value; BackupAndRestore::metric_logs provides it with any logger",
            );
        }
    }
}

impl MetricLogger for QueryRecorder {
    fn log(&mut self, _update: MetricsUpdate, _epoch: usize, _split: &Split) {}

    fn read_numeric(
        &mut self,
        name: &str,
        epoch: usize,
        split: &Split,
    ) -> Result<Vec<NumericEntry>, String> {
        let value = self.value(name, epoch, split);
        Ok(value.map(NumericEntry::Final).into_iter().collect())
    }

    fn log_metric_definition(&mut self, _definition: MetricDefinition) {}

    fn log_epoch_summary(&mut self, _summary: EpochSummary) {}
}
