//! Creates a backup directory if it is missing, makes it durable in its parent, and locks it.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;

use crate::error::{StoreError, UNCHANGED};
use crate::fs::{EntryKind, Filesystem, HeldLock, LockAttempt};
use crate::layout::Layout;
use crate::verify::{self, Small};

const LOG: &str = "burn_backup::discover";

/// How often the directory may be removed by a training that ends at this moment, before this is an error.
const CLAIMS: usize = 100;

/// Creates the directory if it is missing, makes it durable, and locks it.
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

/// The beginning of every owner's line in the lock file.
const OWNER: &str = "process ";

/// A lock file has one short line.
const MAX_LOCK_BYTES: u64 = 4096;

fn lock(fs: &dyn Filesystem, layout: &Layout) -> Result<Box<dyn HeldLock>, StoreError> {
    let path = layout.lock();
    if !may_overwrite(fs, layout, &path)? {
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
        // The file was replaced between the check and the lock.
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

/// Whether this crate may overwrite the lock file at `path`: it is missing, or this crate wrote it.
fn may_overwrite(fs: &dyn Filesystem, layout: &Layout, path: &Path) -> Result<bool, StoreError> {
    let kind = |path: &Path| {
        fs.kind(path)
            .map_err(StoreError::io("inspect", path, UNCHANGED))
    };
    match kind(path)? {
        None => Ok(true),
        Some(EntryKind::Dir | EntryKind::Other) => Ok(false),
        // The lock file of a backup directory is this crate's, damaged or not.
        Some(EntryKind::File) if kind(&layout.identity())?.is_some() => Ok(true),
        Some(EntryKind::File) => match verify::read_small(fs, path, MAX_LOCK_BYTES) {
            Ok(Small::Whole(line)) => Ok(is_owner_line(&line)),
            Ok(Small::NotAFile | Small::TooLong) => Ok(false),
            // Some systems can't read a locked file. Then it is in use.
            Ok(Small::Missing) | Err(_) => Ok(true),
        },
    }
}

/// The process that last used a directory, from its lock file at `path`; `None` if the file does not tell.
pub(crate) fn owner(fs: &dyn Filesystem, path: &Path) -> std::io::Result<Option<String>> {
    Ok(match verify::read_small(fs, path, MAX_LOCK_BYTES)? {
        Small::Whole(line) => {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            Some(line).filter(|line| line.starts_with(OWNER))
        }
        _ => None,
    })
}

/// Whether `line` is what this crate writes into the lock file, or what a kill or a power cut can leave of it.
fn is_owner_line(line: &[u8]) -> bool {
    let owner = OWNER.as_bytes();
    line.starts_with(owner) || owner.starts_with(line) || line.iter().all(|byte| *byte == 0)
}

/// Creates `dir` and its missing parents. They may be links. Each is made durable in its own parent. `dir` is synced
/// even if it exists, because the process that created it may not have synced it.
fn create_root(fs: &dyn Filesystem, dir: &Path) -> Result<(), StoreError> {
    create_dirs(fs, dir)?;
    let Some(parent) = parent(dir) else {
        return Ok(());
    };
    match fs.sync_dir(&parent) {
        // The parent belongs to another user, and this crate created nothing in it.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            log::debug!(target: LOG, "'{}' can't be synced: {error}", parent.display());
            Ok(())
        }
        synced => synced.map_err(StoreError::io("sync", &parent, UNCHANGED)),
    }
}

/// The parent of `dir`; `None` for the root of the file system.
fn parent(dir: &Path) -> Option<PathBuf> {
    match dir.components().next_back() {
        // The system resolves the path.
        Some(Component::ParentDir) => Some(dir.join("..")),
        Some(Component::Normal(_)) => dir.parent().map(Path::to_path_buf),
        _ => None,
    }
}

fn create_dirs(fs: &dyn Filesystem, dir: &Path) -> Result<(), StoreError> {
    let failed = |operation| StoreError::io(operation, dir, UNCHANGED);
    match fs.kind(dir).map_err(failed("inspect"))? {
        Some(EntryKind::Dir) => return Ok(()),
        Some(EntryKind::Other) if fs.list(dir).is_ok() => return Ok(()),
        Some(_) => {
            return Err(StoreError::NotADirectory {
                path: dir.to_path_buf(),
            });
        }
        None => {}
    }
    // Creating the parent also creates a `dir` that ends in `..`.
    if let Some(before) = dir.parent() {
        create_root(fs, before)?;
    }
    match fs.create_dir(dir) {
        // Another training may have created it meanwhile, for its own directory below.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => create_dirs(fs, dir),
        created => created.map_err(failed("create")),
    }
}

/// Refuses a directory whose `generations` was not made by this crate.
pub(crate) fn refuse_foreign_generations(
    fs: &dyn Filesystem,
    layout: &Layout,
) -> Result<(), StoreError> {
    let dir = layout.generations();
    match fs.kind(&dir) {
        Ok(None | Some(EntryKind::Dir)) => Ok(()),
        Ok(Some(_)) => Err(StoreError::Foreign { path: dir }),
        Err(error) => Err(StoreError::io("inspect", &dir, UNCHANGED)(error)),
    }
}

/// Creates `generations` if it is missing.
pub(crate) fn create_generations(fs: &dyn Filesystem, layout: &Layout) -> Result<(), StoreError> {
    refuse_foreign_generations(fs, layout)?;
    let dir = layout.generations();
    let failed = |operation| StoreError::io(operation, &dir, UNCHANGED);
    if fs.kind(&dir).map_err(failed("inspect"))?.is_some() {
        return Ok(());
    }
    fs.create_dir(&dir)
        .and_then(|()| fs.sync_dir(layout.root()))
        .map_err(failed("create"))
}
