//! Preemption notices: real signals to real processes, and watchers.

use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use burn_backup_restore::{
    AfterPreemption, BackupAndRestore, BackupError, FileWatcher, Notice, Preemption,
    PreemptionWatcher, SaveFreq,
};
use burn_backup_store::testing::{FaultyFilesystem, Operation};
use burn_backup_tests::{Backend, Halt, Hooks, Run, Spread, Training, report};
use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use signal_hook::consts::SIGTERM;
use signal_hook::low_level::raise;
use test_fork::test;

use burn_backup_restore::BackupExt as _;

use crate::process::{Said, run, run_well, shell, trainee, trainee_itself};
use crate::support::{NeedsBatch, uninterrupted};

const BACKEND: Backend = Backend::Flex;

fn expected() -> Run {
    uninterrupted(&Training::new(BACKEND))
}

/// Runs a process that trains to the end, and compares its result with `expected`.
#[track_caller]
fn assert_ends_as(expected: &Run, dir: &Path, frequency: usize, before: Option<usize>) {
    let said = run_well(&mut trainee(BACKEND, dir, frequency, &["signals@0"]));
    assert_eq!((said.error.as_str(), said.interrupted.as_str()), ("", ""));
    assert!(before.is_none_or(|before| said.restored == before));
    assert!(said.weights == format!("{:?}", expected.weights));
    assert!(!dir.exists());
}

/// Runs a process that must be interrupted in order. Returns what it printed.
#[track_caller]
fn interrupted(dir: &Path, frequency: usize, told: &[&str]) -> Said {
    let said = run_well(&mut trainee(BACKEND, dir, frequency, told));
    assert_eq!(said.error, "");
    assert!(
        said.interrupted.contains("the training is saved at epoch"),
        "{told:?}: {}",
        said.interrupted
    );
    assert!(said.stopped_at.is_some());
    said
}

#[test]
fn a_signal_in_any_batch_has_that_batch_saved_and_the_next_process_end_as_if_uninterrupted() {
    let expected = expected();
    for (frequency, never) in [(0, "never@0"), (0, "-@0"), (1, "-@0"), (4, "-@0")] {
        for at in 1..=17 {
            for signal in ["term", "int"] {
                let scratch = tempfile::tempdir().unwrap();
                let dir = scratch.path().join("backup");
                let told = ["signals@0", never, &format!("{signal}@{at}")];
                let said = interrupted(&dir, frequency, &told);
                let name = format!("SIG{}; ", signal.to_uppercase());
                assert!(said.interrupted.starts_with(&name), "{}", said.interrupted);
                assert!(
                    said.interrupted
                        .contains(&format!("(batch {at} of the training)"))
                );
                assert_eq!(said.stopped_at, Some(at));
                if never == "never@0" {
                    assert_eq!(said.committed, 1, "on notice only");
                }
                assert_ends_as(&expected, &dir, frequency, Some(at));
            }
        }
    }
}

#[test]
fn a_signal_in_any_validation_batch_is_followed_before_the_next_one() {
    let expected = expected();
    for at in 1..=18_usize {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("backup");
        let told = ["signals@0", &format!("term-in-validation@{at}")];
        let said = interrupted(&dir, 0, &told);
        // An epoch has six batches to train and six to validate.
        assert_eq!(said.stopped_at, Some(6 * at.div_ceil(6)));
        assert_ends_as(&expected, &dir, 0, said.stopped_at);
    }
}

