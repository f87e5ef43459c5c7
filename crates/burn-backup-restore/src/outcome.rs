use serde::Serialize;

use crate::position::Position;

/// How a training ended that was launched with backups.
///
/// [`BackupHandle::outcome`](crate::BackupHandle::outcome) has it once `launch` has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// It ran to its end: all epochs are trained, or early stopping ended it. So did a training that
    /// was complete when it was restored.
    Finished,
    /// It was stopped before its end, by a notice or through Burn's
    /// [`Interrupter`](burn::train::Interrupter).
    #[non_exhaustive]
    Stopped {
        /// Where it was saved. `None` if that failed: an older backup, if any, is what stays.
        saved: Option<Position>,
    },
    /// What was restored is of a later epoch than the training is to have: `num_epochs` was larger when
    /// the backup was made. Nothing was trained. The model is the restored one, and the backup stays.
    #[non_exhaustive]
    Beyond {
        /// Where the training is.
        at: Position,
        /// How many epochs the training is to have.
        num_epochs: usize,
    },
    /// It was refused before its first batch. The error is in Burn's result; the backup was not touched.
    Refused,
    /// It ended with an error, which is in Burn's result. The last good backup stays.
    Failed,
}
