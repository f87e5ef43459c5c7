//! The training at one moment, taken on the training thread.

use std::collections::HashSet;
use std::sync::Arc;

use burn::store::RecordError;
use burn::tensor::{Bytes, Device};
use burn_pack::Tensor;

use super::fit::{Fit, Misfit};
use crate::burn_api::burnpack::Container;
use crate::burn_api::read_now;
use crate::configuration::Schedule;
use crate::error::BackupError;
use crate::metrics::{History, Mark};
use crate::part;
use crate::state::TrainingState;

/// A part of a training's state, as the training has it.
pub(crate) trait SavePart {
    /// Shares the part as it is now. Its tensors are reference counted: sharing them copies none.
    fn snapshot(&self, running_states: RunningStates) -> Box<dyn SharedPart>;

    /// Initialises what is still lazy.
    fn initialize(&self) {}

    /// The devices that its tensors are on.
    fn devices(&self) -> Vec<Device> {
        Vec::new()
    }

    /// Whether the part has running states.
    fn running_states(&self) -> RunningStates {
        RunningStates::None
    }

    /// Has running states apply the update that they hold back.
    fn settle_running_states(&self) {}

    /// The tensors of its model, if it has one, to be looked at or read one by one.
    fn model(&self) -> Option<Vec<Tensor>> {
        None
    }

    /// What the model's tensors will look like, those that are still to be initialised too.
    fn outline(&self) -> Option<Vec<Tensor>> {
        None
    }

    /// What no restart could load, as far as that can be known before the first step.
    fn misfit_ahead(&self) -> Option<Misfit> {
        None
    }

    /// The learning rate that is in use, if the part knows.
    fn learning_rate(&self) -> Option<f64> {
        None
    }

    /// The rates of its scheduler, which has not stepped yet.
    fn schedule(&self) -> Option<Schedule> {
        None
    }
}

/// A part at one moment, sharing its tensors with the training.
pub(crate) trait SharedPart: Send {
    /// Its model, if it has one; nothing the second time.
    fn take_model(&mut self) -> Option<SharedModel>;

    /// Reads all but the model.
    fn read_others(self: Box<Self>, fit: &mut Fit) -> Result<Others, BackupError>;

    /// The same once more.
    fn again(&self) -> Box<dyn SharedPart>;
}

/// A model's tensors, which hold on to its memory until they are read.
pub(crate) struct SharedModel {
    pub tensors: Vec<Tensor>,
    /// The paths of the parameters that no gradient changes.
    pub without_gradient: HashSet<String>,
}

/// What a part consists of besides a model.
#[derive(Default)]
pub(crate) struct Others {
    pub optimizer: Option<Container>,
    pub scheduler: Option<Bytes>,
    pub value: Option<Arc<Vec<u8>>>,
    pub segments: Vec<Segment>,
}

/// Bytes that are written once, and linked as long as they stay the same.
#[derive(Clone)]
pub(crate) struct Segment {
    pub name: String,
    pub bytes: Arc<Vec<u8>>,
}

/// A training at one moment.
pub(crate) struct TrainingSnapshot {
    pub state: TrainingState,
    pub metrics: Metrics,
    pub parts: Vec<PartSnapshot>,
}

/// A part of it, with its name.
pub(crate) struct PartSnapshot {
    pub name: String,
    pub contents: Contents,
}

/// What is known of the metrics at that moment.
#[derive(Clone)]
pub(crate) enum Metrics {
    Known(Arc<History>),
    /// What will have been logged when this is reached.
    Until(Mark),
}

/// Where a part's tensors are.
pub(crate) enum Contents {
    Shared(Box<dyn SharedPart>),
    Read(Result<Records, BackupError>),
}

/// Records in the host's memory.
pub(crate) struct Records {
    pub model: Option<SharedModel>,
    pub others: Others,
}

impl TrainingSnapshot {
    /// The same moment once more; nothing if its tensors are not shared any longer, but read.
    pub(crate) fn again(&self) -> Option<Self> {
        let part = |part: &PartSnapshot| match &part.contents {
            Contents::Shared(shared) => Some(PartSnapshot {
                name: part.name.clone(),
                contents: Contents::Shared(shared.again()),
            }),
            Contents::Read(_) => None,
        };
        Some(Self {
            state: self.state.clone(),
            metrics: self.metrics.clone(),
            parts: self.parts.iter().map(part).collect::<Option<_>>()?,
        })
    }
}

/// Whether a model may have running states, which its clones share with it. Detaching them is most
/// of what a snapshot of many small tensors costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunningStates {
    Possible,
    None,
}

impl Records {
    /// Reads the part that is called `name`.
    pub(crate) fn of(
        name: &str,
        mut shared: Box<dyn SharedPart>,
        fit: &mut Fit,
    ) -> Result<Self, BackupError> {
        let model = shared.take_model();
        let others = shared.read_others(fit)?;
        let model = model.map(|model| {
            let tensors = model.tensors.into_iter().map(into_memory);
            let tensors: Result<_, _> = tensors.collect();
            let tensors = tensors.map_err(part::failed(&part::name(name, part::MODEL)))?;
            Ok::<_, BackupError>(SharedModel { tensors, ..model })
        });
        Ok(Self {
            model: model.transpose()?,
            others,
        })
    }
}

/// The tensor with its bytes read, and shared by its clones.
fn into_memory(tensor: Tensor) -> Result<Tensor, RecordError> {
    let (name, dtype, shape, id, bytes) = tensor.into_parts()?;
    read_now(&bytes);
    Ok(Tensor::new(name, dtype, shape, id, bytes.shared()))
}
