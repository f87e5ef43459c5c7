//! Decides which training a backup directory belongs to when it is opened.

use crate::directory::Directory;
use crate::error::StoreError;
use crate::fs::Filesystem;
use crate::identity::Identity;
use crate::identity_file::{self, Found};
use crate::layout::{IDENTITY_FILE, Layout};
use crate::manifest::FORMAT_VERSION;
use crate::{discover, files, quarantine, verify};

const LOG: &str = "burn_backup::discover";

/// The identity for the directory, and whether it must be written.
pub(crate) struct Plan {
    identity: Identity,
    is_damaged: bool,
    writing: Writing,
}

enum Writing {
    /// The file exists.
    No,
    /// The file was lost. It can be written again from the manifests whenever there is room.
    IfPossible,
    Yes,
}

/// The possible sources of a directory's run seed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seeds {
    /// The seed that the program asks for.
    pub asked: Option<u64>,
    /// The seed that was drawn for a directory that has none.
    pub drawn: Option<u64>,
    /// Whether the generations keep their seed if the program asks for another one.
    pub keeps: bool,
}

/// Determines the identity. It is the existing one, or the newest manifest's if the file is lost or damaged. If there
/// is no generation either, it is new. Changes nothing.
pub(crate) fn plan(dir: &Directory, seeds: &Seeds) -> Result<Plan, StoreError> {
    let asked_seed = seeds.asked;
    let (fs, layout) = (dir.fs(), &dir.layout);
    let found = identity_file::read(fs, layout)?;
    let is_damaged = found == Found::Damaged;
    let (stored, writing) = match found {
        Found::Whole(identity) => (Some(identity), Writing::No),
        Found::Damaged | Found::Nothing => (recover(fs, layout)?, Writing::IfPossible),
    };
    let has_generations = !discover::generations(fs, layout)?.is_empty();
    let (identity, writing) = match (stored, asked_seed) {
        (Some(identity), Some(asked)) if identity.run_seed != asked => {
            if has_generations && seeds.keeps {
                return Ok(Plan {
                    identity,
                    is_damaged,
                    writing,
                });
            }
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
        (None, asked) => (draw(asked.or(seeds.drawn))?, Writing::Yes),
    };
    Ok(Plan {
        identity,
        is_damaged,
        writing,
    })
}

/// Carries out the plan.
pub(crate) fn establish(dir: &Directory, plan: Plan) -> Result<Identity, StoreError> {
    let Plan {
        identity,
        is_damaged,
        writing,
    } = plan;
    if is_damaged {
        let reason = format!("{IDENTITY_FILE} does not match the checksum at its end");
        match quarantine::identity(dir, &reason) {
            // The disk may be full. The manifests hold the same identity.
            Err(error @ StoreError::Io { .. }) => {
                log::error!(target: LOG, "{reason}, and the file could not be moved away: {}", error.with_cause());
            }
            moved => moved?,
        }
    }
    let written = match writing {
        Writing::No => return Ok(identity),
        Writing::IfPossible | Writing::Yes => {
            identity_file::write(dir.fs(), &dir.layout, &identity)
        }
    };
    match (written, writing) {
        // The next start tries again.
        (Err(error), Writing::IfPossible) => {
            log::warn!(target: LOG, "{IDENTITY_FILE} was not written again: {}", error.with_cause());
        }
        (written, _) => written?,
    }
    Ok(identity)
}

fn draw(given_seed: Option<u64>) -> Result<Identity, StoreError> {
    Ok(Identity {
        format: FORMAT_VERSION,
        run_id: format!("{:016x}", files::draw()?),
        run_seed: match given_seed {
            Some(seed) => seed,
            None => files::draw()?,
        },
    })
}

fn recover(fs: &dyn Filesystem, layout: &Layout) -> Result<Option<Identity>, StoreError> {
    for id in discover::generations(fs, layout)? {
        if let Ok(manifest) = verify::manifest(fs, layout, id, None)? {
            log::warn!(
                target: LOG,
                "'{}' was lost; its contents are taken from the manifest of generation {id}",
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
