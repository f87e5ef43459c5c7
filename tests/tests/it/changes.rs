//! Changes between two starts: refused with both values, or allowed and reported.

use std::sync::{Arc, Mutex};

use burn::lr_scheduler::constant::ConstantLr;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::lr_scheduler::step::StepLrSchedulerConfig;
use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};
use burn::optim::SgdConfig;
use burn::train::Learner;
use burn_backup_restore::{BackupAndRestore, BackupError, BackupExt as _, Change, Outcome};
use burn_backup_store::testing::seal;
use burn_backup_tests::{Backend, Halt, Hooks, Loaders, Run, Training};
use serde_json::{Deserializer, Map, Value};
use tempfile::TempDir;
use test_fork::test;

use crate::support::{contents, generations, stop_early, uninterrupted};

/// A backup taken after `batches` batches.
fn stopped_after(training: &Training, batches: usize) -> TempDir {
    let scratch = tempfile::tempdir().unwrap();
    let run = training.run(Training::backup(scratch.path()), Halt::Stop(batches));
    assert!(run.error.is_none());
    scratch
}

fn with_schedule(
    training: &Training,
    backup: BackupAndRestore,
    schedule: impl Into<ModuleLrScheduler>,
) -> Run {
    training.run_with_learner(
        Halt::Never,
        |training, hooks: Hooks| {
            Learner::new(training.model(hooks), (training.optimizer)(), schedule)
        },
        |builder| builder.backup_and_restore(backup),
    )
}

