//! The value of each metric in each epoch. Early stopping and the choice of the best checkpoint use these values.
//! After a restart, they use the values in the backup.

mod checkpointing;
mod recall;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::train::metric::store::Split;
use serde::{Deserialize, Serialize};

use crate::text::Text;
pub(crate) use checkpointing::Continued;
pub(crate) use recall::QueryRecorder;

/// The values of metrics, per split and epoch.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Series>", into = "Vec<Series>")]
pub(crate) struct History {
    values: BTreeMap<(String, String), BTreeMap<usize, Text>>,
}

/// The value of a metric in an epoch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EpochValue<'h> {
    pub metric: &'h str,
    /// Burn's name: `train` or `valid`.
    pub split: &'h str,
    pub epoch: usize,
    pub value: f64,
}

/// The values of one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Series {
    metric: String,
    /// Burn's name: `train` or `valid`.
    split: String,
    /// The values by epoch.
    values: BTreeMap<usize, Text>,
}

impl From<Vec<Series>> for History {
    fn from(series: Vec<Series>) -> Self {
        let values = series.into_iter();
        let values = values.map(|series| ((series.metric, series.split), series.values));
        Self {
            values: values.collect(),
        }
    }
}

impl From<History> for Vec<Series> {
    fn from(history: History) -> Self {
        let series = history.values.into_iter();
        let series = series.map(|((metric, split), values)| Series {
            metric,
            split,
            values,
        });
        series.collect()
    }
}

impl History {
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The validation value of each metric in this epoch.
    pub(crate) fn of_validation(&self, epoch: usize) -> BTreeMap<String, f64> {
        let valid = Split::Valid.to_string();
        let series = self.values.iter().filter(|((_, split), _)| *split == valid);
        let values = series.filter_map(|((metric, _), values)| {
            let value = values.get(&epoch)?;
            Some((metric.clone(), value.0))
        });
        values.collect()
    }

    fn value(&self, metric: &str, split: &Split, epoch: usize) -> Option<f64> {
        let series = self.values.get(&(metric.to_owned(), split.to_string()))?;
        series.get(&epoch).map(|value| value.0)
    }

    /// All values of the epochs up to and including this one.
    pub(crate) fn up_to(&self, epoch: usize) -> impl Iterator<Item = EpochValue<'_>> {
        self.values
            .iter()
            .flat_map(move |((metric, split), values)| {
                let past = values.range(..=epoch);
                past.map(move |(epoch, value)| EpochValue {
                    metric,
                    split,
                    epoch: *epoch,
                    value: value.0,
                })
            })
    }

    fn record(&mut self, metric: &str, split: &Split, epoch: usize, value: f64) {
        let key = (metric.to_owned(), split.to_string());
        let series = self.values.entry(key).or_default();
        series.insert(epoch, Text(value));
    }
}

/// The history of the current training. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct MetricHistory(Arc<Mutex<HistoryState>>);

#[derive(Debug)]
struct HistoryState {
    history: Arc<History>,
    /// The last epoch whose values are visible. While past decisions are repeated, later epochs are hidden.
    visible: usize,
    /// The epochs that were trained and validated before this process started.
    past: RangeInclusive<usize>,
    /// Whether the checkpointing strategy repeats its past decisions.
    checkpoints_continue: bool,
}

impl Default for HistoryState {
    fn default() -> Self {
        Self {
            history: Arc::default(),
            visible: usize::MAX,
            past: RangeInclusive::new(1, 0),
            checkpoints_continue: false,
        }
    }
}

impl MetricHistory {
    /// Continues the history in a backup. `past` are the completed epochs.
    pub(crate) fn continue_from(&self, history: History, past: RangeInclusive<usize>) {
        let mut state = self.state();
        state.history = Arc::new(history);
        state.past = past;
    }

    /// The current history.
    pub(crate) fn history(&self) -> Arc<History> {
        self.state().history.clone()
    }

    /// The epochs that were trained and validated before this process started.
    pub(crate) fn past(&self) -> RangeInclusive<usize> {
        self.state().past.clone()
    }

    /// The value of `metric` in `epoch`, if known.
    pub(crate) fn value(&self, metric: &str, split: &Split, epoch: usize) -> Option<f64> {
        self.state().history.value(metric, split, epoch)
    }

    /// Records the value of `metric` in `epoch`.
    pub(crate) fn record(&self, metric: &str, split: &Split, epoch: usize, value: f64) {
        let mut state = self.state();
        Arc::make_mut(&mut state.history).record(metric, split, epoch, value);
    }

    /// Hides the values of the epochs after this one from now on.
    pub(crate) fn hide_after(&self, epoch: usize) {
        self.state().visible = epoch;
    }

    /// Whether the checkpointing strategy that was last used repeats its past decisions.
    pub(crate) fn checkpoints_continue(&self) -> bool {
        self.state().checkpoints_continue
    }

    fn note_continued_checkpoints(&self) {
        self.state().checkpoints_continue = true;
    }

    fn is_visible(&self, epoch: usize) -> bool {
        epoch <= self.state().visible
    }

    /// The data is plain, so a panic elsewhere leaves nothing half done in it.
    fn state(&self) -> MutexGuard<'_, HistoryState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_without_a_json_number_are_read_back_unchanged() {
        let mut history = History::default();
        let values = [0.1 + 0.2, f64::NAN, f64::INFINITY, -0.0, 1e-300];
        for (epoch, value) in (1..).zip(values) {
            history.record("Loss", &Split::Valid, epoch, value);
        }
        let json = serde_json::to_string(&history).unwrap();
        let read: History = serde_json::from_str(&json).unwrap();
        for (epoch, value) in (1..).zip(values) {
            let read = read.value("Loss", &Split::Valid, epoch).unwrap();
            assert_eq!(read.to_bits(), value.to_bits(), "{json}");
        }
        assert_eq!(read.value("Loss", &Split::Train, 1), None);
    }
}
