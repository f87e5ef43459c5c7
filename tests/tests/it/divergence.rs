//! A training that diverges goes back to a backup, skips the batch that did it, and ends with the same weights
//! whenever it is interrupted.

use std::collections::BTreeMap;
use std::path::Path;

use burn::optim::SgdConfig;
use burn::train::metric::LossMetric;
use burn_backup_restore::{
    BackupAndRestore, BackupError, Change, Divergence, DivergenceRule, OnBackupError, Outcome,
    SaveFreq,
};
use burn_backup_tests::{
    Backend, BatchSource, Halt, Loaders, Loop, LoopHalt, Poison, Run, Spread, Training,
};
use test_fork::test;

use crate::support::contents;

/// One item whose inputs are NaN, in the second epoch.
const NAN: Poison = Poison {
    item: 7,
    epoch: Some(2),
    inputs: f32::NAN,
};

fn training(poison: Poison) -> Training {
    Training {
        loaders: Loaders::Resumable,
        poison: Some(poison),
        ..Training::new(Backend::Flex)
    }
}

/// One whose weights an input that is too large blows up.
fn exploding() -> Training {
    Training {
        optimizer: || SgdConfig::new().init(),
        norm: false,
        ..training(Poison { inputs: 1e4, ..NAN })
    }
}

/// A rule for the few batches of these trainings.
fn rule() -> DivergenceRule {
    DivergenceRule::default().window(10).patience(2)
}

fn backup(dir: &Path, divergence: Divergence) -> BackupAndRestore {
    Training::backup(dir.join("backup"))
        .metric_logs(dir.join("logs"))
        .on_divergence(divergence)
        .divergence_rule(rule())
}

const GO_BACK: Divergence = Divergence::RollBack { at_most: 3 };

/// What a training leaves that nobody interrupts, and its metric logs.
struct Whole {
    run: Run,
    rolled_back: u64,
    logs: BTreeMap<std::path::PathBuf, Vec<u8>>,
}

fn logs(dir: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let logs = dir.join("logs");
    let files = contents(&logs).into_iter();
    let relative = |path: std::path::PathBuf| path.strip_prefix(&logs).unwrap().to_path_buf();
    files.map(|(path, bytes)| (relative(path), bytes)).collect()
}

#[track_caller]
fn whole(training: &Training, frequency: SaveFreq) -> Whole {
    let scratch = tempfile::tempdir().unwrap();
    let backup = backup(scratch.path(), GO_BACK).save_freq(frequency);
    let handle = backup.handle();
    let run = training.run(backup, Halt::Never);
    assert!(run.error.is_none(), "{:?}", run.error);
    assert!(run.interrupted.is_none());
    assert!(!scratch.path().join("backup").exists(), "it is complete");
    Whole {
        run,
        rolled_back: handle.stats().rolled_back,
        logs: logs(scratch.path()),
    }
}

fn has_nan(run: &Run) -> bool {
    let mut tensors = run.weights.values();
    tensors.any(|bytes| {
        let at = bytes.windows(2).position(|two| two == b"} ").unwrap() + 2;
        let mut numbers = bytes[at..].chunks_exact(4);
        numbers.any(|four| f32::from_le_bytes(four.try_into().unwrap()).is_nan())
    })
}

/// Interrupts it by each of `halts`, each time with the next of the frequencies, and compares all that it leaves.
#[track_caller]
fn assert_same(training: &Training, whole: &Whole, frequency: SaveFreq, halts: &[Halt]) {
    let scratch = assert_ends_the_same(training, whole, frequency, halts);
    assert!(
        logs(scratch.path()) == whole.logs,
        "metric logs after {halts:?}"
    );
}

/// The same without the metric logs, where these name several devices in no certain order.
#[track_caller]
fn assert_ends_the_same(
    training: &Training,
    whole: &Whole,
    frequency: SaveFreq,
    halts: &[Halt],
) -> tempfile::TempDir {
    let scratch = tempfile::tempdir().unwrap();
    for halt in halts.iter().chain([&Halt::Never]) {
        let backup = backup(scratch.path(), GO_BACK).save_freq(frequency);
        let run = training.run(backup, *halt);
        let is_error = matches!(halt, Halt::Fail(_) | Halt::FailInValidation(_));
        if *halt == Halt::Never {
            assert!(run.error.is_none(), "{:?} after {halts:?}", run.error);
            assert!(run.weights == whole.run.weights, "weights after {halts:?}");
            assert!(run.records == whole.run.records, "records after {halts:?}");
        } else if run.interrupted.is_some() || run.error.is_some() {
            assert_eq!(
                run.error.is_some(),
                is_error,
                "{halt:?} in {halts:?}: {:?}",
                run.error
            );
        }
    }
    scratch
}

#[test]
fn the_batch_with_a_sample_of_nan_is_skipped_whenever_backups_are_taken() {
    let training = training(NAN);
    let expected = whole(&training, SaveFreq::Epoch);
    assert_eq!(expected.rolled_back, 1);
    assert!(!has_nan(&expected.run));
    assert_eq!(expected.run.steps, 17, "of 18 batches one is skipped");
    for frequency in [SaveFreq::Steps(1), SaveFreq::Steps(4), SaveFreq::Continuous] {
        let other = whole(&training, frequency);
        assert_eq!(other.rolled_back, 1, "{frequency:?}");
        assert!(other.run.weights == expected.run.weights, "{frequency:?}");
        assert!(other.logs == expected.logs, "{frequency:?}");
    }
}

