use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn_backup_store::{
    Committed, Filesystem, Generation, OpenOptions, PartDigest, Staging, Store, StoreError,
};
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

    /// Opens the directory with `filesystem` for every call.
    pub fn open_through(&self, filesystem: impl Filesystem) -> Store {
        let options = OpenOptions::default().filesystem(Arc::new(filesystem));
        Store::open(self.root(), options).unwrap()
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

/// What [`save`] gives every generation.
pub const PARTS: [&str; 3] = ["model", "optimizer", FROZEN];

/// The part that has the same bytes in every generation.
pub const FROZEN: &str = "frozen";

/// Parts whose contents tell which generation they are of, and [`FROZEN`], which is linked to the
/// generation before if that was read or committed, and written if not.
pub fn save(store: &Store, number: u64) -> Result<Committed, StoreError> {
    let mut staging = store.stage()?;
    for name in PARTS {
        match name {
            FROZEN => link_or_write(&mut staging, name, contents(name, number)).map(drop)?,
            _ => write(&mut staging, name, contents(name, number))?,
        }
    }
    staging.commit(json!({ "number": number }))
}

/// Stages a part as a program does that knows its bytes: linked if possible. Says whether it was.
pub fn link_or_write(
    staging: &mut Staging<'_>,
    name: &str,
    bytes: Vec<u8>,
) -> Result<bool, StoreError> {
    let is_linked = staging.link(name, &digest(&bytes))?;
    if !is_linked {
        write(staging, name, bytes)?;
    }
    Ok(is_linked)
}

pub fn write(staging: &mut Staging<'_>, name: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
    let mut part = staging.part(name)?;
    part.append(bytes)?;
    part.finish()
}

pub fn digest(bytes: &[u8]) -> PartDigest {
    let mut digest = PartDigest::default();
    digest.update(bytes);
    digest
}

pub fn contents(name: &str, number: u64) -> Vec<u8> {
    match name {
        FROZEN => b"frozen in all; ".repeat(20),
        _ => format!("{name} of {number}; ").into_bytes().repeat(100),
    }
}

/// The length of the part that can be linked, in bytes.
pub fn frozen_bytes() -> u64 {
    contents(FROZEN, 0).len() as u64
}

#[track_caller]
pub fn assert_is(generation: Option<Generation>, number: u64) {
    let mut generation = generation.unwrap();
    assert_eq!(generation.manifest().state["number"], number);
    assert!(is_whole(&mut generation));
}

/// Whether a generation has the parts that [`save`] gave it, and no other.
pub fn is_whole(generation: &mut Generation) -> bool {
    has_parts(generation, &PARTS)
}

/// Whether a generation has these parts of those that [`save`] gives it, and no other.
pub fn has_parts(generation: &mut Generation, parts: &[&str]) -> bool {
    let number = generation.manifest().state["number"].as_u64();
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

/// The number of a file and how many names it has.
#[cfg(unix)]
pub fn inode(path: impl AsRef<Path>) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;

    let metadata = std::fs::symlink_metadata(path).unwrap();
    (metadata.ino(), metadata.nlink())
}
