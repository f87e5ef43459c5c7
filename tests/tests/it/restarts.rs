//! Information for a supervisor that restarts a program: exit codes, a heartbeat, and the processes that ran
//! the training.
#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::path::Path;

use burn_backup_restore::{BackupAndRestore, BackupError, exit_code};
use burn_backup_store::{Observation, Observer};
use burn_backup_tests::{Backend, Halt, Loop, LoopHalt, Run, Training};
use serde_json::Value;
use test_fork::test;

use crate::process::trainee;

/// The exit code after this run.
fn code(backup: BackupAndRestore, training: &Training, halt: Halt) -> (u8, Run) {
    let handle = backup.handle();
    assert_eq!(
        handle.exit_code(),
        exit_code::FAILED,
        "nothing is known yet"
    );
    let run = training.run(backup, halt);
    (handle.exit_code(), run)
}

#[test]
fn the_exit_code_says_whether_a_restart_helps() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let backup = || Training::backup(&dir);
    let training = Training::new(Backend::Flex);
    let of = |backup, training: &Training, halt| code(backup, training, halt).0;
    assert_eq!(
        of(backup(), &training, Halt::Stop(8)),
        exit_code::START_AGAIN
    );
    assert_eq!(of(backup(), &training, Halt::Fail(2)), exit_code::FAILED);

    let other = Training {
        hidden: 5,
        ..training.clone()
    };
    let (code, run) = code(backup(), &other, Halt::Never);
    assert!(matches!(
        run.backup_error(),
        BackupError::ModelMismatch { .. }
    ));
    assert_eq!(code, exit_code::FIX_FIRST);
    assert_eq!(run.backup_error().exit_code(), exit_code::FIX_FIRST);

    let shorter = Training {
        epochs: 1,
        ..training.clone()
    };
    assert_eq!(of(backup(), &shorter, Halt::Never), exit_code::FIX_FIRST);

    // The previous process may still be ending.
    let used = burn_backup_store::Store::open(&dir, Default::default()).unwrap();
    assert_eq!(of(backup(), &training, Halt::Never), exit_code::FAILED);
    drop(used);
    assert_eq!(of(backup(), &training, Halt::Never), 0);
}

#[test]
fn a_loop_by_hand_has_the_same_codes() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let program = Loop::new(Backend::Flex);
    for (halt, expected) in [
        (LoopHalt::Stop(4), exit_code::START_AGAIN),
        (LoopHalt::Return(2), exit_code::FAILED),
        (LoopHalt::Never, 0),
    ] {
        let backup = Training::backup(&dir).save_freq(1);
        let handle = backup.handle();
        program.run(backup, halt);
        assert_eq!(handle.exit_code(), expected, "{halt:?}");
    }
}

/// The processes that ran the training, from the newest backup.
fn runs(dir: &Path) -> Vec<Value> {
    let observer = Observer::new(dir).unwrap();
    let newest = observer.generations().unwrap()[0];
    let Observation::Manifest(generation) = observer.open(newest).unwrap() else {
        panic!("there is a whole one");
    };
    let state: Value = generation.manifest().state().unwrap();
    state["runs"].as_array().unwrap().clone()
}

#[test]
fn a_backup_names_the_processes_that_ran_the_training_and_how_they_ended() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let training = Training::new(Backend::Flex);
    // A stop where a backup was due is not saved again, and not recorded.
    training.run(Training::backup(&dir).save_freq(3), Halt::Stop(4));
    training.run(Training::backup(&dir).save_freq(3), Halt::Fail(3));
    let mut third = trainee(Backend::Flex, &dir, 3, &["signals@0", "term@2"]);
    third.env("BURN_BACKUP_LAST_END", "was ended by SIGKILL");
    assert!(third.output().unwrap().status.success());

    let runs = runs(&dir);
    let member = |name: &str| runs.iter().map(|run| run[name].clone()).collect::<Vec<_>>();
    let from: Vec<_> = runs
        .iter()
        .map(|run| run["from"]["global_step"].as_u64())
        .collect();
    assert_eq!(from, [None, Some(4), Some(6)]);
    assert_eq!(
        member("ended"),
        ["the test stops it", "was ended by SIGKILL", "SIGTERM"]
    );
    assert!(
        member("host")
            .iter()
            .all(|host| host.as_str().is_some_and(|host| !host.is_empty()))
    );
    assert!(
        member("frequency")
            .iter()
            .all(|frequency| frequency == "every 3 batches")
    );
    let process = std::process::id();
    assert_eq!(runs[0]["process"], process);
    assert_ne!(runs[2]["process"], process);
    assert!(
        runs.iter()
            .all(|run| run["began"].as_str().unwrap().ends_with('Z'))
    );
}

#[test]
fn the_heartbeat_says_where_the_training_is_and_what_is_saved() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let path = scratch.path().join("heartbeat");
    let beat = |told: &str| -> Value {
        let mut trainee = trainee(Backend::Flex, &dir, 4, &[told, "keep@0"]);
        assert!(
            trainee
                .env("BURN_BACKUP_HEARTBEAT", &path)
                .output()
                .unwrap()
                .status
                .success()
        );
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()
    };
    let first = beat("stop@9");
    assert_eq!(first["position"]["global_step"], 9);
    assert_eq!(first["committed"]["global_step"], 9);
    assert!(first["restored"].is_null());
    // Nine training batches, and the batches of a validation.
    assert!(first["count"].as_u64().unwrap() > 9, "{first}");
    let second = beat("stop@2");
    assert_eq!(second["restored"]["global_step"], 9);
    assert_eq!(second["position"]["global_step"], 11);
    assert_ne!(first["process"], second["process"]);
}

#[test]
fn a_heartbeat_that_can_not_be_written_ends_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let mut trainee = trainee(
        Backend::Flex,
        &scratch.path().join("backup"),
        4,
        &["stop@3"],
    );
    trainee.env(
        "BURN_BACKUP_HEARTBEAT",
        scratch.path().join("no/such/directory"),
    );
    let output = trainee.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
