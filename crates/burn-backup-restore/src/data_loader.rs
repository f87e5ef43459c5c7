//! A loader that gives the same batches in the same order with any number of workers, and skips batches without
//! loading them.
//!
//! ```text
//! shuffle    the order of the items that a seed determines
//! recipe     makes a batch from its items
//! context    the batch that a thread is making: its epoch, and seeds for random draws
//! entry      enters an epoch after its start
//! findings   reports datasets that keep a training from being exact
//! sampler    a dataset of random samples that follow from the epoch
//! workers    threads that make batches in advance and deliver them in order
//! ```

mod context;
mod entry;
mod findings;
mod recipe;
mod sampler;
mod shuffle;
mod workers;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::Device;

use crate::burn_api::{self, Items};
use crate::seed;
use context::BatchId;
use recipe::{Failure, Order, Recipe};
use shuffle::Shuffled;
use workers::{Make, Prefetched, Workers};

pub use context::{draw_seed, epoch};
pub use sampler::SamplerDataset;

pub(crate) use entry::{enter, roll_back};
pub(crate) use findings::{BurnsSampler, take_finding};

#[cfg(test)]
pub(crate) use workers::WINDOW_PER_THREAD;

/// Builds a data loader that can resume at any batch. It has the methods of Burn's
/// [`DataLoaderBuilder`](burn::data::dataloader::DataLoaderBuilder), so changing the import is enough.
///
/// - The batches and their order are the same with any number of workers. An interrupted training may resume with a
///   different number of workers.
/// - The shuffle depends only on the seed and the epoch, and is the same in every version of this crate. The epoch is
///   the number of earlier calls of `iter`. Loaders from `to_device` and `slice` count their own calls.
/// - Batches are skipped without being loaded: `iter().nth(n)` takes the same time for every n.
/// - Each worker loads at most 16 batches in advance for each iterator in use. After a skip over loaded batches there
///   can briefly be twice as many. Workers start when the first batch is requested, and end when the loader is
///   dropped.
/// - An error of the dataset, or a panic in the dataset or the batcher, is returned as an error in place of its
///   batch. The iterator ends after it.
///
/// For datasets and batchers that draw random numbers, see [`SamplerDataset`] and [`draw_seed`].
///
/// # Example
///
/// ```
/// use burn::data::dataloader::batcher::Batcher;
/// use burn::data::dataset::InMemDataset;
/// use burn::tensor::{Device, Tensor};
/// use burn_backup_restore::data::DataLoaderBuilder;
///
/// struct Rows;
///
/// impl Batcher<f32, Tensor<1>> for Rows {
///     fn batch(&self, items: Vec<f32>, device: &Device) -> Tensor<1> {
///         Tensor::from_floats(items.as_slice(), device)
///     }
/// }
///
/// let items = (0..100).map(|n| n as f32).collect();
/// let loader = DataLoaderBuilder::new(Rows)
///     .batch_size(8)
///     .shuffle(42)
///     .num_workers(2)
///     .set_device(Device::flex())
///     .build(InMemDataset::new(items));
/// assert_eq!(loader.iter().count(), 13);
/// // The last batch of the second epoch, without loading the others.
/// let last = loader.iter().nth(12).unwrap()?;
/// assert_eq!(last.dims(), [4]);
/// # Ok::<(), burn::data::dataset::DatasetError>(())
/// ```
pub struct DataLoaderBuilder<I, O> {
    batcher: Arc<dyn Batcher<I, O>>,
    batch_size: usize,
    shuffle: Option<u64>,
    num_workers: usize,
    batcher_draws: bool,
    device: Option<Device>,
}

