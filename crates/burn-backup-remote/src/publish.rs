//! Puts a generation into the mirror: first the missing parts, then the manifest.

mod part;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use burn_backup_store::{GenerationId, PartEntry, Pinned};
use bytes::Bytes;
use object_store::MultipartUpload;
use object_store::path::Path;

use crate::document::{self, Document};
use crate::error::MirrorError;
use crate::keys::{Keys, Ordinal, PartRef};
use crate::lease::{Lease, LeaseDocument};
use crate::pace::Pace;
use crate::place::{Place, Put};
use crate::prune::UnreferencedParts;

/// The state for putting generations into the mirror.
pub(crate) struct Publisher {
    pub place: Place,
    pub keys: Keys,
    pub lease: Arc<Lease>,
    pub pace: Arc<Pace>,
    pub contents: Contents,
    pub retired: UnreferencedParts,
    pub sent: Arc<Sent>,
    /// The part that is being put in pieces. An upload can't be shared between threads, but a mutex can.
    pub open: Mutex<Option<Upload>>,
}

/// A part that is being put in pieces.
pub(crate) struct Upload {
    pub path: Path,
    pub pieces: Box<dyn MultipartUpload>,
}

/// The known contents of the mirror.
#[derive(Default)]
pub(crate) struct Contents {
    /// The keys of parts that were hashed before, by their hash in a manifest and their length.
    hashes: HashMap<(String, u64), PartRef>,
    /// The generations that are whole.
    generations: HashMap<Ordinal, WholeGeneration>,
    /// The parts that this process has put and that no generation names yet.
    loose: HashSet<PartRef>,
}

/// A whole generation.
struct WholeGeneration {
    parts: Vec<PartRef>,
    manifest: String,
}

/// The amount of data sent.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// The bytes sent for all generations.
    pub total: AtomicU64,
    /// The bytes sent for the current generation, including those that the mirror already had.
    pub done: AtomicU64,
    /// The length of the current generation, in bytes.
    pub of: AtomicU64,
}

impl Sent {
    fn begins(&self, bytes: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.of.store(bytes, Ordering::Relaxed);
    }

    fn add(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
        self.skip(bytes);
    }

    /// Counts bytes that the mirror already has.
    fn skip(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Contents {
    /// Records a whole generation. Returns the parts that were put and that it does not name.
    pub(crate) fn learn(&mut self, ordinal: Ordinal, document: Document) -> HashSet<PartRef> {
        let Document {
            parts, manifest, ..
        } = document;
        self.generations
            .insert(ordinal, WholeGeneration { parts, manifest });
        let mut loose = std::mem::take(&mut self.loose);
        loose.retain(|part| !self.has(part));
        loose
    }

    /// Records where the parts of a manifest are.
    pub(crate) fn learn_hash(&mut self, entry: &PartEntry, part: &PartRef) {
        self.hashes.insert(name(entry), part.clone());
    }

    /// The number of the newest whole generation.
    pub(crate) fn newest(&self) -> Option<GenerationId> {
        self.generations.keys().map(|ordinal| ordinal.number).max()
    }

    pub(crate) fn has_generation(&self, ordinal: Ordinal) -> bool {
        self.generations.contains_key(&ordinal)
    }

    /// Whether the mirror has the part, and keeps it.
    pub(crate) fn has(&self, part: &PartRef) -> bool {
        let mut named = self.generations.values().flat_map(|whole| &whole.parts);
        self.loose.contains(part) || named.any(|there| there == part)
    }

    /// Whether the mirror has a generation with this manifest.
    fn has_manifest(&self, sealed: &[u8]) -> bool {
        let mut there = self.generations.values();
        there.any(|whole| whole.manifest.as_bytes() == sealed)
    }

    /// All parts that a generation names, or will name.
    pub(crate) fn live(&self) -> HashSet<PartRef> {
        let named = self.generations.values().flat_map(|whole| &whole.parts);
        named.chain(&self.loose).cloned().collect()
    }

    /// Forgets a generation. Returns those of its parts that no other generation names.
    pub(crate) fn forget(&mut self, ordinal: Ordinal) -> Vec<PartRef> {
        let forgotten = self.generations.remove(&ordinal);
        let mut parts = forgotten.map(|whole| whole.parts).unwrap_or_default();
        parts.retain(|part| !self.has(part));
        let live = self.live();
        self.hashes.retain(|_, part| live.contains(part));
        parts
    }
}

/// The identity of a part's contents in a manifest.
fn name(entry: &PartEntry) -> (String, u64) {
    (entry.xxh3_128.to_string(), entry.bytes)
}

impl Publisher {
    /// Puts the generation into the mirror. When this returns, the mirror has it. Returns whether it is new there.
    ///
    /// # Errors
    ///
    /// [`MirrorError::LeaseLost`], [`MirrorError::LeaseDeleted`], [`MirrorError::LocalDamage`], errors of requests, and
    /// of the local store.
    pub(crate) async fn publish(&mut self, pinned: &Arc<Pinned>) -> Result<bool, MirrorError> {
        let manifest = pinned.manifest();
        self.sent.begins(manifest.bytes());
        if self.contents.has_manifest(pinned.sealed()) {
            return Ok(false);
        }
        let mut parts = Vec::with_capacity(manifest.parts.len());
        for entry in &manifest.parts {
            parts.push(self.provide(pinned, entry).await?);
        }
        let ordinal = Ordinal {
            epoch: self.lease.epoch().await,
            number: manifest.generation,
        };
        let document = Document::new(ordinal.epoch, self.lease.nonce(), pinned, parts);
        let path = self.keys.generation(ordinal);
        let document = document.map_err(|damage| self.place.damaged(&path, damage))?;
        // Readers find the generation by its name, even if a listing does not have it yet.
        let name = |generations: &mut Vec<Ordinal>| {
            if !generations.contains(&ordinal) {
                generations.push(ordinal);
            }
        };
        self.lease.update_generations(name).await?;
        self.seal(ordinal, document::write(&document)).await?;
        let unused = self.contents.learn(ordinal, document);
        self.retired.add(unused);
        Ok(true)
    }

    /// Puts the manifest, which makes the generation part of the mirror.
    async fn seal(&self, ordinal: Ordinal, document: Bytes) -> Result<(), MirrorError> {
        let path = self.keys.generation(ordinal);
        let when = self.lease.if_absent();
        let put = self.place.put(&path, document, when).await;
        let failure = match put {
            Ok(Put::Done(_)) => return Ok(()),
            Ok(Put::Refused) => None,
            Err(error) => Some(error),
        };
        // The put may have succeeded in spite of the error.
        match Document::get(&self.place, &path, ordinal).await {
            Ok(there) if there.nonce == self.lease.nonce() => Ok(()),
            Ok(_) => Err(self.lost().await),
            Err(error) => Err(failure.unwrap_or(error)),
        }
    }

    /// Discards the pieces of a part that will not be completed.
    pub(crate) async fn abort(&mut self) {
        let open = self.open.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(Upload { path, mut pieces }) = open.take() {
            self.place.abort(&path, &mut pieces).await;
        }
    }

    /// The error when another process has put a manifest where only the lease holder may.
    async fn lost(&self) -> MirrorError {
        let lease = LeaseDocument::get(&self.place, &self.keys).await;
        let holder = match lease {
            Ok(Some((lease, _))) if lease.nonce != self.lease.nonce() => lease.holder,
            _ => "another process".to_owned(),
        };
        MirrorError::LeaseLost {
            mirror: self.place.name.to_string(),
            holder,
        }
    }
}
