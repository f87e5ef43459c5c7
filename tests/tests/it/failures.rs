//! Backups that fail while the training continues.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use burn_backup_restore::{
    BackupAndRestore, BackupError, BackupExt as _, BackupHandle, OnBackupError, Outcome, Position,
    SaveFreq, StoreError,
};
use burn_backup_store::testing::{Failure, FaultyFilesystem, Operation};
use burn_backup_tests::{Backend, Calls, Halt, Hooks, RecordingRenderer, Run, Training, report};
use test_fork::test;

use crate::log_lines;
use crate::support::{contents, generations, uninterrupted};

/// Fails the syncs of optimizer parts for which `fails` returns true. The syncs are counted from 1.
fn failing_saves(
    backup: BackupAndRestore,
    fails: impl Fn(usize) -> bool + Send + Sync + 'static,
) -> BackupAndRestore {
    let saves = AtomicUsize::new(0);
    backup.filesystem(Arc::new(FaultyFilesystem::new(move |operation, path| {
        if operation == Operation::SyncFile && path.ends_with("optimizer.bpk") {
            let save = saves.fetch_add(1, Ordering::Relaxed) + 1;
            if fails(save) {
                return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left").into());
            }
        }
        Ok(())
    })))
}

#[test]
fn a_failed_backup_is_counted_and_the_next_due_one_succeeds() {
    let scratch = tempfile::tempdir().unwrap();
    let training = Training::new(Backend::Flex);
    let backup = Training::backup(scratch.path())
        .save_freq(1)
        .delete_checkpoint(false);
    let backup = failing_saves(backup, |save| save == 5 || save == 6);
    let handle = backup.handle();
    let run = training.run(backup, Halt::Never);

    assert!(run.error.is_none());
    assert!(run.weights == uninterrupted(&training).weights);
    let stats = handle.stats();
    // One backup after each of the 18 batches, and one after the last validation.
    assert_eq!((stats.committed, stats.failed), (17, 2));
    assert_eq!(handle.last_backup().map(|at| at.epoch), Some(4));
    let error = handle.last_error().unwrap();
    assert!(
        matches!(
            &*error,
            BackupError::Store(StoreError::Io {
                operation: "sync",
                ..
            })
        ),
        "{error}"
    );
    let text = error.to_string();
    assert!(text.ends_with("(cause: no space left)"), "{text}");
}

#[test]
fn while_backups_fail_the_last_good_one_stays_and_is_continued() {
    let training = Training::new(Backend::Flex);
    let expected = uninterrupted(&training);
    for batch in [4, 8, 12] {
        let scratch = tempfile::tempdir().unwrap();
        let backup = Training::backup(scratch.path()).save_freq(1);
        let backup = failing_saves(backup, |save| save > 3);
        let handle = backup.handle();
        training.run(backup, Halt::Stop(batch));
        assert_eq!(generations(scratch.path()), ["00000003"]);
        assert_eq!(handle.last_backup().map(|at| at.global_step), Some(3));

        let backup = Training::backup(scratch.path());
        let handle = backup.handle();
        let run = training.run(backup, Halt::Never);
        assert_eq!(handle.restored_from().map(|at| at.global_step), Some(3));
        assert!(run.weights == expected.weights);
        assert!(run.records == expected.records);
    }
}

/// Runs `training` with a backup after each batch. The filesystem call `at` fails with `failure`. Also
/// returns the number of calls.
fn run_failing(
    training: &Training,
    dir: &Path,
    halt: Halt,
    failure: Failure,
    at: usize,
) -> (Run, BackupHandle, usize) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let fails = failure.at(at);
    let filesystem = FaultyFilesystem::new(move |operation, _| {
        fails(counted.fetch_add(1, Ordering::Relaxed) + 1, operation)
    });
    let backup = Training::backup(dir)
        .save_freq(1)
        .filesystem(Arc::new(filesystem));
    let handle = backup.handle();
    let run = training.run(backup, halt);
    (run, handle, calls.load(Ordering::Relaxed))
}

/// One epoch of three batches.
fn short_training() -> Training {
    Training {
        epochs: 1,
        items: 12,
        ..Training::new(Backend::Flex)
    }
}

