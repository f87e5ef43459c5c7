//! Reinforcement learning: interrupted anywhere, it ends as if uninterrupted.

mod events;
mod parity;
mod program;
mod world;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use burn_backup_restore::{
    BackupAndRestore, BackupError, Direction, Divergence, FastForward, Keep, Mirror, ObjectStore,
    Outcome, Preemption, SaveFreq, SharedState, Snapshot, Value, Which,
};
use burn_backup_tests::Training;
use object_store::memory::InMemory;
use test_fork::test;

use crate::support::{contents, generations};
use program::{Program, Run, backup};
use world::Halt;

const FREQUENCIES: [SaveFreq; 4] = [
    SaveFreq::Epoch,
    SaveFreq::Steps(1),
    SaveFreq::Steps(4),
    SaveFreq::Never,
];

/// An uninterrupted run.
fn uninterrupted(program: &Program) -> Run {
    let scratch = tempfile::tempdir().unwrap();
    let run = program.run(backup(scratch.path()), Halt::Never);
    assert!(run.error.is_none(), "{:?}", run.error);
    assert!(run.interrupted.is_none());
    run
}

/// Interrupts the training by each of `halts` in turn, then lets it end. Compares the result with the
/// `expected` run. Stops lose nothing, so that the logs are compared as well.
#[track_caller]
fn assert_exact(
    program: &Program,
    expected: &Run,
    configure: impl Fn(BackupAndRestore) -> BackupAndRestore,
    halts: &[Halt],
) {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let mut logged = Vec::new();
    for halt in halts {
        let run = program.run(configure(backup(&dir)), *halt);
        let is_error = matches!(halt, Halt::Fail(_));
        let error = &run.error;
        assert_eq!(error.is_some(), is_error, "{halts:?}: {error:?}");
        assert_eq!(run.interrupted.is_none(), is_error, "{halt:?} in {halts:?}");
        assert!(dir.exists(), "{halt:?} in {halts:?}");
        logged.extend(run.logged().into_iter().map(str::to_owned));
    }
    let run = program.run(configure(backup(&dir)), Halt::Never);
    assert!(run.error.is_none(), "after {halts:?}: {:?}", run.error);
    assert!(run.interrupted.is_none());
    assert_same_end(&run, expected, halts);
    logged.extend(run.logged().into_iter().map(str::to_owned));
    match halts.iter().any(|halt| matches!(halt, Halt::Fail(_))) {
        true => assert!(expected.logged().ends_with(&run.logged()), "{halts:?}"),
        false => assert!(expected.logged() == logged, "logged after {halts:?}"),
    }
    assert!(!dir.exists(), "deleted after success");
}

#[track_caller]
fn assert_same_end(run: &Run, expected: &Run, halts: &[Halt]) {
    assert!(run.policy == expected.policy, "the policy after {halts:?}");
    let (learned, expected) = (&run.learned, &expected.learned);
    if learned.trainings > 0 {
        assert!(learned.target == expected.target, "the target, {halts:?}");
        assert!(
            learned.optimizer == expected.optimizer,
            "the optimizer, {halts:?}"
        );
    }
}

#[test]
fn how_often_backups_are_taken_does_not_change_the_training() {
    let program = Program::default();
    let expected = uninterrupted(&program);
    // Burn's loop makes one step fewer than requested, in whole rounds, and evaluates three times.
    assert!(expected.steps > 36 + 3 * 2, "{} steps", expected.steps);
    assert_eq!(expected.learned.trainings, 20);
    for frequency in FREQUENCIES {
        assert_exact(&program, &expected, |b| b.save_freq(frequency), &[]);
    }
}

#[test]
fn stopped_at_any_step_it_ends_as_if_uninterrupted() {
    let program = Program::default();
    let expected = uninterrupted(&program);
    for step in 1..=expected.steps {
        let frequency = FREQUENCIES[step % FREQUENCIES.len()];
        let halts = [Halt::Stop(step)];
        assert_exact(&program, &expected, |b| b.save_freq(frequency), &halts);
    }
}

#[test]
fn failed_at_any_step_it_ends_as_if_uninterrupted() {
    let program = Program::default();
    let expected = uninterrupted(&program);
    for step in (1..=expected.steps).step_by(3) {
        let frequency = FREQUENCIES[step % FREQUENCIES.len()];
        let halts = [Halt::Fail(step)];
        assert_exact(&program, &expected, |b| b.save_freq(frequency), &halts);
    }
}

