//! The oracle: train uninterrupted, train with interruptions, compare byte for byte.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use burn::backend::ExecutionError;
use burn::tensor::TensorReadError;
use burn::train::metric::{Metric, MetricMetadata, MetricName, SerializedEntry};
use burn_backup_restore::{BackupExt as _, SaveFreq};
use burn_backup_tests::{Backend, Halt, Training};
use test_fork::test;

use crate::support::{assert_exact, uninterrupted};

const FREQUENCIES: [SaveFreq; 4] = [
    SaveFreq::Epoch,
    SaveFreq::Steps(1),
    SaveFreq::Steps(3),
    // Six batches make an epoch.
    SaveFreq::Steps(4),
];

#[test]
fn how_often_backups_are_taken_does_not_change_the_training() {
    for &backend in Backend::ALL {
        let training = Training::new(backend);
        let expected = uninterrupted(&training);
        assert_eq!(expected.steps, 18);
        for frequency in FREQUENCIES.into_iter().chain([SaveFreq::Never]) {
            assert_exact(&training, &expected, |b| b.save_freq(frequency), &[]);
        }
    }
}

#[test]
fn stopped_at_any_batch_it_ends_as_if_uninterrupted() {
    for &backend in Backend::ALL {
        let training = Training::new(backend);
        let expected = uninterrupted(&training);
        for frequency in FREQUENCIES {
            for batch in 1..=18 {
                let halts = [Halt::Stop(batch)];
                assert_exact(&training, &expected, |b| b.save_freq(frequency), &halts);
            }
        }
    }
}

#[test]
fn failed_at_any_batch_it_ends_as_if_uninterrupted() {
    for &backend in Backend::ALL {
        let training = Training::new(backend);
        let expected = uninterrupted(&training);
        for frequency in FREQUENCIES {
            for batch in 1..=18 {
                let halts = [Halt::Fail(batch)];
                assert_exact(&training, &expected, |b| b.save_freq(frequency), &halts);
            }
        }
    }
}

#[test]
fn stopped_in_any_validation_batch_it_ends_as_if_uninterrupted() {
    for &backend in Backend::ALL {
        let training = Training::new(backend);
        let expected = uninterrupted(&training);
        for frequency in [SaveFreq::Epoch, SaveFreq::Steps(4), SaveFreq::Never] {
            for batch in 1..=18 {
                let halts = [Halt::StopInValidation(batch)];
                assert_exact(&training, &expected, |b| b.save_freq(frequency), &halts);
            }
        }
    }
}

#[test]
fn interrupted_several_times_within_one_epoch_it_ends_as_if_uninterrupted() {
    use Halt::{Fail, Stop, StopInValidation};

    for &backend in Backend::ALL {
        let training = Training::new(backend);
        let expected = uninterrupted(&training);
        for halts in [
            &[Stop(8), Stop(2)][..],
            &[Stop(7), Stop(2), Stop(1)],
            &[Stop(7), Fail(2), Stop(3)],
            &[Fail(8), Fail(2), Fail(1)],
            // The whole epoch, batch by batch, its validation twice, and the first batch of the next epoch.
            &[
                Stop(7),
                Stop(1),
                Stop(1),
                Stop(1),
                Stop(1),
                Stop(1),
                StopInValidation(1),
                StopInValidation(6),
                Stop(1),
            ],
        ] {
            for frequency in [SaveFreq::Steps(1), SaveFreq::Steps(4)] {
                assert_exact(&training, &expected, |b| b.save_freq(frequency), halts);
            }
        }
    }
}

#[test]
fn with_a_loader_that_does_not_tell_how_far_it_is_it_ends_as_if_uninterrupted() {
    let training = Training {
        silent_loader: true,
        ..Training::new(Backend::Flex)
    };
    let expected = uninterrupted(&training);
    for batch in 1..=18 {
        assert_exact(&training, &expected, |b| b, &[Halt::Stop(batch)]);
    }
}

