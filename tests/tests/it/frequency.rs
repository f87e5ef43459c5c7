//! Backups by time, and by their cost.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::yield_now;
use std::time::{Duration, Instant};

use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};
use burn::train::Learner;
use burn_backup_restore::{
    BackupAndRestore, BackupExt as _, BackupHandle, BackupStats, SaveFreq, Snapshot,
};
use burn_backup_store::testing::{FaultyFilesystem, MemoryFilesystem, Operation};
use burn_backup_store::{OpenOptions, Store};
use burn_backup_tests::{Backend, Halt, Run, Training};
use test_fork::test;

use crate::support::{assert_exact, generations, uninterrupted};

const NANOSECOND: Duration = Duration::from_nanos(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn auto(max_overhead: f64) -> SaveFreq {
    SaveFreq::auto(max_overhead)
}

/// How many backups an uninterrupted training takes.
fn backups(training: &Training, frequency: impl Into<SaveFreq>) -> u64 {
    let scratch = tempfile::tempdir().unwrap();
    let backup = Training::backup(scratch.path()).save_freq(frequency);
    let handle = backup.handle();
    let run = training.run(backup, Halt::Never);
    assert!(run.error.is_none());
    assert_eq!(handle.interval(), None, "only Auto has one");
    assert_eq!(handle.stats().slowed_total, Duration::ZERO);
    assert_eq!(handle.stats().failed, 0);
    handle.stats().committed
}

#[test]
fn after_a_nanosecond_every_batch_and_every_epoch_is_saved() {
    let training = Training::new(Backend::Flex);
    assert_eq!(backups(&training, NANOSECOND), 18 + 3);
    // Gradients are accumulated over four batches, or over the rest of an epoch.
    let accumulating = Training {
        accumulation: Some(4),
        ..training.clone()
    };
    assert_eq!(backups(&accumulating, NANOSECOND), 2 * 3 + 3);
}

#[test]
fn after_less_than_a_day_only_the_end_is_saved() {
    let training = Training::new(Backend::Flex);
    assert_eq!(backups(&training, DAY), 1);
    assert_eq!(backups(&training, Duration::MAX), 1);
    // `Never` takes no backup at all.
    assert_eq!(backups(&training, SaveFreq::Never), 0);
}

#[test]
fn between_two_backups_by_the_clock_there_is_that_much_time() {
    let training = long_training();
    let interval = Duration::from_millis(20);
    let configure = |b: BackupAndRestore| b.save_freq(interval).keep_last(2);
    let (_, handle, seen) = watched(&training, training.schedule(), configure, |_, _| ());
    let took = seen.last().unwrap().now;
    // Each backup up to the last batch changes `blocked_total`. Some of them may be after an epoch.
    let held: BTreeSet<_> = seen.iter().map(|seen| seen.stats.blocked_total).collect();
    let backups = held.len() as u32 - 1;
    assert!(interval * backups <= took, "{backups} in {took:?}");
    assert_eq!(handle.stats().failed, 0);
}

#[test]
fn a_stop_is_saved_whatever_the_time() {
    let scratch = tempfile::tempdir().unwrap();
    let training = Training::new(Backend::Flex);
    for frequency in [SaveFreq::Every(DAY), auto(f64::MIN_POSITIVE)] {
        let backup = Training::backup(scratch.path()).save_freq(frequency);
        let handle = backup.handle();
        training.run(backup, Halt::Stop(3));
        assert_eq!(handle.stats().committed, 1, "{frequency:?}");
        assert_eq!(generations(scratch.path()).len(), 1);
    }
}

#[test]
fn a_backup_says_how_often_the_training_was_interrupted_and_how_long_it_ran() {
    let scratch = tempfile::tempdir().unwrap();
    let training = Training::new(Backend::Flex);
    let recorded = |(share, halt)| {
        let backup = Training::backup(scratch.path()).save_freq(auto(share));
        training.run(backup, halt);
        let store = Store::open(scratch.path(), OpenOptions::default()).unwrap();
        let newest = store.newest().unwrap().unwrap();
        let state: serde_json::Value = newest.manifest().state().unwrap();
        let cadence = &state["cadence"];
        let uptime = cadence["uptime"].as_f64().unwrap();
        (cadence["interruptions"].as_u64().unwrap(), uptime)
    };
    let runs = [
        (1e9, Halt::Fail(9)),
        (1e-300, Halt::Stop(3)),
        (1e-300, Halt::Stop(2)),
        (1e9, Halt::Fail(3)),
    ];
    let runs = runs.map(recorded);
    // The two stopped runs are no interruptions. The last run is not counted yet.
    assert_eq!(runs.map(|(interruptions, _)| interruptions), [0, 1, 1, 1]);
    assert!(runs.map(|(_, uptime)| uptime).is_sorted(), "{runs:?}");
}

#[test]
fn whatever_the_clock_picks_it_ends_as_if_uninterrupted() {
    for &backend in Backend::ALL {
        let training = Training::new(backend);
        let expected = uninterrupted(&training);
        for frequency in [
            SaveFreq::Every(NANOSECOND),
            SaveFreq::Every(Duration::from_millis(3)),
            SaveFreq::Every(DAY),
            SaveFreq::Continuous,
            auto(1e-300),
            auto(0.3),
            auto(10.0),
            auto(1e9),
        ] {
            let configure = |b: BackupAndRestore| b.save_freq(frequency);
            assert_exact(&training, &expected, configure, &[]);
            for batch in [1, 2, 6, 7, 11, 18] {
                assert_exact(&training, &expected, configure, &[Halt::Stop(batch)]);
            }
            let halts = [Halt::Stop(7), Halt::StopInValidation(1), Halt::Stop(5)];
            assert_exact(&training, &expected, configure, &halts);
        }
    }
}

#[test]
fn whatever_the_clock_picks_it_waits_for_the_optimizer_step() {
    let training = Training {
        accumulation: Some(4),
        ..Training::new(Backend::Flex)
    };
    let expected = uninterrupted(&training);
    for frequency in [SaveFreq::Every(NANOSECOND), SaveFreq::Continuous, auto(1e9)] {
        for batch in 1..=12 {
            for halt in [Halt::Stop(batch), Halt::Fail(batch)] {
                assert_exact(&training, &expected, |b| b.save_freq(frequency), &[halt]);
            }
        }
    }
}

#[test]
fn whatever_the_clock_picks_the_last_backup_is_continued() {
    let training = Training::new(Backend::Flex);
    let expected = uninterrupted(&training);
    for frequency in [SaveFreq::Every(NANOSECOND), SaveFreq::Continuous, auto(1e9)] {
        for batch in [2, 9, 18] {
            let halts = [Halt::Fail(batch)];
            assert_exact(&training, &expected, |b| b.save_freq(frequency), &halts);
        }
    }
}

/// The state of the handle in the middle of a batch.
struct Observed {
    interval: Option<u64>,
    stats: BackupStats,
    /// The time since before the launch.
    now: Duration,
}

/// A schedule that takes long to read. With [`Snapshot::Blocking`], this pauses the training.
#[derive(Clone)]
struct SlowSchedule;

impl LrScheduler for SlowSchedule {
    fn step(&mut self) -> f64 {
        1e-3
    }

    fn to_record(&self) -> LrSchedulerRecord {
        let work = (0..1_000_000_u64).fold(0, |sum, next| black_box(sum ^ next));
        LrSchedulerRecord::new().with_scalar("work", work)
    }

    fn load_record(&mut self, _record: LrSchedulerRecord) {}
}

/// Runs `training`, and calls `watch` with the handle in the middle of each batch.
fn watched(
    training: &Training,
    schedule: ModuleLrScheduler,
    configure: impl FnOnce(BackupAndRestore) -> BackupAndRestore,
    mut watch: impl FnMut(usize, &BackupHandle) + Send + 'static,
) -> (Run, BackupHandle, Vec<Observed>) {
    // An in-memory disk, because a real one may be slow enough to make a difference.
    let backup = Training::backup("backup").filesystem(Arc::new(MemoryFilesystem::default()));
    let backup = configure(backup);
    let handle = backup.handle();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let begun = Instant::now();
    let run = training.run_with_learner(
        Halt::Never,
        |training, hooks| {
            let (seen, handle) = (seen.clone(), handle.clone());
            let hooks = hooks.on_train(move |batch| {
                watch(batch, &handle);
                seen.lock().unwrap().push(Observed {
                    interval: handle.interval(),
                    stats: handle.stats(),
                    now: begun.elapsed(),
                });
            });
            Learner::new(training.model(hooks), (training.optimizer)(), schedule)
        },
        |builder| builder.backup_and_restore(backup),
    );
    assert!(run.error.is_none(), "{:?}", run.error);
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(seen.len(), run.losses.len());
    (run, handle, seen)
}

/// The batches after which a backup paused the training.
fn saved_after(seen: &[Observed]) -> Vec<usize> {
    let pairs = seen.iter().zip(seen.iter().skip(1)).zip(1..);
    let held = pairs.filter(|((a, b), _)| a.stats.blocked_total != b.stats.blocked_total);
    held.map(|(_, batch)| batch).collect()
}

fn long_training() -> Training {
    Training {
        epochs: 20,
        ..Training::new(Backend::Flex)
    }
}

#[test]
fn the_interval_is_known_from_the_first_batch_on() {
    let training = Training::new(Backend::Flex);
    let (_, handle, seen) = watched(
        &training,
        training.schedule(),
        |b| b.save_freq(auto(0.01)),
        |_, _| (),
    );
    assert_eq!(seen[0].interval, None);
    assert!(seen[1..].iter().all(|seen| seen.interval >= Some(1)));
    assert!(handle.interval() >= Some(1));

    // At first, a cost of at least a hundredth of a second is assumed. A step takes less than a century.
    let (_, handle, _) = watched(
        &training,
        training.schedule(),
        |b| b.save_freq(auto(1e-300)),
        |_, _| (),
    );
    assert_eq!(handle.interval(), Some(u64::MAX));
    assert_eq!(handle.stats().committed, 1, "that at the end");
    let (_, handle, _) = watched(
        &training,
        training.schedule(),
        |b| b.save_freq(auto(1e9)),
        |_, _| (),
    );
    assert_eq!(handle.interval(), Some(1));
}

#[test]
fn with_a_bound_that_pays_for_all_a_backup_is_taken_after_every_other_batch_at_most() {
    // The second batch waits until the backup of the first one is complete. The training learns this at the
    // end of that batch, or of one soon after.
    let wait = |batch: usize, handle: &BackupHandle| {
        while batch == 2 && handle.last_backup().is_none() && handle.stats().failed == 0 {
            yield_now();
        }
    };
    let training = long_training();
    for snapshot in [Snapshot::Shared, Snapshot::Blocking] {
        let configure = |b: BackupAndRestore| b.save_freq(auto(1e9)).snapshot(snapshot);
        let (_, handle, seen) = watched(&training, training.schedule(), configure, wait);
        let saved = saved_after(&seen);
        assert_eq!(saved[0], 1, "a single batch pays for it: {saved:?}");
        // After each backup, a batch without one shows how long a batch takes.
        assert!(
            saved.windows(2).all(|pair| pair[1] - pair[0] >= 2),
            "{saved:?}"
        );
        assert!(saved.len() >= 2, "{saved:?}");
        let stats = handle.stats();
        // One more may come after the last batch, and one at the end.
        let committed = stats.committed as usize;
        assert!(
            (saved.len()..=saved.len() + 2).contains(&committed),
            "{saved:?} {committed}"
        );
    }
}

/// This must hold on any machine. When a backup is taken, the earlier backups whose costs are known have cost
/// no more than the share of the time trained until then.
#[test]
fn before_each_backup_all_earlier_ones_are_paid_for() {
    let training = long_training();
    let slow = || ModuleLrScheduler::new(SlowSchedule);
    for (max_overhead, snapshot, schedule) in [
        (0.2, Snapshot::Shared, training.schedule()),
        (1.0, Snapshot::Shared, training.schedule()),
        (1.0, Snapshot::Blocking, slow()),
        (5.0, Snapshot::Blocking, slow()),
        (20.0, Snapshot::Shared, slow()),
    ] {
        let configure = |b: BackupAndRestore| b.save_freq(auto(max_overhead)).snapshot(snapshot);
        let (_, handle, seen) = watched(&training, schedule, configure, |_, _| ());
        let saved = saved_after(&seen);
        for &batch in &saved {
            // The backup was taken between the two. Only the latter contains its pause, and neither contains
            // its slowdown.
            let (before, after) = (&seen[batch - 1], &seen[batch]);
            let spent = before.stats.blocked_total + after.stats.slowed_total;
            let trained = after.now - after.stats.blocked_total;
            let earned = trained.mul_f64(max_overhead);
            assert!(
                spent <= earned + Duration::from_micros(1),
                "{spent:?} of {earned:?} before the backup of batch {batch}, {max_overhead}"
            );
        }
        if let Some(&first) = saved.first() {
            let first = &seen[first];
            // The assumed cost is a hundredth of a second, and more for the state.
            assert!(first.now.mul_f64(max_overhead) >= Duration::from_millis(10));
        }
        assert_eq!(handle.stats().failed, 0);
        assert!(max_overhead < 20.0 || saved.len() > 1, "{saved:?}");
    }
}

/// How many batches are trained while a backup can't reach the disk.
const BATCHES_MEANWHILE: usize = 4;

#[test]
fn continuous_backups_never_pause_the_training_and_follow_one_another() {
    // The first backup can't be renamed into place before some more batches are trained. If the training
    // waited for it, the gate would open by itself, and the test would see that.
    let gate = Arc::new((Mutex::new(0), Condvar::new()));
    let has_waited = Arc::new(AtomicBool::new(false));
    let (behind_gate, waited) = (gate.clone(), has_waited.clone());
    let disk = FaultyFilesystem::over(MemoryFilesystem::default(), move |operation, path| {
        if operation == Operation::Rename && path.ends_with("generations/00000001") {
            let (trained, changed) = &*behind_gate;
            let is_early = |trained: &mut usize| *trained <= BATCHES_MEANWHILE;
            let trained = trained.lock().unwrap();
            let outcome = changed.wait_timeout_while(trained, Duration::from_secs(20), is_early);
            waited.store(outcome.unwrap().1.timed_out(), Ordering::Relaxed);
        }
        Ok(())
    });
    let training = long_training();
    let configure =
        |b: BackupAndRestore| b.save_freq(SaveFreq::Continuous).filesystem(Arc::new(disk));
    let (_, handle, seen) = watched(
        &training,
        training.schedule(),
        configure,
        move |batch, handle| {
            let (trained, changed) = &*gate;
            *trained.lock().unwrap() = batch;
            changed.notify_all();
            // On a busy machine the training may end before a backup is written.
            if batch.is_multiple_of(10) && batch <= 30 {
                let limit = Instant::now() + Duration::from_secs(20);
                while handle.stats().committed < batch as u64 / 10 && Instant::now() < limit {
                    std::thread::yield_now();
                }
            }
        },
    );
    assert!(!has_waited.load(Ordering::Relaxed), "the training waited");
    let saved = saved_after(&seen);
    assert_eq!(saved.first(), Some(&1));
    assert!(saved[1] > BATCHES_MEANWHILE, "{saved:?}");
    assert!(saved.len() > 2, "backups continue: {saved:?}");
    assert_eq!(handle.stats().failed, 0);
}
