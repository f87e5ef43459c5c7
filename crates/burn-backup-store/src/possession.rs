//! A directory that was removed or moved away while its training runs: made again if nobody else has
//! begun there, and left alone if somebody has.

use crate::error::StoreError;
use crate::fs::HeldLock;
use crate::identity_file::{self, Found};
use crate::store::Store;
use crate::{claim, discover};

const LOG: &str = "burn_backup::discover";

/// What to do if the directory is gone and nobody else has begun at its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfGone {
    Make,
    Fail,
}

/// What is at the path of the directory.
enum Present {
    /// Nothing that is a backup.
    Nothing,
    /// This training's own: its directory is back, or only the lock file was removed.
    Own,
    /// Somebody else's, in words.
    Theirs(String),
}

impl Store {
    /// Makes sure that the directory at the path is this store's and locked.
    pub(crate) fn possess(&self, if_gone: IfGone) -> Result<(), StoreError> {
        let Err(error) = self.dir.check() else {
            return Ok(());
        };
        if !matches!(error, StoreError::Gone { .. }) {
            return Err(error);
        }
        match self.present() {
            Present::Theirs(by) => return Err(self.taken_over(by)),
            Present::Nothing if if_gone == IfGone::Fail => return Err(error),
            Present::Nothing | Present::Own => {}
        }
        let lock = self.regain()?;
        *self.dir.lock() = lock;
        Ok(())
    }

    /// Says what an error really means if the directory is not there any more.
    pub(crate) fn explain(&self, error: StoreError) -> StoreError {
        let source = match error {
            StoreError::Gone { source, .. } => source,
            StoreError::Io { source, .. } if self.dir.is_lost() => Some(source),
            // It was said of what somebody else has put there.
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
            Present::Theirs(by) => self.taken_over(by),
            Present::Nothing | Present::Own => self.dir.gone(source),
        }
    }

    /// Takes the path, and what is this training's own there.
    fn regain(&self) -> Result<Box<dyn HeldLock>, StoreError> {
        let (fs, layout) = (self.dir.fs(), &self.dir.layout);
        let lock = claim::claim(fs, layout).map_err(|error| match error {
            StoreError::InUse { owner, .. } => self.taken_over(owner),
            StoreError::Io { source, .. } => self.dir.gone(Some(source)),
            other => other,
        })?;
        // Somebody may have begun and ended between the look and the lock.
        let present = self.present();
        if let Present::Theirs(by) = present {
            return Err(self.taken_over(by));
        }
        let made = claim::create_generations(fs, layout).and_then(|()| match present {
            Present::Own => Ok(()),
            _ => identity_file::write(fs, layout, &self.identity),
        });
        made.map_err(|error| match error {
            StoreError::Io { source, .. } => self.dir.gone(Some(source)),
            other => other,
        })?;
        self.knowledge.forget();
        self.dir.take_leftovers();
        self.dir.take_spare();
        let path = layout.root().display();
        match present {
            Present::Own => log::warn!(
                target: LOG,
                "the backup directory '{path}' or its lock file was removed or replaced while the \
                 training ran; it is this training's, and is used again",
            ),
            _ => log::warn!(
                target: LOG,
                "the backup directory '{path}' was removed or renamed while the training ran, and \
                 the backups went with it; it is made again, and the training goes on with new backups",
            ),
        }
        Ok(lock)
    }

    /// What is at the path now. It is only looked at.
    fn present(&self) -> Present {
        let (fs, layout) = (self.dir.fs(), &self.dir.layout);
        let generations = discover::generations(fs, layout);
        match identity_file::look(fs, layout) {
            Ok(Found::Whole(found)) if found.run_id != self.identity.run_id => {
                Present::Theirs(format!("the training with the run id {}", found.run_id))
            }
            Ok(Found::Whole(_)) => {
                let last = self.knowledge.last(Default::default());
                match generations.is_ok_and(|found| found.iter().all(|id| *id <= last)) {
                    true => Present::Own,
                    false => Present::Theirs("another process of the same training".to_owned()),
                }
            }
            Ok(Found::Nothing) if generations.is_ok_and(|found| found.is_empty()) => {
                Present::Nothing
            }
            _ => Present::Theirs("another program".to_owned()),
        }
    }

    fn taken_over(&self, by: String) -> StoreError {
        StoreError::TakenOver {
            path: self.dir.layout.root().to_path_buf(),
            by,
        }
    }
}
