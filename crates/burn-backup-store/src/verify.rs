//! Reading a generation and checking every byte of it.

use std::io::{self, Read as _};
use std::path::Path;

use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::Xxh3;

use crate::error::{Damage, StoreError, UNREAD};
use crate::fs::{EntryKind, Filesystem};
use crate::identity::Identity;
use crate::layout::{GenerationId, Layout, MANIFEST_FILE};
use crate::manifest::{FORMAT_VERSION, Manifest, PartEntry};
use crate::seal;

/// A manifest of 100,000 parameters has about 10 MB; a damaged one must not fill the memory.
const MAX_MANIFEST_BYTES: u64 = 256 * 1024 * 1024;

/// Hashing follows reading this closely, while the bytes are still in the processor's cache.
const CHUNK_BYTES: usize = 1024 * 1024;

/// A generation that was read from disk, each byte of it verified.
#[derive(Debug)]
pub struct Generation {
    manifest: Manifest,
    parts: Vec<(String, Vec<u8>)>,
}

impl Generation {
    /// The generation's number.
    pub fn id(&self) -> GenerationId {
        self.manifest.generation
    }

    /// What the generation consists of.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Takes the bytes of the part `name` out; `None` if there is none or it was taken before.
    pub fn take_part(&mut self, name: &str) -> Option<Vec<u8>> {
        let at = self.parts.iter().position(|(part, _)| part == name)?;
        Some(self.parts.swap_remove(at).1)
    }
}

/// Reads the generation `id`. The outer error is one that says nothing about the generation: it
/// may be whole.
pub(crate) fn generation(
    fs: &dyn Filesystem,
    layout: &Layout,
    id: GenerationId,
    identity: &Identity,
) -> Result<Result<Generation, Damage>, StoreError> {
    let manifest = match manifest(fs, layout, id, Some(identity))? {
        Ok(manifest) => manifest,
        Err(damage) => return Ok(Err(damage)),
    };
    let dir = layout.generation(id);
    let mut parts = Vec::with_capacity(manifest.parts.len());
    for entry in &manifest.parts {
        let path = dir.join(&entry.file);
        match part(fs, &path, entry).map_err(StoreError::io("read", &path, UNREAD))? {
            Ok(bytes) => parts.push((entry.name.clone(), bytes)),
            Err(damage) => return Ok(Err(damage)),
        }
    }
    Ok(Ok(Generation { manifest, parts }))
}

/// Reads the manifest of the generation `id`, and checks that it is this one's.
pub(crate) fn manifest(
    fs: &dyn Filesystem,
    layout: &Layout,
    id: GenerationId,
    identity: Option<&Identity>,
) -> Result<Result<Manifest, Damage>, StoreError> {
    let path = layout.generation(id).join(MANIFEST_FILE);
    let read = read_small(fs, &path, MAX_MANIFEST_BYTES);
    let bytes = match read.map_err(StoreError::io("read", &path, UNREAD))? {
        Small::Whole(bytes) => bytes,
        Small::Missing => return Ok(Err(Damage::ManifestMissing)),
        Small::NotAFile | Small::TooLong => {
            return Ok(Err(Damage::ManifestSize {
                limit: MAX_MANIFEST_BYTES,
            }));
        }
    };
    let Ok(text) = seal::unseal(&bytes) else {
        return Ok(Err(Damage::ManifestChecksum));
    };
    let manifest = match parse_versioned::<Manifest>(text, &path)? {
        Ok(manifest) => manifest,
        Err(error) => {
            return Ok(Err(Damage::ManifestContents {
                detail: error.to_string(),
            }));
        }
    };
    if let Some(detail) = manifest.flaw() {
        return Ok(Err(Damage::ManifestContents { detail }));
    }
    if manifest.generation != id {
        return Ok(Err(Damage::ManifestOfAnother {
            found: manifest.generation,
        }));
    }
    match identity {
        Some(identity) if identity.run_id != manifest.run_id => Err(StoreError::AnotherRun {
            path: layout.generation(id),
            found: manifest.run_id,
            expected: identity.run_id.clone(),
        }),
        _ => Ok(Ok(manifest)),
    }
}

/// Parses a sealed document, after a look at its version: a newer one is an error, whatever the
/// rest of the document looks like.
pub(crate) fn parse_versioned<T: DeserializeOwned>(
    text: &str,
    path: &Path,
) -> Result<Result<T, serde_json::Error>, StoreError> {
    let value: serde_json::Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => return Ok(Err(error)),
    };
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(found) if found > u64::from(FORMAT_VERSION) => Err(StoreError::NewerFormat {
            path: path.to_path_buf(),
            found,
            supported: FORMAT_VERSION,
        }),
        _ => Ok(serde_json::from_value(value)),
    }
}

/// What came of reading a small file.
pub(crate) enum Small {
    Whole(Vec<u8>),
    Missing,
    NotAFile,
    TooLong,
}

/// Reads a whole file of at most `limit` bytes.
pub(crate) fn read_small(fs: &dyn Filesystem, path: &Path, limit: u64) -> io::Result<Small> {
    match fs.kind(path)? {
        None => return Ok(Small::Missing),
        Some(EntryKind::File) => {}
        Some(EntryKind::Dir | EntryKind::Other) => return Ok(Small::NotAFile),
    }
    let file = fs.open_file(path)?;
    if file.len()? > limit {
        return Ok(Small::TooLong);
    }
    let mut bytes = Vec::new();
    // It may be growing.
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Ok(Small::TooLong);
    }
    Ok(Small::Whole(bytes))
}

/// Reads a part whose length the manifest knows, hashing on the way. No memory is taken before
/// the file's own length agrees; more than there is, is an error.
fn part(
    fs: &dyn Filesystem,
    path: &Path,
    entry: &PartEntry,
) -> io::Result<Result<Vec<u8>, Damage>> {
    let wrong_length = |found| {
        Ok(Err(Damage::PartLength {
            file: entry.file.clone(),
            expected: entry.bytes,
            found,
        }))
    };
    if fs.kind(path)? != Some(EntryKind::File) {
        return Ok(Err(Damage::PartMissing {
            file: entry.file.clone(),
        }));
    }
    let mut file = fs.open_file(path)?;
    let found = file.len()?;
    let Ok(len) = usize::try_from(entry.bytes) else {
        return wrong_length(found);
    };
    if found != entry.bytes {
        return wrong_length(found);
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len)?;
    let mut hash = Xxh3::new();
    while bytes.len() < len {
        let before = bytes.len();
        let chunk = CHUNK_BYTES.min(len - before) as u64;
        file.by_ref().take(chunk).read_to_end(&mut bytes)?;
        match bytes.get(before..) {
            Some(read) if !read.is_empty() => hash.update(read),
            _ => return wrong_length(before as u64),
        }
    }
    if seal::hex(hash.digest128()) != entry.xxh3_128 {
        return Ok(Err(Damage::PartHash {
            file: entry.file.clone(),
        }));
    }
    Ok(Ok(bytes))
}
