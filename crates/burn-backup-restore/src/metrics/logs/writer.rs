use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use burn::train::logger::MetricLogger;
use burn::train::metric::store::{EpochSummary, MetricsUpdate, Split};
use burn::train::metric::{MetricDefinition, MetricEntry, MetricId, MetricName, NumericEntry};

use super::running::{Line, OpenLog, Running};
use super::{LOG, MetricLogs};

/// Writes the files. Burn calls it on its own thread.
pub(crate) struct Writer {
    logs: MetricLogs,
    names: Vec<(MetricId, MetricName)>,
    epoch: usize,
    /// The number of times the logs had resumed from a backup when this epoch began.
    resumptions: u64,
    /// The epoch whose training was interrupted, if any.
    interrupted: Option<usize>,
    open: BTreeMap<(String, MetricName), OpenFile>,
}

struct OpenFile {
    running: Running,
    /// `None` after a failed write.
    file: Option<File>,
}

impl Writer {
    pub(crate) fn new(logs: MetricLogs) -> Self {
        Self {
            logs,
            names: Vec::new(),
            epoch: 0,
            resumptions: 0,
            interrupted: None,
            open: BTreeMap::new(),
        }
    }

    /// Begins the logs of an epoch, and continues those that a backup had open.
    fn begin(&mut self, epoch: usize) {
        self.epoch = epoch;
        self.open.clear();
        let carried = {
            let mut state = self.logs.state();
            self.interrupted = state.interrupted;
            self.resumptions = state.resumptions;
            std::mem::take(&mut state.carried)
        };
        for log in carried.into_iter().filter(|log| log.epoch == epoch) {
            let path = self.logs.path(&log);
            let key = (log.split.clone(), MetricName::new(log.metric.clone()));
            let open = OpenFile {
                file: noting_failure(&path, open(&path, false)),
                running: Running::continued(log),
            };
            self.open.insert(key, open);
        }
    }

    /// Reports the current state of the logs.
    fn publish(&self) {
        let logs = self.open.values().map(|open| &open.running.log);
        let open: Vec<_> = logs.cloned().collect();
        let written = self.open.values().filter(|open| open.file.is_some());
        let written = written.map(|open| self.logs.path(&open.running.log));
        self.logs.record_call(open, written.collect());
    }

    fn log_entry(&mut self, entry: &MetricEntry, running: Option<&NumericEntry>, split: &Split) {
        let value = &entry.serialized_entry;
        let name = self.names.iter().find(|(id, _)| *id == entry.metric_id);
        let (Some((_, name)), false) = (name, value.is_not_available()) else {
            return;
        };
        let key = (split.to_string(), name.clone());
        let is_interrupted = *split == Split::Train && self.interrupted == Some(self.epoch);
        let open = self.open.entry(key).or_insert_with(|| {
            if is_interrupted && NumericEntry::deserialize(&value.serialized).is_ok() {
                // The log has no line for a batch, so the value consists only of the metric's internal sum.
                warn_of_part(name, self.epoch);
            }
            let log = OpenLog::new(name, split, self.epoch);
            let path = self.logs.path(&log);
            OpenFile {
                file: noting_failure(&path, open(&path, true)),
                running: Running::begun(log),
            }
        });
        match open.running.line(&value.serialized, running) {
            Line::AsIs => open.write(&value.serialized, &self.logs),
            Line::Instead(line) => open.write(&line, &self.logs),
            Line::Partial => {
                warn_of_part(name, self.epoch);
                open.write(&value.serialized, &self.logs);
            }
        }
    }
}

impl Drop for Writer {
    /// Also runs if the Burn thread that owns this writer panics.
    fn drop(&mut self) {
        self.logs.abandon();
    }
}

impl OpenFile {
    fn write(&mut self, line: &str, logs: &MetricLogs) {
        let Some(file) = &mut self.file else {
            return;
        };
        match write_line(file, line) {
            Ok(bytes) => self.running.log.bytes += bytes,
            Err(error) => {
                failed(&logs.path(&self.running.log), &error);
                self.file = None;
            }
        }
    }
}

