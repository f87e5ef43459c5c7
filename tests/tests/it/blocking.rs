//! Backups whose records are read on the training thread.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};
use burn::optim::AdamConfig;
use burn::train::Learner;
use burn_backup_restore::{
    BackupAndRestore, BackupError, BackupExt as _, OnBackupError, SaveFreq, Snapshot,
};
use burn_backup_tests::{Backend, Halt, Run, Training};
use test_fork::test;

use crate::support::{assert_exact, generations, saved_model, stopped_models, uninterrupted};

fn blocking(frequency: SaveFreq) -> impl Fn(BackupAndRestore) -> BackupAndRestore {
    move |backup| backup.save_freq(frequency).snapshot(Snapshot::Blocking)
}

#[test]
fn interrupted_at_any_batch_a_training_with_blocking_snapshots_ends_as_if_uninterrupted() {
    for &backend in Backend::ALL {
        let training = Training::new(backend);
        let expected = uninterrupted(&training);
        assert_exact(&training, &expected, blocking(SaveFreq::Steps(1)), &[]);
        let frequencies = match backend {
            Backend::Flex => &[SaveFreq::Epoch, SaveFreq::Steps(1), SaveFreq::Steps(4)][..],
            _ => &[SaveFreq::Steps(1)],
        };
        for &frequency in frequencies {
            for batch in 1..=18 {
                for halt in [Halt::Stop(batch), Halt::Fail(batch)] {
                    assert_exact(&training, &expected, blocking(frequency), &[halt]);
                }
            }
        }
    }
}

#[test]
fn interrupted_several_times_a_training_with_blocking_snapshots_ends_as_if_uninterrupted() {
    use Halt::{Fail, Stop, StopInValidation};

    for &backend in Backend::ALL {
        let training = Training::new(backend);
        let expected = uninterrupted(&training);
        for halts in [
            &[Stop(7), Fail(2), Stop(3)][..],
            &[Fail(8), Fail(2), Fail(1)],
            &[
                Stop(7),
                Stop(5),
                StopInValidation(1),
                StopInValidation(6),
                Stop(1),
            ],
        ] {
            for frequency in [SaveFreq::Steps(1), SaveFreq::Steps(4)] {
                assert_exact(&training, &expected, blocking(frequency), halts);
            }
        }
    }
}

#[test]
fn with_accumulated_gradients_and_blocking_snapshots_it_ends_as_if_uninterrupted() {
    let training = Training {
        accumulation: Some(4),
        ..Training::new(Backend::Flex)
    };
    let expected = uninterrupted(&training);
    for frequency in [SaveFreq::Steps(1), SaveFreq::Steps(5)] {
        for batch in 1..=18 {
            for halt in [Halt::Stop(batch), Halt::Fail(batch)] {
                assert_exact(&training, &expected, blocking(frequency), &[halt]);
            }
        }
    }
}

#[test]
fn each_backup_holds_the_model_and_its_running_statistics_of_that_very_batch() {
    for &backend in Backend::ALL {
        let training = Training::new(backend);
        let stopped = stopped_models(&training, 1..=5);
        for snapshot in [Snapshot::Blocking, Snapshot::Shared] {
            let scratch = tempfile::tempdir().unwrap();
            let backup = blocking(SaveFreq::Steps(1))(Training::backup(scratch.path()));
            let backup = backup.snapshot(snapshot).keep_last(usize::MAX);
            training.run(backup, Halt::Fail(6));
            assert_eq!(generations(scratch.path()).len(), 5);
            for (expected, generation) in stopped.iter().zip(1..) {
                assert!(expected.contains_key("norm.running_mean"));
                let saved = saved_model(scratch.path(), generation);
                for (name, tensor) in expected {
                    let is_same = saved.get(name) == Some(tensor);
                    assert!(is_same, "{name} in {generation}, {snapshot:?}");
                }
                assert_eq!(saved.len(), expected.len());
            }
            let means = (1..=5).map(|generation| {
                let mut model = saved_model(scratch.path(), generation);
                model.remove("norm.running_mean").unwrap()
            });
            let different: BTreeSet<_> = means.collect();
            assert_eq!(different.len(), 5, "they change with each batch");
        }
    }
}