#[test]
fn interrupted_several_times_it_ends_as_if_uninterrupted() {
    use Halt::{Fail, Stop};

    let program = Program::default();
    let expected = uninterrupted(&program);
    for halts in [
        &[Stop(1), Stop(1), Stop(1)][..],
        &[Stop(13), Stop(2), Fail(2), Stop(9)],
        // An evaluation of two episodes begins after the twelfth step. Each stop ends none or one of them.
        &[
            Stop(13),
            Stop(2),
            Stop(4),
            Stop(1),
            Stop(3),
            Stop(11),
            Stop(2),
        ],
        &[Fail(20), Fail(20), Fail(20)],
    ] {
        for frequency in [SaveFreq::Steps(1), SaveFreq::Epoch, SaveFreq::Never] {
            assert_exact(&program, &expected, |b| b.save_freq(frequency), halts);
        }
    }
}

#[test]
fn several_environments_are_resumed_exactly() {
    let default = Program::default();
    let program = Program {
        config: default.config.clone().with_num_envs(3),
        ..default
    };
    let expected = uninterrupted(&program);
    for step in (1..=expected.steps).step_by(4) {
        let halts = [Halt::Stop(step), Halt::Stop(3)];
        assert_exact(&program, &expected, |b| b.save_freq(4), &halts[..1]);
        if step + 3 < expected.steps {
            assert_exact(&program, &expected, |b| b, &halts);
        }
    }
}

#[test]
fn after_a_panic_in_an_environment_the_next_run_ends_as_if_uninterrupted() {
    let program = Program::default();
    let expected = uninterrupted(&program);
    for step in [1, 8, 14, expected.steps] {
        let scratch = tempfile::tempdir().unwrap();
        let panics = || program.run(backup(scratch.path()), Halt::Panic(step));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        let run = program.run(backup(scratch.path()), Halt::Never);
        assert!(run.error.is_none(), "{:?}", run.error);
        assert_same_end(&run, &expected, &[Halt::Panic(step)]);
    }
}

#[test]
fn the_snapshot_and_the_kept_backups_make_no_difference() {
    let program = Program::default();
    let expected = uninterrupted(&program);
    for step in [9, 13, 25] {
        let halts = [Halt::Stop(step)];
        let blocking = |b: BackupAndRestore| b.snapshot(Snapshot::Blocking);
        assert_exact(&program, &expected, blocking, &halts);
        assert_exact(&program, &expected, |b| b.keep_last(3), &halts);
    }
}

#[test]
fn on_another_machine_it_resumes_from_the_mirror_and_ends_as_if_uninterrupted() {
    let program = Program::default();
    let expected = uninterrupted(&program);
    // Interruptions in a round, in an evaluation, and near the end.
    for halts in [
        &[Halt::Stop(5), Halt::Stop(1)][..],
        &[Halt::Stop(14)],
        &[Halt::Fail(20), Halt::Stop(8), Halt::Stop(2)],
    ] {
        let machines = tempfile::tempdir().unwrap();
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let run = |machine: usize, halt| {
            let mirror = Mirror::with_store(objects.clone(), "run");
            let dir = machines.path().join(machine.to_string()).join("backup");
            let backup = backup(&dir).mirror(mirror.lease_ttl(Duration::from_millis(200)));
            (program.run(backup, halt), dir)
        };
        let mut last = None;
        for (machine, halt) in halts.iter().enumerate() {
            let (stopped, _) = run(machine, *halt);
            assert_eq!(stopped.handle.restored_from(), last, "{halts:?}");
            // The last process may end before there is anything to save.
            last = stopped.handle.last_backup().or(last);
            let stats = stopped.handle.mirror_stats().unwrap();
            assert_eq!(stats.last, last, "{halts:?}");
        }
        assert!(last.is_some());
        let (end, dir) = run(halts.len(), Halt::Never);
        assert!(end.error.is_none(), "{:?}", end.error);
        assert_eq!(end.handle.restored_from(), last, "{halts:?}");
        assert_same_end(&end, &expected, halts);
        assert!(!dir.exists(), "deleted after success");
    }
}

