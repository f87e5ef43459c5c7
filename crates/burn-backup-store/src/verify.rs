//! Reads a generation and checks every byte of it.

mod part;

use std::io;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::buffer::Buffer;
use crate::error::{Damage, StoreError, UNREAD};
use crate::fs::{EntryKind, Filesystem};
use crate::identity::Identity;
use crate::layout::{GenerationId, Layout, MANIFEST_FILE};
use crate::manifest::{FORMAT_VERSION, Manifest, PartEntry};
use crate::seal;
use crate::threads::{self, RunOn};

const LOG: &str = "burn_backup::verify";

/// The manifest of 100,000 parameters has about 10 MB. A damaged one must not fill the memory.
pub(crate) const MAX_MANIFEST_BYTES: u64 = 256 * 1024 * 1024;

/// Parts of more bytes than this are read in parallel.
const LARGE: u64 = 4 * 1024 * 1024;

/// Decides into how many buffers a part is read, and how long each is.
///
/// The bytes it is given are not verified yet, and may be anything.
pub trait Chunking: Sync {
    /// The lengths of the next buffers of the part `part`, after `read` buffers were read. The last of them holds
    /// `last`. If empty, the rest of the part goes into one buffer.
    fn next_lengths(&self, part: &str, read: usize, last: &[u8]) -> Vec<usize>;
}

/// The progress of reading a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReadProgress {
    /// The number of bytes read.
    pub done: u64,
    /// The total number of bytes.
    pub of: u64,
}

/// Receives the progress of reading, on any of the reading threads.
pub type OnRead<'r> = &'r (dyn Fn(ReadProgress) + Sync);

/// Reads each part into one buffer.
pub(crate) struct WholePart;

impl Chunking for WholePart {
    fn next_lengths(&self, _part: &str, _read: usize, _last: &[u8]) -> Vec<usize> {
        Vec::new()
    }
}

/// A generation that was read from disk, with every byte verified.
#[derive(Debug)]
pub struct Generation {
    manifest: Manifest,
    parts: Vec<(String, Vec<Buffer>)>,
}

impl Generation {
    /// The generation's number.
    pub fn id(&self) -> GenerationId {
        self.manifest.generation
    }

    /// The parts and the state of the generation.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Takes the bytes of the part `name`; `None` if there is no such part or it was taken before. The bytes of a large
    /// part are copied. [`take_chunks`](Self::take_chunks) returns them without a copy.
    pub fn take_part(&mut self, name: &str) -> Option<Vec<u8>> {
        let whole = Buffer::concat(self.take_chunks(name)?);
        Some(
            whole
                .try_into_vec()
                .unwrap_or_else(|mapped| mapped.to_vec()),
        )
    }

    /// Like [`take_part`](Self::take_part), in the buffers that the part was read into.
    pub fn take_chunks(&mut self, name: &str) -> Option<Vec<Buffer>> {
        let at = self.parts.iter().position(|(part, _)| part == name)?;
        Some(self.parts.swap_remove(at).1)
    }
}

/// Reads the generation `id`. The outer error does not mean that the generation is damaged.
pub(crate) fn generation(
    fs: &dyn Filesystem,
    layout: &Layout,
    id: GenerationId,
    identity: &Identity,
    chunking: &dyn Chunking,
    on_read: OnRead<'_>,
) -> Result<Result<Generation, Damage>, StoreError> {
    let manifest = match manifest(fs, layout, id, Some(identity))? {
        Ok(manifest) => manifest,
        Err(damage) => return Ok(Err(damage)),
    };
    let dir = layout.generation(id);
    let (of, done) = (manifest.bytes(), AtomicU64::new(0));
    on_read(ReadProgress { done: 0, of });
    let told = |bytes: u64| {
        let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // A part that seems damaged is read twice, so the sum can exceed the total.
        let done = done.min(of);
        on_read(ReadProgress { done, of });
    };
    let read = |entry: &PartEntry| {
        let path = dir.join(&entry.file);
        twice(|| part::read(fs, &path, entry, chunking, &told))
            .map_err(StoreError::io("read", &path, UNREAD))
    };
    let read = &read;
    let reading = manifest.parts.iter().map(|entry| {
        let place = match entry.bytes > LARGE {
            true => RunOn::NewThread,
            false => RunOn::CallingThread,
        };
        (place, move || read(entry))
    });
    let outcomes = threads::at_once("backup-read", reading);
    let mut parts = Vec::with_capacity(manifest.parts.len());
    for (entry, outcome) in manifest.parts.iter().zip(outcomes) {
        match outcome.unwrap_or_else(|panic| resume_unwind(panic))? {
            Ok(pieces) => parts.push((entry.name.clone(), pieces)),
            Err(damage) => return Ok(Err(damage)),
        }
    }
    Ok(Ok(Generation { manifest, parts }))
}

/// A manifest and its bytes.
pub(crate) struct Sealed {
    pub manifest: Manifest,
    pub bytes: Vec<u8>,
}

/// Reads the manifest of the generation `id`, and checks that it belongs to this training.
pub(crate) fn manifest(
    fs: &dyn Filesystem,
    layout: &Layout,
    id: GenerationId,
    identity: Option<&Identity>,
) -> Result<Result<Manifest, Damage>, StoreError> {
    let sealed = sealed(fs, layout, id, identity)?;
    Ok(sealed.map(|sealed| sealed.manifest))
}

