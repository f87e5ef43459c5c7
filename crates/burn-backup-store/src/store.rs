//! A backup directory that is open.

use std::path::Path;

use crate::directory::Directory;
use crate::identity::Identity;
use crate::knowledge::Knowledge;
use crate::remove;

const LOG: &str = "burn_backup::prune";

/// A backup directory, locked by this process until dropped.
///
/// While it is open, somebody may remove the directory or move it away. The store looks before each
/// step that changes something: it makes the directory again, at the next [`stage`](Self::stage), if
/// nobody else has begun at the path, and leaves it alone if somebody has
/// ([`StoreError::TakenOver`](crate::StoreError::TakenOver)).
pub struct Store {
    pub(crate) dir: Directory,
    pub(crate) identity: Identity,
    pub(crate) knowledge: Knowledge,
}

impl Store {
    /// What the directory is, and whose.
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
            log::debug!(target: LOG, "left to the next start: {}", error.with_cause());
        }
    }
}