#[test]
fn interrupted_at_any_batch_around_a_rollback_it_ends_the_same() {
    let training = training(NAN);
    let expected = whole(&training, SaveFreq::Epoch);
    for frequency in [SaveFreq::Epoch, SaveFreq::Steps(1), SaveFreq::Steps(4)] {
        // Those that are trained again count again.
        for batch in 1..=24 {
            assert_same(&training, &expected, frequency, &[Halt::Stop(batch)]);
            assert_same(&training, &expected, frequency, &[Halt::Fail(batch)]);
        }
        let several = [
            Halt::Fail(9),
            Halt::Stop(2),
            Halt::StopInValidation(2),
            Halt::Fail(3),
        ];
        assert_same(&training, &expected, frequency, &several);
    }
}

#[test]
fn on_several_devices_and_with_accumulated_gradients_it_goes_back_too() {
    let spreads = [
        (Spread::Main(2), None),
        (Spread::Sharded(2), None),
        (Spread::Ddp(2), None),
        (Spread::One, Some(2)),
        (Spread::One, Some(4)),
        (Spread::Ddp(2), Some(2)),
    ];
    for (spread, accumulation) in spreads {
        let training = Training {
            loaders: Loaders::Resumable,
            poison: Some(NAN),
            accumulation,
            ..Training::spread(spread)
        };
        let expected = whole(&training, SaveFreq::Epoch);
        assert_eq!(expected.rolled_back, 1, "{spread:?}");
        assert!(!has_nan(&expected.run), "{spread:?}");
        let other = whole(&training, SaveFreq::Steps(1));
        assert!(
            other.run.weights == expected.run.weights,
            "{spread:?}, {accumulation:?}"
        );
        for batch in 5..=12 {
            for frequency in [SaveFreq::Epoch, SaveFreq::Steps(1)] {
                assert_ends_the_same(&training, &expected, frequency, &[Halt::Stop(batch)]);
                assert_ends_the_same(&training, &expected, frequency, &[Halt::Fail(batch)]);
            }
        }
    }
}

#[test]
fn a_loop_written_by_hand_goes_back_whatever_its_batches_come_from() {
    let sources = [
        BatchSource::Loader(Loaders::Resumable, 0),
        BatchSource::Loader(Loaders::Resumable, 2),
        BatchSource::Iterator,
        BatchSource::Two,
        BatchSource::InTurn,
        BatchSource::Twice,
        BatchSource::Rebuilt,
        BatchSource::Endless,
        BatchSource::Steps,
    ];
    for (source, accumulation) in sources.into_iter().flat_map(|of| [(of, 1), (of, 3)]) {
        if source == BatchSource::Steps && accumulation > 1 {
            continue;
        }
        let by_number = matches!(
            source,
            BatchSource::Iterator | BatchSource::Endless | BatchSource::Steps
        );
        let program = Loop {
            source,
            accumulation,
            poison: Some(Poison {
                item: if by_number { 5 } else { 7 },
                epoch: (source != BatchSource::Rebuilt).then_some(2),
                inputs: f32::NAN,
            }),
            ..Loop::new(Backend::Flex)
        };
        let run = |dir: &Path, frequency: SaveFreq, halt| {
            let backup = BackupAndRestore::new(dir)
                .seed(5)
                .save_freq(frequency)
                .on_divergence(Divergence::RollBack { at_most: 5 })
                .divergence_rule(rule());
            let handle = backup.handle();
            (program.run(backup, halt), handle.stats().rolled_back)
        };
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("backup");
        let (expected, rolled_back) = run(&dir, SaveFreq::Epoch, LoopHalt::Never);
        assert!(expected.error.is_none(), "{source:?}: {:?}", expected.error);
        assert_eq!(expected.outcome, Some(Outcome::Finished), "{source:?}");
        assert!((1..=3).contains(&rolled_back), "{source:?}: {rolled_back}");
        let expected = expected.state.unwrap();
        let weights = |state: &burn_backup_tests::LoopState| {
            burn_backup_tests::model_records(&state.trainee.model)
        };
        for (frequency, first) in [
            (SaveFreq::Epoch, 7),
            (SaveFreq::Steps(1), 8),
            (SaveFreq::Steps(5), 9),
        ] {
            for batch in (first..=18).step_by(4) {
                for halt in [LoopHalt::Stop(batch), LoopHalt::Return(batch + 1)] {
                    let scratch = tempfile::tempdir().unwrap();
                    let dir = scratch.path().join("backup");
                    let _ = run(&dir, frequency, halt);
                    let (last, _) = run(&dir, frequency, LoopHalt::Never);
                    assert!(
                        last.error.is_none(),
                        "{source:?}, {halt:?}: {:?}",
                        last.error
                    );
                    let last = last.state.unwrap();
                    let case = format!("{source:?}, {accumulation}, {frequency:?}, {halt:?}");
                    assert!(weights(&last) == weights(&expected), "{case}");
                    assert_eq!(last.counters.0, expected.counters.0, "{case}");
                }
            }
        }
    }
}
