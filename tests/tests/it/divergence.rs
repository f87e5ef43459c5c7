//! A training that diverges goes back to a backup and skips the batch that caused it. It ends with the same
//! weights, whenever it is interrupted.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use burn::tensor::Bytes;
use burn::train::metric::LossMetric;
use burn::train::metric::store::{Aggregate, Split};
use burn::train::{MetricEarlyStoppingStrategy, StoppingCondition, SupervisedTraining};
use burn_backup_restore::{
    BackupAndRestore, BackupError, BackupExt as _, Direction, Divergence, DivergenceRule, Event,
    Keep, Outcome, SaveFreq, Which, exit_code,
};
use burn_backup_store::testing::{Failure, FaultyFilesystem};
use burn_backup_tests::{
    Backend, BatchSource, Halt, Loaders, Loop, LoopHalt, Net, Numbers, Poison, Run, Spread,
    Training,
};
use test_fork::test;

use log::Level;

use crate::crash::assert_aborted;
use crate::log_lines;
use crate::process::{run, run_well, trainee};
use crate::support::contents;

/// One item whose inputs are NaN in the second epoch.
const NAN: Poison = Poison {
    items: 1 << 7,
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

/// A training with `batches` batches whose inputs are far too large, from the third one of the second epoch
/// on.
fn exploding(batches: usize) -> Training {
    let numbers = Numbers {
        items: 22,
        broken: None,
        poison: None,
    };
    let loader = Loaders::Resumable.build(numbers, 4, 11, 0, false);
    drop(loader.iter());
    let ruined = loader.iter().skip(2).take(batches);
    let items = ruined.flat_map(|batch| batch.unwrap().numbers());
    Training {
        norm: false,
        ..training(Poison {
            items: items.fold(0, |items, item| items | 1 << item),
            inputs: 1e3,
            ..NAN
        })
    }
}

/// A rule for trainings with so few batches.
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

/// The result of an uninterrupted training, and its metric logs.
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
        let mut numbers = bytes.get(at..).unwrap().chunks_exact(4);
        numbers.any(|four| f32::from_le_bytes(four.try_into().unwrap()).is_nan())
    })
}

/// Interrupts the training by each of `halts`, each time with the next frequency, and compares everything
/// that it leaves.
#[track_caller]
fn assert_same(training: &Training, whole: &Whole, frequency: SaveFreq, halts: &[Halt]) {
    let scratch = assert_ends_the_same(training, whole, frequency, halts);
    assert!(
        logs(scratch.path()) == whole.logs,
        "metric logs after {halts:?}"
    );
}

/// The same without the metric logs, which name several devices in no fixed order.
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
        // Batches that are trained again count again.
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
                items: match source {
                    BatchSource::Endless => 0xff,
                    _ if by_number => 1 << 5,
                    _ => 1 << 7,
                },
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
        assert!((1..=5).contains(&rolled_back), "{source:?}: {rolled_back}");
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

#[test]
fn a_loss_that_explodes_and_stays_high_is_rolled_back() {
    for (batches, rolled_back) in [(1, 0), (2, 1), (4, 2)] {
        let training = exploding(batches);
        let expected = whole(&training, SaveFreq::Epoch);
        assert_eq!(expected.rolled_back, rolled_back, "{batches}");
        for frequency in [SaveFreq::Steps(1), SaveFreq::Steps(3)] {
            let other = whole(&training, frequency);
            assert_eq!(other.rolled_back, rolled_back, "{frequency:?}");
            assert!(other.run.weights == expected.run.weights, "{frequency:?}");
            for batch in 7..=18 {
                assert_same(&training, &expected, frequency, &[Halt::Stop(batch)]);
                assert_same(&training, &expected, frequency, &[Halt::Fail(batch)]);
            }
        }
    }
}

