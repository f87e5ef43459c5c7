//! Adopting a generation that another store committed: the same parts, and the same manifest, byte for byte.

use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use crate::blocks::{BLOCK_BYTES, Hash};
use crate::commit::Committed;
use crate::error::{Damage, NOT_COMMITTED, StoreError};
use crate::identity::Identity;
use crate::layout::{GenerationId, MANIFEST_FILE};
use crate::manifest::{FORMAT_VERSION, Manifest, PartEntry};
use crate::ownership::IfGone;
use crate::persist::{PartWriter, Staging};
use crate::store::Store;
use crate::{discover, identity_file, verify};

/// A generation that is being copied into a store. It exists only after [`commit`](Self::commit) has succeeded. If it
/// is dropped before, it leaves nothing behind.
pub struct Adoption<'s> {
    staging: Staging<'s>,
    manifest: Manifest,
    sealed: Vec<u8>,
    /// The hashes of parts that have several blocks, but whose entries have only one hash.
    whole: Vec<(String, Hash)>,
}

/// A part that is being copied into a store.
pub struct AdoptedPart<'a, 's> {
    writer: PartWriter<'a, 's>,
    whole: Option<Whole<'a>>,
}

/// A part of several blocks whose entry has only one hash.
struct Whole<'a> {
    name: String,
    hasher: Xxh3,
    hashes: &'a mut Vec<(String, Hash)>,
}

impl Manifest {
    /// Parses the bytes of a manifest, which end with its seal.
    ///
    /// # Errors
    ///
    /// [`StoreError::NewerFormat`], and [`StoreError::Damaged`].
    pub fn unseal(sealed: &[u8]) -> Result<Self, StoreError> {
        verify::unsealed(sealed, Path::new(MANIFEST_FILE))?.map_err(StoreError::damaged)
    }
}

impl Store {
    /// Makes the directory belong to another training, so that it can adopt a generation of that training.
    ///
    /// # Errors
    ///
    /// [`StoreError::AnotherRun`] if the directory has generations of the current training, [`StoreError::Gone`] and
    /// [`StoreError::TakenOver`] if the directory no longer belongs to this store, and [`StoreError::Io`].
    pub fn become_run(&mut self, run_id: &str, run_seed: u64) -> Result<(), StoreError> {
        if self.identity.run_id == run_id && self.identity.run_seed == run_seed {
            return Ok(());
        }
        self.ensure_owned(IfGone::Fail)?;
        let (fs, layout) = (self.dir.fs(), &self.dir.layout);
        if let Some(newest) = discover::generations(fs, layout)?.first() {
            return Err(StoreError::AnotherRun {
                path: layout.generation(*newest),
                found: self.identity.run_id.clone(),
                expected: run_id.to_owned(),
            });
        }
        let identity = Identity {
            format: FORMAT_VERSION,
            run_id: run_id.to_owned(),
            run_seed,
        };
        identity_file::write(fs, layout, &identity)?;
        self.identity = identity;
        Ok(())
    }

    /// Whether the directory has anything that was committed: in place, in the quarantine, or set aside.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the directory can't be read.
    pub fn has_backup(&self) -> Result<bool, StoreError> {
        let (fs, layout) = (self.dir.fs(), &self.dir.layout);
        let in_place = discover::generations(fs, layout)?;
        Ok(!in_place.is_empty()
            || !discover::quarantined(fs, layout)?.is_empty()
            || !discover::set_aside(fs, layout)?.is_empty())
    }

    /// Gives the next generation a greater number than `id`.
    pub fn count_from(&self, id: GenerationId) {
        self.index.last(id);
    }

    /// The greatest number of any generation that this store knows of, wherever the generation is.
    pub fn greatest(&self) -> GenerationId {
        self.index.last(GenerationId::default())
    }

