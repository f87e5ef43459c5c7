use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use burn::lr_scheduler::LrSchedulerRecord;
use burn::module::Module;
use burn::optim::OptimizerRecord;
use burn::store::ModuleRecord;
use burn::tensor::Bytes;
use burn::train::checkpoint::{
    Checkpoint, Checkpointer, CheckpointerError, CheckpointingAction, CheckpointingStrategy,
};
use burn::train::metric::store::EventStoreClient;
use burn_pack::Reader;

/// A record by name: each entry's type, shape and bytes. Parameter ids, which differ from learner
/// to learner, are replaced by the parameters' paths.
pub type Record = BTreeMap<String, Vec<u8>>;

/// The model's parameters and running statistics.
pub fn model_records<M: Module>(model: &M) -> Record {
    named(model.clone().into_record().into_bytes().unwrap())
}

/// The contents of a record, given as a burnpack file.
pub fn named(bytes: Bytes) -> Record {
    let reader = Reader::from_bytes(bytes).unwrap();
    let paths = reader.metadata().clone();
    let rename = |name: &str| match name.split_once('.') {
        Some((id, field)) => match paths.get(id) {
            Some(path) => format!("{path}: {field}"),
            None => name.to_owned(),
        },
        None => name.to_owned(),
    };
    let mut record: Record = reader
        .scalars()
        .iter()
        .map(|(name, value)| (rename(name), format!("{value:?}").into_bytes()))
        .collect();
    for tensor in reader.into_tensors().unwrap() {
        let (name, dtype, shape, _, bytes) = tensor.into_parts().unwrap();
        let mut entry = format!("{dtype:?} {shape:?} ").into_bytes();
        entry.extend_from_slice(&bytes);
        record.insert(rename(&name), entry);
    }
    record
}

/// The records that the user's own checkpointers were given last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records {
    /// The epoch that they were saved after.
    pub epoch: usize,
    /// The model's record.
    pub model: Record,
    /// The optimizer's record.
    pub optimizer: Record,
    /// The scheduler's record.
    pub scheduler: Record,
}

/// User's checkpointers that keep the last record each.
#[derive(Clone, Default)]
pub(crate) struct Keeper {
    records: Arc<Mutex<Records>>,
}

impl Keeper {
    pub(crate) fn records(&self) -> Records {
        self.records.lock().unwrap().clone()
    }
}

macro_rules! keep {
    ($record:ty, $field:ident) => {
        impl Checkpointer<$record> for Keeper {
            fn save(&self, epoch: usize, record: $record) -> Result<(), CheckpointerError> {
                let record = named(record.checkpoint_into_bytes().unwrap());
                let mut records = self.records.lock().unwrap();
                records.epoch = epoch;
                records.$field = record;
                Ok(())
            }

            fn delete(&self, _epoch: usize) -> Result<(), CheckpointerError> {
                Ok(())
            }

            fn restore(&self, epoch: usize) -> Result<$record, CheckpointerError> {
                Err(CheckpointerError::Unknown(format!(
                    "nothing kept of epoch {epoch}"
                )))
            }
        }
    };
}

keep!(ModuleRecord, model);
keep!(OptimizerRecord, optimizer);
keep!(LrSchedulerRecord, scheduler);

/// Saves after each epoch.
pub(crate) struct EachEpoch;

impl CheckpointingStrategy for EachEpoch {
    fn checkpointing(
        &mut self,
        _epoch: usize,
        _collector: &EventStoreClient,
    ) -> Vec<CheckpointingAction> {
        vec![CheckpointingAction::Save]
    }
}
