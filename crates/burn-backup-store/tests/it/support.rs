use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once};

use burn_backup_store::{
    Committed, Filesystem, Generation, OpenOptions, PartDigest, Staging, Store, StoreError,
};
use serde_json::json;
use tempfile::TempDir;

/// A backup directory that is removed at the end of the test.
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

/// The parts of every generation of [`save`].
pub const PARTS: [&str; 3] = ["model", "optimizer", FROZEN];

/// The part that has the same bytes in every generation.
pub const FROZEN: &str = "frozen";

/// Saves parts whose contents depend on the number, and [`FROZEN`].
///
/// [`FROZEN`] is linked to the previous generation if that was read or committed, and written
/// otherwise.
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

/// Stages a part whose bytes are known: linked if possible. Returns whether it was linked.
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
    assert_eq!(
        generation.manifest().state::<serde_json::Value>().unwrap()["number"],
        number
    );
    assert!(is_whole(&mut generation));
}

/// Whether a generation has exactly the parts of [`save`].
pub fn is_whole(generation: &mut Generation) -> bool {
    has_parts(generation, &PARTS)
}

/// Whether a generation has exactly these parts of [`save`].
pub fn has_parts(generation: &mut Generation, parts: &[&str]) -> bool {
    let number = generation.manifest().state::<serde_json::Value>().unwrap()["number"].as_u64();
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

/// The names without the directory of files to be overwritten.
pub fn names_besides_spare(dir: impl AsRef<Path>) -> Vec<String> {
    let mut names = names(dir);
    let spare = |name: &String| name.starts_with(".staging-removed-generations+");
    if let Some(at) = names.iter().position(spare) {
        names.remove(at);
    }
    names
}

/// The inode number of a file, and its number of names.
#[cfg(unix)]
pub fn inode(path: impl AsRef<Path>) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;

    let metadata = std::fs::symlink_metadata(path).unwrap();
    (metadata.ino(), metadata.nlink())
}

/// Every file and directory below `dir`, with a hash of each file's contents except the lock file's.
pub fn tree(dir: impl AsRef<Path>) -> BTreeMap<PathBuf, u64> {
    let mut tree = BTreeMap::new();
    let mut open = vec![dir.as_ref().to_path_buf()];
    while let Some(dir) = open.pop() {
        for name in names(&dir) {
            let path = dir.join(&name);
            let contents = match path.is_dir() {
                true => 0,
                false if name == "lock" => 0,
                false => BuildHasherDefault::<DefaultHasher>::default()
                    .hash_one(std::fs::read(&path).unwrap()),
            };
            if path.is_dir() {
                open.push(path.clone());
            }
            tree.insert(path, contents);
        }
    }
    tree
}

/// The warnings and errors that were logged so far and contain `path`.
pub fn warnings(path: &Path) -> Vec<String> {
    let path = path.display().to_string();
    let logged = LOGGED.lock().unwrap();
    let about = logged.iter().filter(|line| line.contains(&path));
    about.cloned().collect()
}

/// Collects warnings from now on.
pub fn collect_warnings() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Collector).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
    });
}

static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Collector;

impl log::Log for Collector {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LOGGED.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

/// Runs `body` in its own process, started by a shell after `setup`, in the directory `dir`. `test`
/// is the full name of the calling test.
#[cfg(unix)]
pub fn in_a_process(test: &str, setup: &str, dir: &Path, body: impl FnOnce()) {
    const CHILD: &str = "BURN_BACKUP_STORE_TEST_CHILD";

    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    let program = std::env::current_exe().unwrap();
    let status = std::process::Command::new("sh")
        .args([
            "-c",
            &format!("{setup}; exec \"$0\" --exact \"$1\""),
            program.to_str().unwrap(),
            test,
        ])
        .current_dir(dir)
        .env(CHILD, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}
