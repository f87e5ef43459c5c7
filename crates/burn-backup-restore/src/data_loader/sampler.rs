//! A dataset of random samples that follow from the seed, the epoch and the index.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use burn::data::dataset::transform::{RngSource, SamplerDatasetOptions};
use burn::data::dataset::{Dataset, DatasetError};
use rand::Rng as _;

use super::context::{draw_seed, epoch};
use super::shuffle::{Generator, Shuffled, choose};
use crate::seed;

const LOG: &str = "burn_backup::data";

/// The number of orders that are kept. While one epoch ends, a device or a worker may be in the next.
const CYCLES_KEPT: usize = 2;

/// Random samples of a dataset. Replaces Burn's [`SamplerDataset`](burn::data::dataset::transform::SamplerDataset),
/// and has the same constructors.
///
/// Burn's sampler draws from a generator at each read. Its samples therefore differ after a restart, and with workers
/// in each run. Here a sample follows from the seed, the epoch and the index. It is exact after a restart, with any
/// number of workers, and skipped samples cost nothing. The samples are the same in every version of this crate.
///
/// - With replacement (the default): each sample is any item of the dataset, all equally likely.
/// - Without replacement: each epoch has every item equally often. Some items appear once more if the size is not a
///   multiple of the dataset's length. All samples are shuffled. The order of an epoch takes 4 bytes per sample, and
///   two of them are kept in memory.
///
/// The epoch is the epoch of the loader, which must come from [`data::DataLoaderBuilder`](super::DataLoaderBuilder).
/// Burn's datasets may wrap the sampler: [`MapperDataset`], [`PartialDataset`], [`ComposedDataset`] and so on.
/// Outside such a loader, every epoch has the samples of the first one. The log says so once (target
/// `burn_backup::data`, level `warn`).
///
/// # Differences from Burn's
///
/// - [`RngSource::Default`] does not mean random samples here. With replacement, a sample is drawn with
///   [`draw_seed`], so it follows from the loader's seed and the batch. Without replacement, the samples follow from
///   the dataset's length, the number of samples and the epoch: two samplers with the same length and number of
///   samples pick the same indices. If that matters, give each a seed of its own.
/// - With [`RngSource::Rng`], the seed is the first 64 bits drawn from the generator. `StdRng` may give other bits in
///   a later version of `rand`, so prefer a plain seed.
/// - An index beyond the end and an empty dataset are errors, not panics.
/// - The dataset's length is read once, by the constructor.
///
/// [`MapperDataset`]: burn::data::dataset::transform::MapperDataset
/// [`PartialDataset`]: burn::data::dataset::transform::PartialDataset
/// [`ComposedDataset`]: burn::data::dataset::transform::ComposedDataset
///
/// # Example
///
/// ```
/// use burn::data::dataloader::batcher::Batcher;
/// use burn::data::dataset::InMemDataset;
/// use burn::data::dataset::transform::SamplerDatasetOptions;
/// use burn::tensor::Device;
/// use burn_backup_restore::data::{DataLoaderBuilder, SamplerDataset};
///
/// #[derive(Clone)]
/// struct Listing;
///
/// impl Batcher<usize, Vec<usize>> for Listing {
///     fn batch(&self, items: Vec<usize>, _device: &Device) -> Vec<usize> {
///         items
///     }
/// }
///
/// let samples = SamplerDataset::new(
///     InMemDataset::new((0..4).collect()),
///     SamplerDatasetOptions::default()
///         .without_replacement()
///         .with_size_ratio(1.5)
///         .with_seed(42),
/// );
/// let loader = DataLoaderBuilder::new(Listing)
///     .batch_size(6)
///     .set_device(Device::flex())
///     .build(samples);
/// let mut first: Vec<usize> = loader.iter().next().unwrap()?;
/// let mut second: Vec<usize> = loader.iter().next().unwrap()?;
/// assert_ne!(first, second);
/// // Each item once, and two of them twice.
/// first.sort();
/// first.dedup();
/// assert_eq!(first, [0, 1, 2, 3]);
/// # Ok::<(), burn::data::dataset::DatasetError>(())
/// ```
pub struct SamplerDataset<D, I> {
    dataset: D,
    /// The number of items in the dataset.
    source_len: usize,
    /// The number of samples.
    size: usize,
    seed: Option<u64>,
    mode: Mode,
    has_warned: AtomicBool,
    item: PhantomData<fn() -> I>,
}

