//! `burn-backup.json`: what a backup directory is, and whose.

use serde::{Deserialize, Serialize};

use crate::directory::Directory;
use crate::error::{NOT_COMMITTED, StoreError, UNCHANGED};
use crate::fs::Filesystem;
use crate::layout::{IDENTITY_FILE, Layout};
use crate::manifest::FORMAT_VERSION;
use crate::verify::{self, Small};
use crate::{discover, persist, quarantine, seal};

const LOG: &str = "burn_backup::discover";
const MAX_IDENTITY_BYTES: u64 = 64 * 1024;

/// What a backup directory is: its format, and the training it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The version of the directory's layout.
    pub format: u32,
    /// Names the training; drawn once, when the directory is made.
    pub run_id: String,
    /// What the training's random numbers are derived from; drawn once, or given.
    pub run_seed: u64,
}

/// What stands where the identity is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Whole(Identity),
    Damaged,
    Nothing,
}

/// What the identity is to be, and what has to be done for it.
pub(crate) struct Plan {
    identity: Identity,
    is_damaged: bool,
    writing: Writing,
}

enum Writing {
    /// It is there.
    No,
    /// It was lost, and can be made again from the manifests whenever there is room.
    IfPossible,
    Yes,
}

/// Says what the identity is to be: the one that is there; from the newest manifest if that is lost or
/// damaged; a new one if there is no generation either. Changes nothing.
pub(crate) fn plan(dir: &Directory, asked_seed: Option<u64>) -> Result<Plan, StoreError> {
    let (fs, layout) = (dir.fs(), &dir.layout);
    let found = look(fs, layout)?;
    let is_damaged = found == Found::Damaged;
    let (stored, writing) = match found {
        Found::Whole(identity) => (Some(identity), Writing::No),
        Found::Damaged | Found::Nothing => (recover(fs, layout)?, Writing::IfPossible),
    };
    let has_generations = !discover::generations(fs, layout)?.is_empty();
    let (identity, writing) = match (stored, asked_seed) {
        (Some(identity), Some(asked)) if identity.run_seed != asked => {
            if has_generations {
                return Err(StoreError::SeedMismatch {
                    path: layout.root().to_path_buf(),
                    stored: identity.run_seed,
                    asked,
                });
            }
            let run_seed = asked;
            (
                Identity {
                    run_seed,
                    ..identity
                },
                Writing::Yes,
            )
        }
        (Some(identity), _) => (identity, writing),
        (None, asked) => (draw(asked)?, Writing::Yes),
    };
    Ok(Plan {
        identity,
        is_damaged,
        writing,
    })
}

/// Does what was planned.
pub(crate) fn establish(dir: &Directory, plan: Plan) -> Result<Identity, StoreError> {
    let Plan {
        identity,
        is_damaged,
        writing,
    } = plan;
    if is_damaged {
        let reason = format!("{IDENTITY_FILE} does not match the checksum at its end");
        match quarantine::identity(dir, &reason) {
            // The disk may be full. The manifests say the same.
            Err(error @ StoreError::Io { .. }) => {
                log::error!(target: LOG, "{reason}, and it stays in its place: {}", error.with_cause());
            }
            moved => moved?,
        }
    }
    let written = match writing {
        Writing::No => return Ok(identity),
        Writing::IfPossible | Writing::Yes => write(dir.fs(), &dir.layout, &identity),
    };
    match (written, writing) {
        // The next start tries again.
        (Err(error), Writing::IfPossible) => {
            log::warn!(target: LOG, "it is not made again: {}", error.with_cause());
        }
        (written, _) => written?,
    }
    Ok(identity)
}

fn draw(asked_seed: Option<u64>) -> Result<Identity, StoreError> {
    Ok(Identity {
        format: FORMAT_VERSION,
        run_id: format!("{:016x}", persist::draw()?),
        run_seed: match asked_seed {
            Some(seed) => seed,
            None => persist::draw()?,
        },
    })
}

/// Reads `burn-backup.json`. What looks damaged, or can't be read, is read once more.
pub(crate) fn look(fs: &dyn Filesystem, layout: &Layout) -> Result<Found, StoreError> {
    match look_once(fs, layout) {
        Ok(Found::Damaged) | Err(StoreError::Io { .. }) => look_once(fs, layout),
        found => found,
    }
}

fn look_once(fs: &dyn Filesystem, layout: &Layout) -> Result<Found, StoreError> {
    let path = layout.identity();
    let read = verify::read_small(fs, &path, MAX_IDENTITY_BYTES);
    let bytes = match read.map_err(StoreError::io("read", &path, UNCHANGED))? {
        Small::Whole(bytes) => bytes,
        Small::Missing => return Ok(Found::Nothing),
        Small::NotAFile => return Err(StoreError::Foreign { path }),
        Small::TooLong => return Ok(Found::Damaged),
    };
    let identity = seal::unseal(&bytes)
        .ok()
        .map(|text| verify::parse_versioned::<Identity>(text, &path))
        .transpose()?
        .and_then(Result::ok);
    Ok(identity.map_or(Found::Damaged, Found::Whole))
}

fn recover(fs: &dyn Filesystem, layout: &Layout) -> Result<Option<Identity>, StoreError> {
    for id in discover::generations(fs, layout)? {
        if let Ok(manifest) = verify::manifest(fs, layout, id, None)? {
            log::warn!(
                target: LOG,
                "'{}' was lost; what it said is taken from the manifest of generation {id}",
                layout.identity().display(),
            );
            return Ok(Some(Identity {
                format: FORMAT_VERSION,
                run_id: manifest.run_id,
                run_seed: manifest.run_seed,
            }));
        }
    }
    Ok(None)
}

pub(crate) fn write(
    fs: &dyn Filesystem,
    layout: &Layout,
    identity: &Identity,
) -> Result<(), StoreError> {
    let bytes = seal::seal(identity).map_err(StoreError::State)?;
    let path = layout.identity();
    let staged = layout.staging("identity", persist::draw()?);
    let failed = |operation, at| StoreError::io(operation, at, NOT_COMMITTED);

    persist::write_file(fs, &staged, &bytes).map_err(failed("write", &staged))?;
    if fs.kind(&path).map_err(failed("look at", &path))?.is_some() {
        fs.remove_file(&path).map_err(failed("replace", &path))?;
    }
    fs.rename(&staged, &path)
        .map_err(failed("rename into place", &path))?;
    fs.sync_dir(layout.root())
        .map_err(failed("sync", layout.root()))
}
