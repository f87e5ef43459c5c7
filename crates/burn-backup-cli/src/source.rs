//! Reads generations from a directory or a mirror, without changing it.

use std::ops::Deref;
use std::path::Path;

use anyhow::{Context as _, Result};
use burn_backup_remote::{Connection, Mirror, MirrorError, MirroredTraining};
use burn_backup_store::{
    GenerationId, Identity, Manifest, Observation, Observer, OpenGeneration, OpenOptions, Store,
};
use tempfile::TempDir;

use crate::exit::{Exit, refuse};
use crate::output::{Output, bytes};
use crate::place::Place;

/// How often generations are listed again if a training prunes all of them before one is read.
pub const MAX_LISTINGS: usize = 100;

/// A place to read generations from.
pub enum Source {
    Directory(Directory),
    Mirror(Box<Mirrored>),
}

/// A backup directory.
pub struct Directory {
    pub observer: Observer,
    /// `None` if `burn-backup.json` is missing or damaged.
    pub identity: Option<Identity>,
}

/// A training in a mirror.
pub struct Mirrored {
    pub name: String,
    pub connection: Connection,
    pub training: MirroredTraining,
}

/// The result of looking up a generation.
pub enum Found {
    Manifest(Box<Manifest>),
    /// With the damage in words.
    Damaged(String),
    Gone,
}

/// A generation on this machine: in its directory, or in a temporary copy from a mirror. The copy is deleted with it.
pub struct Local {
    generation: Box<OpenGeneration>,
    _copy: Option<TempDir>,
}

impl Deref for Local {
    type Target = OpenGeneration;

    fn deref(&self) -> &OpenGeneration {
        &self.generation
    }
}

impl Directory {
    /// Opens a directory that has a backup, or in which one was begun.
    pub fn open(path: &Path) -> Result<Self> {
        allow_many_files();
        let observer = Observer::new(path)?;
        let none = |what: &str| {
            let shown = observer.path().display();
            refuse(
                Exit::NoBackup,
                format!("there is no backup in '{shown}': {what}"),
            )
        };
        if !observer.path().exists() {
            return Err(none("there is no such directory. Check the path"));
        }
        let identity = observer.identity()?;
        let is_backup = identity.is_some()
            || !observer.generations()?.is_empty()
            || !observer.quarantined()?.is_empty();
        if is_backup {
            return Ok(Self { observer, identity });
        }
        let mut entries = observer
            .path()
            .read_dir()
            .context("the directory can't be listed")?;
        Err(match entries.next() {
            None => none("the directory is empty. Check the path"),
            Some(_) => none("the directory contains something else. Check the path"),
        })
    }

    /// Whether the generation belongs to another training.
    pub fn is_of_another(&self, manifest: &Manifest) -> bool {
        self.identity.as_ref().is_some_and(|identity| {
            identity.run_id != manifest.run_id || identity.run_seed != manifest.run_seed
        })
    }
}

impl Mirrored {
    /// Opens the mirror of one training.
    pub fn open(url: &str) -> Result<Self> {
        let mirror = Mirror::new(url);
        let connection = mirror.connect()?;
        let training = only(&mirror.to_string(), connection.observe()?)?;
        Ok(Self {
            name: mirror.to_string(),
            connection,
            training,
        })
    }
}

/// The only unfinished training in a mirror. None, or several, are an error.
pub fn only(mirror: &str, mut trainings: Vec<MirroredTraining>) -> Result<MirroredTraining> {
    let finished = trainings
        .iter()
        .filter(|training| training.finished().is_some())
        .count();
    trainings.retain(|training| training.finished().is_none());
    let none = |what: String| {
        refuse(
            Exit::NoBackup,
            format!("there is no backup in {mirror}: {what}"),
        )
    };
    match trainings.len() {
        0 if finished > 0 => Err(none(
            "its training has run to its end. The program has the trained model".to_owned(),
        )),
        0 => Err(none("the mirror has no training. Check the URL".to_owned())),
        1 => Ok(trainings.remove(0)),
        several => Err(refuse(
            Exit::Failed,
            format!(
                "{mirror} has backups of {several} trainings, so it is unclear which one is meant: \
                 `burn-backup list` shows them; give each training its own mirror"
            ),
        )),
    }
}

impl Source {
    pub fn open(place: &Place) -> Result<Self> {
        Ok(match place {
            Place::Directory(path) => Self::Directory(Directory::open(path)?),
            Place::Mirror(url) => Self::Mirror(Box::new(Mirrored::open(url)?)),
        })
    }

    /// The generations, newest first.
    pub fn ids(&self) -> Result<Vec<GenerationId>> {
        Ok(match self {
            Self::Directory(directory) => directory.observer.generations()?,
            Self::Mirror(mirror) => mirror.training.generations().collect(),
        })
    }

    /// Lists the mirror again, because the training may have made new generations.
    pub fn refresh(&mut self) -> Result<()> {
        if let Self::Mirror(mirror) = self {
            mirror.training = only(&mirror.name, mirror.connection.observe()?)?;
        }
        Ok(())
    }

