//! Taking the records of the optimizer and the scheduler out of a learner.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use burn::lr_scheduler::LrSchedulerRecord;
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::OptimizerRecord;
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{Bytes, Tensor};
use burn::train::checkpoint::{
    AsyncCheckpointer, Checkpoint, Checkpointer, CheckpointerError, CheckpointingAction,
    CheckpointingStrategy,
};
use burn::train::metric::store::EventStoreClient;
use burn::train::{Learner, LearnerModel, LearningCheckpointer};
use burn_std::Reader;

use super::unpack::Names;
use crate::burn_api::burnpack::Container;
use crate::panics::panic_message;

/// Takes the records of the optimizer and the scheduler out of a learner.
///
/// [`Learner`] has no getter for either. The public way to them is a [`LearningCheckpointer`] that
/// always saves, to checkpointers that pass the records on. It takes the model's record too, whose
/// running states are those of the living model; that one is dropped.
pub(crate) struct RecordReader<M: LearnerModel> {
    event_store: Arc<EventStoreClient>,
    /// Started when they are first needed.
    channels: Option<RecordChannels<M>>,
    unpacker: Unpacker,
}

/// Takes optimizer records apart, and remembers what it learned of their names.
pub(crate) struct Unpacker {
    /// All that are known.
    names: Names,
    /// Those that the last record had: asking for each of the others takes longer than all the rest.
    last: Option<Names>,
    /// Whether taking a record apart by names has never panicked.
    knows_names: bool,
}

impl Default for Unpacker {
    fn default() -> Self {
        Self {
            names: Names::default(),
            last: None,
            knows_names: true,
        }
    }
}

impl Unpacker {
    /// The next record is likely to have the names of this one.
    pub(crate) fn expect(&mut self, record: &Container) {
        self.last = Some(Names::of(record));
    }

    /// The contents of the record that `take` gives, up to three times. What is on a device is not read yet.
    /// `paths` are those of the model's parameters (see [`paths`]).
    pub(crate) fn take_apart(
        &mut self,
        paths: &BTreeMap<u64, String>,
        mut take: impl FnMut() -> Result<OptimizerRecord, RecordError>,
    ) -> Result<Container, RecordError> {
        if !self.knows_names {
            return self.names.learn(take()?);
        }
        if let Some(last) = self.last.take()
            && let Some(optimizer) = self.unpack(&last, take()?, paths)
        {
            self.last = Some(last);
            return Ok(optimizer);
        }
        let names = self.names.clone();
        let optimizer = match self.unpack(&names, take()?, paths) {
            Some(optimizer) => optimizer,
            None => self.names.learn(take()?)?,
        };
        self.expect(&optimizer);
        Ok(optimizer)
    }

    fn unpack(
        &mut self,
        names: &Names,
        record: OptimizerRecord,
        paths: &BTreeMap<u64, String>,
    ) -> Option<Container> {
        // Loading a record asks for the default device, which may not be there.
        let unpacked = catch_unwind(AssertUnwindSafe(|| names.unpack(record, paths)));
        self.knows_names = unpacked.is_ok();
        unpacked.ok().flatten()
    }
}

/// What hands records over, on threads of Burn's.
struct RecordChannels<M: LearnerModel> {
    checkpointer: LearningCheckpointer<M>,
    optimizer: Receiver<OptimizerRecord>,
    scheduler: Receiver<LrSchedulerRecord>,
}

impl<M: LearnerModel> RecordChannels<M> {
    /// Burn panics where no thread can be had.
    fn start() -> Result<Self, RecordError> {
        let started = catch_unwind(|| {
            let (optimizer_sender, optimizer) = channel();
            let (scheduler_sender, scheduler) = channel();
            Self {
                checkpointer: LearningCheckpointer::new(
                    AsyncCheckpointer::new(Ignore),
                    AsyncCheckpointer::new(SendRecord(optimizer_sender)),
                    AsyncCheckpointer::new(SendRecord(scheduler_sender)),
                    Box::new(AlwaysSave),
                ),
                optimizer,
                scheduler,
            }
        });
        started.map_err(|panic| {
            let message = panic_message(panic.as_ref());
            RecordError::Io(format!("no thread can be had to read records: {message}"))
        })
    }
}

impl<M: LearnerModel> RecordReader<M> {
    pub(crate) fn new(event_store: Arc<EventStoreClient>) -> Self {
        Self {
            event_store,
            channels: None,
            unpacker: Unpacker::default(),
        }
    }

    pub(crate) fn unpacker(&mut self) -> &mut Unpacker {
        &mut self.unpacker
    }

    /// Forgets what is still on its way after a panic.
    pub(crate) fn reset(&mut self) {
        self.channels = None;
    }

    /// The optimizer's and the scheduler's records, whose tensors the learner shares. What is on a device is not
    /// read yet.
    pub(crate) fn read(&mut self, learner: &Learner<M>) -> Result<(Container, Bytes), RecordError> {
        let Self {
            event_store,
            channels,
            unpacker,
        } = self;
        let mut scheduler = None;
        let paths = paths(&learner.model());
        let optimizer = unpacker.take_apart(&paths, || {
            let (optimizer, of_scheduler) = take(channels, event_store, learner)?;
            scheduler = Some(of_scheduler);
            Ok(optimizer)
        })?;
        Ok((optimizer, scheduler.unwrap_or_default().into_bytes()?))
    }
}

