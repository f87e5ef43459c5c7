//! The training at one moment, taken on the training thread.

use std::collections::HashSet;
use std::sync::Arc;

use burn::store::RecordError;
use burn::tensor::Bytes;
use burn::train::{Learner, LearnerModel};
use burn_pack::Tensor;

use crate::burn_api::{RecordReader, read_now};
use crate::burnpack::Container;
use crate::error::BackupError;
use crate::fit::Fit;
use crate::history::History;
use crate::metric_logs::Mark;
use crate::state::TrainingState;
use crate::{model, part};

/// A training at one moment.
pub(crate) struct Taken<M: LearnerModel> {
    pub state: TrainingState,
    pub metrics: Metrics,
    pub contents: Contents<M>,
}

/// What is known of the metrics at that moment.
#[derive(Clone)]
pub(crate) enum Metrics {
    Known(Arc<History>),
    /// What will have been logged when this is reached.
    Until(Mark),
}

/// What a training consists of besides its position.
pub(crate) enum Contents<M: LearnerModel> {
    Shared(Box<Shared<M>>),
    Read(Result<ReadRecords, BackupError>),
}

/// Tensors are reference counted: sharing them copies none.
pub(crate) struct Shared<M: LearnerModel> {
    /// The model with running states of its own, unless it has none.
    detached: Option<M>,
    /// Its model shares running states with the living one, so they are of no certain moment.
    learner: Learner<M>,
}

/// Records in the host's memory.
pub(crate) struct ReadRecords {
    pub model: Vec<Tensor>,
    pub without_gradient: HashSet<String>,
    pub optimizer: Container,
    pub scheduler: Bytes,
}

impl<M: LearnerModel> Taken<M> {
    /// The same moment once more; nothing if its tensors are not shared any longer, but read.
    pub(crate) fn again(&self) -> Option<Self> {
        let Contents::Shared(shared) = &self.contents else {
            return None;
        };
        Some(Self {
            state: self.state.clone(),
            metrics: self.metrics.clone(),
            contents: Contents::Shared(Box::new(Shared {
                detached: shared.detached.clone(),
                learner: shared.learner.clone(),
            })),
        })
    }
}

impl<M: LearnerModel> Shared<M> {
    pub(crate) fn of(learner: &Learner<M>, running_states: RunningStates) -> Self {
        Self {
            // Running states (the mean and variance of a batch normalisation) hold their newest
            // update back until the next forward pass. `valid` applies it, here and now, and gives
            // a module with cells of its own.
            detached: (running_states == RunningStates::Possible).then(|| learner.model().valid()),
            learner: learner.clone(),
        }
    }

    /// The model at that moment, and the learner for the optimizer and the scheduler.
    pub(crate) fn into_parts(self) -> (M, Learner<M>) {
        let Self { detached, learner } = self;
        (detached.unwrap_or_else(|| learner.model().valid()), learner)
    }
}

/// Whether a model may have running states, which its clones share with it. Detaching them is most
/// of what a snapshot of many small tensors costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunningStates {
    Possible,
    None,
}

impl RunningStates {
    /// A running state is a buffer and never has a gradient: where all parameters have one, there is
    /// none.
    pub(crate) fn of<M: LearnerModel>(model: &M) -> Self {
        if model::without_gradient(model).is_empty() {
            Self::None
        } else {
            Self::Possible
        }
    }
}

impl ReadRecords {
    pub(crate) fn of<M: LearnerModel>(
        snapshot: Shared<M>,
        reader: &mut RecordReader<M>,
        fit: &mut Fit,
    ) -> Result<Self, BackupError> {
        let (model, learner) = snapshot.into_parts();
        // The optimizer first: the model is read a second time on the way to it, and thrown away.
        let (optimizer, scheduler) = fit.read(&learner, reader)?;
        let model = model::tensors(&model).into_iter().map(into_memory);
        let model: Result<_, _> = model.collect();
        Ok(Self {
            model: model.map_err(part::failed(part::MODEL))?,
            without_gradient: model::without_gradient(&learner.model()),
            optimizer,
            scheduler,
        })
    }
}

/// The tensor with its bytes read, and shared by its clones.
fn into_memory(tensor: Tensor) -> Result<Tensor, RecordError> {
    let (name, dtype, shape, id, bytes) = tensor.into_parts()?;
    read_now(&bytes);
    Ok(Tensor::new(name, dtype, shape, id, bytes.shared()))
}
