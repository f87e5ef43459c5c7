//! The backup directory as a whole: opened, locked, searched, emptied.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::directory::Directory;
use crate::error::{NOT_DURABLE, StoreError, TAKEN_AWAY, UNCHANGED};
use crate::formats::{self, Which};
use crate::fs::{EntryKind, Filesystem, RealFilesystem};
use crate::identity::{self, Identity};
use crate::knowledge::{Knowledge, Known};
use crate::layout::{Layout, Quarantined};
use crate::persist::Staging;
use crate::possession::IfGone;
use crate::sync::{self, Sync};
use crate::tolerant::Tolerant;
use crate::verify::{Cutter, Generation, Uncut};
use crate::{claim, discover, persist, quarantine, remove, sweep, verify};

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

    /// Reads and verifies the newest generation, and makes it durable: who copied it, or committed it
    /// and was killed, may not have come to that. Damaged ones are moved to the quarantine, or stay
    /// in their place if the disk doesn't let them go, and the next older one is tried. What can't be
    /// read, or is not what was written, is read once more before that is believed. `None` if nothing
    /// was ever committed.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoneLeft`] if there were generations and every one is damaged,
    /// [`StoreError::NewerFormat`], [`StoreError::AnotherRun`], [`StoreError::AnotherSeed`],
    /// [`StoreError::Foreign`] if something of somebody else's stands where the quarantine is to be,
    /// [`StoreError::Gone`] and [`StoreError::TakenOver`] if the directory is not this store's any more,
    /// and [`StoreError::Io`] if a call fails in a way that says nothing about the generation; it stays
    /// in its place then.
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
        self.newest_unexplained(cutter)
            .map_err(|error| self.explain(error))
    }

    fn newest_unexplained(&self, cutter: &dyn Cutter) -> Result<Option<Generation>, StoreError> {
        self.possess(IfGone::Fail)?;
        let (fs, layout) = (self.dir.fs(), &self.dir.layout);
        let (mut not_moved, mut is_first) = (None, true);
        for id in discover::generations(fs, layout)? {
            let damage = match verify::generation(fs, layout, id, &self.identity, cutter)? {
                Ok(generation) => {
                    log::debug!(target: LOG, "generation {id} is whole");
                    self.make_durable(&generation)?;
                    self.dir.check()?;
                    let parts = generation.manifest().parts.clone();
                    self.knowledge.set_latest(id, parts);
                    quarantine::bound(&self.dir);
                    return Ok(Some(generation));
                }
                Err(damage) => damage,
            };
            if std::mem::take(&mut is_first) {
                // One of those that come next is to be used: none is moved if that can't be.
                formats::refuse_newer(&self.dir, Which::All)?;
            }
            self.knowledge.learn(id, Known::Damaged);
            match quarantine::generation(&self.dir, id, &damage) {
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
            }
        }
        if let Some(error) = not_moved {
            return Err(error);
        }
        let quarantined = discover::quarantined(fs, layout)?;
        // There is nothing to be found in a directory that is gone.
        self.dir.check()?;
        let is_generation = |what: &_| matches!(what, Quarantined::Generation { .. });
        if quarantined.iter().any(|(what, _)| is_generation(what)) {
            return Err(StoreError::NoneLeft {
                path: layout.root().to_path_buf(),
            });
        }
        Ok(None)
    }

    /// Makes it certain that what was read survives a power cut.
    fn make_durable(&self, generation: &Generation) -> Result<(), StoreError> {
        let layout = &self.dir.layout;
        let place = layout.generation(generation.id());
        let files = generation.manifest().parts.iter().map(|part| &part.file);
        let files: Vec<_> = files
            .map(|file| place.join(file))
            .chain([place.join(crate::layout::MANIFEST_FILE)])
            .collect();
        let dirs = [place, layout.generations(), layout.root().to_path_buf()];
        let syncs = files.iter().map(|path| Sync::File(path));
        let syncs = syncs.chain(dirs.iter().map(|path| Sync::Dir(path)));
        sync::together(self.dir.fs(), syncs.collect()).map_err(|(at, error)| {
            let path = files.iter().chain(&dirs).nth(at);
            let path = path.map_or(layout.root(), PathBuf::as_path);
            StoreError::io("sync", path, NOT_DURABLE)(error)
        })
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

    /// Deletes the backup: everything that this crate wrote, and the directory if nothing else is
    /// in it. The generations go in one atomic step. If the directory is gone and nobody else has begun
    /// at its path, there is nothing to delete.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if a call fails. Before the atomic step every generation is as it was;
    /// after it, what is left is removed by the next call or counts as empty at the next open.
    /// [`StoreError::TakenOver`] if the path is somebody else's now, and [`StoreError::AnotherRun`] if
    /// a generation in the directory is; nothing is removed then.
    pub fn remove(self) -> Result<(), StoreError> {
        let root = self.dir.layout.root();
        match self
            .remove_unexplained()
            .map_err(|error| self.explain(error))
        {
            Err(StoreError::Gone { .. }) => {
                log::warn!(
                    target: LOG,
                    "the backup in '{}' can't be deleted: its directory was removed or renamed while                      the training ran", root.display(),
                );
                Ok(())
            }
            removed => removed,
        }
    }

    fn remove_unexplained(&self) -> Result<(), StoreError> {
        self.possess(IfGone::Fail)?;
        let (dir, fs, layout) = (&self.dir, self.dir.fs(), &self.dir.layout);
        let root = layout.root();
        let failed = |operation, at: &Path| StoreError::io(operation, at, TAKEN_AWAY);
        self.refuse_another_run()?;
        log::debug!(target: LOG, "removing the backup in '{}'", root.display());

        // The quarantine first: with it gone, no generations means a new training.
        remove::retire(dir, &layout.quarantine())?;
        remove::retire(dir, &layout.generations())?;
        if let Some(error) = sweep::staging(dir).into_iter().next() {
            return Err(error);
        }
        remove::file(dir, &layout.identity())?;
        dir.remove_lock(&layout.staging("lock", persist::draw()?))?;
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

    /// Somebody may have put another training's generation into the directory.
    fn refuse_another_run(&self) -> Result<(), StoreError> {
        let (fs, layout) = (self.dir.fs(), &self.dir.layout);
        for id in discover::generations(fs, layout)? {
            if self
                .knowledge
                .known(id)
                .is_some_and(|known| known != Known::Theirs)
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
