//! Opening the backup directory and restoring the backup in it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use burn::tensor::Device;
use burn::train::Interrupter;
use burn_backup_store::{Generation, OpenOptions, Store};

use super::LOG;
use super::announcement;
use super::cadence::Cadence;
use super::choice;
use super::ending::Ending;
use super::events::{Core, TrainingMetrics};
use super::guard::Guard;
use super::heartbeat::Heartbeat;
use super::progress::Progress;
use super::saver::{OnThread, Saver};
use super::watch::Watch;
use super::window::Window;
use crate::burn_api::{
    BURN_VERSION, DeviceRead, asynchronous_loading_device, computes_later, is_remote,
};
use crate::change::Change;
use crate::configuration::Configuration;
use crate::error::BackupError;
use crate::event::Event;
use crate::handle::whole_seconds;
use crate::keep::Keep;
use crate::messages::announce;
use crate::metrics::{MetricHistory, MetricLogs, MetricWatch};
use crate::panics::panic_message;
use crate::part;
use crate::parts::{check_names, parts_of_mut};
use crate::preemption::NoticeMonitor;
use crate::resume::{Expected, LoadPart, PartsMut, Restored, load_weights, restore};
use crate::runs;
use crate::save::{Background, Memory, Retention, WriterContext, within_limits};
use crate::settings::{BackupAndRestore, NamedState, Snapshot};
use crate::spans;
use crate::state::{PartDocument, TrainingState};
use crate::trigger::CadenceRecord;

/// Information about the training that the session needs to open.
pub(crate) struct Context {
    /// Stops the training, and says whether it is being stopped.
    pub interrupter: Interrupter,
    /// The first epoch of a training without a backup.
    pub first_epoch: usize,
    /// The requested number of epochs.
    pub num_epochs: usize,
    /// The number of batches per optimizer step.
    pub grad_accumulation: usize,
    /// The number of devices that the data is split among; `None` if it is not split.
    pub split: Option<usize>,
    /// The devices that compute.
    pub devices: Vec<Device>,
    /// The value of each metric per epoch.
    pub metric_history: MetricHistory,
    /// The metric logs, if this crate writes them.
    pub metric_logs: Option<MetricLogs>,
    /// Watches for preemption notices, if that is requested.
    pub monitor: Option<NoticeMonitor>,
    /// The device that trains the model, or the first one of several.
    pub main: Device,
    /// The run seed for a training that has none yet.
    pub drawn_seed: Option<u64>,
    /// Receives the metrics that Burn logs, if divergences must be detected.
    pub watch: Option<MetricWatch>,
}

/// How the training thread reads the records, if it must do so. `loading` is the asynchronous device onto which Burn
/// loads the optimizer's state, if there is one and the training loads any.
fn on_thread(
    snapshot: Snapshot,
    devices: Vec<Device>,
    split: Option<usize>,
    loading: Option<Device>,
) -> Option<OnThread> {
    let mut later: Vec<Device> = Vec::new();
    for device in devices.into_iter().filter(computes_later) {
        if !later.contains(&device) {
            later.push(device);
        }
    }
    let has_several = split.is_some() || later.len() > 1;
    // Only the training thread uses this one.
    later.extend(loading.filter(|device| !later.contains(device)));
    let is_any_remote = later.iter().any(is_remote);
    match snapshot {
        Snapshot::Blocking => Some(OnThread::new(DeviceRead::Now, Vec::new())),
        Snapshot::Shared if later.is_empty() => None,
        // If several threads use a device, a thread that reads may not see all of their results.
        Snapshot::Shared if has_several || is_any_remote => {
            Some(OnThread::new(DeviceRead::Now, Vec::new()))
        }
        // With fusion, Burn may lose tensors that another thread requests or drops while the training continues.
        Snapshot::Shared => Some(OnThread::new(DeviceRead::Later, later)),
    }
}