#[test]
fn whichever_call_fails_the_training_continues_and_the_next_backup_succeeds() {
    let training = short_training();
    let expected = uninterrupted(&training);
    for failure in Failure::ALL {
        let mut failed = 0;
        for at in 1.. {
            let scratch = tempfile::tempdir().unwrap();
            let dir = scratch.path().join("backup");
            let (run, handle, calls) = run_failing(&training, &dir, Halt::Never, failure, at);
            let stats = handle.stats();
            if run.losses.is_empty() {
                let error = run.backup_error();
                assert!(matches!(error, BackupError::Store(_)), "{error}");
            } else {
                assert!(run.error.is_none());
                assert!(run.weights == expected.weights, "{failure:?} at {at}");
                // One backup after each batch, one after the last validation, and the deletion.
                match failure {
                    Failure::Dead => assert!(stats.committed <= 4),
                    Failure::ShortWrite => assert_eq!((stats.committed, stats.failed), (4, 0)),
                    _ => assert!(stats.committed >= 3 && stats.failed <= 1, "{stats:?}"),
                }
                assert_eq!(stats.failed > 0, handle.last_error().is_some());
                failed += usize::from(stats.failed > 0);
            }

            let again = training.run(Training::backup(&dir), Halt::Never);
            assert!(
                again.error.is_none(),
                "{failure:?} at {at}: {:?}",
                again.error
            );
            assert!(again.weights == expected.weights, "{failure:?} at {at}");
            assert!(!dir.exists());
            if calls < at {
                report(&format!(
                    "training, {failure:?}: failed at {calls} calls, {failed} of them failed backups"
                ));
                assert!(calls > 100);
                assert_eq!(failed > 25, failure != Failure::ShortWrite);
                break;
            }
        }
    }
}

#[test]
fn whichever_call_fails_the_next_run_resumes_from_the_handles_last_backup() {
    let training = short_training();
    let expected = uninterrupted(&training);
    for failure in Failure::ALL {
        for at in 1.. {
            let scratch = tempfile::tempdir().unwrap();
            let dir = scratch.path().join("backup");
            // The error ends the training, and no further backup is taken.
            let (run, handle, calls) = run_failing(&training, &dir, Halt::Fail(3), failure, at);
            let backup = Training::backup(&dir);
            let next = backup.handle();
            let again = training.run(backup, Halt::Never);
            assert!(again.weights == expected.weights, "{failure:?} at {at}");
            if !run.losses.is_empty() {
                let (last, found) = (handle.last_backup(), next.restored_from());
                let steps = |at: Option<Position>| at.map(|at| at.global_step);
                // A failure after the rename leaves one backup more than was reported.
                assert!(steps(found) >= steps(last), "{failure:?} at {at}");
                assert!(steps(found) <= Some(2), "{failure:?} at {at}");
            }
            if calls < at {
                break;
            }
        }
    }
}

