use serde::Serialize;

use crate::position::Position;

/// How a training with backups ended.
///
/// [`BackupHandle::outcome`](crate::BackupHandle::outcome) returns it after `launch` or
/// [`Session::finish`](crate::Session::finish) has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// The training ran to its end: all epochs are trained, or early stopping ended it. A training that
    /// was already complete when it was restored has this outcome too. So has one whose model contains NaN at
    /// the end: its exit code is [`FIX_FIRST`](crate::exit_code::FIX_FIRST), and its last good backup stays.
    Finished,
    /// The training was stopped before its end, by a notice or through Burn's
    /// [`Interrupter`](burn::train::Interrupter).
    #[non_exhaustive]
    Stopped {
        /// The position at which the training was saved. `None` if that failed: an older backup, if any, stays.
        saved: Option<Position>,
    },
    /// The restored training is already past the program's `num_epochs`, which was larger when the backup was made. No
    /// batch was trained. The model is the restored one, and the backup stays.
    #[non_exhaustive]
    PastLastEpoch {
        /// The restored position.
        at: Position,
        /// The program's `num_epochs`.
        num_epochs: usize,
    },
    /// The training was refused before its first batch. The error is in Burn's result, or was returned by `resume`. The
    /// backup was not changed.
    Refused,
    /// The training ended with an error, which is in Burn's result. The last good backup stays.
    Failed,
}
