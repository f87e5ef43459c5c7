//! The manifest's state document: everything that a backup records in addition to tensors.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use burn_backup_store::GenerationId;
use serde::{Deserialize, Serialize};

use crate::burn_api::Items;
use crate::configuration::{Configuration, Schedule};
use crate::divergence::{Record, RollBack};
use crate::fingerprint::ParamSpec;
use crate::metrics::History;
use crate::metrics::OpenLog;
use crate::position::Position;
use crate::runs::Run;
use crate::trigger::CadenceRecord;

/// The part of an epoch that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Training. Batches may be left.
    Train,
    /// All batches are trained. The validation must still be run, or run again.
    Validate,
}

/// The progress that the training loader reported. A restart compares it with the new loader's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct DataProgress {
    /// The number of items in an epoch.
    pub items_total: usize,
    /// The number of items in the first batch of the epoch begun last; 0 if unknown.
    pub first_batch_items: usize,
    /// The number of items of the epoch in progress that its `step_in_epoch` batches have used.
    pub items_processed: usize,
    /// The number of items in the largest batch of the epoch begun last; 0 if unknown.
    #[serde(default)]
    pub largest_batch: usize,
    /// The number of items that the first complete epoch gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch_items: Option<usize>,
    /// Where the epoch in progress was resumed with another batch size or other data, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entered: Option<EnteredEpoch>,
}

/// Where an epoch was resumed with batches that differ from those at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EnteredEpoch {
    /// The number of items before that place.
    pub items: usize,
    /// The number of batches before that place.
    pub batches: usize,
}

/// Everything that a restored training needs in addition to its records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrainingState {
    pub position: Position,
    pub phase: Phase,
    /// Whether the early stopping strategy has ended the training.
    pub early_stopped: bool,
    /// The epoch that the first process began with; more than 1 after Burn's `.checkpoint(n)`.
    pub first_epoch: usize,
    pub data: DataProgress,
    /// The number of devices that the data of the last batch was split among. `None` if it was not split, as on a
    /// single device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<usize>,
    /// The progress that the loaders of the other devices reported, in the order of the devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_data: Vec<DataProgress>,
    /// The learning rate of the last optimizer step, for the scheduler's base group; `None` if it is not finite.
    pub learning_rate: Option<f64>,
    /// Whether the device is seeded before each step.
    pub reseed_steps: bool,
    /// The seed that random numbers are derived from, if it is no longer the run seed of the directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_seed: Option<u64>,
    /// The number of optimizer steps. 0 after a trained batch means unknown.
    #[serde(default)]
    pub optimizer_steps: u64,
    /// The configuration of the training; `None` if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Configuration>,
    /// The paths of the parameters that are not trained; `None` if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untrained: Option<Vec<String>>,
    /// The number of items that the first complete validation gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_items: Option<usize>,
    /// The values of the metrics in each epoch so far.
    #[serde(default, skip_serializing_if = "History::is_empty")]
    pub history: History,
    /// The metric logs of the epoch in progress, if this crate writes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<OpenLog>,
    /// What the training has measured about backups and interruptions; `None` if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cadence: Option<CadenceRecord>,
    /// The processes that have run the training, oldest first; empty if unknown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<Run>,
    /// The rollbacks after divergences, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rollbacks: Vec<RollBack>,
    /// What is known of the metrics that show a divergence; `None` if they are not watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<Record>,
    /// Each deliberate return to an older backup, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forks: Vec<Fork>,
    /// The version of Burn that wrote the records.
    pub burn: String,
    /// The parameters of the model, in the order of a traversal.
    pub model: Vec<ParamSpec>,
    /// The named states of the training; empty if it has none. The fields above describe a state without a name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, PartDocument>,
    /// The progress of the loaders of a hand-written loop, in the order in which an epoch asks for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loaders: Vec<LoaderProgress>,
    /// The progress of the loop's streams, in the order in which it asks for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<StreamProgress>,
    /// How many batches a hand-written loop has fetched, if it has not trained as many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched: Option<u64>,
    /// Values that were computed once in the epoch in progress, by name, as CBOR.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub results: BTreeMap<String, Vec<u8>>,
}

/// The training went back to an older backup, because its program requested it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fork {
    /// The program's request, as long as the program repeats it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The backup that the training went back to.
    pub from: GenerationId,
    /// The highest number at that time. The backups after `from`, up to this one, were abandoned.
    pub last: GenerationId,
}