impl Core {
    /// Opens the backup directory. If there is a backup, restores the newest one into `training` and into the
    /// `states` of the settings.
    pub(crate) fn open(
        settings: &BackupAndRestore,
        mut states: Vec<NamedState>,
        training: PartsMut<'_>,
        context: Context,
    ) -> Result<Self, BackupError> {
        let shorter = |(name, part)| (name, part as &mut dyn LoadPart);
        let heartbeat = Heartbeat::start(&settings.handle);
        let watching = settings.handle.watch();
        let span = spans::restore();
        let began = Instant::now();
        let mut parts: PartsMut<'_> = training.into_iter().map(shorter).collect();
        for (name, state) in &mut states {
            if !part::is_state_name(name) {
                return Err(BackupError::StateName { name: name.clone() });
            }
            parts.extend(parts_of_mut(name, state.as_mut()));
        }
        check_names(parts.iter().map(|(name, _)| name.as_str()))?;
        for (_, part) in parts.iter().filter(|(name, _)| !name.is_empty()) {
            part.initialize();
        }
        let devices = parts.iter().flat_map(|(_, part)| part.devices());
        let devices: Vec<Device> = devices.chain(context.devices.iter().cloned()).collect();
        let unnamed = parts.iter().find(|(name, _)| name.is_empty());
        let schedule = unnamed.and_then(|(_, part)| part.schedule());
        let configuration = Configuration {
            accumulation: context.grad_accumulation,
            schedule: schedule.unwrap_or_default(),
            label: settings.label.clone(),
        };
        let options = OpenOptions::default()
            .filesystem(settings.handle.filesystem())
            .run_seed(settings.run_seed)
            .drawn_seed(context.drawn_seed)
            // `choose_seed` decides whether the seed may differ.
            .keep_seed(true);
        let mut store = Store::open(&settings.backup_dir, options)?;
        let choice::Choice {
            generation: newest,
            mirror,
            rolls_back,
        } = choice::choose(settings, &mut store)?;
        let store = Arc::new(store);
        let state_bytes = match &newest {
            Some(generation) => generation.manifest().bytes(),
            None => estimated_bytes(&parts),
        };

        let is_restored = newest.is_some();
        let restored = newest.as_ref().map(Generation::id);
        let (mut state, memories) = match newest {
            Some(generation) => {
                // Burn's record loading can panic in ways that can't be checked in advance.
                catch_unwind(AssertUnwindSafe(|| {
                    restore_newest(
                        settings,
                        &mut parts,
                        &context.main,
                        &configuration,
                        generation,
                        began,
                    )
                }))
                .unwrap_or_else(|panic| {
                    Err(BackupError::RestorePanicked {
                        path: settings.backup_dir.clone(),
                        message: panic_message(panic.as_ref()),
                    })
                })?
            }
            None => {
                let state = begin(settings, &mut parts, &context, configuration)?;
                (state, BTreeMap::new())
            }
        };
        drop((parts, span));
        if let Some(from) = restored {
            choice::fork(settings, &store, from, rolls_back, &mut state)?;
        }
        announcement::warn_of_kept_epochs(settings);
        let guard = Guard::new(settings, context.watch);
        let keep = settings.keep.clone();
        let keep = match guard.as_ref().and_then(Guard::reach) {
            Some(batches) => keep.and(Keep::reaching_back(batches)),
            None => keep,
        };
        let retention = Retention::new(keep, &state.forks, settings.handle.clone());
        if retention.needs_manifests() {
            for manifest in store.manifests()? {
                retention.learn(&manifest);
            }
        }
        let retention = Arc::new(retention);
        let directory_seed = store.identity().run_seed;
        choose_seed(settings, &mut state, directory_seed)?;
        if settings.changes.allows(Change::Data) || settings.changes.allows(Change::BatchSize) {
            state.forget_epoch_items();
        }
        let from = is_restored.then_some(state.position);
        let frequency = announcement::frequency(settings.frequency);
        runs::begin(&mut state.runs, from, frequency);
        let cadence = state.cadence.take().map(CadenceRecord::resumed);
        let history = std::mem::take(&mut state.history);
        let logs = std::mem::take(&mut state.logs);
        let record = state.divergence.take().unwrap_or_default();
        if let Some(guard) = &guard {
            guard.watch().resume(record);
        }
        if is_restored {
            context.metric_history.continue_from(history, state.past());
            if let Some(metric_logs) = &context.metric_logs {
                metric_logs.resume(state.position, logs);
            }
        }
        let loads = is_restored || guard.as_ref().is_some_and(Guard::rolls_back);
        let loading = loads.then(asynchronous_loading_device).flatten();
        let is_held = on_thread(settings.snapshot, devices.clone(), context.split, None)
            .is_some_and(|on_thread| on_thread.read == DeviceRead::Now);
        let on_thread = on_thread(settings.snapshot, devices, context.split, loading);
        let known = |(name, memory): (&String, &Memory)| (name.clone(), memory.fit.again());
        let on_thread = on_thread.map(|on_thread| OnThread {
            known: memories.iter().map(known).collect(),
            ..on_thread
        });
        if is_held && settings.snapshot == Snapshot::Shared && !is_restored {
            announcement::warn_of_holding(&settings.handle);
        }
        let mirror =
            mirror.map(|reached| reached.begin(&store, retention.clone(), &settings.handle));
        let writer = WriterContext {
            store: store.clone(),
            mirror: mirror.clone(),
            handle: settings.handle.clone(),
            retention,
            refuse_nan: settings.refuse_nan,
            on_error: settings.on_error,
            interrupter: context.interrupter.clone(),
            is_left: AtomicBool::new(false),
        };
        Ok(Self {
            saver: Saver {
                background: Background::start(writer, memories)?,
                store,
                mirror,
                handle: settings.handle.clone(),
                committed: is_restored.then(|| state.moment()),
                on_thread,
                states,
                running_states: None,
                refuse_nan: settings.refuse_nan,
                delete_at_end: settings.delete_checkpoint,
            },
            cadence: Cadence::new(settings, state_bytes, cadence.unwrap_or_default()),
            progress: Progress {
                state,
                handle: settings.handle.clone(),
                backup_dir: settings.backup_dir.clone(),
                directory_seed,
                split: context.split,
                changes: settings.changes.clone(),
                allow_short_epochs: settings.allow_short_epochs,
                fast_forward: settings.fast_forward,
                num_epochs: context.num_epochs,
                has_warned_of_sampler: false,
                is_restored,
                has_stepped_here: false,
            },
            window: Window::new(context.grad_accumulation > 1),
            watch: Watch::new(context.interrupter, context.monitor),
            guard,
            has_warned_of_unseen: false,
            main: context.main,
            measured: TrainingMetrics {
                history: context.metric_history,
                logs: context.metric_logs,
                stop_mark: None,
            },
            ending: Ending::default(),
            heartbeat,
            watching,
        })
    }
}

