//! A moving average of a model's weights.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

/// `average`, moved towards the weights and running statistics of `model`. Each value keeps a share of
/// `decay`, and the rest comes from the model. `average` is from [`Module::valid`] of the model, or from an
/// earlier call.
#[must_use]
pub fn moved<M: Module>(average: M, model: &M, decay: f64) -> M {
    let mut weights = Weights(GradientsParams::new());
    model.valid().visit(&mut weights);
    average.map(&mut Mover { weights, decay })
}

/// A tensor for each parameter by its id, as in Burn's gradients.
struct Weights(GradientsParams);

impl ModuleVisitor for Weights {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.register(param.id, param.val());
    }
}

struct Mover {
    weights: Weights,
    decay: f64,
}

impl ModuleMapper for Mover {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.weights.0.remove::<D>(param.id) {
            Some(weights) => {
                param.map(|average| average * self.decay + weights * (1.0 - self.decay))
            }
            None => param,
        }
    }
}