impl Fork {
    /// Whether this fork abandoned the backup.
    pub(crate) fn has_left(&self, id: GenerationId) -> bool {
        self.from < id && id <= self.last
    }
}

/// What a backup records about a named state.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct PartDocument {
    /// The parameters of its model, in the order of a traversal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub model: Vec<ParamSpec>,
    /// The paths of the parameters that are not trained; `None` if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untrained: Option<Vec<String>>,
    /// The rates of its scheduler, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
}

/// The progress of a loader in a hand-written loop.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct LoaderProgress {
    /// The number of iterators that the loader had given before the iterator of the epoch in progress.
    pub iterators: u64,
    /// How many batches of the epoch in progress were fetched.
    pub batches: u64,
    /// The value of `iterators` for the next epoch. Set if the program may request no further iterator in the epoch in
    /// progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iterators_after: Option<u64>,
    /// The progress that the loader reported.
    pub data: DataProgress,
    /// Whether the program rebuilds the loader in each epoch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_rebuilt: bool,
    /// How many of the next batches are left out because a rollback skips their step.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

/// The progress of a stream in a hand-written loop. A stream continues from one epoch to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct StreamProgress {
    /// How many batches were fetched in total.
    pub batches: u64,
    /// How many batches were fetched before the epoch in progress.
    pub before_epoch: u64,
    /// How many of the next batches are left out because a rollback skips their step.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl DataProgress {
    /// Records one more fetched batch. `is_first` means that it is the first of its epoch.
    pub(crate) fn after_batch(&mut self, items: Items, is_first: bool) {
        let batch = match is_first {
            true => items.processed,
            false => items.processed.saturating_sub(self.items_processed),
        };
        if is_first {
            self.first_batch_items = batch;
            self.largest_batch = 0;
        }
        self.largest_batch = self.largest_batch.max(batch);
        self.items_total = items.total;
        self.items_processed = items.processed;
    }

    /// Records the end of the epoch.
    pub(crate) fn end_epoch(&mut self) {
        self.items_processed = 0;
        if self.entered.take().is_some() {
            // The first batches of this epoch had another size than the following ones.
            self.first_batch_items = 0;
            self.largest_batch = 0;
        }
    }
}

impl TrainingState {
    /// The state before anything is trained.
    pub(crate) fn fresh(first_epoch: usize, reseed_steps: bool, burn: &str) -> Self {
        Self {
            position: Position::start_of(first_epoch),
            phase: Phase::Train,
            early_stopped: false,
            first_epoch,
            data: DataProgress::default(),
            split: None,
            other_data: Vec::new(),
            learning_rate: Some(0.0),
            reseed_steps,
            run_seed: None,
            optimizer_steps: 0,
            configuration: None,
            untrained: None,
            valid_items: None,
            history: History::default(),
            logs: Vec::new(),
            cadence: None,
            runs: Vec::new(),
            rollbacks: Vec::new(),
            divergence: None,
            forks: Vec::new(),
            burn: burn.to_owned(),
            model: Vec::new(),
            parts: BTreeMap::new(),
            loaders: Vec::new(),
            streams: Vec::new(),
            fetched: None,
            results: BTreeMap::new(),
        }
    }

    /// Whether a training can be in this state.
    pub(crate) fn is_possible(&self) -> bool {
        let position = self.position;
        self.first_epoch <= position.epoch
            && position.step_in_epoch as u64 <= position.global_step
            && self.optimizer_steps <= position.global_step
    }

    /// What the backup records about the state with this name.
    pub(crate) fn document(&self, name: &str) -> PartDocument {
        match name {
            "" => PartDocument {
                model: self.model.clone(),
                untrained: self.untrained.clone(),
                schedule: self.configuration.as_ref().map(|of| of.schedule.clone()),
            },
            name => self.parts.get(name).cloned().unwrap_or_default(),
        }
    }

    /// Records `document` for the state with this name.
    pub(crate) fn describe(&mut self, name: &str, document: PartDocument) {
        match name {
            "" => {
                self.model = document.model;
                self.untrained = document.untrained;
            }
            name => {
                self.parts.insert(name.to_owned(), document);
            }
        }
    }

