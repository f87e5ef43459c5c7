//! Everything that touches Burn's less settled API. The next release of Burn is this file's work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use burn::data::dataloader::{DataLoaderIterator, Progress};
use burn::lr_scheduler::LrSchedulerRecord;
use burn::optim::OptimizerRecord;
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{Bytes, DType};
use burn::train::checkpoint::{
    AsyncCheckpointer, Checkpoint, Checkpointer, CheckpointerError, CheckpointingAction,
    CheckpointingStrategy,
};
use burn::train::metric::store::EventStoreClient;
use burn::train::{Learner, LearnerEvent, LearnerModel, LearningCheckpointer};
use burn_pack::{Reader, Scalar, Tensor, Writer};

/// The version of Burn whose records and loops these are.
pub(crate) const BURN_VERSION: &str = "0.22";

/// A trained batch's place among the items of its epoch.
#[derive(Debug, Clone, Copy)]
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

impl Items {
    /// Whether these are all items of the epoch, as Burn tells it.
    pub(crate) fn are_all(self) -> bool {
        self.processed == self.total
    }
}

/// The event that a split of an epoch begins.
pub(crate) fn split_begins<T>(epoch_number: usize, total_items: usize) -> LearnerEvent<T> {
    LearnerEvent::StartSplit {
        epoch_number,
        total_items,
    }
}

/// The event that a split of an epoch has ended.
pub(crate) fn split_ends<T>(epoch: usize) -> LearnerEvent<T> {
    LearnerEvent::EndSplit(epoch)
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

/// An entry of an optimizer's or scheduler's record, without a tensor's contents.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Entry {
    Scalar(Scalar),
    Tensor(DType),
}

/// What an optimizer's or scheduler's record consists of.
pub(crate) struct Outline {
    pub entries: BTreeMap<String, Entry>,
    /// The path of each parameter, by its id.
    pub paths: BTreeMap<String, String>,
}

impl Outline {
    pub(crate) fn of(bytes: Bytes) -> Result<Self, RecordError> {
        let reader = Reader::from_bytes(bytes)?;
        let paths = reader.metadata().clone();
        let mut entries: BTreeMap<_, _> = reader
            .scalars()
            .iter()
            .map(|(name, value)| (name.clone(), Entry::Scalar(*value)))
            .collect();
        for tensor in reader.into_tensors()? {
            entries.insert(tensor.name, Entry::Tensor(tensor.dtype));
        }
        Ok(Self { entries, paths })
    }

    /// The entries that `other` lacks, or has another value of.
    pub(crate) fn lost_in(&self, other: &Self) -> Vec<String> {
        self.entries
            .iter()
            .filter(|(name, entry)| match (entry, other.entries.get(*name)) {
                (Entry::Tensor(_), Some(Entry::Tensor(_))) => false,
                (entry, kept) => kept != Some(entry),
            })
            .map(|(name, _)| self.describe(name))
            .collect()
    }

    /// The first tensor that `other` has as another type: its name, and both types.
    pub(crate) fn converted_in(&self, other: &Self) -> Option<(String, DType, DType)> {
        self.entries
            .iter()
            .find_map(|(name, entry)| match (entry, other.entries.get(name)) {
                (Entry::Tensor(saved), Some(Entry::Tensor(kept))) if saved != kept => {
                    Some((self.describe(name), *saved, *kept))
                }
                _ => None,
            })
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

/// The tensors of any record, by name, without a copy of their contents.
pub(crate) fn tensors(record: Bytes) -> Result<Vec<Tensor>, RecordError> {
    Ok(Reader::from_bytes(record)?.into_tensors()?)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(dtype: DType, step: i64) -> Outline {
        let moment = Bytes::from_bytes_vec(vec![0; dtype.size()]);
        let moment = Tensor::new("7.moment".to_owned(), dtype, vec![1], Some(7), moment);
        let writer = Writer::new(vec![moment])
            .with_scalar("7.step", Scalar::from(step))
            .with_metadata("7", "linear.weight");
        Outline::of(writer.into_bytes().unwrap()).unwrap()
    }

    #[test]
    fn what_another_record_lacks_or_has_otherwise_is_lost() {
        let saved = outline(DType::F32, 5);
        assert!(saved.lost_in(&outline(DType::F32, 5)).is_empty());
        assert_eq!(
            saved.lost_in(&outline(DType::F32, 6)),
            ["linear.weight: step"]
        );
        let nothing = Outline::of(Writer::new(Vec::new()).into_bytes().unwrap()).unwrap();
        assert_eq!(saved.lost_in(&nothing).len(), 2);
        assert!(nothing.lost_in(&saved).is_empty());
    }

    #[test]
    fn a_tensor_of_another_type_is_converted() {
        let saved = outline(DType::F64, 5);
        assert_eq!(saved.converted_in(&outline(DType::F64, 5)), None);
        let loaded = outline(DType::F32, 5);
        assert!(saved.lost_in(&loaded).is_empty());
        assert_eq!(
            saved.converted_in(&loaded),
            Some(("linear.weight: moment".to_owned(), DType::F64, DType::F32))
        );
    }
}
