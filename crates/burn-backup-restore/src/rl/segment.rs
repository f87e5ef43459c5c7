//! Consecutive rows of the replay buffer. A backup writes a segment if it has changed, and links it
//! otherwise.

use std::sync::Arc;

/// The approximate size of a segment in bytes.
const TARGET_BYTES: usize = 256 * 1024;

/// The number of transitions of this size in a segment.
pub(super) fn rows_per_segment(row_bytes: usize) -> usize {
    (TARGET_BYTES / row_bytes.max(1)).max(1)
}

/// The name of the segment at `index` in its part of the backup.
pub(super) fn name(index: usize) -> String {
    format!("{index:05}")
}

/// Consecutive rows. A clone shares them until one of the two is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Segment(Arc<Vec<u8>>);

impl From<Arc<Vec<u8>>> for Segment {
    fn from(rows: Arc<Vec<u8>>) -> Self {
        Self(rows)
    }
}

impl Segment {
    pub(super) fn rows(&self) -> &Arc<Vec<u8>> {
        &self.0
    }

    /// Writes the row at `index`, which must exist or be the next one.
    pub(super) fn write(&mut self, index: usize, row: &[u8]) {
        // Copies the rows if a snapshot shares them.
        let rows = Arc::make_mut(&mut self.0);
        let start = index * row.len();
        match rows.get_mut(start..start + row.len()) {
            Some(old) => old.copy_from_slice(row),
            None => rows.extend_from_slice(row),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_has_about_a_quarter_of_a_mebibyte_and_one_row_at_least() {
        let table = [
            (0, TARGET_BYTES),
            (1, TARGET_BYTES),
            (40, 6553),
            (TARGET_BYTES, 1),
            (usize::MAX, 1),
        ];
        for (row_bytes, rows) in table {
            assert_eq!(rows_per_segment(row_bytes), rows, "{row_bytes}");
        }
    }

    #[test]
    fn a_shared_segment_stays_unchanged() {
        let mut segment = Segment::default();
        segment.write(0, &[1, 2]);
        segment.write(1, &[3, 4]);
        let shared = segment.rows().clone();
        segment.write(0, &[5, 6]);
        assert_eq!(*shared, [1, 2, 3, 4]);
        assert_eq!(**segment.rows(), [5, 6, 3, 4]);
    }
}
