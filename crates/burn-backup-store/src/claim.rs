//! Taking possession of a backup directory: made when missing, durable in its parent, locked.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;

use crate::error::{StoreError, UNCHANGED};
use crate::fs::{EntryKind, Filesystem, HeldLock, LockAttempt};
use crate::layout::Layout;
use crate::verify::{self, Small};

const LOG: &str = "burn_backup::discover";

/// How often a training that ends meanwhile may take the directory away before that is an error.
const CLAIMS: usize = 100;

/// Creates the directory when missing, makes it durable, and locks it.
pub(crate) fn claim(fs: &dyn Filesystem, layout: &Layout) -> Result<Box<dyn HeldLock>, StoreError> {
    let mut claims = 0;
    loop {
        create_root(fs, layout.root())?;
        claims += 1;
        match lock(fs, layout) {
            Err(StoreError::Io { source, .. })
                if source.kind() == ErrorKind::NotFound && claims < CLAIMS => {}
            locked => return locked,
        }
    }
}

/// What every owner's line in the lock file begins with.
const OWNER: &str = "process ";

/// A lock file has one short line.
const MAX_LOCK_BYTES: u64 = 4096;

fn lock(fs: &dyn Filesystem, layout: &Layout) -> Result<Box<dyn HeldLock>, StoreError> {
    let path = layout.lock();
    if !is_ours(fs, layout, &path)? {
        return Err(StoreError::Foreign { path });
    }
    let program = std::env::current_exe()
        .ok()
        .and_then(|path| path.file_name().map(|n| n.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "unknown program".to_owned());
    let owner = format!(
        "{OWNER}{} ({program}) since {}",
        std::process::id(),
        Timestamp::now().strftime("%Y-%m-%d %H:%M:%S UTC"),
    );
    let attempt = fs.lock(&path, &owner);
    let attempt = attempt.map_err(|error| match error.kind() {
        // It came between the look and the lock.
        ErrorKind::InvalidInput => StoreError::Foreign { path: path.clone() },
        _ => StoreError::io("lock", &path, UNCHANGED)(error),
    });
    match attempt? {
        LockAttempt::Held(guard) => Ok(guard),
        LockAttempt::Busy { owner } if owner.is_empty() => Err(StoreError::InUse {
            path: layout.root().to_path_buf(),
            owner: "another process".to_owned(),
        }),
        LockAttempt::Busy { owner } => Err(StoreError::InUse {
            path: layout.root().to_path_buf(),
            owner,
        }),
    }
}

/// Whether the lock file at `path` can be one of this crate's, whose contents are of no value.
fn is_ours(fs: &dyn Filesystem, layout: &Layout, path: &Path) -> Result<bool, StoreError> {
    let kind = |path: &Path| {
        fs.kind(path)
            .map_err(StoreError::io("look at", path, UNCHANGED))
    };
    match kind(path)? {
        None => Ok(true),
        Some(EntryKind::Dir | EntryKind::Other) => Ok(false),
        // In a backup directory it is, damaged or not.
        Some(EntryKind::File) if kind(&layout.identity())?.is_some() => Ok(true),
        Some(EntryKind::File) => match verify::read_small(fs, path, MAX_LOCK_BYTES) {
            Ok(Small::Whole(line)) => Ok(is_owner_line(&line)),
            Ok(Small::NotAFile | Small::TooLong) => Ok(false),
            // On some systems a locked file can't be read; it is busy then.
            Ok(Small::Missing) | Err(_) => Ok(true),
        },
    }
}

/// Who used a directory last, by its lock file at `path`; `None` if that says nothing.
pub(crate) fn owner(fs: &dyn Filesystem, path: &Path) -> std::io::Result<Option<String>> {
    Ok(match verify::read_small(fs, path, MAX_LOCK_BYTES)? {
        Small::Whole(line) => {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            Some(line).filter(|line| line.starts_with(OWNER))
        }
        _ => None,
    })
}

/// What this crate writes into the lock file, or what a kill or a power cut can leave of it.
fn is_owner_line(line: &[u8]) -> bool {
    let owner = OWNER.as_bytes();
    line.starts_with(owner) || owner.starts_with(line) || line.iter().all(|byte| *byte == 0)
}

/// Creates `dir` and its missing parents. They may be links. Each is made durable in its own parent,
/// `dir` also if it is there: who made it may not have come to that.
fn create_root(fs: &dyn Filesystem, dir: &Path) -> Result<(), StoreError> {
    create_dirs(fs, dir)?;
    let Some(parent) = parent(dir) else {
        return Ok(());
    };
    match fs.sync_dir(&parent) {
        // It is not ours, and nothing in it was made here.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            log::debug!(target: LOG, "'{}' can't be synced: {error}", parent.display());
            Ok(())
        }
        synced => synced.map_err(StoreError::io("sync", &parent, UNCHANGED)),
    }
}

/// The directory that `dir` is in; none for the root of all.
fn parent(dir: &Path) -> Option<PathBuf> {
    match dir.components().next_back() {
        // Where that leads to, the system knows.
        Some(Component::ParentDir) => Some(dir.join("..")),
        Some(Component::Normal(_)) => dir.parent().map(Path::to_path_buf),
        _ => None,
    }
}

fn create_dirs(fs: &dyn Filesystem, dir: &Path) -> Result<(), StoreError> {
    let failed = |operation| StoreError::io(operation, dir, UNCHANGED);
    match fs.kind(dir).map_err(failed("look at"))? {
        Some(EntryKind::Dir) => return Ok(()),
        Some(EntryKind::Other) if fs.list(dir).is_ok() => return Ok(()),
        Some(_) => {
            return Err(StoreError::NotADirectory {
                path: dir.to_path_buf(),
            });
        }
        None => {}
    }
    // With it, what ends in `..` is there too.
    if let Some(before) = dir.parent() {
        create_root(fs, before)?;
    }
    match fs.create_dir(dir) {
        // Another training may have made it meanwhile, for a directory of its own below.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => create_dirs(fs, dir),
        created => created.map_err(failed("create")),
    }
}

/// Refuses a directory in which `generations` is somebody else's.
pub(crate) fn refuse_foreign_generations(
    fs: &dyn Filesystem,
    layout: &Layout,
) -> Result<(), StoreError> {
    let dir = layout.generations();
    match fs.kind(&dir) {
        Ok(None | Some(EntryKind::Dir)) => Ok(()),
        Ok(Some(_)) => Err(StoreError::Foreign { path: dir }),
        Err(error) => Err(StoreError::io("look at", &dir, UNCHANGED)(error)),
    }
}

/// Makes `generations`, if it is not there.
pub(crate) fn create_generations(fs: &dyn Filesystem, layout: &Layout) -> Result<(), StoreError> {
    refuse_foreign_generations(fs, layout)?;
    let dir = layout.generations();
    let failed = |operation| StoreError::io(operation, &dir, UNCHANGED);
    if fs.kind(&dir).map_err(failed("look at"))?.is_some() {
        return Ok(());
    }
    fs.create_dir(&dir)
        .and_then(|()| fs.sync_dir(layout.root()))
        .map_err(failed("create"))
}
