//! A classifier with a renderer of its own, and without Burn's application logger.

use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::optim::AdamConfig;
use burn::tensor::Device;
use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{AccuracyMetric, LossMetric, MetricDefinition};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};
use burn::train::{Learner, SupervisedTraining};
use burn_backup_restore::{BackupAndRestore, BackupExt as _, data};

use super::points::{Batch, Model, Point, PointBatcher, points};
use super::{Options, Trained, Variant};
use crate::records::model_records;

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

/// Stores what there is to show, and shows nothing.
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