#[test]
fn whichever_call_fails_while_a_training_is_resumed_nothing_is_lost() {
    let training = short_training();
    let expected = uninterrupted(&training);
    let prepared = tempfile::tempdir().unwrap();
    let backup = Training::backup(prepared.path()).save_freq(1).keep_last(2);
    training.run(backup, Halt::Fail(3));
    // The newest backup is damaged: one backup is quarantined, and one is restored.
    let newest = prepared.path().join("generations/00000002/model.bpk");
    std::fs::write(newest, b"").unwrap();
    let prepared = contents(prepared.path())
        .into_iter()
        .map(|(path, bytes)| {
            (
                path.strip_prefix(prepared.path()).unwrap().to_owned(),
                bytes,
            )
        })
        .collect::<Vec<_>>();

    for failure in Failure::ALL {
        for at in 1.. {
            let scratch = tempfile::tempdir().unwrap();
            let dir = scratch.path().join("backup");
            for (path, bytes) in &prepared {
                let path = dir.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
            let (run, handle, calls) = run_failing(&training, &dir, Halt::Fail(2), failure, at);
            let steps = |at: Option<Position>| at.map(|at| at.global_step);
            let last = if run.losses.is_empty() {
                let error = run.backup_error();
                assert!(matches!(error, BackupError::Store(_)), "{error}");
                Some(1)
            } else {
                assert_eq!(
                    steps(handle.restored_from()),
                    Some(1),
                    "{failure:?} at {at}"
                );
                steps(handle.last_backup()).max(Some(1))
            };

            let backup = Training::backup(&dir);
            let next = backup.handle();
            let again = training.run(backup, Halt::Never);
            assert!(again.weights == expected.weights, "{failure:?} at {at}");
            assert!(steps(next.restored_from()) >= last, "{failure:?} at {at}");
            if calls < at {
                report(&format!("taking up, {failure:?}: failed at {calls} calls"));
                assert!(calls > 60, "{calls}");
                break;
            }
        }
    }
}

#[test]
fn a_failed_backup_ends_the_training_if_it_is_to() {
    let scratch = tempfile::tempdir().unwrap();
    let backup = Training::backup(scratch.path())
        .save_freq(1)
        .on_backup_error(OnBackupError::Stop);
    let backup = failing_saves(backup, |save| save == 5);
    let run = Training::new(Backend::Flex).run(backup, Halt::Never);

    let error = run.backup_error();
    assert!(
        matches!(
            error,
            BackupError::Store(StoreError::Io {
                operation: "sync",
                ..
            })
        ),
        "{error}"
    );
    let shown = run.error.as_deref().unwrap().to_string();
    assert!(
        shown.contains("optimizer.bpk") && shown.contains("no space left"),
        "{shown}"
    );
    assert!(run.interrupted.is_none());
    // The failure is known at the latest when the backup of batch 6 is due.
    assert!((5..=7).contains(&run.losses.len()), "{}", run.losses.len());
    assert_eq!(generations(scratch.path()), ["00000004"]);
}

#[test]
fn a_panic_in_the_background_is_a_failed_backup() {
    let scratch = tempfile::tempdir().unwrap();
    let saves = AtomicUsize::new(0);
    let filesystem = FaultyFilesystem::new(move |operation, path| {
        let begins = matches!(operation, Operation::CreateFile | Operation::ReuseFile);
        if begins && path.ends_with("scheduler.bpk") {
            let save = saves.fetch_add(1, Ordering::Relaxed) + 1;
            assert!(save != 5, "the test has it panic");
        }
        Ok(())
    });
    let training = Training::new(Backend::Flex);
    let backup = Training::backup(scratch.path())
        .save_freq(1)
        .delete_checkpoint(false)
        .filesystem(Arc::new(filesystem));
    let handle = backup.handle();
    let run = training.run(backup, Halt::Never);
    assert!(run.error.is_none());
    assert!(run.weights == uninterrupted(&training).weights);
    assert_eq!((handle.stats().committed, handle.stats().failed), (18, 1));
    let error = handle.last_error().unwrap();
    assert!(
        error.to_string().contains("the test has it panic"),
        "{error}"
    );
}

#[test]
fn requested_backups_are_kept_and_one_is_written_at_a_time() {
    /// The current and the largest number of staged generations.
    #[derive(Default)]
    struct Staged {
        now: usize,
        most: usize,
    }

    let scratch = tempfile::tempdir().unwrap();
    let staged = Arc::new(Mutex::new(Staged::default()));
    let counted = staged.clone();
    let is_staging = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(".staging-0")
    };
    let filesystem = FaultyFilesystem::new(move |operation, path| {
        let mut staged = counted.lock().unwrap();
        match operation {
            Operation::CreateDir | Operation::Rename if is_staging(path) => {
                staged.now += 1;
                staged.most = staged.most.max(staged.now);
            }
            Operation::Rename if path.parent().is_some_and(|p| p.ends_with("generations")) => {
                staged.now -= 1;
            }
            _ => {}
        }
        Ok(())
    });
    let backup = Training::backup(scratch.path())
        .save_freq(1)
        .filesystem(Arc::new(filesystem));
    let handle = backup.handle();
    Training::new(Backend::Flex).run(backup, Halt::Stop(17));

    let stats = handle.stats();
    assert_eq!((stats.committed, stats.failed), (17, 0));
    assert!(stats.blocked_max > std::time::Duration::ZERO);
    assert!(stats.blocked_total >= stats.blocked_max);
    assert!(stats.persist_total >= stats.persist_last);
    assert!(stats.bytes > 0);
    let staged = staged.lock().unwrap();
    assert_eq!((staged.now, staged.most), (0, 1));
}

