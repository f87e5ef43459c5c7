//! Data loading that resumes exactly, with the same type names as Burn.
//!
//! Change the imports. The rest of the code stays unchanged:
//!
//! | instead of | import |
//! |---|---|
//! | `burn::data::dataloader::DataLoaderBuilder` | [`burn_backup_restore::data::DataLoaderBuilder`](DataLoaderBuilder) |
//! | `burn::data::dataset::transform::SamplerDataset` | [`burn_backup_restore::data::SamplerDataset`](SamplerDataset) |
//! | `rand::rng()` in a mapper or batcher | `StdRng::seed_from_u64(`[`burn_backup_restore::data::draw_seed()`](draw_seed)`)` |
//!
//! Burn's other datasets need no change, because their items depend only on the index.
//! `ShuffledDataset` and `SelectionDataset` shuffle once, in their constructor: give them a seed.
//!
//! A restarted training then skips to its batch without loading the batches before it. It continues
//! with the batches of an uninterrupted training, with any number of workers.
//!
//! # Example
//!
//! Samples with random augmentation, loaded by workers:
//!
//! ```
//! use burn::data::dataloader::batcher::Batcher;
//! use burn::data::dataset::InMemDataset;
//! use burn::data::dataset::transform::{Mapper, MapperDataset};
//! use burn::tensor::{Device, Tensor};
//! use burn_backup_restore::data::{self, DataLoaderBuilder, SamplerDataset};
//! use rand::rngs::StdRng;
//! use rand::{RngExt as _, SeedableRng as _};
//!
//! struct Jitter;
//!
//! impl Mapper<f32, f32> for Jitter {
//!     fn map(&self, item: &f32) -> f32 {
//!         let mut rng = StdRng::seed_from_u64(data::draw_seed());
//!         item + rng.random_range(-0.1..0.1)
//!     }
//! }
//!
//! #[derive(Clone)]
//! struct Rows;
//!
//! impl Batcher<f32, Tensor<1>> for Rows {
//!     fn batch(&self, items: Vec<f32>, device: &Device) -> Tensor<1> {
//!         Tensor::from_floats(items.as_slice(), device)
//!     }
//! }
//!
//! let loader = |workers| {
//!     let items = (0..100).map(|n| n as f32).collect();
//!     let samples = SamplerDataset::with_replacement(InMemDataset::new(items), 40);
//!     DataLoaderBuilder::new(Rows)
//!         .batch_size(8)
//!         .shuffle(42)
//!         .num_workers(workers)
//!         .set_device(Device::flex())
//!         .build(MapperDataset::new(samples, Jitter))
//! };
//! let whole: Vec<_> = loader(0).iter().collect::<Result<_, _>>()?;
//! // A later process, with workers, that resumes at the last batch.
//! let last = loader(2).iter().nth(4).unwrap()?;
//! assert_eq!(last.into_data(), whole[4].to_data());
//! # Ok::<(), burn::data::dataset::DatasetError>(())
//! ```

pub use crate::data_loader::{DataLoaderBuilder, SamplerDataset, draw_seed, epoch};
