//! What datasets and batchers can ask about the batch that is being made.
//!
//! The answers are kept per thread, because Burn's traits have no parameter for them.

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};

use crate::seed::{self, Purpose};

thread_local! {
    /// The batch that this thread is making.
    static IN_PROGRESS: Cell<Option<BatchInProgress>> = const { Cell::new(None) };
}

/// The epoch of the batch that this thread is making, counted from 0. `None` outside a loader of
/// [`data::DataLoaderBuilder`](super::DataLoaderBuilder).
///
/// The epoch is the number of iterators that were requested from the loader before. The first epoch of a training is
/// 0 here, also after a restart; Burn numbers it 1.
///
/// Use it in datasets whose items change with the epoch, such as a curriculum. Threads that a
/// dataset starts itself get `None`: call this function first, and pass the epoch to them.
///
/// # Example
///
/// ```
/// use burn::data::dataset::{Dataset, DatasetError};
/// use burn_backup_restore::data;
///
/// /// Longer sequences in each epoch.
/// struct Growing;
///
/// impl Dataset<Vec<usize>> for Growing {
///     fn get(&self, index: usize) -> Result<Vec<usize>, DatasetError> {
///         let epoch = data::epoch().unwrap_or_default();
///         Ok(vec![index; 8 << epoch.min(4)])
///     }
///
///     fn len(&self) -> usize {
///         1000
///     }
/// }
///
/// assert_eq!(data::epoch(), None);
/// assert_eq!(Growing.get(3)?.len(), 8);
/// # Ok::<(), DatasetError>(())
/// ```
pub fn epoch() -> Option<u64> {
    IN_PROGRESS.get().map(|in_progress| in_progress.id.epoch)
}

/// A seed for random augmentation: exact after a restart, with any number of workers.
///
/// Each call while a batch is made returns another seed. The seed follows from the loader's shuffle seed (0 without
/// one), the epoch, the batch, and the number of earlier calls. The calls while items are loaded and the calls of the
/// batcher are counted separately. A part of a loader ([`slice`](burn::data::dataloader::DataLoader::slice)) has its
/// own seeds, so several devices draw differently.
///
/// The batch size and the order of the calls matter. The number of workers,
/// [`batcher_draws`](super::DataLoaderBuilder::batcher_draws) and skipped batches don't.
///
/// Outside a loader of [`data::DataLoaderBuilder`](super::DataLoaderBuilder) the seed is random, because the batch is
/// unknown there. A fixed seed would silently augment all items alike. Threads that a dataset or a batcher starts
/// itself are outside as well: draw the seed first, and pass it to them.
///
/// # Example
///
/// ```
/// use burn::data::dataset::transform::Mapper;
/// use burn_backup_restore::data;
/// use rand::rngs::StdRng;
/// use rand::{RngExt as _, SeedableRng as _};
///
/// struct RandomFlip;
///
/// impl Mapper<Vec<f32>, Vec<f32>> for RandomFlip {
///     fn map(&self, row: &Vec<f32>) -> Vec<f32> {
///         let mut rng = StdRng::seed_from_u64(data::draw_seed());
///         let mut row = row.clone();
///         if rng.random_bool(0.5) {
///             row.reverse();
///         }
///         row
///     }
/// }
///
/// assert_eq!(RandomFlip.map(&vec![1.0, 2.0, 1.0]), [1.0, 2.0, 1.0]);
/// ```
pub fn draw_seed() -> u64 {
    let Some(in_progress) = IN_PROGRESS.get() else {
        return RandomState::new().hash_one(());
    };
    let BatchInProgress { id, purpose, draws } = in_progress;
    IN_PROGRESS.set(Some(BatchInProgress {
        draws: draws.wrapping_add(1),
        ..in_progress
    }));
    seed::of_draw(id.draw_seed, purpose, id.epoch, id.batch, draws)
}

/// Identifies a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchId {
    pub draw_seed: u64,
    pub epoch: u64,
    pub batch: usize,
}

/// A batch that is being made.
#[derive(Debug, Clone, Copy)]
struct BatchInProgress {
    id: BatchId,
    /// The purpose of the seeds.
    purpose: Purpose,
    /// The number of seeds drawn for this purpose.
    draws: u64,
}

impl BatchId {
    /// Runs `work` on this batch. In it, [`epoch`] and [`draw_seed`] answer for this batch.
    pub(super) fn make<T>(self, purpose: Purpose, work: impl FnOnce() -> T) -> T {
        let before = IN_PROGRESS.replace(Some(BatchInProgress {
            id: self,
            purpose,
            draws: 0,
        }));
        let _restore = Restore(before);
        work()
    }
}

/// Restores the batch that the thread was making before, also when `work` panics.
struct Restore(Option<BatchInProgress>);

impl Drop for Restore {
    fn drop(&mut self) {
        IN_PROGRESS.set(self.0);
    }
}
