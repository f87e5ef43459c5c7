//! Generated digits: 16 x 16 pixels, ten classes. The training split is augmented at random.

use std::array;
use std::ops::Range;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataset::transform::Mapper;
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::{Device, Int, Tensor, TensorData};
// Point 2: seeds for random augmentation come from `draw_seed`.
use burn_backup_restore::data::draw_seed;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

pub const SIDE: usize = 16;
pub const CLASSES: usize = 10;
pub const TRAIN_IMAGES: usize = 1280;
const VALID_IMAGES: usize = 320;
const TEST_IMAGES: usize = 320;

type Image = [[f32; SIDE]; SIDE];

/// One image, row by row, and its class.
#[derive(Debug, Clone)]
pub struct DigitItem {
    image: Image,
    class: usize,
}

/// A split. Its items depend on their index only, so they are the same in each run.
pub struct DigitDataset {
    ids: Range<usize>,
}

impl DigitDataset {
    pub fn train() -> Self {
        Self::after(0, TRAIN_IMAGES)
    }

    pub fn valid() -> Self {
        Self::after(TRAIN_IMAGES, VALID_IMAGES)
    }

    pub fn test() -> Self {
        Self::after(TRAIN_IMAGES + VALID_IMAGES, TEST_IMAGES)
    }

    fn after(images_before: usize, images: usize) -> Self {
        Self {
            ids: images_before..images_before + images,
        }
    }
}

impl Dataset<DigitItem> for DigitDataset {
    fn get(&self, index: usize) -> Result<DigitItem, DatasetError> {
        Ok(draw(self.ids.start + index))
    }

    fn len(&self) -> usize {
        self.ids.len()
    }
}

/// Moves an image by up to one pixel in each direction, and adds noise.
pub struct Augment;

impl Mapper<DigitItem, DigitItem> for Augment {
    fn map(&self, item: &DigitItem) -> DigitItem {
        // Point 2: `rand::rng()` would draw other numbers after a restart.
        let mut rng = StdRng::seed_from_u64(draw_seed());
        let (down, right) = (rng.random_range(0..3), rng.random_range(0..3));
        let mut image = item.image;
        image.rotate_left(1);
        image.rotate_right(down);
        for row in &mut image {
            row.rotate_left(1);
            row.rotate_right(right);
            for pixel in row {
                *pixel += rng.random_range(-0.2..0.2);
            }
        }
        DigitItem { image, ..*item }
    }
}

/// Images of shape `[batch, 1, 16, 16]` and their classes, of shape `[batch]`.
#[derive(Debug, Clone)]
pub struct DigitBatch {
    pub images: Tensor<4>,
    pub classes: Tensor<1, Int>,
}

#[derive(Debug, Clone)]
pub struct DigitBatcher;

impl Batcher<DigitItem, DigitBatch> for DigitBatcher {
    fn batch(&self, items: Vec<DigitItem>, device: &Device) -> DigitBatch {
        let pixels = items.iter().flat_map(|item| item.image.as_flattened());
        let pixels: Vec<f32> = pixels.copied().collect();
        let classes: Vec<i64> = items.iter().map(|item| item.class as i64).collect();
        let images = TensorData::new(pixels, [items.len(), 1, SIDE, SIDE]);
        let classes = TensorData::new(classes, [items.len()]);
        DigitBatch {
            images: Tensor::from_data(images, device),
            classes: Tensor::from_data(classes, device),
        }
    }
}

/// The digits, in rows of three bits.
const GLYPHS: [[u8; 5]; CLASSES] = [
    [0b111, 0b101, 0b101, 0b101, 0b111],
    [0b010, 0b110, 0b010, 0b010, 0b111],
    [0b111, 0b001, 0b111, 0b100, 0b111],
    [0b111, 0b001, 0b011, 0b001, 0b111],
    [0b101, 0b101, 0b111, 0b001, 0b001],
    [0b111, 0b100, 0b111, 0b001, 0b111],
    [0b111, 0b100, 0b111, 0b101, 0b111],
    [0b111, 0b001, 0b010, 0b010, 0b010],
    [0b111, 0b101, 0b111, 0b101, 0b111],
    [0b111, 0b101, 0b111, 0b001, 0b111],
];

/// Pixels per bit of a glyph, in each direction.
const SCALE: usize = 2;

/// An image near the middle, with noise.
fn draw(id: usize) -> DigitItem {
    let mut rng = StdRng::seed_from_u64(id as u64);
    let class = id % CLASSES;
    let (top, left) = (rng.random_range(2..=4), rng.random_range(4..=6));
    let image = array::from_fn(|row| {
        array::from_fn(|column| {
            let ink = f32::from(u8::from(is_ink(class, row, column, top, left)));
            ink + rng.random_range(-0.4..0.4)
        })
    });
    DigitItem { image, class }
}

/// Whether the glyph, with its corner at `top` and `left`, covers this pixel.
fn is_ink(class: usize, row: usize, column: usize, top: usize, left: usize) -> bool {
    let (Some(row), Some(column)) = (row.checked_sub(top), column.checked_sub(left)) else {
        return false;
    };
    let bits = GLYPHS.get(class).and_then(|glyph| glyph.get(row / SCALE));
    bits.is_some_and(|bits| (bits << (column / SCALE).min(3)) & 0b100 != 0)
}
