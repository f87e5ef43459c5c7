//! Samples are the same in each run, on any thread, and after a resume at any place.

use std::collections::BTreeMap;

use burn::data::dataset::InMemDataset;
use burn::data::dataset::transform::{
    ComposedDataset, Mapper, MapperDataset, PartialDataset, SamplerDatasetOptions,
    SelectionDataset, WindowsDataset,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;

type Sampler<D> = SamplerDataset<D, usize>;

fn options(replace: bool) -> SamplerDatasetOptions {
    let options = SamplerDatasetOptions::default().with_seed(8);
    options.with_replace_samples(replace)
}

fn sampler(len: usize, size: usize, replace: bool) -> Sampler<impl Dataset<usize>> {
    SamplerDataset::new(numbers(len), options(replace).with_fixed_size(size))
}

/// The items of the first epochs, one batch per epoch.
fn epochs<const EPOCHS: usize>(dataset: impl Dataset<usize> + 'static) -> [Vec<usize>; EPOCHS] {
    let loader = builder().batch_size(usize::MAX).build(dataset);
    [(); EPOCHS].map(|()| epoch(&loader).concat())
}

#[test]
fn samples_are_the_same_whatever_the_number_of_workers() {
    for replace in [true, false] {
        for seed in [None, Some(5)] {
            let build = |workers| {
                let builder = builder().batch_size(4).num_workers(workers);
                let builder = seed.into_iter().fold(builder, |b, seed| b.shuffle(seed));
                builder.build(sampler(30, 70, replace))
            };
            let loaders = ALL_WORKERS.map(build);
            for _ in 0..4 {
                let [expected, others @ ..] = loaders.each_ref().map(epoch);
                assert_eq!(expected.concat().len(), 70);
                for other in others {
                    assert_eq!(other, expected);
                }
            }
        }
    }
}

#[test]
fn after_a_skip_the_samples_are_the_same_and_skipped_ones_are_not_loaded() {
    for replace in [true, false] {
        for workers in [0, 3] {
            let (dataset, loaded) = counted(1000);
            let dataset = SamplerDataset::new(dataset, options(replace).with_fixed_size(3000));
            let build = builder().batch_size(10).num_workers(workers);
            let loader = build.build(dataset);
            drop(loader.iter());
            let rest: Vec<_> = loader.iter().skip(250).map(Result::unwrap).collect();
            let window = WINDOW_PER_THREAD * workers;
            assert!(loaded.load(Ordering::SeqCst) <= (50 + window) * 10);

            let uninterrupted = builder().batch_size(10).build(sampler(1000, 3000, replace));
            drop(epoch(&uninterrupted));
            assert_eq!(rest, epoch(&uninterrupted)[250..]);
        }
    }
}

#[test]
fn each_epoch_and_each_seed_has_other_samples() {
    for replace in [true, false] {
        let of_one: [_; 20] = epochs(sampler(30, 50, replace));
        let different: BTreeSet<_> = of_one.iter().collect();
        assert_eq!(different.len(), 20);
        let other = options(replace).with_fixed_size(50).with_seed(9);
        let [of_other] = epochs(SamplerDataset::new(numbers(30), other));
        assert!(!different.contains(&of_other));
    }
}

#[test]
fn without_replacement_each_item_comes_equally_often_or_once_more() {
    for len in [1, 2, 7, 30] {
        for size in [0, 1, 5, 7, 29, 30, 31, 60, 100] {
            for items in epochs::<3>(sampler(len, size, false)) {
                let mut counts: BTreeMap<_, _> = (0..len).map(|item| (item, 0)).collect();
                for item in items {
                    *counts.get_mut(&item).unwrap() += 1;
                }
                assert_eq!(counts.values().sum::<usize>(), size);
                let often = size / len;
                assert!(counts.values().all(|n| [often, often + 1].contains(n)));
            }
        }
    }
}

#[test]
fn without_replacement_any_item_may_come_anywhere_and_once_more() {
    // How often each of 4 items appears at each of 6 places.
    const EPOCHS: usize = 12_000;
    let loader = builder().batch_size(6).build(sampler(4, 6, false));
    let mut counts = [[0_usize; 4]; 6];
    for _ in 0..EPOCHS {
        for (place, item) in epoch(&loader).concat().into_iter().enumerate() {
            counts[place][item] += 1;
        }
    }
    // Six standard deviations.
    let all = counts.as_flattened();
    assert!(
        all.iter().all(|count| count.abs_diff(EPOCHS / 4) < 285),
        "{counts:?}"
    );
}

#[test]
fn with_replacement_each_item_is_equally_likely() {
    const SAMPLES: usize = 70_000;
    let mut counts = [0_usize; 7];
    let [items] = epochs(sampler(7, SAMPLES, true));
    // Every item is equally likely after any other item.
    let mut pairs = [[0_usize; 7]; 7];
    for two in items.windows(2) {
        pairs[two[0]][two[1]] += 1;
    }
    for item in items {
        counts[item] += 1;
    }
    // Six standard deviations.
    assert!(
        counts.iter().all(|n| n.abs_diff(SAMPLES / 7) < 560),
        "{counts:?}"
    );
    let all = pairs.as_flattened();
    assert!(
        all.iter().all(|n| n.abs_diff(SAMPLES / 49) < 225),
        "{pairs:?}"
    );
}

#[test]
fn samples_do_not_change_between_versions() {
    // A training from a backup of an older version must get the same samples.
    let [first, second] = epochs(sampler(10, 8, true));
    assert_eq!(first, [3, 4, 6, 9, 4, 5, 9, 8]);
    assert_eq!(second, [5, 4, 7, 8, 2, 4, 7, 5]);
    let [first, second] = epochs(sampler(4, 10, false));
    assert_eq!(first, [1, 0, 3, 0, 1, 2, 3, 3, 2, 0]);
    assert_eq!(second, [1, 1, 2, 3, 0, 1, 3, 0, 2, 0]);
    let [unseeded] = epochs(SamplerDataset::with_replacement(numbers(10), 8));
    assert_eq!(unseeded, [6, 5, 1, 3, 6, 0, 2, 2]);
    let [unseeded] = epochs(SamplerDataset::without_replacement(numbers(10), 8));
    assert_eq!(unseeded, [6, 5, 0, 2, 4, 7, 3, 1]);
}

#[test]
fn every_constructor_matches_burns() {
    use burn::data::dataset::transform;
    let default = SamplerDatasetOptions::default;
    // Each pair uses the same options for Burn's sampler and ours.
    let constructed: [[(usize, bool); 2]; 9] = [
        both(|| 15.into()),
        both(|| None::<usize>.into()),
        both(|| Some(7).into()),
        both(default),
        both(|| default().with_size_ratio(1.5).without_replacement()),
        both(|| default().without_replacement().with_source_size()),
        both(|| default().with_fixed_size(3).with_replacement()),
        [
            about(&SamplerDataset::with_replacement(numbers(10), 15)),
            burns(&transform::SamplerDataset::with_replacement(
                numbers(10),
                15,
            )),
        ],
        [
            about(&SamplerDataset::without_replacement(numbers(10), 15)),
            burns(&transform::SamplerDataset::without_replacement(
                numbers(10),
                15,
            )),
        ],
    ];
    for [ours, burns] in constructed {
        assert_eq!(ours, burns);
    }

    fn both(options: impl Fn() -> SamplerDatasetOptions) -> [(usize, bool); 2] {
        [
            about(&SamplerDataset::new(numbers(10), options())),
            burns(&transform::SamplerDataset::new(numbers(10), options())),
        ]
    }
    fn about<D: Dataset<usize>>(sampler: &Sampler<D>) -> (usize, bool) {
        (sampler.len(), sampler.is_with_replacement())
    }
    fn burns<D: Dataset<usize>>(sampler: &transform::SamplerDataset<D, usize>) -> (usize, bool) {
        (sampler.len(), sampler.is_with_replacement())
    }
}

#[test]
fn the_seed_is_that_of_the_options() {
    for replace in [true, false] {
        let options = || options(replace).with_fixed_size(20);
        let of = |options| epochs::<2>(SamplerDataset::new(numbers(10), options));
        let rng = || StdRng::seed_from_u64(3);
        let first = rng().next_u64();
        assert_eq!(
            of(options().with_rng(rng())),
            of(options().with_seed(first))
        );
        // Without a seed, the samples are the same in each process.
        let unseeded = || options().with_system_rng();
        assert_eq!(of(unseeded()), of(unseeded()));
        let [mut longer, _] = of(unseeded().with_fixed_size(21));
        longer.truncate(20);
        assert_eq!(longer == of(unseeded())[0], replace);
        // With a seed, samplers of different sizes share their samples if they draw with
        // replacement.
        let [mut longer, _] = of(options().with_fixed_size(21));
        longer.truncate(20);
        assert_eq!(longer == of(options())[0], replace);
    }
}

#[test]
fn the_epoch_reaches_a_sampler_inside_burns_other_datasets() {
    struct Same;
    impl Mapper<usize, usize> for Same {
        fn map(&self, item: &usize) -> usize {
            *item
        }
    }
    struct Sum;
    impl Mapper<Vec<usize>, usize> for Sum {
        fn map(&self, window: &Vec<usize>) -> usize {
            window.iter().sum()
        }
    }
    for replace in [true, false] {
        let inner = || sampler(30, 20, replace);
        let plain: [_; 3] = epochs(inner());
        let mapped = epochs(MapperDataset::new(inner(), Same));
        assert_eq!(mapped, plain);
        let part = epochs(PartialDataset::new(inner(), 5, 15));
        assert_eq!(part, plain.each_ref().map(|items| items[5..15].to_vec()));
        let twice = epochs(ComposedDataset::new(vec![inner(), inner()]));
        assert_eq!(twice, plain.each_ref().map(|items| items.repeat(2)));
        let selected: SelectionDataset<Sampler<_>, usize> =
            SelectionDataset::from_indices_checked(inner(), vec![3, 1]);
        let selected = epochs(selected);
        assert_eq!(
            selected,
            plain.each_ref().map(|items| vec![items[3], items[1]])
        );
        let windows = WindowsDataset::new(inner(), 2);
        let sums = epochs(MapperDataset::new(windows, Sum));
        let expected = plain.each_ref().map(|items| {
            let windows = items.windows(2);
            windows.map(|two| two[0] + two[1]).collect::<Vec<_>>()
        });
        assert_eq!(sums, expected);
        let shared: Arc<dyn Dataset<usize>> = Arc::new(inner());
        assert_eq!(epochs(shared), plain);
    }
}

#[test]
fn the_parts_of_a_loader_make_up_the_samples_of_an_epoch() {
    for replace in [true, false] {
        let whole = builder().batch_size(4).build(sampler(9, 20, replace));
        let parts = [whole.slice(0, 8), whole.slice(8, 20)];
        for _ in 0..3 {
            let of_parts = parts.each_ref().map(epoch).concat();
            assert_eq!(of_parts, epoch(&whole));
        }
    }
}

#[test]
fn orders_of_two_epochs_are_kept() {
    let sampler = Arc::new(sampler(9, 20, false));
    let loader = builder()
        .batch_size(4)
        .num_workers(2)
        .build(sampler.clone());
    let mut epochs = Vec::new();
    for _ in 0..4 {
        epochs.push(epoch(&loader));
        assert!(sampler.cycles() <= 2);
    }
    assert_eq!(sampler.cycles(), 2);
    // Alternates between more epochs than are kept.
    let again = loader.to_device(&Device::flex());
    let [one, two, three] = [again.iter(), again.iter(), again.iter()];
    for (index, ((one, two), three)) in one.zip(two).zip(three).enumerate() {
        let batches = [one, two, three].map(Result::unwrap);
        let expected = [0, 1, 2].map(|epoch: usize| epochs[epoch][index].clone());
        assert_eq!(batches, expected);
    }
    assert_eq!(sampler.cycles(), 2);
}

#[test]
fn an_empty_dataset_and_an_index_beyond_the_end_are_errors_that_say_so() {
    for replace in [true, false] {
        let empty: Sampler<_> = SamplerDataset::new(
            InMemDataset::new(Vec::new()),
            options(replace).with_fixed_size(3),
        );
        let text = "the dataset of the SamplerDataset is empty";
        let error = empty.get(0).unwrap_err();
        assert!(error.to_string().starts_with(text), "{error}");
        let error = empty.get_many(vec![2]).unwrap_err();
        assert!(error.to_string().starts_with(text), "{error}");
        let loader = builder().build(empty);
        let error = loader.iter().next().unwrap().unwrap_err();
        assert!(error.to_string().starts_with(text), "{error}");

        let sampler = sampler(10, 3, replace);
        let text = "there is no sample 3: the SamplerDataset has 3,";
        assert!(sampler.get(2).is_ok());
        let error = sampler.get(3).unwrap_err();
        assert!(error.to_string().starts_with(text), "{error}");
        let error = sampler.get_many(vec![0, 3]).unwrap_err();
        assert!(error.to_string().starts_with(text), "{error}");

        // A sampler without samples is not an error.
        let none = SamplerDataset::new(numbers(0), options(replace));
        assert!(none.is_empty());
        assert_eq!(epoch(&builder().build(none)).len(), 0);
    }
}

#[test]
fn outside_a_loader_a_sampler_has_the_samples_of_the_first_epoch_and_warns() {
    for replace in [true, false] {
        let sampler = Arc::new(sampler(10, 8, replace));
        let loader = builder()
            .batch_size(8)
            .num_workers(2)
            .build(sampler.clone());
        let first = epoch(&loader).concat();
        let second = epoch(&loader).concat();
        assert_ne!(first, second);
        assert!(!sampler.has_warned());

        for _ in 0..2 {
            let items: Vec<_> = sampler.iter().map(Result::unwrap).collect();
            assert_eq!(items, first);
            assert!(sampler.has_warned());
        }
        assert_eq!(sampler.get_many((0..8).collect()).unwrap(), first);
    }
}
