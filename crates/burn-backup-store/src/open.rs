//! Opening a backup directory: looked at, locked, swept, and only then changed.

use std::path::Path;
use std::sync::Arc;

use crate::directory::Directory;
use crate::error::{StoreError, UNCHANGED};
use crate::establish::{self, Seeds};
use crate::formats::{self, Which};
use crate::fs::{Filesystem, RealFilesystem};
use crate::knowledge::Knowledge;
use crate::layout::Layout;
use crate::path::absolute;
use crate::store::Store;
use crate::tolerant::Tolerant;
use crate::{claim, discover, sweep};

const LOG: &str = "burn_backup::discover";

/// How a backup directory is opened.
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
    /// Uses `filesystem` for every call, in place of the operating system's.
    pub fn filesystem(mut self, filesystem: Arc<dyn Filesystem>) -> Self {
        self.filesystem = filesystem;
        self
    }

    /// Gives the run seed instead of drawing one. `None`, the default, takes what is there.
    pub fn run_seed(mut self, run_seed: Option<u64>) -> Self {
        self.seeds.asked = run_seed;
        self
    }

    /// Opens a directory whose generations were made with another seed than [`run_seed`](Self::run_seed)
    /// gives, and keeps theirs, in place of refusing it. False by default.
    pub fn keep_seed(mut self, keep: bool) -> Self {
        self.seeds.keeps = keep;
        self
    }

    /// Gives the run seed of a directory that has none yet, in place of the operating system's random
    /// numbers. Unlike [`run_seed`](Self::run_seed), it is ignored where one is there.
    pub fn drawn_seed(mut self, drawn_seed: Option<u64>) -> Self {
        self.seeds.drawn = drawn_seed;
        self
    }
}

impl Store {
    /// Opens the backup directory `dir`, creating it and its parents when missing; locks it, and
    /// sweeps what interrupted saves left behind. A relative path is made absolute first.
    ///
    /// # Errors
    ///
    /// [`StoreError::EmptyPath`], [`StoreError::NotADirectory`], [`StoreError::Foreign`] if
    /// something of somebody else's has a name that this crate needs, [`StoreError::InUse`] if
    /// another process has it open, [`StoreError::NewerFormat`], [`StoreError::SeedMismatch`] if there are
    /// generations made with another seed than asked for, and [`StoreError::Io`].
    pub fn open(dir: impl AsRef<Path>, options: OpenOptions) -> Result<Self, StoreError> {
        let fs: Arc<dyn Filesystem> = Arc::new(Tolerant::new(options.filesystem));
        let root = absolute(dir.as_ref(), fs.as_ref())?;
        let layout = Layout::new(&root);
        let lock = claim::claim(fs.as_ref(), &layout)?;
        let dir = Directory::new(fs, layout, lock);
        let (fs, layout) = (dir.fs(), &dir.layout);
        log::debug!(target: LOG, "'{}' is open", root.display());

        // What is refused must be found as it was, so all looks come first.
        formats::refuse_newer(&dir, Which::Newest)?;
        let plan = establish::plan(&dir, &options.seeds)?;
        claim::refuse_foreign_generations(fs, layout)?;
        for error in sweep::staging_for_reuse(&dir) {
            // None of it is ever read.
            log::warn!(target: LOG, "{}", error.with_cause());
        }
        claim::create_generations(fs, layout)?;
        let identity = establish::establish(&dir, plan)?;
        let knowledge = Knowledge::default();
        if let Ok(greatest) = discover::greatest_number(fs, layout, &identity) {
            knowledge.last(greatest);
        }
        Ok(Self {
            dir,
            identity,
            knowledge,
        })
    }

    /// Whether `dir` holds anything that [`remove`](Self::remove) would remove.
    ///
    /// # Errors
    ///
    /// [`StoreError::EmptyPath`], and [`StoreError::Io`] if the directory can't be looked at.
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
                .map_err(StoreError::io("look at", &path, UNCHANGED))?;
            if kind.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
