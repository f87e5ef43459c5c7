use std::collections::BTreeSet;
use std::sync::atomic::AtomicUsize;
use std::sync::{Condvar, Mutex, Weak};
use std::thread::{self, ThreadId};

use super::*;

mod context;
mod imports;
mod sampler;

const ALL_WORKERS: [usize; 5] = [0, 1, 2, 4, 7];

/// A dataset of the numbers from 0 on, with a hook that is called for each load.
struct Numbers<F> {
    len: usize,
    on_load: F,
}

impl<F> Dataset<usize> for Numbers<F>
where
    F: Fn(usize) -> Result<(), DatasetError> + Send + Sync,
{
    fn get(&self, index: usize) -> Result<usize, DatasetError> {
        assert!(index < self.len);
        (self.on_load)(index).map(|()| index)
    }

    fn len(&self) -> usize {
        self.len
    }
}

fn numbers(len: usize) -> impl Dataset<usize> {
    Numbers {
        len,
        on_load: |_| Ok(()),
    }
}

/// Counts the loaded items.
fn counted(len: usize) -> (impl Dataset<usize>, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let on_load = move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(())
    };
    (Numbers { len, on_load }, count)
}

/// A batch is the list of its items.
struct Listing;

impl Batcher<usize, Vec<usize>> for Listing {
    fn batch(&self, items: Vec<usize>, _device: &Device) -> Vec<usize> {
        items
    }
}

fn builder() -> DataLoaderBuilder<usize, Vec<usize>> {
    DataLoaderBuilder::new(Listing).set_device(Device::flex())
}

fn epoch<O>(loader: &Arc<dyn DataLoader<O>>) -> Vec<O> {
    loader.iter().map(Result::unwrap).collect()
}

#[test]
fn batches_and_their_order_are_the_same_whatever_the_number_of_workers() {
    for len in [0, 1, 10, 97] {
        for batch_size in [1, 3, 10, 1000, usize::MAX] {
            for seed in [None, Some(5)] {
                let build = |workers| {
                    let builder = builder().batch_size(batch_size).num_workers(workers);
                    let builder = seed.into_iter().fold(builder, |b, seed| b.shuffle(seed));
                    builder.build(numbers(len))
                };
                let loaders = ALL_WORKERS.map(build);
                for _ in 0..3 {
                    let [expected, others @ ..] = loaders.each_ref().map(epoch);
                    let sizes = expected.iter().map(Vec::len);
                    assert!(sizes.rev().skip(1).all(|size| size == batch_size));
                    let items: BTreeSet<_> = expected.iter().flatten().copied().collect();
                    assert!(items.into_iter().eq(0..len));
                    for other in others {
                        assert_eq!(other, expected);
                    }
                }
            }
        }
    }
}

/// Loads each even item only after the odd item that follows it, which takes several threads.
fn paired(len: usize) -> impl Dataset<usize> {
    let loaded = (Mutex::new(BTreeSet::new()), Condvar::new());
    let on_load = move |index: usize| {
        let (set, changed) = &loaded;
        let mut set = set.lock().unwrap();
        if index.is_multiple_of(2) {
            drop(changed.wait_while(set, |set| !set.remove(&(index + 1))));
        } else {
            set.insert(index);
            changed.notify_all();
        }
        Ok(())
    };
    Numbers { len, on_load }
}

#[test]
fn a_batch_that_is_made_before_its_predecessor_waits() {
    let loader = builder().num_workers(3).build(paired(40));
    assert!(epoch(&loader).into_iter().flatten().eq(0..40));
}

#[test]
fn orders_depend_on_the_seed_and_the_epoch_only() {
    let build = |seed| builder().batch_size(7).shuffle(seed).build(numbers(50));
    let first = build(1);
    let epochs: Vec<_> = (0..20).map(|_| epoch(&first)).collect();
    let different: BTreeSet<_> = epochs.iter().collect();
    assert_eq!(different.len(), 20);
    assert!(!different.contains(&epoch(&build(2))));

    // Iterators count too if none, or not all, of their batches are taken.
    let again = build(1);
    drop(again.iter());
    again.iter().next().unwrap().unwrap();
    let at_once = (again.iter(), again.iter());
    assert!(at_once.1.map(Result::unwrap).eq(epochs[3].iter().cloned()));
    assert!(at_once.0.map(Result::unwrap).eq(epochs[2].iter().cloned()));
    assert_eq!(epoch(&again), epochs[4]);
}

