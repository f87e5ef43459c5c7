//! Removing what this crate wrote, and nothing else.
//!
//! A directory is first taken out of its place, in one atomic step that is made durable; only then
//! is what is in it removed. Its name out there tells where it was, so that what others had put
//! into it can go back, in this process or the next.

use std::io;
use std::path::Path;

use crate::directory::Directory;
use crate::error::{NOT_REMOVED, StoreError, TAKEN_AWAY};
use crate::files;
use crate::fs::{Entry, EntryKind, Filesystem};
use crate::layout::{self, GenerationId, MANIFEST_FILE};

const LOG: &str = "burn_backup::prune";

/// Takes a directory out of its place, and removes what of it is ours. Nothing there is no error.
pub(crate) fn retire(dir: &Directory, place: &Path) -> Result<(), StoreError> {
    retire_to(dir, place, finish)
}

/// The same with a generation whose files are to be written over, if there is nothing else in it.
pub(crate) fn keep_as_spare(dir: &Directory, place: &Path) -> Result<(), StoreError> {
    retire_to(dir, place, spare_or_finish)
}

/// The same with what an earlier process has left out of its place, if it is a generation, or was to be one.
pub(crate) fn keep_leftover(dir: &Directory, away: &Path) -> Result<(), StoreError> {
    let is_generation = match dir.layout.place_of_retired(away) {
        Some(place) => place.parent() == Some(&dir.layout.generations()),
        None => layout::is_staged_generation(away),
    };
    match is_generation {
        true => spare_or_finish(dir, away),
        false => finish(dir, away),
    }
}

/// Keeps what is out of its place, if there is nothing in it except what this crate wrote.
fn spare_or_finish(dir: &Directory, away: &Path) -> Result<(), StoreError> {
    let is_ours =
        |entry: &Entry| entry.kind == EntryKind::File && layout::is_generation_file(&entry.name);
    let entries = dir.fs().list(away);
    if !entries.is_ok_and(|entries| entries.iter().all(is_ours)) {
        return finish(dir, away);
    }
    // Its files must not come back under their old names once they are written over. What is only staged
    // had no other.
    if let Some(place) = dir.layout.place_of_retired(away)
        && let Err(error) = sync_both(dir, &place)
    {
        dir.leave(away);
        return Err(error);
    }
    dir.set_spare(away.to_path_buf());
    Ok(())
}

/// Takes a directory out of its place, and leaves it to `finish` there.
fn retire_to(
    dir: &Directory,
    place: &Path,
    finish: impl FnOnce(&Directory, &Path) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let failed = |operation| StoreError::io(operation, place, NOT_REMOVED);
    if dir.fs().kind(place).map_err(failed("look at"))? != Some(EntryKind::Dir) {
        return Ok(());
    }
    let away = dir.layout.retired(place, files::draw()?);
    match dir.rename(place, &away, failed("take away")) {
        // A directory of an image (overlayfs), or of another project's quota.
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::CrossesDevices => {
            in_place(dir, place, &source)
        }
        Err(error) => Err(error),
        Ok(()) => finish(dir, &away),
    }
}

/// Takes a file out of its place and removes it. Nothing there is no error.
pub(crate) fn file(dir: &Directory, place: &Path) -> Result<(), StoreError> {
    let failed = |operation| StoreError::io(operation, place, TAKEN_AWAY);
    if dir.fs().kind(place).map_err(failed("look at"))?.is_none() {
        return Ok(());
    }
    let away = dir.layout.retired(place, files::draw()?);
    dir.rename(place, &away, failed("take away"))?;
    finish(dir, &away)
}

/// Removes what is out of its place. Of what was taken away from where it was, only what is ours; the
/// rest goes back if it can. What can't be removed is remembered.
pub(crate) fn finish(dir: &Directory, away: &Path) -> Result<(), StoreError> {
    let finished = finish_unremembered(dir, away);
    if finished.is_err() {
        dir.leave(away);
    }
    finished
}