impl MetricLogger for Writer {
    fn log(&mut self, update: MetricsUpdate, epoch: usize, split: &Split) {
        let has_gone_back = self.logs.state().resumptions != self.resumptions;
        if self.epoch != epoch || has_gone_back {
            self.begin(epoch);
        }
        for entry in &update.entries {
            self.log_entry(entry, None, split);
        }
        for numeric in &update.entries_numeric {
            self.log_entry(&numeric.entry, numeric.running_entry.as_ref(), split);
        }
        self.publish();
    }

    /// The values of earlier epochs, and the value of this epoch so far.
    fn read_numeric(
        &mut self,
        name: &str,
        epoch: usize,
        split: &Split,
    ) -> Result<Vec<NumericEntry>, String> {
        let key = (split.to_string(), MetricName::new(name.to_owned()));
        let open = self.open.get(&key).filter(|_| epoch == self.epoch);
        let known = open.and_then(|open| open.running.value());
        let metric_history = &self.logs.shared.metric_history;
        let known = known.or_else(|| metric_history.value(name, split, epoch));
        if let Some(value) = known {
            return Ok(vec![NumericEntry::Final(value)]);
        }
        let path = self.logs.path(&OpenLog::new(name, split, epoch));
        let lines = fs::read_to_string(path).unwrap_or_default();
        let entries: Result<Vec<_>, _> = lines.lines().map(NumericEntry::deserialize).collect();
        // Burn panics on an error, so an unreadable file counts as missing.
        Ok(entries.unwrap_or_default())
    }

    fn log_metric_definition(&mut self, definition: MetricDefinition) {
        self.names.push((definition.metric_id, definition.name));
    }

    fn log_epoch_summary(&mut self, summary: EpochSummary) {
        let EpochSummary {
            epoch_number: epoch,
            split,
        } = summary;
        for ((of, metric), open) in &mut self.open {
            if *of != split.to_string() || open.running.log.epoch != epoch {
                continue;
            }
            open.file = None;
            if let Some(value) = open.running.value() {
                let metric_history = &self.logs.shared.metric_history;
                metric_history.record(metric, &split, epoch, value);
            }
        }
        self.publish();
    }
}

fn warn_of_part(name: &str, epoch: usize) {
    log::warn!(
        target: LOG,
        "the value of the metric '{name}' in the training of epoch {epoch} covers only the batches after the \
         interruption: it is not the mean of its lines, and the part before the interruption is lost",
    );
}

/// Appends a line to the file at `path`. Returns the number of bytes written.
pub(super) fn append(path: &Path, line: &str) -> io::Result<u64> {
    write_line(&mut open(path, false)?, line)
}

/// Logs that a metric log can't be written.
pub(super) fn failed(path: &Path, error: &io::Error) {
    log::error!(
        target: LOG,
        "the metric log '{}' can't be written and stays incomplete in this epoch: {error}",
        path.display(),
    );
}

fn open(path: &Path, anew: bool) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut options = File::options();
    options.create(true);
    match anew {
        true => options.write(true).truncate(true),
        false => options.append(true),
    };
    options.open(path)
}

fn write_line(file: &mut File, line: &str) -> io::Result<u64> {
    let line = format!("{line}\n");
    file.write_all(line.as_bytes())?;
    Ok(line.len() as u64)
}

fn noting_failure(path: &Path, opened: io::Result<File>) -> Option<File> {
    match opened {
        Ok(file) => Some(file),
        Err(error) => {
            failed(path, &error);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::metrics::MetricHistory;

    #[test]
    fn an_unreadable_log_counts_as_missing() {
        let scratch = tempfile::tempdir().unwrap();
        let directory: PathBuf = scratch.path().into();
        let mut writer = Writer::new(MetricLogs::new(directory.clone(), MetricHistory::default()));
        let mut read = |name| writer.read_numeric(name, 1, &Split::Valid).unwrap().len();
        let epoch = directory.join("valid/epoch-1");
        fs::create_dir_all(&epoch).unwrap();
        fs::write(epoch.join("Loss.log"), "0.5,4\n0.25,4\n").unwrap();
        fs::write(epoch.join("Words.log"), "0.5,4\nnot a number\n").unwrap();
        assert_eq!((read("Loss"), read("Words"), read("Accuracy")), (2, 0, 0));
    }
}
