//! Paths given by users.

use std::path::{Path, PathBuf};

use crate::error::{StoreError, UNCHANGED};
use crate::fs::Filesystem;

/// The absolute path, without a slash or a dot at its end.
pub(crate) fn absolute(dir: &Path, fs: &dyn Filesystem) -> Result<PathBuf, StoreError> {
    if dir.as_os_str().is_empty() {
        return Err(StoreError::EmptyPath);
    }
    let absolute = fs
        .absolute(dir)
        .map_err(StoreError::io("make absolute", dir, UNCHANGED))?;
    Ok(absolute.components().collect())
}
