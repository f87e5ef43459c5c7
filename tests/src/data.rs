use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder, DataLoaderIterator, Progress};
use burn::data::dataset::transform::{SamplerDataset, SamplerDatasetOptions};
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use burn_backup_restore::{ResumableDataLoaderBuilder, data};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::model::{Batch, CLASSES, FEATURES};

/// The kind of loaders that a training has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loaders {
    /// Burn's.
    Burns,
    /// Ours, which can resume anywhere.
    Resumable,
    /// Burn's, of random samples by Burn's sampler with a seed.
    BurnsWithBurnsSampler,
    /// Burn's, with a batcher whose noise comes from a generator of its own.
    BurnsWithOwnGenerator,
    /// Ours, of random samples by our sampler with a seed.
    ResumableWithSampler,
    /// Ours, of random samples by Burn's sampler with a seed.
    ResumableWithBurnsSampler,
}

impl Loaders {
    /// A shuffling loader of `data`, whose batcher adds noise from the device's generator if it
    /// `draws`.
    pub fn build(
        self,
        data: Numbers,
        batch_size: usize,
        seed: u64,
        workers: usize,
        draws: bool,
    ) -> Arc<dyn DataLoader<Batch>> {
        let noise = match (self, draws) {
            (Self::BurnsWithOwnGenerator, _) => {
                Noise::Own(Box::new(Mutex::new(StdRng::seed_from_u64(seed))))
            }
            (_, true) => Noise::OfDevice,
            (_, false) => Noise::None,
        };
        let poison = data.poison;
        let batcher = NumbersBatcher { noise, poison };
        let samples = || {
            SamplerDatasetOptions::default()
                .with_fixed_size(data.items)
                .with_seed(seed)
        };
        let burns = |batcher: NumbersBatcher| {
            DataLoaderBuilder::new(batcher)
                .batch_size(batch_size)
                .shuffle(seed)
                .num_workers(workers)
        };
        let ours = |batcher: NumbersBatcher| {
            ResumableDataLoaderBuilder::new(batcher)
                .batch_size(batch_size)
                .shuffle(seed)
                .num_workers(workers)
                .batcher_draws(draws)
        };
        match self {
            Self::Burns | Self::BurnsWithOwnGenerator => burns(batcher).build(data),
            Self::BurnsWithBurnsSampler => {
                let samples = samples();
                burns(batcher).build(SamplerDataset::new(data, samples))
            }
            Self::Resumable => ours(batcher).build(data),
            Self::ResumableWithSampler => {
                let samples = samples();
                ours(batcher).build(data::SamplerDataset::new(data, samples))
            }
            Self::ResumableWithBurnsSampler => {
                let samples = samples();
                ours(batcher).build(SamplerDataset::new(data, samples))
            }
        }
    }
}

/// Items whose inputs are ruined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Poison {
    /// The items: one bit for each.
    pub items: u64,
    /// The only epoch in which they are ruined, counted from 1, with one of our loaders; otherwise they are
    /// in each epoch.
    pub epoch: Option<u64>,
    /// The value of their inputs.
    pub inputs: f32,
}

impl Poison {
    /// Whether this item is ruined.
    pub fn has(&self, item: usize) -> bool {
        item < 64 && self.items >> item & 1 == 1
    }
}

/// The numbers from 0 on.
pub struct Numbers {
    /// How many numbers there are.
    pub items: usize,
    /// The number that can't be read, if any.
    pub broken: Option<usize>,
    /// The numbers that are ruined, if any.
    pub poison: Option<Poison>,
}

impl Dataset<usize> for Numbers {
    fn get(&self, index: usize) -> Result<usize, DatasetError> {
        if self.broken == Some(index) {
            return Err(DatasetError::new(std::io::Error::other(
                "this item is broken",
            )));
        }
        Ok(index)
    }

    fn len(&self) -> usize {
        self.items
    }
}

/// Makes batches of numbers.
#[derive(Default)]
pub struct NumbersBatcher {
    noise: Noise,
    poison: Option<Poison>,
}

/// The source of the noise that is added to a batch.
#[derive(Default)]
enum Noise {
    #[default]
    None,
    /// The device's generator.
    OfDevice,
    /// A generator of the batcher.
    Own(Box<Mutex<StdRng>>),
}

impl NumbersBatcher {
    /// A batcher that adds noise from the device's generator.
    pub fn drawing() -> Self {
        Self {
            noise: Noise::OfDevice,
            poison: None,
        }
    }

    /// The inputs of an item.
    fn inputs(&self, item: usize) -> [f32; FEATURES] {
        let is_now =
            |epoch: Option<u64>| epoch.is_none_or(|epoch| data::epoch() == Some(epoch - 1));
        match self.poison {
            Some(poison) if poison.has(item) && is_now(poison.epoch) => [poison.inputs; FEATURES],
            _ => std::array::from_fn(|at| ((item * 7 + at * 3) % 11) as f32 / 11.0),
        }
    }
}

