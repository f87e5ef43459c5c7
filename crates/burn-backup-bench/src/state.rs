//! The training states that are backed up: their sizes and numbers of tensors.

use anyhow::{Context as _, Result};
use burn::optim::AdamConfig;
use burn::tensor::Device;
use burn::train::Learner;

use crate::device::Backend;
use crate::feed::{EpochLengths, Feed};
use crate::model::Stack;

const LEARNING_RATE: f64 = 1e-4;

/// A stack of linear layers with Adam, which has three values of 4 bytes for each parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// The name in the table and on the command line.
    pub name: &'static str,
    layers: usize,
    width: usize,
}

/// One million parameters in two tensors.
pub const SMALL: State = State {
    name: "1M",
    layers: 1,
    width: 1024,
};

/// Ten million parameters in twenty tensors.
pub const MEDIUM: State = State {
    name: "10M",
    layers: 10,
    width: 1024,
};

/// 63 million parameters in 120 tensors: 756 MB.
pub const LARGE: State = State {
    name: "63M",
    layers: 60,
    width: 1024,
};

/// 250 million parameters in 476 tensors: 3 GB.
pub const HUGE: State = State {
    name: "250M",
    layers: 238,
    width: 1024,
};

/// Almost no bytes, in many tensors.
pub const SCATTERED: State = State {
    name: "2000 tensors",
    layers: 1000,
    width: 8,
};

/// As many parameters as [`LARGE`] in as many tensors as [`SMALL`].
pub const LUMPED: State = State {
    name: "63M in 2 tensors",
    layers: 1,
    width: 7936,
};

impl State {
    /// The state with this name.
    pub fn named(name: &str) -> Result<Self> {
        [SMALL, MEDIUM, LARGE, HUGE, SCATTERED, LUMPED]
            .into_iter()
            .find(|state| state.name == name)
            .with_context(|| format!("there is no state {name:?}"))
    }

    /// The number of bytes in the parameters and in Adam's moments.
    pub fn bytes(&self) -> u64 {
        let parameters = self.layers * (self.width * self.width + self.width);
        12 * parameters as u64
    }

    /// A learner as a program creates it, with lazy parameters.
    pub fn fresh_learner(&self) -> Learner<Stack> {
        let model = Stack::new(self.layers, self.width, &device());
        Learner::new(model, AdamConfig::new().init(), LEARNING_RATE)
    }

    /// A learner with initialised parameters, which its clones share.
    pub fn learner(&self) -> Learner<Stack> {
        let mut learner = self.fresh_learner();
        learner.fork(&device());
        learner
    }

    /// A loader of rows for this model.
    pub fn feed(&self, lengths: EpochLengths) -> Feed {
        Feed::new(self.width, lengths, device())
    }
}

fn device() -> Device {
    Backend::chosen().device()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_found_by_their_names() {
        assert_eq!(State::named("63M in 2 tensors").unwrap(), LUMPED);
        assert_eq!(State::named("250M").unwrap(), HUGE);
        assert!(State::named("64M").is_err());
    }
}
