//! Moving damaged things out of the way, with the reason beside them. Nothing is deleted.

use std::path::{Path, PathBuf};

use crate::error::{Damage, StoreError, UNCHANGED};
use crate::fs::{EntryKind, Filesystem};
use crate::layout::{GenerationId, Layout, REASON_FILE};
use crate::persist;

const LOG: &str = "burn_backup::verify";

/// Moves the damaged generation `id` to the quarantine and writes the reason into it.
pub(crate) fn generation(
    fs: &dyn Filesystem,
    layout: &Layout,
    id: GenerationId,
    damage: &Damage,
) -> Result<(), StoreError> {
    let from = layout.generation(id);
    let to = free_place(fs, layout, &id.to_string())?;
    fs.rename(&from, &to)
        .map_err(StoreError::io("move to the quarantine", &from, UNCHANGED))?;
    sync(fs, &layout.generations())?;
    sync(fs, &layout.quarantine())?;
    log::error!(
        target: LOG,
        "generation {id} is damaged ({damage}); moved to '{}'", to.display(),
    );
    give_reason(fs, &to, &damage.to_string());
    Ok(())
}

/// Moves the damaged file `from` to the quarantine, into a directory with the reason.
pub(crate) fn file(
    fs: &dyn Filesystem,
    layout: &Layout,
    from: &Path,
    name: &str,
    reason: &str,
) -> Result<(), StoreError> {
    let dir = free_place(fs, layout, name)?;
    fs.create_dir(&dir)
        .map_err(StoreError::io("create", &dir, UNCHANGED))?;
    fs.rename(from, &dir.join(name)).map_err(StoreError::io(
        "move to the quarantine",
        from,
        UNCHANGED,
    ))?;
    sync(fs, &dir)?;
    sync(fs, &layout.quarantine())?;
    sync(fs, layout.root())?;
    log::error!(target: LOG, "{reason}; moved to '{}'", dir.display());
    give_reason(fs, &dir, reason);
    Ok(())
}

/// A path in the quarantine at which nothing is: `name`, or `name-2` and so on.
fn free_place(fs: &dyn Filesystem, layout: &Layout, name: &str) -> Result<PathBuf, StoreError> {
    let quarantine = layout.quarantine();
    let kind = |path: &Path| {
        fs.kind(path)
            .map_err(StoreError::io("look at", path, UNCHANGED))
    };
    if kind(&quarantine)? != Some(EntryKind::Dir) {
        fs.create_dir(&quarantine)
            .map_err(StoreError::io("create", &quarantine, UNCHANGED))?;
        sync(fs, layout.root())?;
    }
    let mut place = quarantine.join(name);
    let mut again = 1_u64;
    while kind(&place)?.is_some() {
        again += 1;
        place = quarantine.join(format!("{name}-{again}"));
    }
    Ok(place)
}

/// The reason is in the log already: failing to write it must not keep a good generation back.
fn give_reason(fs: &dyn Filesystem, dir: &Path, reason: &str) {
    let path = dir.join(REASON_FILE);
    let written = persist::write_file(fs, &path, format!("{reason}\n").as_bytes());
    if let Err(error) = written.and_then(|()| fs.sync_dir(dir)) {
        log::warn!(target: LOG, "cannot write '{}': {error}", path.display());
    }
}

fn sync(fs: &dyn Filesystem, dir: &Path) -> Result<(), StoreError> {
    fs.sync_dir(dir)
        .map_err(StoreError::io("sync", dir, UNCHANGED))
}
