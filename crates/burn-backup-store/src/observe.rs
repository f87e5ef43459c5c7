//! Reads a backup directory without locking, creating or changing anything in it. A training that uses the directory is
//! not disturbed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::claim;
use crate::discover;
use crate::error::{Damage, StoreError, UNCHANGED};
use crate::fs::{EntryKind, Filesystem, RealFilesystem};
use crate::identity::Identity;
use crate::identity_file::{self, Found};
use crate::layout::{self, GenerationId, Layout, Quarantined, REASON_FILE};
use crate::manifest::Manifest;
use crate::part_reader::PartReader;
use crate::path::absolute;
use crate::verify::{self, Sealed, Small};

/// How often the generations are listed until at least one is found. A training that commits one and prunes the
/// previous one can hide both from a single listing.
const LISTINGS: usize = 100;

/// A reason is a few lines long.
const MAX_REASON_BYTES: u64 = 64 * 1024;

/// A backup directory, opened for reading only.
pub struct Observer {
    fs: Arc<dyn Filesystem>,
    layout: Layout,
}

/// Whether a process uses a backup directory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Use {
    /// No process uses it.
    Unused,
    /// A process of this machine uses it. The text is what that process wrote into the lock file.
    InUse(String),
    /// The platform can't tell. The text names the last process that used it, if one did.
    Unknown(Option<String>),
}

/// What an observer finds at the place of a generation.
#[derive(Debug)]
#[non_exhaustive]
pub enum Observation {
    /// A manifest that is whole. Its parts are not read.
    Manifest(Box<OpenGeneration>),
    /// The manifest is damaged, or a part's file is missing.
    Damaged(Damage),
    /// The generation is missing. If it was there a moment ago, it was pruned.
    Gone,
}

/// A generation whose files are open. They stay readable and unchanged while this value exists, even if the generation
/// is pruned.
pub struct OpenGeneration {
    manifest: Manifest,
    sealed: Vec<u8>,
    path: PathBuf,
    parts: Vec<PartReader>,
}

/// A damaged generation or file that was moved to the quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quarantine {
    /// The name of its directory in the quarantine.
    pub name: String,
    /// The generation's number; `None` for `burn-backup.json`.
    pub generation: Option<GenerationId>,
    /// Its path in the quarantine.
    pub path: PathBuf,
    /// The reason for the quarantine, if it can be read.
    pub reason: Option<String>,
}

/// A generation that was moved aside when the training went back to an older one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Aside {
    /// Its number.
    pub generation: GenerationId,
    /// Its path.
    pub path: PathBuf,
}

impl Observer {
    /// Observes the directory `dir`, which may be missing. A relative path is made absolute first.
    ///
    /// # Errors
    ///
    /// [`StoreError::EmptyPath`], [`StoreError::NotADirectory`], and [`StoreError::Io`] if its metadata can't be read.
    pub fn new(dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::on(dir, Arc::new(RealFilesystem))
    }

    /// Like [`new`](Self::new), with `fs` in place of the operating system's filesystem.
    ///
    /// # Errors
    ///
    /// The errors of [`new`](Self::new).
    pub fn on(dir: impl AsRef<Path>, fs: Arc<dyn Filesystem>) -> Result<Self, StoreError> {
        let root = absolute(dir.as_ref(), fs.as_ref())?;
        let kind = fs.kind(&root);
        match kind.map_err(StoreError::io("inspect", &root, UNCHANGED))? {
            None | Some(EntryKind::Dir) => {}
            Some(EntryKind::Other) if fs.list(&root).is_ok() => {}
            Some(_) => return Err(StoreError::NotADirectory { path: root }),
        }
        Ok(Self {
            fs,
            layout: Layout::new(&root),
        })
    }

    /// The absolute path of the directory.
    pub fn path(&self) -> &Path {
        self.layout.root()
    }

