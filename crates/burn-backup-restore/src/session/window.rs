//! The window in which gradients are accumulated.

use crate::save::TrainingSnapshot;

/// Gradients that are being accumulated can't be saved. A stop in the middle of it goes back to the last
/// optimizer step; this is the training at that moment.
#[derive(Default)]
pub(super) struct Window {
    accumulates: bool,
    at_optimizer_step: Option<TrainingSnapshot>,
}

impl Window {
    pub(super) fn new(accumulates: bool) -> Self {
        Self {
            accumulates,
            at_optimizer_step: None,
        }
    }

    /// Whether the training accumulates gradients: then each optimizer step is to be held.
    pub(super) fn accumulates(&self) -> bool {
        self.accumulates
    }

    /// It turns out that it does.
    pub(super) fn accumulates_from_here(&mut self) {
        self.accumulates = true;
    }

    /// The optimizer has stepped, or nothing is accumulated yet, and this is the training.
    pub(super) fn hold(&mut self, snapshot: TrainingSnapshot) {
        self.at_optimizer_step = Some(snapshot);
    }

    /// Nothing may keep the tensors alive that the optimizer is about to replace.
    pub(super) fn release(&mut self) {
        self.at_optimizer_step = None;
    }

    /// The training at the last optimizer step, once more.
    pub(super) fn again(&self) -> Option<TrainingSnapshot> {
        self.at_optimizer_step
            .as_ref()
            .and_then(TrainingSnapshot::again)
    }

    /// The training at the last optimizer step.
    pub(super) fn take(&mut self) -> Option<TrainingSnapshot> {
        self.at_optimizer_step.take()
    }
}
