//! The UCI handwritten digits: 1,797 images of 8 x 8 pixels, values 0 to 16, ten classes.

use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::tensor::{Device, Int, Tensor, TensorData};

/// Pixels of an image's side.
pub const SIDE: usize = 8;
/// How many digits there are.
pub const CLASSES: usize = 10;
const PIXELS: usize = SIDE * SIDE;
const TRAIN_IMAGES: usize = 1500;
const BATCH_SIZE: usize = 32;

/// Batches in an epoch.
pub const TRAIN_BATCHES: usize = TRAIN_IMAGES.div_ceil(BATCH_SIZE);

/// One image, its pixels scaled to the range 0 to 1, row by row.
#[derive(Debug, Clone)]
pub struct Digit {
    pixels: [f32; PIXELS],
    class: i64,
}

/// Images of shape `[batch, 1, 8, 8]` and their classes, of shape `[batch]`.
#[derive(Debug, Clone)]
pub struct DigitBatch {
    /// The pixels.
    pub images: Tensor<4>,
    /// What they show.
    pub classes: Tensor<1, Int>,
}

#[derive(Debug, Clone)]
struct DigitBatcher;

impl Batcher<Digit, DigitBatch> for DigitBatcher {
    fn batch(&self, items: Vec<Digit>, device: &Device) -> DigitBatch {
        let pixels: Vec<f32> = items.iter().flat_map(|digit| digit.pixels).collect();
        let classes: Vec<i64> = items.iter().map(|digit| digit.class).collect();
        let images = TensorData::new(pixels, [items.len(), 1, SIDE, SIDE]);
        let classes = TensorData::new(classes, [items.len()]);
        DigitBatch {
            images: Tensor::from_data(images, device),
            classes: Tensor::from_data(classes, device),
        }
    }
}

/// A loader of one split.
pub type Loader = Arc<dyn DataLoader<DigitBatch>>;

/// The training split, shuffled anew in each epoch, and the validation split.
pub fn loaders(seed: u64) -> (Loader, Loader) {
    let (train, valid) = split();
    let train = DataLoaderBuilder::new(DigitBatcher)
        .batch_size(BATCH_SIZE)
        .shuffle(seed)
        .build(InMemDataset::new(train));
    let valid = DataLoaderBuilder::new(DigitBatcher)
        .batch_size(BATCH_SIZE)
        .build(InMemDataset::new(valid));
    (train, valid)
}

/// The whole validation split as one batch.
pub fn validation_batch(device: &Device) -> DigitBatch {
    DigitBatcher.batch(split().1, device)
}

fn split() -> (Vec<Digit>, Vec<Digit>) {
    let dataset = smartcore::dataset::digits::load_dataset();
    let (images, _) = dataset.data.as_chunks::<PIXELS>();
    let mut digits = images
        .iter()
        .zip(&dataset.target)
        .map(|(image, class)| Digit {
            pixels: image.map(|pixel| pixel / 16.0),
            class: *class as i64,
        });
    (
        digits.by_ref().take(TRAIN_IMAGES).collect(),
        digits.collect(),
    )
}
