//! Moves damaged generations and files to the quarantine, with the reason beside them.

use std::path::{Path, PathBuf};

use crate::directory::Directory;
use crate::error::{Damage, StoreError, UNCHANGED};
use crate::fs::EntryKind;
use crate::layout::{GenerationId, IDENTITY_FILE, Quarantined, REASON_FILE};
use crate::observe::OpenGeneration;
use crate::ownership::IfGone;
use crate::store::Store;
use crate::{discover, files, remove, verify};

const LOG: &str = "burn_backup::verify";

/// How many damaged generations stay. The newest are kept. Each is as large as a whole generation.
const KEPT: usize = 3;

impl Store {
    /// Moves a generation from the quarantine back to its place, if every byte is what was committed. A disk or a
    /// network may have caused a temporary error.
    ///
    /// # Errors
    ///
    /// [`StoreError::GenerationDamaged`], [`StoreError::NumberTaken`] if a generation with that number exists,
    /// [`StoreError::AnotherRun`] and [`StoreError::AnotherSeed`], [`StoreError::Gone`] and [`StoreError::TakenOver`]
    /// if the directory no longer belongs to this store, and [`StoreError::Io`]. The generation then stays where it is.
    pub fn unquarantine(&self, generation: &OpenGeneration) -> Result<(), StoreError> {
        let back = self.unquarantine_inner(generation);
        back.map_err(|error| self.explain(error))
    }

    fn unquarantine_inner(&self, generation: &OpenGeneration) -> Result<(), StoreError> {
        self.ensure_owned(IfGone::Fail)?;
        let (dir, fs, layout) = (&self.dir, self.dir.fs(), &self.dir.layout);
        let (from, place) = (generation.path(), layout.generation(generation.id()));
        verify::check_run(generation.manifest(), &self.identity, from)?;
        for part in generation.parts() {
            if let Err(damage) = part.verify(&mut |_| {})? {
                return Err(StoreError::GenerationDamaged {
                    path: from.to_path_buf(),
                    damage,
                });
            }
        }
        let failed = |operation, at: &Path| StoreError::io(operation, at, UNCHANGED);
        if fs
            .kind(&place)
            .map_err(failed("inspect", &place))?
            .is_some()
        {
            return Err(StoreError::NumberTaken { path: place });
        }
        dir.check()?;
        dir.rename(from, &place, failed("move from the quarantine", from))?;
        sync(dir, &layout.quarantine())?;
        sync(dir, &layout.generations())?;
        let reason = place.join(REASON_FILE);
        if let Err(error) = fs.remove_file(&reason) {
            log::debug!(target: LOG, "'{}' stays: {error}", reason.display());
        }
        Ok(())
    }
}

/// Moves the damaged generation `id` to the quarantine and writes the reason into it.
pub(crate) fn generation(
    dir: &Directory,
    id: GenerationId,
    damage: &Damage,
) -> Result<(), StoreError> {
    let layout = &dir.layout;
    let from = layout.generation(id);
    dir.check()?;
    let what = Quarantined::Generation { id, again: 1 };
    let to = free_place(dir, &layout.quarantine(), what)?;
    let failed = StoreError::io("move to the quarantine", &from, UNCHANGED);
    dir.rename(&from, &to, failed)?;
    sync(dir, &layout.generations())?;
    sync(dir, &layout.quarantine())?;
    log::error!(
        target: LOG,
        "generation {id} is damaged ({damage}); moved to '{}'", to.display(),
    );
    write_reason(dir, &to, &damage.to_string());
    Ok(())
}

/// Moves the damaged `burn-backup.json` to the quarantine, into a directory with the reason.
pub(crate) fn identity(dir: &Directory, reason: &str) -> Result<(), StoreError> {
    let layout = &dir.layout;
    let from = &layout.identity();
    dir.check()?;
    let what = Quarantined::Identity { again: 1 };
    let to = free_place(dir, &layout.quarantine(), what)?;
    dir.fs()
        .create_dir(&to)
        .map_err(StoreError::io("create", &to, UNCHANGED))?;
    let failed = StoreError::io("move to the quarantine", from, UNCHANGED);
    dir.rename(from, &to.join(IDENTITY_FILE), failed)?;
    sync(dir, &to)?;
    sync(dir, &layout.quarantine())?;
    sync(dir, layout.root())?;
    log::error!(target: LOG, "{reason}; moved to '{}'", to.display());
    write_reason(dir, &to, reason);
    Ok(())
}

