//! A classifier of digits. It has composed samplers without seeds, augmentation that draws in a mapper, and a
//! loader that shuffles with workers. It also has a composed schedule, early stopping by a metric, a progress
//! logger, and an evaluation of two test splits.

use std::fs::{self, File};
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::transform::{
    ComposedDataset, Mapper, MapperDataset, RngSource, SamplerDataset, SamplerDatasetOptions,
};
use burn::data::dataset::{Dataset, InMemDataset};
use burn::lr_scheduler::composed::ComposedLrSchedulerConfig;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::lr_scheduler::linear::LinearLrSchedulerConfig;
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig, Relu};
use burn::optim::AdamWConfig;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn::train::logger::TrainingProgressLogger;
use burn::train::metric::store::{Aggregate, Direction, Split};
use burn::train::metric::{AccuracyMetric, LearningRateMetric, LossMetric};
use burn::train::{
    ClassificationOutput, EvaluatorBuilder, InferenceStep, Learner, MetricEarlyStoppingStrategy,
    StoppingCondition, SupervisedTraining, TrainOutput, TrainStep,
};
use burn_backup_restore::{BackupAndRestore, BackupExt as _, data};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::batch_count::count_batch;
use super::{Options, Trained, Variant};
use crate::records::model_records;

const SIDE: usize = 6;
const CLASSES: usize = 3;
const SEED: u64 = 42;
const BATCHES_PER_EPOCH: usize = 16;
const BATCH_SIZE: usize = 8;

pub fn train(options: &Options) -> Trained {
    let artifacts = options.artifacts();
    // So that the summary is of this training only. A resumed training keeps its logs.
    if options.variant != Variant::Checklist || !options.backup().exists() {
        fs::remove_dir_all(&artifacts).ok();
    }
    fs::create_dir_all(&artifacts).unwrap();

    let device = Device::flex().autodiff();
    device.seed(SEED);
    let model = Model::new(&device);
    let schedule = ComposedLrSchedulerConfig::new()
        .cosine(CosineAnnealingLrSchedulerConfig::new(
            1.0,
            3 * BATCHES_PER_EPOCH,
        ))
        .linear(LinearLrSchedulerConfig::new(1e-3, 1.0, BATCHES_PER_EPOCH))
        .linear(LinearLrSchedulerConfig::new(
            2e-2,
            1e-3,
            3 * BATCHES_PER_EPOCH,
        ));
    let optimizer = AdamWConfig::new()
        .with_cautious_weight_decay(true)
        .with_weight_decay(5e-5);
    let early_stopping = MetricEarlyStoppingStrategy::new(
        &AccuracyMetric::new(),
        Aggregate::Mean,
        Direction::Highest,
        Split::Valid,
        StoppingCondition::NoImprovementSince { n_epochs: 2 },
    );

    let training = SupervisedTraining::new(
        &artifacts,
        loader(options, training_data(options)),
        loader(options, InMemDataset::new(digits(200..232))),
    )
    .metrics((AccuracyMetric::new(), LossMetric::new()))
    .metric_train_numeric(LearningRateMetric::new())
    .with_default_checkpointers()
    .with_progress_logger(Progress::new(&artifacts))
    .early_stopping(early_stopping)
    .num_epochs(6)
    .summary();
    let backup = BackupAndRestore::new(options.backup()).save_freq(3);
    let training = match options.variant {
        Variant::Without => training,
        Variant::Line => training.backup_and_restore(backup),
        Variant::Checklist => training.backup_and_restore(backup.artifacts(&artifacts)),
    };
    let result = training.launch(Learner::new(
        model,
        optimizer.init(),
        schedule.init().unwrap(),
    ));

    let trained = model_records(&result.model).into();
    let record = result.model.clone().into_record();
    record.save(artifacts.join("model")).unwrap();

    let evaluator = EvaluatorBuilder::new(&artifacts)
        .renderer(result.renderer)
        .metrics((AccuracyMetric::new(), LossMetric::new()))
        .summary()
        .build(result.model);
    let plain = loader(options, InMemDataset::new(digits(232..256)));
    let augmented = MapperDataset::new(InMemDataset::new(digits(256..280)), Augmentation::ByItem);
    evaluator.eval_all([("plain", plain), ("augmented", loader(options, augmented))]);
    trained
}

/// Some digits several times, and as many others once. All of them are shifted at random.
fn training_data(options: &Options) -> impl Dataset<Digit> + use<> {
    let half = BATCHES_PER_EPOCH * BATCH_SIZE / 2;
    let composed = ComposedDataset::new(vec![
        sampler(options, digits(0..100), half, true),
        sampler(options, digits(100..200), half, false),
    ]);
    let augmentation = match options.variant {
        Variant::Without | Variant::Line => Augmentation::FromSystem,
        Variant::Checklist => Augmentation::FromLoader,
    };
    MapperDataset::new(composed, augmentation)
}

