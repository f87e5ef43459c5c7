//! A snapshot of the training, taken on the training thread.

use std::collections::HashSet;
use std::sync::Arc;

use burn::store::RecordError;
use burn::tensor::{Bytes, Device};
use burn_pack::Tensor;
use burn_std::AllocationProperty;

use super::fit::{Fit, Misfit};
use crate::burn_api::DeviceRead;
use crate::burn_api::burnpack::Container;
use crate::configuration::Schedule;
use crate::error::BackupError;
use crate::metrics::{History, Mark, WatchMark};
use crate::part;
use crate::state::TrainingState;

/// A part of a training's state, for saving.
pub(crate) trait SavePart {
    /// Shares the part in its current state. Its tensors are reference counted, so nothing is copied.
    fn snapshot(&self, running_states: RunningStates) -> Box<dyn SharedPart>;

    /// Initializes parameters that are still lazy.
    fn initialize(&self) {}

    /// The devices of its tensors.
    fn devices(&self) -> Vec<Device> {
        Vec::new()
    }

    /// Whether the part has running states.
    fn running_states(&self) -> RunningStates {
        RunningStates::None
    }

    /// Applies the pending updates of running states.
    fn settle_running_states(&self) {}

    /// The tensors of its model, if it has one. They can be inspected or read one by one.
    fn model(&self) -> Option<Vec<Tensor>> {
        None
    }

    /// The names, types and shapes of the model's tensors, including tensors that are not initialized yet.
    fn outline(&self) -> Option<Vec<Tensor>> {
        None
    }

    /// A state that no restart could load, if it can be detected before the first step.
    fn early_misfit(&self) -> Option<Misfit> {
        None
    }

    /// The current learning rate, if the part knows it.
    fn learning_rate(&self) -> Option<f64> {
        None
    }

    /// The rates of its scheduler, which must not have stepped yet.
    fn schedule(&self) -> Option<Schedule> {
        None
    }
}

/// A snapshot of a part that shares its tensors with the training.
pub(crate) trait SharedPart: Send {
    /// Its model, if it has one. `read` says when the data on a device is read.
    fn model(&self, read: DeviceRead) -> Option<SharedModel>;

    /// All records except the model. Data on a device is not read yet.
    fn others(&self, fit: &mut Fit) -> Result<OtherRecords, BackupError>;

    /// A copy of this snapshot.
    fn again(&self) -> Box<dyn SharedPart>;
}

/// A model's tensors, which keep its memory alive until they are taken.
pub(crate) struct SharedModel {
    pub tensors: Vec<Tensor>,
    /// The paths of the parameters that have no gradient.
    pub without_gradient: HashSet<String>,
}

/// The records of a part except its model.
#[derive(Default)]
pub(crate) struct OtherRecords {
    pub optimizer: Option<Container>,
    pub scheduler: Option<Bytes>,
    pub value: Option<Arc<Vec<u8>>>,
    pub segments: Vec<Segment>,
}

/// Bytes that are written once, and linked in later backups while they stay the same.
#[derive(Clone)]
pub(crate) struct Segment {
    pub name: String,
    pub bytes: Arc<Vec<u8>>,
}

/// A snapshot of a training.
pub(crate) struct TrainingSnapshot {
    pub state: TrainingState,
    pub metrics: Metrics,
    /// Reached when it is known whether the training had diverged by then. `None` if divergences are not watched.
    pub watched: Option<WatchMark>,
    pub parts: Vec<PartSnapshot>,
}

/// The snapshot of a part, with its name.
pub(crate) struct PartSnapshot {
    pub name: String,
    pub contents: Contents,
}

/// The metrics at the moment of the snapshot.
#[derive(Clone)]
pub(crate) enum Metrics {
    Known(Arc<History>),
    /// The metrics that will have been logged when this mark is reached.
    Until(Mark),
}

/// Where a part's tensors are.
pub(crate) enum Contents {
    Shared(Box<dyn SharedPart>),
    Taken(Result<Records, BackupError>),
}

/// Records that no longer need the training thread. They are in host memory, or are read later from their device
/// while another object keeps the training's tensors alive.
pub(crate) struct Records {
    pub model: Option<SharedModel>,
    pub others: OtherRecords,
}

impl TrainingSnapshot {
    /// A copy of the snapshot; `None` if its tensors are no longer shared but already read.
    pub(crate) fn again(&self) -> Option<Self> {
        let part = |part: &PartSnapshot| match &part.contents {
            Contents::Shared(shared) => Some(PartSnapshot {
                name: part.name.clone(),
                contents: Contents::Shared(shared.again()),
            }),
            Contents::Taken(_) => None,
        };
        Some(Self {
            state: self.state.clone(),
            metrics: self.metrics.clone(),
            watched: self.watched.clone(),
            parts: self.parts.iter().map(part).collect::<Option<_>>()?,
        })
    }
}