/// A schedule that can't be read at some of the calls, counted from 1.
#[derive(Clone)]
struct Unreadable {
    steps: usize,
    reads: Arc<AtomicUsize>,
    panics: fn(usize) -> bool,
}

impl LrScheduler for Unreadable {
    fn step(&mut self) -> f64 {
        self.steps += 1;
        1e-2 / self.steps as f64
    }

    fn to_record(&self) -> LrSchedulerRecord {
        let read = self.reads.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(!(self.panics)(read), "the test has read {read} panic");
        LrSchedulerRecord::new().with_scalar("steps", self.steps)
    }

    fn load_record(&mut self, record: LrSchedulerRecord) {
        self.steps = record.scalar("steps").unwrap();
    }
}

fn run(backup: BackupAndRestore, halt: Halt, panics: fn(usize) -> bool) -> Run {
    Training::new(Backend::Flex).run_with_learner(
        halt,
        |training, hooks| {
            let schedule = ModuleLrScheduler::new(Unreadable {
                steps: 0,
                reads: Arc::default(),
                panics,
            });
            Learner::new(training.model(hooks), AdamConfig::new().init(), schedule)
        },
        |builder| builder.backup_and_restore(backup),
    )
}

#[test]
fn records_that_cannot_be_read_are_a_failed_backup_and_the_next_one_is_exact() {
    let scratch = tempfile::tempdir().unwrap();
    let expected = run(Training::backup(scratch.path()), Halt::Never, |_| false);
    assert!(expected.error.is_none());
    for snapshot in [Snapshot::Blocking, Snapshot::Shared] {
        let scratch = tempfile::tempdir().unwrap();
        let backup = || {
            let backup = Training::backup(scratch.path()).save_freq(1);
            backup.snapshot(snapshot)
        };
        // The records of the first backup are read twice, to check that they can be loaded. So the fifth read
        // is for the fourth backup, whose optimizer record is already being written.
        let first = backup();
        let handle = first.handle();
        let failed = run(first, Halt::Fail(6), |read| read == 5);
        assert_eq!(failed.losses.len(), 6, "the training goes on");
        let stats = handle.stats();
        assert_eq!((stats.committed, stats.failed), (4, 1), "{snapshot:?}");
        let error = handle.last_error().unwrap();
        assert!(matches!(*error, BackupError::Panicked { .. }), "{error}");
        assert!(error.to_string().contains("the test has read 5 panic"));
        assert_eq!(handle.last_backup().map(|at| at.global_step), Some(5));

        let next = backup();
        let handle = next.handle();
        let ended = run(next, Halt::Never, |_| false);
        assert_eq!(handle.restored_from().map(|at| at.global_step), Some(5));
        assert!(ended.weights == expected.weights, "{snapshot:?}");
        assert!(ended.records == expected.records, "{snapshot:?}");
    }
}

#[test]
fn records_that_cannot_be_read_end_the_training_if_a_failed_backup_is_to() {
    let scratch = tempfile::tempdir().unwrap();
    let backup = blocking(SaveFreq::Steps(1))(Training::backup(scratch.path()));
    let backup = backup.on_backup_error(OnBackupError::Stop);
    // The records of the first backup are read twice.
    let ended = run(backup, Halt::Never, |read| read == 5);
    let error = ended.backup_error().to_string();
    assert!(error.contains("the test has read 5 panic"), "{error}");
    assert_eq!(generations(scratch.path()), ["00000003"]);
}

#[test]
fn a_blocking_snapshot_with_nan_is_refused_and_the_last_good_one_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let training = Training {
        poisoned: Some((5, 6)),
        ..Training::new(Backend::Flex)
    };
    let backup = || blocking(SaveFreq::Steps(1))(Training::backup(scratch.path()));
    let first = backup();
    let handle = first.handle();
    training.run(first, Halt::Fail(7));
    let stats = handle.stats();
    assert_eq!((stats.committed, stats.refused, stats.failed), (4, 2, 2));
    let error = handle.last_error().unwrap();
    assert!(
        matches!(&*error, BackupError::ContainsNan { parameter, .. } if parameter == "steps"),
        "{error}"
    );
    assert_eq!(generations(scratch.path()), ["00000004"]);

    let mended = Training::new(Backend::Flex);
    let run = mended.run(backup(), Halt::Never);
    assert!(run.weights == uninterrupted(&mended).weights);
}
