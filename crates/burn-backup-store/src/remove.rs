//! Removing what this crate wrote, and nothing else.

use std::io;
use std::path::Path;

use crate::error::{NOT_REMOVED, StoreError};
use crate::fs::{EntryKind, Filesystem};
use crate::layout::{self, GENERATIONS_DIR, GenerationId, Layout};
use crate::persist;

/// Removes a directory of ours and what we wrote into it. What others put there stays, and the
/// directory with it. No link is followed. Nothing there is no error.
pub(crate) fn tree(fs: &dyn Filesystem, dir: &Path) -> io::Result<()> {
    match fs.kind(dir)? {
        None => return Ok(()),
        Some(EntryKind::File) => return fs.remove_file(dir),
        Some(EntryKind::Other) => return Ok(()),
        Some(EntryKind::Dir) => {}
    }
    let mut is_empty = true;
    for entry in fs.list(dir)? {
        let path = dir.join(&entry.name);
        match entry.kind {
            EntryKind::File if layout::is_generation_file(&entry.name) => fs.remove_file(&path)?,
            EntryKind::Dir if is_our_dir(&entry.name) => {
                tree(fs, &path)?;
                is_empty &= fs.kind(&path)?.is_none();
            }
            _ => is_empty = false,
        }
    }
    if is_empty {
        fs.remove_dir(dir)?;
    }
    Ok(())
}

/// Takes a directory out of its place in one atomic step, then removes what of it is ours. What
/// others put there goes back to its place.
pub(crate) fn retire(fs: &dyn Filesystem, layout: &Layout, dir: &Path) -> Result<(), StoreError> {
    let failed = |operation, at: &Path| StoreError::io(operation, at, NOT_REMOVED);
    if fs.kind(dir).map_err(failed("look at", dir))? != Some(EntryKind::Dir) {
        return Ok(());
    }
    let away = layout.staging("removed", persist::draw()?);
    fs.rename(dir, &away).map_err(failed("take away", dir))?;
    let parent = dir.parent().unwrap_or(layout.root());
    for changed in [parent, layout.root()] {
        fs.sync_dir(changed).map_err(failed("sync", changed))?;
    }
    tree(fs, &away).map_err(failed("remove", &away))?;
    if fs.kind(&away).map_err(failed("look at", &away))?.is_some() {
        fs.rename(&away, dir).map_err(failed("put back", dir))?;
    }
    Ok(())
}

fn is_our_dir(name: &str) -> bool {
    GenerationId::from_quarantine_name(name).is_some()
        || name == GENERATIONS_DIR
        || name.starts_with(layout::IDENTITY_FILE)
}