    /// The format of the directory and the training it belongs to; `None` if `burn-backup.json` is missing or damaged.
    ///
    /// # Errors
    ///
    /// [`StoreError::NewerFormat`], [`StoreError::Foreign`], and [`StoreError::Io`].
    pub fn identity(&self) -> Result<Option<Identity>, StoreError> {
        Ok(match identity_file::read(self.fs.as_ref(), &self.layout)? {
            Found::Whole(identity) => Some(identity),
            Found::Damaged | Found::Nothing => None,
        })
    }

    /// Whether a process uses the directory. Only processes of this machine are detected, and only on Linux.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the lock file can't be read.
    pub fn in_use(&self) -> Result<Use, StoreError> {
        let path = self.layout.lock();
        let failed = |operation| StoreError::io(operation, &path, UNCHANGED);
        if self.fs.kind(&path).map_err(failed("inspect"))? != Some(EntryKind::File) {
            return Ok(Use::Unused);
        }
        let owner = claim::owner(self.fs.as_ref(), &path).map_err(failed("read"))?;
        Ok(match self.fs.is_locked(&path).map_err(failed("inspect"))? {
            Some(true) => Use::InUse(owner.unwrap_or_else(|| "another process".to_owned())),
            Some(false) => Use::Unused,
            None => Use::Unknown(owner),
        })
    }

    /// The generations that are in place, newest first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn generations(&self) -> Result<Vec<GenerationId>, StoreError> {
        for _ in 1..LISTINGS {
            let found = discover::generations(self.fs.as_ref(), &self.layout)?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        discover::generations(self.fs.as_ref(), &self.layout)
    }

    /// Reads the manifest of the generation `id`, and opens its parts.
    ///
    /// # Errors
    ///
    /// [`StoreError::NewerFormat`], and [`StoreError::Io`], which does not mean that the generation is damaged.
    pub fn open(&self, id: GenerationId) -> Result<Observation, StoreError> {
        let path = self.layout.generation(id);
        self.open_at(id, path)
    }

    /// Like [`open`](Self::open), for a generation in the quarantine.
    ///
    /// # Errors
    ///
    /// The errors of [`open`](Self::open).
    pub fn open_quarantined(&self, quarantine: &Quarantine) -> Result<Observation, StoreError> {
        match quarantine.generation {
            Some(id) => self.open_at(id, quarantine.path.clone()),
            None => Ok(Observation::Gone),
        }
    }

    fn open_at(&self, id: GenerationId, path: PathBuf) -> Result<Observation, StoreError> {
        let fs = self.fs.as_ref();
        let is_there = || {
            let kind = fs.kind(&path);
            let kind = kind.map_err(StoreError::io("inspect", &path, UNCHANGED))?;
            Ok(kind == Some(EntryKind::Dir))
        };
        if !is_there()? {
            return Ok(Observation::Gone);
        }
        let opened = verify::sealed_at(fs, &path, id).and_then(|sealed| match sealed {
            Ok(sealed) => self.open_parts(&path, sealed),
            Err(damage) => Ok(Err(damage)),
        });
        // A generation that was pruned meanwhile is neither damaged nor a failure.
        if !is_there()? {
            return Ok(Observation::Gone);
        }
        Ok(match opened? {
            Ok(generation) => Observation::Manifest(Box::new(generation)),
            Err(damage) => Observation::Damaged(damage),
        })
    }

    fn open_parts(
        &self,
        path: &Path,
        sealed: Sealed,
    ) -> Result<Result<OpenGeneration, Damage>, StoreError> {
        let fs = self.fs.as_ref();
        let Sealed { manifest, bytes } = sealed;
        let mut parts = Vec::with_capacity(manifest.parts.len());
        for entry in &manifest.parts {
            let file = path.join(&entry.file);
            let kind = fs.kind(&file);
            if kind.map_err(StoreError::io("inspect", &file, UNCHANGED))? != Some(EntryKind::File) {
                return Ok(Err(Damage::PartMissing {
                    file: entry.file.clone(),
                }));
            }
            parts.push(PartReader::open(fs, file, entry)?);
        }
        Ok(Ok(OpenGeneration {
            manifest,
            sealed: bytes,
            path: path.to_path_buf(),
            parts,
        }))
    }