#[test]
fn orders_do_not_change_between_versions() {
    // A training from a backup of an older version must get the same batches.
    let loader = builder().batch_size(10).shuffle(42).build(numbers(10));
    assert_eq!(epoch(&loader), [[6, 2, 3, 7, 4, 8, 0, 1, 9, 5]]);
    assert_eq!(epoch(&loader), [[3, 1, 5, 6, 7, 9, 4, 2, 8, 0]]);
    assert_eq!(epoch(&loader.slice(2, 9)), [[5, 7, 6, 2, 3, 4, 8]]);
}

#[test]
fn moved_and_sliced_loaders_have_their_own_epochs() {
    let build = || {
        let builder = builder().batch_size(4).shuffle(3).num_workers(2);
        builder.build(numbers(30))
    };
    let (fresh, used) = (build(), build());
    let _ = (epoch(&used), epoch(&used));
    let device = Device::flex();
    assert_eq!(epoch(&used.to_device(&device)), epoch(&fresh));

    let parts = |loader: &Arc<dyn DataLoader<_>>| {
        let parts = [(0, 11), (11, 22), (22, 30)];
        parts.map(|(start, end)| loader.slice(start, end).to_device(&device))
    };
    let (of_fresh, of_used) = (parts(&fresh), parts(&used));
    for _ in 0..3 {
        let epochs = of_used.each_ref().map(epoch);
        assert_eq!(epochs, of_fresh.each_ref().map(epoch));
        let [first, second, third] = &epochs;
        assert_eq!([first.len(), second.len(), third.len()], [3, 3, 2]);
        let items: BTreeSet<_> = epochs.iter().flatten().flatten().collect();
        assert_eq!(items.len(), 30);
        // Parts of equal length are not shuffled in the same way.
        let moved = first.iter().map(|batch| batch.iter().map(|item| item + 11));
        assert!(!moved.flatten().eq(second.iter().flatten().copied()));
    }
    let nested = fresh.slice(10, 30).slice(5, 8);
    let items: BTreeSet<_> = epoch(&nested).into_iter().flatten().collect();
    assert!(items.into_iter().eq(15..18));
    assert_eq!(nested.num_items(), 3);
    // A slice ends at the end of the dataset.
    assert_eq!(fresh.slice(10, 20).slice(5, 100).num_items(), 5);
    assert_eq!(fresh.slice(40, 50).num_items(), 0);
    assert!(fresh.slice(40, 50).iter().next().is_none());
}

#[test]
fn after_a_skip_the_batches_are_those_of_the_whole_epoch() {
    for workers in ALL_WORKERS {
        let build = || {
            let builder = builder().batch_size(3).shuffle(9).num_workers(workers);
            builder.build(numbers(100))
        };
        let expected = epoch(&build());
        for first in [0, 1, 2, 17, 32, 33, 34, 100] {
            for second in [0, 1, 3, 12, 30, 50] {
                let loader = build();
                let mut iterator = loader.iter();
                let mut all = expected.iter().cloned();
                for skip in [first, second, 0] {
                    let batch = iterator.nth(skip).transpose().unwrap();
                    assert_eq!(batch, all.nth(skip), "{workers}: {first}, {second}");
                    assert_eq!(iterator.size_hint(), all.size_hint());
                    let progress = iterator.progress();
                    let left: usize = all.clone().map(|batch| batch.len()).sum();
                    assert_eq!(progress.items_processed, 100 - left);
                    assert_eq!(progress.items_total, 100);
                    assert_eq!(progress.unit.as_deref(), Some("items"));
                }
                assert!(iterator.map(Result::unwrap).eq(all));
            }
        }
    }
}

#[test]
fn skipped_items_are_not_loaded() {
    const ITEMS: usize = 3_000_000;
    for workers in [0, 3] {
        for batch in [1, 1000, 90_000, 93_750] {
            let (dataset, loaded) = counted(ITEMS);
            let loader = builder().batch_size(32).num_workers(workers).build(dataset);
            // Skipping whole epochs loads nothing either.
            for _ in 0..1000 {
                drop(loader.iter());
            }
            let found = loader.iter().nth(batch).transpose().unwrap();
            let first = (batch * 32 < ITEMS).then_some(batch * 32);
            assert_eq!(found.map(|batch| batch[0]), first);
            drop(loader);
            // The batch itself, and `WINDOW_PER_THREAD` in advance for each worker.
            let most = (1 + WINDOW_PER_THREAD * workers) * 32;
            assert!(loaded.load(Ordering::SeqCst) <= most);
        }
    }
}

