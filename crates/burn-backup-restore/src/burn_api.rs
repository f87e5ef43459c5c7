//! Everything that touches Burn's less settled API. The next release of Burn is this file's work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use burn::data::dataloader::{DataLoaderIterator, Progress};
use burn::lr_scheduler::LrSchedulerRecord;
use burn::optim::OptimizerRecord;
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::Bytes;
use burn::train::checkpoint::{
    AsyncCheckpointer, Checkpoint, Checkpointer, CheckpointerError, CheckpointingAction,
    CheckpointingStrategy,
};
use burn::train::metric::store::EventStoreClient;
use burn::train::{Learner, LearnerModel, LearningCheckpointer};
use burn_pack::{Reader, Scalar, Tensor, Writer};

/// The version of Burn whose records and loops these are.
pub(crate) const BURN_VERSION: &str = "0.22";

/// A trained batch's place among the items of its epoch.
pub(crate) struct Items {
    pub processed: usize,
    pub total: usize,
}

impl From<&Progress> for Items {
    fn from(progress: &Progress) -> Self {
        Self {
            processed: progress.items_processed,
            total: progress.items_total,
        }
    }
}

/// How far an iterator of a loader is.
pub(crate) fn items<O>(iterator: &dyn DataLoaderIterator<O>) -> Items {
    Items::from(&iterator.progress())
}

/// Takes the records of the optimizer and the scheduler out of a learner.
///
/// [`Learner`] has no getter for either. The public way to them is a [`LearningCheckpointer`] that
/// always saves, to checkpointers that pass the records on. It takes the model's record too, whose
/// running states are those of the living model; that one is dropped.
pub(crate) struct RecordReader<M: LearnerModel> {
    checkpointer: LearningCheckpointer<M>,
    optimizer: Receiver<OptimizerRecord>,
    scheduler: Receiver<LrSchedulerRecord>,
    event_store: Arc<EventStoreClient>,
}

impl<M: LearnerModel> RecordReader<M> {
    pub(crate) fn new(event_store: Arc<EventStoreClient>) -> Self {
        let (optimizer_sender, optimizer) = channel();
        let (scheduler_sender, scheduler) = channel();
        Self {
            checkpointer: LearningCheckpointer::new(
                AsyncCheckpointer::new(Ignore),
                AsyncCheckpointer::new(Catch(optimizer_sender)),
                AsyncCheckpointer::new(Catch(scheduler_sender)),
                Box::new(AlwaysSave),
            ),
            optimizer,
            scheduler,
            event_store,
        }
    }

    /// Reads the records from the device.
    pub(crate) fn read(
        &mut self,
        learner: &Learner<M>,
    ) -> Result<(OptimizerRecord, LrSchedulerRecord), RecordError> {
        self.checkpointer.checkpoint(learner, 0, &self.event_store);
        let gone = |_| RecordError::Io("the thread that hands records over is gone".to_owned());
        let optimizer = self.optimizer.recv().map_err(gone)?;
        let scheduler = self.scheduler.recv().map_err(gone)?;
        Ok((optimizer, scheduler))
    }
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

struct Catch<R>(Sender<R>);

impl<R: Checkpoint> Checkpointer<R> for Catch<R> {
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

/// The names and scalars of an optimizer's or scheduler's record, without its tensors' contents.
pub(crate) struct Outline {
    pub entries: BTreeMap<String, Option<Scalar>>,
    /// The path of each parameter, by its id.
    pub paths: BTreeMap<String, String>,
}

impl Outline {
    pub(crate) fn of(bytes: Bytes) -> Result<Self, RecordError> {
        let reader = Reader::from_bytes(bytes)?;
        let scalars = reader.scalars().iter();
        let tensors = reader.tensor_names();
        Ok(Self {
            entries: scalars
                .map(|(name, value)| (name.clone(), Some(*value)))
                .chain(tensors.into_iter().map(|name| (name.to_owned(), None)))
                .collect(),
            paths: reader.metadata().clone(),
        })
    }

    /// The entries that `other` lacks, or has another value of.
    pub(crate) fn lost_in(&self, other: &Self) -> Vec<String> {
        self.entries
            .iter()
            .filter(|(name, value)| other.entries.get(*name) != Some(*value))
            .map(|(name, _)| self.describe(name))
            .collect()
    }

    /// `conv1.weight: moment.moment_1` for `123456.moment.moment_1`.
    fn describe(&self, name: &str) -> String {
        match name.split_once('.') {
            Some((id, field)) => match self.paths.get(id) {
                Some(path) => format!("{path}: {field}"),
                None => name.to_owned(),
            },
            None => name.to_owned(),
        }
    }
}

/// An optimizer record with the names, types and ranks of `bytes`, but tensors of one element.
///
/// Loading a record drops silently what the optimizer has no place for. To learn what it keeps, it
/// takes these few bytes instead of the whole state.
pub(crate) fn optimizer_probe(bytes: Bytes) -> Result<OptimizerRecord, RecordError> {
    let reader = Reader::from_bytes(bytes)?;
    let scalars = reader.scalars().clone();
    let paths = reader.metadata().clone();
    let tensors = reader
        .into_tensors()?
        .into_iter()
        .map(|tensor| {
            let one = vec![1; tensor.shape.num_dims()];
            let zero = Bytes::from_bytes_vec(vec![0; tensor.dtype.size()]);
            Tensor::new(tensor.name, tensor.dtype, one, tensor.param_id, zero)
        })
        .collect();
    let mut writer = Writer::new(tensors);
    for (name, value) in scalars {
        writer = writer.with_scalar(&name, value);
    }
    for (id, path) in paths {
        writer = writer.with_metadata(&id, &path);
    }
    OptimizerRecord::from_bytes(writer.into_bytes()?)
}
