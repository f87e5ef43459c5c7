//! Removes what this crate wrote, and nothing else.
//!
//! A directory is first moved out of its place in one atomic, durable step. Only then are its contents removed. Its new
//! name records where it was. So this process or a later one can move files of others back.

use std::io;
use std::path::Path;

use crate::directory::Directory;
use crate::error::{NOT_REMOVED, StoreError, TAKEN_AWAY};
use crate::files;
use crate::fs::{Entry, EntryKind, Filesystem};
use crate::layout::{self, GenerationId, MANIFEST_FILE};

const LOG: &str = "burn_backup::prune";

/// Moves a directory out of its place, and removes this crate's files in it. A missing directory is no error.
pub(crate) fn retire(dir: &Directory, place: &Path) -> Result<(), StoreError> {
    retire_to(dir, place, finish)
}

/// Like [`retire`], but keeps the files of a generation to write over them, if nothing else is in it.
pub(crate) fn keep_as_spare(dir: &Directory, place: &Path) -> Result<(), StoreError> {
    retire_to(dir, place, keep_or_remove)
}

/// Like [`keep_as_spare`], for a generation or staged generation that an earlier process has left out of its place.
pub(crate) fn keep_leftover(dir: &Directory, away: &Path) -> Result<(), StoreError> {
    let is_generation = match dir.layout.place_of_retired(away) {
        Some(place) => place.parent() == Some(&dir.layout.generations()),
        None => layout::is_staged_generation(away),
    };
    match is_generation {
        true => keep_or_remove(dir, away),
        false => finish(dir, away),
    }
}

/// Keeps a directory that is out of its place as the spare one, if it holds only files that this crate wrote.
fn keep_or_remove(dir: &Directory, away: &Path) -> Result<(), StoreError> {
    let is_ours =
        |entry: &Entry| entry.kind == EntryKind::File && layout::is_generation_file(&entry.name);
    let entries = dir.fs().list(away);
    if !entries.is_ok_and(|entries| entries.iter().all(is_ours)) {
        return finish(dir, away);
    }
    // Once the files are written over, a power cut must not bring them back under their old names. A staged directory
    // had no other name.
    if let Some(place) = dir.layout.place_of_retired(away)
        && let Err(error) = sync_both(dir, &place)
    {
        dir.leave(away);
        return Err(error);
    }
    dir.set_spare(away.to_path_buf());
    Ok(())
}

/// Moves a directory out of its place, and removes it there with `finish`.
fn retire_to(
    dir: &Directory,
    place: &Path,
    finish: impl FnOnce(&Directory, &Path) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let failed = |operation| StoreError::io(operation, place, NOT_REMOVED);
    if dir.fs().kind(place).map_err(failed("inspect"))? != Some(EntryKind::Dir) {
        return Ok(());
    }
    let away = dir.layout.retired(place, files::draw()?);
    match dir.rename(place, &away, failed("take away")) {
        // For example, a directory of a container image (overlayfs), or of another project's quota.
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::CrossesDevices => {
            in_place(dir, place, &source)
        }
        Err(error) => Err(error),
        Ok(()) => finish(dir, &away),
    }
}

/// Moves a file out of its place and removes it. A missing file is no error.
pub(crate) fn file(dir: &Directory, place: &Path) -> Result<(), StoreError> {
    let failed = |operation| StoreError::io(operation, place, TAKEN_AWAY);
    if dir.fs().kind(place).map_err(failed("inspect"))?.is_none() {
        return Ok(());
    }
    let away = dir.layout.retired(place, files::draw()?);
    dir.rename(place, &away, failed("take away"))?;
    finish(dir, &away)
}

/// Removes something that is out of its place. From a retired directory, removes only this crate's files; the rest is
/// moved back if possible. A path that can't be removed is remembered.
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
    // The move must be durable before the contents are removed. The process that moved the directory may not have
    // synced it.
    sync_both(dir, &place)?;
    let depth = match place.parent() {
        Some(parent) if parent == layout.root() => Depth::HoldsDirs,
        _ => Depth::HoldsFiles,
    };
    if fs.kind(away).map_err(failed("inspect", away))? != Some(EntryKind::Dir)
        || clear(fs, away, depth).map_err(failed("remove", away))?
    {
        return Ok(());
    }
    let is_free = fs
        .kind(&place)
        .map_err(failed("inspect", &place))?
        .is_none();
    let parent = place.parent().unwrap_or(layout.root());
    if is_free && fs.kind(parent).map_err(failed("inspect", parent))? == Some(EntryKind::Dir) {
        fs.rename(away, &place)
            .map_err(failed("put back", &place))?;
        sync_both(dir, &place)?;
    }
    Ok(())
}

/// Makes the names at `place` and at the root durable.
fn sync_both(dir: &Directory, place: &Path) -> Result<(), StoreError> {
    let (fs, layout) = (dir.fs(), &dir.layout);
    let parent = place.parent().unwrap_or(layout.root());
    for changed in [parent, layout.root()] {
        let failed = |operation| StoreError::io(operation, changed, TAKEN_AWAY);
        if fs.kind(changed).map_err(failed("inspect"))? == Some(EntryKind::Dir) {
            fs.sync_dir(changed).map_err(failed("sync"))?;
        }
    }
    Ok(())
}

/// Removes a directory in place, because it can't be renamed. Starts with the oldest generation, and removes each
/// manifest first. So an interruption leaves each generation whole, or without a manifest.
fn in_place(dir: &Directory, place: &Path, cause: &io::Error) -> Result<(), StoreError> {
    let failed = |operation, at: &Path| StoreError::io(operation, at, NOT_REMOVED);
    if dir.is_first_in_place() {
        log::warn!(
            target: LOG,
            "the file system can't rename '{}' ({cause}), as is the case for directories of a container \
             image; old data is removed in place", place.display(),
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
        if fs.kind(&manifest).map_err(failed("inspect", &manifest))? == Some(EntryKind::File) {
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

/// Removes a staged file or directory and this crate's files in it. Files of others stay, and then the directory stays
/// too. No link is followed. Returns whether nothing is left.
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
    /// The directory `generations`, `quarantine` or `aside`.
    HoldsDirs,
    /// The directory of one generation.
    HoldsFiles,
}

/// Removes this crate's files, and continues after a file that can't be removed. Returns whether nothing is left.
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
        // The directory may be moved back to its place. The removed files must not come back with it.
        fs.sync_dir(dir)?;
    }
    Ok(is_empty)
}
