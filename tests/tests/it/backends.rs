//! Backups do not depend on the device: one backend restores what another one has saved.

use burn_backup_restore::SaveFreq;
use burn_backup_tests::{Backend, Halt, Records, Training};
use test_fork::test;

use crate::support::{difference, part, saved_model, uninterrupted};

/// Every backend of this build.
fn backends() -> impl Iterator<Item = Backend> {
    Backend::ALL.iter().chain(Backend::GPU).copied()
}

#[test]
fn another_backend_restores_what_was_saved_byte_for_byte() {
    for saving in backends() {
        for restoring in backends() {
            let scratch = tempfile::tempdir().unwrap();
            let backup = || {
                Training::backup(scratch.path())
                    .save_freq(SaveFreq::Never)
                    .delete_checkpoint(false)
            };
            // The stop is in the validation of the last epoch. Nothing is trained after that.
            let stopped = Training::new(saving).run(backup(), Halt::StopInValidation(13));
            assert!(stopped.error.is_none(), "{:?}", stopped.error);
            let saved = Records {
                epoch: 3,
                model: saved_model(scratch.path(), 1),
                optimizer: part(scratch.path(), 1, "optimizer"),
                scheduler: part(scratch.path(), 1, "scheduler"),
            };
            assert!(!saved.model.is_empty() && !saved.optimizer.is_empty());

            let run = Training::new(restoring).run(backup(), Halt::Never);
            assert!(
                run.error.is_none(),
                "{saving:?}, {restoring:?}: {:?}",
                run.error
            );
            assert_eq!(run.losses.len(), 0);
            assert!(run.records == saved, "{saving:?}, {restoring:?}");
            assert!(run.weights == saved.model, "{saving:?}, {restoring:?}");
        }
    }
}

#[test]
fn a_training_that_stopped_on_one_backend_resumes_on_another_in_the_middle_of_an_epoch() {
    // Each backend draws other random numbers. Without them, the results differ only in the last digits.
    let plain = |backend| Training {
        draws: false,
        ..Training::new(backend)
    };
    for first in backends() {
        let expected = uninterrupted(&plain(first));
        for second in backends() {
            for stop in [3, 8, 12] {
                let scratch = tempfile::tempdir().unwrap();
                let backup = || Training::backup(scratch.path());
                let stopped = plain(first).run(backup(), Halt::Stop(stop));
                assert!(stopped.error.is_none(), "{:?}", stopped.error);
                let run = plain(second).run(backup(), Halt::Never);
                assert!(
                    run.error.is_none(),
                    "{first:?}, {second:?}: {:?}",
                    run.error
                );
                assert_eq!(run.steps, 18, "{first:?}, {second:?}");
                assert_eq!(stopped.losses.len() + run.losses.len(), 18);
                let difference = difference(&run.weights, &expected.weights);
                assert!(difference < 1e-2, "{first:?}, {second:?}: {difference}");
            }
        }
    }
}