fn finish_unremembered(dir: &Directory, away: &Path) -> Result<(), StoreError> {
    let (fs, layout) = (dir.fs(), &dir.layout);
    let failed = |operation, at: &Path| StoreError::io(operation, at, TAKEN_AWAY);
    let Some(place) = layout.place_of_retired(away) else {
        return staged(fs, away).map(drop).map_err(failed("remove", away));
    };
    // That it is gone from there must be durable before it is gone at all, and whoever took it
    // away may not have come to that.
    sync_both(dir, &place)?;
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
        sync_both(dir, &place)?;
    }
    Ok(())
}

/// Makes it durable what is at `place`, and what at the root.
fn sync_both(dir: &Directory, place: &Path) -> Result<(), StoreError> {
    let (fs, layout) = (dir.fs(), &dir.layout);
    let parent = place.parent().unwrap_or(layout.root());
    for changed in [parent, layout.root()] {
        let failed = |operation| StoreError::io(operation, changed, TAKEN_AWAY);
        if fs.kind(changed).map_err(failed("look at"))? == Some(EntryKind::Dir) {
            fs.sync_dir(changed).map_err(failed("sync"))?;
        }
    }
    Ok(())
}

/// Removes a directory where it is, for want of a rename: the oldest generation first, and of each
/// its manifest first. So what an interruption leaves is whole, or has no manifest.
fn in_place(dir: &Directory, place: &Path, cause: &io::Error) -> Result<(), StoreError> {
    let failed = |operation, at: &Path| StoreError::io(operation, at, NOT_REMOVED);
    if dir.is_first_in_place() {
        log::warn!(
            target: LOG,
            "the file system doesn't let '{}' be renamed ({cause}), as is the case with what came with \
             a container's image; what is no longer needed is removed where it is", place.display(),
        );
    }
    let fs = dir.fs();
    let mut entries = fs.list(place).map_err(failed("list", place))?;
    entries.retain(|entry| entry.kind == EntryKind::Dir && layout::is_our_dir(&entry.name));
    entries.sort_by_key(|entry| (GenerationId::from_dir_name(&entry.name), entry.name.clone()));
    let holds_dirs = place.parent() == Some(dir.layout.root());
    let generations = match holds_dirs {
        true => entries
            .iter()
            .map(|entry| place.join(&entry.name))
            .collect(),
        false => vec![place.to_path_buf()],
    };
    for generation in generations {
        dir.check()?;
        let manifest = generation.join(MANIFEST_FILE);
        if fs.kind(&manifest).map_err(failed("look at", &manifest))? == Some(EntryKind::File) {
            fs.remove_file(&manifest)
                .map_err(failed("remove", &manifest))?;
        }
        fs.sync_dir(&generation)
            .map_err(failed("sync", &generation))?;
        dir.check()?;
        clear(fs, &generation, Depth::HoldsFiles).map_err(failed("remove", &generation))?;
    }
    if holds_dirs && fs.list(place).map_err(failed("list", place))?.is_empty() {
        fs.remove_dir(place).map_err(failed("remove", place))?;
    }
    sync_both(dir, place)
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

/// Removes what is ours, also past something that can't be removed. Says whether nothing is left.
fn clear(fs: &dyn Filesystem, dir: &Path, depth: Depth) -> io::Result<bool> {
    let mut is_empty = true;
    let mut failure = None;
    for entry in fs.list(dir)? {
        let path = dir.join(&entry.name);
        let gone = match entry.kind {
            EntryKind::File if layout::is_generation_file(&entry.name) => {
                fs.remove_file(&path).map(|()| true)
            }
            EntryKind::Dir if depth == Depth::HoldsDirs && layout::is_our_dir(&entry.name) => {
                clear(fs, &path, Depth::HoldsFiles)
            }
            _ => Ok(false),
        };
        match gone {
            Ok(is_gone) => is_empty &= is_gone,
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    if let Some(error) = failure {
        return Err(error);
    }
    if is_empty {
        fs.remove_dir(dir)?;
    } else {
        // It may go back to its place: nothing of ours may come back with it.
        fs.sync_dir(dir)?;
    }
    Ok(is_empty)
}
