//! Metric logs on disk after a restart: line by line those of an uninterrupted training.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::TensorReadError;
use burn::train::logger::FileMetricLogger;
use burn::train::metric::{
    Metric, MetricMetadata, MetricName, Numeric, NumericEntry, SerializedEntry,
};
use burn_backup_restore::{BackupExt as _, SaveFreq};
use burn_backup_tests::{Backend, Halt, RecordingRenderer, Spread, Training};
use test_fork::test;

use crate::log_lines;
use crate::process::{run, run_well, trainee};
use crate::support::{contents, uninterrupted};

/// The logs in `dir`, by their paths in it.
fn logs(dir: &Path) -> BTreeMap<PathBuf, String> {
    let logs = contents(dir).into_iter().map(|(path, bytes)| {
        let path = path.strip_prefix(dir).unwrap().to_path_buf();
        (path, String::from_utf8(bytes).unwrap())
    });
    logs.collect()
}

/// The logs of a training that is halted by each of `halts` in turn, and then ends.
fn logged(training: &Training, frequency: SaveFreq, halts: &[Halt]) -> BTreeMap<PathBuf, String> {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("logs");
    for halt in halts.iter().chain([&Halt::Never]) {
        let backup = Training::backup(scratch.path().join("backup"));
        let backup = backup.save_freq(frequency).metric_logs(&dir);
        let run = training.run(backup, *halt);
        let is_error = matches!(halt, Halt::Fail(_));
        assert_eq!(run.error.is_some(), is_error, "{halt:?}: {:?}", run.error);
    }
    logs(&dir)
}

#[track_caller]
fn assert_same(
    training: &Training,
    frequency: SaveFreq,
    halts: &[Halt],
    expected: &BTreeMap<PathBuf, String>,
) {
    let logged = logged(training, frequency, halts);
    assert!(
        logged == *expected,
        "{:?}, {frequency:?}, {halts:?}: {logged:#?} instead of {expected:#?}",
        training.spread
    );
}

#[test]
fn they_are_the_same_files_that_burn_writes() {
    let training = Training::new(Backend::Flex);
    let scratch = tempfile::tempdir().unwrap();
    let (ours, burns) = (scratch.path().join("ours"), scratch.path().join("burns"));
    let backup = Training::backup(scratch.path().join("backup")).metric_logs(&ours);
    let run = training.run_with(Halt::Never, |builder| {
        let builder = builder.with_metric_logger(FileMetricLogger::new(&burns));
        builder.backup_and_restore(backup)
    });
    assert!(run.error.is_none());
    let ours = logs(&ours);
    assert_eq!(
        ours.len(),
        3 * 2 * 3,
        "three metrics in each part of an epoch"
    );
    assert!(ours[Path::new("train/epoch-2/Loss.log")].ends_with(",final\n"));
    assert_eq!(ours, logs(&burns));
}

#[test]
fn interrupted_anywhere_they_end_as_if_uninterrupted() {
    use Halt::{Fail, Stop, StopInValidation};

    let training = Training::new(Backend::Flex);
    let expected = logged(&training, SaveFreq::Epoch, &[]);
    for frequency in [
        SaveFreq::Epoch,
        SaveFreq::Steps(1),
        SaveFreq::Steps(3),
        SaveFreq::Steps(4),
    ] {
        for batch in 1..=18 {
            for halt in [Stop(batch), Fail(batch), StopInValidation(batch)] {
                assert_same(&training, frequency, &[halt], &expected);
            }
        }
        for halts in [
            &[Stop(8), Stop(2), Fail(3), StopInValidation(2)][..],
            &[Fail(8), Fail(2), Stop(1), Fail(1)],
            &[Stop(6), Stop(6), StopInValidation(6), StopInValidation(1)],
        ] {
            assert_same(&training, frequency, halts, &expected);
        }
    }
}

#[test]
fn with_accumulated_gradients_they_end_as_if_uninterrupted() {
    for accumulation in [3, 4] {
        let training = Training {
            accumulation: Some(accumulation),
            ..Training::new(Backend::Flex)
        };
        let expected = logged(&training, SaveFreq::Epoch, &[]);
        for batch in 1..=18 {
            for halt in [Halt::Stop(batch), Halt::Fail(batch)] {
                assert_same(&training, SaveFreq::Steps(2), &[halt], &expected);
            }
        }
    }
}

#[test]
fn on_several_devices_they_end_as_if_uninterrupted() {
    for spread in [Spread::Main(3), Spread::Sharded(2), Spread::Ddp(2)] {
        let training = Training::spread(spread);
        let expected = logged(&training, SaveFreq::Epoch, &[]);
        for batch in 1..=6 {
            for halt in [
                Halt::Stop(batch),
                Halt::Fail(batch),
                Halt::StopInValidation(batch),
            ] {
                assert_same(&training, SaveFreq::Steps(1), &[halt], &expected);
            }
        }
    }
}