#[test]
fn a_backup_that_cannot_be_deleted_at_the_end_stays_and_shows() {
    let scratch = tempfile::tempdir().unwrap();
    let filesystem = FaultyFilesystem::new(|operation, path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if operation == Operation::Rename && name.starts_with(".staging-removed") {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(())
    });
    let training = Training::new(Backend::Flex);
    let backup = Training::backup(scratch.path()).filesystem(Arc::new(filesystem));
    let handle = backup.handle();
    let first = training.run(backup, Halt::Never);
    assert!(first.error.is_none(), "the training itself went well");
    assert!(matches!(
        &*handle.last_error().unwrap(),
        BackupError::Store(_)
    ));

    let second = training.run(Training::backup(scratch.path()), Halt::Never);
    assert_eq!(second.losses.len(), 0);
    assert!(second.weights == first.weights);
    assert!(!scratch.path().exists());
}

#[test]
fn a_stop_that_comes_after_the_last_batch_keeps_the_backup() {
    let scratch = tempfile::tempdir().unwrap();
    let training = Training::new(Backend::Flex);
    let backup = Training::backup(scratch.path());
    let handle = backup.handle();
    let run = training.run_with(Halt::Never, |builder| {
        let interrupter = builder.interrupter();
        // The commit of the third and last epoch.
        let filesystem = FaultyFilesystem::new(move |operation, path| {
            if operation == Operation::Rename && path.ends_with("generations/00000003") {
                interrupter.stop(Some("too late"));
            }
            Ok(())
        });
        builder.backup_and_restore(backup.filesystem(Arc::new(filesystem)))
    });
    assert!(run.interrupted.is_some());
    let saved = handle.last_backup();
    assert!(
        matches!(handle.outcome(), Some(Outcome::Stopped { saved: found, .. }) if found == saved)
    );
    assert_eq!(generations(scratch.path()), ["00000003"]);
    let again = training.run(Training::backup(scratch.path()), Halt::Never);
    assert_eq!(again.losses.len(), 0, "it was complete");
    assert!(again.weights == run.weights);
}

#[test]
fn a_renderer_that_resets_the_interrupter_hides_neither_a_stop_nor_an_error() {
    let run = |dir: &Path, halt| {
        Training::new(Backend::Flex).run_with(halt, |builder| {
            let renderer =
                RecordingRenderer::new(Calls::default()).resetting(builder.interrupter());
            builder
                .renderer(Box::new(renderer))
                .backup_and_restore(Training::backup(dir))
        })
    };
    let scratch = tempfile::tempdir().unwrap();
    let stopped = run(scratch.path(), Halt::Stop(8));
    assert!(stopped.error.is_none());
    assert_eq!(
        stopped.interrupted.unwrap().reason.as_deref(),
        Some("the test stops it")
    );
    let failed = run(scratch.path(), Halt::Fail(2));
    assert!(failed.error.is_some() && failed.interrupted.is_none());
    assert!(scratch.path().join("generations").exists());

    let refused = run(Path::new(""), Halt::Never);
    assert!(matches!(
        refused.backup_error(),
        BackupError::Store(StoreError::EmptyPath)
    ));
}

#[test]
fn an_error_leaves_the_last_good_backup() {
    let scratch = tempfile::tempdir().unwrap();
    let training = Training::new(Backend::Flex);
    training.run(Training::backup(scratch.path()).save_freq(4), Halt::Fail(8));
    // The error came in batch 8, after which a backup would have been due.
    assert_eq!(generations(scratch.path()), ["00000001"]);
    let backup = Training::backup(scratch.path());
    let handle = backup.handle();
    training.run(backup, Halt::Never);
    assert_eq!(handle.restored_from().map(|at| at.global_step), Some(4));
}

/// Runs a training whose logger panics the next `times` times that it logs a line with `text`.
fn run_with_panicking_logger(
    text: &'static str,
    times: usize,
    configure: impl FnOnce(BackupAndRestore) -> BackupAndRestore,
) -> (Run, BackupHandle) {
    log_lines::listen();
    let scratch = tempfile::tempdir().unwrap();
    let training = Training::new(Backend::Flex);
    let backup = Training::backup(scratch.path()).save_freq(1);
    let backup = configure(backup);
    let handle = backup.handle();
    log_lines::panic_at(text, times);
    let run = training.run(backup, Halt::Never);
    (run, handle)
}

