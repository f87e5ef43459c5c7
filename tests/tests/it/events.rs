//! The events that a program gets about its backups.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use burn_backup_restore::{
    BackupAndRestore, BackupError, Event, FileWatcher, Mirror, Outcome, Preemption, SaveFreq,
};
use burn_backup_store::testing::{FaultyFilesystem, Operation};
use burn_backup_tests::{Backend, Halt, Loop, LoopHalt, Training};
use object_store::memory::InMemory;
use test_fork::test;

use crate::log_lines;
use crate::support::uninterrupted;

/// The events so far.
#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<Vec<Event>>>);

impl Told {
    /// Collects the events of `backup`.
    pub fn of(backup: BackupAndRestore) -> (BackupAndRestore, Self) {
        let told = Self::default();
        let kept = told.clone();
        let backup = backup.on_event(move |event| kept.lock().push(event));
        (backup, told)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Event>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn all(&self) -> Vec<Event> {
        self.lock().clone()
    }

    /// The names of the events, except those of the mirror, which come at any time.
    pub fn names(&self) -> Vec<&'static str> {
        let names = self.all().iter().map(Event::name).collect::<Vec<_>>();
        names
            .into_iter()
            .filter(|name| *name != "mirrored")
            .collect()
    }
}

/// The steps of the backups that were committed.
fn committed(events: &[Event]) -> Vec<u64> {
    let steps = events.iter().filter_map(|event| match event {
        Event::Committed { position, .. } => Some(position.global_step),
        _ => None,
    });
    steps.collect()
}

#[test]
fn an_interrupted_training_sends_its_events_in_order() {
    let scratch = tempfile::tempdir().unwrap();
    let cloud = Arc::new(InMemory::new());
    let training = Training::new(Backend::Flex);
    let told_of = |halt| {
        let mirror = Mirror::with_store(cloud.clone(), "run");
        let backup = Training::backup(scratch.path()).save_freq(4);
        let (backup, told) = Told::of(backup.mirror(mirror));
        let run = training.run(backup, halt);
        (told, run)
    };
    let (told, _) = told_of(Halt::Stop(8));
    assert_eq!(told.names(), ["committed", "committed", "finished"]);
    let events = told.all();
    assert_eq!(committed(&events), [4, 8]);
    let Some(Event::Finished {
        outcome: Outcome::Stopped {
            saved: Some(at), ..
        },
        exit_code: 75,
        error: None,
        last_backup: Some(last),
        ..
    }) = events.last()
    else {
        panic!("{events:?}");
    };
    assert_eq!((at.global_step, last.global_step), (8, 8));

    let (told, run) = told_of(Halt::Never);
    assert!(run.weights == uninterrupted(&training).weights);
    let names = [
        "restored",
        "committed",
        "committed",
        "committed",
        "finished",
    ];
    assert_eq!(told.names(), names);
    let events = told.all();
    assert_eq!(committed(&events), [12, 16, 18]);
    assert!(
        matches!(
            events.first(),
            Some(Event::Restored { position, bytes, generation: 2, .. })
                if position.global_step == 8 && *bytes > 0
        ),
        "{events:?}"
    );
    // The end waits for the mirror, and reports that first.
    let mut mirrored = events.iter().filter_map(|event| match event {
        Event::Mirrored { position, .. } => position.map(|at| at.global_step),
        _ => None,
    });
    assert_eq!(mirrored.next_back(), Some(18), "{events:?}");
    assert!(matches!(
        events.last(),
        Some(Event::Finished {
            outcome: Outcome::Finished,
            exit_code: 0,
            ..
        })
    ));
}

#[test]
fn failures_and_refusals_are_reported_with_their_number_in_a_row() {
    let scratch = tempfile::tempdir().unwrap();
    let saves = AtomicUsize::new(0);
    let backup = Training::backup(scratch.path())
        .save_freq(1)
        .filesystem(Arc::new(FaultyFilesystem::new(move |operation, path| {
            if operation == Operation::SyncFile && path.ends_with("optimizer.bpk") {
                let save = saves.fetch_add(1, Ordering::Relaxed) + 1;
                if save == 2 || save == 3 {
                    return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left").into());
                }
            }
            Ok(())
        })));
    let (backup, told) = Told::of(backup);
    let training = Training {
        epochs: 1,
        poisoned: Some((5, 5)),
        ..Training::new(Backend::Flex)
    };
    training.run(backup, Halt::Never);
    let names = [
        "committed",
        "failed",
        "failed",
        "committed",
        "refused",
        "committed",
        "committed",
        "finished",
    ];
    assert_eq!(told.names(), names);
    let events = told.all();
    for (at, expected) in [(1, 1), (2, 2)] {
        let Event::Failed {
            error,
            failures,
            cause,
            ..
        } = &events[at]
        else {
            panic!("{events:?}");
        };
        assert_eq!(*failures, expected);
        assert!(error.contains("no space left"), "{error}");
        assert!(matches!(**cause, BackupError::Store(_)));
    }
    let Event::Refused { error, .. } = &events[4] else {
        panic!("{events:?}");
    };
    assert!(error.contains("'steps' contains NaN"), "{error}");
}

