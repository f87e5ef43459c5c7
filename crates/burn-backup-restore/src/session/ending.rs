use std::sync::Arc;

use burn::train::{Interrupter, Interruption, TrainingError};

use crate::position::Position;

/// How a training ended. It is stored here because Burn's terminal renderer makes the interrupter forget it.
#[derive(Default)]
pub(crate) struct Ending {
    pub interrupted: Option<Interruption>,
    pub error: Option<Arc<TrainingError>>,
    /// Whether a notice stopped the training.
    pub is_preempted: bool,
    /// Whether the training ended before its first batch because its loaders can't return to their position.
    pub is_refused: bool,
    /// The position and the requested number of epochs, if the training is already beyond them.
    pub past_last_epoch: Option<(Position, usize)>,
    /// The position at which the training was saved when it was stopped or complete.
    pub saved_at: Option<Position>,
    /// Whether a stopped training was saved, as text.
    pub saved: Option<String>,
    /// Whether the training waited for the mirror.
    pub is_flushed: bool,
    /// Whether the training is complete.
    pub is_complete: bool,
}

impl Ending {
    /// Copies the interrupter's current result.
    pub(super) fn note(&mut self, interrupter: &Interrupter, is_preempted: bool) {
        self.interrupted = interrupter.interruption();
        self.error = interrupter.error();
        self.is_preempted = is_preempted;
    }
}