/// The first rollback goes back over epochs in which early stopping has already decided.
#[test]
fn early_stopping_decides_again_after_a_rollback() {
    let training = training(Poison {
        epoch: Some(3),
        ..NAN
    });
    let run = |dir: &Path, frequency: SaveFreq, halt| {
        let backup = backup(dir, GO_BACK).save_freq(frequency);
        let handle = backup.handle();
        let patient = MetricEarlyStoppingStrategy::new(
            &LossMetric::new(),
            Aggregate::Mean,
            // With this direction, a later epoch is the best so far when the training goes back.
            burn::train::metric::store::Direction::Highest,
            Split::Valid,
            StoppingCondition::NoImprovementSince { n_epochs: 5 },
        );
        let configure = |builder: SupervisedTraining<Net>| {
            builder.early_stopping(patient).backup_and_restore(backup)
        };
        (training.run_with(halt, configure), handle)
    };
    // Only the first backup is due before the divergence.
    let scratch = tempfile::tempdir().unwrap();
    let (whole, handle) = run(scratch.path(), SaveFreq::Steps(100), Halt::Never);
    assert!(whole.error.is_none(), "{:?}", whole.error);
    assert_eq!(handle.stats().rolled_back, 1);
    for frequency in [SaveFreq::Epoch, SaveFreq::Steps(1)] {
        let scratch = tempfile::tempdir().unwrap();
        let (other, others) = run(scratch.path(), frequency, Halt::Never);
        assert!(other.error.is_none(), "{:?}", other.error);
        assert!(other.weights == whole.weights, "{frequency:?}");
        assert_eq!(others.outcome(), handle.outcome());
    }
}

#[test]
fn a_training_that_goes_well_is_the_same_as_without_a_guard() {
    let training = Training {
        loaders: Loaders::Resumable,
        ..Training::new(Backend::Flex)
    };
    let expected = crate::support::uninterrupted(&training);
    let guarded = whole(&training, SaveFreq::Steps(2));
    assert_eq!(guarded.rolled_back, 0);
    assert!(guarded.run.weights == expected.weights);
}

#[test]
fn a_sample_that_is_nan_in_each_epoch_is_skipped_as_often_as_is_allowed() {
    let training = training(Poison { epoch: None, ..NAN });
    let three = whole(&training, SaveFreq::Epoch);
    assert_eq!((three.rolled_back, three.run.steps), (3, 15));
    assert!(!has_nan(&three.run));
    for halt in [
        Halt::Fail(8),
        Halt::Stop(12),
        Halt::Stop(17),
        Halt::StopInValidation(3),
    ] {
        assert_same(&training, &three, SaveFreq::Steps(1), &[halt]);
    }

    let scratch = tempfile::tempdir().unwrap();
    let run = |at_most| {
        let divergence = Divergence::RollBack { at_most };
        let backup = backup(scratch.path(), divergence).save_freq(1);
        let handle = backup.handle();
        (training.run(backup, Halt::Never), handle)
    };
    // A second run gives the same result.
    for rolled_back in [2, 0] {
        let (stopped, handle) = run(2);
        let BackupError::Diverged {
            skipped, backup, ..
        } = stopped.backup_error()
        else {
            panic!("{:?}", stopped.error);
        };
        assert_eq!(skipped.len(), 2);
        assert!(backup.is_some());
        let text = stopped.backup_error().to_string();
        assert!(text.contains("it was rolled back 2 times before"), "{text}");
        assert_eq!(handle.stats().rolled_back, rolled_back);
        assert_eq!(handle.exit_code(), exit_code::FIX_FIRST);
    }
    let (last, _) = run(3);
    assert!(last.error.is_none(), "{:?}", last.error);
    assert!(last.weights == three.run.weights);
}

#[test]
fn it_can_be_stopped_at_once_and_continued_with_a_rollback() {
    let training = training(NAN);
    let expected = whole(&training, SaveFreq::Steps(2));
    let scratch = tempfile::tempdir().unwrap();
    let stopping = backup(scratch.path(), Divergence::Stop).save_freq(2);
    let handle = stopping.handle();
    let stopped = training.run(stopping, Halt::Never);
    let BackupError::Diverged { value, first, .. } = stopped.backup_error() else {
        panic!("{:?}", stopped.error);
    };
    assert!(value.is_nan());
    assert!(handle.last_backup().unwrap().global_step < *first);
    assert!(stopped.losses.len() < 18, "it ends at once");
    assert_eq!(handle.outcome(), Some(Outcome::Failed));

    let run = training.run(backup(scratch.path(), GO_BACK).save_freq(2), Halt::Never);
    assert!(run.error.is_none(), "{:?}", run.error);
    assert!(run.weights == expected.run.weights);
}