/// Estimates the state's size: 32-bit parameters, and an optimizer that keeps twice as many bytes.
fn estimated_bytes(parts: &PartsMut<'_>) -> u64 {
    let outlines = parts.iter().filter_map(|(_, part)| part.outline());
    let elements = |outline: Vec<burn_pack::Tensor>| -> u64 {
        let elements = outline.iter().map(|tensor| tensor.shape.num_elements());
        elements.sum::<usize>() as u64
    };
    12 * outlines.map(elements).sum::<u64>()
}

/// Starts a new training, after checking that its backups could be restored.
fn begin(
    settings: &BackupAndRestore,
    parts: &mut PartsMut<'_>,
    context: &Context,
    configuration: Configuration,
) -> Result<TrainingState, BackupError> {
    for (name, part) in parts.iter() {
        if let Some(outline) = part.outline() {
            within_limits(&part::name(name, part::MODEL), outline.into())?;
        }
        if let Some(misfit) = part.early_misfit() {
            return Err(misfit.into_refusal());
        }
    }
    if let Some(from) = &settings.warm_start {
        warm_start(parts, from, settings)?;
    }
    let mut state = TrainingState::fresh(context.first_epoch, settings.reseed_steps, BURN_VERSION);
    state.configuration = Some(configuration);
    state.name_parts(parts.iter().map(|(name, _)| name.as_str()));
    for (name, part) in parts.iter().filter(|(name, _)| !name.is_empty()) {
        let document = PartDocument {
            schedule: part.schedule(),
            ..PartDocument::default()
        };
        state.describe(name, document);
    }
    Ok(state)
}

