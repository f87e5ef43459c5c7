//! A transformer that learns to continue a text. It has a sampler without a seed, a loader with workers that
//! does not shuffle, accumulated gradients, and metrics that are not means.

use std::ops::Range;
use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::transform::{SamplerDataset, SamplerDatasetOptions};
use burn::data::dataset::{Dataset, InMemDataset};
use burn::lr_scheduler::noam::NoamLrSchedulerConfig;
use burn::module::Module;
use burn::nn::attention::generate_autoregressive_mask;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::transformer::{
    TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput,
};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::AdamConfig;
use burn::optim::decay::WeightDecayConfig;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn::train::metric::{
    AccuracyMetric, IterationSpeedMetric, LearningRateMetric, LossMetric, PerplexityMetric,
};
use burn::train::{
    ClassificationOutput, InferenceStep, Learner, SupervisedTraining, TrainOutput, TrainStep,
};
use burn_backup_restore::{BackupAndRestore, BackupExt as _, data};

use super::batch_count::count_batch;
use super::{Options, Trained, Variant};
use crate::records::model_records;

const VOCABULARY: usize = 20;
const LENGTH: usize = 6;
const WIDTH: usize = 12;
const SEED: u64 = 8;

pub fn train(options: &Options) -> Trained {
    let artifacts = options.artifacts();
    let device = Device::flex().autodiff();
    if options.variant == Variant::Checklist {
        device.seed(SEED);
    }
    let model = Model::new(&device);
    // As in a step on six batches at once.
    let accumulation = 6;
    let schedule = NoamLrSchedulerConfig::new(1e-1 / accumulation as f64)
        .with_warmup_steps(5)
        .with_model_size(WIDTH);
    let optimizer = AdamConfig::new().with_weight_decay(Some(WeightDecayConfig::new(1e-6)));

    let training = SupervisedTraining::new(
        &artifacts,
        loader(options, sampler(options, texts(0..150), 64)),
        loader(options, sampler(options, texts(150..200), 16)),
    )
    .metrics((
        AccuracyMetric::new(),
        LossMetric::new(),
        PerplexityMetric::new(),
        IterationSpeedMetric::new(),
    ))
    .metric_train_numeric(LearningRateMetric::new())
    .with_default_checkpointers()
    .grads_accumulation(accumulation)
    .num_epochs(3)
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
    let record = result.model.into_record();
    record.save(artifacts.join("model")).unwrap();
    trained
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
    let workers = options.workers(4);
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
}

/// Each text continues in equal steps from token to token.
fn texts(ids: Range<usize>) -> Vec<Text> {
    let texts = ids.map(|id| {
        let tokens = (0..=LENGTH).map(|at| ((id * 3 + at * (id % 4 + 1)) % VOCABULARY) as i64);
        Text {
            tokens: tokens.collect(),
        }
    });
    texts.collect()
}

#[derive(Clone, Debug)]
struct Batch {
    tokens: Tensor<2, Int>,
    next: Tensor<2, Int>,
}

#[derive(Clone)]
struct TextBatcher;

impl Batcher<Text, Batch> for TextBatcher {
    fn batch(&self, texts: Vec<Text>, device: &Device) -> Batch {
        let rows = texts.len();
        let tokens: Vec<i64> = texts.into_iter().flat_map(|text| text.tokens).collect();
        let tokens = TensorData::new(tokens, [rows, LENGTH + 1]);
        let tokens = Tensor::<2, Int>::from_data(tokens, device);
        Batch {
            next: tokens.clone().narrow(1, 1, LENGTH),
            tokens: tokens.narrow(1, 0, LENGTH),
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
        let transformer =
            TransformerEncoderConfig::new(WIDTH, 2 * WIDTH, 2, 1).with_norm_first(true);
        Self {
            tokens: EmbeddingConfig::new(VOCABULARY, WIDTH).init(device),
            positions: EmbeddingConfig::new(LENGTH, WIDTH).init(device),
            transformer: transformer.init(device),
            output: LinearConfig::new(WIDTH, VOCABULARY).init(device),
        }
    }

    fn go_on(&self, batch: Batch) -> ClassificationOutput {
        let [rows, length] = batch.tokens.dims();
        let device = batch.tokens.device();
        let positions = Tensor::arange(0..length as i64, &device)
            .reshape([1, length])
            .repeat_dim(0, rows);
        let x = (self.tokens.forward(batch.tokens) + self.positions.forward(positions)) / 2;
        let mask = generate_autoregressive_mask(rows, length, &device);
        let x = self
            .transformer
            .forward(TransformerEncoderInput::new(x).mask_attn(mask));
        let logits = self.output.forward(x);
        let logits = logits.reshape([rows * length, VOCABULARY]);
        let next = batch.next.reshape([rows * length]);
        let loss = CrossEntropyLossConfig::new()
            .init(&logits.device())
            .forward(logits.clone(), next.clone());
        ClassificationOutput::new(loss, logits, next)
    }
}

impl TrainStep for Model {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        count_batch();
        let output = self.go_on(batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for Model {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        self.go_on(batch)
    }
}