#[test]
fn a_notice_and_a_refused_training_are_reported() {
    let scratch = tempfile::tempdir().unwrap();
    let notice = scratch.path().join("notice");
    std::fs::write(&notice, b"").unwrap();
    let dir = scratch.path().join("backup");
    let preemption = Preemption::new().watch(FileWatcher::new(&notice));
    let training = Training {
        epochs: 10_000,
        ..Training::new(Backend::Flex)
    };
    let (backup, told) = Told::of(Training::backup(&dir).save_before_preemption(preemption));
    training.run(backup, Halt::Never);
    let names = told.names();
    assert!(names.contains(&"noticed"), "{names:?}");
    assert_eq!(names.last(), Some(&"finished"));

    let (backup, told) = Told::of(Training::backup(Path::new("")));
    training.run(backup, Halt::Never);
    let events = told.all();
    assert!(
        matches!(
            events.as_slice(),
            [Event::Finished { outcome: Outcome::Refused, error: Some(error), .. }]
                if error.contains("path is empty")
        ),
        "{events:?}"
    );
}

#[test]
fn a_loop_by_hand_sends_the_same_events() {
    let scratch = tempfile::tempdir().unwrap();
    let program = Loop::new(Backend::Flex);
    let told_of = |halt| {
        let (backup, told) = Told::of(Training::backup(scratch.path()).save_freq(3));
        let _ = catch_unwind(AssertUnwindSafe(|| program.run(backup, halt)));
        told.names()
    };
    assert_eq!(
        told_of(LoopHalt::Stop(6)),
        ["committed", "committed", "finished"]
    );
    for halt in [LoopHalt::Panic(4), LoopHalt::Return(4), LoopHalt::Never] {
        let names = told_of(halt);
        let [first, between @ .., last] = names.as_slice() else {
            panic!("{halt:?}: {names:?}");
        };
        assert_eq!((*first, *last), ("restored", "finished"), "{halt:?}");
        let is_committed = |name: &&str| *name == "committed";
        assert!(between.iter().all(is_committed), "{halt:?}: {names:?}");
    }

    let (backup, told) = Told::of(Training::backup(Path::new("")));
    let refused = program.run(backup, LoopHalt::Never);
    assert!(refused.error.is_some());
    assert_eq!(told.names(), ["finished"]);
}

#[test]
fn a_training_that_panics_reports_its_end() {
    let scratch = tempfile::tempdir().unwrap();
    let (backup, told) = Told::of(Training::backup(scratch.path()).save_freq(1));
    let training = Training::new(Backend::Flex);
    let run = catch_unwind(AssertUnwindSafe(|| training.run(backup, Halt::Panic(4))));
    assert!(run.is_err());
    let events = told.all();
    assert!(
        matches!(
            events.last(),
            Some(Event::Finished {
                outcome: Outcome::Failed,
                ..
            })
        ),
        "{events:?}"
    );
}

/// How a callback misbehaves.
#[derive(Debug, Clone, Copy)]
pub enum Misbehaves {
    /// It panics at each event.
    Panics,
    /// It blocks forever at the first event.
    Blocks,
}

impl Misbehaves {
    pub fn with(self, backup: BackupAndRestore) -> (BackupAndRestore, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let backup = backup.on_event(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            match self {
                Self::Panics => panic!("the callback panics"),
                Self::Blocks => loop {
                    std::thread::park();
                },
            }
        });
        (backup, calls)
    }
}

#[test]
fn a_callback_that_panics_or_never_returns_changes_nothing_for_the_training() {
    let training = Training::new(Backend::Flex);
    let expected = uninterrupted(&training);
    for misbehaves in [Misbehaves::Panics, Misbehaves::Blocks] {
        let scratch = tempfile::tempdir().unwrap();
        let backup = Training::backup(scratch.path()).save_freq(1);
        let (backup, calls) = misbehaves.with(backup);
        let handle = backup.handle();
        let run = training.run(backup, Halt::Never);
        assert!(run.error.is_none(), "{misbehaves:?}: {:?}", run.error);
        assert!(run.weights == expected.weights, "{misbehaves:?}");
        assert_eq!(handle.stats().committed, 19);
        assert_eq!(handle.outcome(), Some(Outcome::Finished));
        let expected = match misbehaves {
            Misbehaves::Panics => 20,
            Misbehaves::Blocks => 1,
        };
        assert_eq!(calls.load(Ordering::Relaxed), expected, "{misbehaves:?}");
    }
}

#[test]
fn a_callback_that_panics_or_never_returns_changes_nothing_for_a_loop_by_hand() {
    for misbehaves in [Misbehaves::Panics, Misbehaves::Blocks] {
        let scratch = tempfile::tempdir().unwrap();
        let backup = Training::backup(scratch.path()).save_freq(1);
        let (backup, calls) = misbehaves.with(backup);
        let run = Loop::new(Backend::Flex).run(backup, LoopHalt::Never);
        assert_eq!(run.outcome, Some(Outcome::Finished), "{misbehaves:?}");
        assert!(calls.load(Ordering::Relaxed) > 0);
    }
}