/// Uses the requested run seed if it may differ from the recorded one.
fn choose_seed(
    settings: &BackupAndRestore,
    state: &mut TrainingState,
    directory_seed: u64,
) -> Result<(), BackupError> {
    let recorded = state.run_seed.unwrap_or(directory_seed);
    let Some(asked) = settings.run_seed.filter(|asked| *asked != recorded) else {
        return Ok(());
    };
    if !settings.changes.allows(Change::Seed) {
        return Err(BackupError::ConfigurationMismatch {
            path: settings.backup_dir.clone(),
            what: "the run seed".to_owned(),
            recorded: recorded.to_string(),
            found: asked.to_string(),
            change: Change::Seed,
        });
    }
    announce_changes(&[Change::Seed]);
    state.run_seed = Some(asked);
    Ok(())
}

fn restore_newest(
    settings: &BackupAndRestore,
    parts: &mut PartsMut<'_>,
    main: &Device,
    configuration: &Configuration,
    generation: Generation,
    began: Instant,
) -> Result<(TrainingState, BTreeMap<String, Memory>), BackupError> {
    let (id, created) = (generation.id(), generation.manifest().created);
    let bytes = generation.manifest().bytes();
    let expected = Expected {
        configuration,
        changes: &settings.changes,
        main,
        backup_dir: &settings.backup_dir,
        are_fresh: true,
    };
    let (mut state, Restored { memories, changed }) = restore(parts, generation, &expected)?;
    announce_changes(&changed);
    // The next snapshot reads these from the model itself.
    state.model.clear();
    let age = settings.handle.restored(id, state.position, created);
    settings.handle.send(Event::Restored {
        position: state.position,
        generation: id.number(),
        bytes,
        age,
        took: began.elapsed(),
    });
    let age = whole_seconds(age);
    settings.handle.began(format!(
        "restored from backup {id} at {}, {age} old, {bytes} bytes",
        state.position,
    ));
    if state.reseed_steps != settings.reseed_steps {
        log::warn!(
            target: LOG,
            "reseed_steps was {} when the backup was made and is {} now: from here on, random numbers \
             differ from those of an uninterrupted training",
            state.reseed_steps, settings.reseed_steps,
        );
        state.reseed_steps = settings.reseed_steps;
    }
    Ok((state, memories))
}

/// Prints the consequences of allowed changes.
fn announce_changes(changed: &[Change]) {
    for change in changed {
        let follows = match change {
            Change::Schedule => "the program's schedule continues from the current optimizer step",
            Change::Optimizer => "the weights are kept, and the optimizer starts without state",
            Change::Accumulation => {
                "from here on, the optimizer steps after a different number of batches"
            }
            Change::Seed => "from here on, random numbers are drawn from the new seed",
            Change::Label => "from here on, the backup belongs to the training with the new label",
            Change::TrainedParameters => {
                "from here on, the parameters that the program now trains are trained"
            }
            Change::BurnVersion => "the results of this version may differ in the last digits",
            Change::BatchSize | Change::Data => "the epoch continues with the current batches",
        };
        announce(&format!("{change} was found and is allowed: {follows}"));
    }
}

/// Loads the weights from the newest backup of another training.
fn warm_start(
    parts: &mut PartsMut<'_>,
    from: &Path,
    settings: &BackupAndRestore,
) -> Result<(), BackupError> {
    let none = || BackupError::NoWarmStart {
        path: from.to_path_buf(),
    };
    let fs = settings.handle.filesystem();
    if !Store::is_present(from, fs.as_ref())? {
        return Err(none());
    }
    let store = Store::open(from, OpenOptions::default().filesystem(fs))?;
    let generation = store.newest()?.ok_or_else(none)?;
    let id = generation.id();
    load_weights(parts, generation, from)?;
    log::info!(target: LOG, "the weights of backup {id} in '{}' are loaded", from.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaded_state_on_an_asynchronous_device_is_read_on_the_training_thread() {
        let read = |split, loading| {
            let on_thread = on_thread(Snapshot::Shared, vec![Device::flex()], split, loading);
            on_thread.map(|on_thread| (on_thread.read, on_thread.devices))
        };
        assert_eq!(read(None, None), None);
        let loading = Device::flex();
        let later = (DeviceRead::Later, vec![loading.clone()]);
        assert_eq!(read(None, Some(loading.clone())), Some(later));
        let now = (DeviceRead::Now, Vec::new());
        assert_eq!(read(Some(2), Some(loading)), Some(now));
    }
}
