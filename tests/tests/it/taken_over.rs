//! The backup directory disappears while a training runs, and another training may take its place.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use burn_backup_restore::{BackupAndRestore, BackupExt as _, BackupHandle};
use burn_backup_tests::{Backend, Halt, Run, Training};
use log::Level;
use test_fork::test;

use crate::log_lines;
use crate::process::{run_well, trainee};
use crate::support::{contents, generations, uninterrupted};

/// Trains with a backup after each batch. Calls `what` in the middle of the batch `at`, once the earlier
/// backups are committed.
fn run_doing(
    backup: BackupAndRestore,
    halt: Halt,
    at: usize,
    what: impl Fn() + Send + Sync + 'static,
) -> (Run, BackupHandle) {
    let handle = backup.handle();
    let (batches, seen) = (AtomicUsize::new(0), handle.clone());
    let on_batch = move || {
        if batches.fetch_add(1, Ordering::Relaxed) + 1 == at {
            while seen.stats().committed + 1 < at as u64 {
                std::thread::yield_now();
            }
            what();
        }
    };
    let run = Training::new(Backend::Flex).run_with_learner(
        halt,
        |training, hooks| training.learner(hooks.on_device(move |_| on_batch())),
        |builder| builder.backup_and_restore(backup),
    );
    (run, handle)
}

/// Another training, as long as this one, which keeps its last backup.
fn other(dir: &Path) {
    let other = run_well(&mut trainee(Backend::Flex, dir, 1, &["keep@1"]));
    assert_eq!((other.restored, other.error.as_str()), (0, ""));
}

fn remove(dir: &Path) {
    // The training may be writing into it.
    while fs::remove_dir_all(dir).is_err() {}
}

#[test]
fn a_directory_that_is_removed_is_created_again_and_its_training_continues_exactly() {
    log_lines::listen();
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let gone = dir.clone();
    let backup = Training::backup(&dir).save_freq(1);
    let (run, handle) = run_doing(backup, Halt::Stop(14), 4, move || remove(&gone));
    assert!(run.error.is_none(), "{:?}", run.error);
    let stats = handle.stats();
    // The backup that was in flight then may have failed.
    assert!(stats.failed <= 1, "{:?}", handle.last_error());
    assert_eq!(handle.last_backup().map(|at| at.global_step), Some(14));
    let warnings = log_lines::logged(Level::Warn);
    let said = warnings
        .iter()
        .filter(|line| line.contains("created again"));
    assert_eq!(said.count(), 1, "{warnings:?}");

    let training = Training::new(Backend::Flex);
    let backup = Training::backup(&dir);
    let handle = backup.handle();
    let run = training.run(backup, Halt::Never);
    assert_eq!(handle.restored_from().map(|at| at.global_step), Some(14));
    let expected = uninterrupted(&training);
    assert!(run.weights == expected.weights && run.records == expected.records);
}

/// Asserts that another training in the place of this one's directory stays as it is, and can be resumed.
#[track_caller]
fn assert_other_is_left_alone(clear_the_place: impl Fn(&Path) + Copy + Send + Sync + 'static) {
    for halt in [Halt::Never, Halt::Stop(12), Halt::Fail(12)] {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("backup");
        let (place, before) = (dir.clone(), scratch.path().join("before"));
        let backup = Training::backup(&dir).save_freq(1);
        let (run, handle) = run_doing(backup, halt, 4, move || {
            clear_the_place(&place);
            other(&place);
            fs::create_dir(&before).unwrap();
            for (path, bytes) in contents(&place) {
                let copy = before.join(path.strip_prefix(&place).unwrap());
                fs::create_dir_all(copy.parent().unwrap()).unwrap();
                fs::write(copy, bytes).unwrap();
            }
        });
        assert_eq!(run.error.is_some(), matches!(halt, Halt::Fail(_)));
        let stats = handle.stats();
        assert!(stats.committed >= 2 && stats.failed >= 8, "{stats:?}");
        let error = handle.last_error().unwrap().to_string();
        assert!(error.contains("uses the path now"), "{error}");
        let found = |dir: &Path| -> Vec<_> {
            let found = contents(dir).into_iter();
            let found =
                found.map(|(path, bytes)| (path.strip_prefix(dir).unwrap().to_owned(), bytes));
            found.collect()
        };
        assert!(
            found(&dir) == found(&scratch.path().join("before")),
            "{halt:?}"
        );
        assert_eq!(generations(&dir).len(), 1);

        let again = run_well(&mut trainee(Backend::Flex, &dir, 1, &[]));
        assert_eq!((again.restored, again.error.as_str()), (18, ""));
    }
}

#[test]
fn a_training_in_the_place_of_a_removed_directory_is_left_alone() {
    assert_other_is_left_alone(remove);
}

#[test]
fn a_training_in_the_place_of_a_moved_directory_is_left_alone() {
    assert_other_is_left_alone(|dir| fs::rename(dir, dir.with_extension("old")).unwrap());
}

#[test]
fn a_relative_path_keeps_its_place_when_the_current_directory_changes() {
    let scratch = tempfile::tempdir().unwrap();
    let elsewhere = scratch.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    std::env::set_current_dir(scratch.path()).unwrap();
    for (dir, halt) in [("backup", Halt::Stop(9)), ("backup", Halt::Never)] {
        std::env::set_current_dir(scratch.path()).unwrap();
        let backup = Training::backup(dir).save_freq(1);
        // The current directory changes before the launch, and in the second batch.
        std::env::set_current_dir(&elsewhere).unwrap();
        let root = PathBuf::from("/");
        let (run, handle) = run_doing(backup, halt, 2, move || {
            std::env::set_current_dir(&root).unwrap();
        });
        assert!(run.error.is_none(), "{:?}", run.error);
        assert_eq!(handle.stats().failed, 0);
        assert!(!elsewhere.join("backup").exists());
        assert_eq!(scratch.path().join("backup").exists(), halt != Halt::Never);
    }
}

#[test]
fn a_path_that_ends_in_a_dot_is_created_like_any_other() {
    let scratch = tempfile::tempdir().unwrap();
    for end in ["new/.", "newer/", "a/b/../c", "./d"] {
        let dir = format!("{}/{end}", scratch.path().display());
        let training = Training::new(Backend::Flex);
        let run = training.run(Training::backup(&dir), Halt::Stop(4));
        assert!(run.error.is_none(), "{end}: {:?}", run.error);
        let backup = Training::backup(&dir);
        let handle = backup.handle();
        let run = training.run(backup, Halt::Never);
        assert!(run.error.is_none(), "{end}: {:?}", run.error);
        assert_eq!(handle.restored_from().map(|at| at.global_step), Some(4));
    }
}
