//! Removing what this crate wrote, and nothing else.
//!
//! A directory is first taken out of its place, in one atomic step that is made durable; only then
//! is what is in it removed. Its name out there tells where it was, so that what others had put
//! into it can go back, in this process or the next.

use std::io;
use std::path::Path;

use crate::error::{NOT_REMOVED, StoreError};
use crate::fs::{EntryKind, Filesystem};
use crate::layout::{self, Layout};
use crate::persist;

/// Takes a directory out of its place, and removes what of it is ours. Nothing there is no error.
pub(crate) fn retire(fs: &dyn Filesystem, layout: &Layout, dir: &Path) -> Result<(), StoreError> {
    let failed = |operation, at: &Path| StoreError::io(operation, at, NOT_REMOVED);
    if fs.kind(dir).map_err(failed("look at", dir))? != Some(EntryKind::Dir) {
        return Ok(());
    }
    let away = layout.retired(dir, persist::draw()?);
    fs.rename(dir, &away).map_err(failed("take away", dir))?;
    let parent = dir.parent().unwrap_or(layout.root());
    for changed in [parent, layout.root()] {
        fs.sync_dir(changed).map_err(failed("sync", changed))?;
    }
    finish(fs, layout, &away)
}

/// Removes what is ours of something that is out of its place already. What is left is not ours,
/// and goes back where it was if it can.
pub(crate) fn finish(fs: &dyn Filesystem, layout: &Layout, away: &Path) -> Result<(), StoreError> {
    let failed = |operation, at: &Path| StoreError::io(operation, at, NOT_REMOVED);
    if tree(fs, away).map_err(failed("remove", away))? {
        return Ok(());
    }
    let Some(place) = layout.place_of_retired(away) else {
        return Ok(());
    };
    let is_free = fs
        .kind(&place)
        .map_err(failed("look at", &place))?
        .is_none();
    let parent = place.parent().unwrap_or(layout.root());
    if is_free && fs.kind(parent).map_err(failed("look at", parent))? == Some(EntryKind::Dir) {
        fs.rename(away, &place)
            .map_err(failed("put back", &place))?;
        for changed in [parent, layout.root()] {
            fs.sync_dir(changed).map_err(failed("sync", changed))?;
        }
    }
    Ok(())
}

/// Removes a file or directory that is out of its place, and what we wrote into it. What others put
/// there stays, and the directory with it. No link is followed. Says whether nothing is left.
pub(crate) fn tree(fs: &dyn Filesystem, path: &Path) -> io::Result<bool> {
    match fs.kind(path)? {
        None => Ok(true),
        Some(EntryKind::File) => fs.remove_file(path).map(|()| true),
        Some(EntryKind::Dir) => clear(fs, path, Depth::MayHoldDirs),
        Some(EntryKind::Other) => Ok(false),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// It is all generations, or the quarantine, or one generation.
    MayHoldDirs,
    /// It is one generation.
    HoldsFiles,
}

fn clear(fs: &dyn Filesystem, dir: &Path, depth: Depth) -> io::Result<bool> {
    let mut is_empty = true;
    for entry in fs.list(dir)? {
        let path = dir.join(&entry.name);
        let is_gone = match entry.kind {
            EntryKind::File if layout::is_generation_file(&entry.name) => {
                fs.remove_file(&path).map(|()| true)?
            }
            EntryKind::Dir if depth == Depth::MayHoldDirs && layout::is_our_dir(&entry.name) => {
                clear(fs, &path, Depth::HoldsFiles)?
            }
            _ => false,
        };
        is_empty &= is_gone;
    }
    if is_empty {
        fs.remove_dir(dir)?;
    } else {
        // It may go back to its place: nothing of ours may come back with it.
        fs.sync_dir(dir)?;
    }
    Ok(is_empty)
}
