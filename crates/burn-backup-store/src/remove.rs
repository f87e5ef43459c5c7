//! Removing what this crate wrote, and nothing else.
//!
//! A directory is first taken out of its place, in one atomic step that is made durable; only then
//! is what is in it removed. Its name out there tells where it was, so that what others had put
//! into it can go back, in this process or the next.

use std::io;
use std::path::Path;

use crate::error::{NOT_REMOVED, StoreError, TAKEN_AWAY};
use crate::fs::{EntryKind, Filesystem};
use crate::layout::{self, Layout};
use crate::persist;

/// Takes a directory out of its place, and removes what of it is ours. Nothing there is no error.
pub(crate) fn retire(fs: &dyn Filesystem, layout: &Layout, place: &Path) -> Result<(), StoreError> {
    let failed = |operation, at: &Path| StoreError::io(operation, at, NOT_REMOVED);
    if fs.kind(place).map_err(failed("look at", place))? != Some(EntryKind::Dir) {
        return Ok(());
    }
    let away = layout.retired(place, persist::draw()?);
    fs.rename(place, &away)
        .map_err(failed("take away", place))?;
    finish(fs, layout, &away)
}

/// Removes what is out of its place. Of what was taken away from where it was, only what is ours; the
/// rest goes back if it can.
pub(crate) fn finish(fs: &dyn Filesystem, layout: &Layout, away: &Path) -> Result<(), StoreError> {
    let failed = |operation, at: &Path| StoreError::io(operation, at, TAKEN_AWAY);
    let Some(place) = layout.place_of_retired(away) else {
        return staged(fs, away).map(drop).map_err(failed("remove", away));
    };
    // That it is gone from there must be durable before it is gone at all, and whoever took it
    // away may not have come to that.
    sync_both(fs, layout, &place)?;
    let depth = match place.parent() {
        Some(parent) if parent == layout.root() => Depth::HoldsDirs,
        _ => Depth::HoldsFiles,
    };
    if fs.kind(away).map_err(failed("look at", away))? != Some(EntryKind::Dir)
        || clear(fs, away, depth).map_err(failed("remove", away))?
    {
        return Ok(());
    }
    let is_free = fs
        .kind(&place)
        .map_err(failed("look at", &place))?
        .is_none();
    let parent = place.parent().unwrap_or(layout.root());
    if is_free && fs.kind(parent).map_err(failed("look at", parent))? == Some(EntryKind::Dir) {
        fs.rename(away, &place)
            .map_err(failed("put back", &place))?;
        sync_both(fs, layout, &place)?;
    }
    Ok(())
}

/// Makes it durable what is at `place`, and what at the root.
fn sync_both(fs: &dyn Filesystem, layout: &Layout, place: &Path) -> Result<(), StoreError> {
    let parent = place.parent().unwrap_or(layout.root());
    for changed in [parent, layout.root()] {
        let failed = |operation| StoreError::io(operation, changed, TAKEN_AWAY);
        if fs.kind(changed).map_err(failed("look at"))? == Some(EntryKind::Dir) {
            fs.sync_dir(changed).map_err(failed("sync"))?;
        }
    }
    Ok(())
}

/// Removes a staged file or directory and what we wrote into it. What others put there stays, and
/// the directory with it. No link is followed. Says whether nothing is left.
pub(crate) fn staged(fs: &dyn Filesystem, path: &Path) -> io::Result<bool> {
    match fs.kind(path)? {
        None => Ok(true),
        Some(EntryKind::File) => fs.remove_file(path).map(|()| true),
        Some(EntryKind::Dir) => clear(fs, path, Depth::HoldsFiles),
        Some(EntryKind::Other) => Ok(false),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// It is all generations, or the quarantine.
    HoldsDirs,
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
            EntryKind::Dir if depth == Depth::HoldsDirs && layout::is_our_dir(&entry.name) => {
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
