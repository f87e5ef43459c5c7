//! Burn's own checkpoints: as its builder makes them, and one by one, watched.

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

/// Adds Burn's own checkpoints, in files in `dir`.
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

/// After which epoch the checkpoint was made whose model is in a file of that name.
pub fn epoch_of_model_file(name: &str) -> Option<usize> {
    let epoch = name.strip_prefix(MODEL)?.strip_prefix('-')?;
    epoch.strip_suffix(".bpk")?.parse().ok()
}

/// Does the same after each epoch.
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

/// What one checkpoint took.
#[derive(Debug, Clone, Copy)]
pub struct Watched {
    /// How long the call held the training thread.
    pub held: Duration,
    /// How long it took from the call until all three files were saved.
    pub persist: Duration,
}

/// Trains `count` batches with a checkpoint after each, and gives what `look` makes of them. As
/// each is only begun when the one before is written, and nothing is ever deleted in the call, this
/// is the least that a checkpoint can hold the training.
pub fn checkpoints<T: Send + 'static>(
    state: &State,
    learner: &Learner<Stack>,
    dir: &Path,
    count: usize,
    look: impl FnMut(Watched) -> Result<T> + Send + 'static,
) -> Result<Vec<T>> {
    let (sender, looks) = channel();
    let strategy = OneByOne {
        dir: dir.join("checkpoint"),
        look: Mutex::new(look),
        looks: sender,
    };
    let feed = state.feed(EpochLengths::all(count));
    let training = training::supervised(dir, feed, 1)
        .with_training_strategy(TrainingStrategy::Custom(Arc::new(strategy)));
    training::run(training, learner.clone())?;
    looks.try_iter().collect()
}

/// Instead of a training loop: one epoch, with a checkpoint after each batch.
struct OneByOne<F, T> {
    dir: PathBuf,
    look: Mutex<F>,
    looks: Sender<Result<T>>,
}

impl<F, T> SupervisedLearningStrategy<Stack> for OneByOne<F, T>
where
    F: FnMut(Watched) -> Result<T>,
{
    fn fit(
        &self,
        components: TrainingComponents<Stack>,
        mut learner: Learner<Stack>,
        train: TrainLoader<Stack>,
        _valid: ValidLoader<Stack>,
        _starting_epoch: usize,
    ) -> (Stack, SupervisedTrainingEventProcessor<Stack>) {
        let mut look = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        let mut checkpoints = Checkpoints::new(&self.dir, &components);
        for (number, batch) in (1..).zip(train.iter()) {
            let watched = batch
                .context("no batch")
                .and_then(|batch| checkpoints.train_and_save(&mut learner, batch, number));
            // The receiver is there until the training has ended.
            let _ = self.looks.send(watched.and_then(&mut *look));
        }
        (learner.model(), components.event_processor)
    }
}

/// Burn's checkpointer, and how to learn that it has finished.
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
                Telling::start(dir, MODEL, &sender, interrupter),
                Telling::start(dir, OPTIMIZER, &sender, interrupter),
                Telling::start(dir, SCHEDULER, &sender, interrupter),
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
    ) -> Result<Watched> {
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
        Ok(Watched { held, persist })
    }
}

/// Burn's file checkpointer, which tells of each record that it has saved, or failed to.
struct Telling {
    files: FileCheckpointer,
    saved: Sender<()>,
}

impl Telling {
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

impl<R: Checkpoint> Checkpointer<R> for Telling {
    fn save(&self, epoch: usize, record: R) -> Result<(), CheckpointerError> {
        let outcome = self.files.save(epoch, record);
        // Without a receiver nobody waits for it.
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
