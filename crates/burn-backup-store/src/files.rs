//! Small files, and unique names.

use std::io;
use std::path::Path;

use crate::error::{NOT_COMMITTED, StoreError};
use crate::fs::Filesystem;

/// Writes and syncs a small new file.
pub(crate) fn write_file(fs: &dyn Filesystem, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = fs.create_file(path)?;
    file.write_all_at(bytes, 0)?;
    file.sync()
}

/// Draws a number from the operating system's generator.
pub(crate) fn draw() -> Result<u64, StoreError> {
    getrandom::u64().map_err(|error| {
        StoreError::io(
            "draw a random number from",
            Path::new("the system"),
            NOT_COMMITTED,
        )(io::Error::other(error))
    })
}
