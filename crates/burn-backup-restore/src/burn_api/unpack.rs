//! Unpacks an optimizer's record without a copy of its tensors.
//!
//! An [`OptimizerRecord`] can only be turned into bytes: a copy of all its tensors in one new buffer. That takes
//! longer than writing them. But a record can also be loaded, and by an optimizer of this crate. A
//! [`ModuleOptimizer`] asks its optimizers to rebuild the state of each parameter from the record's own tensors, by
//! name. [`StateRecorder`] answers by taking all of them.
//!
//! The recorder knows the names that Burn's optimizers use. It learns other names from records that were unpacked
//! through a copy. A record says how many tensors and scalars it has, so the count reveals entries with unknown
//! names.

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
use burn_pack::Tensor;

use super::RANK;
use crate::burn_api::burnpack::Container;

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

/// The scalars in the states of Burn's optimizers, and the one that Burn adds to each state.
const SCALARS: &[&str] = &[RANK, "lr_decay.time", "momentum.time", "time"];

/// The names of entries that a parameter's state may contain.
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

/// The part of a name after the parameter's id.
fn leaf(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, leaf)| leaf)
}

fn leaves<'n>(names: impl Iterator<Item = &'n str>) -> BTreeSet<String> {
    let leaves: BTreeSet<&str> = names.filter_map(leaf).collect();
    leaves.into_iter().map(str::to_owned).collect()
}

impl Names {
    /// The names in `container`.
    pub(super) fn of(container: &Container) -> Self {
        let tensors = container.tensors.iter().map(|tensor| tensor.name.as_str());
        Self {
            tensors: leaves(tensors),
            scalars: leaves(container.scalars.keys().map(String::as_str)),
        }
    }

    /// Unpacks `record`. `paths` are the paths of the model's parameters, by id. `None` if the record has an entry
    /// with an unknown name; the record is consumed then.
    pub(super) fn unpack(
        &self,
        record: OptimizerRecord,
        paths: &BTreeMap<u64, String>,
    ) -> Option<Container> {
        let expected = (record.len(), count_scalars(&record)?);
        let recorder = StateRecorder {
            names: Arc::new(self.clone()),
            taken: Arc::default(),
        };
        let optimizer: ModuleOptimizer = SgdConfig::new().init();
        let optimizer = optimizer.with_group(ParamGroup::all(), recorder.clone(), None);
        drop(optimizer.load_record(record));

        let mut taken = recorder
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let RecordedStates { mut container, ids } = std::mem::take(&mut *taken);
        if (container.tensors.len(), container.scalars.len()) != expected {
            return None;
        }
        for id in ids {
            let path = paths.get(&id)?;
            container.metadata.insert(id.to_string(), path.clone());
        }
        Some(container)
    }

    /// Unpacks `record` through a copy, and learns its names.
    pub(super) fn learn(&mut self, record: OptimizerRecord) -> Result<Container, RecordError> {
        let container = Container::from_bytes(record.into_bytes()?)?;
        let Self { tensors, scalars } = Self::of(&container);
        self.tensors.extend(tensors);
        self.scalars.extend(scalars);
        Ok(container)
    }
}

