//! Deletes the backup of a finished training, and nothing else.

use crate::error::{StoreError, TAKEN_AWAY};
use crate::index::Known;
use crate::ownership::IfGone;
use crate::store::Store;
use crate::{discover, files, remove, sweep, verify};

const LOG: &str = "burn_backup::prune";

impl Store {
    /// Deletes the backup: everything that this crate wrote, and the directory if nothing else is in it. All
    /// generations are removed in one atomic step. If the directory is missing and no other process uses its path,
    /// there is nothing to delete.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if a call fails. Before the atomic step, every generation is unchanged. After it, the next
    /// call removes the rest, and the next open treats the directory as empty. [`StoreError::TakenOver`] if another
    /// process uses the path now, and [`StoreError::AnotherRun`] if a generation in the directory belongs to another
    /// training. Nothing is removed then.
    pub fn remove(self) -> Result<(), StoreError> {
        let (fs, root) = (self.dir.shared_fs(), self.dir.layout.root().to_path_buf());
        match self.remove_inner().map_err(|error| self.explain(error)) {
            Err(StoreError::Gone { .. }) => {
                log::warn!(
                    target: LOG,
                    "the backup in '{}' can't be deleted: its directory was removed or renamed while \
                     the training ran", root.display(),
                );
                return Ok(());
            }
            removed => removed?,
        }
        // Some file systems keep a removed file's entry in the directory until the file is closed: NFS, and some on
        // Windows.
        drop(self);
        // A directory with other files can't be removed this way, nor can a mount point or, on Unix, a link.
        match fs.remove_dir(&root) {
            Ok(()) => log::debug!(target: LOG, "'{}' removed", root.display()),
            Err(error) => log::debug!(target: LOG, "'{}' stays: {error}", root.display()),
        }
        Ok(())
    }

    fn remove_inner(&self) -> Result<(), StoreError> {
        self.ensure_owned(IfGone::Fail)?;
        let (dir, fs, layout) = (&self.dir, self.dir.fs(), &self.dir.layout);
        let root = layout.root();
        self.refuse_another_run()?;
        log::debug!(target: LOG, "removing the backup in '{}'", root.display());

        // The quarantine and `aside` are removed first. Once they are gone, a directory without generations means a new
        // training.
        remove::retire(dir, &layout.quarantine())?;
        remove::retire(dir, &layout.aside())?;
        remove::retire(dir, &layout.generations())?;
        dir.take_spare();
        if let Some(error) = sweep::staging(dir).into_iter().next() {
            return Err(error);
        }
        remove::file(dir, &layout.identity())?;
        dir.remove_lock(&layout.staging("lock", files::draw()?))?;
        fs.sync_dir(root)
            .map_err(StoreError::io("sync", root, TAKEN_AWAY))
    }

    /// Another program may have put another training's generation into the directory.
    fn refuse_another_run(&self) -> Result<(), StoreError> {
        let (fs, layout) = (self.dir.fs(), &self.dir.layout);
        for id in discover::generations(fs, layout)? {
            if self
                .index
                .known(id)
                .is_some_and(|known| known != Known::Foreign)
            {
                continue;
            }
            let manifest = verify::manifest(fs, layout, id, Some(&self.identity));
            if let Err(error @ StoreError::AnotherRun { .. }) = manifest {
                return Err(error);
            }
        }
        Ok(())
    }
}
