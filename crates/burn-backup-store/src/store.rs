//! The backup directory as a whole: opened, locked, searched, emptied.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{StoreError, TAKEN_AWAY, UNCHANGED};
use crate::fs::{EntryKind, Filesystem, RealFilesystem};
use crate::identity::{self, Identity};
use crate::layout::{GenerationId, Layout, Quarantined};
use crate::manifest::PartEntry;
use crate::persist::{Latest, Staging};
use crate::verify::{Cutter, Generation, Uncut};
use crate::{claim, discover, quarantine, remove, sweep, verify};

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
pub struct Store {
    pub(crate) fs: Arc<dyn Filesystem>,
    pub(crate) layout: Layout,
    pub(crate) identity: Identity,
    latest: Mutex<Option<Latest>>,
    _lock: Box<dyn Send + Sync>,
}

impl Store {
    /// Opens the backup directory `dir`, creating it and its parents when missing; locks it, and
    /// sweeps what interrupted saves left behind.
    ///
    /// # Errors
    ///
    /// [`StoreError::EmptyPath`], [`StoreError::NotADirectory`], [`StoreError::Foreign`] if
    /// something of somebody else's has a name that this crate needs, [`StoreError::InUse`] if
    /// another process has it open, [`StoreError::NewerFormat`], [`StoreError::SeedMismatch`] if there are
    /// generations made with another seed than asked for, and [`StoreError::Io`].
    pub fn open(dir: impl AsRef<Path>, options: OpenOptions) -> Result<Self, StoreError> {
        let dir = dir.as_ref();
        let fs = options.filesystem;
        if dir.as_os_str().is_empty() {
            return Err(StoreError::EmptyPath);
        }
        let layout = Layout::new(dir);
        let lock = claim::claim(fs.as_ref(), &layout)?;
        log::debug!(target: LOG, "'{}' is open", dir.display());
        if let Err(error) = sweep::staging(fs.as_ref(), &layout) {
            // None of it is ever read.
            log::warn!(target: LOG, "{}", error.with_cause());
        }
        create_generations(fs.as_ref(), &layout)?;
        let identity = identity::establish(fs.as_ref(), &layout, options.run_seed)?;
        Ok(Self {
            fs,
            layout,
            identity,
            latest: Mutex::new(None),
            _lock: lock,
        })
    }

    /// What the directory is, and whose.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The path that the directory was opened with.
    pub fn path(&self) -> &Path {
        self.layout.root()
    }

    /// Reads and verifies the newest generation. Damaged ones are moved to the quarantine, or stay
    /// in their place if the disk doesn't let them go, and the next older one is tried. `None` if
    /// nothing was ever committed.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoneLeft`] if there were generations and every one is damaged,
    /// [`StoreError::NewerFormat`], [`StoreError::AnotherRun`], [`StoreError::Foreign`] if something
    /// of somebody else's stands where the quarantine is to be, and [`StoreError::Io`] if a call
    /// fails in a way that says nothing about the generation; it stays in its place then.
    pub fn newest(&self) -> Result<Option<Generation>, StoreError> {
        self.newest_cut(&Uncut)
    }

    /// The same, with parts read into as many buffers as `cutter` says:
    /// [`Generation::take_pieces`] gives them.
    ///
    /// # Errors
    ///
    /// Those of [`newest`](Self::newest).
    pub fn newest_cut(&self, cutter: &dyn Cutter) -> Result<Option<Generation>, StoreError> {
        let fs = self.fs.as_ref();
        let mut not_moved = None;
        for id in discover::generations(fs, &self.layout)? {
            match verify::generation(fs, &self.layout, id, &self.identity, cutter)? {
                Ok(generation) => {
                    log::debug!(target: LOG, "generation {id} is whole");
                    self.set_latest(id, generation.manifest().parts.clone());
                    quarantine::bound(fs, &self.layout);
                    return Ok(Some(generation));
                }
                Err(damage) => match quarantine::generation(fs, &self.layout, id, &damage) {
                    // The disk may be full. That must not keep an older one back.
                    Err(error @ StoreError::Io { .. }) => {
                        log::error!(
                            target: LOG,
                            "generation {id} is damaged ({damage}) and stays in its place: {}",
                            error.with_cause(),
                        );
                        not_moved = Some(error);
                    }
                    moved => moved?,
                },
            }
        }
        if let Some(error) = not_moved {
            return Err(error);
        }
        let quarantined = discover::quarantined(fs, &self.layout)?;
        let is_generation = |what: &_| matches!(what, Quarantined::Generation { .. });
        if quarantined.iter().any(|(what, _)| is_generation(what)) {
            return Err(StoreError::NoneLeft {
                path: self.layout.root().to_path_buf(),
            });
        }
        Ok(None)
    }

    /// Begins a generation.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if its staging directory can't be created.
    pub fn stage(&self) -> Result<Staging<'_>, StoreError> {
        let newest = discover::greatest_number(self.fs.as_ref(), &self.layout)?;
        Staging::create(self, newest.next())
    }

    /// The generation that was verified or committed last.
    pub(crate) fn latest(&self) -> Option<Latest> {
        let latest = self.latest.lock();
        latest.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_latest(&self, id: GenerationId, parts: Vec<PartEntry>) {
        let latest = self.latest.lock();
        *latest.unwrap_or_else(PoisonError::into_inner) = Some(Latest { id, parts });
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
        let dir = dir.as_ref();
        if dir.as_os_str().is_empty() {
            return Err(StoreError::EmptyPath);
        }
        let layout = Layout::new(dir);
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

    /// Deletes the backup: everything that this crate wrote, and the directory if nothing else is
    /// in it. The generations go in one atomic step.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if a call fails. Before the atomic step every generation is as it was;
    /// after it, what is left is removed by the next call or counts as empty at the next open.
    pub fn remove(self) -> Result<(), StoreError> {
        let fs = self.fs.as_ref();
        let root = self.layout.root();
        let failed = |operation, at: &Path| StoreError::io(operation, at, TAKEN_AWAY);
        log::debug!(target: LOG, "removing the backup in '{}'", root.display());

        // The quarantine first: with it gone, no generations means a new training.
        remove::retire(fs, &self.layout, &self.layout.quarantine())?;
        remove::retire(fs, &self.layout, &self.layout.generations())?;
        sweep::staging(fs, &self.layout)?;
        for file in [self.layout.identity(), self.layout.lock()] {
            if fs.kind(&file).map_err(failed("look at", &file))?.is_some() {
                fs.remove_file(&file).map_err(failed("remove", &file))?;
            }
        }
        fs.sync_dir(root).map_err(failed("sync", root))?;
        if fs.list(root).map_err(failed("list", root))?.is_empty() {
            // A mount point or a link can't be removed like this, and needn't be.
            match fs.remove_dir(root) {
                Ok(()) => log::debug!(target: LOG, "'{}' removed", root.display()),
                Err(error) => {
                    log::debug!(target: LOG, "'{}' stays, empty: {error}", root.display());
                }
            }
        }
        Ok(())
    }
}

fn create_generations(fs: &dyn Filesystem, layout: &Layout) -> Result<(), StoreError> {
    let dir = layout.generations();
    match fs.kind(&dir) {
        Ok(Some(EntryKind::Dir)) => Ok(()),
        Ok(Some(_)) => Err(StoreError::Foreign { path: dir }),
        Ok(None) => fs
            .create_dir(&dir)
            .and_then(|()| fs.sync_dir(layout.root()))
            .map_err(StoreError::io("create", &dir, UNCHANGED)),
        Err(error) => Err(StoreError::io("look at", &dir, UNCHANGED)(error)),
    }
}