#[test]
fn a_signal_in_any_call_to_the_filesystem_is_followed_during_backups_and_before_the_first_batch() {
    let expected = expected();
    let mut stopped_at = Vec::new();
    let mut too_late = 0;
    for at in 1.. {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("backup");
        let told = ["signals@0", &format!("term-in-call@{at}")];
        let said = run_well(&mut trainee(BACKEND, &dir, 4, &told));
        let Some(at) = said.stopped_at else {
            // A signal during the last backup, or during the deletion after it, finds the training complete.
            assert_eq!(said.interrupted, "");
            assert!(said.weights == format!("{:?}", expected.weights));
            if said.notice.is_empty() {
                break;
            }
            assert_eq!(said.notice, "SIGTERM");
            too_late += 1;
            continue;
        };
        stopped_at.push(at);
        assert_ends_as(&expected, &dir, 4, Some(at));
    }
    assert!(stopped_at.len() > 50, "{stopped_at:?}");
    assert!(
        too_late > 20,
        "{too_late} during the last backup and the deletion"
    );
    assert_eq!(stopped_at[0], 0, "before the first batch");
}

#[test]
fn a_signal_during_the_restore_is_followed_before_the_next_batch() {
    let expected = expected();
    for at in (1..=24).chain([30, 40]) {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("backup");
        interrupted(&dir, 0, &["signals@0", "term@9"]);
        let told = ["signals@0", &format!("term-in-call@{at}")];
        let said = interrupted(&dir, 0, &told);
        assert_eq!(said.restored, 9);
        let stopped_at = said.stopped_at.unwrap();
        assert!(stopped_at >= 9);
        assert_ends_as(&expected, &dir, 0, Some(stopped_at));
    }
}

/// A small generator with a fixed seed: as far as timing allows, each run has the same moments.
fn numbers() -> TestRng {
    TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32])
}

#[test]
fn signals_at_random_moments_lose_nothing_and_hang_nothing() {
    const INTERRUPTIONS: usize = 120;

    let expected = expected();
    let mut numbers = numbers();
    let (mut interruptions, mut killed) = (0, 0);
    while interruptions < INTERRUPTIONS {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("backup");
        loop {
            let mut command = trainee(BACKEND, &dir, 3, &["signals@0"]);
            command.stdout(Stdio::piped()).stderr(Stdio::null());
            let child = command.spawn().unwrap();
            // The moment is random on purpose.
            thread::sleep(Duration::from_micros(numbers.next_u64() % 120_000));
            let kill = shell("kill -s TERM $0 2>/dev/null", &[child.id().to_string()]).status();
            kill.unwrap();
            let output = child.wait_with_output().unwrap();
            let said = Said::parse(&String::from_utf8(output.stdout).unwrap());
            if output.status.signal() == Some(SIGTERM) {
                // Before the launch and after it, the signal acts as without handlers.
                killed += 1;
                assert!(said.weights.is_empty() || !dir.exists());
                if said.weights.is_empty() {
                    continue;
                }
                break;
            }
            assert!(output.status.success(), "{}", output.status);
            if said.interrupted.is_empty() {
                assert!(said.weights == format!("{:?}", expected.weights));
                break;
            }
            assert!(said.stopped_at.is_some(), "{}", said.interrupted);
            interruptions += 1;
        }
    }
    report(&format!(
        "{interruptions} interruptions, {killed} outside of the training"
    ));
}

#[test]
fn signals_that_come_together_are_one_notice_and_the_training_is_saved() {
    let expected = expected();
    for told in [
        ["term@8", "term@8"],
        ["int@8", "int@8"],
        ["term@8", "int@8"],
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("backup");
        let told = [&["signals@0", "never@0"][..], &told].concat();
        let said = interrupted(&dir, 0, &told);
        assert_eq!(said.committed, 1, "{told:?}");
        assert_ends_as(&expected, &dir, 0, Some(8));
    }
    // A batch has ended in between, and the backup is being written.
    let mut during_the_backup = 0;
    for call in (2..60).step_by(4) {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("backup");
        let in_call = format!("term-in-call@{call}");
        let said = interrupted(&dir, 0, &["signals@0", "never@0", "term@8", &in_call]);
        during_the_backup += usize::from(said.stopped_at == Some(8));
        assert_ends_as(&expected, &dir, 0, said.stopped_at);
    }
    assert!(during_the_backup > 5, "{during_the_backup}");
}

