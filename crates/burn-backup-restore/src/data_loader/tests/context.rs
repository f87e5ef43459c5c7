//! The seeds that are drawn while a batch is made, and the epoch of the batch.

use burn::data::dataset::transform::{Mapper, MapperDataset};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;

/// Adds noise to each item, like an augmentation.
struct Noisy;

impl Mapper<usize, (usize, u64)> for Noisy {
    fn map(&self, item: &usize) -> (usize, u64) {
        let mut rng = StdRng::seed_from_u64(draw_seed());
        (*item, rng.next_u64())
    }
}

/// Draws twice for each batch.
struct Drawing;

type Drawn = (Vec<(usize, u64)>, [u64; 2]);

impl Batcher<(usize, u64), Drawn> for Drawing {
    fn batch(&self, items: Vec<(usize, u64)>, _device: &Device) -> Drawn {
        (items, [draw_seed(), draw_seed()])
    }
}

fn drawing() -> DataLoaderBuilder<(usize, u64), Drawn> {
    let builder = DataLoaderBuilder::new(Drawing).batch_size(3);
    builder.set_device(Device::flex())
}

fn noisy(len: usize) -> impl Dataset<(usize, u64)> {
    MapperDataset::new(numbers(len), Noisy)
}

#[test]
fn draws_are_the_same_whatever_the_number_of_workers_and_also_after_a_skip() {
    for seed in [None, Some(5)] {
        let build = |workers, draws| {
            let builder = drawing().num_workers(workers).batcher_draws(draws);
            let builder = seed.into_iter().fold(builder, |b, seed| b.shuffle(seed));
            builder.build(noisy(40))
        };
        let uninterrupted = build(0, false);
        let epochs = [(); 3].map(|()| epoch(&uninterrupted));
        for workers in ALL_WORKERS {
            for draws in [false, true] {
                let loader = build(workers, draws);
                assert_eq!([(); 3].map(|()| epoch(&loader)), epochs);
                // A loader that resumes inside the second epoch.
                let resumed = build(workers, draws);
                drop(resumed.iter());
                let rest = resumed.iter().skip(7).map(Result::unwrap);
                assert!(rest.eq(epochs[1][7..].iter().cloned()), "{workers}");
            }
        }
    }
}

#[test]
fn all_draws_differ() {
    let mut all = Vec::new();
    let whole = drawing().build(noisy(60));
    let shuffled = drawing().shuffle(1).build(noisy(60));
    let loaders = [
        whole.slice(0, 30),
        whole.slice(30, 60),
        shuffled.slice(0, 30),
        shuffled.slice(30, 60),
        shuffled,
        whole,
    ];
    for loader in loaders {
        for _ in 0..3 {
            for (items, drawn) in epoch(&loader) {
                all.extend(items.into_iter().map(|(_, noise)| noise));
                all.extend(drawn);
            }
        }
    }
    let different: BTreeSet<_> = all.iter().collect();
    assert_eq!(different.len(), all.len());
    // The seeds for a batch's items also differ from the seeds of its batcher.
    struct Both;
    impl Batcher<u64, [u64; 2]> for Both {
        fn batch(&self, items: Vec<u64>, _device: &Device) -> [u64; 2] {
            [items[0], draw_seed()]
        }
    }
    let [[item, batch]] = epoch(&DataLoaderBuilder::new(Both).build(Seeds))[..] else {
        panic!("one batch");
    };
    assert_ne!(item, batch);
}

/// A dataset whose items are the seeds drawn for them.
struct Seeds;

impl Dataset<u64> for Seeds {
    fn get(&self, _index: usize) -> Result<u64, DatasetError> {
        Ok(draw_seed())
    }

    fn len(&self) -> usize {
        1
    }
}

