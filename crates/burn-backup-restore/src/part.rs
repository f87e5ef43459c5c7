//! The parts of a backup.

use burn::store::RecordError;

use crate::error::BackupError;

/// The names of a backup's parts; also what messages call the records.
pub(crate) const MODEL: &str = "model";
/// Those of the model's tensors that training leaves alone, if that is worth a part.
pub(crate) const FROZEN: &str = "frozen";
pub(crate) const OPTIMIZER: &str = "optimizer";
pub(crate) const SCHEDULER: &str = "scheduler";

/// The error of a part that can't be encoded.
pub(crate) fn failed(part: &'static str) -> impl Fn(RecordError) -> BackupError {
    move |source| BackupError::Record {
        operation: "encode",
        part,
        source,
    }
}
