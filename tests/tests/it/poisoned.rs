//! Trainings with NaN in a parameter.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use burn_backup_restore::{
    BackupAndRestore, BackupError, BackupHandle, OnBackupError, Outcome, SaveFreq, exit_code,
};
use burn_backup_store::testing::{FaultyFilesystem, Operation};
use burn_backup_tests::{Backend, Halt, Run, Training};
use test_fork::test;

use crate::support::{generations, uninterrupted};

/// The errors that the trainings of this module have logged. They run one after the other.
static ERRORS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Errors;

impl log::Log for Errors {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() == log::Level::Error
    }

    fn log(&self, record: &log::Record<'_>) {
        let text = record.args().to_string();
        if self.enabled(record.metadata()) && text.contains("NaN") {
            ERRORS.lock().unwrap().push(text);
        }
    }

    fn flush(&self) {}
}

static ALONE: Mutex<()> = Mutex::new(());

/// Runs a training whose parameter `steps` is NaN after the batches in `poisoned`, with a backup after each
/// batch. Returns its result, its handle, and the errors that it has logged.
fn run(
    dir: &Path,
    poisoned: (usize, usize),
    halt: Halt,
    configure: impl FnOnce(BackupAndRestore) -> BackupAndRestore,
) -> (Run, BackupHandle, Vec<String>) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // The second time, the logger is already set.
    let _ = log::set_logger(&Errors);
    log::set_max_level(log::LevelFilter::Error);
    ERRORS.lock().unwrap().clear();
    let training = Training {
        poisoned: Some(poisoned),
        ..Training::new(Backend::Flex)
    };
    let backup = Training::backup(dir).save_freq(1);
    let backup = configure(backup);
    let handle = backup.handle();
    let run = training.run(backup, halt);
    let errors = ERRORS.lock().unwrap().clone();
    (run, handle, errors)
}

#[test]
fn a_backup_with_nan_is_refused_and_the_last_good_one_stays_and_is_restored() {
    for halt in [Halt::Stop(12), Halt::Fail(12)] {
        let scratch = tempfile::tempdir().unwrap();
        let (_, handle, errors) = run(scratch.path(), (8, 18), halt, |backup| backup);
        assert_eq!(generations(scratch.path()), ["00000007"]);
        assert_eq!(handle.last_backup().map(|at| at.global_step), Some(7));
        assert!(handle.stats().refused >= 3, "{:?}", handle.stats());
        assert_eq!(handle.stats().failed, handle.stats().refused);
        let error = handle.last_error().unwrap();
        assert!(
            matches!(&*error, BackupError::ContainsNan { parameter, .. } if parameter == "steps"),
            "{error}"
        );
        assert_eq!(errors.len(), 1, "said once: {errors:?}");
        assert!(errors[0].contains("'steps' contains NaN"), "{errors:?}");

        // The cause of the NaN is fixed.
        let training = Training::new(Backend::Flex);
        let again = training.run(Training::backup(scratch.path()), Halt::Never);
        assert!(again.weights == uninterrupted(&training).weights);
    }
}

#[test]
fn once_the_nan_is_gone_backups_are_taken_again() {
    let scratch = tempfile::tempdir().unwrap();
    let (_, handle, errors) = run(scratch.path(), (5, 6), Halt::Stop(9), |backup| backup);
    let stats = handle.stats();
    assert_eq!((stats.committed, stats.refused), (7, 2));
    assert_eq!(handle.last_backup().map(|at| at.global_step), Some(9));
    assert_eq!(errors.len(), 1, "{errors:?}");

    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let (ended, _, errors) = run(&dir, (5, 6), Halt::Never, |backup| backup);
    assert!(ended.error.is_none());
    assert!(!dir.exists(), "deleted: {errors:?}");
}

