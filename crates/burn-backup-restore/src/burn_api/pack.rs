//! Builds an optimizer's record without a copy of its tensors. The inverse of [`unpack`](super::unpack).
//!
//! If Burn makes an [`OptimizerRecord`] from one buffer, its tensors share that buffer, and are copied when the
//! optimizer changes them. But Burn also makes a record from the states that optimizers report, and an optimizer of
//! this crate can report them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use burn::module::ParamGroup;
use burn::optim::{
    DynOptimizer, DynState, LearningRate, ModuleOptimizer, OptimizerRecord, SgdConfig, StateSink,
    StateSource,
};
use burn::store::RecordError;
use burn::tensor::kind::BridgeTensor;
use burn::tensor::{Device, TensorData};
use burn_pack::{Scalar, Tensor, Writer};

use super::RANK;
use crate::burn_api::burnpack::Container;

/// The record that holds the container's tensors and scalars.
pub(crate) fn optimizer_record(container: Container) -> Result<OptimizerRecord, RecordError> {
    if !is_complete(&container) {
        return OptimizerRecord::from_bytes(writer(container).into_bytes()?);
    }
    let Container {
        tensors,
        scalars,
        metadata,
    } = container;
    // A record without tensors has an entry for each parameter, with its rank and its path.
    let outline = Container {
        tensors: Vec::new(),
        scalars: scalars.clone(),
        metadata,
    };
    let outline = OptimizerRecord::from_bytes(writer(outline).into_bytes()?)?;

    let mut states: BTreeMap<String, State> = BTreeMap::new();
    for (name, value) in scalars {
        if let Some((id, leaf)) = name.split_once('.')
            && leaf != RANK
        {
            let state = states.entry(id.to_owned()).or_default();
            state.scalars.push((name, value));
        }
    }
    for tensor in tensors {
        if let Some((id, _)) = tensor.name.split_once('.') {
            let state = states.entry(id.to_owned()).or_default();
            state.tensors.push(tensor);
        }
    }
    let provider = StateProvider {
        states: Arc::new(Mutex::new(states)),
    };
    let optimizer: ModuleOptimizer = SgdConfig::new().init();
    let optimizer = optimizer.with_group(ParamGroup::all(), provider, None);
    Ok(optimizer.load_record(outline).to_record())
}

fn writer(container: Container) -> Writer {
    let mut writer = Writer::new(container.tensors);
    for (name, value) in container.scalars {
        writer = writer.with_scalar(&name, value);
    }
    for (id, path) in container.metadata {
        writer = writer.with_metadata(&id, &path);
    }
    writer
}

/// Whether the container has the rank of each entry's parameter. Records written by Burn always do.
fn is_complete(container: &Container) -> bool {
    let scalars = container.scalars.keys();
    let ranked: BTreeSet<_> = scalars
        .filter_map(|name| name.strip_suffix(RANK)?.strip_suffix('.'))
        .collect();
    let has_rank = |name: &str| {
        name.split_once('.')
            .is_some_and(|(id, _)| ranked.contains(id))
    };
    ranked.iter().all(|id| id.parse::<u64>().is_ok())
        && container.scalars.keys().all(|name| has_rank(name))
        && container
            .tensors
            .iter()
            .all(|tensor| has_rank(&tensor.name))
}

/// The known state of one parameter.
#[derive(Default)]
struct State {
    tensors: Vec<Tensor>,
    scalars: Vec<(String, Scalar)>,
}

/// An optimizer that reports the states that it was made with, each once.
struct StateProvider {
    states: Arc<Mutex<BTreeMap<String, State>>>,
}

impl DynOptimizer for StateProvider {
    fn state_unflatten(
        &self,
        rank: usize,
        _prefix: &str,
        _source: &mut StateSource,
        _device: &Device,
    ) -> Option<DynState> {
        Some(DynState::create((), rank))
    }

    fn state_flatten(&self, prefix: &str, _state: &DynState, out: &mut StateSink) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let State { tensors, scalars } = states.remove(prefix).unwrap_or_default();
        out.scalars.extend(scalars);
        for tensor in tensors {
            // All tensors are in memory, so this does not fail.
            if let Ok((name, dtype, shape, _, bytes)) = tensor.into_parts() {
                let data = TensorData::from_bytes(bytes, shape, dtype);
                out.tensors.push((name, data));
            }
        }
    }

    // The optimizer never steps.

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
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Bytes, DType};
    use burn_pack::Reader;

    use super::*;

    fn tensor(name: &str, id: u64) -> Tensor {
        let bytes = Bytes::from_bytes_vec((0..8 + id as u8).map(|at| at * id as u8).collect());
        let len = bytes.len();
        Tensor::new(name.to_owned(), DType::U8, vec![1, len], Some(id), bytes)
    }

    fn container(with_ranks: bool) -> Container {
        let mut scalars: BTreeMap<_, _> = [
            ("7.momentum.time".to_owned(), Scalar::from(5_u64)),
            ("8.factor".to_owned(), Scalar::from(0.5)),
        ]
        .into();
        if with_ranks {
            for id in [7, 8, 9] {
                scalars.insert(format!("{id}.{RANK}"), Scalar::from(2_usize));
            }
        }
        Container {
            tensors: vec![
                tensor("7.momentum.moment_1", 7),
                tensor("7.momentum.moment_2", 7),
                tensor("8.velocity", 8),
            ],
            scalars,
            metadata: [("7", "a.weight"), ("9", "b.weight")]
                .map(|(id, path)| (id.to_owned(), path.to_owned()))
                .into(),
        }
    }

    fn entries(container: Container) -> BTreeMap<String, String> {
        let record = optimizer_record(container).unwrap();
        let reader = Reader::from_bytes(record.into_bytes().unwrap()).unwrap();
        let scalars = reader.scalars().iter();
        let mut entries: BTreeMap<_, _> = scalars
            .map(|(name, value)| (name.clone(), format!("{value:?}")))
            .collect();
        entries.extend(reader.metadata().clone());
        for tensor in reader.into_tensors().unwrap() {
            let (name, dtype, shape, id, bytes) = tensor.into_parts().unwrap();
            let text = format!("{dtype:?} {shape:?} {id:?} {:?}", &bytes[..]);
            entries.insert(name, text);
        }
        entries
    }

    #[test]
    fn a_record_has_the_containers_entries() {
        let bytes = writer(container(true)).into_bytes().unwrap();
        let reader = Reader::from_bytes(bytes.clone()).unwrap();
        let expected = reader.scalars().len() + reader.metadata().len() + 3;
        let theirs = OptimizerRecord::from_bytes(bytes).unwrap();
        let ours = entries(container(true));
        assert_eq!(ours.len(), expected);
        let theirs = theirs.into_bytes().unwrap();
        assert_eq!(entries(Container::from_bytes(theirs).unwrap()), ours);
    }

    #[test]
    fn a_record_without_ranks_has_them_too() {
        assert!(is_complete(&container(true)));
        assert!(!is_complete(&container(false)));
        assert_eq!(entries(container(false)).len(), 2 + 2 + 3);
    }
}
