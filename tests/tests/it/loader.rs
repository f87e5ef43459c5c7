//! The loader that can resume anywhere: the oracle with any number of workers.

use burn_backup_restore::SaveFreq;
use burn_backup_tests::{Backend, Halt, Loaders, Spread, Training};
use test_fork::test;

use crate::support::{assert_exact, assert_exact_in_turn, uninterrupted};

const WORKERS: [usize; 4] = [0, 1, 2, 4];

/// A training whose batcher draws noise.
fn training(workers: usize) -> Training {
    Training {
        loaders: Loaders::Resumable,
        workers,
        ..Training::new(Backend::Flex)
    }
}

#[test]
fn interrupted_anywhere_it_ends_as_if_uninterrupted_whatever_the_number_of_workers() {
    let expected = uninterrupted(&training(0));
    for workers in WORKERS {
        let training = training(workers);
        let same = uninterrupted(&training);
        assert!(same.weights == expected.weights, "{workers} workers");
        assert!(same.losses == expected.losses, "{workers} workers");
        for batch in 1..=18 {
            for halt in [Halt::Stop(batch), Halt::Fail(batch)] {
                assert_exact(&training, &expected, |b| b.save_freq(4), &[halt]);
            }
        }
        for batch in [1, 6, 8, 18] {
            let halts = [Halt::StopInValidation(batch)];
            assert_exact(&training, &expected, |b| b.save_freq(4), &halts);
        }
    }
}

#[test]
fn resumed_with_another_number_of_workers_it_ends_as_if_uninterrupted() {
    use Halt::{Fail, Stop, StopInValidation};

    let expected = uninterrupted(&training(0));
    for workers in [[0, 4, 1], [2, 1, 0], [1, 0, 2], [4, 2, 4]] {
        let programs = workers.map(training);
        for halts in [
            &[Stop(1)][..],
            &[Fail(5)],
            &[Stop(8), Stop(2), Stop(1), Stop(1)],
            &[Stop(7), Fail(3), StopInValidation(2)],
        ] {
            for frequency in [SaveFreq::Epoch, SaveFreq::Steps(1)] {
                assert_exact_in_turn(&programs, &expected, |b| b.save_freq(frequency), halts);
            }
        }
    }
}

#[test]
fn a_batcher_that_draws_nothing_may_be_left_to_the_workers() {
    let quiet = |workers| Training {
        draws: false,
        ..training(workers)
    };
    let expected = uninterrupted(&quiet(0));
    let programs = [4, 2, 1].map(quiet);
    for batch in [1, 3, 6, 7, 11, 18] {
        let halts = [Halt::Stop(batch), Halt::Stop(2)];
        let halts = &halts[..1 + usize::from(batch < 17)];
        assert_exact_in_turn(&programs, &expected, |b| b.save_freq(1), halts);
    }
}

#[test]
fn on_several_devices_it_ends_as_if_uninterrupted() {
    for spread in [
        Spread::Main(2),
        Spread::Sharded(2),
        Spread::Main(3),
        Spread::Ddp(2),
    ] {
        let training = |workers| Training {
            spread,
            // `Training::spread` says why.
            draws: !matches!(spread, Spread::Ddp(_)),
            norm: spread.devices() <= 2,
            ..training(workers)
        };
        let expected = uninterrupted(&training(0));
        let programs = [2, 0, 1].map(training);
        let devices = spread.devices();
        for step in 1..=expected.steps {
            let halts = [Halt::Stop(step * devices)];
            assert_exact_in_turn(&programs, &expected, |b| b.save_freq(2), &halts);
            let halts = [Halt::Fail(step * devices)];
            assert_exact_in_turn(&programs, &expected, |b| b.save_freq(1), &halts);
        }
    }
}

#[test]
fn an_item_that_cannot_be_read_ends_the_training_with_its_error_and_the_backup_stays() {
    for workers in WORKERS {
        let whole = training(workers);
        let broken = Training {
            broken_item: Some(13),
            ..whole.clone()
        };
        let scratch = tempfile::tempdir().unwrap();
        let backup = || Training::backup(scratch.path()).save_freq(1);
        // The first epoch succeeds.
        assert!(whole.run(backup(), Halt::Stop(6)).error.is_none());
        let first = backup();
        let handle = first.handle();
        let run = broken.run(first, Halt::Never);
        let error = run.error.unwrap().to_string();
        assert!(error.starts_with("Dataset error"), "{error}");
        assert!(error.contains("this item is broken"), "{error}");
        assert!(run.losses.len() < 6, "in the second epoch");
        let trained = 6 + run.losses.len() as u64;
        let last = handle.last_backup().or(handle.restored_from());
        assert_eq!(last.unwrap().global_step, trained);

        let run = whole.run(backup(), Halt::Never);
        assert!(run.error.is_none(), "{:?}", run.error);
        assert_eq!(run.losses.len() as u64, 18 - trained);
        assert!(run.weights == uninterrupted(&whole).weights);
    }
}

#[test]
fn other_data_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let backup = || Training::backup(scratch.path());
    training(2).run(backup(), Halt::Stop(8));
    for (other, says) in [
        (
            Training {
                items: 23,
                ..training(2)
            },
            "the number of items in an epoch was 22, and is 23 now",
        ),
        (
            Training {
                batch_size: 5,
                ..training(2)
            },
            "the number of items in the first batch of an epoch was 4, and is 5 now",
        ),
        (
            Training {
                batch_size: 0,
                ..training(2)
            },
            "batch_size of 1 or more",
        ),
    ] {
        let run = other.run(backup(), Halt::Never);
        assert_eq!(run.losses.len(), 0);
        let error = run.error.unwrap().to_string();
        assert!(error.contains(says), "{error}");
    }
    let run = training(1).run(backup(), Halt::Never);
    assert!(run.weights == uninterrupted(&training(0)).weights);
}
