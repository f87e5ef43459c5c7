//! Exports the model of a backup as a file that plain Burn reads.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::store::RecordError;
use burn_backup_store::{GenerationId, Manifest, Observation, Observer, OpenGeneration};

use crate::burn_api::burnpack::{Container, ReadAt};
use crate::error::BackupError;
use crate::handle::BackupHandle;
use crate::part::{self, FROZEN, MODEL, unreadable};
use crate::save::candidate;
use crate::which::Which;

const LOG: &str = "burn_backup::restore";

/// Numbers the temporary files of this process.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// The size of one read.
const WINDOW_BYTES: u64 = 4 * 1024 * 1024;

/// How many attempts are made to open a backup that is pruned meanwhile.
const TRIES: usize = 10;

impl BackupHandle {
    /// Writes the model of a backup to `path`, as a record that plain Burn reads: `ModuleRecord::load(path)`, and
    /// then `model.load_record(record)`. It can be called while the training runs, and does not disturb it. Returns
    /// the number of the backup.
    ///
    /// Each byte is verified first. The file appears whole or not at all, and replaces an existing one. Missing
    /// directories are created. The file is in Burn's format, whether the backup holds the model in one part or in
    /// two. It includes the parameters that are not trained.
    ///
    /// # Errors
    ///
    /// - [`BackupError::NoSuchBackup`] if the backup does not exist.
    /// - [`BackupError::AmbiguousModel`] if the backup has several models, or none.
    /// - [`BackupError::Store`] if the backup is damaged or can't be read.
    /// - [`BackupError::Export`] if the file can't be written.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use burn::module::Module;
    /// use burn::store::ModuleRecord;
    /// use burn_backup_restore::{BackupHandle, Direction, Which};
    ///
    /// # fn best<M: Module>(handle: &BackupHandle, model: M) -> Result<M, Box<dyn std::error::Error>> {
    /// handle.export(&Which::best("Loss", Direction::Lowest), "best.bpk")?;
    /// let model = model.load_record(ModuleRecord::load("best.bpk")?);
    /// # Ok(model)
    /// # }
    /// ```
    pub fn export(
        &self,
        which: &Which,
        path: impl AsRef<Path>,
    ) -> Result<GenerationId, BackupError> {
        self.export_model(which, None, path.as_ref())
    }

    /// Like [`export`](Self::export), for the model of the state named `state`. For trainings with several states.
    ///
    /// # Errors
    ///
    /// The errors of [`export`](Self::export).
    pub fn export_state(
        &self,
        which: &Which,
        state: &str,
        path: impl AsRef<Path>,
    ) -> Result<GenerationId, BackupError> {
        self.export_model(which, Some(state), path.as_ref())
    }

