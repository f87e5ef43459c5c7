//! As in Burn's book: a convolutional classifier with dropout, a seeded device, and a loader that shuffles
//! with workers.

use std::fs;
use std::sync::Arc;

use burn::config::Config;
use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig, Relu};
use burn::optim::AdamConfig;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{
    ClassificationOutput, InferenceStep, Learner, SupervisedTraining, TrainOutput, TrainStep,
};
use burn_backup_restore::{BackupAndRestore, BackupExt as _, data};

use super::batch_count::count_batch;
use super::{Options, Trained, Variant};
use crate::records::model_records;

const SIDE: usize = 8;
const CLASSES: usize = 4;

#[derive(Config, Debug)]
struct TrainingConfig {
    optimizer: AdamConfig,
    #[config(default = 3)]
    num_epochs: usize,
    #[config(default = 8)]
    batch_size: usize,
    #[config(default = 4)]
    num_workers: usize,
    #[config(default = 42)]
    seed: u64,
    #[config(default = 1e-2)]
    learning_rate: f64,
}

pub fn train(options: &Options) -> Trained {
    let artifacts = options.artifacts();
    // So that the summary is of this training only. A resumed training keeps its logs.
    if options.variant != Variant::Checklist || !options.backup().exists() {
        fs::remove_dir_all(&artifacts).ok();
    }
    fs::create_dir_all(&artifacts).unwrap();
    let config = TrainingConfig::new(AdamConfig::new());
    config.save(artifacts.join("config.json")).unwrap();

    let device = Device::flex().autodiff();
    device.seed(config.seed);
    let model = Model::new(&device);

    let training = SupervisedTraining::new(
        &artifacts,
        loader(options, &config, digits(0..128)),
        loader(options, &config, digits(128..160)),
    )
    .metrics((AccuracyMetric::new(), LossMetric::new()))
    .with_default_checkpointers()
    .num_epochs(config.num_epochs)
    .summary();
    let backup = BackupAndRestore::new(options.backup()).save_freq(3);
    let training = match options.variant {
        Variant::Without => training,
        Variant::Line => training.backup_and_restore(backup),
        Variant::Checklist => training.backup_and_restore(backup.artifacts(&artifacts)),
    };
    let result = training.launch(Learner::new(
        model,
        config.optimizer.init(),
        config.learning_rate,
    ));

    let trained = model_records(&result.model).into();
    let record = result.model.into_record();
    record.save(artifacts.join("model")).unwrap();
    trained
}

fn loader(
    options: &Options,
    config: &TrainingConfig,
    digits: Vec<Digit>,
) -> Arc<dyn DataLoader<Batch>> {
    let data = InMemDataset::new(digits);
    let workers = options.workers(config.num_workers);
    match options.variant {
        Variant::Without | Variant::Line => DataLoaderBuilder::new(DigitBatcher)
            .batch_size(config.batch_size)
            .shuffle(config.seed)
            .num_workers(workers)
            .build(data),
        Variant::Checklist => data::DataLoaderBuilder::new(DigitBatcher)
            .batch_size(config.batch_size)
            .shuffle(config.seed)
            .num_workers(workers)
            .build(data),
    }
}

#[derive(Clone, Debug)]
struct Digit {
    image: Vec<f32>,
    class: i64,
}

/// A bar at the height of the class, and some noise.
fn digits(ids: std::ops::Range<usize>) -> Vec<Digit> {
    let digits = ids.map(|id| {
        let class = id % CLASSES;
        let pixels = (0..SIDE * SIDE).map(|at| {
            let bar = f32::from(u8::from(at / SIDE / 2 == class));
            let noise = (id * 31 + at * 17) % 23;
            bar + noise as f32 / 23.0
        });
        Digit {
            image: pixels.collect(),
            class: class as i64,
        }
    });
    digits.collect()
}

#[derive(Clone, Debug)]
struct Batch {
    images: Tensor<4>,
    classes: Tensor<1, Int>,
}

#[derive(Clone)]
struct DigitBatcher;

impl Batcher<Digit, Batch> for DigitBatcher {
    fn batch(&self, digits: Vec<Digit>, device: &Device) -> Batch {
        let rows = digits.len();
        let classes: Vec<i64> = digits.iter().map(|digit| digit.class).collect();
        let pixels: Vec<f32> = digits.into_iter().flat_map(|digit| digit.image).collect();
        let images = TensorData::new(pixels, [rows, 1, SIDE, SIDE]);
        Batch {
            images: Tensor::from_data(images, device),
            classes: Tensor::from_data(TensorData::new(classes, [rows]), device),
        }
    }
}

#[derive(Module, Debug)]
struct Model {
    conv1: Conv2d,
    conv2: Conv2d,
    pool: AdaptiveAvgPool2d,
    dropout: Dropout,
    linear1: Linear,
    linear2: Linear,
    activation: Relu,
}

impl Model {
    fn new(device: &Device) -> Self {
        Self {
            conv1: Conv2dConfig::new([1, 4], [3, 3]).init(device),
            conv2: Conv2dConfig::new([4, 8], [3, 3]).init(device),
            pool: AdaptiveAvgPool2dConfig::new([4, 4]).init(),
            dropout: DropoutConfig::new(0.3).init(),
            linear1: LinearConfig::new(8 * 4 * 4, 16).init(device),
            linear2: LinearConfig::new(16, CLASSES).init(device),
            activation: Relu::new(),
        }
    }

    fn classify(&self, batch: Batch) -> ClassificationOutput {
        let x = self.dropout.forward(self.conv1.forward(batch.images));
        let x = self.dropout.forward(self.conv2.forward(x));
        let x = self.pool.forward(self.activation.forward(x)).flatten(1, 3);
        let x = self.dropout.forward(self.linear1.forward(x));
        let logits = self.linear2.forward(self.activation.forward(x));
        let loss = CrossEntropyLossConfig::new()
            .init(&logits.device())
            .forward(logits.clone(), batch.classes.clone());
        ClassificationOutput::new(loss, logits, batch.classes)
    }
}

impl TrainStep for Model {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        count_batch();
        let output = self.classify(batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for Model {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        self.classify(batch)
    }
}