#[test]
fn a_second_signal_ends_the_process_even_in_a_batch_without_end() {
    let expected = expected();
    for told in [&["term-again@8"][..], &["int@8", "term-again@8"]] {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("backup");
        let told = [&["signals@0"][..], told].concat();
        let (status, said) = run(&mut trainee(BACKEND, &dir, 1, &told));
        assert_eq!(status.signal(), Some(SIGTERM), "{told:?}");
        assert_eq!(said.weights, "");
        assert_ends_as(&expected, &dir, 1, None);
    }
}

#[test]
fn a_signal_that_the_process_was_started_to_ignore_is_no_notice() {
    let expected = expected();
    for (ignored, signal) in [("INT", "int@8"), ("TERM", "term@8"), ("USR1", "usr1@8")] {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("backup");
        let trainee = trainee(BACKEND, &dir, 0, &["signals@0", "usr1-too@0", signal]);
        let script = format!("trap '' {ignored}; exec \"$0\" \"$@\"");
        // The trainee without the program that resets its signals.
        let program = trainee_itself(&trainee);
        let said = run_well(&mut shell(&script, &program));
        assert_eq!((said.interrupted.as_str(), said.notice.as_str()), ("", ""));
        assert!(
            said.weights == format!("{:?}", expected.weights),
            "{ignored}"
        );
    }
}

#[test]
fn after_the_training_a_signal_acts_as_it_did_before() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let told = ["signals@0", "term-after@0"];
    let (status, said) = run(&mut trainee(BACKEND, &dir, 0, &told));
    assert_eq!(status.signal(), Some(SIGTERM));
    assert!(
        !said.weights.is_empty(),
        "the training ended before the signal"
    );
}

#[test]
fn a_program_that_handles_signals_with_tokio_gets_them_after_the_training() {
    for told in [["left@0", "tokio-after@0"], ["-@0", "tokio-before@0"]] {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("backup");
        let told = [&["signals@0"][..], &told].concat();
        let said = run_well(&mut trainee(BACKEND, &dir, 0, &told));
        assert_eq!(said.heard, "Ctrl-C", "{told:?}");
    }
}

#[test]
fn a_schedulers_signal_is_a_notice_and_not_the_end() {
    let expected = expected();
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let told = ["signals@0", "usr1-too@0", "usr1@8", "usr1@8", "term@8"];
    let said = interrupted(&dir, 0, &told);
    assert!(said.interrupted.contains("SIGUSR1") || said.interrupted.contains("SIGTERM"));
    assert_ends_as(&expected, &dir, 0, Some(8));
}

#[test]
fn a_second_kind_of_notice_ends_the_wait_of_the_first() {
    let expected = expected();
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let told = [
        "signals@0",
        "usr1-too@0",
        "never@0",
        "grace@36000000",
        "usr1@5",
        "usr1@7",
        "term@9",
    ];
    let said = interrupted(&dir, 0, &told);
    assert!(
        said.interrupted.starts_with("SIGTERM; "),
        "{}",
        said.interrupted
    );
    assert_eq!((said.stopped_at, said.committed), (Some(9), 2));
    assert_ends_as(&expected, &dir, 0, Some(9));
}

#[test]
fn wherever_the_notice_comes_no_metric_is_read_without_a_batch() {
    for spread in [Spread::One, Spread::Main(2), Spread::Ddp(2)] {
        let training = Training {
            epochs: 2,
            ..Training::spread(spread)
        };
        let mut ended = false;
        for at in 1.. {
            let scratch = tempfile::tempdir().unwrap();
            let calls = AtomicUsize::new(0);
            let filesystem = FaultyFilesystem::new(move |_, _| {
                if calls.fetch_add(1, Ordering::Relaxed) + 1 == at {
                    raise(SIGTERM).unwrap();
                }
                Ok(())
            });
            let backup = Training::backup(scratch.path().join("backup"))
                .filesystem(Arc::new(filesystem))
                .save_before_preemption(Preemption::signals());
            let backup = training.spread_over_devices(backup);
            let run = training.run_with(Halt::Never, |builder| {
                let builder = builder
                    .metric_train_numeric(NeedsBatch::default())
                    .metric_valid_numeric(NeedsBatch::default());
                builder.backup_and_restore(backup)
            });
            assert!(run.error.is_none(), "{spread:?}, {at}: {:?}", run.error);
            ended = run.interrupted.is_none();
            if ended {
                break;
            }
        }
        assert!(ended);
    }
}

