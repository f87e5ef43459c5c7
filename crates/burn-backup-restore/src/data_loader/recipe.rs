//! Makes a batch: loads its items and assembles them.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::Device;

use super::context::BatchId;
use super::shuffle::Shuffled;
use crate::panics::panic_message;
use crate::seed::Purpose;

/// What is needed to make batches.
pub(super) struct Recipe<I, O> {
    pub dataset: Arc<dyn Dataset<I>>,
    pub batcher: Arc<dyn Batcher<I, O>>,
    pub device: Device,
}

impl<I, O> Clone for Recipe<I, O> {
    fn clone(&self) -> Self {
        Self {
            dataset: self.dataset.clone(),
            batcher: self.batcher.clone(),
            device: self.device.clone(),
        }
    }
}

impl<I, O> Recipe<I, O> {
    /// Loads the items of a batch, by their indices.
    pub(super) fn load(&self, of: BatchId, indices: Vec<usize>) -> Result<Vec<I>, DatasetError> {
        let asked = indices.len();
        attempt("dataset", || {
            let items = of.make(Purpose::DrawForItems, || self.dataset.get_many(indices))?;
            match items.len() {
                given if given == asked => Ok(items),
                given => Err(DatasetError::new(Failure::ItemCount { asked, given })),
            }
        })?
    }

    /// Assembles a batch.
    pub(super) fn batch(&self, of: BatchId, items: Vec<I>) -> Result<O, DatasetError> {
        attempt("batcher", || {
            of.make(Purpose::DrawForBatch, || {
                self.batcher.batch(items, &self.device)
            })
        })
    }
}

/// Runs `work` and turns a panic into an error, which takes the place of the batch.
fn attempt<T>(whose: &'static str, work: impl FnOnce() -> T) -> Result<T, DatasetError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        DatasetError::new(Failure::Panicked {
            whose,
            message: panic_message(panic.as_ref()),
        })
    })
}

/// Assigns the items of an epoch to its batches.
pub(super) struct Order {
    /// The number of items before the first batch.
    pub entered: usize,
    /// The items' indices in the dataset.
    pub items: Range<usize>,
    pub batch_size: usize,
    /// The shuffled places in `items`; `None` keeps the order.
    pub shuffled: Option<Shuffled>,
}

impl Order {
    /// The indices of the items in a batch.
    pub(super) fn indices(&self, batch: usize) -> Vec<usize> {
        let start = batch.saturating_mul(self.batch_size);
        let start = start.saturating_add(self.entered).min(self.items.len());
        let end = start.saturating_add(self.batch_size).min(self.items.len());
        let mut places = match &self.shuffled {
            Some(shuffled) => shuffled.get(start..end),
            None => (start..end).collect(),
        };
        for place in &mut places {
            *place += self.items.start;
        }
        places
    }
}

/// Errors of the loader itself, inside Burn's [`DatasetError`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error(
        "the batch size is 0, so there are no batches; give \
         burn_backup_restore::data::DataLoaderBuilder a batch_size of 1 or more"
    )]
    BatchSize,

    #[error("a batch was requested after a later batch of the same epoch")]
    OutOfOrder,

    #[error("the {whose} panicked while a batch was being made: {message}")]
    Panicked {
        whose: &'static str,
        message: String,
    },

    #[error(
        "the dataset gave {given} items for {asked} indices; its get_many must return one item \
         for each index, or an error"
    )]
    ItemCount { asked: usize, given: usize },
}
