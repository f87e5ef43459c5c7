use std::path::{Path, PathBuf};

use burn::train::metric::NumericEntry;
use burn::train::metric::store::Split;
use serde::{Deserialize, Serialize};

use crate::text::Text;

/// A metric's log in an epoch, and the running sum of its lines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct OpenLog {
    pub metric: String,
    /// Burn's name: `train` or `valid`.
    pub split: String,
    pub epoch: usize,
    /// The length of the file.
    pub bytes: u64,
    /// The sum of the lines' values, each multiplied by its count.
    sum: Text,
    count: usize,
    /// Whether the metric's own value for the epoch has equaled the mean of its lines so far.
    pub is_mean: bool,
    /// Whether the log contains the metric's own value for the epoch.
    pub is_final: bool,
    /// Whether a line is text. Such a metric has no value for the epoch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_text: bool,
}

impl OpenLog {
    pub(super) fn new(metric: &str, split: &Split, epoch: usize) -> Self {
        Self::of(metric, &split.to_string(), epoch)
    }

    /// The log of a split with this name in Burn.
    pub(super) fn of(metric: &str, split: &str, epoch: usize) -> Self {
        Self {
            metric: metric.to_owned(),
            split: split.to_owned(),
            epoch,
            bytes: 0,
            sum: Text(0.0),
            count: 0,
            is_mean: true,
            is_final: false,
            is_text: false,
        }
    }

    /// The path of the file, as in Burn.
    pub(super) fn path(&self, directory: &Path) -> PathBuf {
        let epoch = directory
            .join(&self.split)
            .join(format!("epoch-{}", self.epoch));
        epoch.join(format!("{}.log", self.metric.replace(' ', "_")))
    }

    /// Whether the metric's name gives a file inside the directory. The name comes from a document, which can be
    /// edited.
    pub(super) fn is_of_this_directory(&self) -> bool {
        let path = self.path(Path::new(""));
        path.components().count() == 3 && !self.metric.contains(['/', '\\'])
    }

    /// The mean of the lines, if any of them counts.
    pub(super) fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| mean(self.sum.0, self.count))
    }

    fn add(&mut self, value: f64, count: usize) {
        // Add in the same order and the same way as Burn's metrics, so that even the last bit is the same.
        if count > 0 {
            self.sum.0 += value * count as f64;
            self.count += count;
        }
    }
}

/// The sums of a metric's lines: for the whole epoch and for this process.
#[derive(Debug)]
pub(super) struct Running {
    pub log: OpenLog,
    /// Whether an earlier process was interrupted in this epoch.
    is_continued: bool,
    here: Mean,
    /// The metric's own value for this epoch, if it was logged.
    value: Option<f64>,
}

#[derive(Debug, Default)]
struct Mean {
    sum: f64,
    count: usize,
}

/// What to write for a line.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    AsIs,
    Instead(String),
    /// The unchanged line, although its value covers only part of the epoch.
    Partial,
}

impl Running {
    pub(super) fn begun(log: OpenLog) -> Self {
        Self {
            log,
            is_continued: false,
            here: Mean::default(),
            value: None,
        }
    }

    pub(super) fn continued(log: OpenLog) -> Self {
        Self {
            is_continued: true,
            ..Self::begun(log)
        }
    }

    /// The value of the metric in this epoch, as Burn aggregates it.
    pub(super) fn value(&self) -> Option<f64> {
        self.value.or_else(|| self.log.mean())
    }

    /// Adds a line. `running` is the metric's own value for the epoch so far, if it has one.
    pub(super) fn line(&mut self, line: &str, running: Option<&NumericEntry>) -> Line {
        let (value, count) = match NumericEntry::deserialize(line) {
            Ok(NumericEntry::Final(value)) => return self.last_line(value),
            Ok(NumericEntry::Value(value)) => (value, 1),
            Ok(NumericEntry::Aggregated {
                aggregated_value,
                count,
            }) => (aggregated_value, count),
            Err(_) => {
                self.log.is_text = true;
                return Line::AsIs;
            }
        };
        self.log.add(value, count);
        if count > 0 {
            self.here.sum += value * count as f64;
            self.here.count += count;
        }
        if let Some(running) = running {
            self.log.is_mean &= self.is_mean_here(running.current());
        }
        Line::AsIs
    }

