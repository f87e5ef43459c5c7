//! The names of a backup's parts. Each part is a file of a generation.

use burn::store::RecordError;

use crate::error::BackupError;

/// The records of a state. Messages use these names too.
pub(crate) const MODEL: &str = "model";
/// The model's tensors that training does not change, if they are large enough for their own part.
pub(crate) const FROZEN: &str = "frozen";
pub(crate) const OPTIMIZER: &str = "optimizer";
pub(crate) const SCHEDULER: &str = "scheduler";
/// A value of the program's own.
pub(crate) const VALUE: &str = "value";

/// The name of the part that holds this record of the state called `state`. If a training has only one state, that
/// state's name is empty.
pub(crate) fn name(state: &str, record: &str) -> String {
    match state {
        "" => record.to_owned(),
        state => format!("{state}-{record}"),
    }
}

/// Whether a state may have this name, which becomes part of file names.
pub(crate) fn is_state_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    !name.is_empty() && name.bytes().all(is_allowed)
}

/// The error for a part that can't be encoded.
pub(crate) fn failed(part: &str) -> impl Fn(RecordError) -> BackupError + use<> {
    let part = part.to_owned();
    move |source| BackupError::Record {
        operation: "encode",
        part: part.clone(),
        source,
    }
}

/// The error for a part that can't be decoded.
pub(crate) fn unreadable(part: &str) -> impl Fn(RecordError) -> BackupError + use<> {
    let part = part.to_owned();
    move |source| BackupError::Record {
        operation: "decode",
        part: part.clone(),
        source,
    }
}
