use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder, DataLoaderIterator, Progress};
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use burn_backup_restore::ResumableDataLoaderBuilder;

use crate::model::{Batch, CLASSES, FEATURES};

/// Whose loaders a training has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loaders {
    /// Burn's.
    Burns,
    /// Ours, which can be taken up anywhere.
    Resumable,
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
        let batcher = NoisyBatcher { draws };
        match self {
            Self::Burns => DataLoaderBuilder::new(batcher)
                .batch_size(batch_size)
                .shuffle(seed)
                .num_workers(workers)
                .build(data),
            Self::Resumable => ResumableDataLoaderBuilder::new(batcher)
                .batch_size(batch_size)
                .shuffle(seed)
                .num_workers(workers)
                .batcher_draws(draws)
                .build(data),
        }
    }
}

/// The numbers from 0 on.
pub struct Numbers {
    /// How many.
    pub items: usize,
    /// The one that can't be read, if any.
    pub broken: Option<usize>,
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

struct NoisyBatcher {
    draws: bool,
}

impl Batcher<usize, Batch> for NoisyBatcher {
    fn batch(&self, items: Vec<usize>, device: &Device) -> Batch {
        let rows = items.len();
        let inputs: Vec<f32> = items
            .iter()
            .flat_map(|item| (0..FEATURES).map(move |at| ((item * 7 + at * 3) % 11) as f32 / 11.0))
            .collect();
        let classes: Vec<i64> = items.iter().map(|item| (item % CLASSES) as i64).collect();
        let inputs = Tensor::from_data(TensorData::new(inputs, [rows, FEATURES]), device);
        let inputs = match self.draws {
            true => {
                let noise = Distribution::Normal(0.0, 0.1);
                inputs + Tensor::random([rows, FEATURES], noise, device)
            }
            false => inputs,
        };
        Batch {
            inputs,
            classes: Tensor::from_data(TensorData::new(classes, [rows]), device),
        }
    }
}

/// A loader that does not tell how far it is, as one of a stream may do.
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

/// A loader that does something when an iterator of it finds that no batch is left: the one with that
/// number, counted from 1.
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
