//! What a backup says of the training besides its tensors: the manifest's state document.

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
    /// Batches may be left to train.
    Train,
    /// All batches are trained; the validation is still to be run, or to be run again.
    Validate,
}

/// What the training loader said of its progress, to recognise it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct DataProgress {
    /// Items in an epoch.
    pub items_total: usize,
    /// Items in the first batch of the epoch begun last; 0 if that is not known.
    pub first_batch_items: usize,
    /// Items of the epoch in progress after its `step_in_epoch` batches.
    pub items_processed: usize,
    /// Items in the largest batch of the epoch begun last; 0 if that is not known.
    #[serde(default)]
    pub largest_batch: usize,
    /// How many items the first whole epoch gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch_items: Option<usize>,
    /// Where the epoch in progress was entered with another batch size or data, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entered: Option<Entered>,
}

/// Where an epoch was entered whose batches are no longer what they were at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entered {
    /// After how many items.
    pub items: usize,
    /// After how many batches.
    pub batches: usize,
}

/// Everything that a restored training needs to know besides its records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrainingState {
    pub position: Position,
    pub phase: Phase,
    /// The early stopping strategy has ended the training.
    pub early_stopped: bool,
    /// The epoch that the very first start began with; more than 1 after Burn's `.checkpoint(n)`.
    pub first_epoch: usize,
    pub data: DataProgress,
    /// Among how many devices the data of the last batch was split; `None` if it was not, as on a
    /// single device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<usize>,
    /// What the loaders of the other devices said of their progress, in the order of the devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_data: Vec<DataProgress>,
    /// The learning rate of the last optimizer step, of the scheduler's base group; `None` if it
    /// is no finite number.
    pub learning_rate: Option<f64>,
    /// Whether the device is seeded before each step.
    pub reseed_steps: bool,
    /// What random numbers are derived from, if that is no longer the run seed of the directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_seed: Option<u64>,
    /// How often the optimizer has stepped; 0 after a batch if that is not known.
    #[serde(default)]
    pub optimizer_steps: u64,
    /// What the training was configured with; `None` if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Configuration>,
    /// The paths of the parameters that are not trained; `None` if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untrained: Option<Vec<String>>,
    /// How many items the first whole validation gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_items: Option<usize>,
    /// What the metrics came to in each epoch so far.
    #[serde(default, skip_serializing_if = "History::is_empty")]
    pub history: History,
    /// The metric logs of the epoch in progress, if this crate writes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<OpenLog>,
    /// What the training has learned of backups and interruptions; `None` if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cadence: Option<CadenceRecord>,
    /// The processes that have run it, the first one first; empty if they are not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<Run>,
    /// The rollbacks after divergences, the first one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rollbacks: Vec<RollBack>,
    /// What is known of the metrics by which a divergence shows; `None` if nobody looks at them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<Record>,
    /// How often it went back to an older backup on purpose, the last one last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forks: Vec<Fork>,
    /// The version of Burn that made the records.
    pub burn: String,
    /// The parameters of the model, in the order of a traversal.
    pub model: Vec<ParamSpec>,
    /// The named states of the training; empty if it has none. Of a state without a name, the fields above
    /// tell.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, PartDocument>,
    /// How far the loaders of a loop are that was written by hand, in the order in which an epoch asks
    /// for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loaders: Vec<LoaderProgress>,
    /// How far its streams are, in the order in which it asks for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<StreamProgress>,
    /// How many batches such a loop has fetched, if that is not what it has trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched: Option<u64>,
    /// What was computed once in the epoch in progress, by its name: CBOR.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub results: BTreeMap<String, Vec<u8>>,
}

/// The training went back to an older backup, because its program asks for that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fork {
    /// What the program asks for, as long as it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The backup that it went back to.
    pub from: GenerationId,
    /// The greatest number that there was: what has a number between the two was left behind.
    pub last: GenerationId,
}

impl Fork {
    /// Whether the backup was left behind.
    pub(crate) fn has_left(&self, id: GenerationId) -> bool {
        self.from < id && id <= self.last
    }
}

/// What a backup says of a named state.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct PartDocument {
    /// The parameters of its model, in the order of a traversal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub model: Vec<ParamSpec>,
    /// The paths of the parameters that are not trained; `None` if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untrained: Option<Vec<String>>,
    /// The rates of its scheduler, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
}

/// How far a loader is, in a loop that is written by hand.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct LoaderProgress {
    /// How many iterators it was asked for before the epoch in progress asked, or asks, for the next one.
    pub iterators: u64,
    /// How many batches of the epoch in progress were fetched.
    pub batches: u64,
    /// The same for the epoch after it, if the epoch in progress may not ask once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iterators_after: Option<u64>,
    /// What it said of its progress.
    pub data: DataProgress,
    /// Whether the program builds it anew in each epoch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_rebuilt: bool,
    /// How many of its next batches are left out, because a rollback skips their step.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

