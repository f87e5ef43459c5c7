//! A backup directory to be fuzzed, in memory.

use std::sync::Arc;

use burn_backup_store::testing::{Image, MemoryFilesystem};
use burn_backup_store::{Generation, OpenOptions, Store, StoreError};
use serde_json::json;

/// Where the directory is.
pub const DIR: &str = "backup";

/// Opens the directory on a disk.
pub fn open(disk: &MemoryFilesystem) -> Result<Store, StoreError> {
    let options = OpenOptions::default().filesystem(Arc::new(disk.clone()));
    Store::open(DIR, options)
}

/// Saves a generation whose parts tell its number.
pub fn save(store: &Store, number: u64) -> Result<(), StoreError> {
    let mut staging = store.stage()?;
    for name in ["model", "optimizer"] {
        let mut part = staging.part(name)?;
        part.append(&contents(name, number))?;
        part.finish()?;
    }
    let committed = staging.commit(json!({ "number": number }))?;
    store.prune(&committed, 3).map(drop)
}

fn contents(name: &str, number: u64) -> Vec<u8> {
    format!("{name} of {number}").into_bytes()
}

/// The number that a generation was saved with, if it is exactly what was saved.
pub fn number_of_whole(mut generation: Generation) -> Option<u64> {
    let number = generation.manifest().state["number"].as_u64()?;
    ["model", "optimizer"]
        .iter()
        .all(|name| generation.take_part(name) == Some(contents(name, number)))
        .then_some(number)
}

/// A disk with three generations.
pub fn three_generations() -> Image {
    let disk = MemoryFilesystem::default();
    let store = open(&disk).expect("the disk is empty");
    for number in 1..=3 {
        save(&store, number).expect("nothing fails in memory");
    }
    drop(store);
    disk.image()
}
