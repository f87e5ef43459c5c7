//! Makes files and directories durable, several at once: a disk does many syncs in little more time than one.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::fs::{Filesystem, WriteFile};
use crate::threads::{self, RunOn};

/// A file or directory to sync.
pub(crate) enum Sync<'a> {
    /// A file that was just written. It is closed afterwards.
    Written(Arc<dyn WriteFile>),
    /// A file that another process may have written.
    File(&'a Path),
    /// The names in a directory.
    Dir(&'a Path),
}

/// Syncs all of these, in any order or at once. If any sync fails, returns the index of the first one that failed, and
/// its error.
pub(crate) fn together(
    fs: &dyn Filesystem,
    syncs: Vec<Sync<'_>>,
) -> Result<(), (usize, io::Error)> {
    let len = syncs.len();
    let works = syncs.into_iter().enumerate().map(|(at, sync)| {
        let place = match at + 1 == len {
            true => RunOn::CallingThread,
            false => RunOn::NewThread,
        };
        (place, || one(fs, sync))
    });
    let panicked = |_| Err(io::Error::other("the sync panicked"));
    let outcomes = threads::at_once("backup-sync", works);
    for (at, outcome) in outcomes.into_iter().enumerate() {
        outcome
            .unwrap_or_else(panicked)
            .map_err(|error| (at, error))?;
    }
    Ok(())
}

fn one(fs: &dyn Filesystem, sync: Sync<'_>) -> io::Result<()> {
    match sync {
        Sync::Written(file) => file.sync(),
        Sync::File(path) => fs.sync_file(path),
        Sync::Dir(path) => fs.sync_dir(path),
    }
}
