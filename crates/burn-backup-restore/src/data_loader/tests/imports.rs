//! The loader code of Burn's examples works with either import, and resumes with ours.

use burn::data::dataset::InMemDataset;
use burn::data::dataset::transform::{ComposedDataset, Mapper, MapperDataset, PartialDataset};

use super::*;

#[derive(Debug, Clone)]
struct Image {
    pixel: f32,
    label: usize,
}

#[derive(Debug, Clone, PartialEq)]
struct Images {
    pixels: Vec<f32>,
    labels: Vec<usize>,
}

#[derive(Debug, Clone, Default)]
struct ImageBatcher;

impl Batcher<Image, Images> for ImageBatcher {
    fn batch(&self, items: Vec<Image>, _device: &Device) -> Images {
        Images {
            pixels: items.iter().map(|item| item.pixel).collect(),
            labels: items.iter().map(|item| item.label).collect(),
        }
    }
}

/// The effect of an augmentation on a pixel.
#[derive(Debug, Clone, Copy)]
enum Transform {
    Translate,
    Scale,
}

struct Augment(Vec<Transform>);

impl Mapper<Image, Image> for Augment {
    fn map(&self, item: &Image) -> Image {
        let noise = (draw_seed() % 1000) as f32;
        let change = |pixel, transform: &Transform| match transform {
            Transform::Translate => pixel + noise,
            Transform::Scale => pixel * noise,
        };
        Image {
            pixel: self.0.iter().fold(item.pixel, change),
            label: item.label,
        }
    }
}

fn images(from: usize, to: usize) -> InMemDataset<Image> {
    let image = |label| Image {
        pixel: label as f32,
        label,
    };
    InMemDataset::new((from..to).map(image).collect())
}

/// A split of texts, as in Burn's text examples.
trait Texts: Dataset<String> {
    fn split(of: &str) -> Self;
}

impl Texts for InMemDataset<String> {
    fn split(of: &str) -> Self {
        Self::new((0..50).map(|text| format!("{of} {text}")).collect())
    }
}

#[derive(Clone)]
struct TextBatcher {
    tokenizer: Arc<dyn Fn(&str) -> usize + Send + Sync>,
    max_tokens: usize,
}

impl TextBatcher {
    fn new(max_tokens: usize) -> Self {
        Self {
            tokenizer: Arc::new(str::len),
            max_tokens,
        }
    }
}

impl Batcher<String, Vec<(String, usize)>> for TextBatcher {
    fn batch(&self, items: Vec<String>, _device: &Device) -> Vec<(String, usize)> {
        let tokens = |text: &String| (self.tokenizer)(text).min(self.max_tokens);
        let with_tokens = |text| (tokens(&text), text);
        let swapped = |(tokens, text)| (text, tokens);
        items.into_iter().map(with_tokens).map(swapped).collect()
    }
}

/// A training and a validation loader.
type Loaders<O> = [Arc<dyn DataLoader<O>>; 2];

