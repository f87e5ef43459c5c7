//! Trainings that ran to their end.

use burn::train::SupervisedTraining;
use burn::train::checkpoint::FileCheckpointer;
use burn_backup_restore::{BackupAndRestore, BackupExt as _, Outcome, SaveFreq};
use burn_backup_tests::{Backend, Halt, Net, Training};
use test_fork::test;

use crate::support::{contents, stop_early, uninterrupted};

fn kept(dir: &std::path::Path) -> BackupAndRestore {
    Training::backup(dir).delete_checkpoint(false)
}

#[test]
fn a_complete_training_is_returned_at_once() {
    for &backend in Backend::ALL {
        for frequency in [SaveFreq::Epoch, SaveFreq::Steps(4)] {
            let scratch = tempfile::tempdir().unwrap();
            let training = Training::new(backend);
            let first = training.run(kept(scratch.path()).save_freq(frequency), Halt::Never);

            let backup = kept(scratch.path()).save_freq(frequency);
            let handle = backup.handle();
            let second = training.run(backup, Halt::Never);
            assert!(second.error.is_none() && second.interrupted.is_none());
            assert_eq!(second.losses.len(), 0, "nothing is trained");
            assert!(second.weights == first.weights);
            assert_eq!(handle.restored_from().map(|at| at.epoch), Some(4));
            assert_eq!(handle.stats().committed, 0, "nothing new to save");
            assert_eq!(handle.outcome(), Some(Outcome::Finished));

            let third = training.run(Training::backup(scratch.path()), Halt::Never);
            assert!(third.weights == first.weights);
            assert!(!scratch.path().exists(), "deleted, now that it may be");
        }
    }
}

#[test]
fn a_complete_training_continues_with_more_epochs() {
    for &backend in Backend::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let whole = Training::new(backend);
        let short = Training {
            epochs: 2,
            ..whole.clone()
        };
        short.run(kept(scratch.path()), Halt::Never);
        let run = whole.run(kept(scratch.path()), Halt::Never);
        let expected = uninterrupted(&whole);
        assert_eq!(run.losses.len(), 6);
        assert!(run.weights == expected.weights);
        assert!(run.records == expected.records);
    }
}

#[test]
fn a_backup_beyond_the_last_epoch_is_returned_and_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let training = Training::new(Backend::Flex);
    let backup = Training::backup(scratch.path());
    let handle = backup.handle();
    training.run(backup, Halt::Stop(14));
    let at = handle.stopped_at().unwrap();
    let before = contents(scratch.path());
    for epochs in [1, 2] {
        let shorter = Training {
            epochs,
            ..training.clone()
        };
        let backup = Training::backup(scratch.path());
        let handle = backup.handle();
        let run = shorter.run(backup, Halt::Never);
        assert!(run.error.is_none() && run.interrupted.is_none());
        assert_eq!(run.losses.len(), 0, "nothing is trained");
        assert_eq!(run.steps, 14);
        let Some(Outcome::PastLastEpoch {
            at: found,
            num_epochs,
            ..
        }) = handle.outcome()
        else {
            panic!("{:?}", handle.outcome());
        };
        assert_eq!((found, num_epochs), (at, epochs));
        assert_eq!(handle.stopped_at(), None, "nobody has stopped it");
        assert!(contents(scratch.path()) == before);
    }
    let run = training.run(Training::backup(scratch.path()), Halt::Never);
    assert!(run.weights == uninterrupted(&training).weights);
}

#[test]
fn the_handle_says_how_a_training_has_ended() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let training = Training::new(Backend::Flex);
    let ends = |training: &Training, halt| {
        let backup = Training::backup(&dir);
        let handle = backup.handle();
        assert_eq!(handle.outcome(), None, "it was not launched");
        training.run(backup, halt);
        (handle.outcome().unwrap(), handle)
    };
    let (outcome, handle) = ends(&training, Halt::Stop(7));
    let saved = handle.stopped_at();
    assert!(saved.is_some());
    assert!(matches!(outcome, Outcome::Stopped { saved: found, .. } if found == saved));
    assert_eq!(ends(&training, Halt::Fail(2)).0, Outcome::Failed);
    let other_data = Training {
        batch_size: 5,
        ..training.clone()
    };
    assert_eq!(ends(&other_data, Halt::Never).0, Outcome::Refused);
    let wider = Training {
        hidden: 9,
        ..training.clone()
    };
    assert_eq!(ends(&wider, Halt::Never).0, Outcome::Refused);
    assert_eq!(ends(&training, Halt::Never).0, Outcome::Finished);
    assert!(!dir.exists());
}

#[test]
fn parameters_that_are_saved_in_another_shape_are_restored_exactly() {
    for &backend in Backend::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let training = Training {
            column_layout: true,
            ..Training::new(backend)
        };
        let stopped = training.run(Training::backup(scratch.path()), Halt::Stop(14));
        // With fewer epochs than are trained, the training is restored and returned.
        let shorter = Training {
            epochs: 1,
            ..training.clone()
        };
        let restored = shorter.run(Training::backup(scratch.path()), Halt::Never);
        assert!(restored.weights == stopped.weights);
        let run = training.run(Training::backup(scratch.path()), Halt::Never);
        assert!(run.error.is_none());
        assert_eq!(run.steps, 18);
    }
}