#[test]
fn a_backup_thread_that_dies_is_a_failed_backup_and_another_one_takes_its_place() {
    // This line is logged once a backup is on disk, on the thread that wrote it.
    let (run, handle) = run_with_panicking_logger("backup 00000003 at", 1, |backup| backup);
    assert!(run.error.is_none(), "{:?}", run.error);
    let stats = handle.stats();
    // One after each of the 18 batches, and one after the last validation.
    assert_eq!((stats.committed, stats.failed), (18, 1));
    let error = handle.last_error().unwrap();
    assert!(
        matches!(&*error, BackupError::Panicked { message, .. } if message.contains("logger panic")),
        "{error}"
    );
    assert_eq!(handle.last_backup().map(|at| at.epoch), Some(4));
    let errors = log_lines::logged(log::Level::Error);
    let ended = errors.iter().filter(|line| line.contains("has ended"));
    assert_eq!(ended.count(), 1, "{errors:?}");
}

#[test]
fn a_backup_thread_that_dies_stops_the_training_if_failures_do() {
    let (run, handle) = run_with_panicking_logger("backup 00000003 at", 1, |backup| {
        backup.on_backup_error(OnBackupError::Stop)
    });
    let error = run.error.as_deref().and_then(BackupError::find);
    assert!(
        matches!(error, Some(BackupError::Panicked { .. })),
        "{:?}",
        run.error
    );
    assert_eq!(handle.stats().failed, 1);
    assert!(run.losses.len() < 18, "{} batches", run.losses.len());
}

#[test]
fn a_backup_thread_that_dies_in_a_prune_is_no_failed_backup() {
    let (run, handle) = run_with_panicking_logger("cannot list", 1, |backup| {
        let pruning = AtomicUsize::new(0);
        backup.filesystem(Arc::new(FaultyFilesystem::new(move |operation, path| {
            // Each save lists the generations, and so does each prune after it.
            if operation == Operation::List && path.ends_with("generations") {
                let list = pruning.fetch_add(1, Ordering::Relaxed);
                if list == 9 {
                    return Err(io::Error::other("the device fails").into());
                }
            }
            Ok(())
        })))
    });
    assert!(run.error.is_none(), "{:?}", run.error);
    let stats = handle.stats();
    assert_eq!(stats.committed + stats.failed, 19, "{stats:?}");
    assert!(stats.committed >= 18, "{stats:?}");
}

#[test]
fn a_repeated_failure_is_logged_once_and_so_is_its_end() {
    log_lines::listen();
    let scratch = tempfile::tempdir().unwrap();
    let training = Training::new(Backend::Flex);
    let backup = Training::backup(scratch.path()).save_freq(1);
    let handle = backup.handle();
    let run = training.run(
        failing_saves(backup, |save| (3..=8).contains(&save)),
        Halt::Never,
    );
    assert!(run.error.is_none());
    assert_eq!(handle.stats().failed, 6);
    let errors = log_lines::logged(log::Level::Error);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("no space left"), "{errors:?}");
    let warnings = log_lines::logged(log::Level::Warn);
    let again = "backups work again, after 6 that failed";
    assert!(warnings.contains(&again.to_owned()), "{warnings:?}");
}

/// Whether the disk is full.
#[derive(Clone, Default)]
struct Disk(Arc<AtomicUsize>);

impl Disk {
    fn set_full(&self, is_full: bool) {
        self.0.store(usize::from(is_full), Ordering::Relaxed);
    }

    /// The disk under a backup. It counts the attempts to take a backup while it is full.
    fn under(&self, backup: BackupAndRestore) -> (BackupAndRestore, Arc<AtomicUsize>) {
        let (disk, tries) = (self.clone(), Arc::new(AtomicUsize::new(0)));
        let counted = tries.clone();
        let filesystem = FaultyFilesystem::new(move |operation, path| {
            let is_full = disk.0.load(Ordering::Relaxed) == 1;
            if is_full && operation == Operation::SyncFile && path.ends_with("optimizer.bpk") {
                counted.fetch_add(1, Ordering::Relaxed);
                return Err(io::Error::from_raw_os_error(28).into());
            }
            Ok(())
        });
        (backup.filesystem(Arc::new(filesystem)), tries)
    }
}

/// The most attempts that fit into this time when the waits double from one second on.
fn most_attempts(time: Duration) -> usize {
    let mut waited = Duration::ZERO;
    let waits = (0..).map(|failures| Duration::from_secs(1 << failures.min(5)));
    let fitting = waits.take_while(|wait| {
        waited += *wait;
        waited <= time
    });
    1 + fitting.count()
}

