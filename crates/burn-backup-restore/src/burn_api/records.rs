//! Reads the records of the optimizer and the scheduler from a learner.

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

/// Reads the records of the optimizer and the scheduler from a learner.
///
/// [`Learner`] has no getter for them. The public way is a [`LearningCheckpointer`] that always saves, with
/// checkpointers that pass the records on. It also takes the model's record, which shares the running states of the
/// live model. That record is dropped.
pub(crate) struct RecordReader<M: LearnerModel> {
    event_store: Arc<EventStoreClient>,
    /// Started when first needed.
    channels: Option<RecordChannels<M>>,
    unpacker: Unpacker,
}

/// Unpacks optimizer records, and remembers the names that it learned.
pub(crate) struct Unpacker {
    /// All known names.
    names: Names,
    /// The names in the last record. Asking for all other known names would take longer than everything else.
    last: Option<Names>,
    /// Whether unpacking by names has never panicked.
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
    /// Expects the names of this record in the next one.
    pub(crate) fn expect(&mut self, record: &Container) {
        self.last = Some(Names::of(record));
    }

    /// The contents of the record that `take` returns. `take` is called up to three times. Tensors on a device are
    /// not read yet. `paths` are the paths of the model's parameters (see [`paths`]).
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
        // Loading a record asks for the default device, which may be missing.
        let unpacked = catch_unwind(AssertUnwindSafe(|| names.unpack(record, paths)));
        self.knows_names = unpacked.is_ok();
        unpacked.ok().flatten()
    }
}

/// A checkpointer that passes records on, on Burn's threads.
struct RecordChannels<M: LearnerModel> {
    checkpointer: LearningCheckpointer<M>,
    optimizer: Receiver<OptimizerRecord>,
    scheduler: Receiver<LrSchedulerRecord>,
}

impl<M: LearnerModel> RecordChannels<M> {
    /// Burn panics if it can't start a thread.
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
            RecordError::Io(format!("cannot start a thread to read records: {message}"))
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

    /// Drops records that are still on their way after a panic.
    pub(crate) fn reset(&mut self) {
        self.channels = None;
    }

    /// The records of the optimizer and the scheduler. Their tensors are shared with the learner. Tensors on a device
    /// are not read yet.
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
    let gone = |_| RecordError::Io("the thread that passes records on has ended".to_owned());
    let optimizer = channels.optimizer.recv().map_err(gone)?;
    let scheduler = channels.scheduler.recv().map_err(gone)?;
    Ok((optimizer, scheduler))
}

/// When tensors on a device are read. Burn returns a tensor's data at once, but reads them lazily.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceRead {
    /// At once.
    Now,
    /// At first access. Until then the tensors must be kept alive: otherwise the training can overwrite their memory.
    Later,
}

impl DeviceRead {
    /// Reads the bytes if this is [`Now`](Self::Now).
    pub(crate) fn look_at(self, bytes: &Bytes) -> Result<(), burn_pack::Error> {
        if self == Self::Now {
            let read = bytes.read(Reader::new());
            read.map_err(|error| burn_pack::Error::IoError(error.to_string()))?;
        }
        Ok(())
    }
}

/// The paths of a model's floating-point parameters, by id.
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
        // Without a receiver the record is not needed.
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
    fn parameters_have_the_names_of_burns_optimizers() {
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
        // Includes the running mean and variance, which have no optimizer state.
        assert_eq!(paths.len(), 8, "{paths:?}");
    }
}
