//! Writes files atomically: a file appears complete, or not at all.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result};
use tempfile::NamedTempFile;

use crate::exit::{Exit, refuse};

/// Writes a temporary file beside `path`, syncs it and renames it. Unless `is_forced`, an existing file is an error.
pub fn write(
    path: &Path,
    is_forced: bool,
    fill: impl FnOnce(&mut NamedTempFile) -> Result<()>,
) -> Result<()> {
    if !is_forced && path.symlink_metadata().is_ok() {
        return Err(already_exists(path));
    }
    let dir = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let shown = path.display();
    fs::create_dir_all(dir).with_context(|| format!("cannot create '{}'", dir.display()))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".burn-backup-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let file = builder.tempfile_in(dir);
    let mut file = file.with_context(|| format!("cannot create a file in '{}'", dir.display()))?;
    fill(&mut file)?;
    let synced = file.as_file().sync_all();
    synced.with_context(|| format!("cannot write '{shown}': check the free space"))?;
    match is_forced {
        true => file.persist(path).map_err(|error| error.error),
        false => file.persist_noclobber(path).map_err(|error| error.error),
    }
    .map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => already_exists(path),
        _ => anyhow::Error::new(error).context(format!("cannot write '{shown}'")),
    })?;
    // A failure is ignored, because not every system can sync directories.
    if let Ok(dir) = File::open(dir) {
        let _ = dir.sync_all();
    }
    Ok(())
}

fn already_exists(path: &Path) -> anyhow::Error {
    refuse(
        Exit::Failed,
        format!(
            "'{}' already exists, and was not changed: choose another place, or overwrite it with --force",
            path.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn an_existing_file_stays_unless_forced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/file");
        let write_text = |text: &str, is_forced| {
            write(
                &path,
                is_forced,
                |file| Ok(file.write_all(text.as_bytes())?),
            )
        };
        write_text("first", false).unwrap();
        assert!(write_text("second", false).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        write_text("third", true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
    }

    #[test]
    fn a_write_that_fails_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let failed = write(&path, false, |file| {
            file.write_all(b"half")?;
            anyhow::bail!("it fails")
        });
        assert!(failed.is_err());
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}
