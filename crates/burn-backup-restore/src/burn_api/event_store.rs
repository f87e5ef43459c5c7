//! Makes an event store. Only Burn's builder can make one, so this runs the builder.

use std::sync::{Arc, Mutex, PoisonError};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Tensor};
use burn::train::logger::MetricLogger;
use burn::train::metric::store::EventStoreClient;
use burn::train::renderer::CliMetricsRenderer;
use burn::train::{
    EventProcessorTraining as _, InferenceStep, Learner, LearningResult,
    SupervisedLearningStrategy, SupervisedTraining, SupervisedTrainingEventProcessor, TrainLoader,
    TrainOutput, TrainStep, TrainingComponents, TrainingStrategy, ValidLoader,
};

/// An event store that reads from `logger`. `device` is any device of the program; nothing is
/// allocated on it.
pub(crate) fn event_store(
    logger: impl MetricLogger + 'static,
    device: &Device,
) -> Option<Arc<EventStoreClient>> {
    let keeper = Arc::new(KeepEventStore::default());
    let model = UnusedModel {
        // Initialised when first used, which never happens.
        nothing: Initializer::Zeros.init([1], device),
    };
    let loader: Arc<dyn DataLoader<()>> = Arc::new(NoData);
    drop(
        SupervisedTraining::new("", loader.clone(), loader)
            .with_application_logger(None)
            .renderer(Box::new(CliMetricsRenderer::new()))
            .with_metric_logger(logger)
            .with_training_strategy(TrainingStrategy::Custom(keeper.clone()))
            .launch(Learner::new(model, SgdConfig::new().init(), 0.0)),
    );
    let mut store = keeper.store.lock().unwrap_or_else(PoisonError::into_inner);
    store.take()
}

/// Trains nothing, and keeps the event store.
#[derive(Default)]
struct KeepEventStore {
    store: Mutex<Option<Arc<EventStoreClient>>>,
}

impl SupervisedLearningStrategy<UnusedModel> for KeepEventStore {
    fn train(
        &self,
        learner: Learner<UnusedModel>,
        _train: TrainLoader<UnusedModel>,
        _valid: ValidLoader<UnusedModel>,
        components: TrainingComponents<UnusedModel>,
    ) -> LearningResult<UnusedModel> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        *store = Some(components.event_store);
        LearningResult {
            model: learner.model(),
            renderer: components.event_processor.renderer(),
            interrupted: None,
            error: None,
        }
    }

    fn fit(
        &self,
        components: TrainingComponents<UnusedModel>,
        learner: Learner<UnusedModel>,
        _train: TrainLoader<UnusedModel>,
        _valid: ValidLoader<UnusedModel>,
        _starting_epoch: usize,
    ) -> (UnusedModel, SupervisedTrainingEventProcessor<UnusedModel>) {
        (learner.model(), components.event_processor)
    }
}

/// A model that is never used.
#[derive(Module, Debug)]
struct UnusedModel {
    nothing: Param<Tensor<1>>,
}

impl TrainStep for UnusedModel {
    type Input = ();
    type Output = ();

    fn step(&self, _item: ()) -> TrainOutput<()> {
        TrainOutput {
            grads: GradientsParams::new(),
            item: (),
        }
    }
}

impl InferenceStep for UnusedModel {
    type Input = ();
    type Output = ();

    fn step(&self, _item: ()) {}
}

struct NoData;

impl DataLoader<()> for NoData {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<()> + 'a> {
        Box::new(Self)
    }

    fn num_items(&self) -> usize {
        0
    }

    fn to_device(&self, _device: &Device) -> Arc<dyn DataLoader<()>> {
        Arc::new(Self)
    }

    fn slice(&self, _start: usize, _end: usize) -> Arc<dyn DataLoader<()>> {
        Arc::new(Self)
    }
}

impl Iterator for NoData {
    type Item = Result<(), DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        None
    }
}

impl DataLoaderIterator<()> for NoData {
    fn progress(&self) -> Progress {
        Progress::new(0, 0, None)
    }
}
