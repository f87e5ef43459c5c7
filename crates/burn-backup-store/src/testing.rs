//! Filesystems for tests: one that fails where it is told to, and one in memory that records every
//! change and knows what a power cut could leave of them. And random damage.
//!
//! # Example
//!
//! What a power cut in the middle of a save leaves is the old generation or the new one:
//!
//! ```
//! use std::sync::Arc;
//! use burn_backup_store::testing::MemoryFilesystem;
//! use burn_backup_store::{OpenOptions, Store, StoreError};
//!
//! fn open(disk: MemoryFilesystem) -> Result<Store, StoreError> {
//!     Store::open("backup", OpenOptions::default().filesystem(Arc::new(disk)))
//! }
//! fn save(store: &Store, contents: &'static [u8]) -> Result<(), StoreError> {
//!     let mut staging = store.stage()?;
//!     let mut part = staging.part("model")?;
//!     part.append(contents)?;
//!     part.finish()?;
//!     staging.commit(()).map(drop)
//! }
//!
//! # fn main() -> Result<(), StoreError> {
//! let disk = MemoryFilesystem::default();
//! let store = open(disk.clone())?;
//! save(&store, b"old")?;
//! let before = disk.changes();
//! save(&store, b"new")?;
//!
//! for cut in before..=disk.changes() {
//!     for image in disk.power_cuts(cut, 100) {
//!         let found = open(MemoryFilesystem::holding(&image))?.newest()?;
//!         let model = found.and_then(|mut generation| generation.take_part("model"));
//!         assert!(matches!(model.as_deref(), Some(b"old" | b"new")));
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod edit;
mod faulty;
mod image;
mod memory;
mod power_cut;
mod threads;

use std::io::Write as _;

use serde_json::{Map, Value};

pub use edit::{THEIRS, below, edit, edit_each};
pub use faulty::{Failure, Fault, FaultyFilesystem, Operation};
pub use image::{Image, Node};
pub use memory::MemoryFilesystem;
pub use threads::Threads;

/// Shows a figure on the standard error, of a passing test too.
pub fn report(figure: &str) {
    // Unlike what eprintln! writes, this is not captured. A test doesn't fail for want of it.
    let _ = std::io::stderr().write_all(format!("{figure}\n").as_bytes());
}

/// Writes a JSON object as a document whose seal is whole, whatever it says: `manifest.json` and
/// `burn-backup.json` are such documents.
///
/// # Errors
///
/// None that the contents of a [`Map`] could cause.
pub fn seal(document: &Map<String, Value>) -> serde_json::Result<Vec<u8>> {
    crate::seal::seal(document)
}
