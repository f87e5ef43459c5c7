//! Epochs that end before their loader gives all promised batches. A panic in a worker of Burn's loader looks
//! like the end of the epoch.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::data::dataloader::{DataLoader, DataLoaderBuilder, DataLoaderIterator, Progress};
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::Device;
use burn_backup_restore::{BackupAndRestore, BackupError, BackupExt as _};
use burn_backup_tests::{Batch, Data, Halt, Numbers, NumbersBatcher, Run, Spread, Training};
use test_fork::test;

const ITEMS: usize = 22;
const BATCH: usize = 4;
/// An item in the last batch, which is short. The same holds if the items are split between two devices.
const LAST: usize = ITEMS - 1;
const EPOCHS: usize = 3;

/// On one device, on two, and under DDP.
const SPREADS: [Spread; 4] = [
    Spread::One,
    Spread::Main(2),
    Spread::Sharded(2),
    Spread::Ddp(2),
];

/// Numbers, one of which panics at its read number `time`, counted from 1.
struct Panicking {
    number: usize,
    time: usize,
    reads: AtomicUsize,
}

impl Panicking {
    fn at(number: usize, time: usize) -> Self {
        Self {
            number,
            time,
            reads: AtomicUsize::new(0),
        }
    }

    fn never() -> Self {
        Self::at(usize::MAX, 0)
    }
}

impl Dataset<usize> for Panicking {
    fn get(&self, index: usize) -> Result<usize, DatasetError> {
        if index == self.number {
            let read = self.reads.fetch_add(1, Ordering::Relaxed) + 1;
            assert!(read != self.time, "the test has the dataset panic");
        }
        Ok(index)
    }

    fn len(&self) -> usize {
        ITEMS
    }
}

/// Burn's loader, with two workers.
fn with_workers(dataset: Panicking) -> Arc<dyn DataLoader<Batch>> {
    DataLoaderBuilder::new(NumbersBatcher::default())
        .batch_size(BATCH)
        .num_workers(2)
        .build(dataset)
}

/// Burn's loader without workers.
fn in_order(items: usize) -> Arc<dyn DataLoader<Batch>> {
    DataLoaderBuilder::new(NumbersBatcher::default())
        .batch_size(BATCH)
        .build(Numbers {
            items,
            broken: None,
            poison: None,
        })
}

/// A loader that gives a part of another one's batches. Their number depends on the epoch, counted from 1,
/// and on the number of items.
struct PartialLoader {
    loader: Arc<dyn DataLoader<Batch>>,
    batches: fn(usize, usize) -> usize,
    epochs: AtomicUsize,
}

impl PartialLoader {
    fn of(
        loader: Arc<dyn DataLoader<Batch>>,
        batches: fn(usize, usize) -> usize,
    ) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self {
            loader,
            batches,
            epochs: AtomicUsize::new(0),
        })
    }
}

struct GivingIterator<'l> {
    iterator: Box<dyn DataLoaderIterator<Batch> + 'l>,
    left: usize,
}

impl DataLoader<Batch> for PartialLoader {
    fn iter<'l>(&'l self) -> Box<dyn DataLoaderIterator<Batch> + 'l> {
        let epoch = self.epochs.fetch_add(1, Ordering::Relaxed) + 1;
        Box::new(GivingIterator {
            iterator: self.loader.iter(),
            left: (self.batches)(epoch, self.loader.num_items()),
        })
    }

    fn num_items(&self) -> usize {
        self.loader.num_items()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        Self::of(self.loader.to_device(device), self.batches)
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Batch>> {
        Self::of(self.loader.slice(start, end), self.batches)
    }
}

impl Iterator for GivingIterator<'_> {
    type Item = Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        self.iterator.next()
    }
}

impl DataLoaderIterator<Batch> for GivingIterator<'_> {
    fn progress(&self) -> Progress {
        self.iterator.progress()
    }
}

fn whole_batches(_epoch: usize, items: usize) -> usize {
    items / BATCH
}

fn training(spread: Spread) -> Training {
    Training {
        draws: false,
        norm: false,
        epochs: EPOCHS,
        ..Training::spread(spread)
    }
}

fn run(spread: Spread, data: Data, backup: BackupAndRestore, halt: Halt) -> Run {
    run_of(&training(spread), data, backup, halt)
}

fn run_of(training: &Training, data: Data, backup: BackupAndRestore, halt: Halt) -> Run {
    let backup = training.spread_over_devices(backup);
    training.run_on(data, halt, Training::learner, |builder| {
        builder.backup_and_restore(backup)
    })
}