#[test]
fn the_process_exits_with_the_requested_code() {
    let expected = expected();
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let told = ["signals@0", "exit@42", "term@8"];
    let (status, said) = run(&mut trainee(BACKEND, &dir, 0, &told));
    assert_eq!(status.code(), Some(42));
    assert_eq!(said.weights, "");
    assert_ends_as(&expected, &dir, 0, Some(8));
    // Without a notice, the launch returns.
    let said = run_well(&mut trainee(BACKEND, &dir, 0, &["signals@0", "exit@42"]));
    assert!(said.weights == format!("{:?}", expected.weights));
}

#[test]
fn with_time_left_it_is_saved_at_once_and_continues() {
    let expected = expected();
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let hours = ["signals@0", "never@0", "grace@36000000", "term@8"];
    let said = run_well(&mut trainee(BACKEND, &dir, 0, &hours));
    assert_eq!((said.interrupted.as_str(), said.committed), ("", 1));
    assert!(said.weights == format!("{:?}", expected.weights));
}

/// Raises SIGTERM in this process, in the middle of the training batch `at` of any device.
fn terminated_at(at: usize) -> impl FnOnce(Hooks) -> Hooks {
    move |hooks| {
        hooks.on_train(move |batch| {
            if batch == at {
                raise(SIGTERM).unwrap();
            }
        })
    }
}

fn run_hooked(
    training: &Training,
    backup: BackupAndRestore,
    hook: impl FnOnce(Hooks) -> Hooks,
) -> Run {
    let backup = training.spread_over_devices(backup);
    training.run_with_learner(
        Halt::Never,
        |training, hooks| training.learner(hook(hooks)),
        |builder| builder.backup_and_restore(backup),
    )
}

#[test]
fn all_devices_leave_at_the_same_batch() {
    for spread in [
        Spread::Main(3),
        Spread::Sharded(2),
        Spread::Ddp(2),
        Spread::Ddp(3),
    ] {
        let training = Training::spread(spread);
        let expected = uninterrupted(&training);
        let devices = spread.devices();
        for at in 1..=expected.losses.len() {
            let scratch = tempfile::tempdir().unwrap();
            let backup = || {
                let backup = Training::backup(scratch.path().join("backup"));
                backup.save_before_preemption(Preemption::signals())
            };
            let run = run_hooked(&training, backup(), terminated_at(at));
            let Some(interruption) = run.interrupted else {
                assert!(at + devices > expected.losses.len(), "{spread:?}, {at}");
                continue;
            };
            assert_eq!(
                run.losses.len() % devices,
                0,
                "{spread:?}: all have done {at}"
            );
            let handle = backup();
            let restored = handle.handle();
            let run = run_hooked(&training, handle, |hooks| hooks);
            let restored = restored.restored_from().unwrap();
            assert!(interruption.reason.unwrap().contains(&restored.to_string()));
            assert!(run.weights == expected.weights, "{spread:?}, {at}");
            assert!(run.records == expected.records, "{spread:?}, {at}");
        }
    }
}

