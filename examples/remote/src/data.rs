//! The UCI handwritten digits: 1,797 images of 8 x 8 pixels, values 0 to 16, ten classes.

use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::tensor::{Device, Int, Tensor, TensorData};

pub const PIXELS: usize = 8 * 8;
pub const CLASSES: usize = 10;
/// Each image has its pixels, 0 to 16, and then the digit: see `examples/digits/data/README.md`.
const IMAGES: &[u8] = include_bytes!("../../digits/data/digits.u8");
const TRAIN_IMAGES: usize = 1500;
const BATCH_SIZE: usize = 32;

/// Batches in an epoch on each of `devices` devices (at least one), which share the images.
pub fn train_batches(devices: usize) -> usize {
    (TRAIN_IMAGES / devices).div_ceil(BATCH_SIZE)
}

/// One image, its pixels scaled to the range 0 to 1, row by row.
#[derive(Debug, Clone)]
pub struct Digit {
    pixels: [f32; PIXELS],
    class: i64,
}

/// Images of shape `[batch, 64]` and their classes, of shape `[batch]`.
#[derive(Debug, Clone)]
pub struct DigitBatch {
    pub images: Tensor<2>,
    pub classes: Tensor<1, Int>,
}

#[derive(Debug, Clone)]
struct DigitBatcher;

impl Batcher<Digit, DigitBatch> for DigitBatcher {
    fn batch(&self, items: Vec<Digit>, device: &Device) -> DigitBatch {
        let pixels: Vec<f32> = items.iter().flat_map(|digit| digit.pixels).collect();
        let classes: Vec<i64> = items.iter().map(|digit| digit.class).collect();
        let images = TensorData::new(pixels, [items.len(), PIXELS]);
        let classes = TensorData::new(classes, [items.len()]);
        DigitBatch {
            images: Tensor::from_data(images, device),
            classes: Tensor::from_data(classes, device),
        }
    }
}

type Loader = Arc<dyn DataLoader<DigitBatch>>;

/// The training split, shuffled again in each epoch, and the validation split.
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
    let (images, _) = IMAGES.as_chunks::<{ PIXELS + 1 }>();
    let mut digits = images.iter().map(|[pixels @ .., class]| Digit {
        pixels: pixels.map(|pixel| f32::from(pixel) / 16.0),
        class: i64::from(*class),
    });
    (
        digits.by_ref().take(TRAIN_IMAGES).collect(),
        digits.collect(),
    )
}
