use std::path::Path;

use burn::module::Module;
use burn_backup_store::{OpenOptions, Store};

use crate::error::BackupError;
use crate::handle::BackupHandle;
use crate::resume::{apply_trained, read_state};
use crate::session::mirror;
use crate::settings::BackupAndRestore;

impl BackupAndRestore {
    /// Makes `model` train exactly the parameters that were trained when the newest backup was made, and freezes the
    /// others. Without a backup, returns `model` unchanged.
    ///
    /// For programs that freeze or unfreeze layers while they train, because Burn's records don't contain
    /// `set_require_grad`. Call it before the learner is made.
    ///
    /// # Errors
    ///
    /// [`BackupError::Store`] if the backup can't be read, or another training uses it, and
    /// [`BackupError::ForeignBackup`] if this crate did not make it.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use burn::module::Module;
    /// use burn_backup_restore::{BackupAndRestore, BackupError};
    ///
    /// fn prepare<M: Module>(model: M) -> Result<(M, BackupAndRestore), BackupError> {
    ///     let backup = BackupAndRestore::new("backup");
    ///     let model = backup.restore_trained(model)?;
    ///     Ok((model, backup))
    /// }
    /// ```
    pub fn restore_trained<M: Module>(&self, model: M) -> Result<M, BackupError> {
        match untrained(&self.handle, &self.backup_dir)? {
            Some(untrained) => Ok(apply_trained(&untrained, model)),
            None => Ok(model),
        }
    }
}

/// The paths of the parameters that were not trained when the newest backup in `backup_dir` was made. `None` if there
/// is no backup, or it has no such list.
fn untrained(handle: &BackupHandle, backup_dir: &Path) -> Result<Option<Vec<String>>, BackupError> {
    let filesystem = handle.filesystem();
    // Opening a missing directory would begin a training there.
    if !Store::is_present(backup_dir, filesystem.as_ref())?
        && !mirror::has_backup(handle, backup_dir)?
    {
        return Ok(None);
    }
    let mut store = Store::open(backup_dir, OpenOptions::default().filesystem(filesystem))?;
    let (newest, _) = mirror::newest(handle, backup_dir, &mut store, Store::newest)?;
    let Some(generation) = newest else {
        return Ok(None);
    };
    Ok(read_state(&generation, backup_dir)?.untrained)
}
