/// What a failed backup does to the training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnBackupError {
    /// The training continues. The failure is logged and counted, and the [`BackupHandle`](crate::BackupHandle) shows
    /// it. The last good backup stays, and the next due backup is tried.
    #[default]
    Continue,
    /// The training stops, with the failure as its error.
    Stop,
}
