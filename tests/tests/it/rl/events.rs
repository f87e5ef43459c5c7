//! The events of a program that learns by reinforcement.

use burn_backup_restore::Outcome;
use std::sync::atomic::Ordering;
use test_fork::test;

use super::program::{Program, backup};
use super::world::Halt;
use crate::events::{Misbehaves, Told};

#[test]
fn reinforcement_learning_sends_the_same_events() {
    let scratch = tempfile::tempdir().unwrap();
    let program = Program::default();
    let told_of = |halt| {
        let (backup, told) = Told::of(backup(scratch.path()));
        program.run(backup, halt);
        told.names()
    };
    let names = told_of(Halt::Stop(5));
    assert!(names.iter().filter(|name| **name == "committed").count() >= 4);
    assert_eq!(names.last(), Some(&"finished"));
    let names = told_of(Halt::Never);
    assert_eq!(names.first(), Some(&"restored"));
    assert_eq!(names.last(), Some(&"finished"));
    let finished = names.iter().filter(|name| **name == "finished");
    assert_eq!(finished.count(), 1);
}

#[test]
fn a_callback_that_panics_or_never_returns_changes_nothing_for_reinforcement_learning() {
    for misbehaves in [Misbehaves::Panics, Misbehaves::Blocks] {
        let scratch = tempfile::tempdir().unwrap();
        let (backup, calls) = misbehaves.with(backup(scratch.path()));
        let run = Program::default().run(backup, Halt::Never);
        assert!(run.error.is_none(), "{misbehaves:?}");
        assert_eq!(run.handle.outcome(), Some(Outcome::Finished));
        assert!(calls.load(Ordering::Relaxed) > 0);
    }
}