/// How far a stream is, in a loop that is written by hand. It goes on from one epoch to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct StreamProgress {
    /// How many batches were fetched in all.
    pub batches: u64,
    /// How many of these were fetched before the epoch in progress.
    pub before_epoch: u64,
    /// How many of its next batches are left out, because a rollback skips their step.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl DataProgress {
    /// One more batch was fetched, the epoch's first one if `is_first`.
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

    /// The epoch is over.
    pub(crate) fn end_epoch(&mut self) {
        self.items_processed = 0;
        if self.entered.take().is_some() {
            // Its first batches were of another size than those that follow.
            self.first_batch_items = 0;
            self.largest_batch = 0;
        }
    }
}

impl TrainingState {
    /// Nothing is trained yet.
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

    /// Whether a training can be there at all.
    pub(crate) fn is_possible(&self) -> bool {
        let position = self.position;
        self.first_epoch <= position.epoch
            && position.step_in_epoch as u64 <= position.global_step
            && self.optimizer_steps <= position.global_step
    }

    /// What it says of the state with this name.
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

    /// Says this of the state with this name.
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

    /// The training has states with these names.
    pub(crate) fn name_parts<'n>(&mut self, names: impl IntoIterator<Item = &'n str>) {
        let names: BTreeSet<_> = names.into_iter().collect();
        if names.iter().any(|name| !name.is_empty()) {
            let named = |name: &str| (name.to_owned(), PartDocument::default());
            self.parts = names.into_iter().map(named).collect();
        }
    }

    /// The names of all states; that of a state without one is empty.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        match self.parts.is_empty() {
            true => [String::new()].into(),
            false => self.parts.keys().cloned().collect(),
        }
    }

    /// What the loader of the device with this index said of its progress, if that is known.
    pub(crate) fn recorded(&self, device: usize) -> Option<&DataProgress> {
        match device.checked_sub(1) {
            None => Some(&self.data),
            Some(other) => self.other_data.get(other),
        }
    }

    /// Items in an epoch, those of all devices; 0 if not all are known.
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

    /// One more round of batches is trained, of data `split` among so many devices, after which the
    /// loaders say this of their progress.
    pub(crate) fn after_step(&mut self, items: &[Items], split: Option<usize>) {
        self.position = self.position.after_step();
        if self.split != split {
            // Each device has another part of the data from here on.
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

    /// An epoch is validated.
    pub(crate) fn after_epoch(&mut self, early_stopped: bool) {
        self.position = self.position.after_epoch();
        self.phase = Phase::Train;
        self.early_stopped = early_stopped;
        for data in self.all_data() {
            data.end_epoch();
        }
    }

    /// What the loaders of all devices said, in the order of the devices.
    pub(crate) fn all_data(&mut self) -> impl Iterator<Item = &mut DataProgress> {
        std::iter::once(&mut self.data).chain(&mut self.other_data)
    }

    /// The epoch in progress begins anew. Its batches count among all that are trained.
    pub(crate) fn begin_epoch_anew(&mut self) {
        self.position.step_in_epoch = 0;
        self.phase = Phase::Train;
        for data in self.all_data() {
            *data = DataProgress::default();
        }
    }

    /// How many items a whole epoch gives is to be learned anew.
    pub(crate) fn forget_epoch_items(&mut self) {
        self.valid_items = None;
        for data in self.all_data() {
            data.epoch_items = None;
        }
    }

    /// How many batches were fetched.
    pub(crate) fn fetched(&self) -> u64 {
        self.fetched.unwrap_or(self.position.global_step)
    }

    /// How often the optimizer has stepped, as far as that is known.
    pub(crate) fn optimizer_steps(&self) -> u64 {
        let accumulation = self.configuration.as_ref().map_or(1, |of| of.accumulation);
        match self.optimizer_steps {
            0 => self.position.global_step / accumulation.max(1) as u64,
            steps => steps,
        }
    }

    /// Whether it went back as is asked for here, and that is still asked for.
    pub(crate) fn has_forked(&self, request: &str) -> bool {
        let last = self.forks.last();
        last.is_some_and(|fork| fork.request.as_deref() == Some(request))
    }

    /// How many epochs were trained and validated to their end.
    pub(crate) fn epochs_done(&self) -> usize {
        self.position.epoch.saturating_sub(self.first_epoch)
    }

    /// The epochs that were trained and validated to their end.
    pub(crate) fn past(&self) -> RangeInclusive<usize> {
        self.first_epoch..=self.position.epoch.saturating_sub(1)
    }

    /// What distinguishes one moment of a training from another.
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
