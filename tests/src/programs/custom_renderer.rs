//! A classifier with a renderer of its own, and without Burn's application logger.

use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig, Relu};
use burn::optim::AdamConfig;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{AccuracyMetric, LossMetric, MetricDefinition};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};
use burn::train::{
    ClassificationOutput, InferenceStep, Learner, SupervisedTraining, TrainOutput, TrainStep,
};
use burn_backup_restore::{BackupAndRestore, BackupExt as _, data};

use super::batch_count::count_batch;
use super::{Options, Trained, Variant};
use crate::records::model_records;

const FEATURES: usize = 6;
const CLASSES: usize = 3;
const SEED: u64 = 42;

pub fn train(options: &Options) -> Trained {
    let artifacts = options.artifacts();
    let device = Device::flex().autodiff();
    device.seed(SEED);
    let model = Model::new(&device);

    let training = SupervisedTraining::new(
        &artifacts,
        loader(options, points(0..128)),
        loader(options, points(128..160)),
    )
    .metrics((AccuracyMetric::new(), LossMetric::new()))
    .num_epochs(3)
    .renderer(Box::new(Latest::default()))
    .with_application_logger(None);
    let backup = BackupAndRestore::new(options.backup()).save_freq(3);
    let training = match options.variant {
        Variant::Without => training,
        Variant::Line => training.backup_and_restore(backup),
        Variant::Checklist => training.backup_and_restore(backup.metric_logs(&artifacts)),
    };
    let result = training.launch(Learner::new(model, AdamConfig::new().init(), 1e-2));

    let trained = model_records(&result.model).into();
    let record = result.model.into_record();
    record.save(artifacts.join("model")).unwrap();
    trained
}

fn loader(options: &Options, points: Vec<Point>) -> Arc<dyn DataLoader<Batch>> {
    let data = InMemDataset::new(points);
    let workers = options.workers(4);
    match options.variant {
        Variant::Without | Variant::Line => DataLoaderBuilder::new(PointBatcher)
            .batch_size(8)
            .shuffle(SEED)
            .num_workers(workers)
            .build(data),
        Variant::Checklist => data::DataLoaderBuilder::new(PointBatcher)
            .batch_size(8)
            .shuffle(SEED)
            .num_workers(workers)
            .build(data),
    }
}

/// Keeps what there is to show, and shows it to nobody.
#[derive(Default)]
struct Latest {
    metrics: Vec<String>,
    epoch: usize,
    items: usize,
    shown: Option<MetricState>,
}

impl MetricsRendererTraining for Latest {
    fn update_train(&mut self, state: MetricState) {
        self.shown = Some(state);
    }

    fn update_valid(&mut self, state: MetricState) {
        self.shown = Some(state);
    }
}

impl TrainingProgressLogger for Latest {
    fn start(&mut self, _epochs: usize, first: usize, _items: Option<usize>, _label: Option<&str>) {
        self.epoch = first;
    }

    fn update_epoch(&mut self, epoch: usize) {
        self.epoch = epoch;
    }

    fn start_split(&mut self, _split: &str, _items: usize) {}

    fn update_split(&mut self, items: usize) {
        self.items = items;
    }

    fn end_split(&mut self) {}

    fn end(&mut self) {}

    fn log_event_training(&mut self, _event: String) {}
}

impl MetricsRendererEvaluation for Latest {
    fn update_test(&mut self, _name: EvaluationName, state: MetricState) {
        self.shown = Some(state);
    }
}

impl EvaluationProgressLogger for Latest {
    fn start_global_progress(&mut self, _tests: usize) {}

    fn start_test(&mut self, _name: &str, _items: usize) {}

    fn update_test_progress(&mut self, items: usize) {
        self.items = items;
    }

    fn end_test(&mut self) {}

    fn end_global_progress(&mut self) {}

    fn log_event_evaluation(&mut self, _event: String) {}
}

impl MetricsRenderer for Latest {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        self.metrics.push(definition.name.to_string());
    }
}

#[derive(Clone, Debug)]
struct Point {
    features: [f32; FEATURES],
    class: i64,
}

fn points(ids: std::ops::Range<usize>) -> Vec<Point> {
    let points = ids.map(|id| {
        let class = id % CLASSES;
        Point {
            features: std::array::from_fn(|at| {
                let noise = (id * 13 + at * 7) % 11;
                (class * at) as f32 / 6.0 + noise as f32 / 11.0
            }),
            class: class as i64,
        }
    });
    points.collect()
}

#[derive(Clone, Debug)]
struct Batch {
    features: Tensor<2>,
    classes: Tensor<1, Int>,
}

#[derive(Clone)]
struct PointBatcher;

impl Batcher<Point, Batch> for PointBatcher {
    fn batch(&self, points: Vec<Point>, device: &Device) -> Batch {
        let rows = points.len();
        let classes: Vec<i64> = points.iter().map(|point| point.class).collect();
        let features: Vec<f32> = points.iter().flat_map(|point| point.features).collect();
        Batch {
            features: Tensor::from_data(TensorData::new(features, [rows, FEATURES]), device),
            classes: Tensor::from_data(TensorData::new(classes, [rows]), device),
        }
    }
}

#[derive(Module, Debug)]
struct Model {
    input: Linear,
    dropout: Dropout,
    output: Linear,
    activation: Relu,
}

impl Model {
    fn new(device: &Device) -> Self {
        Self {
            input: LinearConfig::new(FEATURES, 12).init(device),
            dropout: DropoutConfig::new(0.2).init(),
            output: LinearConfig::new(12, CLASSES).init(device),
            activation: Relu::new(),
        }
    }

    fn classify(&self, batch: Batch) -> ClassificationOutput {
        let x = self.activation.forward(self.input.forward(batch.features));
        let logits = self.output.forward(self.dropout.forward(x));
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
