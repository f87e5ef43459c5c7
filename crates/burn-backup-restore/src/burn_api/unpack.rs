//! Taking an optimizer's record apart without a copy of its tensors.
//!
//! An [`OptimizerRecord`] gives nothing but bytes: a copy of all its tensors in one fresh buffer,
//! which takes longer than to write them. But it can be loaded, and what loads it may be ours: a
//! [`ModuleOptimizer`] asks its optimizers to rebuild the state of each parameter from the record's
//! own tensors, by name. [`Tap`] answers by taking them all. It knows the names that Burn's
//! optimizers use, and learns others from records that were taken apart the long way. The record
//! says how many tensors and scalars it has: one that holds anything else is seen by the count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use burn::module::ParamGroup;
use burn::optim::{
    DynOptimizer, DynState, LearningRate, ModuleOptimizer, OptimizerRecord, SgdConfig, StateSink,
    StateSource,
};
use burn::store::RecordError;
use burn::tensor::Device;
use burn::tensor::kind::BridgeTensor;
use burn_pack::{Reader, Tensor};

use crate::burnpack::Container;

/// The tensors in the states of Burn's optimizers.
const TENSORS: &[&str] = &[
    "column_second_moment",
    "centered.avg",
    "centered.grad_avg",
    "lr_decay.sum",
    "moment_1",
    "moment_2",
    "momentum",
    "momentum.buf",
    "momentum.exp_avg",
    "momentum.exp_avg_diff",
    "momentum.exp_avg_sq",
    "momentum.max_moment_2",
    "momentum.moment_1",
    "momentum.moment_2",
    "momentum.neg_pre_grad",
    "momentum.velocity",
    "second_moment",
    "square_avg.square_avg",
];

/// The scalars in them, and the one that Burn adds to each state.
const SCALARS: &[&str] = &["__rank", "lr_decay.time", "momentum.time", "time"];

/// The names that a parameter's state may have in it.
#[derive(Clone)]
pub(super) struct Names {
    tensors: BTreeSet<String>,
    scalars: BTreeSet<String>,
}

impl Default for Names {
    fn default() -> Self {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            tensors: owned(TENSORS),
            scalars: owned(SCALARS),
        }
    }
}

impl Names {
    /// Takes `record` apart. `paths` are those of the model's parameters, by their ids. `None` if
    /// there is something in the record that has none of these names; the record is lost then.
    pub(super) fn unpack(
        &self,
        record: OptimizerRecord,
        paths: &BTreeMap<u64, String>,
    ) -> Option<Container> {
        let expected = (record.len(), count_scalars(&record)?);
        let tap = Tap {
            names: Arc::new(self.clone()),
            taken: Arc::default(),
        };
        let optimizer: ModuleOptimizer = SgdConfig::new().init();
        let optimizer = optimizer.with_group(ParamGroup::all(), tap.clone(), None);
        drop(optimizer.load_record(record));

        let mut taken = tap.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let Taken { mut container, ids } = std::mem::take(&mut *taken);
        if (container.tensors.len(), container.scalars.len()) != expected {
            return None;
        }
        for id in ids {
            let path = paths.get(&id)?;
            container.metadata.insert(id.to_string(), path.clone());
        }
        Some(container)
    }

    /// Takes `record` apart by way of a copy, and learns its names.
    pub(super) fn learn(&mut self, record: OptimizerRecord) -> Result<Container, RecordError> {
        let reader = Reader::from_bytes(record.into_bytes()?)?;
        let leaf = |name: &str| name.split_once('.').map(|(_, leaf)| leaf.to_owned());
        let scalars = reader.scalars().clone();
        let metadata = reader.metadata().clone();
        let tensors = reader.into_tensors()?;
        let names = tensors.iter().filter_map(|tensor| leaf(&tensor.name));
        self.tensors.extend(names);
        self.scalars
            .extend(scalars.keys().filter_map(|name| leaf(name)));
        Ok(Container {
            tensors,
            scalars,
            metadata,
        })
    }
}

/// How many scalars a record has. It tells by its debug output alone; if that has changed, every
/// record is taken apart the long way.
fn count_scalars(record: &OptimizerRecord) -> Option<usize> {
    let text = format!("{record:?}");
    let (_, count) = text.rsplit_once("num_scalars: ")?;
    let digits = count.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// An optimizer that takes the states that it is to rebuild.
#[derive(Clone)]
struct Tap {
    names: Arc<Names>,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    container: Container,
    ids: Vec<u64>,
}

impl DynOptimizer for Tap {
    fn state_unflatten(
        &self,
        _rank: usize,
        prefix: &str,
        source: &mut StateSource,
        _device: &Device,
    ) -> Option<DynState> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let id = prefix.parse().ok()?;
        taken.ids.push(id);
        for leaf in &self.names.scalars {
            if let Some(value) = source.take_scalar(prefix, leaf) {
                let name = format!("{prefix}.{leaf}");
                taken.container.scalars.insert(name, value);
            }
        }
        for leaf in &self.names.tensors {
            if let Some(data) = source.take_tensor(prefix, leaf) {
                let (bytes, shape, dtype) = data.into_parts();
                let name = format!("{prefix}.{leaf}");
                let tensor = Tensor::new(name, dtype, shape, Some(id), bytes);
                taken.container.tensors.push(tensor);
            }
        }
        None
    }

    // It keeps no state and is never stepped.

    fn step_dyn(
        &self,
        _rank: usize,
        _learning_rate: LearningRate,
        tensor: BridgeTensor,
        _gradient: BridgeTensor,
        state: Option<DynState>,
    ) -> (BridgeTensor, Option<DynState>) {
        (tensor, state)
    }

    fn to_device_dyn(&self, state: DynState, _device: &Device) -> DynState {
        state
    }

    fn state_flatten(&self, _prefix: &str, _state: &DynState, _out: &mut StateSink) {}
}