    /// The remains of interrupted saves and deletions. While a process uses the directory, they also include what it is
    /// saving, removing, or keeping to write over.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn leftovers(&self) -> Result<Vec<PathBuf>, StoreError> {
        let root = self.layout.root();
        let entries = match self.fs.list(root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(StoreError::io("list", root, UNCHANGED))?,
        };
        let left = entries
            .iter()
            .filter(|entry| layout::is_staging_name(&entry.name));
        let mut left: Vec<_> = left.map(|entry| root.join(&entry.name)).collect();
        left.sort_unstable();
        Ok(left)
    }

    /// The generations that were set aside, oldest first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn set_aside(&self) -> Result<Vec<Aside>, StoreError> {
        let mut found = discover::set_aside(self.fs.as_ref(), &self.layout)?;
        found.sort_unstable();
        let aside = |(what, path)| match what {
            Quarantined::Generation { id, .. } => Some(Aside {
                generation: id,
                path,
            }),
            Quarantined::Identity { .. } => None,
        };
        Ok(found.into_iter().filter_map(aside).collect())
    }

    /// Like [`open`](Self::open), for a generation that was set aside.
    ///
    /// # Errors
    ///
    /// The errors of [`open`](Self::open).
    pub fn open_aside(&self, aside: &Aside) -> Result<Observation, StoreError> {
        self.open_at(aside.generation, aside.path.clone())
    }

    /// The contents of the quarantine: copies of `burn-backup.json` first, then generations by number.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn quarantined(&self) -> Result<Vec<Quarantine>, StoreError> {
        let fs = self.fs.as_ref();
        let mut found = discover::quarantined(fs, &self.layout)?;
        found.sort_unstable();
        let quarantine = |(what, path): (Quarantined, PathBuf)| Quarantine {
            name: what.dir_name(),
            generation: match what {
                Quarantined::Generation { id, .. } => Some(id),
                Quarantined::Identity { .. } => None,
            },
            reason: match verify::read_small(fs, &path.join(REASON_FILE), MAX_REASON_BYTES) {
                Ok(Small::Whole(reason)) => {
                    let reason = String::from_utf8_lossy(&reason);
                    Some(reason.trim_end().to_owned())
                }
                _ => None,
            },
            path,
        };
        Ok(found.into_iter().map(quarantine).collect())
    }
}

impl OpenGeneration {
    /// The generation's number.
    pub fn id(&self) -> GenerationId {
        self.manifest.generation
    }

    /// The parts and the state of the generation.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest, byte for byte.
    pub fn sealed(&self) -> &[u8] {
        &self.sealed
    }

    /// The path of the generation.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The parts, in the manifest's order.
    pub fn parts(&self) -> &[PartReader] {
        &self.parts
    }

    /// Reads the part `name` and compares it with the manifest. Does nothing if there is no such part.
    ///
    /// # Errors
    ///
    /// [`StoreError::GenerationDamaged`], and [`StoreError::Io`], which does not mean that the part is damaged.
    pub fn check(&self, name: &str) -> Result<(), StoreError> {
        let Some(part) = self.part(name) else {
            return Ok(());
        };
        let verified = part.verify(&mut |_| {})?;
        verified.map_err(|damage| StoreError::GenerationDamaged {
            path: self.path.clone(),
            damage,
        })
    }

    /// The part `name`; `None` if there is no part with this name.
    pub fn part(&self, name: &str) -> Option<&PartReader> {
        self.parts.iter().find(|part| part.entry().name == name)
    }
}

impl std::fmt::Debug for OpenGeneration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenGeneration")
            .field("path", &self.path)
            .field("manifest", &self.manifest)
            .finish_non_exhaustive()
    }
}
