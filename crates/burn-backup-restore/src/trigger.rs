//! When a backup is due: positions and the policy in, yes or no out.

use crate::position::Position;

/// How often a backup is taken (Keras: `save_freq`).
///
/// Whatever the frequency, a stop through Burn's
/// [`Interrupter`](burn::train::Interrupter) leads to one more backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SaveFreq {
    /// After each epoch's validation.
    #[default]
    Epoch,
    /// Every so many training batches, counted across epochs.
    Steps(usize),
    /// Only when the training is stopped.
    Never,
}

impl From<usize> for SaveFreq {
    fn from(steps: usize) -> Self {
        Self::Steps(steps)
    }
}

/// Decides at each step and at each epoch's end.
#[derive(Debug)]
pub(crate) struct Trigger {
    frequency: SaveFreq,
    /// A backup was due while gradients were accumulated that can't be saved.
    is_overdue: bool,
}

impl Trigger {
    pub(crate) fn new(frequency: SaveFreq) -> Self {
        Self {
            frequency,
            is_overdue: false,
        }
    }

    /// Whether to take a backup after the batch that led to `position`. It can be taken only if
    /// `can_save`, that is if no gradients wait for the optimizer.
    pub(crate) fn after_step(&mut self, position: &Position, can_save: bool) -> bool {
        let is_due = match self.frequency {
            SaveFreq::Steps(steps) => position.global_step.is_multiple_of(steps as u64),
            SaveFreq::Epoch | SaveFreq::Never => false,
        };
        self.decide(is_due, can_save)
    }

    /// Whether to take a backup now that an epoch's validation is done.
    pub(crate) fn after_epoch(&mut self) -> bool {
        self.decide(self.frequency == SaveFreq::Epoch, true)
    }

    /// Whether to take a backup when the training has run to its end.
    pub(crate) fn at_end(&self) -> bool {
        self.frequency != SaveFreq::Never
    }

    fn decide(&mut self, is_due: bool, can_save: bool) -> bool {
        let is_wanted = is_due || self.is_overdue;
        self.is_overdue = is_wanted && !can_save;
        is_wanted && can_save
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The global steps after which a backup is taken, in a training of epochs of 5 batches.
    fn saves(
        frequency: SaveFreq,
        steps: u64,
        optimizer_steps_every: u64,
    ) -> Vec<(u64, &'static str)> {
        let mut trigger = Trigger::new(frequency);
        let mut position = Position::start_of(1);
        let mut taken = Vec::new();
        while position.global_step < steps {
            position = position.after_step();
            let step = position.global_step;
            let epoch_ends = position.step_in_epoch == 5;
            let can_save =
                (position.step_in_epoch as u64).is_multiple_of(optimizer_steps_every) || epoch_ends;
            if trigger.after_step(&position, can_save) {
                taken.push((step, "step"));
            }
            if epoch_ends {
                position = position.after_epoch();
                if trigger.after_epoch() {
                    taken.push((step, "epoch"));
                }
            }
        }
        taken
    }

    #[test]
    fn epoch_saves_after_each_validation_only() {
        assert_eq!(saves(SaveFreq::Epoch, 12, 1), [(5, "epoch"), (10, "epoch")]);
    }

    #[test]
    fn steps_are_counted_across_epochs() {
        assert_eq!(
            saves(SaveFreq::Steps(3), 12, 1),
            [(3, "step"), (6, "step"), (9, "step"), (12, "step")]
        );
        assert_eq!(saves(SaveFreq::from(1), 3, 1).len(), 3);
    }

    #[test]
    fn never_saves_on_its_own() {
        assert_eq!(saves(SaveFreq::Never, 12, 1), []);
        assert!(!Trigger::new(SaveFreq::Never).at_end());
    }

    #[test]
    fn a_due_backup_waits_for_the_optimizer_step() {
        // Windows of 2 batches: the optimizer steps after batches 2, 4 and 5 of each epoch.
        assert_eq!(
            saves(SaveFreq::Steps(3), 12, 2),
            [(4, "step"), (7, "step"), (9, "step"), (12, "step")]
        );
    }
}