/// Batches that count how many of them exist.
struct Alive {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

struct AliveOne(Arc<AtomicUsize>);

impl Batcher<usize, AliveOne> for Alive {
    fn batch(&self, _items: Vec<usize>, _device: &Device) -> AliveOne {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        AliveOne(self.now.clone())
    }
}

impl Drop for AliveOne {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn workers_run_ahead_as_far_as_their_window_and_no_further() {
    for workers in [1, 2, 5] {
        let window = WINDOW_PER_THREAD * workers;
        let alive = Alive {
            now: Arc::default(),
            most: Arc::default(),
        };
        let (now, most) = (alive.now.clone(), alive.most.clone());
        let builder = DataLoaderBuilder::new(alive).num_workers(workers);
        let loader = builder.set_device(Device::flex()).build(numbers(10_000));
        let mut iterator = loader.iter();
        for _ in 0..20 {
            drop(iterator.next().unwrap().unwrap());
            // The training is slow here, so the workers fill at least half of the window.
            while now.load(Ordering::SeqCst) < window / 2 {
                thread::yield_now();
            }
        }
        // Skips beyond the batches made in advance, and skips within them.
        for skip in [1, window / 2, 5000] {
            drop(iterator.nth(skip).unwrap().unwrap());
        }
        assert_eq!(
            iterator.by_ref().map(Result::unwrap).count(),
            10_000 - 20 - 3 - 5001 - window / 2
        );
        drop(iterator);
        // An iterator that is dropped halfway leaves nothing in the loader.
        drop(loader.iter().nth(3).unwrap().unwrap());
        while now.load(Ordering::SeqCst) > 0 {
            thread::yield_now();
        }
        drop(loader);
        let most = most.load(Ordering::SeqCst);
        // One batch is in use. After a skip, each worker may still be making a skipped batch, and finished skipped
        // batches may not be dropped yet.
        assert!(most <= 2 * window + 1 + workers, "{most} for {workers}");
        assert!(most >= window / 2);
        assert_eq!(now.load(Ordering::SeqCst), 0, "none is left");
    }
}

fn broken() -> DatasetError {
    DatasetError::new(std::io::Error::other("this item is broken"))
}

#[test]
fn an_error_takes_the_place_of_its_batch_and_is_last() {
    for workers in ALL_WORKERS {
        let on_load = |index| match index {
            23 => Err(broken()),
            _ => Ok(()),
        };
        let builder = builder().batch_size(4).num_workers(workers);
        let loader = builder.build(Numbers { len: 100, on_load });
        let mut iterator = loader.iter();
        for batch in 0..5 {
            assert_eq!(iterator.next().unwrap().unwrap()[0], batch * 4);
        }
        let error = iterator.next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "this item is broken");
        assert_eq!(iterator.size_hint(), (0, Some(0)));
        assert_eq!(iterator.progress().items_processed, 20);
        assert!(iterator.next().is_none());
        assert!(iterator.nth(3).is_none());
        // A reader that skips the broken item continues.
        assert_eq!(loader.iter().skip(7).map(Result::unwrap).count(), 18);
    }
}

#[test]
fn a_panic_is_an_error_in_its_place() {
    struct Panicking;
    impl Batcher<usize, Vec<usize>> for Panicking {
        fn batch(&self, items: Vec<usize>, _device: &Device) -> Vec<usize> {
            assert!(!items.contains(&40), "the test's batcher panics");
            items
        }
    }
    for workers in ALL_WORKERS {
        for draws in [false, true] {
            let on_load = |index| {
                assert!(index != 80, "the test's dataset panics");
                Ok(())
            };
            let builder = DataLoaderBuilder::new(Panicking).set_device(Device::flex());
            let builder = builder
                .batch_size(4)
                .num_workers(workers)
                .batcher_draws(draws);
            let loader = builder.build(Numbers { len: 100, on_load });
            for (skipped, batches, text) in [
                (
                    0,
                    10,
                    "the batcher panicked while a batch was being made: the test's batcher",
                ),
                (
                    12,
                    8,
                    "the dataset panicked while a batch was being made: the test's dataset",
                ),
            ] {
                let mut iterator = loader.iter().skip(skipped);
                let good = iterator.by_ref().take(batches).map(Result::unwrap);
                assert_eq!(good.count(), batches);
                let error = iterator.next().unwrap().unwrap_err();
                assert!(error.to_string().starts_with(text), "{error}");
                assert!(iterator.next().is_none());
            }
            // The workers survive the panics.
            assert_eq!(loader.iter().skip(22).map(Result::unwrap).count(), 3);
        }
    }
}

#[test]
fn invalid_settings_and_results_are_errors_with_advice() {
    let mut errors = Vec::new();
    for workers in [0, 2] {
        let loader = builder()
            .batch_size(0)
            .num_workers(workers)
            .build(numbers(9));
        let mut iterator = loader.iter();
        errors.push((
            iterator.next().unwrap().unwrap_err(),
            "batch_size of 1 or more",
        ));
        assert!(iterator.next().is_none());

        let loader = builder().batch_size(3).num_workers(workers).build(Lossy);
        let mut iterator = loader.iter();
        let error = iterator.next().unwrap().unwrap_err();
        errors.push((error, "gave 2 items for 3 indices; its get_many"));
        assert!(iterator.next().is_none());
    }
    for (error, text) in errors {
        assert!(error.to_string().contains(text), "{error}");
    }
}

/// A dataset that leaves items out.
struct Lossy;

impl Dataset<usize> for Lossy {
    fn get(&self, index: usize) -> Result<usize, DatasetError> {
        Ok(index)
    }