#[test]
fn with_accumulated_gradients_it_is_saved_as_of_the_last_optimizer_step() {
    for accumulation in [3, 4] {
        let training = Training {
            accumulation: Some(accumulation),
            ..Training::new(BACKEND)
        };
        let expected = uninterrupted(&training);
        for at in 1..=17 {
            for grace in [Duration::ZERO, Duration::from_secs(36_000)] {
                let scratch = tempfile::tempdir().unwrap();
                let backup = || {
                    let preemption = Preemption::signals().grace_period(grace);
                    let backup = Training::backup(scratch.path().join("backup"));
                    let backup = backup.save_freq(SaveFreq::Never).delete_checkpoint(false);
                    backup.save_before_preemption(preemption)
                };
                let first = backup();
                let handle = first.handle();
                let run = run_hooked(&training, first, terminated_at(at));
                assert_eq!(run.interrupted.is_some(), grace.is_zero());
                assert_eq!(handle.stats().committed, 1, "{at}, {grace:?}");
                let run = run_hooked(&training, backup(), |hooks| hooks);
                assert!(run.weights == expected.weights, "{at}, {grace:?}");
            }
        }
    }
}

#[test]
fn a_notice_between_optimizer_steps_has_the_last_one_saved_without_waiting_for_the_next() {
    // The optimizer steps after every three batches. The notice comes after the fourth batch, and the fifth
    // fails.
    let training = Training {
        accumulation: Some(3),
        ..Training::new(BACKEND)
    };
    let scratch = tempfile::tempdir().unwrap();
    let backup = || {
        let preemption = Preemption::signals().grace_period(Duration::from_secs(36_000));
        let backup = Training::backup(scratch.path()).save_freq(SaveFreq::Never);
        backup.save_before_preemption(preemption)
    };
    let first = backup();
    let handle = first.handle();
    let batches = AtomicUsize::new(0);
    let run = training.run_with_learner(
        Halt::Fail(5),
        |training, hooks| {
            training.learner(hooks.on_device(move |_| {
                if batches.fetch_add(1, Ordering::Relaxed) + 1 == 4 {
                    raise(SIGTERM).unwrap();
                }
            }))
        },
        |builder| builder.backup_and_restore(first),
    );
    assert!(run.error.is_some());
    assert_eq!(handle.last_backup().map(|at| at.global_step), Some(3));
    let run = training.run(backup(), Halt::Never);
    assert!(run.weights == uninterrupted(&training).weights);
}

#[test]
fn a_last_backup_that_fails_is_retried_while_time_is_left() {
    let training = Training::new(BACKEND);
    for (failures, committed) in [(1, 1), (4, 1), (usize::MAX, 0)] {
        let scratch = tempfile::tempdir().unwrap();
        let syncs = AtomicUsize::new(0);
        let filesystem = FaultyFilesystem::new(move |operation, path| {
            let is_of_part = operation == Operation::SyncFile && path.ends_with("optimizer.bpk");
            match is_of_part && syncs.fetch_add(1, Ordering::Relaxed) < failures {
                true => Err(io::Error::new(io::ErrorKind::StorageFull, "no space left").into()),
                false => Ok(()),
            }
        });
        let preemption = Preemption::signals().grace_period(Duration::from_secs(10));
        let backup = Training::backup(scratch.path())
            .save_freq(SaveFreq::Never)
            .filesystem(Arc::new(filesystem))
            .save_before_preemption(preemption);
        let handle = backup.handle();
        let run = run_hooked(&training, backup, |hooks| {
            hooks.on_train(|batch| {
                if batch == 8 {
                    raise(SIGTERM).unwrap();
                    // A long batch. Another one of this length would leave no time, so the training ends
                    // here. That leaves five seconds for attempts that take milliseconds.
                    thread::sleep(Duration::from_secs(5));
                }
            })
        });
        let stats = handle.stats();
        assert_eq!(stats.committed, committed, "{failures}");
        assert_eq!(stats.failed, failures.min(5) as u64, "{failures}");
        let reason = run.interrupted.unwrap().reason.unwrap();
        let says = match committed {
            0 => "could NOT be saved",
            _ => "the training is saved at",
        };
        assert!(reason.contains(says), "{reason}");
    }
}

