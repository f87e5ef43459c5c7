use std::sync::atomic::{AtomicU64, Ordering};

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use burn::train::{InferenceStep, TrainOutput, TrainStep};

static STEPS: AtomicU64 = AtomicU64::new(0);

/// The number of training steps of this process, on any model.
pub fn steps_taken() -> u64 {
    STEPS.load(Ordering::Relaxed)
}

/// A stack of square linear layers. Each adds a tenth of its output to its input.
///
/// So the values stay in range with any number of layers. A step on a single row costs little more
/// than the optimizer's pass over the parameters.
#[derive(Module, Debug)]
pub struct Stack {
    layers: Vec<Linear>,
}

impl Stack {
    /// A stack of `layers` layers with `width` inputs and outputs and with bias.
    pub fn new(layers: usize, width: usize, device: &Device) -> Self {
        let layer = LinearConfig::new(width, width);
        Self {
            layers: (0..layers).map(|_| layer.init(device)).collect(),
        }
    }

    fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        self.layers
            .iter()
            .fold(rows, |x, layer| layer.forward(x.clone()) * 0.1 + x)
    }
}

impl TrainStep for Stack {
    type Input = Tensor<2>;
    type Output = ();

    fn step(&self, rows: Tensor<2>) -> TrainOutput<()> {
        let loss = self.forward(rows).mean();
        STEPS.fetch_add(1, Ordering::Relaxed);
        TrainOutput::new(self, loss.backward(), ())
    }
}

impl InferenceStep for Stack {
    type Input = Tensor<2>;
    type Output = ();

    fn step(&self, rows: Tensor<2>) {
        self.forward(rows);
    }
}
