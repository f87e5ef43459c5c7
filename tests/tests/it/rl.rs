//! Reinforcement learning: interrupted anywhere, it ends as if undisturbed.

mod program;
mod world;

use burn_backup_restore::{BackupAndRestore, SaveFreq};
use test_fork::test;

use program::{Program, Run, backup};
use world::Halt;

/// A run that is left alone.
fn undisturbed(program: &Program) -> Run {
    let scratch = tempfile::tempdir().unwrap();
    let run = program.run(backup(scratch.path()), Halt::Never);
    assert!(run.error.is_none(), "{:?}", run.error);
    assert!(run.interrupted.is_none());
    run
}

/// Interrupts the training by each of `halts` in turn, then lets it end, and compares what it leaves with
/// the `expected` run. Stops lose nothing, so that what was logged is compared as well.
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
        assert_eq!(
            run.error.is_some(),
            is_error,
            "{halt:?} in {halts:?}: {:?}",
            run.error
        );
        assert_eq!(run.interrupted.is_none(), is_error, "{halt:?} in {halts:?}");
        assert!(dir.join("generations").exists(), "{halt:?} in {halts:?}");
        logged.extend(run.logged().into_iter().map(str::to_owned));
    }
    let run = program.run(configure(backup(&dir)), Halt::Never);
    assert!(run.error.is_none(), "after {halts:?}: {:?}", run.error);
    assert!(run.interrupted.is_none());
    assert!(run.policy == expected.policy, "the policy after {halts:?}");
    if run.learned.trainings > 0 {
        assert!(
            run.learned.target == expected.learned.target,
            "the target after {halts:?}"
        );
        let optimizers = (&run.learned.optimizer, &expected.learned.optimizer);
        assert!(
            optimizers.0 == optimizers.1,
            "the optimizer after {halts:?}"
        );
    }
    logged.extend(run.logged().into_iter().map(str::to_owned));
    match halts.iter().any(|halt| matches!(halt, Halt::Fail(_))) {
        true => assert!(
            expected.logged().ends_with(&run.logged()),
            "logged after {halts:?}"
        ),
        false => assert!(expected.logged() == logged, "logged after {halts:?}"),
    }
    assert!(!dir.exists(), "deleted after success");
}

#[test]
fn how_often_backups_are_taken_does_not_change_the_training() {
    let program = Program::default();
    let expected = undisturbed(&program);
    assert_eq!((expected.steps, expected.learned.trainings), (1, 1));
    for frequency in [SaveFreq::Epoch, SaveFreq::Steps(4), SaveFreq::Never] {
        assert_exact(&program, &expected, |b| b.save_freq(frequency), &[]);
    }
}

#[test]
fn stopped_at_any_step_it_ends_as_if_undisturbed() {
    let program = Program::default();
    let expected = undisturbed(&program);
    for step in 1..=expected.steps {
        let frequency = [SaveFreq::Epoch, SaveFreq::Steps(4), SaveFreq::Never][step % 3];
        assert_exact(
            &program,
            &expected,
            |b| b.save_freq(frequency),
            &[Halt::Stop(step)],
        );
    }
}