#[test]
fn the_requested_number_of_backups_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let backup = backup(scratch.path()).keep_last(3);
    let run = Program::default().run(backup, Halt::Stop(12));
    assert!(run.error.is_none());
    assert_eq!(generations(scratch.path()).len(), 3);
    assert_eq!(run.handle.stopped_at().unwrap().global_step, 12);
}

#[test]
fn environments_that_cannot_be_saved_only_begin_new_episodes() {
    let program = Program {
        is_exact: false,
        ..Program::default()
    };
    let expected = uninterrupted(&program);
    let scratch = tempfile::tempdir().unwrap();
    let stopped = program.run(backup(scratch.path()), Halt::Stop(10));
    assert_eq!(stopped.handle.stopped_at().unwrap().global_step, 10);
    let resumed = program.run(backup(scratch.path()), Halt::Never);
    assert!(resumed.error.is_none(), "{:?}", resumed.error);
    assert_eq!(resumed.handle.restored_from().unwrap().global_step, 10);
    let count = |run: &Run, event: &str| {
        let events = run.calls.iter();
        events
            .filter(|call| **call == format!("log_event {event}"))
            .count()
    };
    let both = |event| count(&stopped, event) + count(&resumed, event);
    assert_eq!(both("TrainStep"), count(&expected, "TrainStep"));
    assert!(
        resumed
            .learned
            .optimizer
            .keys()
            .eq(expected.learned.optimizer.keys())
    );
    assert_eq!(
        resumed
            .learned
            .optimizer
            .iter()
            .find(|(name, _)| name.ends_with("time")),
        expected
            .learned
            .optimizer
            .iter()
            .find(|(name, _)| name.ends_with("time")),
        "Adam has counted all steps"
    );
    // Two backups of the same moment still continue in the same way.
    let again = program.run(backup(&scratch.path().join("again")), Halt::Stop(10));
    assert!(again.policy == stopped.policy);
}

#[test]
fn a_signal_has_the_training_saved_and_stopped_at_the_current_step() {
    let program = Program::default();
    let expected = uninterrupted(&program);
    // The last signal comes in an evaluation.
    for step in [5, 9, 14] {
        let configure = |b: BackupAndRestore| {
            b.save_before_preemption(Preemption::signals())
                .save_freq(SaveFreq::Never)
        };
        assert_exact(&program, &expected, configure, &[Halt::Notice(step)]);
    }
}

#[test]
fn a_complete_training_returns_its_policy_again() {
    let program = Program::default();
    let scratch = tempfile::tempdir().unwrap();
    let keeping = || backup(scratch.path()).delete_checkpoint(false);
    let first = program.run(keeping(), Halt::Never);
    assert_eq!(first.handle.outcome(), Some(Outcome::Finished));
    let again = program.run(keeping(), Halt::Never);
    assert_eq!(again.handle.outcome(), Some(Outcome::Finished));
    assert_eq!(again.steps, 0);
    assert!(again.policy == first.policy);

    // With more steps, it continues as if it had them from the start.
    let longer = Program {
        num_steps: program.num_steps + 9,
        ..program
    };
    let expected = uninterrupted(&longer);
    let run = longer.run(backup(scratch.path()), Halt::Never);
    assert_same_end(&run, &expected, &[]);
}

#[test]
fn a_policy_that_holds_nan_does_not_replace_a_good_one() {
    let program = Program {
        nan_at: Some(5),
        ..Program::default()
    };
    let scratch = tempfile::tempdir().unwrap();
    let run = program.run(backup(scratch.path()), Halt::Never);
    assert!(run.error.is_none(), "{:?}", run.error);
    assert!(run.handle.stats().refused > 0);
    let error = run.handle.last_error().unwrap();
    assert!(matches!(*error, BackupError::ContainsNan { .. }), "{error}");
    assert!(run.handle.last_backup().unwrap().global_step < 18);

    // Once the cause is fixed, the training ends as it should.
    let program = Program {
        nan_at: None,
        ..program
    };
    let expected = uninterrupted(&program);
    let run = program.run(backup(scratch.path()), Halt::Never);
    assert_same_end(&run, &expected, &[]);

    let scratch = tempfile::tempdir().unwrap();
    let never = backup(scratch.path()).save_freq(SaveFreq::Never);
    let stopped = program.run(never, Halt::Stop(12));
    assert!(stopped.interrupted.is_some());
    let poisoned = Program {
        nan_at: Some(5),
        ..program
    };
    let never = backup(scratch.path()).save_freq(SaveFreq::Never);
    poisoned.run(never, Halt::Never);
    assert_eq!(
        generations(scratch.path()).len(),
        1,
        "the last good one stays"
    );
}

