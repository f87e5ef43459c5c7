//! Clearing what an interrupted save or deletion left behind.

use crate::error::{NOT_REMOVED, StoreError};
use crate::fs::Filesystem;
use crate::layout::{self, Layout};
use crate::remove;

const LOG: &str = "burn_backup::discover";

/// Removes the staging directories of earlier processes, and finishes what they were removing.
pub(crate) fn staging(fs: &dyn Filesystem, layout: &Layout) -> Result<(), StoreError> {
    let root = layout.root();
    let entries = fs
        .list(root)
        .map_err(StoreError::io("list", root, NOT_REMOVED))?;
    for entry in entries {
        if !layout::is_staging_name(&entry.name) {
            continue;
        }
        let path = root.join(&entry.name);
        log::debug!(target: LOG, "sweeping '{}'", path.display());
        remove::finish(fs, layout, &path)?;
    }
    Ok(())
}
