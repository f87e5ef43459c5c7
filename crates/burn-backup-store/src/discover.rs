//! Finding the generations of a backup directory.

use std::path::{Path, PathBuf};

use crate::error::{StoreError, UNCHANGED};
use crate::fs::{Entry, EntryKind, Filesystem};
use crate::layout::{self, GenerationId, Layout};

/// The generations that are in place, newest first. A directory in which nothing of ours is, is
/// somebody else's, whatever its name.
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
        if entry.kind == EntryKind::Dir && holds_ours(fs, &layout.generation(id))? {
            found.push(id);
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

/// The greatest number that a name in the directory has, whosever it is: the next generation must
/// find its place free.
pub(crate) fn greatest_number(
    fs: &dyn Filesystem,
    layout: &Layout,
) -> Result<GenerationId, StoreError> {
    let in_place = list(fs, &layout.generations())?;
    Ok(in_place
        .iter()
        .filter_map(|entry| GenerationId::from_dir_name(&entry.name))
        .chain(in_quarantine(fs, layout)?.into_iter().map(|(id, _)| id))
        .max()
        .unwrap_or_default())
}

/// Whether a damaged generation is in quarantine.
pub(crate) fn has_quarantined(fs: &dyn Filesystem, layout: &Layout) -> Result<bool, StoreError> {
    for (_, dir) in in_quarantine(fs, layout)? {
        if holds_ours(fs, &dir)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The directories in quarantine that are named like generations, with their numbers.
fn in_quarantine(
    fs: &dyn Filesystem,
    layout: &Layout,
) -> Result<Vec<(GenerationId, PathBuf)>, StoreError> {
    let dir = layout.quarantine();
    if kind(fs, &dir)? != Some(EntryKind::Dir) {
        return Ok(Vec::new());
    }
    Ok(list(fs, &dir)?
        .iter()
        .filter(|entry| entry.kind == EntryKind::Dir)
        .filter_map(|entry| {
            let id = GenerationId::from_quarantine_name(&entry.name)?;
            Some((id, dir.join(&entry.name)))
        })
        .collect())
}

fn holds_ours(fs: &dyn Filesystem, dir: &Path) -> Result<bool, StoreError> {
    let entries = list(fs, dir)?;
    Ok(entries.is_empty() || entries.iter().any(|e| layout::is_generation_file(&e.name)))
}

fn kind(fs: &dyn Filesystem, path: &Path) -> Result<Option<EntryKind>, StoreError> {
    fs.kind(path)
        .map_err(StoreError::io("look at", path, UNCHANGED))
}

fn list(fs: &dyn Filesystem, path: &Path) -> Result<Vec<Entry>, StoreError> {
    fs.list(path)
        .map_err(StoreError::io("list", path, UNCHANGED))
}