/// The entries of the quarantine to remove: all except the newest [`KEPT`] of each kind.
fn to_drop(quarantined: &[Quarantined]) -> Vec<Quarantined> {
    let mut newest_first = quarantined.to_vec();
    newest_first.sort_unstable_by(|a, b| b.cmp(a));
    let (generations, identities): (Vec<_>, Vec<_>) = newest_first
        .into_iter()
        .partition(|what| matches!(what, Quarantined::Generation { .. }));
    let beyond = |kind: Vec<Quarantined>| kind.into_iter().skip(KEPT);
    beyond(generations).chain(beyond(identities)).collect()
}

/// Removes the oldest entries of the quarantine. Must be called after a whole generation was found, because all damaged
/// ones may be needed otherwise. A failure here must not stop the restore of the whole one.
pub(crate) fn bound(dir: &Directory) {
    let drop_oldest = || {
        let quarantined = discover::quarantined(dir.fs(), &dir.layout)?;
        let all: Vec<_> = quarantined.iter().map(|(what, _)| *what).collect();
        let dropped = to_drop(&all);
        for (_, path) in quarantined
            .iter()
            .filter(|(what, _)| dropped.contains(what))
        {
            remove::retire(dir, path)?;
            log::warn!(target: LOG, "'{}' is removed, because the quarantine keeps only the newest", path.display());
        }
        Ok::<_, StoreError>(())
    };
    if let Err(error) = drop_oldest() {
        log::warn!(target: LOG, "the quarantine could not be reduced: {}", error.with_cause());
    }
}

/// A free path for `what` in `top`, the quarantine or `aside`. Its number is greater than those of earlier entries for
/// the same thing, so that their order is visible.
pub(crate) fn free_place(
    dir: &Directory,
    top: &Path,
    what: Quarantined,
) -> Result<PathBuf, StoreError> {
    let (fs, layout) = (dir.fs(), &dir.layout);
    let failed = |operation| StoreError::io(operation, top, UNCHANGED);
    match fs.kind(top).map_err(failed("inspect"))? {
        Some(EntryKind::Dir) => {}
        Some(_) => {
            return Err(StoreError::Foreign {
                path: top.to_path_buf(),
            });
        }
        None => {
            fs.create_dir(top).map_err(failed("create"))?;
            if dir.is_lost() {
                // The directory is now another process's, and had no such subdirectory before.
                let _ = fs.remove_dir(top);
                return Err(dir.gone(None));
            }
            sync(dir, layout.root())?;
        }
    }
    let entries = fs.list(top).map_err(failed("list"))?;
    let latest = entries
        .iter()
        .filter_map(|entry| Quarantined::from_dir_name(&entry.name))
        .filter(|other| other.is_like(what))
        .max();
    let place = latest.map_or(what, Quarantined::when_repeated);
    Ok(top.join(place.dir_name()))
}

/// Writes the reason. A failure must not stop the restore of a whole generation; the reason is already in the log.
fn write_reason(dir: &Directory, to: &Path, reason: &str) {
    let path = to.join(REASON_FILE);
    let written = files::write_file(dir.fs(), &path, format!("{reason}\n").as_bytes());
    if let Err(error) = written.and_then(|()| dir.fs().sync_dir(to)) {
        log::warn!(target: LOG, "cannot write '{}': {error}", path.display());
    }
}

fn sync(dir: &Directory, path: &Path) -> Result<(), StoreError> {
    dir.fs()
        .sync_dir(path)
        .map_err(StoreError::io("sync", path, UNCHANGED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_each_kind_stay() {
        let generation = |number, again| Quarantined::Generation {
            id: GenerationId::new(number),
            again,
        };
        let identity = |again| Quarantined::Identity { again };
        let table: &[(&[Quarantined], &[Quarantined])] = &[
            (&[], &[]),
            (&[generation(1, 1), generation(2, 1), generation(3, 1)], &[]),
            (
                &[
                    generation(10, 1),
                    generation(9, 1),
                    generation(9, 2),
                    generation(11, 1),
                ],
                &[generation(9, 1)],
            ),
            (
                &[
                    identity(1),
                    generation(1, 1),
                    identity(10),
                    identity(2),
                    identity(3),
                ],
                &[identity(1)],
            ),
        ];
        for (quarantined, dropped) in table {
            assert_eq!(to_drop(quarantined), *dropped, "{quarantined:?}");
        }
    }
}