#[test]
fn early_stopping_is_an_end_too() {
    let scratch = tempfile::tempdir().unwrap();
    let training = Training {
        epochs: 50,
        ..Training::new(Backend::Flex)
    };
    let run_kept = |training: &Training| {
        training.run_with(Halt::Never, |builder| {
            stop_early(builder).backup_and_restore(kept(scratch.path()))
        })
    };
    let first = run_kept(&training);
    assert!(first.records.epoch < 50, "it stopped early");

    let longer = Training {
        epochs: 60,
        ..training.clone()
    };
    for training in [&training, &longer] {
        let again = run_kept(training);
        assert!(again.error.is_none());
        assert_eq!(again.losses.len(), 0, "nothing is trained");
        assert!(again.weights == first.weights);
    }

    let last = training.run_with(Halt::Never, |builder| {
        stop_early(builder).backup_and_restore(Training::backup(scratch.path()))
    });
    assert!(last.weights == first.weights);
    assert!(!scratch.path().exists(), "deleted after success");
}

#[test]
fn a_handle_discards_the_backup_once_the_training_is_over() {
    let scratch = tempfile::tempdir().unwrap();
    let backup = kept(scratch.path());
    let handle = backup.handle();
    let while_running = handle.clone();
    let training = Training::new(Backend::Flex);
    training.run_with_learner(
        Halt::Never,
        |training, hooks| {
            training.learner(hooks.on_train(move |batch| {
                let error = while_running.discard().unwrap_err();
                assert!(
                    error.to_string().contains("is in use by process"),
                    "{batch}: {error}"
                );
            }))
        },
        |builder| builder.backup_and_restore(backup),
    );
    assert!(scratch.path().join("generations/00000003").exists());
    std::fs::write(scratch.path().join("notes.txt"), b"theirs").unwrap();

    handle.discard().unwrap();
    assert_eq!(
        std::fs::read(scratch.path().join("notes.txt")).unwrap(),
        b"theirs"
    );
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1);
    std::fs::remove_file(scratch.path().join("notes.txt")).unwrap();
    std::fs::remove_dir(scratch.path()).unwrap();
    handle.discard().unwrap();
    assert!(
        !scratch.path().exists(),
        "discarding nothing creates nothing"
    );
}

#[test]
fn discarding_without_a_backup_touches_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    BackupAndRestore::new(scratch.path())
        .handle()
        .discard()
        .unwrap();
    assert!(scratch.path().exists(), "the directory is somebody else's");
    assert!(BackupAndRestore::new("").handle().discard().is_err());
}

#[test]
fn other_peoples_files_stay_when_the_backup_is_deleted() {
    let scratch = tempfile::tempdir().unwrap();
    let notes = scratch.path().join("notes.txt");
    std::fs::write(&notes, b"theirs").unwrap();
    let run = Training::new(Backend::Flex).run(Training::backup(scratch.path()), Halt::Never);
    assert!(run.error.is_none());
    assert_eq!(std::fs::read(&notes).unwrap(), b"theirs");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1);
}

#[test]
fn with_workers_a_training_resumes_with_the_right_number_of_batches() {
    // The workers' batches come in no fixed order: the short one may be counted before the stop or after it.
    for batch in 1..=18 {
        let scratch = tempfile::tempdir().unwrap();
        let training = Training {
            workers: 3,
            ..Training::new(Backend::Flex)
        };
        training.run(Training::backup(scratch.path()), Halt::Stop(batch));
        let run = training.run(Training::backup(scratch.path()), Halt::Never);
        assert!(run.error.is_none(), "stopped in {batch}: {:?}", run.error);
        assert_eq!(run.steps, 18);
    }
}

#[test]
fn a_training_begun_from_burns_own_checkpoint_is_continued_exactly() {
    let scratch = tempfile::tempdir().unwrap();
    let burns = scratch.path().join("checkpoint");
    let with_burns_checkpoints = |builder: SupervisedTraining<Net>| {
        builder.with_custom_checkpointers(
            FileCheckpointer::new(&burns, "model"),
            FileCheckpointer::new(&burns, "optimizer"),
            FileCheckpointer::new(&burns, "scheduler"),
        )
    };
    let training = Training::new(Backend::Flex);
    training.run_with(Halt::Never, with_burns_checkpoints);

    let from_epoch_2 = |backup: BackupAndRestore, halt| {
        training.run_with(halt, |builder| {
            with_burns_checkpoints(builder)
                .checkpoint(1)
                .backup_and_restore(backup)
        })
    };
    let expected = from_epoch_2(
        Training::backup(scratch.path().join("uninterrupted")),
        Halt::Never,
    );
    assert_eq!(expected.losses.len(), 12);
    for batch in 1..=12 {
        let dir = scratch.path().join("backup");
        from_epoch_2(Training::backup(&dir), Halt::Stop(batch));
        let run = from_epoch_2(Training::backup(&dir), Halt::Never);
        assert_eq!(run.losses.len(), 12 - batch);
        assert!(run.weights == expected.weights, "stopped in {batch}");
    }
}