fn sampler(
    options: &Options,
    digits: Vec<Digit>,
    size: usize,
    is_with_replacement: bool,
) -> Box<dyn Dataset<Digit>> {
    let digits = InMemDataset::new(digits);
    let sampling = SamplerDatasetOptions::default()
        .with_replace_samples(is_with_replacement)
        .with_fixed_size(size);
    match options.variant {
        Variant::Without | Variant::Line => Box::new(SamplerDataset::new(digits, sampling)),
        Variant::Checklist => Box::new(data::SamplerDataset::new(digits, sampling.with_seed(SEED))),
    }
}

fn loader(options: &Options, data: impl Dataset<Digit> + 'static) -> Arc<dyn DataLoader<Batch>> {
    let workers = options.workers(8);
    match options.variant {
        Variant::Without | Variant::Line => DataLoaderBuilder::new(DigitBatcher)
            .batch_size(BATCH_SIZE)
            .shuffle(SEED)
            .num_workers(workers)
            .build(data),
        Variant::Checklist => data::DataLoaderBuilder::new(DigitBatcher)
            .batch_size(BATCH_SIZE)
            .shuffle(SEED)
            .num_workers(workers)
            .build(data),
    }
}

#[derive(Clone, Debug)]
struct Digit {
    id: u64,
    image: Vec<f32>,
    class: i64,
}

/// A bar at the height of the class, and some noise.
fn digits(ids: Range<usize>) -> Vec<Digit> {
    let digits = ids.map(|id| {
        let class = id % CLASSES;
        let pixels = (0..SIDE * SIDE).map(|at| {
            let bar = f32::from(u8::from(at / SIDE / 2 == class));
            let noise = (id * 31 + at * 17) % 23;
            bar + noise as f32 / 46.0
        });
        Digit {
            id: id as u64,
            image: pixels.collect(),
            class: class as i64,
        }
    });
    digits.collect()
}

/// Shifts the image sideways, and brightens it. The name says where the random numbers come from.
enum Augmentation {
    FromSystem,
    FromLoader,
    /// An item is augmented in the same way each time.
    ByItem,
}

impl Augmentation {
    fn generator(&self, digit: &Digit) -> StdRng {
        match self {
            Self::FromSystem => RngSource::Default.into(),
            Self::FromLoader => StdRng::seed_from_u64(data::draw_seed()),
            Self::ByItem => StdRng::seed_from_u64(digit.id),
        }
    }
}

impl Mapper<Digit, Digit> for Augmentation {
    fn map(&self, digit: &Digit) -> Digit {
        let mut generator = self.generator(digit);
        let mut digit = digit.clone();
        digit.image.rotate_right(generator.random_range(0..3));
        let brightness = generator.random_range(0.8..1.2_f32);
        for pixel in &mut digit.image {
            *pixel *= brightness;
        }
        digit
    }
}

#[derive(Clone, Debug)]
struct Batch {
    images: Tensor<2>,
    classes: Tensor<1, Int>,
}

#[derive(Clone)]
struct DigitBatcher;

impl Batcher<Digit, Batch> for DigitBatcher {
    fn batch(&self, digits: Vec<Digit>, device: &Device) -> Batch {
        let rows = digits.len();
        let classes: Vec<i64> = digits.iter().map(|digit| digit.class).collect();
        let pixels: Vec<f32> = digits.into_iter().flat_map(|digit| digit.image).collect();
        Batch {
            images: Tensor::from_data(TensorData::new(pixels, [rows, SIDE * SIDE]), device),
            classes: Tensor::from_data(TensorData::new(classes, [rows]), device),
        }
    }
}

/// Writes a line per split.
struct Progress {
    file: File,
}

impl Progress {
    fn new(artifacts: &Path) -> Self {
        Self {
            file: File::create(artifacts.join("progress.log")).unwrap(),
        }
    }
}

impl TrainingProgressLogger for Progress {
    fn start(&mut self, epochs: usize, first: usize, _items: Option<usize>, _label: Option<&str>) {
        writeln!(self.file, "epochs {first} to {epochs}").unwrap();
    }

    fn update_epoch(&mut self, epoch: usize) {
        writeln!(self.file, "epoch {epoch} is done").unwrap();
    }

    fn start_split(&mut self, split: &str, items: usize) {
        writeln!(self.file, "{split}: {items} items").unwrap();
    }

    fn update_split(&mut self, _items: usize) {}

    fn end_split(&mut self) {}

    fn end(&mut self) {
        writeln!(self.file, "done").unwrap();
    }

    fn log_event_training(&mut self, event: String) {
        writeln!(self.file, "{event}").unwrap();
    }
}

#[derive(Module, Debug)]
struct Model {
    input: Linear,
    norm: BatchNorm,
    dropout: Dropout,
    output: Linear,
    activation: Relu,
}

impl Model {
    fn new(device: &Device) -> Self {
        Self {
            input: LinearConfig::new(SIDE * SIDE, 16).init(device),
            norm: BatchNormConfig::new(16).init(device),
            dropout: DropoutConfig::new(0.25).init(),
            output: LinearConfig::new(16, CLASSES).init(device),
            activation: Relu::new(),
        }
    }

    fn classify(&self, batch: Batch) -> ClassificationOutput {
        let x = self.norm.forward(self.input.forward(batch.images));
        let x = self.dropout.forward(self.activation.forward(x));
        let logits = self.output.forward(x);
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