/// Gives a notice once the training has reached this batch.
struct At {
    batch: usize,
    trained: Arc<AtomicUsize>,
    deadline: Option<SystemTime>,
}

impl PreemptionWatcher for At {
    fn name(&self) -> String {
        "the test".to_owned()
    }

    fn poll(&mut self) -> Result<Option<Notice>, Box<dyn Error + Send + Sync>> {
        if self.trained.load(Ordering::Relaxed) < self.batch {
            return Err("not yet".into());
        }
        let notice = Notice::new("the test has it end");
        Ok(Some(match self.deadline {
            Some(deadline) => notice.with_deadline(deadline),
            None => notice,
        }))
    }

    fn interval(&self) -> Duration {
        Duration::ZERO
    }
}

#[test]
fn a_watcher_that_fails_first_ends_a_training_without_end_once_it_has_a_notice() {
    let endless = Training {
        epochs: 1_000_000,
        ..Training::new(BACKEND)
    };
    let hour = Duration::from_secs(3600);
    // The notice's own deadline is earlier than the platform's.
    for (grace, deadline) in [(Duration::ZERO, None), (hour, Some(SystemTime::now()))] {
        let scratch = tempfile::tempdir().unwrap();
        let trained = Arc::new(AtomicUsize::new(0));
        let watcher = At {
            batch: 20,
            trained: trained.clone(),
            deadline,
        };
        let preemption = Preemption::new().watch(watcher).grace_period(grace);
        let backup = Training::backup(scratch.path()).save_before_preemption(preemption);
        let handle = backup.handle();
        let run = run_hooked(&endless, backup, |hooks| {
            hooks.on_train(move |batch| trained.store(batch, Ordering::Relaxed))
        });
        let reason = run.interrupted.unwrap().reason.unwrap();
        assert!(reason.starts_with("the test has it end"), "{reason}");
        assert_eq!(handle.notice().unwrap().reason(), "the test has it end");
        let stopped_at = handle.stopped_at().unwrap();
        assert!(stopped_at.global_step >= 20);
        assert!(
            reason.contains(&format!("saved at {stopped_at}")),
            "{reason}"
        );
    }
}

#[test]
fn an_existing_file_is_a_notice_before_the_first_batch() {
    let training = Training::new(BACKEND);
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("leave");
    let backup = || {
        let preemption = Preemption::new().watch(FileWatcher::new(&file));
        Training::backup(scratch.path().join("backup")).save_before_preemption(preemption)
    };
    fs::write(&file, "the node is drained").unwrap();
    let endless = Training {
        epochs: 1_000_000,
        ..training.clone()
    };
    let run = endless.run(backup(), Halt::Never);
    let reason = run.interrupted.unwrap().reason.unwrap();
    assert!(
        reason.contains("leave") && reason.contains("the node is drained"),
        "{reason}"
    );
    fs::remove_file(&file).unwrap();
    let run = training.run(backup(), Halt::Stop(1));
    assert!(run.interrupted.is_some() || run.error.is_none());
}

#[test]
fn impossible_notices_are_refused_before_the_training() {
    let training = Training::new(BACKEND);
    let scratch = tempfile::tempdir().unwrap();
    for (preemption, named) in [
        (Preemption::new(), "nothing to watch for"),
        (Preemption::signals().signal(9), "the signal 9"),
        (Preemption::new().signal(-1), "the signal -1"),
        (
            Preemption::new().signal(11).after(AfterPreemption::Exit(3)),
            "the signal 11",
        ),
    ] {
        let dir = scratch.path().join("backup");
        let backup = Training::backup(&dir).save_before_preemption(preemption);
        let run = training.run(backup, Halt::Never);
        let error = run.backup_error();
        assert!(matches!(
            error,
            BackupError::EmptyPreemption | BackupError::ForbiddenSignal { .. }
        ));
        assert!(error.to_string().contains(named), "{error}");
        assert!(run.losses.is_empty() && !dir.exists());
    }
}