    /// Begins to adopt the generation whose manifest is `sealed`.
    ///
    /// # Errors
    ///
    /// - [`StoreError::NewerFormat`], or [`StoreError::Damaged`] if the manifest is damaged.
    /// - [`StoreError::AnotherRun`] or [`StoreError::AnotherSeed`] if it belongs to another training.
    /// - [`StoreError::NumberTaken`] if there is a generation with that number.
    /// - [`StoreError::Gone`] or [`StoreError::TakenOver`] if the directory no longer belongs to this store.
    /// - [`StoreError::Io`].
    pub fn adopt(&self, sealed: &[u8]) -> Result<Adoption<'_>, StoreError> {
        self.adopt_inner(sealed)
            .map_err(|error| self.explain(error))
    }

    fn adopt_inner(&self, sealed: &[u8]) -> Result<Adoption<'_>, StoreError> {
        let layout = &self.dir.layout;
        let manifest = Manifest::unseal(sealed)?;
        let id = manifest.generation;
        let place = layout.generation(id);
        verify::check_run(&manifest, &self.identity, &place)?;
        self.ensure_owned(IfGone::Create)?;
        let there = self.dir.fs().kind(&place);
        if there
            .map_err(StoreError::io("inspect", &place, NOT_COMMITTED))?
            .is_some()
        {
            return Err(StoreError::NumberTaken { path: place });
        }
        Ok(Adoption {
            staging: Staging::create(self, id)?,
            manifest,
            sealed: sealed.to_vec(),
            whole: Vec::new(),
        })
    }
}

impl<'s> Adoption<'s> {
    /// The parts and the state of the generation.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Begins a part. Its bytes must be added in order.
    ///
    /// # Errors
    ///
    /// The errors of [`Staging::part`].
    pub fn part(&mut self, entry: &PartEntry) -> Result<AdoptedPart<'_, 's>, StoreError> {
        let is_whole = entry.blocks.is_empty() && entry.bytes > BLOCK_BYTES as u64;
        Ok(AdoptedPart {
            writer: self.staging.part(&entry.name)?,
            whole: is_whole.then(|| Whole {
                name: entry.name.clone(),
                hasher: Xxh3::new(),
                hashes: &mut self.whole,
            }),
        })
    }

    /// Commits the generation to this store, if every part matches the manifest.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] if a part does not match, and the errors of [`Staging::commit`].
    pub fn commit(self) -> Result<Committed, StoreError> {
        let store = self.staging.store;
        self.commit_inner().map_err(|error| store.explain(error))
    }

    fn commit_inner(mut self) -> Result<Committed, StoreError> {
        let found = self.staging.join()?;
        for expected in &self.manifest.parts {
            let part = found.iter().find(|part| part.name == expected.name);
            let whole = self.whole.iter().find(|(name, _)| *name == expected.name);
            let checked = check(expected, part, whole.map(|(_, hash)| *hash));
            checked.map_err(StoreError::damaged)?;
        }
        self.staging.place(&self.sealed, self.manifest)
    }
}

fn check(
    expected: &PartEntry,
    found: Option<&PartEntry>,
    whole: Option<Hash>,
) -> Result<(), Damage> {
    let file = || expected.file.clone();
    let Some(found) = found else {
        return Err(Damage::PartMissing { file: file() });
    };
    if found.bytes != expected.bytes {
        return Err(Damage::PartLength {
            file: file(),
            expected: expected.bytes,
            found: found.bytes,
        });
    }
    let blocks = found.blocks.iter().zip(&expected.blocks);
    if let Some(damaged) = blocks
        .clone()
        .position(|(found, expected)| found != expected)
    {
        let offset = damaged as u64 * BLOCK_BYTES as u64;
        return Err(Damage::BlockHash {
            file: file(),
            offset,
            bytes: (expected.bytes - offset).min(BLOCK_BYTES as u64),
        });
    }
    match whole.unwrap_or(found.xxh3_128) == expected.xxh3_128 {
        true => Ok(()),
        false => Err(Damage::PartHash { file: file() }),
    }
}

impl AdoptedPart<'_, '_> {
    /// Adds bytes.
    ///
    /// # Errors
    ///
    /// The errors of [`PartWriter::append`].
    pub fn append(
        &mut self,
        chunk: impl AsRef<[u8]> + Send + Sync + 'static,
    ) -> Result<(), StoreError> {
        if let Some(whole) = &mut self.whole {
            whole.hasher.update(chunk.as_ref());
        }
        self.writer.append(chunk)
    }

    /// Ends the part.
    ///
    /// # Errors
    ///
    /// The errors of [`PartWriter::finish`].
    pub fn finish(self) -> Result<(), StoreError> {
        if let Some(whole) = self.whole {
            let hash = Hash::finish(&whole.hasher);
            whole.hashes.push((whole.name, hash));
        }
        self.writer.finish()
    }
}
