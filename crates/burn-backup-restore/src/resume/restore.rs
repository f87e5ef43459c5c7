//! Restores a state from a verified generation.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use burn::store::ModuleRecord;
use burn::tensor::{Bytes, Device};
use burn_backup_store::{Buffer, Generation};

use crate::burn_api::burnpack::Container;
use crate::burn_api::{BURN_VERSION, host_memory};
use crate::change::{Change, Changes};
use crate::configuration::{Configuration, Schedule};
use crate::error::BackupError;
use crate::fingerprint;
use crate::part::{self, FROZEN, MODEL, OPTIMIZER, SCHEDULER, VALUE, unreadable};
use crate::save::{Fit, Frozen, Memory, SavePart, Segment};
use crate::state::{PartDocument, TrainingState};

/// A part of a training's state that can load its saved records.
pub(crate) trait LoadPart: SavePart {
    /// Checks that the saved records fit the part, before anything is changed. Returns the changes that were found
    /// and are allowed.
    fn check(&self, saved: &SavedPart, expected: &Expected<'_>)
    -> Result<Vec<Change>, BackupError>;

    /// Loads the saved records. `changed` lists the allowed changes that were found.
    fn load(
        &mut self,
        saved: SavedPart,
        changed: &mut Vec<Change>,
        expected: &Expected<'_>,
    ) -> Result<Loaded, BackupError>;

    /// Loads only the weights of a model.
    fn load_weights(&mut self, _saved: SavedPart, _backup_dir: &Path) -> Result<(), BackupError> {
        Ok(())
    }
}

/// The saved records of a part.
pub(crate) struct SavedPart {
    pub name: String,
    pub document: PartDocument,
    /// The number of optimizer steps so far.
    pub optimizer_steps: u64,
    pub model: Option<Bytes>,
    pub frozen: Option<Bytes>,
    pub optimizer: Option<Container>,
    pub scheduler: Option<Bytes>,
    pub value: Option<Bytes>,
    #[cfg_attr(
        not(feature = "rl"),
        expect(dead_code, reason = "only a replay buffer has segments")
    )]
    pub segments: Vec<Segment>,
}

/// Information that is known after a part is loaded.
#[derive(Default)]
pub(crate) struct Loaded {
    pub fit: Fit,
    /// The learning rate, if it is not the one in the backup.
    pub learning_rate: Option<f64>,
}

/// Information from a generation that is not part of the training's state.
#[derive(Default)]
pub(crate) struct Restored {
    pub memories: BTreeMap<String, Memory>,
    /// The allowed changes that were found.
    pub changed: Vec<Change>,
}

/// What the program expects of a backup.
pub(crate) struct Expected<'a> {
    pub configuration: &'a Configuration,
    pub changes: &'a Changes,
    /// The device that trains the model, or the first one of several.
    pub main: &'a Device,
    pub backup_dir: &'a Path,
    /// Whether the parts are as the program created them. In a rollback they have already been trained.
    pub are_fresh: bool,
}

/// The parts of a training's state, with their names.
pub(crate) type PartsMut<'a> = Vec<(String, &'a mut dyn LoadPart)>;