impl<I, O> DataLoaderBuilder<I, O>
where
    I: Send + 'static,
    O: Send + 'static,
{
    /// A builder of a loader whose batches are assembled by `batcher`.
    pub fn new<B>(batcher: B) -> Self
    where
        B: Batcher<I, O> + 'static,
    {
        Self {
            batcher: Arc::new(batcher),
            batch_size: 1,
            shuffle: None,
            num_workers: 0,
            batcher_draws: false,
            device: None,
        }
    }

    /// The number of items in a batch; 1 by default. The last batch of an epoch may have fewer. With 0, each iterator
    /// returns an error.
    pub fn batch_size(mut self, batch_size: usize) -> Self {
        self.batch_size = batch_size;
        self
    }

    /// Shuffles the items. The order follows from `seed` and differs in each epoch. By default items keep the
    /// dataset's order.
    pub fn shuffle(mut self, seed: u64) -> Self {
        self.shuffle = Some(seed);
        self
    }

    /// The number of threads that make batches in advance. With 0, the default, the thread that asks for a batch
    /// makes it.
    pub fn num_workers(mut self, num_workers: usize) -> Self {
        self.num_workers = num_workers;
        self
    }

    /// Says whether the batcher draws random numbers from the device's generator, for example for augmentation. False
    /// by default. Not needed for numbers drawn with [`draw_seed`].
    ///
    /// Workers would draw such numbers at any time and on any thread, in between the draws of the training (dropout,
    /// noise). Both would then differ in each run. With `true`, workers only load items. The thread that asks for the
    /// batch assembles it, after a training with backups has seeded the device. Without workers, the batch is always
    /// assembled on that thread.
    pub fn batcher_draws(mut self, batcher_draws: bool) -> Self {
        self.batcher_draws = batcher_draws;
        self
    }

    /// The device that is passed to the batcher. A training moves its loaders to its own device.
    pub fn set_device(mut self, device: Device) -> Self {
        self.device = Some(device);
        self
    }

    /// Builds the loader of `dataset`.
    pub fn build<D>(self, dataset: D) -> Arc<dyn DataLoader<O>>
    where
        D: Dataset<I> + 'static,
    {
        let recipe = Recipe {
            dataset: Arc::new(dataset),
            batcher: self.batcher,
            device: self.device.unwrap_or_default(),
        };
        Arc::new(Loader::new(Plan {
            recipe,
            batch_size: self.batch_size,
            shuffle: self.shuffle,
            draw_seed: self.shuffle.unwrap_or_default(),
            num_workers: self.num_workers,
            batcher_draws: self.batcher_draws,
            part: 0..usize::MAX,
            has_burns_sampler: findings::has_burns_sampler::<D>(),
        }))
    }
}

/// The settings of a loader.
struct Plan<I, O> {
    recipe: Recipe<I, O>,
    batch_size: usize,
    shuffle: Option<u64>,
    /// The seed that the seeds of [`draw_seed`] are derived from.
    draw_seed: u64,
    num_workers: usize,
    batcher_draws: bool,
    /// The range of items of this loader. It may reach beyond the dataset's end.
    part: Range<usize>,
    /// Whether the dataset's type shows Burn's sampler.
    has_burns_sampler: bool,
}

impl<I, O> Clone for Plan<I, O> {
    fn clone(&self) -> Self {
        Self {
            recipe: self.recipe.clone(),
            part: self.part.clone(),
            ..*self
        }
    }
}

/// The result that a worker makes in advance.
enum WorkerResult<I, O> {
    Items(Vec<I>),
    Batch(O),
}

type Outcome<I, O> = Result<WorkerResult<I, O>, DatasetError>;

struct Loader<I, O> {
    plan: Plan<I, O>,
    /// The number of iterators that were requested.
    epochs: AtomicU64,
    workers: OnceLock<Workers<Outcome<I, O>>>,
}

impl<I, O> Loader<I, O> {
    fn new(plan: Plan<I, O>) -> Self {
        Self {
            plan,
            epochs: AtomicU64::new(0),
            workers: OnceLock::new(),
        }
    }

    /// The indices of this loader's items.
    fn items(&self) -> Range<usize> {
        let Range { start, end } = self.plan.part;
        let end = end.min(self.plan.recipe.dataset.len());
        start.min(end)..end
    }
}

impl<I, O> DataLoader<O> for Loader<I, O>
where
    I: Send + 'static,
    O: Send + 'static,
{
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<O> + 'a> {
        if self.plan.has_burns_sampler {
            findings::note(self.plan.num_workers);
        }
        let items = self.items();
        let asked = || self.epochs.load(Ordering::Relaxed);
        let (number, entered) = match (entry::take_back(), entry::take()) {
            (Some(epochs), _) => {
                let number = asked().saturating_sub(epochs);
                self.epochs.store(number, Ordering::Relaxed);
                (number, 0)
            }
            (None, None) => (self.epochs.fetch_add(1, Ordering::Relaxed), 0),
            (None, Some(entry)) => {
                self.epochs.store(entry.epoch + 1, Ordering::Relaxed);
                (entry.epoch, entry.items.min(items.len()))
            }
        };
        let end = match self.plan.batch_size {
            // One element: the error about the batch size.
            0 => 1,
            size => (items.len() - entered).div_ceil(size),
        };
        Box::new(Epoch {
            loader: self,
            number,
            entered,
            items,
            next: 0,
            end,
            source: None,
        })
    }

    fn num_items(&self) -> usize {
        self.items().len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<O>> {
        let mut plan = self.plan.clone();
        plan.recipe.device = device.clone();
        Arc::new(Self::new(plan))
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<O>> {
        let mut plan = self.plan.clone();
        let part = &self.plan.part;
        plan.shuffle = plan.shuffle.map(|seed| seed::of_slice(seed, start, end));
        plan.draw_seed = seed::of_slice(plan.draw_seed, start, end);
        plan.part = part.start.saturating_add(start)..part.start.saturating_add(end).min(part.end);
        Arc::new(Self::new(plan))
    }
}

/// The batches of an epoch.
struct Epoch<'l, I, O> {
    loader: &'l Loader<I, O>,
    number: u64,
    /// The number of items of the epoch before its first batch.
    entered: usize,
    items: Range<usize>,
    /// The index of the next batch.
    next: usize,
    /// The number of batches; `next` after an error.
    end: usize,
    /// The source of the batches. Set when the first batch is requested, so that creating the iterator costs nothing.
    source: Option<Source<'l, I, O>>,
}

