//! `<number>.json`: a generation's manifest, byte for byte, and the places of its parts.

use burn_backup_store::{Manifest, PartEntry, Pinned};
use bytes::Bytes;
use object_store::path::Path;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::{Damage, MirrorError};
use crate::keys::{Ordinal, PartRef};
use crate::place::Place;

/// The version of the documents that this crate writes.
pub(crate) const FORMAT: u32 = 1;

/// A generation in the mirror.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Document {
    format: u32,
    /// The epoch of the process that put it; see the lease.
    pub epoch: u64,
    pub nonce: String,
    /// The objects of the parts, in the order of the manifest.
    pub parts: Vec<PartRef>,
    /// The manifest, as it is in the backup directory.
    pub manifest: String,
}

/// The fields that all versions of a document have.
#[derive(Deserialize)]
struct Versioned {
    format: u32,
}

impl Document {
    /// The document for `pinned`, whose parts are in the mirror.
    pub(crate) fn new(
        epoch: u64,
        nonce: &str,
        pinned: &Pinned,
        parts: Vec<PartRef>,
    ) -> Result<Self, Damage> {
        let manifest = String::from_utf8(pinned.sealed().to_vec());
        Ok(Self {
            format: FORMAT,
            epoch,
            nonce: nonce.to_owned(),
            parts,
            manifest: manifest.map_err(unreadable)?,
        })
    }

    /// Gets the document of the generation `ordinal`; an error of damage if it is missing.
    pub(crate) async fn get(
        place: &Place,
        path: &Path,
        ordinal: Ordinal,
    ) -> Result<Self, MirrorError> {
        let Some(object) = place.get(path).await? else {
            return Err(place.damaged(path, Damage::Missing));
        };
        let document: Self = read(place, path, &object.bytes)?;
        let is_its_own =
            document.epoch == ordinal.epoch && document.parts.iter().all(PartRef::is_possible);
        match is_its_own {
            true => Ok(document),
            false => Err(place.damaged(path, Damage::Contents("it is inconsistent".to_owned()))),
        }
    }

    /// The parts of the document's `manifest`, each with its place.
    pub(crate) fn located<'a>(
        &'a self,
        manifest: &'a Manifest,
    ) -> Option<impl Iterator<Item = (&'a PartEntry, &'a PartRef)>> {
        let (entries, parts) = (&manifest.parts, &self.parts);
        let fit = |(entry, part): (&PartEntry, &PartRef)| entry.bytes == part.bytes;
        let do_fit = entries.len() == parts.len() && entries.iter().zip(parts).all(fit);
        do_fit.then(|| entries.iter().zip(parts))
    }
}

/// Parses a document of this crate, unless its format is newer than this version knows.
pub(crate) fn read<T: DeserializeOwned>(
    place: &Place,
    path: &Path,
    bytes: &[u8],
) -> Result<T, MirrorError> {
    let failed = |error: serde_json::Error| place.damaged(path, unreadable(error));
    let Versioned { format } = serde_json::from_slice(bytes).map_err(failed)?;
    if format > FORMAT {
        return Err(MirrorError::NewerFormat {
            object: path.to_string(),
            mirror: place.name.to_string(),
            found: format,
            supported: FORMAT,
        });
    }
    serde_json::from_slice(bytes).map_err(failed)
}

/// Serializes a document of this crate.
pub(crate) fn write(document: &impl Serialize) -> Bytes {
    // The documents consist of numbers, texts and lists, so writing them as JSON can't fail.
    serde_json::to_vec(document).unwrap_or_default().into()
}

fn unreadable(error: impl std::fmt::Display) -> Damage {
    Damage::Contents(error.to_string())
}
