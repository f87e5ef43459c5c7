//! The oracle: train undisturbed, train with interruptions, compare byte for byte.

use burn_backup_restore::SaveFreq;
use burn_backup_tests::{Backend, Halt, Training};

use crate::support::{assert_exact, undisturbed};

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