impl Batcher<usize, Batch> for NumbersBatcher {
    fn batch(&self, items: Vec<usize>, device: &Device) -> Batch {
        let rows = items.len();
        let inputs: Vec<f32> = items.iter().flat_map(|item| self.inputs(*item)).collect();
        let classes: Vec<i64> = items.iter().map(|item| (item % CLASSES) as i64).collect();
        let inputs = Tensor::from_data(TensorData::new(inputs, [rows, FEATURES]), device);
        let inputs = match &self.noise {
            Noise::None => inputs,
            Noise::OfDevice => {
                let noise = Distribution::Normal(0.0, 0.1);
                inputs + Tensor::random([rows, FEATURES], noise, device)
            }
            Noise::Own(generator) => {
                let noise = generator.lock().unwrap().random_range(-0.1..0.1_f32);
                inputs.add_scalar(noise)
            }
        };
        Batch {
            inputs,
            classes: Tensor::from_data(TensorData::new(classes, [rows]), device),
        }
    }
}

impl Batch {
    /// The numbers in the batch. It must be without noise, and have no more than 33 numbers.
    pub fn numbers(&self) -> Vec<usize> {
        let firsts = self.inputs.clone().slice([0..self.classes.dims()[0], 0..1]);
        let firsts: Vec<f32> = firsts.into_data().convert::<f32>().try_to_vec().unwrap();
        let classes: Vec<i64> = self
            .classes
            .to_data()
            .convert::<i64>()
            .try_to_vec()
            .unwrap();
        let numbers = firsts.iter().zip(classes).map(|(first, class)| {
            let eleventh = (first * 11.0).round() as usize;
            let is_meant =
                |number: &usize| number * 7 % 11 == eleventh && (number % CLASSES) as i64 == class;
            (0..33).find(is_meant).unwrap()
        });
        numbers.collect()
    }
}

/// A loader that does not report its progress, like one of a stream.
pub struct Silent(pub Arc<dyn DataLoader<Batch>>);

struct SilentIterator<'l>(Box<dyn DataLoaderIterator<Batch> + 'l>);

impl DataLoader<Batch> for Silent {
    fn iter<'l>(&'l self) -> Box<dyn DataLoaderIterator<Batch> + 'l> {
        Box::new(SilentIterator(self.0.iter()))
    }

    fn num_items(&self) -> usize {
        0
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self(self.0.to_device(device)))
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self(self.0.slice(start, end)))
    }
}

impl Iterator for SilentIterator<'_> {
    type Item = Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

impl DataLoaderIterator<Batch> for SilentIterator<'_> {
    fn progress(&self) -> Progress {
        Progress::new(0, 0, None)
    }
}

/// A loader that calls a function when its iterator with this number finds no further batch. Iterators are
/// counted from 1.
pub struct AtItsEnd {
    loader: Arc<dyn DataLoader<Batch>>,
    iterators: Arc<AtomicUsize>,
    number: usize,
    act: Arc<dyn Fn() + Send + Sync>,
}

impl AtItsEnd {
    pub fn of(
        loader: Arc<dyn DataLoader<Batch>>,
        number: usize,
        act: impl Fn() + Send + Sync + 'static,
    ) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self {
            loader,
            iterators: Arc::default(),
            number,
            act: Arc::new(act),
        })
    }

    /// Each part counts its own iterators.
    fn part(&self, loader: Arc<dyn DataLoader<Batch>>) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self {
            loader,
            iterators: Arc::default(),
            number: self.number,
            act: self.act.clone(),
        })
    }
}

struct AtItsEndIterator<'l> {
    iterator: Box<dyn DataLoaderIterator<Batch> + 'l>,
    act: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl DataLoader<Batch> for AtItsEnd {
    fn iter<'l>(&'l self) -> Box<dyn DataLoaderIterator<Batch> + 'l> {
        let number = self.iterators.fetch_add(1, Ordering::Relaxed) + 1;
        Box::new(AtItsEndIterator {
            iterator: self.loader.iter(),
            act: (number == self.number).then(|| self.act.clone()),
        })
    }

    fn num_items(&self) -> usize {
        self.loader.num_items()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        self.part(self.loader.to_device(device))
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Batch>> {
        self.part(self.loader.slice(start, end))
    }
}

impl Iterator for AtItsEndIterator<'_> {
    type Item = Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.iterator.next();
        if let (None, Some(act)) = (&next, &self.act) {
            act();
        }
        next
    }
}

impl DataLoaderIterator<Batch> for AtItsEndIterator<'_> {
    fn progress(&self) -> Progress {
        self.iterator.progress()
    }
}