/// The number of scalars in a record. Only its debug output shows it. If that output changes, every record is
/// unpacked through a copy.
fn count_scalars(record: &OptimizerRecord) -> Option<usize> {
    let text = format!("{record:?}");
    let (_, count) = text.rsplit_once("num_scalars: ")?;
    let digits = count.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// An optimizer that records the states that it is asked to rebuild.
#[derive(Clone)]
struct StateRecorder {
    names: Arc<Names>,
    taken: Arc<Mutex<RecordedStates>>,
}

#[derive(Default)]
struct RecordedStates {
    container: Container,
    ids: Vec<u64>,
}

impl DynOptimizer for StateRecorder {
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

    // The optimizer keeps no state and never steps.

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

#[cfg(test)]
mod tests {
    use burn::nn::conv::{Conv2d, Conv2dConfig};
    use burn::nn::{Linear, LinearConfig};
    use burn::optim::decay::WeightDecayConfig;
    use burn::optim::momentum::MomentumConfig;
    use burn::optim::{
        AdaGradConfig, AdafactorConfig, AdamConfig, AdamWConfig, AdanConfig, GradientsParams,
        LambConfig, LionConfig, MuonConfig, Optimizer, RecordState, RmsPropConfig,
    };
    use burn::tensor::{Bytes, DType, Distribution, Tensor};
    use burn_pack::{Reader, Scalar, Tensor as RecordTensor, Writer};

    use super::super::records::paths;
    use super::*;

    /// Parameters of rank 1, 2 and 4.
    type Model = (Linear, Conv2d);

    fn model() -> Model {
        let device = Device::flex().autodiff();
        let linear = LinearConfig::new(3, 4).init(&device);
        (linear, Conv2dConfig::new([1, 2], [2, 2]).init(&device))
    }

    /// Trains `model` for some steps, each with different gradients.
    fn train(optimizer: &mut ModuleOptimizer, mut model: Model, steps: usize) -> Model {
        let device = Device::flex().autodiff();
        for step in 1..=steps {
            let (linear, conv) = &model;
            let input = Tensor::random([5, 3], Distribution::Default, &device);
            let rows: Tensor<2> = linear.forward(input);
            let images = conv.forward(rows.unsqueeze_dims(&[0, 0]));
            let loss = images.square().mean() * step as f64;
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            model = optimizer.step(1e-2, model, gradients);
        }
        model
    }

    /// A tensor's type, shape, parameter and bytes.
    type Data = (DType, Vec<usize>, Option<u64>, Vec<u8>);

    /// The complete contents of a record.
    #[derive(Debug, PartialEq)]
    struct Contents {
        tensors: BTreeMap<String, Data>,
        scalars: BTreeMap<String, Scalar>,
        metadata: BTreeMap<String, String>,
    }

    impl From<Container> for Contents {
        fn from(container: Container) -> Self {
            let len = container.tensors.len();
            let tensors = container.tensors.into_iter().map(|tensor| {
                let (name, dtype, shape, id, bytes) = tensor.into_parts().unwrap();
                (name, (dtype, shape.to_vec(), id, bytes.to_vec()))
            });
            let tensors: BTreeMap<_, _> = tensors.collect();
            assert_eq!(tensors.len(), len, "each name occurs once");
            Self {
                tensors,
                scalars: container.scalars,
                metadata: container.metadata,
            }
        }
    }

    impl Contents {
        /// The contents that Burn itself writes.
        fn of(record: OptimizerRecord) -> Self {
            let reader = Reader::from_bytes(record.into_bytes().unwrap()).unwrap();
            let container = Container {
                scalars: reader.scalars().clone(),
                metadata: reader.metadata().clone(),
                tensors: reader.into_tensors().unwrap(),
            };
            container.into()
        }
    }

    /// Asserts that the known names are enough to unpack the optimizer's record after some steps. It has `tensors`
    /// tensors and, apart from the rank of each parameter, `scalars` scalars.
    #[track_caller]
    fn assert_known(mut optimizer: ModuleOptimizer, tensors: usize, scalars: usize) {
        let mut model = model();
        let names = Names::default();
        for steps in [1, 3] {
            model = train(&mut optimizer, model, steps);
            let expected = Contents::of(optimizer.to_record());
            let counts = (expected.tensors.len(), expected.scalars.len());
            assert_eq!(counts, (tensors, 4 + scalars), "{:?}", expected.scalars);
            assert_eq!(expected.metadata.len(), 4);
            let unpacked = names.unpack(optimizer.to_record(), &paths(&model));
            assert_eq!(Contents::from(unpacked.unwrap()), expected);
        }
        // The record is the same after it was loaded.
        let expected = Contents::of(optimizer.to_record());
        let record = optimizer.to_record().into_bytes().unwrap();
        let loaded = optimizer.from_bytes(record).unwrap();
        let unpacked = names.unpack(loaded.to_record(), &paths(&model));
        assert_eq!(Contents::from(unpacked.unwrap()), expected);
    }

    #[test]
    fn the_record_of_each_of_burns_optimizers_is_unpacked_by_the_known_names() {
        // For each parameter: two moments and the time.
        assert_known(AdamConfig::new().init(), 8, 4);
        assert_known(AdamConfig::new().with_amsgrad(true).init(), 12, 4);
        assert_known(AdamWConfig::new().init(), 8, 4);
        assert_known(AdamWConfig::new().with_amsgrad(true).init(), 12, 4);
        assert_known(AdanConfig::new().init(), 16, 4);
        assert_known(AdaGradConfig::new().init(), 4, 4);
        // Vectors have one moment, other parameters two.
        assert_known(AdafactorConfig::new().init(), 6, 4);
        assert_known(LambConfig::new().init(), 8, 4);
        assert_known(LionConfig::new().init(), 4, 0);
        let decay = Some(WeightDecayConfig::new(5e-5));
        for momentum in [0.0, 0.9] {
            let rms_prop = RmsPropConfig::new().with_momentum(momentum);
            let rms_prop = rms_prop.with_weight_decay(decay.clone());
            let buffers = if momentum > 0.0 { 4 } else { 0 };
            assert_known(rms_prop.clone().init(), 8 + buffers, 0);
            assert_known(rms_prop.with_centered(true).init(), 12 + buffers, 0);
        }
        assert_known(SgdConfig::new().with_weight_decay(decay).init(), 0, 0);
        let momentum = Some(MomentumConfig::new());
        assert_known(SgdConfig::new().with_momentum(momentum).init(), 4, 0);
    }

    #[test]
    fn a_record_of_several_optimizers_is_unpacked_by_the_known_names() {
        // Muon accepts only matrices.
        let matrix = ParamGroup::from_predicate("0.weight");
        let optimizer = AdamConfig::new().init();
        assert_known(
            optimizer.with_group(matrix, MuonConfig::new().build(), None),
            7,
            3,
        );
        let biases = ParamGroup::from_predicate("bias");
        let optimizer = RmsPropConfig::new().init();
        assert_known(
            optimizer.with_group(biases, AdanConfig::new().build(), None),
            14,
            2,
        );
    }

    #[test]
    fn a_record_of_an_optimizer_that_has_not_stepped_is_empty() {
        let optimizer: ModuleOptimizer = AdamConfig::new().init();
        let unpacked = Names::default().unpack(optimizer.to_record(), &paths(&model()));
        assert_eq!(
            Contents::from(unpacked.unwrap()),
            Contents::of(optimizer.to_record())
        );
    }

    /// A third-party optimizer whose state has other names than Burn's. It keeps up to three of the last gradients.
    #[derive(Clone)]
    struct Theirs;

    #[derive(Clone)]
    struct TheirState<const D: usize> {
        gradients: Vec<Tensor<D>>,
        patience: f64,
    }

    impl<const D: usize> RecordState for TheirState<D> {
        fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
            for (at, gradient) in self.gradients.iter().enumerate() {
                out.push_tensor(prefix, &format!("gradients.{at}"), gradient.to_data());
            }
            out.push_scalar(prefix, "patience", Scalar::from(self.patience));
        }

        fn state_unflatten(prefix: &str, from: &mut StateSource, device: &Device) -> Option<Self> {
            let mut gradients = Vec::new();
            while let Some(data) =
                from.take_tensor(prefix, &format!("gradients.{}", gradients.len()))
            {
                gradients.push(Tensor::from_data(data, device));
            }
            let patience = from.take_scalar(prefix, "patience")?.try_into().ok()?;
            Some(Self {
                gradients,
                patience,
            })
        }
    }

    impl Optimizer for Theirs {
        type State<const D: usize> = TheirState<D>;

        fn step<const D: usize>(
            &self,
            learning_rate: LearningRate,
            tensor: Tensor<D>,
            gradient: Tensor<D>,
            state: Option<TheirState<D>>,
        ) -> (Tensor<D>, Option<TheirState<D>>) {
            let mut gradients = state.map_or(Vec::new(), |state| state.gradients);
            gradients.insert(0, gradient.clone());
            gradients.truncate(3);
            let patience = 1.0 / gradients.len() as f64;
            let state = TheirState {
                gradients,
                patience,
            };
            (tensor - gradient * learning_rate, Some(state))
        }

        fn to_device<const D: usize>(state: TheirState<D>, device: &Device) -> TheirState<D> {
            let gradients = state.gradients.into_iter();
            TheirState {
                gradients: gradients
                    .map(|gradient| gradient.to_device(device))
                    .collect(),
                ..state
            }
        }
    }

    #[test]
    fn unknown_names_are_learned_and_then_known() {
        let mut optimizer = ModuleOptimizer::from(Theirs);
        let mut model = model();
        let mut names = Names::default();
        let is_learned = [false, false, false, true, true].map(|is_known| {
            // One more gradient is kept after each of the first three steps.
            model = train(&mut optimizer, model.clone(), 1);
            let expected = Contents::of(optimizer.to_record());
            assert!(expected.tensors.len() >= 4);
            let unpacked = names.unpack(optimizer.to_record(), &paths(&model));
            assert_eq!(
                unpacked.is_some(),
                is_known,
                "{:?}",
                expected.tensors.keys()
            );
            let container = match unpacked {
                Some(container) => container,
                None => names.learn(optimizer.to_record()).unwrap(),
            };
            assert_eq!(Contents::from(container), expected);
            !is_known
        });
        assert_eq!(is_learned, [true, true, true, false, false]);
    }

    /// A record that holds `tensors` and `scalars`.
    fn record(tensors: &[&str], scalars: &[&str]) -> OptimizerRecord {
        let tensors = tensors.iter().map(|name| {
            let bytes = Bytes::from_bytes_vec(vec![7; 4]);
            let id = name.split_once('.').unwrap().0.parse().ok();
            RecordTensor::new((*name).to_owned(), DType::U8, vec![4], id, bytes)
        });
        let mut writer = Writer::new(tensors.collect()).with_metadata("7", "weight");
        for name in scalars {
            writer = writer.with_scalar(name, Scalar::from(1_u64));
        }
        OptimizerRecord::from_bytes(writer.into_bytes().unwrap()).unwrap()
    }

    #[test]
    fn a_record_with_as_many_entries_but_another_name_is_not_unpacked_with_a_loss() {
        let names = Names::default();
        let paths: BTreeMap<_, _> = [(7, "weight".to_owned())].into();
        let known: (&[&str], &[&str]) = (
            &["7.momentum.moment_1", "7.momentum.moment_2"],
            &["7.__rank", "7.momentum.time"],
        );
        let unpacked = names.unpack(record(known.0, known.1), &paths).unwrap();
        assert_eq!(
            Contents::from(unpacked),
            Contents::of(record(known.0, known.1))
        );

        let unknown: &[(&[&str], &[&str])] = &[
            (&["7.momentum.moment_1", "7.momentum.moment_3"], known.1),
            (&["7.momentum.moment_1", "7.moment_1.momentum"], known.1),
            (&["7.momentum.moment_1", "7.time"], known.1),
            (known.0, &["7.__rank", "7.momentum.epoch"]),
            (known.0, &["7.__rank", "7.momentum.moment_1"]),
            // A scalar of an unknown parameter.
            (known.0, &["7.__rank", "x.momentum.time"]),
            (known.0, &["7.__rank", "8.momentum.time"]),
            (&["7.momentum.moment_1", "8.momentum.moment_1"], known.1),
        ];
        for (tensors, scalars) in unknown {
            let record = record(tensors, scalars);
            assert_eq!((record.len(), count_scalars(&record)), (2, Some(2)));
            let unpacked = names.unpack(record, &paths);
            assert!(unpacked.is_none(), "{tensors:?} {scalars:?}");
        }
    }

    /// Another release of Burn may print it differently. Then all records are unpacked through a copy.
    #[test]
    fn burns_records_show_how_many_scalars_they_have() {
        assert_eq!(count_scalars(&record(&[], &[])), Some(0));
        assert_eq!(count_scalars(&record(&["7.a"], &["7.b", "7.c"])), Some(2));
        let mut optimizer = AdamConfig::new().init();
        train(&mut optimizer, model(), 1);
        assert_eq!(count_scalars(&optimizer.to_record()), Some(8));
    }
}