#[test]
fn unchanged_segments_of_the_replay_buffer_are_linked() {
    // A row has 64 KiB, and four rows are a segment.
    let default = Program::default();
    let program = Program {
        padding: 8_000,
        config: default.config.clone().with_replay_buffer_size(12),
        ..default
    };
    let scratch = tempfile::tempdir().unwrap();
    let keeping = backup(scratch.path()).keep_last(usize::MAX);
    let run = program.run(keeping, Halt::Stop(14));
    assert!(run.error.is_none(), "{:?}", run.error);
    let inodes = |segment: &str| -> Vec<u64> {
        let generations = scratch.path().join("generations");
        let mut dirs: Vec<_> = fs::read_dir(generations)
            .unwrap()
            .map(|dir| dir.unwrap().path())
            .collect();
        dirs.sort();
        let files = dirs
            .into_iter()
            .map(|dir| dir.join(format!("replay-{segment}.bpk")));
        files
            .filter_map(|file| Some(file.metadata().ok()?.ino()))
            .collect()
    };
    let changes = |segment| {
        let inodes = inodes(segment);
        let changes = inodes.windows(2).filter(|pair| pair[0] != pair[1]).count();
        (inodes.len() - 1, changes)
    };
    // A backup may be left out while another one is being written.
    let (backups, changed) = changes("00001");
    assert!(backups > 3 && changed < backups, "{changed} of {backups}");
    assert!(run.handle.stats().linked > 0);
    // The segments are linked after a restart as well.
    let before = inodes("00002");
    let run = program.run(backup(scratch.path()).keep_last(usize::MAX), Halt::Stop(2));
    assert!(run.error.is_none(), "{:?}", run.error);
    assert_eq!(inodes("00002").last(), before.last());
}

#[test]
fn a_damaged_backup_is_set_aside_and_the_previous_one_is_resumed() {
    let program = Program::default();
    let expected = uninterrupted(&program);
    for damaged in ["replay-00000", "policy-value", "environments-value"] {
        let scratch = tempfile::tempdir().unwrap();
        let keeping = || backup(scratch.path()).keep_last(2);
        program.run(keeping(), Halt::Stop(12));
        let newest = generations(scratch.path()).pop().unwrap();
        let file = scratch
            .path()
            .join(format!("generations/{newest}/{damaged}.bpk"));
        let mut bytes = fs::read(&file).unwrap();
        bytes[0] ^= 1;
        fs::remove_file(&file).unwrap();
        fs::write(&file, bytes).unwrap();
        let run = program.run(keeping(), Halt::Never);
        assert!(run.error.is_none(), "{damaged}: {:?}", run.error);
        let from = run.handle.restored_from().unwrap().global_step;
        assert!(from < 12, "{damaged}: {from}");
        assert_same_end(&run, &expected, &[]);
    }
}