/// Loads `generation` into `parts`, after checking that it fits. Burn panics on a model that does not fit, and
/// silently accepts an optimizer or a scheduler that does not.
pub(crate) fn restore(
    parts: &mut PartsMut<'_>,
    mut generation: Generation,
    expected: &Expected<'_>,
) -> Result<(TrainingState, Restored), BackupError> {
    let Expected {
        configuration,
        changes,
        backup_dir,
        ..
    } = expected;
    let mut state = read_state(&generation, backup_dir)?;
    // Backups of earlier versions do not record this number.
    state.optimizer_steps = state.optimizer_steps();
    check_names(&state, parts, backup_dir)?;
    let mut changed = match &state.configuration {
        Some(recorded) => configuration.check(recorded, changes, backup_dir)?,
        None => Vec::new(),
    };
    if state.burn != BURN_VERSION {
        if !changes.allows(Change::BurnVersion) {
            return Err(BackupError::ConfigurationMismatch {
                path: backup_dir.to_path_buf(),
                what: "the version of Burn".to_owned(),
                recorded: state.burn,
                found: BURN_VERSION.to_owned(),
                change: Change::BurnVersion,
            });
        }
        changed.push(Change::BurnVersion);
        BURN_VERSION.clone_into(&mut state.burn);
    }
    let mut saved = Vec::with_capacity(parts.len());
    let mut schedules = Vec::with_capacity(parts.len());
    for (name, part) in parts.iter() {
        let part_of = SavedPart::take(name, &state, &mut generation)?;
        // Read the schedule before the part is loaded, because it has stepped afterwards. The configuration
        // covers the part without a name.
        let schedule = match (name.is_empty(), expected.are_fresh) {
            (true, _) => None,
            (false, true) => part.schedule(),
            (false, false) => part_of.document.schedule.clone(),
        };
        if let Some(change) = check_schedule(&part_of, schedule.as_ref(), expected)? {
            changed.push(change);
        }
        for change in part.check(&part_of, expected)? {
            if !changed.contains(&change) {
                changed.push(change);
            }
        }
        saved.push(part_of);
        schedules.push(schedule);
    }
    drop(generation);

    let mut memories = BTreeMap::new();
    for ((name, part), saved) in parts.iter_mut().zip(saved) {
        let frozen = match &saved.frozen {
            Some(bytes) => {
                let failed = unreadable(&part::name(name, FROZEN));
                let frozen = Container::from_bytes(bytes.clone()).map_err(failed)?;
                Frozen::continued(
                    frozen
                        .tensors
                        .into_iter()
                        .map(|tensor| tensor.name)
                        .collect(),
                )
            }
            None => Frozen::default(),
        };
        let Loaded { fit, learning_rate } = part.load(saved, &mut changed, expected)?;
        if learning_rate.is_some() {
            state.learning_rate = learning_rate;
        }
        memories.insert(name.clone(), Memory { fit, frozen });
    }
    state.configuration = Some((*configuration).clone());
    let schedules = parts.iter().zip(schedules);
    for ((name, _), schedule) in schedules.filter(|((name, _), _)| !name.is_empty()) {
        let document = PartDocument {
            schedule,
            ..state.document(name)
        };
        state.describe(name, document);
    }
    Ok((state, Restored { memories, changed }))
}

/// Checks the rates of a named part's scheduler.
fn check_schedule(
    saved: &SavedPart,
    schedule: Option<&Schedule>,
    expected: &Expected<'_>,
) -> Result<Option<Change>, BackupError> {
    let (Some(recorded), Some(found)) = (&saved.document.schedule, schedule) else {
        return Ok(None);
    };
    let Some((step, recorded, found)) = recorded.first_difference(found) else {
        return Ok(None);
    };
    if expected.changes.allows(Change::Schedule) {
        return Ok(Some(Change::Schedule));
    }
    Err(BackupError::ConfigurationMismatch {
        path: expected.backup_dir.to_path_buf(),
        what: format!(
            "the learning rate of optimizer step {step} of '{}'",
            saved.name
        ),
        recorded,
        found,
        change: Change::Schedule,
    })
}

pub(crate) fn read_state(
    generation: &Generation,
    backup_dir: &Path,
) -> Result<TrainingState, BackupError> {
    let state = generation.manifest().state::<TrainingState>();
    let state = state.map_err(|source| foreign(backup_dir, Some(source.into())))?;
    match state.is_possible() {
        true => Ok(state),
        false => Err(foreign(backup_dir, None)),
    }
}

/// Checks that the training has the same state names as the backup.
fn check_names(
    state: &TrainingState,
    parts: &PartsMut<'_>,
    backup_dir: &Path,
) -> Result<(), BackupError> {
    let recorded = state.names();
    let found: BTreeSet<_> = parts.iter().map(|(name, _)| name.clone()).collect();
    if recorded == found {
        return Ok(());
    }
    Err(BackupError::StatesMismatch {
        path: backup_dir.to_path_buf(),
        missing: recorded.difference(&found).cloned().collect(),
        surplus: found.difference(&recorded).cloned().collect(),
    })
}