#[test]
fn impossible_settings_are_refused_at_the_launch() {
    let ours = training(NAN);
    let burns = Training {
        loaders: Loaders::Burns,
        ..ours.clone()
    };
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let plain = || Training::backup(&dir).on_divergence(GO_BACK);
    let seen = || backup(scratch.path(), GO_BACK);
    for (training, backup, expected) in [
        (&ours, plain(), "BackupAndRestore::artifacts"),
        (&burns, seen(), "Burn's data loader can't repeat its order"),
        (
            &ours,
            seen().save_freq(SaveFreq::Never),
            "RollBack with SaveFreq::Never is invalid",
        ),
        (
            &ours,
            seen().on_divergence(Divergence::RollBack { at_most: 0 }),
            "at_most } is invalid",
        ),
        (
            &ours,
            seen().divergence_rule(DivergenceRule::of("Loss").window(3)),
            "window is invalid",
        ),
        (
            &ours,
            seen().divergence_rule(DivergenceRule::of("Loss").deviations(f64::NAN)),
            "deviations is invalid",
        ),
        (
            &ours,
            seen().divergence_rule(DivergenceRule::of("Loss").patience(0)),
            "patience is invalid",
        ),
    ] {
        let refused = training.run(backup, Halt::Never);
        let text = refused.backup_error().to_string();
        assert!(text.contains(expected), "{text}");
        assert!(refused.losses.is_empty());
        assert_eq!(refused.backup_error().exit_code(), exit_code::FIX_FIRST);
    }
    // The names of metrics are known only after Burn has logged one.
    let unknown = seen().divergence_rule(DivergenceRule::of("Perplexity"));
    let ended = ours.run(unknown, Halt::Never);
    let text = ended.backup_error().to_string();
    assert!(
        text.contains("'Perplexity'") && text.contains("'Loss'"),
        "{text}"
    );
}

#[test]
fn whichever_call_fails_around_a_rollback_nothing_is_lost() {
    let training = training(NAN);
    let expected = whole(&training, SaveFreq::Epoch);
    let scratch = tempfile::tempdir().unwrap();
    let failing = |dir: &Path, failure: Failure, at: usize| {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let fails = failure.at(at);
        let filesystem = FaultyFilesystem::new(move |operation, _| {
            fails(counted.fetch_add(1, Ordering::Relaxed) + 1, operation)
        });
        let backup = backup(dir, GO_BACK)
            .save_freq(3)
            .filesystem(Arc::new(filesystem));
        (
            training.run(backup, Halt::Never),
            calls.load(Ordering::Relaxed),
        )
    };
    let (_, calls) = failing(&scratch.path().join("none"), Failure::Device, usize::MAX);
    for failure in [Failure::Device, Failure::Full, Failure::Dead] {
        for at in (1..=calls).step_by(3) {
            let scratch = tempfile::tempdir().unwrap();
            let (run, _) = failing(scratch.path(), failure, at);
            let run = match &run.error {
                None => run,
                // A new run, with a disk that works, resumes from any backup that exists.
                Some(_) => {
                    let backup = backup(scratch.path(), GO_BACK).save_freq(3);
                    training.run(backup, Halt::Never)
                }
            };
            assert!(run.error.is_none(), "{failure:?} at {at}: {:?}", run.error);
            assert!(run.weights == expected.run.weights, "{failure:?} at {at}");
        }
    }
}

/// Processes that abort in a filesystem call: before, during and after the rollback.
#[test]
fn aborted_in_any_call_around_a_rollback_the_next_process_ends_the_same() {
    let training = training(NAN);
    let expected = whole(&training, SaveFreq::Epoch);
    let expected = format!("{:?}", expected.run.weights);
    let told = ["ours@1", "logs@1", "rollback@7"];
    let mut aborted = 0;
    for at in (1..).step_by(4) {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("backup");
        let abort = format!("abort-in-call@{at}");
        let told_to_abort: Vec<_> = told.into_iter().chain([abort.as_str()]).collect();
        let status = run(&mut trainee(Backend::Flex, &dir, 3, &told_to_abort)).0;
        if status.success() {
            // The training has fewer calls.
            break;
        }
        assert_aborted(status);
        aborted += 1;
        let said = run_well(&mut trainee(Backend::Flex, &dir, 3, &told));
        assert_eq!(said.error, "", "aborted in call {at}");
        assert!(said.weights == expected, "aborted in call {at}");
    }
    assert!(aborted > 20, "{aborted}");
}