enum Mode {
    WithReplacement,
    WithoutReplacement(Cycles),
}

impl<D, I> SamplerDataset<D, I>
where
    D: Dataset<I>,
{
    /// Samples `dataset` according to `options`. A plain number is the number of samples, drawn with replacement.
    ///
    /// # Panics
    ///
    /// If the size ratio is negative, as in Burn.
    pub fn new<O>(dataset: D, options: O) -> Self
    where
        O: Into<SamplerDatasetOptions>,
    {
        let options = options.into();
        let source_len = dataset.len();
        let size = options.size_config.resolve(source_len);
        let seed = match options.rng_source {
            RngSource::Default => None,
            RngSource::Seed(seed) => Some(seed),
            RngSource::Rng(mut rng) => Some(rng.next_u64()),
        };
        let mode = match options.replace_samples {
            true => Mode::WithReplacement,
            false => Mode::WithoutReplacement(Cycles::default()),
        };
        Self {
            dataset,
            source_len,
            size,
            seed,
            mode,
            has_warned: AtomicBool::new(false),
            item: PhantomData,
        }
    }

    /// Takes `size` samples of `dataset`, with replacement.
    pub fn with_replacement(dataset: D, size: usize) -> Self {
        let options = SamplerDatasetOptions::default().with_replacement();
        Self::new(dataset, options.with_fixed_size(size))
    }

    /// Takes `size` samples of `dataset`, without replacement: each item equally often, some once more.
    pub fn without_replacement(dataset: D, size: usize) -> Self {
        let options = SamplerDatasetOptions::default().without_replacement();
        Self::new(dataset, options.with_fixed_size(size))
    }

    /// Whether samples are drawn with replacement.
    pub fn is_with_replacement(&self) -> bool {
        matches!(self.mode, Mode::WithReplacement)
    }

    /// The samples of the epoch that this thread is working on.
    fn samples(&self) -> Samples {
        let epoch = epoch().unwrap_or_else(|| {
            self.warn();
            0
        });
        match &self.mode {
            Mode::WithReplacement => Samples::Independent { epoch },
            Mode::WithoutReplacement(cycles) => {
                Samples::Cycle(cycles.get(epoch, || Cycle::new(self, epoch)))
            }
        }
    }

    /// The index in the dataset of the sample at `index`.
    fn pick(&self, samples: &Samples, index: usize) -> Result<usize, DatasetError> {
        let beyond = || {
            DatasetError::new(SamplerError::Index {
                index,
                size: self.size,
            })
        };
        if index >= self.size {
            return Err(beyond());
        }
        if self.source_len == 0 {
            return Err(DatasetError::new(SamplerError::Empty));
        }
        match samples {
            Samples::Independent { epoch } => {
                let seed = match self.seed {
                    Some(seed) => seed::of_sample(seed, *epoch, index),
                    None => draw_seed(),
                };
                Ok(Generator::seeded(seed).below(self.source_len as u64) as usize)
            }
            Samples::Cycle(cycle) => cycle.get(index).ok_or_else(beyond),
        }
    }

    fn warn(&self) {
        if self.has_warned.swap(true, Ordering::Relaxed) {
            return;
        }
        log::warn!(
            target: LOG,
            "a burn_backup_restore::data::SamplerDataset is read outside a loader of this crate: with a \
             seed it has the same samples in every epoch, and without one a resumed training is not \
             exact; build the loader with \
             burn_backup_restore::data::DataLoaderBuilder",
        );
    }
}

