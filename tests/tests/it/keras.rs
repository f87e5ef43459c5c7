//! Behaviours that the tests of Keras's `BackupAndRestore` show.

use burn_backup_restore::{Position, SaveFreq};
use burn_backup_tests::{Backend, Halt, Training};
use test_fork::test;

use crate::support::generations;

/// Epoch, batch in the epoch, and batch of the training.
type At = Option<(usize, usize, u64)>;

fn position(epoch: usize, step_in_epoch: usize, global_step: u64) -> At {
    Some((epoch, step_in_epoch, global_step))
}

fn at(position: Option<Position>) -> At {
    position.map(|at| (at.epoch, at.step_in_epoch, at.global_step))
}

#[test]
fn after_an_interruption_position_and_backup_are_as_fresh_as_the_frequency() {
    for (frequency, expected) in [
        (SaveFreq::Epoch, position(2, 0, 6)),
        (SaveFreq::Steps(1), position(2, 4, 10)),
        (SaveFreq::Steps(3), position(2, 3, 9)),
        (SaveFreq::Steps(4), position(2, 2, 8)),
        (SaveFreq::Never, None),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let training = Training::new(Backend::Flex);
        let backup = Training::backup(scratch.path()).save_freq(frequency);
        let handle = backup.handle();
        // The error comes in the fifth batch of the second epoch, and that batch is lost.
        let run = training.run(backup, Halt::Fail(11));
        assert!(run.error.is_some());
        assert_eq!(at(handle.last_backup()), expected, "{frequency:?}");
        assert_eq!(handle.restored_from(), None);

        let backup = Training::backup(scratch.path()).save_freq(frequency);
        let handle = backup.handle();
        let run = training.run(backup, Halt::Never);
        assert_eq!(at(handle.restored_from()), expected, "{frequency:?}");
        let trained_before = expected.map_or(0, |(.., global_step)| global_step as usize);
        assert_eq!(run.losses.len(), 18 - trained_before, "{frequency:?}");
    }
}

#[test]
fn a_users_stop_loses_nothing_whatever_the_frequency() {
    for frequency in [SaveFreq::Epoch, SaveFreq::Steps(4), SaveFreq::Never] {
        let scratch = tempfile::tempdir().unwrap();
        let backup = Training::backup(scratch.path()).save_freq(frequency);
        let handle = backup.handle();
        let run = Training::new(Backend::Flex).run(backup, Halt::Stop(11));
        assert!(run.interrupted.is_some());
        assert_eq!(
            at(handle.last_backup()),
            position(2, 5, 11),
            "{frequency:?}"
        );
    }
}

#[test]
fn a_counter_of_trained_batches_ends_at_epochs_times_batches() {
    // Keras repeats the epoch's batches on advanced weights, and its counter ends at 17.
    for &backend in Backend::ALL {
        for frequency in [SaveFreq::Epoch, SaveFreq::Steps(1), SaveFreq::Steps(2)] {
            for halt in [Halt::Stop(2), Halt::Fail(2), Halt::Fail(5)] {
                let scratch = tempfile::tempdir().unwrap();
                let training = Training {
                    epochs: 5,
                    items: 12,
                    ..Training::new(backend)
                };
                let backup = || Training::backup(scratch.path()).save_freq(frequency);
                training.run(backup(), halt);
                assert_eq!(training.run(backup(), Halt::Never).steps, 15);
            }
        }
    }
}

#[test]
fn interrupted_at_epoch_4_of_10_the_second_run_trains_six_epochs() {
    let scratch = tempfile::tempdir().unwrap();
    let training = Training {
        epochs: 10,
        ..Training::new(Backend::Flex)
    };
    // Epoch 4, counted from 0.
    training.run(Training::backup(scratch.path()), Halt::Fail(4 * 6 + 1));
    let run = training.run(Training::backup(scratch.path()), Halt::Never);
    let started = |call: &&String| call.starts_with("start_split train");
    assert_eq!(run.calls.iter().filter(started).count(), 6);
    assert!(
        run.calls.contains(&"start 10 5 None None".to_owned()),
        "{:?}",
        run.calls
    );
    assert_eq!(run.losses.len(), 6 * 6);
}

#[test]
fn the_directory_is_created_when_missing_and_deleted_after_success() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("not/there/yet");
    let seen = dir.clone();
    let training = Training::new(Backend::Flex);
    let run = training.run_with_learner(
        Halt::Never,
        |training, hooks| {
            training.learner(hooks.on_train(move |_| assert!(seen.join("generations").exists())))
        },
        |builder| {
            use burn_backup_restore::BackupExt as _;
            builder.backup_and_restore(Training::backup(&dir))
        },
    );
    assert!(run.error.is_none());
    assert_eq!(run.losses.len(), 18);
    assert!(!dir.exists());
    assert!(dir.parent().unwrap().exists());
}

#[test]
fn the_backup_stays_when_it_is_not_to_be_deleted() {
    let scratch = tempfile::tempdir().unwrap();
    let backup = Training::backup(scratch.path()).delete_checkpoint(false);
    Training::new(Backend::Flex).run(backup, Halt::Never);
    assert_eq!(generations(scratch.path()), ["00000003"]);
}

#[test]
fn the_requested_number_of_backups_stays() {
    for (keep, expected) in [
        (1, &["00000008"][..]),
        (2, &["00000007", "00000008"]),
        (3, &["00000006", "00000007", "00000008"]),
        (
            9,
            &[
                "00000001", "00000002", "00000003", "00000004", "00000005", "00000006", "00000007",
                "00000008",
            ],
        ),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let backup = Training::backup(scratch.path())
            .save_freq(1)
            .keep_last(keep);
        Training::new(Backend::Flex).run(backup, Halt::Stop(8));
        assert_eq!(generations(scratch.path()), expected, "keep {keep}");
    }
}

#[test]
fn a_damaged_newest_backup_falls_back_to_the_previous_one() {
    let scratch = tempfile::tempdir().unwrap();
    let training = Training::new(Backend::Flex);
    let backup = || {
        Training::backup(scratch.path())
            .save_freq(1)
            .double_checkpoint(true)
    };
    training.run(backup(), Halt::Stop(8));
    assert_eq!(generations(scratch.path()), ["00000007", "00000008"]);
    let part = scratch.path().join("generations/00000008/optimizer.bpk");
    let mut bytes = std::fs::read(&part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&part, bytes).unwrap();

    let handle = {
        let backup = backup();
        let handle = backup.handle();
        let run = training.run(backup, Halt::Stop(1));
        assert!(run.error.is_none());
        handle
    };
    assert_eq!(at(handle.restored_from()), position(2, 1, 7));
    let reason = scratch.path().join("quarantine/00000008/reason.txt");
    let reason = std::fs::read_to_string(reason).unwrap();
    assert_eq!(reason, "optimizer.bpk does not match its hash\n");
    let expected = crate::support::uninterrupted(&training);
    assert!(training.run(backup(), Halt::Never).weights == expected.weights);
}
