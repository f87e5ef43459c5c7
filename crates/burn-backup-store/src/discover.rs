//! Finding the generations of a backup directory.

use crate::error::{StoreError, UNCHANGED};
use crate::fs::{EntryKind, Filesystem};
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
        if entry.kind == EntryKind::Dir && holds_generation(fs, layout, id)? {
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
        .chain(quarantined(fs, layout)?)
        .max()
        .unwrap_or_default())
}

/// The numbers of the generations in quarantine, in no particular order.
pub(crate) fn quarantined(
    fs: &dyn Filesystem,
    layout: &Layout,
) -> Result<Vec<GenerationId>, StoreError> {
    let dir = layout.quarantine();
    if kind(fs, &dir)? != Some(EntryKind::Dir) {
        return Ok(Vec::new());
    }
    Ok(list(fs, &dir)?
        .iter()
        .filter(|entry| entry.kind == EntryKind::Dir)
        .filter_map(|entry| GenerationId::from_quarantine_name(&entry.name))
        .collect())
}

fn holds_generation(
    fs: &dyn Filesystem,
    layout: &Layout,
    id: GenerationId,
) -> Result<bool, StoreError> {
    let entries = list(fs, &layout.generation(id))?;
    Ok(entries.is_empty() || entries.iter().any(|e| layout::is_generation_file(&e.name)))
}

fn kind(fs: &dyn Filesystem, path: &std::path::Path) -> Result<Option<EntryKind>, StoreError> {
    fs.kind(path)
        .map_err(StoreError::io("look at", path, UNCHANGED))
}

fn list(fs: &dyn Filesystem, path: &std::path::Path) -> Result<Vec<crate::fs::Entry>, StoreError> {
    fs.list(path)
        .map_err(StoreError::io("list", path, UNCHANGED))
}
