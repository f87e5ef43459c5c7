//! The window in which gradients are accumulated.

use crate::save::TrainingSnapshot;

/// Gradients that are being accumulated can't be saved. A stop in the middle of it goes back to the last
/// optimizer step; this is the training at that moment.
#[derive(Default)]
pub(super) struct Window {
    accumulates: bool,
    at_optimizer_step: Option<TrainingSnapshot>,
    /// Whether the training is at no moment that could be saved.
    is_between: bool,
}

impl Window {
    pub(super) fn new(accumulates: bool) -> Self {
        Self {
            accumulates,
            at_optimizer_step: None,
            is_between: false,
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

    /// Whether the training is `between` two moments that could be saved.
    pub(super) fn set_between(&mut self, between: bool) {
        self.is_between = between;
    }

    pub(super) fn is_between(&self) -> bool {
        self.is_between
    }

    /// Whether the training is at no moment that could be saved, and none before it is held.
    pub(super) fn has_nothing_to_save(&self) -> bool {
        self.is_between && self.at_optimizer_step.is_none()
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