/// Asserts that `program` refuses the backup in `dir`, which stays as it is.
#[track_caller]
fn assert_refused(program: &Program, backup: BackupAndRestore, dir: &Path, said: &[&str]) {
    let before = contents(dir);
    let run = program.run(backup, Halt::Never);
    assert_eq!(run.handle.outcome(), Some(Outcome::Refused));
    assert_eq!(run.steps, 0, "nothing was trained");
    let error = run.backup_error().to_string();
    for part in said {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
    assert!(contents(dir) == before, "it was not touched");
}

#[test]
fn a_backup_of_another_training_is_refused_and_stays_as_it_is() {
    let program = Program::default();
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let run = program.run(backup(&dir), Halt::Stop(12));
    assert!(run.interrupted.is_some());
    let config = program.config.clone();

    let other = Program {
        config: config.clone().with_replay_buffer_size(25),
        ..program.clone()
    };
    let said = [
        "replay_buffer_size was 24, and is 25 now",
        "was not touched",
    ];
    assert_refused(&other, backup(&dir), &dir, &said);
    let other = Program {
        config: config.clone().with_num_envs(2),
        ..program.clone()
    };
    assert_refused(
        &other,
        backup(&dir),
        &dir,
        &["num_envs was 1, and is 2 now"],
    );
    let other = Program {
        hidden: 7,
        ..program.clone()
    };
    let said = ["'policy: hidden.weight' is [2, 6] f32 in the backup and [2, 7]"];
    assert_refused(&other, backup(&dir), &dir, &said);
    let other = Program {
        is_exact: false,
        ..program.clone()
    };
    assert_refused(&other, backup(&dir), &dir, &["'environments'"]);
    assert_refused(
        &program,
        backup(&dir).seed(6),
        &dir,
        &["the run seed was 5"],
    );

    // None of these refusals has changed anything.
    let expected = uninterrupted(&program);
    let run = program.run(backup(&dir), Halt::Never);
    assert_same_end(&run, &expected, &[]);

    let supervised = Training::new(burn_backup_tests::Backend::Flex);
    supervised.run(
        Training::backup(&dir).save_freq(1),
        burn_backup_tests::Halt::Stop(2),
    );
    let said = [
        "the program lacks one without a name",
        "lacks 'acting_policy'",
    ];
    assert_refused(&program, BackupAndRestore::new(&dir), &dir, &said);
}

#[test]
fn settings_that_would_do_nothing_are_refused() {
    let program = Program::default();
    let scratch = tempfile::tempdir().unwrap();
    let backup = || backup(scratch.path());
    let table = [
        (backup().metric_logs("logs"), "metric_logs"),
        (backup().artifacts("artifacts"), "artifacts"),
        (
            backup().fast_forward(FastForward::Replay),
            "FastForward::Replay",
        ),
        (backup().gradient_checkpointing(), "gradient_checkpointing"),
        (backup().allow_short_epochs(), "allow_short_epochs"),
        (backup().keep_last(0), "keep_last(0)"),
        (backup().save_freq(0), "Steps(0)"),
    ];
    for (backup, said) in table {
        assert_refused(&program, backup, scratch.path(), &[said]);
    }
    let zero = |config| Program {
        config,
        ..Program::default()
    };
    let config = || Program::default().config;
    for (config, said) in [
        (config().with_num_envs(0), "num_envs is 0"),
        (
            config().with_replay_buffer_size(0),
            "replay_buffer_size is 0",
        ),
        (config().with_train_interval(0), "train_interval is 0"),
        (config().with_train_batch_size(0), "train_batch_size is 0"),
    ] {
        assert_refused(&zero(config), backup(), scratch.path(), &[said]);
    }
}

#[test]
fn a_training_continues_with_another_interval() {
    let program = Program::default();
    let scratch = tempfile::tempdir().unwrap();
    program.run(backup(scratch.path()), Halt::Stop(7));
    let other = Program {
        config: program
            .config
            .clone()
            .with_train_interval(1)
            .with_train_steps(1),
        ..program
    };
    let run = other.run(backup(scratch.path()), Halt::Never);
    assert!(run.error.is_none(), "{:?}", run.error);
    // One training after each step from the ninth on.
    assert_eq!(run.learned.trainings, 28);
}

#[test]
fn a_state_of_the_programs_own_is_saved_and_restored() {
    let program = Program::default();
    let scratch = tempfile::tempdir().unwrap();
    let best = SharedState::new(Value(3_u32));
    program.run(
        backup(scratch.path()).state("best", best.clone()),
        Halt::Stop(5),
    );
    let restored = SharedState::new(Value(0_u32));
    let run = program.run(
        backup(scratch.path()).state("best", restored.clone()),
        Halt::Stop(5),
    );
    assert!(run.error.is_none(), "{:?}", run.error);
    assert_eq!(**restored.lock(), 3);

    let clash = backup(scratch.path()).state("replay", SharedState::new(Value(0_u32)));
    let run = program.run(clash, Halt::Never);
    assert!(matches!(run.backup_error(), BackupError::StateName { .. }));
}

#[test]
fn the_ends_of_evaluations_are_kept_and_can_be_restored_and_best_is_refused() {
    let program = Program::default();
    let expected = uninterrupted(&program);
    let scratch = tempfile::tempdir().unwrap();
    let kept = |backup: BackupAndRestore| {
        let keep = Keep::last(1).and(Keep::every_epochs(1));
        backup.keep(keep).delete_checkpoint(false)
    };
    let run = program.run(kept(backup(scratch.path())), Halt::Never);
    assert!(run.error.is_none(), "{:?}", run.error);
    let names = generations(scratch.path());
    // Three evaluations, or the last one and the end of the training.
    assert!(names.len() >= 3, "{names:?}");
    for step in [1, 5] {
        // The first start goes back, and the second one continues.
        let again = kept(backup(scratch.path())).restore_from(Which::Epoch(2));
        let run = program.run(again, Halt::Stop(step));
        assert!(run.error.is_none(), "{:?}", run.error);
    }
    let aside = fs::read_dir(scratch.path().join("aside")).unwrap().count();
    assert_eq!(aside, names.len() - 2);
    let again = kept(backup(scratch.path())).restore_from(Which::Epoch(2));
    let run = program.run(again, Halt::Never);
    assert_same_end(&run, &expected, &[]);

    let best = Keep::best("CumulativeReward", Direction::Highest, 1);
    let which = Which::best("CumulativeReward", Direction::Highest);
    let scratch = tempfile::tempdir().unwrap();
    for backup in [
        backup(scratch.path()).keep(best),
        backup(scratch.path()).restore_from(which),
    ] {
        let run = program.run(backup, Halt::Never);
        let error = run.backup_error();
        assert!(matches!(error, BackupError::NotForRl { .. }), "{error}");
    }
}

#[test]
fn after_a_loss_of_nan_it_goes_back_and_ends_the_same_interrupted_or_not() {
    let program = Program {
        nan_at: Some(9),
        ..Program::default()
    };
    let guarded = |dir: &Path| {
        backup(&dir.join("backup"))
            .metric_logs(dir.join("logs"))
            .on_divergence(Divergence::RollBack { at_most: 2 })
    };
    let mut expected: Option<Run> = None;
    for frequency in [SaveFreq::Epoch, SaveFreq::Steps(1), SaveFreq::Steps(4)] {
        let scratch = tempfile::tempdir().unwrap();
        let run = program.run(guarded(scratch.path()).save_freq(frequency), Halt::Never);
        assert!(run.error.is_none(), "{:?}", run.error);
        let stats = run.handle.stats();
        assert_eq!((stats.rolled_back, stats.refused), (1, 0), "{frequency:?}");
        if let Some(expected) = &expected {
            assert_same_end(&run, expected, &[]);
        }
        expected = Some(run);
    }
    let expected = expected.unwrap();
    // The step with the NaN is the 21st, and its metrics come later. The process after it has no NaN.
    let mut interrupted_after_it = 0;
    let mended = Program {
        nan_at: None,
        ..program.clone()
    };
    for step in (24..=expected.steps).step_by(3) {
        for halt in [Halt::Stop(step), Halt::Fail(step)] {
            let scratch = tempfile::tempdir().unwrap();
            let first = program.run(guarded(scratch.path()).save_freq(1), halt);
            // The training was complete before that step, or interrupted before the NaN was seen.
            let is_complete = first.interrupted.is_none() && first.error.is_none();
            if is_complete || first.handle.stats().rolled_back == 0 {
                continue;
            }
            interrupted_after_it += 1;
            let last = mended.run(guarded(scratch.path()).save_freq(1), Halt::Never);
            assert!(last.error.is_none(), "{halt:?}: {:?}", last.error);
            assert_same_end(&last, &expected, &[halt]);
        }
    }
    // The delay of the metrics varies.
    assert!(interrupted_after_it > 0);

    let scratch = tempfile::tempdir().unwrap();
    let unseen = backup(scratch.path()).on_divergence(Divergence::Stop);
    let refused = program.run(unseen, Halt::Never);
    let text = refused.backup_error().to_string();
    assert!(text.contains("BackupAndRestore::metric_logs"), "{text}");
    let stopping = guarded(scratch.path()).on_divergence(Divergence::Stop);
    let stopped = program.run(stopping, Halt::Never);
    assert!(
        matches!(stopped.backup_error(), BackupError::Diverged { .. }),
        "{}",
        stopped.backup_error()
    );
}