impl SavedPart {
    fn take(
        name: &str,
        state: &TrainingState,
        generation: &mut Generation,
    ) -> Result<Self, BackupError> {
        let optimizer = generation.take_chunks(&part::name(name, OPTIMIZER));
        let optimizer = optimizer.map(|pieces| {
            let failed = unreadable(&part::name(name, OPTIMIZER));
            Container::of_pieces(pieces).map_err(failed)
        });
        let mut take = |record| {
            let buffers = generation.take_chunks(&part::name(name, record))?;
            Some(host_memory::bytes(Buffer::concat(buffers)).shared())
        };
        let (model, frozen) = (take(MODEL), take(FROZEN));
        let (scheduler, value) = (take(SCHEDULER), take(VALUE));
        Ok(Self {
            name: name.to_owned(),
            document: state.document(name),
            optimizer_steps: state.optimizer_steps,
            model,
            frozen,
            optimizer: optimizer.transpose()?,
            scheduler,
            value,
            segments: take_segments(name, generation),
        })
    }

    /// Checks that `module` has the saved parameters.
    pub(crate) fn check_model<M: Module>(
        &self,
        module: &M,
        backup_dir: &Path,
    ) -> Result<(), BackupError> {
        let mut differences = fingerprint::differences(&self.document.model, module);
        if differences.is_empty() {
            return Ok(());
        }
        if !self.name.is_empty() {
            for difference in &mut differences {
                difference.path = format!("{}: {}", self.name, difference.path);
            }
        }
        Err(BackupError::ModelMismatch {
            path: backup_dir.to_path_buf(),
            differences,
        })
    }

    /// The saved value, as CBOR.
    pub(crate) fn value(&self, backup_dir: &Path) -> Result<&Bytes, BackupError> {
        let value = self.value.as_ref();
        value.ok_or_else(|| foreign(backup_dir, None))
    }

    /// The records of the model, to be loaded one after the other. The caller has checked that they fit.
    pub(crate) fn model_records(
        &mut self,
        backup_dir: &Path,
    ) -> Result<Vec<ModuleRecord>, BackupError> {
        let model = self.model.take().ok_or_else(|| foreign(backup_dir, None))?;
        let read = |record, bytes| {
            let failed = unreadable(&part::name(&self.name, record));
            ModuleRecord::from_bytes(bytes).map_err(failed)
        };
        let mut records = vec![read(MODEL, model)?];
        if let Some(frozen) = self.frozen.take() {
            records.push(read(FROZEN, frozen)?);
        }
        if records.iter().map(ModuleRecord::len).sum::<usize>() != self.document.model.len() {
            return Err(foreign(backup_dir, None));
        }
        // Loading these records must not panic.
        let lenient = |record: ModuleRecord| {
            let record = record.validate(false).allow_partial(true);
            record.allow_unused(true)
        };
        Ok(records.into_iter().map(lenient).collect())
    }
}

fn take_segments(name: &str, generation: &mut Generation) -> Vec<Segment> {
    let prefix = part::name(name, "");
    let names: Vec<_> = generation
        .manifest()
        .parts
        .iter()
        .filter_map(|part| part.name.strip_prefix(&prefix))
        .filter(|_| !name.is_empty())
        .map(str::to_owned)
        .collect();
    let segments = names.into_iter().filter_map(|segment| {
        let bytes = generation.take_part(&part::name(name, &segment))?;
        Some(Segment {
            name: segment,
            bytes: Arc::new(bytes),
        })
    });
    segments.collect()
}

/// Loads the weights of `generation`, possibly of another training, into `parts`. Each goes into the part with the
/// same name.
pub(crate) fn load_weights(
    parts: &mut PartsMut<'_>,
    mut generation: Generation,
    backup_dir: &Path,
) -> Result<(), BackupError> {
    let state = read_state(&generation, backup_dir)?;
    let names = state.names();
    for (name, part) in parts.iter_mut().filter(|(name, _)| names.contains(name)) {
        let saved = SavedPart::take(name, &state, &mut generation)?;
        part.load_weights(saved, backup_dir)?;
    }
    Ok(())
}

pub(crate) fn foreign(backup_dir: &Path, source: Option<io::Error>) -> BackupError {
    BackupError::ForeignBackup {
        path: backup_dir.to_path_buf(),
        source,
    }
}
