//! How a batch comes to be: its items are loaded, and put together.

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

/// What batches are made of, and by what.
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
    /// Loads the items of a batch, those with these indices.
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

    /// Puts a batch together.
    pub(super) fn batch(&self, of: BatchId, items: Vec<I>) -> Result<O, DatasetError> {
        attempt("batcher", || {
            of.make(Purpose::DrawForBatch, || {
                self.batcher.batch(items, &self.device)
            })
        })
    }
}

/// Does what may panic: at its place among the batches, a panic is an error like any other.
fn attempt<T>(whose: &'static str, work: impl FnOnce() -> T) -> Result<T, DatasetError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        DatasetError::new(Failure::Panicked {
            whose,
            message: panic_message(panic.as_ref()),
        })
    })
}

/// Which items are in which batch of an epoch.
pub(super) struct Order {
    /// How many items come before the first batch.
    pub entered: usize,
    /// The items' indices in the dataset.
    pub items: Range<usize>,
    pub batch_size: usize,
    /// The items' places in that range, one after the other; as they are if there are none.
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

/// What a loader itself has to report, in Burn's [`DatasetError`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error(
        "a batch size of 0 makes no batches; give \
         burn_backup_restore::data::DataLoaderBuilder::batch_size of 1 or more"
    )]
    BatchSize,

    #[error("a batch was asked for after one that comes later")]
    OutOfOrder,

    #[error("the {whose} panicked while a batch was being made: {message}")]
    Panicked {
        whose: &'static str,
        message: String,
    },

    #[error(
        "the dataset gave {given} items for {asked} indices; let its get_many give one for each, or an \
         error"
    )]
    ItemCount { asked: usize, given: usize },
}