fn take<M: LearnerModel>(
    channels: &mut Option<RecordChannels<M>>,
    event_store: &Arc<EventStoreClient>,
    learner: &Learner<M>,
) -> Result<(OptimizerRecord, LrSchedulerRecord), RecordError> {
    let channels = match channels {
        Some(channels) => channels,
        None => channels.insert(RecordChannels::start()?),
    };
    channels.checkpointer.checkpoint(learner, 0, event_store);
    let gone = |_| RecordError::Io("the thread that hands records over is gone".to_owned());
    let optimizer = channels.optimizer.recv().map_err(gone)?;
    let scheduler = channels.scheduler.recv().map_err(gone)?;
    Ok((optimizer, scheduler))
}

/// When what is on a device is read from there. Burn gives a tensor's data at once, and reads them when they
/// are first looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceRead {
    /// Here and now.
    Now,
    /// When it is looked at. Until then the tensors must be kept: once they are gone, nothing keeps the training
    /// from computing over their data.
    Later,
}

impl DeviceRead {
    /// Reads the bytes if they are to be read now.
    pub(crate) fn look_at(self, bytes: &Bytes) -> Result<(), burn_pack::Error> {
        if self == Self::Now {
            let read = bytes.read(Reader::new());
            read.map_err(|error| burn_pack::Error::IoError(error.to_string()))?;
        }
        Ok(())
    }
}

/// The paths of a model's parameters of floating point, by their ids.
pub(crate) fn paths<M: Module>(model: &M) -> BTreeMap<u64, String> {
    #[derive(Default)]
    struct Paths {
        path: Vec<String>,
        paths: BTreeMap<u64, String>,
    }

    impl ModuleVisitor for Paths {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.paths.insert(param.id.val(), self.path.join("."));
        }

        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }
    }

    let mut paths = Paths::default();
    model.visit(&mut paths);
    paths.paths
}

struct AlwaysSave;

impl CheckpointingStrategy for AlwaysSave {
    fn checkpointing(
        &mut self,
        _epoch: usize,
        _collector: &EventStoreClient,
    ) -> Vec<CheckpointingAction> {
        vec![CheckpointingAction::Save]
    }
}

struct Ignore;

impl Checkpointer<ModuleRecord> for Ignore {
    fn save(&self, _epoch: usize, _record: ModuleRecord) -> Result<(), CheckpointerError> {
        Ok(())
    }

    fn delete(&self, _epoch: usize) -> Result<(), CheckpointerError> {
        Ok(())
    }

    fn restore(&self, _epoch: usize) -> Result<ModuleRecord, CheckpointerError> {
        Err(nothing_to_restore())
    }
}

struct SendRecord<R>(Sender<R>);

impl<R: Checkpoint> Checkpointer<R> for SendRecord<R> {
    fn save(&self, _epoch: usize, record: R) -> Result<(), CheckpointerError> {
        // Without a receiver nobody waits for the record.
        let _ = self.0.send(record);
        Ok(())
    }

    fn delete(&self, _epoch: usize) -> Result<(), CheckpointerError> {
        Ok(())
    }

    fn restore(&self, _epoch: usize) -> Result<R, CheckpointerError> {
        Err(nothing_to_restore())
    }
}

fn nothing_to_restore() -> CheckpointerError {
    CheckpointerError::Unknown("records are only passed on".to_owned())
}

#[cfg(test)]
mod tests {
    use burn::nn::{BatchNormConfig, LinearConfig};
    use burn::optim::{AdamConfig, GradientsParams};
    use burn::tensor::{Device, Distribution};
    use burn_pack::Reader;

    use super::*;

    #[test]
    fn parameters_are_called_what_burns_optimizers_call_them() {
        let device = Device::flex().autodiff();
        let model = (
            vec![
                LinearConfig::new(3, 4).init(&device),
                LinearConfig::new(4, 2).init(&device),
            ],
            BatchNormConfig::new(2).init(&device),
        );
        let input = Tensor::random([5, 3], Distribution::Default, &device);
        let (layers, norm) = &model;
        let output: Tensor<2> = layers.iter().fold(input, |x, layer| layer.forward(x));
        let loss = norm.forward(output).square().sum();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let mut optimizer = AdamConfig::new().init();
        let model = optimizer.step(1e-3, model, gradients);

        let bytes = optimizer.to_record().into_bytes().unwrap();
        let written = Reader::from_bytes(bytes).unwrap().metadata().clone();
        assert_eq!(written.len(), 6, "{written:?}");
        let paths = paths(&model);
        for (id, path) in &written {
            assert_eq!(paths.get(&id.parse().unwrap()), Some(path));
        }
        // And the mean and the variance, which have no state.
        assert_eq!(paths.len(), 8, "{paths:?}");
    }
}
