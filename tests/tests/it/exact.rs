//! The oracle: train undisturbed, train with interruptions, compare byte for byte.

use std::collections::BTreeMap;

use burn_backup_restore::{BackupAndRestore, SaveFreq};
use burn_backup_tests::{Backend, Halt, Run, Training};

const FREQUENCIES: [SaveFreq; 4] = [
    SaveFreq::Epoch,
    SaveFreq::Steps(1),
    SaveFreq::Steps(3),
    // Six batches make an epoch.
    SaveFreq::Steps(4),
];

pub fn undisturbed(training: &Training) -> Run {
    let scratch = tempfile::tempdir().unwrap();
    let run = training.run(Training::backup(scratch.path().join("backup")), Halt::Never);
    assert!(run.error.is_none() && run.interrupted.is_none());
    run
}

/// Interrupts the training by each of `halts` in turn, then lets it end, and compares all that it
/// leaves with the `undisturbed` run.
#[track_caller]
pub fn assert_exact(
    training: &Training,
    undisturbed: &Run,
    configure: impl Fn(BackupAndRestore) -> BackupAndRestore,
    halts: &[Halt],
) {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let mut losses = BTreeMap::new();
    let mut run_once = |halt| {
        let backup = configure(Training::backup(&dir));
        let handle = backup.handle();
        let run = training.run(backup, halt);
        let trained_before = handle.restored_from().map_or(0, |at| at.global_step);
        for (batch, loss) in (trained_before..).zip(&run.losses) {
            // A batch that is trained again, because its work was lost, goes the same way again.
            let first_time = losses.insert(batch, loss.clone());
            assert!(
                first_time.is_none_or(|first| first == *loss),
                "batch {batch} in {halts:?}"
            );
        }
        run
    };

    for halt in halts {
        let run = run_once(*halt);
        let is_error = matches!(halt, Halt::Fail(_));
        assert_eq!(run.error.is_some(), is_error, "{halt:?} in {halts:?}");
        assert_eq!(run.interrupted.is_none(), is_error, "{halt:?} in {halts:?}");
        assert!(dir.join("generations").exists(), "{halt:?} in {halts:?}");
    }
    let run = run_once(Halt::Never);
    assert!(run.error.is_none(), "{:?}", run.error);
    assert!(run.interrupted.is_none());
    assert!(
        run.weights == undisturbed.weights,
        "weights after {halts:?}"
    );
    assert!(
        run.records == undisturbed.records,
        "records after {halts:?}"
    );
    let losses: Vec<_> = losses.into_values().collect();
    assert!(losses == undisturbed.losses, "losses after {halts:?}");
    assert!(!dir.exists(), "deleted after success");
}

#[test]
fn how_often_backups_are_taken_does_not_change_the_training() {
    for &backend in Backend::ALL {
        let training = Training::new(backend);
        let expected = undisturbed(&training);
        assert_eq!(expected.steps, 18);
        for frequency in FREQUENCIES.into_iter().chain([SaveFreq::Never]) {
            assert_exact(&training, &expected, |b| b.save_freq(frequency), &[]);
        }
    }
}

#[test]
fn stopped_at_any_batch_it_ends_as_if_undisturbed() {
    for &backend in Backend::ALL {
        let training = Training::new(backend);
        let expected = undisturbed(&training);
        for frequency in FREQUENCIES {
            for batch in 1..=18 {
                let halts = [Halt::Stop(batch)];
                assert_exact(&training, &expected, |b| b.save_freq(frequency), &halts);
            }
        }
    }
}

#[test]
fn failed_at_any_batch_it_ends_as_if_undisturbed() {
    for &backend in Backend::ALL {
        let training = Training::new(backend);
        let expected = undisturbed(&training);
        for frequency in FREQUENCIES {
            for batch in 1..=18 {
                let halts = [Halt::Fail(batch)];
                assert_exact(&training, &expected, |b| b.save_freq(frequency), &halts);
            }
        }
    }
}

#[test]
fn stopped_in_any_validation_batch_it_ends_as_if_undisturbed() {
    for &backend in Backend::ALL {
        let training = Training::new(backend);
        let expected = undisturbed(&training);
        for frequency in [SaveFreq::Epoch, SaveFreq::Steps(4), SaveFreq::Never] {
            for batch in 1..=18 {
                let halts = [Halt::StopInValidation(batch)];
                assert_exact(&training, &expected, |b| b.save_freq(frequency), &halts);
            }
        }
    }
}

#[test]
fn interrupted_several_times_within_one_epoch_it_ends_as_if_undisturbed() {
    use Halt::{Fail, Stop, StopInValidation};

    for &backend in Backend::ALL {
        let training = Training::new(backend);
        let expected = undisturbed(&training);
        for halts in [
            &[Stop(8), Stop(2)][..],
            &[Stop(7), Stop(2), Stop(1)],
            &[Stop(7), Fail(2), Stop(3)],
            &[Fail(8), Fail(2), Fail(1)],
            // The whole epoch, batch by batch, its validation twice, and the next epoch's first.
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
fn with_accumulated_gradients_it_ends_as_if_undisturbed() {
    for &backend in Backend::ALL {
        // Three divides the six batches of an epoch, four doesn't.
        for accumulation in [3, 4] {
            let training = Training {
                accumulation: Some(accumulation),
                ..Training::new(backend)
            };
            let expected = undisturbed(&training);
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