#[test]
fn draws_do_not_change_between_versions() {
    // A training from a backup of an older version must get the same augmentation.
    struct Raw;
    impl Batcher<u64, [u64; 3]> for Raw {
        fn batch(&self, items: Vec<u64>, _device: &Device) -> [u64; 3] {
            [items[0], draw_seed(), draw_seed()]
        }
    }
    let build = || DataLoaderBuilder::new(Raw).set_device(Device::flex());
    let plain = [
        12_191_366_730_462_443_396,
        15_142_173_956_662_252_658,
        7_886_469_664_537_808_276,
    ];
    let first = [
        17_084_271_592_607_990_766,
        12_422_752_014_007_944_398,
        3_519_485_160_481_772_745,
    ];
    let second = [
        7_692_299_086_164_067_687,
        10_222_969_696_668_266_908,
        12_901_063_470_268_824_488,
    ];
    let sliced = [
        1_331_321_308_709_814_311,
        4_929_151_384_938_436_394,
        15_180_854_209_884_823_438,
    ];
    assert_eq!(epoch(&build().build(Seeds)), [plain]);
    let loader = build().shuffle(42).build(Seeds);
    assert_eq!(epoch(&loader), [first]);
    assert_eq!(epoch(&loader), [second]);
    assert_eq!(epoch(&loader.slice(0, 1)), [sliced]);
}

#[test]
fn outside_a_loader_there_is_no_epoch_and_draws_are_random() {
    assert_eq!(super::super::epoch(), None);
    let drawn: BTreeSet<_> = (0..100).map(|_| draw_seed()).collect();
    assert_eq!(drawn.len(), 100);
    // The seeds of another thread differ too.
    let other = thread::spawn(|| (0..100).map(|_| draw_seed()).collect::<Vec<_>>());
    let other = other.join().unwrap();
    assert!(other.iter().all(|seed| !drawn.contains(seed)));
}

/// Records the epoch while an item is loaded and while a batch is assembled.
struct Epochs;

impl Mapper<usize, Option<u64>> for Epochs {
    fn map(&self, _item: &usize) -> Option<u64> {
        super::super::epoch()
    }
}

impl Batcher<Option<u64>, Vec<Option<u64>>> for Epochs {
    fn batch(&self, mut items: Vec<Option<u64>>, _device: &Device) -> Vec<Option<u64>> {
        items.push(super::super::epoch());
        items
    }
}

#[test]
fn datasets_and_batchers_know_the_epoch() {
    for workers in ALL_WORKERS {
        for draws in [false, true] {
            let builder = DataLoaderBuilder::new(Epochs).set_device(Device::flex());
            let builder = builder.batch_size(2).num_workers(workers);
            let dataset = MapperDataset::new(numbers(100), Epochs);
            let loader = builder.batcher_draws(draws).build(dataset);
            drop(loader.iter());
            // Two epochs, alternating on the same threads.
            let both = loader.iter().zip(loader.iter());
            for (one, other) in both.take(20) {
                assert_eq!(one.unwrap(), [Some(1); 3]);
                assert_eq!(other.unwrap(), [Some(2); 3]);
                assert_eq!(super::super::epoch(), None);
            }
            let moved = loader.to_device(&Device::flex());
            assert_eq!(epoch(&moved)[0], [Some(0); 3]);
        }
    }
}

#[test]
fn after_a_panic_the_thread_is_in_no_epoch() {
    let on_load = |_| panic!("the test's dataset panics");
    let loader = builder().build(Numbers { len: 1, on_load });
    assert!(loader.iter().next().unwrap().is_err());
    assert_eq!(super::super::epoch(), None);
}

#[test]
fn a_loader_within_a_batcher_has_its_own_epoch() {
    struct Nested(Arc<dyn DataLoader<Vec<Option<u64>>>>);
    impl Batcher<Option<u64>, [Option<u64>; 3]> for Nested {
        fn batch(&self, _items: Vec<Option<u64>>, _device: &Device) -> [Option<u64>; 3] {
            let before = super::super::epoch();
            let inner = self.0.iter().next().unwrap().unwrap();
            [before, inner[0], super::super::epoch()]
        }
    }
    let dataset = || MapperDataset::new(numbers(3), Epochs);
    let inner = DataLoaderBuilder::new(Epochs).build(dataset());
    let outer = DataLoaderBuilder::new(Nested(inner)).build(dataset());
    let expected = [0, 1, 2].map(|inner| [Some(0), Some(inner), Some(0)]);
    assert_eq!(epoch(&outer), expected);
    assert_eq!(epoch(&outer)[0], [Some(1), Some(3), Some(1)]);
}