/// Asserts that the start is refused with both values and the name of the change. The backup stays as it is.
#[track_caller]
fn assert_refused(scratch: &TempDir, change: Change, says: &[&str], start: impl FnOnce() -> Run) {
    let before = contents(scratch.path());
    let run = start();
    assert_eq!(run.losses.len(), 0, "nothing is trained");
    let message = run.backup_error().to_string();
    let allow = format!("allow({change})");
    for part in says.iter().chain(&[allow.as_str(), "not touched"]) {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
    assert!(contents(scratch.path()) == before);
}

#[test]
fn another_schedule_is_refused_and_if_allowed_continues_from_the_current_step() {
    let training = Training::new(Backend::Flex);
    let other = || ModuleLrScheduler::new(ConstantLr::new(1e-3));
    let scratch = stopped_after(&training, 8);
    let backup = || Training::backup(scratch.path());
    assert_refused(
        &scratch,
        Change::Schedule,
        &[
            "the learning rate of optimizer step 1 was 0.0",
            "and is 0.001",
        ],
        || with_schedule(&training, backup(), other()),
    );

    let run = with_schedule(&training, backup().allow(Change::Schedule), other());
    assert!(run.error.is_none(), "{:?}", run.error);
    assert_eq!(run.losses.len(), 10);
}

#[test]
fn a_schedule_that_is_shorter_than_before_is_refused_by_its_length() {
    let training = Training::new(Backend::Flex);
    let steps = |size| {
        let config = StepLrSchedulerConfig::new(1e-2, size).with_gamma(0.5);
        config.init().unwrap()
    };
    let scratch = tempfile::tempdir().unwrap();
    let first = training.run_with_learner(
        Halt::Stop(4),
        |training, hooks| Learner::new(training.model(hooks), (training.optimizer)(), steps(1000)),
        |builder| builder.backup_and_restore(Training::backup(scratch.path())),
    );
    assert!(first.error.is_none());
    assert_refused(
        &scratch,
        Change::Schedule,
        &["optimizer step 512 was 0.01, and is 0.005"],
        || with_schedule(&training, Training::backup(scratch.path()), steps(500)),
    );
}

#[test]
fn a_schedule_that_is_allowed_to_change_steps_as_often_as_the_optimizer_has() {
    // Gradients of two batches are accumulated: 8 batches are 4 steps, one of them at the end of an epoch.
    let training = Training {
        accumulation: Some(2),
        ..Training::new(Backend::Flex)
    };
    let halves = || {
        let config = StepLrSchedulerConfig::new(1.0, 1).with_gamma(0.5);
        config.init().unwrap()
    };
    let scratch = stopped_after(&training, 8);
    let backup = Training::backup(scratch.path()).allow(Change::Schedule);
    let run = with_schedule(&training, backup, halves());
    assert!(run.error.is_none(), "{:?}", run.error);
    let rates = run.calls.iter().filter_map(|call| {
        let (_, logged) = call.strip_prefix("update_train ")?.split_once(" | ")?;
        // One of the logged values is the learning rate.
        [0.125, 0.0625]
            .into_iter()
            .find(|rate| logged == format!("{rate},1"))
    });
    let rates: Vec<_> = rates.collect();
    // The rate of the fourth step applies until the fifth step.
    assert_eq!(rates, [0.125, 0.0625, 0.0625], "{:?}", run.calls);
}

#[test]
fn another_accumulation_is_refused_and_can_be_allowed() {
    let training = Training::new(Backend::Flex);
    let other = Training {
        accumulation: Some(2),
        ..training.clone()
    };
    let scratch = stopped_after(&training, 6);
    let backup = || Training::backup(scratch.path());
    assert_refused(
        &scratch,
        Change::Accumulation,
        &["grads_accumulation was 1, and is 2 now"],
        || other.run(backup(), Halt::Never),
    );
    let run = other.run(backup().allow(Change::Accumulation), Halt::Stop(2));
    assert!(run.error.is_none(), "{:?}", run.error);
    // The backup contains the new accumulation from here on.
    let run = other.run(backup(), Halt::Never);
    assert!(run.error.is_none(), "{:?}", run.error);
}

#[test]
fn another_optimizer_can_be_allowed_and_begins_without_a_state() {
    let training = Training::new(Backend::Flex);
    let other = Training {
        optimizer: || SgdConfig::new().init(),
        ..training.clone()
    };
    let scratch = stopped_after(&training, 8);
    let backup = || Training::backup(scratch.path());
    let run = other.run(backup(), Halt::Never);
    assert!(matches!(
        run.backup_error(),
        BackupError::OptimizerMismatch { .. }
    ));
    let run = other.run(backup().allow(Change::Optimizer), Halt::Never);
    assert!(run.error.is_none(), "{:?}", run.error);
    assert_eq!(run.losses.len(), 10);
    assert_eq!(run.steps, 18, "the weights are restored");
}

#[test]
fn another_run_seed_can_be_allowed_and_stays() {
    let training = Training::new(Backend::Flex);
    let scratch = stopped_after(&training, 8);
    let backup = || BackupAndRestore::new(scratch.path()).dashboard(false);
    assert_refused(
        &scratch,
        Change::Seed,
        &["the run seed was 5, and is 6 now"],
        || training.run(backup().seed(6), Halt::Never),
    );
    let run = training.run(backup().seed(6).allow(Change::Seed), Halt::Stop(2));
    assert!(run.error.is_none(), "{:?}", run.error);
    assert_refused(
        &scratch,
        Change::Seed,
        &["the run seed was 6, and is 5 now"],
        || training.run(backup().seed(5), Halt::Never),
    );
    let run = training.run(backup().seed(6), Halt::Never);
    assert!(run.error.is_none(), "{:?}", run.error);
    assert!(run.weights != uninterrupted(&training).weights);
}

#[test]
fn another_label_is_refused_so_that_folds_do_not_mix() {
    let training = Training::new(Backend::Flex);
    let scratch = tempfile::tempdir().unwrap();
    let backup = || Training::backup(scratch.path());
    training.run(backup().label("fold 1"), Halt::Stop(3));
    assert_refused(
        &scratch,
        Change::Label,
        &["the label was \"fold 1\", and is \"fold 2\" now"],
        || training.run(backup().label("fold 2"), Halt::Never),
    );
    assert_refused(
        &scratch,
        Change::Label,
        &["the label was \"fold 1\", and is not given now"],
        || training.run(backup(), Halt::Never),
    );
    let run = training.run(backup().label("fold 1"), Halt::Never);
    assert!(run.weights == uninterrupted(&training).weights);
}

#[test]
fn a_batch_size_equal_to_the_short_batch_is_refused() {
    for (loaders, workers) in [
        (Loaders::Burns, 0),
        (Loaders::Resumable, 0),
        (Loaders::Resumable, 2),
        (Loaders::Burns, 2),
    ] {
        let training = Training {
            items: 20,
            batch_size: 8,
            loaders,
            workers,
            draws: false,
            ..Training::new(Backend::Flex)
        };
        let other = Training {
            batch_size: 4,
            ..training.clone()
        };
        for batches in [2, 3, 5] {
            let scratch = stopped_after(&training, batches);
            let learner = |_: &Training, hooks| training.learner(hooks);
            let backup = Training::backup(scratch.path());
            let run = other.run_with_learner(Halt::Never, learner, |builder| {
                builder.backup_and_restore(backup)
            });
            let error = run.backup_error();
            assert!(
                matches!(
                    error,
                    BackupError::DataMismatch {
                        change: Change::BatchSize,
                        ..
                    }
                ),
                "{loaders:?}, {workers}, {batches}: {error}"
            );
        }
    }
}

#[test]
fn another_batch_size_resumes_at_the_next_item_and_later_starts_need_no_allow() {
    let training = Training {
        loaders: Loaders::Resumable,
        ..Training::new(Backend::Flex)
    };
    let other = Training {
        batch_size: 3,
        ..training.clone()
    };
    // 8 of the second epoch's 22 items are trained, in two batches of 4.
    let scratch = stopped_after(&training, 8);
    let learner = |_: &Training, hooks| training.learner(hooks);
    let start = |backup: BackupAndRestore, halt| {
        other.run_with_learner(halt, learner, |builder| builder.backup_and_restore(backup))
    };
    let backup = || Training::backup(scratch.path());
    let run = start(backup().allow(Change::BatchSize), Halt::Stop(1));
    assert!(run.error.is_none(), "{:?}", run.error);
    let run = start(backup(), Halt::Stop(1));
    assert!(run.error.is_none(), "{:?}", run.error);
    let run = start(backup(), Halt::Never);
    assert!(run.error.is_none(), "{:?}", run.error);
    // 14 items are 5 batches of 3, and two of these are trained. Then comes an epoch of 8.
    assert_eq!(run.losses.len(), 3 + 8);
}

/// Runs the programs, which differ in their batch sizes, each until its halt. The last one runs to its end.
/// Returns the items of each epoch in the order in which they were trained.
fn trained_items(programs: &[(usize, Halt)]) -> Vec<Vec<usize>> {
    let trained = Arc::new(Mutex::new(Vec::new()));
    let scratch = tempfile::tempdir().unwrap();
    for (batch_size, halt) in programs {
        let training = Training {
            loaders: Loaders::Resumable,
            batch_size: *batch_size,
            draws: false,
            ..Training::new(Backend::Flex)
        };
        let into = trained.clone();
        let backup = Training::backup(scratch.path()).allow(Change::BatchSize);
        let run = training.run_with_learner(
            *halt,
            |training, hooks| {
                training.learner(hooks.on_input(move |batch| {
                    into.lock().unwrap().extend(batch.numbers());
                }))
            },
            |builder| builder.backup_and_restore(backup),
        );
        assert!(run.error.is_none(), "{programs:?}: {:?}", run.error);
    }
    assert!(!scratch.path().join("generations").exists());
    let trained = trained.lock().unwrap();
    trained.chunks(22).map(<[usize]>::to_vec).collect()
}

#[test]
fn with_another_batch_size_each_item_of_an_epoch_is_trained_exactly_once() {
    use Halt::{Never, Stop, StopInValidation};

    let uninterrupted = trained_items(&[(4, Never)]);
    for programs in [
        &[(4, Stop(8)), (3, Never)][..],
        &[(4, Stop(8)), (3, Stop(1)), (3, Stop(2)), (3, Never)],
        // Stops up to the end of the epoch, and in its validation.
        &[(4, Stop(8)), (3, Stop(5)), (3, Stop(1)), (3, Never)],
        &[
            (4, Stop(11)),
            (5, StopInValidation(2)),
            (5, Stop(1)),
            (5, Never),
        ],
        // The batch size changes again and again.
        &[(4, Stop(8)), (3, Stop(2)), (5, Stop(1)), (2, Never)],
        &[(4, Stop(1)), (3, Stop(1)), (4, Stop(1)), (3, Never)],
        &[(4, Stop(8)), (3, Stop(1)), (5, Stop(6)), (4, Never)],
    ] {
        let trained = trained_items(programs);
        // The items are in the order of the epoch, whatever the batch sizes.
        assert_eq!(trained, uninterrupted, "{programs:?}");
        for epoch in trained {
            let mut items = epoch;
            items.sort();
            assert!(items.into_iter().eq(0..22), "{programs:?}");
        }
    }
}

#[test]
fn after_the_epoch_in_which_the_batch_size_changed_a_start_needs_no_allow() {
    let of = |batch_size| Training {
        loaders: Loaders::Resumable,
        batch_size,
        ..Training::new(Backend::Flex)
    };
    let scratch = stopped_after(&of(4), 8);
    let backup = || Training::backup(scratch.path());
    // The second epoch ends after 5 batches, and is backed up.
    let failed = of(3).run(backup().allow(Change::BatchSize), Halt::Fail(6));
    assert!(failed.error.is_some());
    let next = backup();
    let handle = next.handle();
    let run = of(3).run(next, Halt::Never);
    assert!(run.error.is_none(), "{:?}", run.error);
    assert_eq!(handle.restored_from().unwrap().epoch, 3);
    assert_eq!(run.losses.len(), 8);
}

#[test]
fn a_second_change_of_the_batch_size_in_the_same_epoch_is_refused_like_the_first() {
    let of = |batch_size| Training {
        loaders: Loaders::Resumable,
        batch_size,
        ..Training::new(Backend::Flex)
    };
    let scratch = stopped_after(&of(4), 8);
    let backup = || Training::backup(scratch.path());
    let run = of(3).run(backup().allow(Change::BatchSize), Halt::Stop(2));
    assert!(run.error.is_none(), "{:?}", run.error);
    assert_refused(
        &scratch,
        Change::BatchSize,
        &["the batches trained so far was 14, and is 18 now"],
        || of(5).run(backup(), Halt::Never),
    );
    let other = Training { items: 26, ..of(3) };
    assert_refused(
        &scratch,
        Change::Data,
        &["the number of items in an epoch was 22, and is 26 now"],
        || other.run(backup(), Halt::Never),
    );
}

#[test]
fn where_the_loader_cannot_skip_items_the_epoch_restarts() {
    let training = Training::new(Backend::Flex);
    let other = Training {
        batch_size: 3,
        ..training.clone()
    };
    let scratch = stopped_after(&training, 8);
    let backup = Training::backup(scratch.path()).allow(Change::BatchSize);
    let learner = |_: &Training, hooks| training.learner(hooks);
    let run = other.run_with_learner(Halt::Never, learner, |builder| {
        builder.backup_and_restore(backup)
    });
    assert!(run.error.is_none(), "{:?}", run.error);
    assert_eq!(run.losses.len(), 8 + 8);
}

#[test]
fn other_data_can_be_allowed() {
    for batches in [6, 8] {
        let training = Training {
            loaders: Loaders::Resumable,
            ..Training::new(Backend::Flex)
        };
        let other = Training {
            items: 26,
            ..training.clone()
        };
        let scratch = stopped_after(&training, batches);
        let learner = |_: &Training, hooks| training.learner(hooks);
        let start = |backup| {
            other.run_with_learner(Halt::Never, learner, |builder| {
                builder.backup_and_restore(backup)
            })
        };
        let backup = || Training::backup(scratch.path());
        assert_refused(
            &scratch,
            Change::Data,
            &["the number of items in an epoch was 22, and is 26 now"],
            || start(backup()),
        );
        let run = start(backup().allow(Change::Data));
        assert!(run.error.is_none(), "{:?}", run.error);
        // 18 items remain after the first 8, then an epoch of 26; or both epochs are trained.
        assert_eq!(run.losses.len(), if batches == 8 { 5 + 7 } else { 7 + 7 });
    }
}

#[test]
fn a_training_that_was_stopped_early_continues_exactly_without_its_strategy() {
    let training = Training {
        epochs: 6,
        ..Training::new(Backend::Flex)
    };
    let expected = uninterrupted(&training);
    let scratch = tempfile::tempdir().unwrap();
    let backup = || Training::backup(scratch.path()).delete_checkpoint(false);
    let early = training.run_with(Halt::Never, |builder| {
        stop_early(builder).backup_and_restore(backup())
    });
    assert!(early.error.is_none());
    assert!(early.losses.len() < 36, "it was stopped early");
    // The same strategy makes the same decision.
    let handle = backup().handle();
    let again = training.run_with(Halt::Never, |builder| {
        stop_early(builder).backup_and_restore(backup())
    });
    assert_eq!(again.losses.len(), 0);
    assert!(again.weights == early.weights);
    assert_ne!(handle.outcome(), Some(Outcome::Refused));
    // Without the strategy, the training continues.
    let run = training.run(backup(), Halt::Never);
    assert_eq!(early.losses.len() + run.losses.len(), 36);
    assert!(run.weights == expected.weights);
}

#[test]
fn a_new_training_begins_with_the_weights_of_another_ones_backup() {
    let first = tempfile::tempdir().unwrap();
    let training = Training::new(Backend::Flex);
    let kept = Training::backup(first.path()).delete_checkpoint(false);
    let trained = training.run(kept, Halt::Never);
    let before = contents(first.path());

    let second = tempfile::tempdir().unwrap();
    let backup = || Training::backup(second.path()).warm_start(first.path());
    let resting = || ModuleLrScheduler::new(ConstantLr::new(f64::MIN_POSITIVE));
    let run = with_schedule(
        &Training {
            epochs: 1,
            ..training.clone()
        },
        backup(),
        resting(),
    );
    assert!(run.error.is_none(), "{:?}", run.error);
    assert_eq!(run.losses.len(), 6, "its own epochs");
    let weight = "output.weight";
    assert!(run.weights[weight] == trained.weights[weight]);
    assert!(
        contents(first.path()) == before,
        "the other one's backup stays"
    );

    let missing = Training::backup(second.path()).warm_start(second.path().join("none"));
    let run = training.run(missing, Halt::Never);
    assert!(matches!(
        run.backup_error(),
        BackupError::NoWarmStart { .. }
    ));
    let other = Training {
        hidden: 9,
        ..training
    };
    let run = other.run(backup(), Halt::Never);
    assert!(matches!(
        run.backup_error(),
        BackupError::ModelMismatch { .. }
    ));
}

#[test]
fn a_shorter_cosine_is_another_schedule() {
    let training = Training::new(Backend::Flex);
    let scratch = stopped_after(&training, 8);
    let shorter = CosineAnnealingLrSchedulerConfig::new(1e-2, 17);
    let run = with_schedule(
        &training,
        Training::backup(scratch.path()),
        shorter.init().unwrap(),
    );
    assert!(matches!(
        run.backup_error(),
        BackupError::ConfigurationMismatch { .. }
    ));
}

/// A schedule that is made for 18 steps, and panics beyond them.
#[derive(Clone)]
struct Listed {
    step: usize,
}

impl LrScheduler for Listed {
    fn step(&mut self) -> f64 {
        self.step += 1;
        assert!(self.step <= 18, "there is no rate for step {}", self.step);
        1e-2 / self.step as f64
    }

    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new()
    }

    fn load_record(&mut self, _record: LrSchedulerRecord) {}
}

