//! Checks each filesystem call that the store makes.

use std::io;
use std::path::Path;

use burn_backup_store::{Filesystem as _, LockAttempt, RealFilesystem, WriteFile};

use super::Check;

const DISK: &str = "check the disk; backups are not possible here";

/// Runs all checks in an empty directory.
pub fn all(dir: &Path) -> Vec<Check> {
    vec![
        create(dir).unwrap_or_else(|error| {
            Check::fail(
                "create",
                format!("a file can't be written and synced: {error}"),
                DISK,
            )
        }),
        rename(dir).unwrap_or_else(|error| {
            Check::fail(
                "rename",
                format!("a directory can't be renamed: {error}"),
                DISK,
            )
        }),
        sync_dir(dir),
        link(dir),
        lock(dir),
        reuse(dir),
    ]
}

/// Writes a file and makes it durable.
fn write(path: &Path) -> io::Result<()> {
    let file: Box<dyn WriteFile> = RealFilesystem.create_file(path)?;
    file.write_all_at(b"doctor", 0)?;
    file.sync()
}

fn create(dir: &Path) -> io::Result<Check> {
    write(&dir.join("file"))?;
    Ok(Check::ok("create", "files are written and synced"))
}

fn rename(dir: &Path) -> io::Result<Check> {
    let (from, to) = (dir.join("staged"), dir.join("committed"));
    RealFilesystem.create_dir(&from)?;
    write(&from.join("file"))?;
    RealFilesystem.rename(&from, &to)?;
    match RealFilesystem.open_file(&to.join("file"))?.len()? {
        6 => Ok(Check::ok("rename", "directories are renamed")),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn sync_dir(dir: &Path) -> Check {
    match RealFilesystem.sync_dir(dir) {
        Ok(()) => Check::ok("sync", "directories are synced"),
        Err(error) if cfg!(unix) => Check::fail(
            "sync",
            format!("directories can't be synced: {error}"),
            "a backup might not survive a power cut, so saves fail: use another file system",
        ),
        Err(_) => Check::warn(
            "sync",
            "this system can't sync directories",
            "backups survive a killed process, but might not survive a power cut",
        ),
    }
}

fn link(dir: &Path) -> Check {
    match RealFilesystem.link(&dir.join("file"), &dir.join("link")) {
        Ok(()) => Check::ok("hard links", "they work: frozen parameters are stored once"),
        Err(error) => Check::warn(
            "hard links",
            format!("they don't work: {error}"),
            "each save writes frozen parameters again",
        ),
    }
}

fn lock(dir: &Path) -> Check {
    let path = dir.join("lock");
    let held = match RealFilesystem.lock(&path, "doctor") {
        Ok(LockAttempt::Held(held)) => held,
        Ok(LockAttempt::Busy { .. }) => {
            return Check::fail("locks", "a new file is already locked", DISK);
        }
        Err(error) => {
            return Check::fail(
                "locks",
                format!("files can't be locked: {error}"),
                "mount the file system with locks",
            );
        }
    };
    let again = RealFilesystem.lock(&path, "doctor");
    drop(held);
    match again {
        Ok(LockAttempt::Busy { .. }) => Check::ok("locks", "a second process is kept out"),
        Ok(LockAttempt::Held(_)) => Check::fail(
            "locks",
            "a locked file can be locked again",
            "two trainings could write to one directory: mount the file system with locks, or use another one",
        ),
        Err(error) => Check::fail(
            "locks",
            format!("a second lock fails: {error}"),
            "use another file system",
        ),
    }
}

fn reuse(dir: &Path) -> Check {
    let path = dir.join("reused");
    let written = write(&path).and_then(|()| RealFilesystem.reuse_file(&path));
    let again = written.and_then(|file| match file {
        Some(file) => file
            .write_all_at(b"again", 0)
            .and_then(|()| file.sync())
            .map(|()| true),
        None => Ok(false),
    });
    match again {
        Ok(true) => Check::ok(
            "overwriting",
            "files are overwritten in place, which is faster than creating new ones",
        ),
        Ok(false) => Check::ok(
            "overwriting",
            "each save creates new files, because this system can't tell whether a file is still open elsewhere",
        ),
        Err(error) => Check::warn(
            "overwriting",
            format!("a file can't be overwritten: {error}"),
            "each save creates new files",
        ),
    }
}