    pub fn manifest(&self, id: GenerationId) -> Result<Found> {
        match self {
            Self::Directory(directory) => Ok(match directory.observer.open(id)? {
                Observation::Manifest(generation) => {
                    Found::Manifest(Box::new(generation.manifest().clone()))
                }
                Observation::Damaged(damage) => Found::Damaged(damage.to_string()),
                _ => Found::Gone,
            }),
            Self::Mirror(mirror) => match mirror.connection.manifest(&mirror.training, id) {
                Ok(manifest) => Ok(Found::Manifest(Box::new(manifest))),
                Err(MirrorError::Pruned { .. }) => Ok(Found::Gone),
                Err(error) if error.is_damage() => Ok(Found::Damaged(error.to_string())),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// The manifest of the generation `number`, or of the newest one.
    pub fn pick(&mut self, number: Option<u64>) -> Result<Manifest> {
        for _ in 0..MAX_LISTINGS {
            let ids = self.ids()?;
            let id = match number {
                Some(number) => Some(GenerationId::new(number)).filter(|id| ids.contains(id)),
                None => ids.first().copied(),
            };
            let Some(id) = id else {
                return Err(self.nothing_to_pick(number, &ids));
            };
            match self.manifest(id)? {
                Found::Manifest(manifest) => return Ok(*manifest),
                Found::Damaged(damage) => {
                    return Err(refuse(
                        Exit::Damage,
                        format!(
                            "generation {} is damaged: {damage}.{}",
                            id.number(),
                            instead(id, &ids)
                        ),
                    ));
                }
                Found::Gone => self.refresh()?,
            }
        }
        Err(pruned_too_soon())
    }

    fn nothing_to_pick(&self, number: Option<u64>, ids: &[GenerationId]) -> anyhow::Error {
        let numbers: Vec<_> = ids.iter().map(|id| id.number().to_string()).collect();
        let message = match (number, numbers.is_empty()) {
            (Some(number), false) => format!(
                "generation {number} does not exist. Existing generations: {}",
                numbers.join(", ")
            ),
            _ => "there is no generation. `burn-backup list` shows what the place has".to_owned(),
        };
        refuse(Exit::NoBackup, message)
    }

    /// The generation, with its parts. `None` if it was pruned. A generation in a mirror is copied first.
    pub fn local(&self, id: GenerationId, output: &Output) -> Result<Option<Local>> {
        match self {
            Self::Directory(directory) => open(&directory.observer, id, None),
            Self::Mirror(mirror) => mirror.copy(id, output),
        }
    }

    /// The generation `number`, or the newest one, with its parts. If it is pruned before it is open, the search is
    /// repeated.
    pub fn pick_local(&mut self, number: Option<u64>, output: &Output) -> Result<Local> {
        for _ in 0..MAX_LISTINGS {
            let id = self.pick(number)?.generation;
            if let Some(local) = self.local(id, output)? {
                return Ok(local);
            }
            self.refresh()?;
        }
        Err(pruned_too_soon())
    }
}

/// The error if all generations were pruned each time before one was read.
pub fn pruned_too_soon() -> anyhow::Error {
    refuse(
        Exit::Failed,
        "generations are pruned before they can be read: try again when the training saves less often",
    )
}

/// Names the generation to use if the generation `id` is damaged.
fn instead(id: GenerationId, ids: &[GenerationId]) -> String {
    match ids.iter().find(|other| **other < id) {
        Some(other) => format!(" The previous one is generation {}", other.number()),
        None => " There is no other one".to_owned(),
    }
}

impl Mirrored {
    fn copy(&self, id: GenerationId, output: &Output) -> Result<Option<Local>> {
        let copy = tempfile::Builder::new().prefix("burn-backup-").tempdir();
        let copy = copy
            .context("cannot create a temporary directory: check the free space, or set TMPDIR")?;
        let dir = copy.path().join("copy");
        let mut store = Store::open(&dir, OpenOptions::default())?;
        let mut bar = output.bar(&format!("generation {}", id.number()), 0);
        let on_transfer = &mut |transfer: burn_backup_remote::Transfer| {
            bar.set(transfer.done, transfer.of);
        };
        match self
            .connection
            .copy(&self.training, id, &mut store, on_transfer)
        {
            Err(MirrorError::Pruned { .. }) => return Ok(None),
            copied => copied?,
        }
        drop(store);
        open(&Observer::new(&dir)?, id, Some(copy))
    }
}

fn open(observer: &Observer, id: GenerationId, copy: Option<TempDir>) -> Result<Option<Local>> {
    match observer.open(id)? {
        Observation::Manifest(generation) => Ok(Some(Local {
            generation,
            _copy: copy,
        })),
        Observation::Damaged(damage) => Err(refuse(
            Exit::Damage,
            format!("generation {} is damaged: {damage}", id.number()),
        )),
        _ => Ok(None),
    }
}

/// Reads and checks all parts.
pub fn verify(generation: &OpenGeneration, output: &Output) -> Result<()> {
    let number = generation.id().number();
    let total = generation.manifest().bytes();
    let mut bar = output.bar(
        &format!("verifying {} of generation {number}", bytes(total)),
        total,
    );
    for part in generation.parts() {
        if let Err(damage) = part.verify(&mut |read| bar.add(read))? {
            return Err(refuse(
                Exit::Damage,
                format!(
                    "generation {number} is damaged: {}. Nothing was changed: `burn-backup verify` lists all damage",
                    crate::commands::verify::in_words(&damage, part.entry())
                ),
            ));
        }
    }
    Ok(())
}

/// Raises the limit on open files. All parts of a generation are open at once, so that a training can't remove them, and
/// there may be thousands.
fn allow_many_files() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let limit = Rlimit {
            current: maximum,
            maximum,
        };
        // If this fails, only the largest backups can't be read.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}