/// The loaders of Burn's examples, with the names imported at the macro's call.
macro_rules! examples {
    () => {
        /// From the examples guide and simple-regression.
        pub fn shuffled(workers: usize) -> Loaders<Images> {
            let batcher = ImageBatcher::default();
            let dataloader_train = DataLoaderBuilder::new(batcher.clone())
                .batch_size(64)
                .shuffle(42)
                .num_workers(workers)
                .build(images(0, 500));
            let dataloader_test = DataLoaderBuilder::new(batcher)
                .batch_size(64)
                .shuffle(42)
                .num_workers(workers)
                .build(images(500, 600));
            [dataloader_train, dataloader_test]
        }

        fn prepare(
            transforms: Vec<Transform>,
            dataset: impl Dataset<Image>,
        ) -> impl Dataset<Image> {
            MapperDataset::new(dataset, Augment(transforms))
        }

        fn compose(
            idents: Vec<(Vec<Transform>, Option<usize>)>,
            dataset: PartialDataset<Arc<InMemDataset<Image>>, Image>,
        ) -> impl Dataset<Image> {
            let datasets = idents
                .into_iter()
                .map(|(transforms, size)| match size {
                    Some(size) => {
                        SamplerDataset::with_replacement(prepare(transforms, dataset.clone()), size)
                    }
                    None => {
                        let dataset = prepare(transforms, dataset.clone());
                        let size = dataset.len();
                        SamplerDataset::without_replacement(dataset, size)
                    }
                })
                .collect();
            ComposedDataset::new(datasets)
        }

        /// From the example mnist: augmented samples of parts of a dataset, composed.
        pub fn composed(workers: usize) -> Loaders<Images> {
            let original = Arc::new(images(0, 170));
            let train_plain = PartialDataset::new(original.clone(), 0, 150);
            let valid_plain = PartialDataset::new(original, 150, 170);
            let idents = |size: Option<usize>| {
                let all = [
                    vec![],
                    vec![Transform::Scale],
                    vec![Transform::Scale, Transform::Translate],
                ];
                let with_size = |of: Vec<Transform>| {
                    let size = size.map(|size| size * of.len());
                    (of, size)
                };
                all.map(with_size).into()
            };
            let dataloader_train = DataLoaderBuilder::new(ImageBatcher::default())
                .batch_size(16)
                .shuffle(42)
                .num_workers(workers)
                .build(compose(idents(Some(100)), train_plain));
            let dataloader_valid = DataLoaderBuilder::new(ImageBatcher::default())
                .batch_size(16)
                .shuffle(42)
                .num_workers(workers)
                .build(compose(idents(None), valid_plain));
            [dataloader_train, dataloader_valid]
        }

        /// From the examples text-classification and text-generation.
        pub fn sampled<D: Texts + 'static>(workers: usize) -> Loaders<Vec<(String, usize)>> {
            let batcher = TextBatcher::new(7);
            let dataloader_train = DataLoaderBuilder::new(batcher.clone())
                .batch_size(6)
                .num_workers(workers)
                .build(SamplerDataset::new(D::split("train"), 1_000));
            let dataloader_test = DataLoaderBuilder::new(batcher)
                .batch_size(6)
                .num_workers(workers)
                .build(SamplerDataset::new(D::split("test"), 100));
            [dataloader_train, dataloader_test]
        }
    };
}

mod burns {
    use burn::data::dataloader::DataLoaderBuilder;
    use burn::data::dataset::transform::SamplerDataset;

    use super::*;

    examples!();
}

mod ours {
    use crate::data::{DataLoaderBuilder, SamplerDataset};

    use super::*;

    examples!();
}

/// With our imports the loaders are as large as with Burn's. A run with workers that resumes
/// anywhere gets the batches of an uninterrupted run.
fn check<O: PartialEq + Clone + std::fmt::Debug>(
    burns: impl Fn(usize) -> Loaders<O>,
    ours: impl Fn(usize) -> Loaders<O>,
) {
    for which in [0, 1] {
        let loader = |of: Loaders<O>| of[which].to_device(&Device::flex());
        let burns = loader(burns(0));
        let uninterrupted = loader(ours(0));
        assert_eq!(uninterrupted.num_items(), burns.num_items());
        let epochs = [(); 3].map(|()| epoch(&uninterrupted));
        assert_eq!(epochs[0].len(), epoch(&burns).len());
        assert_ne!(epochs[0], epochs[1]);

        for workers in [1, 4] {
            let whole = loader(ours(workers));
            assert_eq!([(); 3].map(|()| epoch(&whole)), epochs);
            let resumed = loader(ours(workers));
            drop(resumed.iter());
            let trained = epochs[1].len() / 2;
            let rest = resumed.iter().skip(trained).map(Result::unwrap);
            assert!(rest.eq(epochs[1][trained..].iter().cloned()));
            assert_eq!(epoch(&resumed), epochs[2]);
        }
    }
}

#[test]
fn code_of_the_examples_guide_and_simple_regression_works_and_resumes() {
    check(burns::shuffled, ours::shuffled);
}

#[test]
fn code_of_the_example_mnist_works_and_resumes() {
    check(burns::composed, ours::composed);
}

#[test]
fn code_of_the_examples_text_classification_and_text_generation_works_and_resumes() {
    type Text = InMemDataset<String>;
    check(burns::sampled::<Text>, ours::sampled::<Text>);
}
