//! An open backup directory.

use std::path::Path;

use crate::directory::Directory;
use crate::identity::Identity;
use crate::index::GenerationIndex;
use crate::remove;

const LOG: &str = "burn_backup::prune";

/// A backup directory, locked by this process until the value is dropped.
///
/// While it is open, another program may remove or move the directory. The store checks for this before each step that
/// changes something. If no other process uses the path, the next [`stage`](Self::stage) creates the directory again.
/// If another process uses the path, the store changes nothing there
/// ([`StoreError::TakenOver`](crate::StoreError::TakenOver)).
pub struct Store {
    pub(crate) dir: Directory,
    pub(crate) identity: Identity,
    pub(crate) index: GenerationIndex,
}

impl Store {
    /// The format of the directory and the training it belongs to.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The absolute path of the directory.
    pub fn path(&self) -> &Path {
        self.dir.layout.root()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(spare) = self.dir.take_spare()
            && !self.dir.is_lost()
            && let Err(error) = remove::finish(&self.dir, &spare)
        {
            log::debug!(target: LOG, "the next start removes the spare directory: {}", error.with_cause());
        }
    }
}
