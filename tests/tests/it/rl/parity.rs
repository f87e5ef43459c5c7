//! The loop makes the same calls as Burn's.

use test_fork::test;

use super::program::{Program, Run, backup};
use super::world::Halt;

/// A program whose measurements depend neither on the drawn transitions nor on the acting policy. Burn's
/// environments are one step ahead.
fn even() -> Program {
    Program {
        is_even: true,
        measures_values: false,
        ..Program::default()
    }
}

/// The calls. Those that register metrics come first and are sorted, because Burn's hash map has no fixed
/// order.
fn ordered(run: &Run) -> Vec<String> {
    let is_registered = |call: &String| call.starts_with("register_metric");
    let (mut registered, others): (Vec<_>, Vec<_>) =
        run.calls.iter().cloned().partition(is_registered);
    registered.sort();
    registered.extend(others);
    registered
}

#[test]
fn burn_gets_the_same_calls_as_from_its_own_loop() {
    let default = even();
    let config = |train_interval, train_steps, eval_interval, eval_episodes| Program {
        config: default
            .config
            .clone()
            .with_train_interval(train_interval)
            .with_train_steps(train_steps)
            .with_eval_interval(eval_interval)
            .with_eval_episodes(eval_episodes),
        ..default.clone()
    };
    for program in [
        default.clone(),
        config(1, 1, 7, 1),
        config(4, 3, 5, 3),
        // Rounds that pass over evaluations.
        config(10, 1, 4, 1),
        config(2, 0, 1000, 1),
        Program {
            num_steps: 1,
            ..default.clone()
        },
    ] {
        let ours = assert_same_calls(&program);
        assert!(ours.interrupted.is_none());
        let events = ours.calls.iter();
        let steps = events.filter(|call| **call == "log_event EnvStep").count();
        assert!(steps > 0 || program.num_steps == 1);
    }
}

#[test]
fn a_stop_while_the_agent_is_trained_gives_the_same_calls_as_in_burns_loop() {
    for stop_at in [1, 2, 7] {
        let program = Program {
            stop_at: Some(stop_at),
            ..even()
        };
        let ours = assert_same_calls(&program);
        assert!(ours.interrupted.is_some());
        // A round has two trainings.
        assert_eq!(ours.learned.trainings, stop_at.next_multiple_of(2));
    }
}

/// Runs the program with both loops, and compares the calls that Burn gets.
#[track_caller]
fn assert_same_calls(program: &Program) -> Run {
    let scratch = tempfile::tempdir().unwrap();
    let ours = program.run(backup(scratch.path()), Halt::Never);
    assert!(ours.error.is_none(), "{:?}", ours.error);
    let burns = program.run_burns();
    assert!(burns.error.is_none(), "{:?}", burns.error);
    assert_eq!(ours.interrupted, burns.interrupted);
    let (our_calls, burns_calls) = (ordered(&ours), ordered(&burns));
    for (index, (ours, burns)) in our_calls.iter().zip(&burns_calls).enumerate() {
        assert_eq!(ours, burns, "call {index}, {:?}", program.config);
    }
    assert_eq!(our_calls.len(), burns_calls.len());
    assert_eq!(ours.learned.trainings, burns.learned.trainings);
    ours
}