/// Asserts that the error is about an epoch that ended early in the split `expected`.
#[track_caller]
fn assert_short(run: &Run, expected: &'static str, what: &str) {
    let error = run.error.as_deref();
    let error = error.unwrap_or_else(|| panic!("no error: {what}"));
    let error = BackupError::find(error).unwrap_or_else(|| panic!("{what}: {error}"));
    let BackupError::ShortEpoch {
        split,
        given,
        promised,
        ..
    } = error
    else {
        panic!("{what}: {error}");
    };
    assert_eq!(*split, expected, "{what}");
    assert!(given < promised, "{what}: {error}");
}

/// The number of batches in each epoch that all devices get.
fn steps_in_epoch(spread: Spread) -> usize {
    (ITEMS / spread.devices()).div_ceil(BATCH)
}

#[test]
fn a_worker_that_panics_ends_the_training_with_an_error_and_the_fixed_program_resumes() {
    for spread in SPREADS {
        // In a whole batch, and in the last one, which is short.
        for number in [5, LAST] {
            for epoch in 1..=EPOCHS {
                for split in ["training", "validation"] {
                    let what = format!("{spread:?}, {number}, {epoch}, {split}");
                    let scratch = tempfile::tempdir().unwrap();
                    let backup = || Training::backup(scratch.path()).save_freq(1);
                    let panicking = with_workers(Panicking::at(number, epoch));
                    let good = with_workers(Panicking::never());
                    let data = match split {
                        "training" => Data {
                            train: panicking,
                            valid: good,
                        },
                        _ => Data {
                            train: good,
                            valid: panicking,
                        },
                    };
                    let first = backup();
                    let handle = first.handle();
                    let failed = run(spread, data, first, Halt::Never);
                    assert_short(&failed, split, &what);
                    let trained = handle.last_backup().map_or(0, |at| at.global_step);
                    let before = (epoch - 1) * steps_in_epoch(spread);
                    assert!(trained >= before as u64, "{what}: {trained}");
                    assert_eq!(failed.steps as u64, trained, "{what}");

                    let data = Data {
                        train: with_workers(Panicking::never()),
                        valid: with_workers(Panicking::never()),
                    };
                    let mended = run(spread, data, backup(), Halt::Never);
                    assert!(mended.error.is_none(), "{what}: {:?}", mended.error);
                    assert_eq!(mended.steps, EPOCHS * steps_in_epoch(spread), "{what}");
                    assert!(!scratch.path().join("generations").exists(), "{what}");
                }
            }
        }
    }
}

#[test]
fn a_worker_that_panics_in_the_first_batch_that_a_restart_trains_is_noticed() {
    for spread in SPREADS {
        let training = Training {
            // With more epochs, it is left to chance what the workers load of an epoch that a restart skips.
            epochs: 1,
            ..training(spread)
        };
        let scratch = tempfile::tempdir().unwrap();
        let backup = || Training::backup(scratch.path()).save_freq(1);
        let data = |train| Data {
            train: with_workers(train),
            valid: with_workers(Panicking::never()),
        };
        // Stops before the last batches of the epoch.
        let steps = steps_in_epoch(spread) - 1;
        let halt = Halt::Stop(steps * spread.devices());
        let stopped = run_of(&training, data(Panicking::never()), backup(), halt);
        assert!(stopped.interrupted.is_some(), "{spread:?}");
        let broken = data(Panicking::at(LAST, 1));
        let failed = run_of(&training, broken, backup(), Halt::Never);
        assert_short(&failed, "training", &format!("{spread:?}"));

        let mended = data(Panicking::never());
        let mended = run_of(&training, mended, backup(), Halt::Never);
        assert!(mended.error.is_none(), "{spread:?}: {:?}", mended.error);
        assert_eq!(mended.steps, steps_in_epoch(spread), "{spread:?}");
    }
}

#[test]
fn a_loader_that_leaves_out_its_last_short_batch_is_no_error_wherever_it_is_interrupted() {
    for spread in SPREADS {
        let data = || Data {
            train: PartialLoader::of(in_order(ITEMS), whole_batches),
            valid: PartialLoader::of(in_order(ITEMS), whole_batches),
        };
        let scratch = tempfile::tempdir().unwrap();
        let expected = run(
            spread,
            data(),
            Training::backup(scratch.path()),
            Halt::Never,
        );
        assert!(expected.error.is_none(), "{spread:?}: {:?}", expected.error);
        let steps = EPOCHS * (ITEMS / spread.devices() / BATCH);
        assert_eq!(expected.steps, steps, "{spread:?}");
        for step in 1..=steps {
            let halts = [
                Halt::Stop(step * spread.devices()),
                Halt::StopInValidation(step),
            ];
            for halt in halts {
                let scratch = tempfile::tempdir().unwrap();
                let backup = || Training::backup(scratch.path()).save_freq(1);
                let stopped = run(spread, data(), backup(), halt);
                assert!(stopped.error.is_none(), "{halt:?}: {:?}", stopped.error);
                let resumed = run(spread, data(), backup(), Halt::Never);
                assert!(resumed.error.is_none(), "{halt:?}: {:?}", resumed.error);
                assert!(resumed.weights == expected.weights, "{spread:?}, {halt:?}");
                assert!(resumed.records == expected.records, "{spread:?}, {halt:?}");
            }
        }
    }
}