    fn export_model(
        &self,
        which: &Which,
        state: Option<&str>,
        path: &Path,
    ) -> Result<GenerationId, BackupError> {
        let observer = Observer::on(self.backup_dir(), self.filesystem())?;
        let generation = self.open(&observer, which)?;
        let models = models(generation.manifest());
        let state = match (state, models.as_slice()) {
            (Some(state), models) => models.iter().find(|model| *model == state),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        let Some(state) = state else {
            return Err(BackupError::AmbiguousModel {
                path: self.backup_dir().to_path_buf(),
                generation: generation.id().number(),
                models,
            });
        };
        let (model, frozen) = (part::name(state, MODEL), part::name(state, FROZEN));
        // Verify all parts before anything is written.
        for part in [&model, &frozen] {
            generation.check(part)?;
        }
        let (id, generation) = (generation.id(), Arc::new(generation));
        let path = std::path::absolute(path).map_err(failed("write", path))?;
        write(&path, |file, path| match generation.part(&frozen) {
            None => copy(&generation, &model, file, path),
            Some(_) => merge(&generation, [&model, &frozen], file, path),
        })?;
        Ok(id)
    }

    /// Opens the backup that `which` selects. It stays readable, even if it is pruned meanwhile.
    fn open(&self, observer: &Observer, which: &Which) -> Result<OpenGeneration, BackupError> {
        let mut tries = 0;
        loop {
            let mut known = BTreeMap::new();
            let mut newest_first = Vec::new();
            let mut open = BTreeMap::new();
            for id in observer.generations()? {
                if let Observation::Manifest(generation) = observer.open(id)? {
                    newest_first.push(id);
                    known.extend(candidate(generation.manifest()).map(|candidate| (id, candidate)));
                    open.insert(id, generation);
                }
            }
            let found = which.find(&newest_first, &known);
            if let Some(generation) = found.and_then(|id| open.remove(&id)) {
                return Ok(*generation);
            }
            tries += 1;
            // All listed generations may just have been pruned: list again.
            if !newest_first.is_empty() || tries == TRIES {
                return Err(BackupError::NoSuchBackup {
                    path: self.backup_dir().to_path_buf(),
                    asked: which.to_string(),
                    found: which.describe(&newest_first, &known),
                });
            }
        }
    }
}

/// The names of the states with a model.
fn models(manifest: &Manifest) -> Vec<String> {
    let state = |part: &str| {
        let state = part.strip_suffix(MODEL)?;
        match state {
            "" => Some(String::new()),
            state => state.strip_suffix('-').map(str::to_owned),
        }
    };
    let parts = manifest.parts.iter();
    let mut models: Vec<_> = parts.filter_map(|part| state(&part.name)).collect();
    models.sort_unstable();
    models
}

/// Copies a part unchanged.
fn copy(
    generation: &OpenGeneration,
    part: &str,
    file: &mut File,
    path: &Path,
) -> Result<(), BackupError> {
    let Some(part) = generation.part(part) else {
        return Ok(());
    };
    let bytes = part.entry().bytes;
    let mut done = 0;
    while done < bytes {
        let length = WINDOW_BYTES.min(bytes - done);
        let mut window = vec![0; usize::try_from(length).unwrap_or_default()];
        part.read(done, &mut window)?;
        file.write_all(&window).map_err(failed("write", path))?;
        done += length;
    }
    Ok(())
}

/// Writes the records of several parts as one record. Only one tensor at a time is in memory.
fn merge(
    generation: &Arc<OpenGeneration>,
    parts: [&String; 2],
    file: &mut File,
    path: &Path,
) -> Result<(), BackupError> {
    let mut merged = Container::default();
    for part in parts {
        let (of, name) = (generation.clone(), part.clone());
        let read: ReadAt = Arc::new(move |offset, buffer| {
            let part = of.part(&name);
            let part = part.ok_or_else(|| RecordError::Io(format!("'{name}' is not there")))?;
            let read = part.read(offset, buffer);
            read.map_err(|error| RecordError::Io(error.to_string()))
        });
        let container = Container::deferred(read).map_err(unreadable(part))?;
        merged.tensors.extend(container.tensors);
        merged.scalars.extend(container.scalars);
        merged.metadata.extend(container.metadata);
    }
    let [model, _] = parts;
    merged.stream(unreadable(model), |chunk| {
        file.write_all(chunk.as_ref())
            .map_err(failed("write", path))
    })
}

/// Has `fill` write a temporary file in the same directory, syncs it, and renames it to `path`.
fn write(
    path: &Path,
    fill: impl FnOnce(&mut File, &Path) -> Result<(), BackupError>,
) -> Result<(), BackupError> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        let source = io::Error::from(io::ErrorKind::InvalidInput);
        return Err(failed("write", path)(source));
    };
    fs::create_dir_all(dir).map_err(failed("create the directory of", path))?;
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let temporary = format!(".{}.{process}-{count}.tmp", name.to_string_lossy());
    let temporary = dir.join(temporary);
    let written = fill_and_sync(&temporary, path, fill).and_then(|()| {
        let renamed = fs::rename(&temporary, path);
        renamed.map_err(failed("write", path))
    });
    if let Err(error) = written {
        remove(&temporary);
        return Err(error);
    }
    // Some systems can't sync a directory. The file itself is complete.
    if let Ok(dir) = File::open(dir)
        && let Err(error) = dir.sync_all()
    {
        log::debug!(target: LOG, "'{}' may not survive a power cut: {error}", path.display());
    }
    Ok(())
}

fn fill_and_sync(
    temporary: &PathBuf,
    path: &Path,
    fill: impl FnOnce(&mut File, &Path) -> Result<(), BackupError>,
) -> Result<(), BackupError> {
    let mut options = OpenOptions::new();
    // An earlier process with the same id may have left this file: overwrite it.
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .open(temporary);
    let mut file = file.map_err(failed("write", path))?;
    fill(&mut file, path)?;
    file.sync_all().map_err(failed("sync", path))
}

fn remove(temporary: &Path) {
    if let Err(error) = fs::remove_file(temporary)
        && error.kind() != io::ErrorKind::NotFound
    {
        log::warn!(target: LOG, "'{}' is left over: {error}", temporary.display());
    }
}

fn failed(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> BackupError + use<> {
    let path = path.to_path_buf();
    move |source| BackupError::Export {
        operation,
        path: path.clone(),
        source,
    }
}