#[test]
fn the_best_epoch_is_the_same_whether_it_was_interrupted_or_not() {
    let training = training(NAN);
    let best = |halts: &[Halt]| {
        let scratch = tempfile::tempdir().unwrap();
        let mut handle = None;
        for halt in halts.iter().chain([&Halt::Never]) {
            let backup = backup(scratch.path(), GO_BACK)
                .save_freq(2)
                .keep(Keep::last(1).and(Keep::best("Loss", Direction::Lowest, 2)))
                .delete_checkpoint(false);
            handle = Some(backup.handle());
            let run = training.run(backup, *halt);
            let is_error = matches!(halt, Halt::Fail(_));
            assert_eq!(run.error.is_some(), is_error, "{:?}", run.error);
        }
        let model = scratch.path().join("best.bpk");
        let which = Which::best("Loss", Direction::Lowest);
        handle.unwrap().export(&which, &model).unwrap();
        let model = std::fs::read(model).unwrap();
        // The tensors by name, because the ids of parameters differ in each process.
        burn_backup_tests::named(Bytes::from_bytes_vec(model))
    };
    let whole = best(&[]);
    for halts in [
        &[Halt::Fail(8)][..],
        &[Halt::Fail(11)],
        &[Halt::Stop(14)],
        &[Halt::StopInValidation(4), Halt::Fail(3)],
    ] {
        assert!(best(halts) == whole, "{halts:?}");
    }
}

#[test]
fn a_loop_that_logs_no_values_gets_a_warning() {
    log_lines::listen();
    let scratch = tempfile::tempdir().unwrap();
    let backup = BackupAndRestore::new(scratch.path()).on_divergence(Divergence::Stop);
    let run = Loop::new(Backend::Flex).run(backup, LoopHalt::Never);
    assert_eq!(run.outcome, Some(Outcome::Finished));
    let warned = log_lines::logged(Level::Warn);
    let said: Vec<_> = warned
        .iter()
        .filter(|line| line.contains("no value of 'Loss' was logged"))
        .collect();
    assert_eq!(said.len(), 1, "{warned:?}");
}

#[test]
fn a_loop_without_a_rollback_is_ended() {
    let program = Loop {
        source: BatchSource::Steps,
        poison: Some(Poison {
            items: 1 << 5,
            ..NAN
        }),
        ..Loop::new(Backend::Flex)
    };
    let scratch = tempfile::tempdir().unwrap();
    let backup = BackupAndRestore::new(scratch.path())
        .save_freq(2)
        .on_divergence(Divergence::Stop);
    let handle = backup.handle();
    let run = program.run(backup, LoopHalt::Never);
    let error = run.error.unwrap();
    let text = error.to_string();
    assert!(text.contains("'Loss' is NaN, first at batch 5"), "{text}");
    assert_eq!(error.exit_code(), exit_code::FIX_FIRST);
    assert_eq!(handle.last_backup().map(|at| at.global_step), Some(4));
}

#[test]
fn a_rollback_is_reported() {
    let training = training(NAN);
    let scratch = tempfile::tempdir().unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    let backup = backup(scratch.path(), GO_BACK)
        .save_freq(4)
        .on_event(move |event: Event| heard.lock().unwrap().push(event));
    let run = training.run(backup, Halt::Never);
    assert!(run.error.is_none());
    let told = told.lock().unwrap();
    let rollbacks: Vec<_> = told
        .iter()
        .filter_map(|event| match event {
            Event::RolledBack {
                to,
                skipped,
                attempt,
                ..
            } => Some((to.global_step, skipped.clone(), *attempt)),
            _ => None,
        })
        .collect();
    let [(to, skipped, 1)] = rollbacks.as_slice() else {
        panic!("{told:?}");
    };
    let [batch] = skipped.as_slice() else {
        panic!("{skipped:?}");
    };
    assert!(to < batch && (7..=12).contains(batch), "{to}, {batch}");
}
