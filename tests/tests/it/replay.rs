//! Datasets and batchers with a state of their own: exact if everything is loaded again.

use burn_backup_restore::{BackupAndRestore, BackupError, FastForward, SaveFreq};
use burn_backup_tests::{Halt, Loaders, Spread, Training};
use test_fork::test;

use crate::support::{assert_exact, assert_exact_in_turn, contents, uninterrupted};

/// Burn's loaders without workers, with a part that remembers its previous output.
const WITH_STATE: [Loaders; 2] = [
    Loaders::BurnsWithBurnsSampler,
    Loaders::BurnsWithOwnGenerator,
];

fn training(loaders: Loaders, spread: Spread) -> Training {
    Training {
        loaders,
        ..Training::spread(spread)
    }
}

#[test]
fn interrupted_anywhere_it_ends_as_if_uninterrupted_when_it_is_loaded_again() {
    use Halt::{Fail, FailInValidation, Stop, StopInValidation};

    for loaders in WITH_STATE {
        for spread in [Spread::One, Spread::Main(2), Spread::Sharded(2)] {
            let training = training(loaders, spread);
            let expected = uninterrupted(&training);
            let devices = spread.devices();
            let exact = |frequency: SaveFreq, halts: &[Halt]| {
                let replay = FastForward::Replay;
                let configure = |b: BackupAndRestore| b.save_freq(frequency).fast_forward(replay);
                assert_exact(&training, &expected, configure, halts);
            };
            for step in 1..=expected.steps {
                exact(SaveFreq::Epoch, &[Stop(step * devices)]);
                exact(SaveFreq::Steps(1), &[Fail(step * devices)]);
                // The restart resumes between epochs.
                exact(SaveFreq::Epoch, &[Fail(step * devices)]);
            }
            for batch in [1, 6, 7, 18] {
                exact(SaveFreq::Steps(1), &[StopInValidation(batch)]);
                // The last backup is of the epoch's last batch.
                exact(SaveFreq::Steps(1), &[FailInValidation(batch)]);
            }
            let twice = [Stop(2 * devices), Stop(2 * devices)];
            exact(SaveFreq::Epoch, &twice);
            exact(SaveFreq::Epoch, &[StopInValidation(2), Stop(devices)]);
        }
    }
}

#[test]
fn without_replay_the_result_differs() {
    for loaders in WITH_STATE {
        for spread in [Spread::One, Spread::Main(2)] {
            let training = training(loaders, spread);
            let expected = uninterrupted(&training);
            let scratch = tempfile::tempdir().unwrap();
            let backup = || Training::backup(scratch.path());
            // In the second epoch, the random numbers that a validation has drawn are missing.
            let stopped = training.run(backup(), Halt::Stop(8));
            assert!(stopped.error.is_none(), "{:?}", stopped.error);
            let run = training.run(backup(), Halt::Never);
            assert!(run.error.is_none(), "{:?}", run.error);
            assert!(run.weights != expected.weights, "{loaders:?}, {spread:?}");
        }
    }
}

#[test]
fn under_ddp_it_is_refused_and_the_backup_stays() {
    for spread in [Spread::Ddp(1), Spread::Ddp(2)] {
        let training = training(Loaders::BurnsWithBurnsSampler, spread);
        let scratch = tempfile::tempdir().unwrap();
        let backup = || Training::backup(scratch.path());
        let stopped = training.run(backup(), Halt::Stop(2));
        assert!(stopped.interrupted.is_some());
        let before = contents(scratch.path());
        let refused = training.run(backup().fast_forward(FastForward::Replay), Halt::Never);
        let error = refused.backup_error();
        assert!(matches!(error, BackupError::ReplayUnderDdp), "{error}");
        assert_eq!(refused.losses.len(), 0);
        assert!(contents(scratch.path()) == before);
    }
}

#[test]
fn samples_of_our_sampler_need_no_loading_again_whatever_the_workers() {
    for spread in [Spread::One, Spread::Main(2)] {
        let with = |workers| Training {
            workers,
            ..training(Loaders::ResumableWithSampler, spread)
        };
        let expected = uninterrupted(&with(0));
        let programs = [2, 0, 1].map(with);
        for step in 1..=expected.steps {
            let devices = spread.devices();
            for halt in [Halt::Stop(step * devices), Halt::Fail(step * devices)] {
                assert_exact_in_turn(&programs, &expected, |b| b.save_freq(2), &[halt]);
            }
        }
        for batch in [1, 7] {
            let halts = [Halt::StopInValidation(batch), Halt::Stop(2)];
            assert_exact_in_turn(&programs, &expected, |b| b.save_freq(2), &halts);
        }
    }
    // The sampler makes a difference: without it, the items are others.
    let plain = uninterrupted(&training(Loaders::Resumable, Spread::One));
    let sampled = uninterrupted(&training(Loaders::ResumableWithSampler, Spread::One));
    assert!(plain.weights != sampled.weights);
}
