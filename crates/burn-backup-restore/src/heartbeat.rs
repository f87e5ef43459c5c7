//! The heartbeat of a training.

use std::fs::File;
use std::io;

use serde::Serialize;

use crate::position::Position;

/// The fixed length of a beat, so that a reader never sees a partial one.
const BYTES: usize = 1024;

/// A line of JSON, padded with spaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Beat {
    /// The process ID.
    pub process: u32,
    /// The number of batches of training and validation that the process has reached. A restore counts too.
    pub count: u64,
    /// The training's position.
    pub position: Option<Position>,
    /// The position at which this process resumed the training.
    pub restored: Option<Position>,
    /// The newest backup of this process.
    pub committed: Option<Position>,
    /// How many backups this process has committed.
    pub commits: u64,
}

impl Beat {
    /// Writes the beat at the beginning of the file, in one call.
    pub(crate) fn write(&self, file: &File) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.resize(BYTES - 1, b' ');
        line.push(b'\n');
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::write_all_at(file, &line, 0);
        #[cfg(windows)]
        return std::os::windows::fs::FileExt::seek_write(file, &line, 0).map(drop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_is_one_line_of_the_same_length() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let far = Position {
            epoch: usize::MAX,
            step_in_epoch: usize::MAX,
            global_step: u64::MAX,
        };
        let beat = |position| Beat {
            process: u32::MAX,
            count: u64::MAX,
            position,
            restored: position,
            committed: position,
            commits: u64::MAX,
        };
        for position in [Some(far), None] {
            beat(position).write(file.as_file()).unwrap();
            let line = std::fs::read_to_string(file.path()).unwrap();
            assert_eq!((line.len(), line.lines().count()), (BYTES, 1));
            let read: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(read["count"], u64::MAX);
            assert_eq!(read["position"].is_null(), position.is_none());
        }
    }
}