/// A metric whose value for an epoch is not the mean of its lines.
#[derive(Clone, Default)]
struct Last {
    batches: usize,
}

impl Metric for Last {
    type Input = ();

    fn name(&self) -> MetricName {
        Arc::new("Last".to_owned())
    }

    fn update(
        &mut self,
        _item: &(),
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        self.batches += 1;
        self.compute()
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        let batches = self.batches as f64;
        let line = NumericEntry::Value(batches).serialize();
        Ok(SerializedEntry::new(batches.to_string(), line))
    }

    fn clear(&mut self) {
        self.batches = 0;
    }
}

impl Numeric for Last {
    fn value(&self) -> Option<NumericEntry> {
        Some(NumericEntry::Value(self.batches as f64))
    }

    fn running_value(&self) -> Option<NumericEntry> {
        self.value()
    }

    fn final_value(&self) -> NumericEntry {
        NumericEntry::Final(self.batches as f64)
    }
}

/// The number of batches in an epoch of 22 items, in batches of 4 on each device.
fn batches_in_epoch(spread: Spread) -> usize {
    let devices = spread.devices();
    devices * 22_usize.div_ceil(devices).div_ceil(4)
}

#[test]
fn a_stop_after_the_last_batch_of_an_epoch_leaves_its_metrics_whole() {
    for spread in [
        Spread::One,
        Spread::Main(2),
        Spread::Sharded(2),
        Spread::Ddp(2),
    ] {
        let training = Training::spread(spread);
        let logged = |halts: &[Halt]| {
            let scratch = tempfile::tempdir().unwrap();
            let dir = scratch.path().join("logs");
            for halt in halts.iter().chain([&Halt::Never]) {
                let backup = Training::backup(scratch.path().join("backup")).metric_logs(&dir);
                let backup = training.spread_over_devices(backup);
                let run = training.run_with(*halt, |builder| {
                    let builder = builder.metric_train_numeric(Last::default());
                    builder.backup_and_restore(backup)
                });
                assert!(run.error.is_none(), "{spread:?}: {:?}", run.error);
                assert_eq!(run.interrupted.is_some(), *halt != Halt::Never);
            }
            logs(&dir)
        };
        let expected = logged(&[]);
        assert!(expected.contains_key(Path::new("train/epoch-3/Last.log")));
        // In the last batch of the first epoch, on the device that finishes last.
        let last = batches_in_epoch(spread);
        for halts in [
            &[Halt::StopAfterLast(1)][..],
            &[Halt::StopAfterLast(2)],
            // The next process requests the first epoch's iterator once more.
            &[Halt::StopAfterLast(1), Halt::StopAfterLast(2)],
            &[Halt::Stop(last)],
            &[Halt::Stop(last), Halt::StopInValidation(2)],
        ] {
            assert_eq!(logged(halts), expected, "{spread:?}, {halts:?}");
        }
    }
}

/// A metric that panics in the update with this number, counted from 1.
#[derive(Clone)]
struct Panicking {
    at: usize,
    updates: usize,
}

impl Metric for Panicking {
    type Input = ();

    fn name(&self) -> MetricName {
        Arc::new("Panicking".to_owned())
    }

    fn update(
        &mut self,
        _item: &(),
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        self.updates += 1;
        assert!(self.updates < self.at, "the test has the metric panic");
        self.compute()
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(SerializedEntry::not_available(None))
    }

    fn clear(&mut self) {}
}

/// A backup gives up its wait at once. Otherwise each of these runs would take ten minutes.
#[test]
fn after_a_panic_in_a_metric_or_a_renderer_no_backup_waits_for_lines_that_never_come() {
    let expected = uninterrupted(&Training::new(Backend::Flex));
    for spread in [Spread::One, Spread::Ddp(1)] {
        let training = Training {
            spread,
            ..Training::new(Backend::Flex)
        };
        for frequency in [1, 3] {
            for at in (1..=12).chain([18]) {
                for is_metric in [true, false] {
                    let scratch = tempfile::tempdir().unwrap();
                    let backup = || {
                        let backup = Training::backup(scratch.path().join("backup"));
                        let backup = backup.save_freq(SaveFreq::Steps(frequency));
                        let backup = backup.metric_logs(scratch.path().join("logs"));
                        training.spread_over_devices(backup)
                    };
                    let run = catch_unwind(AssertUnwindSafe(|| {
                        training.run_with(Halt::Never, |builder| {
                            let builder = match is_metric {
                                true => builder.metric_train(Panicking { at, updates: 0 }),
                                false => {
                                    let renderer = RecordingRenderer::default().panicking_at(at);
                                    builder.renderer(Box::new(renderer))
                                }
                            };
                            builder.backup_and_restore(backup())
                        })
                    }));
                    assert!(run.is_err(), "{spread:?}, {at}");
                    let run = training
                        .run_with(Halt::Never, |builder| builder.backup_and_restore(backup()));
                    assert!(run.error.is_none(), "{spread:?}, {at}: {:?}", run.error);
                    assert!(run.weights == expected.weights, "{spread:?}, {at}");
                }
            }
        }
    }
}

