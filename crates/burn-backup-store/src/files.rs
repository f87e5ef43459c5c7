//! Small files, and the names that nobody else has.

use std::io::{self, Write as _};
use std::path::Path;

use crate::error::{NOT_COMMITTED, StoreError};
use crate::fs::{Filesystem, WriteFile};

/// Writes and syncs a small file that does not exist yet.
pub(crate) fn write_file(fs: &dyn Filesystem, path: &Path, bytes: &[u8]) -> io::Result<()> {
    create_and_write(fs, path, bytes)?.sync()
}

/// Writes a small file that does not exist yet and is still to be synced.
pub(crate) fn create_and_write(
    fs: &dyn Filesystem,
    path: &Path,
    bytes: &[u8],
) -> io::Result<Box<dyn WriteFile>> {
    let mut file = fs.create_file(path)?;
    file.write_all(bytes)?;
    Ok(file)
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