#[test]
fn a_loader_that_gives_fewer_batches_in_a_later_epoch_ends_the_training_after_a_restart_too() {
    // All batches or only whole ones, and one batch less in the third epoch.
    let shrinking: [fn(usize, usize) -> usize; 2] = [
        |epoch, items| items.div_ceil(BATCH) - usize::from(epoch == 3),
        |epoch, items| items / BATCH - usize::from(epoch == 3),
    ];
    for batches in shrinking {
        for spread in [Spread::One, Spread::Main(2)] {
            for split in ["training", "validation"] {
                for halts in [&[][..], &[Halt::Stop(4)], &[Halt::Stop(4), Halt::Stop(2)]] {
                    let what = format!("{spread:?}, {split}, {halts:?}");
                    let scratch = tempfile::tempdir().unwrap();
                    let backup = || Training::backup(scratch.path()).save_freq(1);
                    let data = || {
                        let (shrinks, keeps) =
                            (PartialLoader::of(in_order(ITEMS), batches), in_order(ITEMS));
                        match split {
                            "training" => Data {
                                train: shrinks,
                                valid: keeps,
                            },
                            _ => Data {
                                train: keeps,
                                valid: shrinks,
                            },
                        }
                    };
                    for halt in halts {
                        let stopped = run(spread, data(), backup(), *halt);
                        assert!(stopped.error.is_none(), "{what}: {:?}", stopped.error);
                    }
                    let last = backup();
                    let handle = last.handle();
                    let ended = run(spread, data(), last, Halt::Never);
                    assert_short(&ended, split, &what);
                    assert_eq!(handle.last_backup().unwrap().epoch, 3, "{what}");
                }
            }
        }
    }
}

#[test]
fn a_loader_that_misses_a_whole_batch_from_the_start_ends_the_training_unless_that_is_allowed() {
    for spread in [Spread::One, Spread::Main(2), Spread::Ddp(2)] {
        // The last batch is whole, or short.
        for items in [24, ITEMS] {
            for missing in [1, 2] {
                let batches: fn(usize, usize) -> usize = match missing {
                    1 => |_, items| items / BATCH - 1,
                    _ => |_, items| items / BATCH - 2,
                };
                let what = format!("{spread:?}, {items}, {missing}");
                let whole = items / spread.devices() / BATCH;
                let Some(steps @ 1..) = whole.checked_sub(missing) else {
                    continue;
                };
                let data = || Data {
                    train: PartialLoader::of(in_order(items), batches),
                    valid: PartialLoader::of(in_order(items), batches),
                };
                let scratch = tempfile::tempdir().unwrap();
                let backup = || Training::backup(scratch.path());
                let short = run(spread, data(), backup(), Halt::Never);
                assert_short(&short, "training", &what);
                // The error also comes after a restart in that epoch.
                let scratch = tempfile::tempdir().unwrap();
                let backup = || Training::backup(scratch.path()).save_freq(1);
                if steps > 1 {
                    let stopped = run(spread, data(), backup(), Halt::Stop(spread.devices()));
                    assert!(stopped.error.is_none(), "{what}: {:?}", stopped.error);
                }
                let short = run(spread, data(), backup(), Halt::Never);
                assert_short(&short, "training", &what);
                let allowed = run(spread, data(), backup().allow_short_epochs(), Halt::Never);
                assert!(allowed.error.is_none(), "{what}: {:?}", allowed.error);
                assert_eq!(allowed.steps, EPOCHS * steps, "{what}");
            }
        }
    }
}

#[test]
fn short_epochs_that_are_allowed_end_early_without_an_error_when_a_worker_panics() {
    let scratch = tempfile::tempdir().unwrap();
    let data = Data {
        train: with_workers(Panicking::at(LAST, EPOCHS)),
        valid: with_workers(Panicking::never()),
    };
    let backup = Training::backup(scratch.path()).allow_short_epochs();
    let ended = run(Spread::One, data, backup, Halt::Never);
    assert!(ended.error.is_none(), "{:?}", ended.error);
    assert_eq!(ended.steps, EPOCHS * 6 - 1);
}