enum Source<'l, I, O> {
    /// The batches are made on the calling thread.
    Here(Make<Outcome<I, O>>),
    Workers(Prefetched<'l, Outcome<I, O>>),
}

impl<'l, I, O> Epoch<'l, I, O>
where
    I: Send + 'static,
    O: Send + 'static,
{
    fn fetch(&mut self) -> Result<O, DatasetError> {
        let plan = &self.loader.plan;
        if plan.batch_size == 0 {
            return Err(DatasetError::new(Failure::BatchSize));
        }
        let index = self.next;
        let source = match self.source.take() {
            Some(source) => source,
            None => self.source(),
        };
        let made = match self.source.insert(source) {
            Source::Here(make) => make(index),
            Source::Workers(ahead) => ahead
                .take(index)
                .unwrap_or_else(|| Err(DatasetError::new(Failure::OutOfOrder))),
        };
        match made? {
            WorkerResult::Batch(batch) => Ok(batch),
            WorkerResult::Items(items) => plan.recipe.batch(self.batch_id(index), items),
        }
    }

    fn batch_id(&self, batch: usize) -> BatchId {
        BatchId {
            draw_seed: self.loader.plan.draw_seed,
            epoch: self.number,
            // `entered` counts items, so it is at least the number of earlier batches. So no two batches share a
            // number.
            batch: self.entered + batch,
        }
    }

    fn source(&self) -> Source<'l, I, O> {
        let make = self.make();
        match self.loader.plan.num_workers {
            0 => Source::Here(make),
            threads => {
                let workers = &self.loader.workers;
                let workers = workers.get_or_init(|| Workers::start(threads));
                Source::Workers(workers.begin(self.next, self.end, make))
            }
        }
    }

    fn make(&self) -> Make<Outcome<I, O>> {
        let plan = &self.loader.plan;
        let shuffled = plan.shuffle.map(|seed| {
            let seed = seed::of_shuffle(seed, self.number);
            Shuffled::new(self.items.len(), seed)
        });
        let order = Order {
            entered: self.entered,
            items: self.items.clone(),
            batch_size: plan.batch_size,
            shuffled,
        };
        let (recipe, batcher_draws) = (plan.recipe.clone(), plan.batcher_draws);
        let first = self.batch_id(0);
        Arc::new(move |batch| {
            let id = BatchId {
                batch: first.batch + batch,
                ..first
            };
            let items = recipe.load(id, order.indices(batch))?;
            match batcher_draws {
                true => Ok(WorkerResult::Items(items)),
                false => recipe.batch(id, items).map(WorkerResult::Batch),
            }
        })
    }
}

impl<I, O> Iterator for Epoch<'_, I, O>
where
    I: Send + 'static,
    O: Send + 'static,
{
    type Item = Result<O, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            // This also drops the batches made in advance.
            self.source = None;
            return None;
        }
        let batch = self.fetch();
        match batch {
            Ok(_) => self.next += 1,
            Err(_) => self.end = self.next,
        }
        Some(batch)
    }

    fn nth(&mut self, batches: usize) -> Option<Self::Item> {
        self.next = self.next.saturating_add(batches).min(self.end);
        self.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end.saturating_sub(self.next);
        (left, Some(left))
    }
}

impl<I, O> DataLoaderIterator<O> for Epoch<'_, I, O>
where
    I: Send + 'static,
    O: Send + 'static,
{
    fn progress(&self) -> Progress {
        let total = self.items.len();
        let batches = self.next.saturating_mul(self.loader.plan.batch_size);
        let processed = self.entered.saturating_add(batches);
        burn_api::progress_of(Items {
            processed: processed.min(total),
            total,
        })
    }
}

#[cfg(test)]
mod tests;