impl<D, I> Dataset<I> for SamplerDataset<D, I>
where
    D: Dataset<I>,
{
    fn get(&self, index: usize) -> Result<I, DatasetError> {
        self.dataset.get(self.pick(&self.samples(), index)?)
    }

    fn get_many(&self, indexes: Vec<usize>) -> Result<Vec<I>, DatasetError> {
        let samples = self.samples();
        let picked: Result<_, _> = indexes
            .into_iter()
            .map(|index| self.pick(&samples, index))
            .collect();
        self.dataset.get_many(picked?)
    }

    fn len(&self) -> usize {
        self.size
    }
}

/// The samples of an epoch.
enum Samples {
    Independent { epoch: u64 },
    Cycle(Arc<Cycle>),
}

/// The samples of an epoch without replacement: complete copies of the dataset and a remainder, shuffled.
struct Cycle {
    /// The number of items in the dataset; above 0 if there are samples.
    len: usize,
    /// The number of samples in the complete copies.
    copied: usize,
    /// The items that appear once more.
    rest: Vec<usize>,
    order: Shuffled,
}

impl Cycle {
    fn new<D, I>(of: &SamplerDataset<D, I>, epoch: u64) -> Self {
        let SamplerDataset {
            source_len: len,
            size,
            seed,
            ..
        } = *of;
        let seed = seed.unwrap_or_else(|| seed::of_unseeded_sampler(len, size));
        let (order, rest) = seed::of_sampled_epoch(seed, epoch);
        // An empty dataset has no samples.
        let count = size.checked_rem(len).unwrap_or_default();
        let copied = size.checked_div(len).unwrap_or_default() * len;
        Self {
            len,
            copied,
            rest: choose(count, len, rest),
            order: Shuffled::new(copied + count, order),
        }
    }

    fn get(&self, index: usize) -> Option<usize> {
        let place = self.order.at(index)?;
        match place.checked_sub(self.copied) {
            None => place.checked_rem(self.len),
            Some(place) => self.rest.get(place).copied(),
        }
    }
}

/// The cycles of the epochs in use, most recently used first. A panic while the lock is held leaves a valid list, so
/// a poisoned lock is still used.
#[derive(Default)]
struct Cycles(Mutex<Vec<(u64, Arc<Cycle>)>>);

impl Cycles {
    /// The cycle of `epoch`. Other threads that need it wait until it is made.
    fn get(&self, epoch: u64, make: impl FnOnce() -> Cycle) -> Arc<Cycle> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, cycle)) = kept.first().filter(|(of, _)| *of == epoch) {
            return cycle.clone();
        }
        let place = kept.iter().position(|(of, _)| *of == epoch);
        let cycle = match place {
            Some(place) => kept.remove(place).1,
            None => Arc::new(make()),
        };
        kept.insert(0, (epoch, cycle.clone()));
        kept.truncate(CYCLES_KEPT);
        cycle
    }
}

/// Errors of the sampler itself, inside Burn's [`DatasetError`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum SamplerError {
    #[error("there is no sample {index}: the SamplerDataset has {size}, counted from 0")]
    Index { index: usize, size: usize },

    #[error("the dataset of the SamplerDataset is empty, so there are no samples; give it items")]
    Empty,
}

#[cfg(test)]
impl<D, I> SamplerDataset<D, I> {
    /// Whether the sampler has warned that every epoch has the same samples.
    pub(super) fn has_warned(&self) -> bool {
        self.has_warned.load(Ordering::Relaxed)
    }

    /// The number of orders that the sampler keeps.
    pub(super) fn cycles(&self) -> usize {
        match &self.mode {
            Mode::WithReplacement => 0,
            Mode::WithoutReplacement(Cycles(kept)) => kept.lock().unwrap().len(),
        }
    }
}
