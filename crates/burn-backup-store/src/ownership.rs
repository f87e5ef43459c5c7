//! Handles a directory that was removed or moved away while its training runs. It is created again if no other process
//! uses its path, and left alone otherwise.

use crate::error::StoreError;
use crate::fs::HeldLock;
use crate::identity_file::{self, Found};
use crate::store::Store;
use crate::{claim, discover};

const LOG: &str = "burn_backup::discover";

/// What to do if the directory is missing and no other process uses its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfGone {
    Create,
    Fail,
}

/// What is at the directory's path.
enum AtPath {
    /// No backup.
    Nothing,
    /// This training's own backup: its directory is back, or only the lock file was removed.
    Own,
    /// Another training or program, with its description.
    Foreign(String),
}

impl Store {
    /// Makes sure that the directory at the path is this store's and locked.
    pub(crate) fn ensure_owned(&self, if_gone: IfGone) -> Result<(), StoreError> {
        let Err(error) = self.dir.check() else {
            return Ok(());
        };
        if !matches!(error, StoreError::Gone { .. }) {
            return Err(error);
        }
        match self.present() {
            AtPath::Foreign(by) => return Err(self.taken_over(by)),
            AtPath::Nothing if if_gone == IfGone::Fail => return Err(error),
            AtPath::Nothing | AtPath::Own => {}
        }
        let lock = self.relock()?;
        *self.dir.lock() = lock;
        Ok(())
    }

    /// Replaces an error by its actual cause if the directory is not there any more.
    pub(crate) fn explain(&self, error: StoreError) -> StoreError {
        let source = match error {
            StoreError::Gone { source, .. } => source,
            StoreError::Io { source, .. } if self.dir.is_lost() => Some(source),
            // The error is about a directory that another process created at the path.
            StoreError::AnotherRun { .. }
            | StoreError::AnotherSeed { .. }
            | StoreError::NewerFormat { .. }
            | StoreError::NoneLeft { .. }
            | StoreError::Foreign { .. }
            | StoreError::NotADirectory { .. }
                if self.dir.is_lost() =>
            {
                None
            }
            other => return other,
        };
        match self.present() {
            AtPath::Foreign(by) => self.taken_over(by),
            AtPath::Nothing | AtPath::Own => self.dir.gone(source),
        }
    }

    /// Locks the path again, and uses this training's backup there if there is one.
    fn relock(&self) -> Result<Box<dyn HeldLock>, StoreError> {
        let (fs, layout) = (self.dir.fs(), &self.dir.layout);
        let lock = claim::claim(fs, layout).map_err(|error| match error {
            StoreError::InUse { owner, .. } => self.taken_over(owner),
            StoreError::Io { source, .. } => self.dir.gone(Some(source)),
            other => other,
        })?;
        // Another training may have begun and ended between the check and the lock.
        let present = self.present();
        if let AtPath::Foreign(by) = present {
            return Err(self.taken_over(by));
        }
        let made = claim::create_generations(fs, layout).and_then(|()| match present {
            AtPath::Own => Ok(()),
            _ => identity_file::write(fs, layout, &self.identity),
        });
        made.map_err(|error| match error {
            StoreError::Io { source, .. } => self.dir.gone(Some(source)),
            other => other,
        })?;
        self.index.forget();
        self.dir.take_leftovers();
        self.dir.take_spare();
        let path = layout.root().display();
        match present {
            AtPath::Own => log::warn!(
                target: LOG,
                "the backup directory '{path}' or its lock file was removed or replaced while the \
                 training ran; it is this training's, and is used again",
            ),
            _ => log::warn!(
                target: LOG,
                "the backup directory '{path}' was removed or renamed while the training ran, together \
                 with its backups; it is created again, and the training continues with new backups",
            ),
        }
        Ok(lock)
    }

    /// What is at the path now. Nothing is changed.
    fn present(&self) -> AtPath {
        let (fs, layout) = (self.dir.fs(), &self.dir.layout);
        let generations = discover::generations(fs, layout);
        match identity_file::read(fs, layout) {
            Ok(Found::Whole(found)) if found.run_id != self.identity.run_id => {
                AtPath::Foreign(format!("the training with the run id {}", found.run_id))
            }
            Ok(Found::Whole(_)) => {
                let last = self.index.last(Default::default());
                match generations.is_ok_and(|found| found.iter().all(|id| *id <= last)) {
                    true => AtPath::Own,
                    false => AtPath::Foreign("another process of the same training".to_owned()),
                }
            }
            Ok(Found::Nothing) if generations.is_ok_and(|found| found.is_empty()) => {
                AtPath::Nothing
            }
            _ => AtPath::Foreign("another program".to_owned()),
        }
    }

    fn taken_over(&self, by: String) -> StoreError {
        StoreError::TakenOver {
            path: self.dir.layout.root().to_path_buf(),
            by,
        }
    }
}