    /// Records that the training has states with these names.
    pub(crate) fn name_parts<'n>(&mut self, names: impl IntoIterator<Item = &'n str>) {
        let names: BTreeSet<_> = names.into_iter().collect();
        if names.iter().any(|name| !name.is_empty()) {
            let named = |name: &str| (name.to_owned(), PartDocument::default());
            self.parts = names.into_iter().map(named).collect();
        }
    }

    /// The names of all states. A state without a name has the empty name.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        match self.parts.is_empty() {
            true => [String::new()].into(),
            false => self.parts.keys().cloned().collect(),
        }
    }

    /// The recorded progress of the loader of the device with this index, if known.
    pub(crate) fn recorded(&self, device: usize) -> Option<&DataProgress> {
        match device.checked_sub(1) {
            None => Some(&self.data),
            Some(other) => self.other_data.get(other),
        }
    }

    /// The number of items in an epoch, for all devices together; 0 if not known for all.
    pub(crate) fn items_total(&self) -> usize {
        let known = 1 + self.other_data.len();
        match self.split {
            Some(devices) if devices != known => 0,
            _ => {
                let others = self.other_data.iter().map(|data| data.items_total);
                self.data.items_total + others.sum::<usize>()
            }
        }
    }

    /// Records one more trained round of batches. The data is `split` among that many devices, and `items` is the
    /// progress that their loaders report now.
    pub(crate) fn after_step(&mut self, items: &[Items], split: Option<usize>) {
        self.position = self.position.after_step();
        if self.split != split {
            // From here on each device has another part of the data.
            self.forget_epoch_items();
        }
        self.split = split;
        let others = items.len().saturating_sub(1);
        self.other_data.resize(others, DataProgress::default());
        let is_first = self.position.step_in_epoch == 1;
        for (data, items) in self.all_data().zip(items) {
            data.after_batch(*items, is_first);
        }
    }

    /// Records that the epoch is validated.
    pub(crate) fn after_epoch(&mut self, early_stopped: bool) {
        self.position = self.position.after_epoch();
        self.phase = Phase::Train;
        self.early_stopped = early_stopped;
        for data in self.all_data() {
            data.end_epoch();
        }
    }

    /// The recorded progress of all loaders, in the order of the devices.
    pub(crate) fn all_data(&mut self) -> impl Iterator<Item = &mut DataProgress> {
        std::iter::once(&mut self.data).chain(&mut self.other_data)
    }

    /// Begins the epoch in progress again. Its batches stay counted in the global step.
    pub(crate) fn restart_epoch(&mut self) {
        self.position.step_in_epoch = 0;
        self.phase = Phase::Train;
        for data in self.all_data() {
            *data = DataProgress::default();
        }
    }

    /// Forgets the number of items in a complete epoch, so that the next epoch sets it again.
    pub(crate) fn forget_epoch_items(&mut self) {
        self.valid_items = None;
        for data in self.all_data() {
            data.epoch_items = None;
        }
    }

    /// The number of batches that were fetched.
    pub(crate) fn fetched(&self) -> u64 {
        self.fetched.unwrap_or(self.position.global_step)
    }

    /// The number of optimizer steps, as far as known.
    pub(crate) fn optimizer_steps(&self) -> u64 {
        let accumulation = self.configuration.as_ref().map_or(1, |of| of.accumulation);
        match self.optimizer_steps {
            0 => self.position.global_step / accumulation.max(1) as u64,
            steps => steps,
        }
    }

    /// Whether the last fork was made for this request.
    pub(crate) fn has_forked(&self, request: &str) -> bool {
        let last = self.forks.last();
        last.is_some_and(|fork| fork.request.as_deref() == Some(request))
    }

    /// The number of epochs that are fully trained and validated.
    pub(crate) fn epochs_done(&self) -> usize {
        self.position.epoch.saturating_sub(self.first_epoch)
    }

    /// The epochs that are fully trained and validated.
    pub(crate) fn past(&self) -> RangeInclusive<usize> {
        self.first_epoch..=self.position.epoch.saturating_sub(1)
    }

    /// The values that distinguish one moment of a training from another.
    pub(crate) fn moment(&self) -> Moment {
        Moment {
            position: self.position,
            phase: self.phase,
            early_stopped: self.early_stopped,
            results: self.results.len(),
        }
    }
}

/// A moment at which a backup can be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub position: Position,
    phase: Phase,
    early_stopped: bool,
    /// How many values were computed once in the epoch in progress.
    results: usize,
}