/// Like [`manifest`], with the manifest's bytes.
pub(crate) fn sealed(
    fs: &dyn Filesystem,
    layout: &Layout,
    id: GenerationId,
    identity: Option<&Identity>,
) -> Result<Result<Sealed, Damage>, StoreError> {
    let place = layout.generation(id);
    let sealed = match sealed_at(fs, &place, id)? {
        Ok(sealed) => sealed,
        Err(damage) => return Ok(Err(damage)),
    };
    if let Some(identity) = identity {
        check_run(&sealed.manifest, identity, &place)?;
    }
    Ok(Ok(sealed))
}

/// Like [`sealed`], for the generation `id` at `place`, of any training.
pub(crate) fn sealed_at(
    fs: &dyn Filesystem,
    place: &Path,
    id: GenerationId,
) -> Result<Result<Sealed, Damage>, StoreError> {
    let path = place.join(MANIFEST_FILE);
    let read = twice(|| sealed_manifest(fs, &path));
    let bytes = match read.map_err(StoreError::io("read", &path, UNREAD))? {
        Ok(text) => text.into_bytes(),
        Err(damage) => return Ok(Err(damage)),
    };
    let manifest = match unsealed(&bytes, &path)? {
        Ok(manifest) => manifest,
        Err(damage) => return Ok(Err(damage)),
    };
    if manifest.generation != id {
        return Ok(Err(Damage::ManifestOfAnother {
            found: manifest.generation,
        }));
    }
    Ok(Ok(Sealed { manifest, bytes }))
}

/// Parses the bytes of the manifest file at `path`.
pub(crate) fn unsealed(bytes: &[u8], path: &Path) -> Result<Result<Manifest, Damage>, StoreError> {
    let Ok(text) = seal::unseal(bytes) else {
        return Ok(Err(Damage::ManifestChecksum));
    };
    let manifest = match parse_versioned::<Manifest>(text, path)? {
        Ok(manifest) => manifest,
        Err(error) => {
            return Ok(Err(Damage::ManifestContents {
                detail: error.to_string(),
            }));
        }
    };
    match manifest.flaw() {
        Some(detail) => Ok(Err(Damage::ManifestContents { detail })),
        None => Ok(Ok(manifest)),
    }
}

/// Checks that the manifest of the generation at `place` belongs to the directory's training.
pub(crate) fn check_run(
    manifest: &Manifest,
    identity: &Identity,
    place: &Path,
) -> Result<(), StoreError> {
    if identity.run_id != manifest.run_id {
        return Err(StoreError::AnotherRun {
            path: place.to_path_buf(),
            found: manifest.run_id.clone(),
            expected: identity.run_id.clone(),
        });
    }
    if identity.run_seed != manifest.run_seed {
        return Err(StoreError::AnotherSeed {
            path: place.to_path_buf(),
            found: manifest.run_seed,
            expected: identity.run_seed,
        });
    }
    Ok(())
}

/// The text of a manifest with an intact seal.
fn sealed_manifest(fs: &dyn Filesystem, path: &Path) -> io::Result<Result<String, Damage>> {
    let bytes = match read_small(fs, path, MAX_MANIFEST_BYTES)? {
        Small::Whole(bytes) => bytes,
        Small::Missing => return Ok(Err(Damage::ManifestMissing)),
        Small::NotAFile | Small::TooLong => {
            return Ok(Err(Damage::ManifestSize {
                limit: MAX_MANIFEST_BYTES,
            }));
        }
    };
    if seal::unseal(&bytes).is_err() {
        return Ok(Err(Damage::ManifestChecksum));
    }
    Ok(String::from_utf8(bytes).map_err(|_| Damage::ManifestChecksum))
}

/// Reads once more what can't be read, or has unexpected bytes, because a network error may be temporary.
fn twice<T>(read: impl Fn() -> io::Result<Result<T, Damage>>) -> io::Result<Result<T, Damage>> {
    match read() {
        Err(error) => log::warn!(target: LOG, "reading once more after an error: {error}"),
        Ok(Err(
            damage @ (Damage::ManifestChecksum
            | Damage::PartLength { .. }
            | Damage::PartHash { .. }
            | Damage::BlockHash { .. }),
        )) => log::warn!(target: LOG, "reading once more: {damage}"),
        outcome => return outcome,
    }
    read()
}

/// Parses a sealed document after a check of its version. A newer version is an error, whatever the rest of the
/// document is.
pub(crate) fn parse_versioned<T: DeserializeOwned>(
    text: &str,
    path: &Path,
) -> Result<Result<T, serde_json::Error>, StoreError> {
    check_version(text, path)?;
    Ok(serde_json::from_str(text))
}

/// Refuses a sealed document of a newer version.
pub(crate) fn check_version(text: &str, path: &Path) -> Result<(), StoreError> {
    /// The fields that every newer version certainly has.
    #[derive(Deserialize)]
    struct Versioned {
        #[serde(default)]
        format: serde_json::Value,
    }
    let format = serde_json::from_str::<Versioned>(text).map(|document| document.format);
    match format.ok().and_then(|format| format.as_u64()) {
        Some(found) if found > u64::from(FORMAT_VERSION) => Err(StoreError::NewerFormat {
            path: path.to_path_buf(),
            found,
            supported: FORMAT_VERSION,
        }),
        _ => Ok(()),
    }
}

/// The outcome of reading a small file.
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
    let len = file.len()?;
    if len > limit {
        return Ok(Small::TooLong);
    }
    let mut bytes = Vec::new();
    let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
    bytes.try_reserve_exact(len)?;
    bytes.resize(len, 0);
    // The file may be shrinking.
    let read = file.read_full_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(Small::Whole(bytes))
}
