//! Filesystems for tests, and random damage. One filesystem fails where a test tells it to. One is in memory, records
//! every change, and knows what a power cut could leave of the changes.
//!
//! # Example
//!
//! A power cut in the middle of a save leaves the old generation or the new one:
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

pub use edit::{FOREIGN_FILE, below, edit, edit_each};
pub use faulty::{Failure, Fault, FaultyFilesystem, Operation};
pub use image::{Image, Node};
pub use memory::MemoryFilesystem;
pub use threads::Threads;

/// Prints a figure to standard error, even if the test passes.
pub fn report(figure: &str) {
    // Output of eprintln! would be captured. A failure to print must not fail the test.
    let _ = std::io::stderr().write_all(format!("{figure}\n").as_bytes());
}

/// Writes a JSON object as a document with a valid seal, whatever it contains: `manifest.json` and `burn-backup.json`
/// are such documents.
///
/// # Errors
///
/// None that the contents of a [`Map`] can cause.
pub fn seal(document: &Map<String, Value>) -> serde_json::Result<Vec<u8>> {
    crate::seal::seal(document)
}
