/// What a failed backup does to the training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnBackupError {
    /// The training goes on: the failure is logged, counted and shown by the [`BackupHandle`](crate::BackupHandle), the
    /// last good backup stays, and the next due backup is tried.
    #[default]
    Continue,
    /// The training stops, with the failure as its error.
    Stop,
}
