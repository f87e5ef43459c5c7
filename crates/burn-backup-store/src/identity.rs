//! `burn-backup.json`: what a backup directory is, and whose.

use serde::{Deserialize, Serialize};

use crate::error::{NOT_COMMITTED, StoreError, UNCHANGED};
use crate::fs::Filesystem;
use crate::layout::{IDENTITY_FILE, Layout};
use crate::manifest::FORMAT_VERSION;
use crate::verify::Small;
use crate::{discover, persist, quarantine, seal, verify};

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

/// Reads the directory's identity, or makes one: from the newest manifest when the file is lost or
/// damaged, and anew when there is no generation either.
pub(crate) fn establish(
    fs: &dyn Filesystem,
    layout: &Layout,
    asked_seed: Option<u64>,
) -> Result<Identity, StoreError> {
    let stored = match read(fs, layout)? {
        Some(identity) => Some(identity),
        None => recover(fs, layout)?,
    };
    let has_generations = !discover::generations(fs, layout)?.is_empty();
    match (stored, asked_seed) {
        (Some(identity), Some(asked)) if identity.run_seed != asked => {
            if has_generations {
                return Err(StoreError::SeedMismatch {
                    path: layout.root().to_path_buf(),
                    stored: identity.run_seed,
                    asked,
                });
            }
            let identity = Identity {
                run_seed: asked,
                ..identity
            };
            write(fs, layout, &identity)?;
            Ok(identity)
        }
        (Some(identity), _) => Ok(identity),
        (None, asked) => {
            let identity = Identity {
                format: FORMAT_VERSION,
                run_id: format!("{:016x}", persist::draw()?),
                run_seed: match asked {
                    Some(seed) => seed,
                    None => persist::draw()?,
                },
            };
            write(fs, layout, &identity)?;
            Ok(identity)
        }
    }
}

/// Reads `burn-backup.json`; `None` if it is not there or was damaged and is now in quarantine.
fn read(fs: &dyn Filesystem, layout: &Layout) -> Result<Option<Identity>, StoreError> {
    let path = layout.identity();
    let read = verify::read_small(fs, &path, MAX_IDENTITY_BYTES);
    let bytes = match read.map_err(StoreError::io("read", &path, UNCHANGED))? {
        Small::Whole(bytes) => bytes,
        Small::Missing => return Ok(None),
        Small::NotAFile => return Err(StoreError::Foreign { path }),
        // No seal is whole on nothing.
        Small::TooLong => Vec::new(),
    };
    let identity = seal::unseal(&bytes)
        .ok()
        .map(|text| verify::parse_versioned::<Identity>(text, &path))
        .transpose()?
        .and_then(Result::ok);
    if identity.is_none() {
        let reason = format!("{IDENTITY_FILE} does not match the checksum at its end");
        match quarantine::identity(fs, layout, &reason) {
            // The disk may be full. The manifests say the same.
            Err(error @ StoreError::Io { .. }) => {
                log::error!(target: LOG, "{reason}, and it stays in its place: {}", error.with_cause());
            }
            moved => moved?,
        }
    }
    Ok(identity)
}

fn recover(fs: &dyn Filesystem, layout: &Layout) -> Result<Option<Identity>, StoreError> {
    for id in discover::generations(fs, layout)? {
        if let Ok(manifest) = verify::manifest(fs, layout, id, None)? {
            let identity = Identity {
                format: FORMAT_VERSION,
                run_id: manifest.run_id,
                run_seed: manifest.run_seed,
            };
            log::warn!(
                target: LOG,
                "'{}' was lost; what it said is taken from the manifest of generation {id}",
                layout.identity().display(),
            );
            if let Err(error) = write(fs, layout, &identity) {
                // The next start tries again.
                log::warn!(target: LOG, "it is not made again: {}", error.with_cause());
            }
            return Ok(Some(identity));
        }
    }
    Ok(None)
}

fn write(fs: &dyn Filesystem, layout: &Layout, identity: &Identity) -> Result<(), StoreError> {
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
