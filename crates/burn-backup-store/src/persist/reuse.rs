//! Writing over the files of a pruned generation. The disk need not allocate other blocks for them, and the system
//! needs no other memory.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use crate::directory::Directory;
use crate::error::{NOT_COMMITTED, StoreError};
use crate::fs::{Filesystem, WriteFile};

const LOG: &str = "burn_backup::persist";

/// The names of the files in a staging directory that belong to an earlier generation.
#[derive(Default)]
pub(crate) struct Reusable(HashSet<String>);

/// A file to write from the beginning.
pub(crate) struct FreshFile {
    pub file: Box<dyn WriteFile>,
    /// Whether the file may be longer than what is written.
    pub is_reused: bool,
}

impl Reusable {
    /// Renames the spare directory to the staging directory `staging`, if there is a spare one.
    pub(super) fn take(dir: &Directory, staging: &Path) -> Option<Self> {
        let spare = dir.take_spare()?;
        let failed = StoreError::io("rename", &spare, NOT_COMMITTED);
        if let Err(error) = dir.rename(&spare, staging, failed) {
            log::debug!(target: LOG, "the files of the pruned generation can't be reused: {}", error.with_cause());
            dir.leave(&spare);
            return None;
        }
        let entries = dir.fs().list(staging).unwrap_or_default();
        Some(Self(entries.into_iter().map(|entry| entry.name).collect()))
    }

    /// Opens the file at `path` in the staging directory for writing. This is an existing file if no other process can
    /// see it, or else a new one.
    pub(crate) fn create_file(
        &mut self,
        fs: &dyn Filesystem,
        path: &Path,
    ) -> io::Result<FreshFile> {
        if self.forget(path) {
            match fs.reuse_file(path) {
                Ok(Some(file)) => {
                    let is_reused = true;
                    return Ok(FreshFile { file, is_reused });
                }
                Ok(None) => {}
                Err(error) => log::debug!(target: LOG, "not reused, created again: {error}"),
            }
            fs.remove_file(path)?;
        }
        Ok(FreshFile {
            file: fs.create_file(path)?,
            is_reused: false,
        })
    }

    /// Makes sure that nothing is at `path` in the staging directory.
    pub(super) fn free(&mut self, fs: &dyn Filesystem, path: &Path) -> io::Result<()> {
        match self.forget(path) {
            true => fs.remove_file(path),
            false => Ok(()),
        }
    }

    /// Removes the files from the staging directory that were not written over.
    pub(crate) fn clear(&mut self, fs: &dyn Filesystem, staging: &Path) -> Result<(), StoreError> {
        for name in std::mem::take(&mut self.0) {
            let path = staging.join(name);
            let failed = StoreError::io("remove", &path, NOT_COMMITTED);
            fs.remove_file(&path).map_err(failed)?;
        }
        Ok(())
    }

    fn forget(&mut self, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| self.0.remove(name))
    }
}
