//! The names of a backup's parts: files of a generation.

use burn::store::RecordError;

use crate::error::BackupError;

/// The records that a state consists of; also what messages call them.
pub(crate) const MODEL: &str = "model";
/// Those of the model's tensors that training leaves alone, if that is worth a part.
pub(crate) const FROZEN: &str = "frozen";
pub(crate) const OPTIMIZER: &str = "optimizer";
pub(crate) const SCHEDULER: &str = "scheduler";
/// A value of the program's own.
pub(crate) const VALUE: &str = "value";

/// The part that holds this record of the state with this name. The name of a training's only state is
/// empty.
pub(crate) fn name(state: &str, record: &str) -> String {
    match state {
        "" => record.to_owned(),
        state => format!("{state}-{record}"),
    }
}

/// Whether a state may have this name: it becomes a part of file names.
pub(crate) fn is_state_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    !name.is_empty() && name.bytes().all(is_allowed)
}

/// The error of a part that can't be encoded.
pub(crate) fn failed(part: &str) -> impl Fn(RecordError) -> BackupError + use<> {
    let part = part.to_owned();
    move |source| BackupError::Record {
        operation: "encode",
        part: part.clone(),
        source,
    }
}

/// The error of a part that can't be decoded.
pub(crate) fn unreadable(part: &str) -> impl Fn(RecordError) -> BackupError + use<> {
    let part = part.to_owned();
    move |source| BackupError::Record {
        operation: "decode",
        part: part.clone(),
        source,
    }
}
