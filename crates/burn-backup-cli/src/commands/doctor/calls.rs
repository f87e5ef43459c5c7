//! The calls that the store makes, one after the other.

use std::io;
use std::path::Path;

use burn_backup_store::{Filesystem as _, LockAttempt, RealFilesystem, WriteFile};

use super::Check;

const DISK: &str = "check the disk; backups are not possible here";

/// Tries all of them in an empty directory.
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
            "a backup would not be certain to survive a power cut, so saves fail: use another file system",
        ),
        Err(_) => Check::warn(
            "sync",
            "this system has no sync of directories",
            "backups survive the death of a process, but not certainly a power cut",
        ),
    }
}

fn link(dir: &Path) -> Check {
    match RealFilesystem.link(&dir.join("file"), &dir.join("link")) {
        Ok(()) => Check::ok("hard links", "they work: frozen parameters are stored once"),
        Err(error) => Check::warn(
            "hard links",
            format!("they don't work: {error}"),
            "frozen parameters are written again by each save",
        ),
    }
}

fn lock(dir: &Path) -> Check {
    let path = dir.join("lock");
    let held = match RealFilesystem.lock(&path, "doctor") {
        Ok(LockAttempt::Held(held)) => held,
        Ok(LockAttempt::Busy { .. }) => {
            return Check::fail("locks", "a new file is locked already", DISK);
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
            "a file that is locked can be locked once more",
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
            "writing over",
            "files are written over in place, which is faster than making new ones",
        ),
        Ok(false) => Check::ok(
            "writing over",
            "files are made anew by each save, because it can't be told here who has one open",
        ),
        Err(error) => Check::warn(
            "writing over",
            format!("a file can't be written over: {error}"),
            "files are made anew by each save",
        ),
    }
}
