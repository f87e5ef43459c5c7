use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn_backup_store::{Committed, Filesystem, Generation, OpenOptions, Store, StoreError};
use serde_json::json;
use tempfile::TempDir;

/// A backup directory that goes with the test.
pub struct Scratch {
    temporary: TempDir,
}

impl Scratch {
    pub fn new() -> Self {
        Self {
            temporary: tempfile::tempdir().unwrap(),
        }
    }

    pub fn root(&self) -> PathBuf {
        self.temporary.path().join("backup")
    }

    pub fn generation(&self, number: u64) -> PathBuf {
        self.root().join("generations").join(format!("{number:08}"))
    }

    pub fn quarantined(&self, number: u64) -> PathBuf {
        self.root().join("quarantine").join(format!("{number:08}"))
    }

    pub fn open(&self) -> Store {
        Store::open(self.root(), OpenOptions::default()).unwrap()
    }

    /// Commits the generations 1 to `count` and closes the directory.
    pub fn with_generations(self, count: u64) -> Self {
        let store = self.open();
        for number in 1..=count {
            let _ = save(&store, number).unwrap();
        }
        drop(store);
        self
    }
}

/// The backup directory on disks in memory.
pub const DIR: &str = "backup";

/// Opens [`DIR`] on a disk.
pub fn open_on(disk: impl Filesystem) -> Result<Store, StoreError> {
    Store::open(DIR, OpenOptions::default().filesystem(Arc::new(disk)))
}

/// Two parts whose contents tell which generation they are of.
pub fn save(store: &Store, number: u64) -> Result<Committed, StoreError> {
    let mut staging = store.stage()?;
    for name in ["model", "optimizer"] {
        let mut part = staging.part(name)?;
        part.append(contents(name, number))?;
        part.finish()?;
    }
    staging.commit(json!({ "number": number }))
}

pub fn contents(name: &str, number: u64) -> Vec<u8> {
    format!("{name} of {number}; ").into_bytes().repeat(100)
}

#[track_caller]
pub fn assert_is(generation: Option<Generation>, number: u64) {
    let mut generation = generation.unwrap();
    assert_eq!(generation.manifest().state["number"], number);
    assert!(is_whole(&mut generation));
}

/// Whether a generation has the parts that [`save`] gave it, and no other.
pub fn is_whole(generation: &mut Generation) -> bool {
    let number = generation.manifest().state["number"].as_u64();
    let parts = ["model", "optimizer"];
    generation.manifest().parts.len() == parts.len()
        && parts.iter().all(|name| {
            let expected = number.map(|number| contents(name, number));
            expected.is_some() && generation.take_part(name) == expected
        })
}

/// The names in a directory, sorted.
pub fn names(dir: impl AsRef<Path>) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
