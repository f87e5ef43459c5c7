//! A transformer that classifies texts. It has a sampler without a seed, a loader with one worker that does
//! not shuffle, devices that the user chooses, and text metrics.

use std::ops::Range;
use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::transform::{SamplerDataset, SamplerDatasetOptions};
use burn::data::dataset::{Dataset, InMemDataset};
use burn::lr_scheduler::noam::NoamLrSchedulerConfig;
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::transformer::{
    TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput,
};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::AdamConfig;
use burn::optim::decay::WeightDecayConfig;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn::train::metric::{AccuracyMetric, IterationSpeedMetric, LearningRateMetric, LossMetric};
use burn::train::{
    ClassificationOutput, ExecutionStrategy, InferenceStep, Learner, MultiDeviceOptim,
    SupervisedTraining, TrainOutput, TrainStep,
};
use burn_backup_restore::{BackupAndRestore, BackupExt as _, data};

use super::batch_count::{count_batch, on_several_threads};
use super::{Options, Trained, Variant};
use crate::records::model_records;

const VOCABULARY: usize = 24;
const LENGTH: usize = 6;
const CLASSES: usize = 3;
const WIDTH: usize = 12;
const SEED: u64 = 7;

/// Trains on two devices.
pub fn train(options: &Options) -> Trained {
    let devices = vec![Device::flex(), Device::flex()];
    let on_both = || ExecutionStrategy::multi(devices.clone(), MultiDeviceOptim::OptimMainDevice);
    train_with(options, on_both)
}

/// Trains on one device.
pub fn train_on_one_device(options: &Options) -> Trained {
    train_with(options, || ExecutionStrategy::single(Device::flex()))
}

fn train_with(options: &Options, execution: impl Fn() -> ExecutionStrategy) -> Trained {
    let artifacts = options.artifacts();
    let device = execution().main_device().clone().autodiff();
    if options.variant == Variant::Checklist {
        device.seed(SEED);
    }
    let model = Model::new(&device);
    let schedule = NoamLrSchedulerConfig::new(1e-1)
        .with_warmup_steps(20)
        .with_model_size(WIDTH);
    let optimizer = AdamConfig::new().with_weight_decay(Some(WeightDecayConfig::new(5e-5)));

    let training = SupervisedTraining::new(
        &artifacts,
        loader(options, sampler(options, texts(0..200), 128)),
        loader(options, sampler(options, texts(200..240), 32)),
    )
    .metric_train(IterationSpeedMetric::new())
    .metric_valid(IterationSpeedMetric::new())
    .metrics((AccuracyMetric::new(), LossMetric::new()))
    .metric_train_numeric(LearningRateMetric::new())
    .with_default_checkpointers()
    .num_epochs(3)
    .summary();
    let backup = BackupAndRestore::new(options.backup()).save_freq(3);
    let training = match options.variant {
        Variant::Without => training.with_training_strategy(execution().into()),
        Variant::Line => training
            .with_training_strategy(execution().into())
            .backup_and_restore(backup),
        Variant::Checklist => {
            training.backup_and_restore(backup.execution(execution()).artifacts(&artifacts))
        }
    };
    let result = training.launch(Learner::new(
        model,
        optimizer.init(),
        schedule.init().unwrap(),
    ));

    let model = model_records(&result.model);
    let record = result.model.into_record();
    record.save(artifacts.join("model")).unwrap();
    Trained {
        model,
        facts: vec![format!("on several threads: {}", on_several_threads())],
    }
}

fn sampler(options: &Options, texts: Vec<Text>, size: usize) -> Box<dyn Dataset<Text>> {
    let texts = InMemDataset::new(texts);
    match options.variant {
        Variant::Without | Variant::Line => Box::new(SamplerDataset::new(texts, size)),
        Variant::Checklist => {
            let sampling = SamplerDatasetOptions::from(size).with_seed(SEED);
            Box::new(data::SamplerDataset::new(texts, sampling))
        }
    }
}

fn loader(options: &Options, data: impl Dataset<Text> + 'static) -> Arc<dyn DataLoader<Batch>> {
    let workers = options.workers(1);
    match options.variant {
        Variant::Without | Variant::Line => DataLoaderBuilder::new(TextBatcher)
            .batch_size(4)
            .num_workers(workers)
            .build(data),
        Variant::Checklist => data::DataLoaderBuilder::new(TextBatcher)
            .batch_size(4)
            .num_workers(workers)
            .build(data),
    }
}

#[derive(Clone, Debug)]
struct Text {
    tokens: Vec<i64>,
    class: i64,
}

/// Each class has its own step from one token to the next.
fn texts(ids: Range<usize>) -> Vec<Text> {
    let texts = ids.map(|id| {
        let class = id % CLASSES;
        let tokens = (0..LENGTH).map(|at| ((id * 5 + at * (class + 1)) % VOCABULARY) as i64);
        Text {
            tokens: tokens.collect(),
            class: class as i64,
        }
    });
    texts.collect()
}

#[derive(Clone, Debug)]
struct Batch {
    tokens: Tensor<2, Int>,
    classes: Tensor<1, Int>,
}

#[derive(Clone)]
struct TextBatcher;

impl Batcher<Text, Batch> for TextBatcher {
    fn batch(&self, texts: Vec<Text>, device: &Device) -> Batch {
        let rows = texts.len();
        let classes: Vec<i64> = texts.iter().map(|text| text.class).collect();
        let tokens: Vec<i64> = texts.into_iter().flat_map(|text| text.tokens).collect();
        Batch {
            tokens: Tensor::from_data(TensorData::new(tokens, [rows, LENGTH]), device),
            classes: Tensor::from_data(TensorData::new(classes, [rows]), device),
        }
    }
}

#[derive(Module, Debug)]
struct Model {
    tokens: Embedding,
    positions: Embedding,
    transformer: TransformerEncoder,
    output: Linear,
}

impl Model {
    fn new(device: &Device) -> Self {
        let transformer = TransformerEncoderConfig::new(WIDTH, 2 * WIDTH, 2, 1)
            .with_norm_first(true)
            .with_quiet_softmax(true);
        Self {
            tokens: EmbeddingConfig::new(VOCABULARY, WIDTH).init(device),
            positions: EmbeddingConfig::new(LENGTH, WIDTH).init(device),
            transformer: transformer.init(device),
            output: LinearConfig::new(WIDTH, CLASSES).init(device),
        }
    }

    fn classify(&self, batch: Batch) -> ClassificationOutput {
        let [rows, length] = batch.tokens.dims();
        let positions = Tensor::arange(0..length as i64, &batch.tokens.device())
            .reshape([1, length])
            .repeat_dim(0, rows);
        let x = (self.tokens.forward(batch.tokens) + self.positions.forward(positions)) / 2;
        let x = self.transformer.forward(TransformerEncoderInput::new(x));
        let logits = self.output.forward(x.mean_dim(1).squeeze_dim(1));
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