#[test]
fn aborted_anywhere_the_next_process_logs_as_if_uninterrupted() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("whole/backup");
    fs::create_dir(dir.parent().unwrap()).unwrap();
    run_well(&mut trainee(Backend::Flex, &dir, 1, &["logs@0"]));
    let expected = logs(&dir.with_file_name("logs"));
    assert_eq!(expected.len(), 18);
    for frequency in [1, 4] {
        for (what, last) in [
            ("abort", 18),
            ("abort-in-validation", 18),
            ("abort-in-call", 60),
        ] {
            for at in (1..=last).step_by(if last > 18 { 5 } else { 1 }) {
                let scratch = tempfile::tempdir().unwrap();
                let dir = scratch.path().join("backup");
                let abort = format!("{what}@{at}");
                let (status, _) = run(&mut trainee(
                    Backend::Flex,
                    &dir,
                    frequency,
                    &["logs@0", &abort],
                ));
                assert!(!status.success());
                run_well(&mut trainee(Backend::Flex, &dir, frequency, &["logs@0"]));
                let logged = logs(&scratch.path().join("logs"));
                assert!(logged == expected, "{frequency}, {abort}: {logged:#?}");
            }
        }
    }
}

#[test]
fn without_the_lines_from_before_they_continue_and_have_the_right_value() {
    let training = Training::new(Backend::Flex);
    let expected = logged(&training, SaveFreq::Epoch, &[]);
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("logs");
    let backup = || Training::backup(scratch.path().join("backup")).metric_logs(&dir);
    training.run(backup(), Halt::Stop(9));
    fs::remove_dir_all(&dir).unwrap();
    let run = training.run(backup(), Halt::Never);
    assert!(run.error.is_none());
    let path = Path::new("train/epoch-2/Loss.log");
    let (log, whole) = (&logs(&dir)[path], &expected[path]);
    assert_eq!(log.lines().count(), whole.lines().count() - 3);
    assert!(whole.ends_with(log.as_str()), "{log} of {whole}");
}

#[test]
fn a_log_that_cannot_be_written_ends_neither_the_training_nor_its_backups() {
    let training = Training::new(Backend::Flex);
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("logs");
    fs::write(&dir, "a file").unwrap();
    let backup = Training::backup(scratch.path().join("backup"))
        .save_freq(SaveFreq::Steps(3))
        .metric_logs(&dir);
    let handle = backup.handle();
    let run = training.run(backup, Halt::Never);
    assert!(run.error.is_none(), "{:?}", run.error);
    assert_eq!((handle.stats().committed, handle.stats().failed), (7, 0));
    assert_eq!(fs::read_to_string(&dir).unwrap(), "a file");
}

/// A metric whose value is text.
#[derive(Clone)]
struct Words;

impl Metric for Words {
    type Input = ();

    fn name(&self) -> MetricName {
        Arc::new("Words".to_owned())
    }

    fn update(
        &mut self,
        _item: &(),
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        self.compute()
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(SerializedEntry::new(
            "a word".to_owned(),
            "a word".to_owned(),
        ))
    }

    fn clear(&mut self) {}
}

#[test]
fn a_text_metric_resumes_without_a_warning_wherever_it_was_interrupted() {
    log_lines::listen();
    let training = Training::new(Backend::Flex);
    let run = |scratch: &Path, halt| {
        let backup = Training::backup(scratch.join("backup")).metric_logs(scratch.join("logs"));
        let run = training.run_with(halt, |builder| {
            let builder = builder.metric_train(Words).metric_valid(Words);
            builder.backup_and_restore(backup)
        });
        assert!(run.error.is_none(), "{:?}", run.error);
    };
    let whole = tempfile::tempdir().unwrap();
    run(whole.path(), Halt::Never);
    let expected = logs(&whole.path().join("logs"));
    assert_eq!(
        expected[Path::new("train/epoch-2/Words.log")],
        // One line for each batch, and one for the epoch.
        "a word\n".repeat(7)
    );
    // In the middle of an epoch, after its last batch, and in its validation.
    for halt in [Halt::Stop(8), Halt::Stop(12), Halt::StopInValidation(9)] {
        let scratch = tempfile::tempdir().unwrap();
        run(scratch.path(), halt);
        run(scratch.path(), Halt::Never);
        assert!(logs(&scratch.path().join("logs")) == expected, "{halt:?}");
    }
    let warnings = log_lines::logged(log::Level::Warn);
    assert!(
        !warnings.iter().any(|line| line.contains("Words")),
        "{warnings:?}"
    );
}
