use std::fmt;

use serde::{Deserialize, Serialize};

/// The position of a training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Position {
    /// The epoch in progress; the first is 1, as in Burn. After the training has run to its end, it is one
    /// more than the last epoch.
    pub epoch: usize,
    /// The number of trained batches in that epoch.
    pub step_in_epoch: usize,
    /// The number of trained batches since the very first start.
    pub global_step: u64,
}

impl Position {
    /// Before the first batch of `epoch`, with no batch trained yet.
    pub(crate) fn start_of(epoch: usize) -> Self {
        Self {
            epoch,
            step_in_epoch: 0,
            global_step: 0,
        }
    }

    /// One trained batch further.
    pub(crate) fn after_step(self) -> Self {
        Self {
            step_in_epoch: self.step_in_epoch.saturating_add(1),
            global_step: self.global_step.saturating_add(1),
            ..self
        }
    }

    /// At the start of the next epoch.
    pub(crate) fn after_epoch(self) -> Self {
        Self {
            epoch: self.epoch.saturating_add(1),
            step_in_epoch: 0,
            ..self
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "epoch {}, batch {} (batch {} of the training)",
            self.epoch, self.step_in_epoch, self.global_step
        )
    }
}