    /// Handles the metric's value for the epoch. After an interruption, it covers only part of the epoch.
    fn last_line(&mut self, value: f64) -> Line {
        self.log.is_final = true;
        self.value = Some(value);
        if !self.is_continued {
            return Line::AsIs;
        }
        match self.log.mean() {
            Some(mean) if self.log.is_mean && self.is_mean_here(value) => {
                self.value = Some(mean);
                Line::Instead(NumericEntry::Final(mean).serialize())
            }
            _ => Line::Partial,
        }
    }

    /// Whether the metric's own `value`, for the part of the epoch in this process, is the mean of the lines.
    fn is_mean_here(&self, value: f64) -> bool {
        let mean = mean(self.here.sum, self.here.count);
        mean.to_bits() == value.to_bits() || (mean.is_nan() && value.is_nan())
    }
}

fn mean(sum: f64, count: usize) -> f64 {
    sum / count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&str; 4] = ["0.1,4", "0.7,4", "0.30000000000000004,4", "0.9,2"];

    /// The metric's line at the end of an epoch, or of a part of it.
    fn last_line(lines: &[&str]) -> String {
        let mut all = OpenLog::new("Loss", &Split::Train, 1);
        for line in lines {
            let Ok(NumericEntry::Aggregated {
                aggregated_value,
                count,
            }) = NumericEntry::deserialize(line)
            else {
                panic!("{line}");
            };
            all.add(aggregated_value, count);
        }
        NumericEntry::Final(all.mean().unwrap()).serialize()
    }

    #[test]
    fn an_epoch_in_two_parts_has_the_same_value_as_in_one() {
        let whole = last_line(&LINES);
        for cut in 1..LINES.len() {
            let (before, after) = LINES.split_at(cut);
            let mut running = Running::begun(OpenLog::new("Loss", &Split::Train, 1));
            for line in before {
                assert_eq!(running.line(line, None), Line::AsIs);
            }
            let json = serde_json::to_string(&running.log).unwrap();
            let mut running = Running::continued(serde_json::from_str(&json).unwrap());
            for line in after {
                assert_eq!(running.line(line, None), Line::AsIs);
            }
            let last = running.line(&last_line(after), None);
            assert_eq!(last, Line::Instead(whole.clone()));
            let value = NumericEntry::Final(running.value().unwrap()).serialize();
            assert_eq!(value, whole);
        }
    }

    #[test]
    fn a_metric_that_is_not_a_mean_is_unchanged() {
        let log = OpenLog::new("Perplexity", &Split::Train, 1);
        let mut running = Running::continued(log);
        running.line("0.5,4", Some(&NumericEntry::Value(0.25)));
        assert!(!running.log.is_mean);
        assert_eq!(running.line("0.25,final", None), Line::Partial);
        assert_eq!(running.value(), Some(0.25));
        // With a single batch, every metric equals the mean.
        let mut running = Running::continued(running.log);
        running.line("0.5,4", Some(&NumericEntry::Value(0.5)));
        assert_eq!(running.line("0.5,final", None), Line::Partial);
        assert_eq!(running.line("a text", None), Line::AsIs);
    }

    #[test]
    fn a_name_that_leaves_the_directory_is_refused() {
        for (name, expected) in [
            ("Loss", true),
            ("Top 5", true),
            ("../Loss", false),
            ("/x", false),
        ] {
            let log = OpenLog::new(name, &Split::Train, 1);
            assert_eq!(log.is_of_this_directory(), expected, "{name}");
        }
    }

    #[test]
    fn an_epoch_without_a_last_line_has_the_mean_of_its_lines() {
        let mut running = Running::begun(OpenLog::new("Count", &Split::Valid, 1));
        for line in ["1", "2,3"] {
            running.line(line, None);
        }
        assert_eq!(running.value(), Some(1.75));
    }
}