#[test]
fn a_schedule_that_panics_beyond_its_end_is_compared_up_to_there() {
    let training = Training::new(Backend::Flex);
    let scratch = tempfile::tempdir().unwrap();
    let listed = || ModuleLrScheduler::new(Listed { step: 0 });
    let run = with_schedule(&training, Training::backup(scratch.path()), listed());
    assert!(run.error.is_none(), "{:?}", run.error);
    assert_eq!(run.losses.len(), 18);
}

#[test]
fn a_backup_of_another_version_of_burn_is_refused_and_can_be_allowed() {
    let training = Training::new(Backend::Flex);
    let scratch = stopped_after(&training, 8);
    let generation = generations(scratch.path()).pop().unwrap();
    let manifest = scratch.path().join("generations").join(generation);
    let manifest = manifest.join("manifest.json");
    let sealed = std::fs::read_to_string(&manifest).unwrap();
    // The seal is on the last line.
    let mut document: Map<String, Value> = Deserializer::from_str(&sealed)
        .into_iter()
        .next()
        .unwrap()
        .unwrap();
    document["state"]["burn"] = "0.21".into();
    std::fs::write(&manifest, seal(&document).unwrap()).unwrap();

    let backup = || Training::backup(scratch.path());
    assert_refused(
        &scratch,
        Change::BurnVersion,
        &["the version of Burn was 0.21, and is 0.22 now"],
        || training.run(backup(), Halt::Never),
    );
    let run = training.run(backup().allow(Change::BurnVersion), Halt::Never);
    assert!(run.weights == uninterrupted(&training).weights);
}
