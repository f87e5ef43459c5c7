//! A classifier with a training strategy of its own, early stopping, and a composed schedule.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::lr_scheduler::composed::ComposedLrSchedulerConfig;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::lr_scheduler::linear::LinearLrSchedulerConfig;
use burn::module::Module;
use burn::optim::AdamConfig;
use burn::tensor::Device;
use burn::train::metric::store::{Aggregate, Direction, Split};
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{
    EventProcessorTraining as _, ExecutionStrategy, InferenceStep, Learner, LearnerEvent,
    LearnerModel, MetricEarlyStoppingStrategy, StoppingCondition, SupervisedLearningStrategy,
    SupervisedTraining, SupervisedTrainingEventProcessor, TrainLoader, TrainingComponents,
    TrainingItem, TrainingStrategy, ValidLoader,
};
use burn_backup_restore::{BackupAndRestore, BackupExt as _, data};

use super::points::{Batch, Model, Point, PointBatcher, points};
use super::{Options, Trained, Variant};
use crate::records::model_records;

const SEED: u64 = 42;

pub fn train(options: &Options) -> Trained {
    let artifacts = options.artifacts();
    // So that the metrics are of this training only. A resumed training keeps its logs.
    if options.variant != Variant::Checklist || !options.backup().exists() {
        fs::remove_dir_all(&artifacts).ok();
    }
    fs::create_dir_all(&artifacts).unwrap();

    let device = Device::flex().autodiff();
    device.seed(SEED);
    let model = Model::new(&device);
    let schedule = ComposedLrSchedulerConfig::new()
        .cosine(CosineAnnealingLrSchedulerConfig::new(1.0, 48))
        .linear(LinearLrSchedulerConfig::new(1e-2, 1e-3, 48));
    let early_stopping = MetricEarlyStoppingStrategy::new(
        &LossMetric::new(),
        Aggregate::Mean,
        Direction::Lowest,
        Split::Valid,
        StoppingCondition::NoImprovementSince { n_epochs: 2 },
    );
    let strategy = OwnStrategy {
        device: device.clone(),
        has_trained: Arc::default(),
    };
    let has_trained = strategy.has_trained.clone();

    let training = SupervisedTraining::new(
        &artifacts,
        loader(options, points(0..128)),
        loader(options, points(128..160)),
    )
    .metrics((AccuracyMetric::new(), LossMetric::new()))
    .early_stopping(early_stopping)
    .num_epochs(3)
    .summary();
    let backup = BackupAndRestore::new(options.backup()).save_freq(3);
    let own = TrainingStrategy::Custom(Arc::new(strategy));
    let training = match options.variant {
        Variant::Without => training.with_training_strategy(own),
        Variant::Line => training
            .with_training_strategy(own)
            .backup_and_restore(backup),
        Variant::Checklist => training.backup_and_restore(
            backup
                .execution(ExecutionStrategy::single(device))
                .metric_logs(&artifacts),
        ),
    };
    let result = training.launch(Learner::new(
        model,
        AdamConfig::new().init(),
        schedule.init().unwrap(),
    ));

    let model = model_records(&result.model);
    let record = result.model.into_record();
    record.save(artifacts.join("model")).unwrap();
    let mut facts = Vec::new();
    // The checklist asks to give it up.
    if options.variant != Variant::Checklist {
        let has_trained = has_trained.load(Ordering::Relaxed);
        facts.push(format!("the program's own strategy trains: {has_trained}"));
    }
    Trained { model, facts }
}

/// Trains on one device, with a loop of its own.
struct OwnStrategy {
    device: Device,
    has_trained: Arc<AtomicBool>,
}

impl<M: LearnerModel> SupervisedLearningStrategy<M> for OwnStrategy {
    fn fit(
        &self,
        mut components: TrainingComponents<M>,
        mut learner: Learner<M>,
        train: TrainLoader<M>,
        valid: ValidLoader<M>,
        starting_epoch: usize,
    ) -> (M, SupervisedTrainingEventProcessor<M>) {
        self.has_trained.store(true, Ordering::Relaxed);
        let train = train.to_device(&self.device);
        let valid = valid.to_device(&self.device.clone().inner());
        learner.fork(&self.device);
        let mut events = components.event_processor;
        for epoch in starting_epoch..=components.num_epochs {
            let _ = events.process_train(LearnerEvent::StartSplit {
                epoch_number: epoch,
                total_items: train.num_items(),
            });
            let mut batches = train.iter();
            let mut iteration = 0;
            while let Some(batch) = batches.next() {
                iteration += 1;
                let progress = batches.progress();
                let output = learner.train_step(batch.unwrap());
                learner.lr_step();
                learner.optimizer_step(output.grads);
                let lr = Some(learner.lr_current());
                let item = TrainingItem::new(output.item, progress, Some(iteration), lr);
                let _ = events.process_train(LearnerEvent::ProcessedItem(item));
                if components.interrupter.should_stop() {
                    return (learner.model(), events);
                }
            }
            let _ = events.process_train(LearnerEvent::EndSplit(epoch));

            let model = learner.model().valid();
            let _ = events.process_valid(LearnerEvent::StartSplit {
                epoch_number: epoch,
                total_items: valid.num_items(),
            });
            let mut batches = valid.iter();
            let mut iteration = 0;
            while let Some(batch) = batches.next() {
                iteration += 1;
                let progress = batches.progress();
                let output = InferenceStep::step(&model, batch.unwrap());
                let item = TrainingItem::new(output, progress, Some(iteration), None);
                let _ = events.process_valid(LearnerEvent::ProcessedItem(item));
            }
            let _ = events.process_valid(LearnerEvent::EndSplit(epoch));
            let _ = events.process_train(LearnerEvent::EndEpoch(epoch));
            let _ = events.flush();
            if let Some(early_stopping) = &mut components.early_stopping
                && early_stopping.should_stop(epoch, &components.event_store)
            {
                break;
            }
        }
        (learner.model(), events)
    }
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
