//! Burn's own checkpoints, made by its builder, or measured one at a time.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use burn::tensor::Tensor;
use burn::train::checkpoint::{
    AsyncCheckpointer, Checkpoint, Checkpointer, CheckpointerError, CheckpointingAction,
    CheckpointingStrategy, FileCheckpointer,
};
use burn::train::metric::store::EventStoreClient;
use burn::train::{
    Interrupter, Learner, LearningCheckpointer, SupervisedLearningStrategy, SupervisedTraining,
    SupervisedTrainingEventProcessor, TrainLoader, TrainingComponents, TrainingStrategy,
    ValidLoader,
};

use crate::feed::EpochLengths;
use crate::model::Stack;
use crate::state::State;
use crate::training;

const MODEL: &str = "model";
const OPTIMIZER: &str = "optim";
const SCHEDULER: &str = "scheduler";

/// Adds Burn's own checkpoints, with files in `dir`.
pub fn with_checkpoints(
    training: SupervisedTraining<Stack>,
    dir: &Path,
    strategy: impl CheckpointingStrategy + 'static,
) -> SupervisedTraining<Stack> {
    training
        .with_checkpointing_strategy(strategy)
        .with_custom_checkpointers(
            FileCheckpointer::new(dir, MODEL),
            FileCheckpointer::new(dir, OPTIMIZER),
            FileCheckpointer::new(dir, SCHEDULER),
        )
}

/// The files of the checkpoint after `epoch`.
pub fn checkpoint_files(dir: &Path, epoch: usize) -> [PathBuf; 3] {
    [MODEL, OPTIMIZER, SCHEDULER].map(|name| dir.join(format!("{name}-{epoch}.bpk")))
}

/// The epoch after which a checkpoint was made, from the name of its model file.
pub fn epoch_of_model_file(name: &str) -> Option<usize> {
    let epoch = name.strip_prefix(MODEL)?.strip_prefix('-')?;
    epoch.strip_suffix(".bpk")?.parse().ok()
}

/// Takes the same actions after each epoch.
pub struct Always(pub Vec<CheckpointingAction>);

impl CheckpointingStrategy for Always {
    fn checkpointing(
        &mut self,
        _epoch: usize,
        _collector: &EventStoreClient,
    ) -> Vec<CheckpointingAction> {
        self.0.clone()
    }
}

/// The times of one checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointTimes {
    /// How long the call paused the training thread.
    pub held: Duration,
    /// The time from the call until all three files were saved.
    pub persist: Duration,
}

/// Trains `count` batches with a checkpoint after each, and returns the results of `on_backup`.
///
/// A checkpoint begins only after the previous one is written, and the call deletes nothing. So this is the shortest
/// possible pause of the training.
pub fn checkpoints<T: Send + 'static>(
    state: &State,
    learner: &Learner<Stack>,
    dir: &Path,
    count: usize,
    on_backup: impl FnMut(CheckpointTimes) -> Result<T> + Send + 'static,
) -> Result<Vec<T>> {
    let (sender, results) = channel();
    let strategy = OneAtATime {
        dir: dir.join("checkpoint"),
        on_backup: Mutex::new(on_backup),
        results: sender,
    };
    let feed = state.feed(EpochLengths::all(count));
    let training = training::supervised(dir, feed, 1)
        .with_training_strategy(TrainingStrategy::Custom(Arc::new(strategy)));
    training::run(training, learner.clone())?;
    results.try_iter().collect()
}

/// Replaces the training loop: one epoch, with a checkpoint after each batch.
struct OneAtATime<F, T> {
    dir: PathBuf,
    on_backup: Mutex<F>,
    results: Sender<Result<T>>,
}

impl<F, T> SupervisedLearningStrategy<Stack> for OneAtATime<F, T>
where
    F: FnMut(CheckpointTimes) -> Result<T>,
{
    fn fit(
        &self,
        components: TrainingComponents<Stack>,
        mut learner: Learner<Stack>,
        train: TrainLoader<Stack>,
        _valid: ValidLoader<Stack>,
        _starting_epoch: usize,
    ) -> (Stack, SupervisedTrainingEventProcessor<Stack>) {
        let mut on_backup = self
            .on_backup
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut checkpoints = Checkpoints::new(&self.dir, &components);
        for (number, batch) in (1..).zip(train.iter()) {
            let watched = batch
                .context("no batch")
                .and_then(|batch| checkpoints.train_and_save(&mut learner, batch, number));
            // The receiver exists until the training has ended.
            let _ = self.results.send(watched.and_then(&mut *on_backup));
        }
        (learner.model(), components.event_processor)
    }
}

/// Burn's checkpointer, with notifications of finished records.
struct Checkpoints {
    dir: PathBuf,
    checkpointer: LearningCheckpointer<Stack>,
    event_store: Arc<EventStoreClient>,
    saved: Receiver<()>,
}

impl Checkpoints {
    fn new(dir: &Path, components: &TrainingComponents<Stack>) -> Self {
        let (sender, saved) = channel();
        let interrupter = &components.interrupter;
        Self {
            dir: dir.to_owned(),
            checkpointer: LearningCheckpointer::new(
                NotifyingCheckpointer::start(dir, MODEL, &sender, interrupter),
                NotifyingCheckpointer::start(dir, OPTIMIZER, &sender, interrupter),
                NotifyingCheckpointer::start(dir, SCHEDULER, &sender, interrupter),
                Box::new(Always(vec![CheckpointingAction::Save])),
            ),
            event_store: components.event_store.clone(),
            saved,
        }
    }

    fn train_and_save(
        &mut self,
        learner: &mut Learner<Stack>,
        batch: Tensor<2>,
        number: usize,
    ) -> Result<CheckpointTimes> {
        let output = learner.train_step(batch);
        learner.lr_step();
        learner.optimizer_step(output.grads);

        let started = Instant::now();
        self.checkpointer
            .checkpoint(learner, number, &self.event_store);
        let held = started.elapsed();
        let files = checkpoint_files(&self.dir, number);
        for _ in &files {
            self.saved.recv().context("Burn's checkpointers are gone")?;
        }
        let persist = started.elapsed();
        for file in files {
            std::fs::remove_file(&file).with_context(|| format!("cannot remove {file:?}"))?;
        }
        Ok(CheckpointTimes { held, persist })
    }
}

/// Burn's file checkpointer, with a notification after each record, saved or failed.
struct NotifyingCheckpointer {
    files: FileCheckpointer,
    saved: Sender<()>,
}

impl NotifyingCheckpointer {
    fn start<R: Checkpoint>(
        dir: &Path,
        name: &str,
        saved: &Sender<()>,
        interrupter: &Interrupter,
    ) -> AsyncCheckpointer<R> {
        let files = FileCheckpointer::new(dir, name);
        let saved = saved.clone();
        AsyncCheckpointer::new(Self { files, saved }).with_interrupter(interrupter.clone())
    }
}

impl<R: Checkpoint> Checkpointer<R> for NotifyingCheckpointer {
    fn save(&self, epoch: usize, record: R) -> Result<(), CheckpointerError> {
        let outcome = self.files.save(epoch, record);
        // Without a receiver, nothing waits for the notification.
        let _ = self.saved.send(());
        outcome
    }

    fn delete(&self, epoch: usize) -> Result<(), CheckpointerError> {
        Checkpointer::<R>::delete(&self.files, epoch)
    }

    fn restore(&self, epoch: usize) -> Result<R, CheckpointerError> {
        self.files.restore(epoch)
    }
}
