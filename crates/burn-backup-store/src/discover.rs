//! Finding the generations of a backup directory.

use std::path::{Path, PathBuf};

use crate::error::{StoreError, UNCHANGED};
use crate::fs::{Entry, EntryKind, Filesystem};
use crate::identity::Identity;
use crate::layout::{self, GenerationId, Layout, Quarantined};
use crate::verify;

/// The generations that are in place, newest first. A directory that holds none of this crate's files is not this
/// crate's, whatever its name is.
pub(crate) fn generations(
    fs: &dyn Filesystem,
    layout: &Layout,
) -> Result<Vec<GenerationId>, StoreError> {
    let dir = layout.generations();
    if kind(fs, &dir)? != Some(EntryKind::Dir) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in list(fs, &dir)? {
        let Some(id) = GenerationId::from_dir_name(&entry.name) else {
            continue;
        };
        // A directory that can't be read is included. Its reader reports the error, and newer generations stay
        // available.
        if entry.kind == EntryKind::Dir && holds_ours(fs, &layout.generation(id)).unwrap_or(true) {
            found.push(id);
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

/// The greatest number among the names in the directory, whoever created them, because the next generation's place must
/// be free. A number that counting can't have reached counts only if a manifest of this training has it.
pub(crate) fn greatest_number(
    fs: &dyn Filesystem,
    layout: &Layout,
    identity: &Identity,
) -> Result<GenerationId, StoreError> {
    let in_place = list(fs, &layout.generations())?;
    let out_of_the_way = dirs_in(fs, &layout.quarantine())?
        .into_iter()
        .chain(dirs_in(fs, &layout.aside())?);
    let says_so = |id| matches!(verify::manifest(fs, layout, id, Some(identity)), Ok(Ok(_)));
    Ok(in_place
        .iter()
        .filter_map(|entry| GenerationId::from_dir_name(&entry.name))
        .filter(|id| id.is_counted() || says_so(*id))
        .chain(out_of_the_way.filter_map(|(what, _)| match what {
            Quarantined::Generation { id, .. } => Some(id).filter(|id| id.is_counted()),
            Quarantined::Identity { .. } => None,
        }))
        .max()
        .unwrap_or_default())
}

/// The contents of the quarantine, in no particular order. A directory that holds none of this crate's files is not
/// this crate's, whatever its name is.
pub(crate) fn quarantined(
    fs: &dyn Filesystem,
    layout: &Layout,
) -> Result<Vec<(Quarantined, PathBuf)>, StoreError> {
    held_in(fs, &layout.quarantine())
}

/// Like [`quarantined`], for the generations that were set aside.
pub(crate) fn set_aside(
    fs: &dyn Filesystem,
    layout: &Layout,
) -> Result<Vec<(Quarantined, PathBuf)>, StoreError> {
    held_in(fs, &layout.aside())
}

fn held_in(fs: &dyn Filesystem, top: &Path) -> Result<Vec<(Quarantined, PathBuf)>, StoreError> {
    let mut found = Vec::new();
    for (what, dir) in dirs_in(fs, top)? {
        if holds_ours(fs, &dir)? {
            found.push((what, dir));
        }
    }
    Ok(found)
}

/// The directories in `top` that have names of this crate.
fn dirs_in(fs: &dyn Filesystem, top: &Path) -> Result<Vec<(Quarantined, PathBuf)>, StoreError> {
    if kind(fs, top)? != Some(EntryKind::Dir) {
        return Ok(Vec::new());
    }
    Ok(list(fs, top)?
        .iter()
        .filter(|entry| entry.kind == EntryKind::Dir)
        .filter_map(|entry| {
            let what = Quarantined::from_dir_name(&entry.name)?;
            Some((what, top.join(&entry.name)))
        })
        .collect())
}

fn holds_ours(fs: &dyn Filesystem, dir: &Path) -> Result<bool, StoreError> {
    let entries = list(fs, dir)?;
    let is_ours =
        |entry: &Entry| entry.kind == EntryKind::File && layout::is_generation_file(&entry.name);
    Ok(entries.is_empty() || entries.iter().any(is_ours))
}

fn kind(fs: &dyn Filesystem, path: &Path) -> Result<Option<EntryKind>, StoreError> {
    fs.kind(path)
        .map_err(StoreError::io("inspect", path, UNCHANGED))
}

fn list(fs: &dyn Filesystem, path: &Path) -> Result<Vec<Entry>, StoreError> {
    fs.list(path)
        .map_err(StoreError::io("list", path, UNCHANGED))
}