#[test]
fn a_training_that_ends_with_nan_keeps_the_last_good_backup() {
    for frequency in [SaveFreq::Epoch, SaveFreq::Steps(1)] {
        let scratch = tempfile::tempdir().unwrap();
        let (ended, handle, errors) = run(scratch.path(), (8, 18), Halt::Never, |backup| {
            backup.save_freq(frequency)
        });
        assert!(ended.error.is_none(), "the training itself is the user's");
        assert_eq!(ended.losses.len(), 18);
        assert_eq!(generations(scratch.path()).len(), 1);
        assert_eq!(
            errors.len(),
            2,
            "one of them says that it stays: {errors:?}"
        );
        let good = handle.last_backup().unwrap().global_step;
        assert_eq!(good, if frequency == SaveFreq::Epoch { 6 } else { 7 });
        assert_eq!(handle.outcome(), Some(Outcome::Finished));
        assert_eq!(handle.exit_code(), exit_code::FIX_FIRST);
        let error = handle.discard().unwrap_err();
        assert!(
            matches!(error, BackupError::LastGoodBackup { .. }),
            "{error}"
        );
        assert_eq!(generations(scratch.path()).len(), 1);
    }
}

#[test]
fn a_full_disk_at_the_end_does_not_hide_the_nan() {
    let scratch = tempfile::tempdir().unwrap();
    let staged = AtomicUsize::new(0);
    // The backups of batches 8 to 17 are refused. Later backups find no space.
    let full = FaultyFilesystem::new(move |operation, path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if matches!(operation, Operation::CreateDir | Operation::Rename)
            && name.starts_with(".staging-0")
            && staged.fetch_add(1, Ordering::Relaxed) >= 17
        {
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(())
    });
    let (_, handle, _) = run(scratch.path(), (8, 18), Halt::Never, |backup| {
        backup.filesystem(Arc::new(full))
    });
    let stats = handle.stats();
    assert_eq!((stats.committed, stats.refused, stats.failed), (7, 10, 12));
    assert_eq!(generations(scratch.path()), ["00000007"]);
}

#[test]
fn nan_at_the_end_keeps_the_backup_of_a_stop_too() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let never = |backup: BackupAndRestore| backup.save_freq(SaveFreq::Never);
    run(&dir, (9, 9), Halt::Stop(4), never);
    // The run resumes after batch 4, so that its last batch is the 14th here.
    let (_, handle, _) = run(&dir, (10, 14), Halt::Never, never);
    assert_eq!(handle.stats().refused, 1);
    assert_eq!(generations(&dir), ["00000001"]);

    // Also if the program deletes the backup itself.
    let kept = |backup: BackupAndRestore| never(backup).delete_checkpoint(false);
    let (_, handle, _) = run(&dir, (10, 14), Halt::Never, kept);
    assert_eq!(handle.stats().refused, 1);
    assert_eq!(handle.exit_code(), exit_code::FIX_FIRST);
    let error = handle.discard().unwrap_err();
    assert!(
        matches!(error, BackupError::LastGoodBackup { .. }),
        "{error}"
    );
    assert_eq!(generations(&dir), ["00000001"]);

    let (_, handle, _) = run(&dir, (30, 30), Halt::Never, never);
    assert_eq!(handle.stats().refused, 0);
    assert!(!dir.exists());
}

#[test]
fn nan_ends_the_training_if_a_failed_backup_is_to() {
    let scratch = tempfile::tempdir().unwrap();
    let (ended, _, _) = run(scratch.path(), (8, 18), Halt::Never, |backup| {
        backup.on_backup_error(OnBackupError::Stop)
    });
    let message = ended.backup_error().to_string();
    assert!(message.contains("'steps' contains NaN"), "{message}");
    assert_eq!(generations(scratch.path()), ["00000007"]);
}

#[test]
fn nan_is_backed_up_if_asked_for() {
    let scratch = tempfile::tempdir().unwrap();
    let (_, handle, errors) = run(scratch.path(), (1, 18), Halt::Stop(12), |backup| {
        backup.refuse_nan(false)
    });
    // One after each batch, and one that records that all batches of the epoch are trained.
    assert_eq!((handle.stats().committed, handle.stats().failed), (13, 0));
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(handle.last_backup().map(|at| at.global_step), Some(12));
}

#[test]
fn with_nan_from_the_start_there_is_no_backup_to_keep() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let (_, handle, _) = run(&dir, (1, 18), Halt::Never, |backup| {
        backup.delete_checkpoint(false)
    });
    assert_eq!(handle.exit_code(), exit_code::FIX_FIRST);
    handle.discard().unwrap();
    assert!(!dir.exists());
}
