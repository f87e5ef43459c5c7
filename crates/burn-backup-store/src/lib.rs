//! Stores generations of named parts on disk, for programs that must find their last good state after any crash.
//!
//! A *generation* is a set of named parts (opaque bytes) and a state document, which are written together. After a
//! crash the whole generation exists, or none of it. The crate does not interpret the parts.
//!
//! ```text
//! save:     stage -> part, part, .. -> commit -> prune
//! restore:  discover -> verify
//!
//! <backup_dir>/
//!   burn-backup.json            what this directory is: format version, run id, run seed
//!   lock                        held (flock) while a process uses the directory
//!   generations/00000007/
//!     manifest.json             parts (file, bytes, hash), state; ends with its own checksum
//!     <part>.bpk
//!   .staging-*/                 never read; swept at the next open, or written over
//!   quarantine/00000006/        a damaged generation and reason.txt
//!   aside/00000008/             left behind when the training went back to an older one
//! ```
//!
//! # Example
//!
//! ```
//! use burn_backup_store::{OpenOptions, Store};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let temporary = tempfile::tempdir()?;
//! # let dir = temporary.path().join("backup");
//! let store = Store::open(&dir, OpenOptions::default())?;
//! assert!(store.newest()?.is_none());
//!
//! let mut staging = store.stage()?;
//! let mut part = staging.part("model")?;
//! part.append(b"weights")?;
//! part.finish()?;
//! let committed = staging.commit(serde_json::json!({ "step": 1 }))?;
//! store.prune(&committed, 1)?;
//!
//! let mut newest = store.newest()?.ok_or("committed, so it is there")?;
//! assert_eq!(newest.take_part("model").as_deref(), Some(b"weights".as_slice()));
//! let state: serde_json::Value = newest.manifest().state()?;
//! assert_eq!(state["step"], 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Where the guarantees stop
//!
//! A returned [`Committed`] means that the generation survives the death of the process on every platform. It also
//! survives a power loss on Unix file systems that honour `fsync`. On Windows, directories cannot be synced. On network
//! file systems, the lock and `fsync` are only as good as the server makes them. The same holds for a [`Generation`]
//! that [`Store::newest`] returned.
//!
//! Another program may remove or rename the directory while it is in use. The store compares its lock with the file at
//! the path before and after each rename. It never changes what another process has begun there. Between the two
//! checks, a renamed file or directory can be out of its place for a moment.
//!
//! The feature `testing` has filesystems that fail and lose power. It is exempt from semantic versioning.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod adopt;
mod aside;
mod blocks;
mod buffer;
mod claim;
mod commit;
mod deletion;
mod directory;
mod discover;
mod error;
mod establish;
mod files;
mod formats;
mod fs;
mod identity;
mod identity_file;
mod index;
mod layout;
mod manifest;
mod newest;
mod observe;
mod open;
mod ownership;
mod part_reader;
mod path;
mod persist;
mod pin;
mod prune;
mod quarantine;
mod remove;
mod seal;
mod store;
mod sweep;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod threads;
mod tolerant;
mod verify;

pub use adopt::{AdoptedPart, Adoption};
pub use blocks::{Hash, PartDigest};
pub use buffer::Buffer;
pub use commit::Committed;
pub use error::{Damage, StoreError};
pub use fs::{
    Entry, EntryKind, Filesystem, HeldLock, LockAttempt, ReadFile, RealFilesystem, WriteFile,
};
pub use identity::Identity;
pub use layout::GenerationId;
pub use manifest::{FORMAT_VERSION, Manifest, PartEntry};
pub use observe::{Aside, Observation, Observer, OpenGeneration, Quarantine, Use};
pub use open::OpenOptions;
pub use part_reader::PartReader;
pub use persist::{PartWriter, Staging};
pub use pin::Pinned;
pub use prune::{Decide, to_prune};
pub use store::Store;
pub use verify::{Chunking, Generation, OnRead, ReadProgress};