#[test]
fn what_is_dropped_for_a_slow_callback_is_counted() {
    log_lines::listen();
    let scratch = tempfile::tempdir().unwrap();
    let training = Training {
        epochs: 60,
        ..Training::new(Backend::Flex)
    };
    let (release, held) = channel::<()>();
    let told = Told::default();
    let kept = told.clone();
    let mut is_first = true;
    let backup = Training::backup(scratch.path())
        .save_freq(1)
        .on_event(move |event| {
            kept.lock().push(event);
            if std::mem::take(&mut is_first) {
                let _ = held.recv();
            }
        });
    let handle = backup.handle();
    let last = 60 * 6;
    let run = training.run_with_learner(
        Halt::Never,
        |training, hooks| {
            let mut release = Some(release);
            training.learner(hooks.on_train(move |batch| {
                if batch == last {
                    drop(release.take());
                }
            }))
        },
        |builder| {
            use burn_backup_restore::BackupExt as _;
            builder.backup_and_restore(backup)
        },
    );
    assert!(run.error.is_none());
    let events = told.all();
    let dropped = events.iter().map(|event| match event {
        Event::Dropped { events, .. } => *events,
        _ => 0,
    });
    let dropped: u64 = dropped.sum();
    let told = events.iter().filter(|event| event.name() != "dropped");
    // An event for each commit, and one for the end.
    assert_eq!(told.count() as u64 + dropped, handle.stats().committed + 1);
    assert!(dropped >= 100, "{dropped}");
    assert_eq!(events.get(1).map(Event::name), Some("dropped"));
    assert_eq!(events.last().map(Event::name), Some("finished"));
    // The events are in order, and none comes twice.
    let steps = committed(&events);
    assert!(steps.is_sorted(), "{steps:?}");
    let warnings = log_lines::logged(log::Level::Warn);
    let slow = warnings
        .iter()
        .filter(|line| line.contains("slower than the events"));
    assert_eq!(slow.count(), 1, "{warnings:?}");
}

/// Waits in batch 5 until an event says that the training hangs there.
fn hang_until_reported(
    run: impl FnOnce(BackupAndRestore, Box<dyn FnMut(usize) + Send>),
    dir: &Path,
) {
    let (out, hung) = channel();
    let tell = move |out: &Sender<u64>, event: &Event| {
        if let Event::Hung {
            position: Some(at),
            silent,
            limit,
            ..
        } = event
        {
            assert!(silent > limit);
            let _ = out.send(at.global_step);
        }
    };
    let backup = Training::backup(dir)
        .save_freq(SaveFreq::Never)
        .hung_after(Duration::from_millis(4))
        .on_event(move |event| tell(&out, &event));
    let wait = move |batch| {
        // The fourth batch is the last complete one.
        while batch == 5 && hung.recv().unwrap() != 4 {}
    };
    run(backup, Box::new(wait));
}

#[test]
fn a_training_that_hangs_is_reported_while_it_does() {
    use burn_backup_restore::BackupExt as _;

    let scratch = tempfile::tempdir().unwrap();
    hang_until_reported(
        |backup, wait| {
            let run = Training::new(Backend::Flex).run_with_learner(
                Halt::Never,
                |training, hooks| training.learner(hooks.on_train(wait)),
                |builder| builder.backup_and_restore(backup),
            );
            assert!(run.error.is_none());
        },
        scratch.path(),
    );
}

/// What `tracing` got: the names of spans, and the fields of events.
static TRACED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Subscriber;

impl tracing::Subscriber for Subscriber {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "burn_backup"
    }

    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        let name = span.metadata().name();
        TRACED.lock().unwrap().push(format!("span {name}"));
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _span: &tracing::span::Id, _values: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _span: &tracing::span::Id, _follows: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Name;
        impl tracing::field::Visit for Name {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "event" {
                    TRACED.lock().unwrap().push(format!("event {value:?}"));
                }
            }
        }
        event.record(&mut Name);
    }

    fn enter(&self, _span: &tracing::span::Id) {}

    fn exit(&self, _span: &tracing::span::Id) {}
}

#[test]
fn tracing_has_a_span_for_each_stage_and_the_same_events_without_a_callback() {
    tracing::subscriber::set_global_default(Subscriber).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let training = Training::new(Backend::Flex);
    let backup = || Training::backup(scratch.path()).save_freq(1);
    training.run(backup(), Halt::Stop(3));
    training.run(backup(), Halt::Never);
    let traced = TRACED.lock().unwrap().clone();
    for expected in [
        "span restore",
        "span snapshot",
        "span encode",
        "span commit",
        "span prune",
        "event \"restored\"",
        "event \"committed\"",
        "event \"finished\"",
    ] {
        let times = traced.iter().filter(|line| *line == expected).count();
        assert!(times > 0, "{expected} in {traced:?}");
    }
    let times = |what: &str| traced.iter().filter(|line| *line == what).count();
    assert_eq!(times("span commit"), times("event \"committed\""));
    assert_eq!(times("event \"finished\""), 2);
}