#[test]
fn a_disk_that_is_full_for_many_batches_costs_a_few_tries_and_one_line() {
    log_lines::listen();
    let training = Training {
        epochs: 40,
        ..Training::new(Backend::Flex)
    };
    let expected = uninterrupted(&training);
    for frequency in [SaveFreq::Steps(1), SaveFreq::Continuous, SaveFreq::Epoch] {
        let lines_before = log_lines::logged(log::Level::Error).len();
        let scratch = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        disk.set_full(true);
        // The settings of an ordinary program.
        let backup = BackupAndRestore::new(scratch.path())
            .seed(5)
            .save_freq(frequency)
            .delete_checkpoint(false);
        let (backup, tries) = disk.under(backup);
        let handle = backup.handle();
        let freed = disk.clone();
        let begun = Instant::now();
        // The last backup, at the end, does not wait.
        let frees = move |batch| freed.set_full(batch < 240);
        let run = training.run_with_learner(
            Halt::Never,
            |training, hooks| training.learner(hooks.on_train(frees)),
            |builder| builder.backup_and_restore(backup),
        );
        let most = most_attempts(begun.elapsed());

        assert!(run.error.is_none());
        assert!(run.weights == expected.weights, "{frequency:?}");
        assert!(run.records == expected.records, "{frequency:?}");
        let tries = tries.load(Ordering::Relaxed);
        assert!(
            (1..=most).contains(&tries),
            "{tries} of {most}, {frequency:?}"
        );
        assert_eq!(handle.stats().failed, tries as u64);
        assert_eq!(handle.last_backup().map(|at| at.epoch), Some(41));
        let errors = log_lines::logged(log::Level::Error).split_off(lines_before);
        assert_eq!(errors.len(), 1, "{errors:?}");
        let again = format!("backups work again, after {tries} that failed");
        let warnings = log_lines::logged(log::Level::Warn);
        assert_eq!(warnings.last(), Some(&again), "{warnings:?}");
    }
}

#[test]
fn a_disk_that_stays_full_is_summed_up_at_the_end_and_kinds_that_take_turns_are_a_line_each() {
    log_lines::listen();
    let scratch = tempfile::tempdir().unwrap();
    let tries = AtomicUsize::new(0);
    let backup = Training::backup(scratch.path())
        .save_freq(1)
        .filesystem(Arc::new(FaultyFilesystem::new(move |operation, path| {
            if operation == Operation::SyncFile && path.ends_with("optimizer.bpk") {
                let codes = [28, 5];
                let code = codes[tries.fetch_add(1, Ordering::Relaxed) % 2];
                return Err(io::Error::from_raw_os_error(code).into());
            }
            Ok(())
        })));
    let handle = backup.handle();
    let run = Training::new(Backend::Flex).run(backup, Halt::Never);
    assert!(run.error.is_none());
    assert_eq!(handle.stats().failed, 19);
    let errors = log_lines::logged(log::Level::Error);
    assert_eq!(errors.len(), 2, "{errors:?}");
    let warnings = log_lines::logged(log::Level::Warn);
    let summary =
        "19 backups have failed, and none was committed since: see the first failure of each kind";
    assert!(
        warnings.iter().any(|line| line.contains(summary)),
        "{warnings:?}"
    );
}

#[test]
fn a_stop_is_saved_at_once_however_often_backups_have_failed() {
    let scratch = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    disk.set_full(true);
    let backup = Training::backup(scratch.path())
        .save_freq(1)
        .retry_after(Duration::from_secs(3600));
    let (backup, tries) = disk.under(backup);
    let handle = backup.handle();
    let training = Training::new(Backend::Flex);
    let interrupter = burn::train::Interrupter::new();
    let stop = interrupter.clone();
    let hooks = Hooks::default().on_train(move |batch| {
        if batch == 9 {
            disk.set_full(false);
            stop.stop(Some("the test stops it"));
        }
    });
    let builder = training.builder(&scratch.path().join("artifacts"), interrupter, Halt::Never);
    let result = builder
        .with_metric_logger(burn::train::logger::InMemoryMetricLogger::new())
        .renderer(Box::new(RecordingRenderer::new(Calls::default())))
        .backup_and_restore(backup)
        .launch(training.learner(hooks));
    assert!(result.interrupted.is_some());
    // One attempt, and no further one for an hour.
    assert_eq!(tries.load(Ordering::Relaxed), 1);
    assert_eq!(handle.stopped_at().map(|at| at.global_step), Some(9));
}