    fn get_many(&self, mut indexes: Vec<usize>) -> Result<Vec<usize>, DatasetError> {
        indexes.pop();
        Ok(indexes)
    }

    fn len(&self) -> usize {
        9
    }
}

#[test]
fn iterators_and_loaders_can_be_dropped_at_any_time() {
    for workers in ALL_WORKERS {
        for taken in [0, 1, 2, 10, 49, 50] {
            let dataset = Arc::new(numbers(100));
            let weak: Weak<_> = Arc::downgrade(&dataset);
            let loader = builder().batch_size(2).num_workers(workers).build(dataset);
            for _ in 0..3 {
                let mut iterator = loader.iter();
                assert_eq!(
                    iterator.by_ref().take(taken).map(Result::unwrap).count(),
                    taken
                );
            }
            drop(loader);
            assert!(weak.upgrade().is_none(), "no worker is left");
        }
    }
}

#[test]
fn several_iterators_do_not_block_each_other() {
    let loader = builder().num_workers(2).build(numbers(100));
    // The window of this iterator stays full.
    let mut idle = loader.iter();
    assert_eq!(idle.next().unwrap().unwrap(), [0]);
    let mut one = loader.iter();
    let mut other = loader.iter();
    for index in 0..100 {
        assert_eq!(one.next().unwrap().unwrap(), [index]);
        assert_eq!(other.next().unwrap().unwrap(), [index]);
    }
    assert_eq!(idle.next().unwrap().unwrap(), [1]);
}

#[test]
fn a_batcher_that_draws_runs_on_the_calling_thread_in_batch_order() {
    struct Where(Mutex<usize>);
    impl Batcher<usize, (ThreadId, usize)> for Where {
        fn batch(&self, items: Vec<usize>, _device: &Device) -> (ThreadId, usize) {
            let mut calls = self.0.lock().unwrap();
            assert_eq!(items, [*calls]);
            *calls += 1;
            (thread::current().id(), *calls)
        }
    }
    for workers in [0, 2, 3, 7] {
        let builder = DataLoaderBuilder::new(Where(Mutex::new(0)));
        let builder = builder.set_device(Device::flex()).num_workers(workers);
        let builder = builder.batcher_draws(true);
        let loader = match workers {
            0..3 => builder.build(numbers(50)),
            _ => builder.build(paired(50)),
        };
        for (index, batch) in loader.iter().map(Result::unwrap).enumerate() {
            // The batch is made after the request, not before it.
            assert_eq!(batch, (thread::current().id(), index + 1));
        }
    }
}

#[test]
fn batches_are_made_on_the_device_that_the_loader_was_moved_to() {
    struct OnDevice;
    impl Batcher<usize, Device> for OnDevice {
        fn batch(&self, _items: Vec<usize>, device: &Device) -> Device {
            device.clone()
        }
    }
    let (plain, other) = (Device::flex(), Device::flex().autodiff());
    let builder = DataLoaderBuilder::new(OnDevice).set_device(plain.clone());
    let loader = builder.build(numbers(4));
    assert!(epoch(&loader).iter().all(|device| *device == plain));
    let moved = loader.to_device(&other).slice(0, 2);
    assert_eq!(epoch(&moved), [other.clone(), other]);
}
