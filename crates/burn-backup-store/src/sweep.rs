//! Removes the remains of interrupted saves and deletions.

use std::path::Path;

use crate::directory::Directory;
use crate::error::{NOT_REMOVED, StoreError};
use crate::fs::EntryKind;
use crate::layout;
use crate::remove;

const LOG: &str = "burn_backup::discover";

/// Removes the staging directories of earlier processes, and finishes their deletions. Continues after a failure, and
/// returns the errors.
pub(crate) fn staging(dir: &Directory) -> Vec<StoreError> {
    sweep(dir, |path, _| remove::finish(dir, path))
}

/// Like [`staging`], but keeps files that the first backup can write over.
pub(crate) fn staging_for_reuse(dir: &Directory) -> Vec<StoreError> {
    sweep(dir, |path, kind| {
        let is_needed = dir.fs().reuses_files() && !dir.has_spare();
        match is_needed && kind == EntryKind::Dir {
            true => remove::keep_leftover(dir, path),
            false => remove::finish(dir, path),
        }
    })
}

fn sweep(
    dir: &Directory,
    sweep: impl Fn(&Path, EntryKind) -> Result<(), StoreError>,
) -> Vec<StoreError> {
    let root = dir.layout.root();
    let entries = match dir.fs().list(root) {
        Ok(entries) => entries,
        Err(error) => return vec![StoreError::io("list", root, NOT_REMOVED)(error)],
    };
    let left = entries
        .iter()
        .filter(|entry| layout::is_staging_name(&entry.name));
    left.filter_map(|entry| {
        let path = root.join(&entry.name);
        log::debug!(target: LOG, "sweeping '{}'", path.display());
        sweep(&path, entry.kind).err()
    })
    .collect()
}

/// Tries once more to remove what this process could not remove before. The first failure was already reported.
pub(crate) fn leftovers(dir: &Directory) {
    for path in dir.take_leftovers() {
        if let Err(error) = remove::finish(dir, &path) {
            log::debug!(target: LOG, "still not removed: {}", error.with_cause());
        }
    }
}
