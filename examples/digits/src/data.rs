//! The UCI handwritten digits: 1,797 images of 8 x 8 pixels, values 0 to 16, ten classes.

use std::collections::HashSet;
use std::sync::Arc;

use burn::data::dataloader::DataLoader;
use burn::data::dataloader::batcher::Batcher;
use burn::data::dataset::InMemDataset;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_backup_restore::data::{self, DataLoaderBuilder};

use crate::crash::BatchAt;

/// Pixels of an image's side.
pub const SIDE: usize = 8;
/// How many digits there are.
pub const CLASSES: usize = 10;
const PIXELS: usize = SIDE * SIDE;
/// Each image has its pixels, 0 to 16, and then the digit: see `examples/digits/data/README.md`.
const IMAGES: &[u8] = include_bytes!("../data/digits.u8");
const TRAIN_IMAGES: usize = 1500;
const BATCH_SIZE: usize = 32;

/// Batches in an epoch.
pub const TRAIN_BATCHES: usize = TRAIN_IMAGES.div_ceil(BATCH_SIZE);

/// One image, its pixels scaled to the range 0 to 1, row by row.
#[derive(Debug, Clone)]
pub struct Digit {
    index: usize,
    pixels: [f32; PIXELS],
    class: i64,
}

/// Images of shape `[batch, 1, 8, 8]` and their classes, of shape `[batch]`.
#[derive(Debug, Clone)]
pub struct DigitBatch {
    /// The pixels.
    pub images: Tensor<4>,
    /// The digits that they show.
    pub classes: Tensor<1, Int>,
}

#[derive(Debug, Clone, Default)]
struct DigitBatcher {
    poison: Option<Poison>,
}

/// Images whose pixels are NaN in one epoch.
#[derive(Debug, Clone)]
struct Poison {
    /// The epoch, counted from 0.
    epoch: u64,
    images: HashSet<usize>,
}

impl DigitBatcher {
    fn pixels(&self, digit: &Digit) -> [f32; PIXELS] {
        match &self.poison {
            Some(poison)
                if data::epoch() == Some(poison.epoch) && poison.images.contains(&digit.index) =>
            {
                [f32::NAN; PIXELS]
            }
            _ => digit.pixels,
        }
    }
}

impl Batcher<Digit, DigitBatch> for DigitBatcher {
    fn batch(&self, items: Vec<Digit>, device: &Device) -> DigitBatch {
        let pixels: Vec<f32> = items.iter().flat_map(|digit| self.pixels(digit)).collect();
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

/// The training split, shuffled again in each epoch, and the validation split.
pub fn loaders(seed: u64) -> (Loader, Loader) {
    build(seed, DigitBatcher::default())
}

/// The same loaders. All images of the batch `at` of the training split are ruined.
pub fn poisoned_loaders(seed: u64, at: BatchAt) -> (Loader, Loader) {
    let numbers: Arc<dyn DataLoader<Vec<usize>>> = DataLoaderBuilder::new(Listing)
        .batch_size(BATCH_SIZE)
        .shuffle(seed)
        .build(InMemDataset::new((0..TRAIN_IMAGES).collect()));
    let epochs = (1..at.epoch).map(|_| drop(numbers.iter()));
    epochs.for_each(drop);
    let batch = numbers.iter().nth(at.batch - 1).and_then(Result::ok);
    let poison = Poison {
        epoch: at.epoch as u64 - 1,
        images: batch.into_iter().flatten().collect(),
    };
    let poison = Some(poison);
    build(seed, DigitBatcher { poison })
}

fn build(seed: u64, batcher: DigitBatcher) -> (Loader, Loader) {
    let (train, valid) = split();
    let train = DataLoaderBuilder::new(batcher)
        .batch_size(BATCH_SIZE)
        .shuffle(seed)
        .build(InMemDataset::new(train));
    let valid = DataLoaderBuilder::new(DigitBatcher::default())
        .batch_size(BATCH_SIZE)
        .build(InMemDataset::new(valid));
    (train, valid)
}

/// A batcher whose batch is the list of its items.
struct Listing;

impl Batcher<usize, Vec<usize>> for Listing {
    fn batch(&self, items: Vec<usize>, _device: &Device) -> Vec<usize> {
        items
    }
}

/// The whole validation split as one batch.
pub fn validation_batch(device: &Device) -> DigitBatch {
    DigitBatcher::default().batch(split().1, device)
}

/// The first images are for the training, and the others for the validation.
fn split() -> (Vec<Digit>, Vec<Digit>) {
    let (images, _) = IMAGES.as_chunks::<{ PIXELS + 1 }>();
    let mut digits = images
        .iter()
        .enumerate()
        .map(|(index, [pixels @ .., class])| Digit {
            index,
            pixels: pixels.map(|pixel| f32::from(pixel) / 16.0),
            class: i64::from(*class),
        });
    (
        digits.by_ref().take(TRAIN_IMAGES).collect(),
        digits.collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_are_those_of_the_data_set() {
        let (train, valid) = split();
        let digits: Vec<_> = train.iter().chain(&valid).collect();
        assert_eq!(digits.len(), 1797);
        let mut of_class = [0; CLASSES];
        for digit in &digits {
            of_class[digit.class as usize] += 1;
            assert!(digit.pixels.iter().all(|pixel| (0.0..=1.0).contains(pixel)));
        }
        // As in the data set's description, `optdigits.names`.
        assert_eq!(of_class, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        // Computed after each value was compared with that of the crate that the file was made from.
        assert_eq!(
            xxhash_rust::xxh3::xxh3_64(IMAGES),
            6_840_618_052_444_908_158
        );
    }
}
