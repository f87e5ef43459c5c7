//! The backup directory as a whole: opened and locked, and a generation begun.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::directory::Directory;
use crate::error::{StoreError, UNCHANGED};
use crate::formats::{self, Which};
use crate::fs::{EntryKind, Filesystem, RealFilesystem};
use crate::identity::{self, Identity};
use crate::knowledge::Knowledge;
use crate::layout::Layout;
use crate::persist::Staging;
use crate::possession::IfGone;
use crate::tolerant::Tolerant;
use crate::{claim, discover, sweep};

const LOG: &str = "burn_backup::discover";

/// How a backup directory is opened.
pub struct OpenOptions {
    filesystem: Arc<dyn Filesystem>,
    run_seed: Option<u64>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            filesystem: Arc::new(RealFilesystem),
            run_seed: None,
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
        self.run_seed = run_seed;
        self
    }
}

/// A backup directory, locked by this process until dropped.
///
/// While it is open, somebody may remove the directory or move it away. The store looks before each
/// step that changes something: it makes the directory again, at the next [`stage`](Self::stage), if
/// nobody else has begun at the path, and leaves it alone if somebody has
/// ([`StoreError::TakenOver`]).
pub struct Store {
    pub(crate) dir: Directory,
    pub(crate) identity: Identity,
    pub(crate) knowledge: Knowledge,
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
        let plan = identity::plan(&dir, options.run_seed)?;
        refuse_foreign_generations(fs, layout)?;
        for error in sweep::staging(&dir) {
            // None of it is ever read.
            log::warn!(target: LOG, "{}", error.with_cause());
        }
        create_generations(fs, layout)?;
        let identity = identity::establish(&dir, plan)?;
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

    /// What the directory is, and whose.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The absolute path of the directory.
    pub fn path(&self) -> &Path {
        self.dir.layout.root()
    }

    /// Begins a generation. If the directory is gone and nobody else has begun at its path, it is made
    /// again first, which a warning in the log says.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if its staging directory can't be created, [`StoreError::Gone`] if the
    /// directory can't be made again, [`StoreError::TakenOver`] if somebody else uses the path, and
    /// [`StoreError::NumbersUsedUp`].
    pub fn stage(&self) -> Result<Staging<'_>, StoreError> {
        self.stage_unexplained()
            .map_err(|error| self.explain(error))
    }

    fn stage_unexplained(&self) -> Result<Staging<'_>, StoreError> {
        self.possess(IfGone::Make)?;
        let (fs, layout) = (self.dir.fs(), &self.dir.layout);
        let greatest = discover::greatest_number(fs, layout, &self.identity)?;
        let next = self.knowledge.last(greatest).next();
        let next = next.ok_or_else(|| StoreError::NumbersUsedUp {
            path: layout.generations(),
        })?;
        Staging::create(self, next)
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
        for path in [layout.identity(), layout.generations(), layout.quarantine()] {
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

fn absolute(dir: &Path, fs: &dyn Filesystem) -> Result<PathBuf, StoreError> {
    if dir.as_os_str().is_empty() {
        return Err(StoreError::EmptyPath);
    }
    let absolute = fs
        .absolute(dir)
        .map_err(StoreError::io("make absolute", dir, UNCHANGED))?;
    // Without a slash, or a dot, at its end.
    Ok(absolute.components().collect())
}

fn refuse_foreign_generations(fs: &dyn Filesystem, layout: &Layout) -> Result<(), StoreError> {
    let dir = layout.generations();
    match fs.kind(&dir) {
        Ok(None | Some(EntryKind::Dir)) => Ok(()),
        Ok(Some(_)) => Err(StoreError::Foreign { path: dir }),
        Err(error) => Err(StoreError::io("look at", &dir, UNCHANGED)(error)),
    }
}

pub(crate) fn create_generations(fs: &dyn Filesystem, layout: &Layout) -> Result<(), StoreError> {
    refuse_foreign_generations(fs, layout)?;
    let dir = layout.generations();
    let failed = |operation| StoreError::io(operation, &dir, UNCHANGED);
    if fs.kind(&dir).map_err(failed("look at"))?.is_some() {
        return Ok(());
    }
    fs.create_dir(&dir)
        .and_then(|()| fs.sync_dir(layout.root()))
        .map_err(failed("create"))
}
