//! The window in which gradients are accumulated.

use crate::save::TrainingSnapshot;

/// Holds the snapshot of the last optimizer step. Accumulated gradients can't be saved, so a stop in the middle of an
/// accumulation goes back to this snapshot.
#[derive(Default)]
pub(super) struct Window {
    accumulates: bool,
    at_optimizer_step: Option<TrainingSnapshot>,
    /// Whether the current state can't be saved.
    is_mid_step: bool,
}

impl Window {
    pub(super) fn new(accumulates: bool) -> Self {
        Self {
            accumulates,
            at_optimizer_step: None,
            is_mid_step: false,
        }
    }

    /// Whether the training accumulates gradients, so that a snapshot must be held at each optimizer step.
    pub(super) fn accumulates(&self) -> bool {
        self.accumulates
    }

    /// Records that the training accumulates gradients.
    pub(super) fn accumulates_from_here(&mut self) {
        self.accumulates = true;
    }

    /// Holds the snapshot after an optimizer step, or before any gradients are accumulated.
    pub(super) fn hold(&mut self, snapshot: TrainingSnapshot) {
        self.at_optimizer_step = Some(snapshot);
    }

    /// Sets whether the training is inside a step, where its state can't be saved.
    pub(super) fn set_mid_step(&mut self, is_mid_step: bool) {
        self.is_mid_step = is_mid_step;
    }

    pub(super) fn is_mid_step(&self) -> bool {
        self.is_mid_step
    }

    /// Whether the current state can't be saved and no snapshot is held.
    pub(super) fn has_nothing_to_save(&self) -> bool {
        self.is_mid_step && self.at_optimizer_step.is_none()
    }

    /// Drops the snapshot, which would keep the tensors that the optimizer is about to replace in memory.
    pub(super) fn release(&mut self) {
        self.at_optimizer_step = None;
    }

    /// A copy of the snapshot of the last optimizer step.
    pub(super) fn again(&self) -> Option<TrainingSnapshot> {
        self.at_optimizer_step
            .as_ref()
            .and_then(TrainingSnapshot::again)
    }

    /// The snapshot of the last optimizer step.
    pub(super) fn take(&mut self) -> Option<TrainingSnapshot> {
        self.at_optimizer_step.take()
    }
}
