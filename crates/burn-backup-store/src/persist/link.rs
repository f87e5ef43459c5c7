//! Linking a part from the newest generation: its file gets a second name instead of being written again.

use std::io;
use std::path::Path;

use crate::blocks::PartDigest;
use crate::error::StoreError;
use crate::fs::{EntryKind, Filesystem};
use crate::manifest::PartEntry;
use crate::persist::{StagedPart, Staging};

const LOG: &str = "burn_backup::persist";

impl Staging<'_> {
    /// Adds the part `name` without writing it, by linking its file. The generation that was last read or committed
    /// must have a part of this name with the bytes of `digest`. Returns whether the part was linked. If it was not,
    /// the caller must write it. Some file systems have no links.
    ///
    /// Generations that share a file also share its damage.
    ///
    /// # Errors
    ///
    /// [`StoreError::PartName`] if the name can't be a file name or was used before, and [`StoreError::TooManyParts`].
    pub fn link(&mut self, name: &str, digest: &PartDigest) -> Result<bool, StoreError> {
        self.check_name(name)?;
        let (bytes, blocks) = digest.blocks();
        let entry = PartEntry::new(name, bytes, blocks);
        let latest = self.store.index.latest();
        let Some(latest) = latest.filter(|latest| latest.parts.contains(&entry)) else {
            return Ok(false);
        };
        let from = self
            .store
            .dir
            .layout
            .generation(latest.id)
            .join(&entry.file);
        let to = self.dir.join(&entry.file);
        let fs = self.store.dir.fs();
        let freed = self.reusable.free(fs, &to);
        match freed.and_then(|()| link(fs, &from, &to, entry.bytes)) {
            Ok(()) => {
                self.linked += entry.bytes;
                self.add(name, StagedPart::Linked(entry));
                Ok(true)
            }
            Err(error) => {
                log::debug!(target: LOG, "'{}' can't be linked and is written again: {error}", entry.file);
                Ok(false)
            }
        }
    }
}

fn link(fs: &dyn Filesystem, from: &Path, to: &Path, bytes: u64) -> io::Result<()> {
    let linked = fs.link(from, to).and_then(|()| check(fs, to, bytes));
    if linked.is_err() {
        // The name must be free so that the part can be written. It may exist although the call failed, because a
        // network can lose the answer.
        let _ = fs.remove_file(to);
    }
    linked
}

/// Another process may have replaced the file since it was read. No process replaces a staged file.
fn check(fs: &dyn Filesystem, staged: &Path, bytes: u64) -> io::Result<()> {
    if fs.kind(staged)? != Some(EntryKind::File) || fs.open_file(staged)?.len()? != bytes {
        return Err(io::Error::other("the linked file was replaced"));
    }
    Ok(())
}
