//! The training at one moment, taken on the training thread in microseconds.

use burn::train::{Learner, LearnerModel};

use crate::state::TrainingState;

/// A training at one moment. Tensors are reference counted: taking it copies none.
pub(crate) struct Snapshot<M: LearnerModel> {
    /// The model, detached: its running states are its own.
    pub model: M,
    /// For the optimizer and the scheduler. Its model shares running states with the living one,
    /// so they are of no certain moment.
    pub learner: Learner<M>,
    pub state: TrainingState,
}

impl<M: LearnerModel> Snapshot<M> {
    pub(crate) fn take(learner: &Learner<M>, state: TrainingState) -> Self {
        Self {
            // Running states (the mean and variance of a batch normalisation) hold their newest
            // update back until the next forward pass. `valid` applies it, here and now, and gives
            // a module with cells of its own.
            model: learner.model().valid(),
            learner: learner.clone(),
            state,
        }
    }
}