/// Whether a model may have running states, which its clones share with it. Detaching them is most of the cost of a
/// snapshot with many small tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunningStates {
    Possible,
    None,
}

impl Records {
    /// The records of the part called `name`. If data on a device is read later, `shared` must be kept until then.
    pub(crate) fn of(
        name: &str,
        shared: &dyn SharedPart,
        fit: &mut Fit,
        read: DeviceRead,
    ) -> Result<Self, BackupError> {
        let model = shared.model(read);
        let mut others = shared.others(fit)?;
        if read == DeviceRead::Now {
            others = others.into_memory(name)?;
        }
        let model = model.map(|model| {
            let tensors = model.tensors.into_iter().map(independent);
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

impl OtherRecords {
    /// Reads all data that is on a device. `name` is the name of the part.
    pub(crate) fn into_memory(self, name: &str) -> Result<Self, BackupError> {
        let optimizer = self.optimizer.map(Container::into_memory);
        let optimizer = optimizer.transpose();
        Ok(Self {
            optimizer: optimizer.map_err(part::failed(&part::name(name, part::OPTIMIZER)))?,
            ..self
        })
    }
}

/// The same tensor without references to its origin. Its clones share its bytes.
fn independent(tensor: Tensor) -> Result<Tensor, RecordError> {
    let (name, dtype, shape, id, bytes) = tensor.into_parts()?;
    let len = bytes.len();
    let is_divisible = bytes.property() == AllocationProperty::Device && bytes.view(0, len).is_ok();
    if !is_divisible {
        return Ok(Tensor::new(name, dtype, shape, id, bytes.shared()));
    }
    // Shared bytes could be read only as a whole.
    Ok(Tensor::deferred(name, dtype, shape, id, len, move || {
        let view = bytes.view(0, len);
        view.map_err(|error| burn_pack::Error::IoError(format!("{error:?}")))
    }))
}

#[cfg(test)]
mod tests {
    use burn::tensor::DType;

    use super::*;
    use crate::burn_api::fake_device::FakeDevice;

    const MEBIBYTE: usize = 1024 * 1024;

    /// A part with a one-tensor model and a one-tensor optimizer on a device.
    struct OnDevice {
        weight: FakeDevice,
        moment: FakeDevice,
    }

    impl OnDevice {
        fn new() -> Self {
            let numbers = |times| (0..17 * MEBIBYTE).map(|at| (at * times) as u8).collect();
            Self {
                weight: FakeDevice::new(numbers(3)),
                moment: FakeDevice::new(numbers(5)),
            }
        }
    }

    fn tensor(name: &str, bytes: Bytes) -> Tensor {
        let len = bytes.len();
        Tensor::new(name.to_owned(), DType::U8, vec![len], None, bytes)
    }

    impl SharedPart for OnDevice {
        fn model(&self, read: DeviceRead) -> Option<SharedModel> {
            let bytes = self.weight.bytes();
            read.look_at(&bytes).unwrap();
            Some(SharedModel {
                tensors: vec![tensor("weight", bytes)],
                without_gradient: HashSet::new(),
            })
        }

        fn others(&self, _fit: &mut Fit) -> Result<OtherRecords, BackupError> {
            Ok(OtherRecords {
                optimizer: Some(vec![tensor("moment", self.moment.bytes())].into()),
                ..OtherRecords::default()
            })
        }

        fn again(&self) -> Box<dyn SharedPart> {
            unreachable!()
        }
    }

    fn written(container: Container) -> usize {
        let mut len = 0;
        let streamed = container.stream(
            |error| error,
            |chunk| {
                len += chunk.as_ref().len();
                Ok(())
            },
        );
        streamed.unwrap();
        len
    }

    #[test]
    fn device_tensors_are_read_at_once_or_piece_by_piece_when_written() {
        for read in [DeviceRead::Now, DeviceRead::Later] {
            let part = OnDevice::new();
            let devices = [part.weight.clone(), part.moment.clone()];
            let records = Records::of("", &part, &mut Fit::default(), read).unwrap();
            let is_read = read == DeviceRead::Now;
            for device in &devices {
                assert_eq!(!device.read().is_empty(), is_read, "{read:?}");
            }
            // A frozen part reads its tensors more than once.
            let tensors = records.model.unwrap().tensors;
            for _ in 0..2 {
                assert!(written(tensors.clone().into()) > 17 * MEBIBYTE);
            }
            assert!(written(records.others.optimizer.unwrap()) > 17 * MEBIBYTE);
            if read == DeviceRead::Later {
                let lengths = |device: &FakeDevice| -> Vec<usize> {
                    let read = device.read().into_iter();
                    read.map(|range| range.len() / MEBIBYTE).collect()
                };
                assert_eq!(lengths(&devices[0]), [8, 8, 1, 8, 8, 1]);
                assert_eq!(lengths(&devices[1]), [8, 8, 1]);
            }
        }
    }
}
