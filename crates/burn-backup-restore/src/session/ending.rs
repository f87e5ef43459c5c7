use std::sync::Arc;

use burn::train::{Interrupter, Interruption, TrainingError};

use crate::position::Position;

/// How a training ended. Burn's renderer for terminals has the interrupter forget it.
#[derive(Default)]
pub(crate) struct Ending {
    pub interrupted: Option<Interruption>,
    pub error: Option<Arc<TrainingError>>,
    /// Whether the training was left because of a notice.
    pub is_preempted: bool,
    /// Whether it ended before its first batch, because the loaders can't be brought to where they were.
    pub is_refused: bool,
    /// Where it is, if that is beyond its end, and how many epochs it is to have.
    pub beyond: Option<(Position, usize)>,
    /// Where it was saved when it was stopped, or was complete.
    pub saved_at: Option<Position>,
    /// What became of a training that was stopped, in words.
    pub saved: Option<String>,
    /// Whether the mirror was waited for.
    pub is_flushed: bool,
    /// Whether it ran to its end.
    pub is_complete: bool,
}

impl Ending {
    /// Notes what the interrupter says now.
    pub(super) fn note(&mut self, interrupter: &Interrupter, is_preempted: bool) {
        self.interrupted = interrupter.interruption();
        self.error = interrupter.error();
        self.is_preempted = is_preempted;
    }
}
