//! Optimizers whose states have other names, and trainings with several optimizers.

use burn::grad_clipping::GradientClipping;
use burn::module::ParamGroup;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{
    AdafactorConfig, AdamConfig, AdanConfig, LearningRate, MuonConfig, Optimizer, RecordState,
    RmsPropConfig, SgdConfig, StateSink, StateSource,
};
use burn::tensor::{Device, Tensor};
use burn_backup_restore::Snapshot;
use burn_backup_tests::{Backend, Halt, Training};
use burn_pack::Scalar;
use test_fork::test;

use crate::support::{assert_exact, uninterrupted};

#[track_caller]
fn assert_exact_with(optimizer: fn() -> burn::optim::ModuleOptimizer) {
    for &backend in Backend::ALL {
        let training = Training {
            optimizer,
            ..Training::new(backend)
        };
        let expected = uninterrupted(&training);
        for snapshot in [Snapshot::Shared, Snapshot::Blocking] {
            for halts in [
                &[Halt::Stop(1)][..],
                &[Halt::Fail(9)],
                &[Halt::Stop(8), Halt::Fail(2), Halt::Stop(5)],
            ] {
                let configure = |backup: burn_backup_restore::BackupAndRestore| {
                    backup.save_freq(1).snapshot(snapshot)
                };
                assert_exact(&training, &expected, configure, halts);
            }
        }
    }
}

#[test]
fn with_burns_optimizers_it_ends_as_if_uninterrupted() {
    assert_exact_with(|| SgdConfig::new().init());
    assert_exact_with(|| {
        let momentum = Some(MomentumConfig::new());
        SgdConfig::new().with_momentum(momentum).init()
    });
    assert_exact_with(|| AdafactorConfig::new().init());
    assert_exact_with(|| RmsPropConfig::new().with_centered(true).init());
}

#[test]
fn with_several_optimizers_it_ends_as_if_uninterrupted() {
    assert_exact_with(|| {
        let matrix = ParamGroup::from_predicate("input.weight");
        let clipping = Some(GradientClipping::Norm(1.0));
        AdamConfig::new()
            .with_amsgrad(true)
            .init()
            .with_group(matrix, MuonConfig::new().build(), None)
            .with_group(
                ParamGroup::from_predicate("output"),
                AdanConfig::new().build(),
                clipping,
            )
    });
}

/// A third-party optimizer, whose state has names that Burn's states do not have. It steps by the sum of the
/// last gradients, up to three of them.
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
        while let Some(data) = from.take_tensor(prefix, &format!("gradients.{}", gradients.len())) {
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
        let (mut gradients, patience) = match state {
            Some(state) => (state.gradients, state.patience * 0.9),
            None => (Vec::new(), 1.0),
        };
        gradients.insert(0, gradient);
        gradients.truncate(3);
        let sum = gradients.iter().cloned().reduce(|sum, next| sum + next);
        let tensor = match sum {
            Some(sum) => tensor - sum * (learning_rate * patience),
            None => tensor,
        };
        let state = TheirState {
            gradients,
            patience,
        };
        (tensor, Some(state))
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
fn with_a_third_party_optimizer_it_ends_as_if_uninterrupted() {
    assert_exact_with(|| Theirs.into());
}