#[test]
fn after_a_panic_in_a_batch_the_next_run_ends_as_if_uninterrupted() {
    for &backend in Backend::ALL {
        let training = Training::new(backend);
        let expected = uninterrupted(&training);
        for batch in [1, 2, 8, 18] {
            let scratch = tempfile::tempdir().unwrap();
            let backup = || Training::backup(scratch.path()).save_freq(1);
            let first = backup();
            let handle = first.handle();
            catch_unwind(AssertUnwindSafe(|| training.run(first, Halt::Panic(batch))))
                .err()
                .unwrap();
            // The backup that was in flight at the panic is complete by now.
            let trained = handle.last_backup().map_or(0, |at| at.global_step);
            assert_eq!(trained, batch as u64 - 1);

            let run = training.run(backup(), Halt::Never);
            assert!(run.error.is_none(), "{:?}", run.error);
            assert_eq!(run.losses.len(), 19 - batch);
            assert!(run.weights == expected.weights);
        }
    }
}

#[test]
fn after_a_metrics_error_the_next_run_ends_as_if_uninterrupted() {
    let training = Training::new(Backend::Flex);
    let scratch = tempfile::tempdir().unwrap();
    let failed = training.run_with(Halt::Never, |builder| {
        builder
            .metric_train(Unreadable::default())
            .backup_and_restore(Training::backup(scratch.path()).save_freq(1))
    });
    assert!(failed.error.is_some());
    assert!(failed.losses.len() < 18, "the error ends the training");

    let backup = Training::backup(scratch.path());
    let handle = backup.handle();
    let run = training.run(backup, Halt::Never);
    assert!(handle.restored_from().is_some());
    assert!(run.weights == uninterrupted(&training).weights);
}

/// A metric that can't be read from its eighth update on.
#[derive(Clone, Default)]
struct Unreadable {
    updates: usize,
}

impl Metric for Unreadable {
    type Input = ();

    fn name(&self) -> MetricName {
        Arc::new("Unreadable".to_owned())
    }

    fn update(
        &mut self,
        _item: &(),
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        self.updates += 1;
        if self.updates >= 8 {
            return Err(ExecutionError::with_context("the test has it fail").into());
        }
        self.compute()
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(SerializedEntry::new("read".to_owned(), "read".to_owned()))
    }

    fn clear(&mut self) {}
}

#[test]
fn with_accumulated_gradients_it_ends_as_if_uninterrupted() {
    for &backend in Backend::ALL {
        // Three divides the six batches of an epoch, and four does not.
        for accumulation in [3, 4] {
            let training = Training {
                accumulation: Some(accumulation),
                ..Training::new(backend)
            };
            let expected = uninterrupted(&training);
            for frequency in [SaveFreq::Epoch, SaveFreq::Steps(1), SaveFreq::Steps(5)] {
                for batch in 1..=18 {
                    for halt in [Halt::Stop(batch), Halt::Fail(batch)] {
                        assert_exact(&training, &expected, |b| b.save_freq(frequency), &[halt]);
                    }
                }
            }
        }
    }
}

#[test]
fn how_often_backups_are_taken_changes_nothing_for_a_model_that_reads_a_running_statistic() {
    let training = Training {
        reads_statistics: true,
        ..Training::new(Backend::Flex)
    };
    let expected = uninterrupted(&training);
    for frequency in [SaveFreq::Steps(1), SaveFreq::Steps(4), SaveFreq::Never] {
        let scratch = tempfile::tempdir().unwrap();
        let backup = Training::backup(scratch.path()).save_freq(frequency);
        let run = training.run(backup, Halt::Never);
        assert!(run.weights == expected.weights, "{frequency:?}");
        assert!(run.losses == expected.losses, "{frequency:?}");
    }
    for batch in [1, 4, 6, 11] {
        let halts = [Halt::Stop(batch)];
        assert_exact(&training, &expected, |backup| backup.save_freq(3), &halts);
    }
}
