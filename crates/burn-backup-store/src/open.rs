//! Opens a backup directory: checks, locks and sweeps it before anything else is changed.

use std::path::Path;
use std::sync::Arc;

use crate::directory::Directory;
use crate::error::{StoreError, UNCHANGED};
use crate::establish::{self, Seeds};
use crate::formats::{self, Which};
use crate::fs::{Filesystem, RealFilesystem};
use crate::index::GenerationIndex;
use crate::layout::Layout;
use crate::path::absolute;
use crate::store::Store;
use crate::tolerant::Tolerant;
use crate::{claim, discover, sweep};

const LOG: &str = "burn_backup::discover";

/// Options for opening a backup directory.
pub struct OpenOptions {
    filesystem: Arc<dyn Filesystem>,
    seeds: Seeds,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            filesystem: Arc::new(RealFilesystem),
            seeds: Seeds::default(),
        }
    }
}

impl OpenOptions {
    /// Uses `filesystem` for every call, instead of the operating system's.
    pub fn filesystem(mut self, filesystem: Arc<dyn Filesystem>) -> Self {
        self.filesystem = filesystem;
        self
    }

    /// Sets the run seed instead of drawing one. `None`, the default, uses the directory's.
    pub fn run_seed(mut self, run_seed: Option<u64>) -> Self {
        self.seeds.asked = run_seed;
        self
    }

    /// Opens a directory whose generations were made with a seed other than [`run_seed`](Self::run_seed), and keeps
    /// their seed. By default, such a directory is refused.
    pub fn keep_seed(mut self, keep: bool) -> Self {
        self.seeds.keeps = keep;
        self
    }

    /// Sets the run seed for a directory that has none yet, in place of one from the operating system's random numbers.
    /// Unlike [`run_seed`](Self::run_seed), it is ignored if the directory has a seed.
    pub fn drawn_seed(mut self, drawn_seed: Option<u64>) -> Self {
        self.seeds.drawn = drawn_seed;
        self
    }
}

impl Store {
    /// Opens the backup directory `dir`, locks it, and removes the remains of interrupted saves. Creates the directory
    /// and its parents if missing. A relative path is made absolute first.
    ///
    /// # Errors
    ///
    /// - [`StoreError::EmptyPath`], [`StoreError::NotADirectory`], [`StoreError::NewerFormat`].
    /// - [`StoreError::Foreign`] if a file or directory that this crate did not write has a name that this crate needs.
    /// - [`StoreError::InUse`] if another process has the directory open.
    /// - [`StoreError::SeedMismatch`] if the generations were made with a seed other than the requested one.
    /// - [`StoreError::Io`].
    pub fn open(dir: impl AsRef<Path>, options: OpenOptions) -> Result<Self, StoreError> {
        let fs: Arc<dyn Filesystem> = Arc::new(Tolerant::new(options.filesystem));
        let root = absolute(dir.as_ref(), fs.as_ref())?;
        let layout = Layout::new(&root);
        let lock = claim::claim(fs.as_ref(), &layout)?;
        let dir = Directory::new(fs, layout, lock);
        let (fs, layout) = (dir.fs(), &dir.layout);
        log::debug!(target: LOG, "'{}' is open", root.display());

        // A refused directory must be left unchanged, so all checks come first.
        formats::refuse_newer(&dir, Which::Newest)?;
        let plan = establish::plan(&dir, &options.seeds)?;
        claim::refuse_foreign_generations(fs, layout)?;
        for error in sweep::staging_for_reuse(&dir) {
            // The remains are never read, so the directory can be used with them.
            log::warn!(target: LOG, "{}", error.with_cause());
        }
        claim::create_generations(fs, layout)?;
        let identity = establish::establish(&dir, plan)?;
        let index = GenerationIndex::default();
        if let Ok(greatest) = discover::greatest_number(fs, layout, &identity) {
            index.last(greatest);
        }
        Ok(Self {
            dir,
            identity,
            index,
        })
    }

    /// Whether `dir` holds anything that [`remove`](Self::remove) removes.
    ///
    /// # Errors
    ///
    /// [`StoreError::EmptyPath`], and [`StoreError::Io`] if the directory can't be read.
    pub fn is_present(
        dir: impl AsRef<Path>,
        filesystem: &dyn Filesystem,
    ) -> Result<bool, StoreError> {
        let layout = Layout::new(&absolute(dir.as_ref(), filesystem)?);
        for path in [
            layout.identity(),
            layout.generations(),
            layout.quarantine(),
            layout.aside(),
        ] {
            let kind = filesystem
                .kind(&path)
                .map_err(StoreError::io("inspect", &path, UNCHANGED))?;
            if kind.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
