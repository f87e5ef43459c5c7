//! Backup and restore for any training loop: the loop tells what it has done, the engine decides,
//! takes snapshots and has them written.
//!
//! ```text
//! open -> split_begins -> (look_out, step_seeds, train a batch, step_done)* -> split_done
//!      -> seed_validation, (look_out, validate a batch)* -> epoch_done -> ..
//!      -> finished | stopped -> conclude
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::tensor::Device;
use burn::train::metric::store::EventStoreClient;
use burn::train::{
    Interrupter, Interruption, Learner, LearnerModel,
    SupervisedTrainingEventProcessor as Processor, TrainingError,
};
use burn_backup_store::{Generation, OpenOptions, Store};

use crate::background::{Background, Desk, Outcome};
use crate::burn_api::{self, BURN_VERSION, Items, RecordReader};
use crate::burnpack::PerTensor;
use crate::change::{Change, Changes};
use crate::configuration::{Configuration, Schedule};
use crate::data_loader::BurnsSampler;
use crate::encode::{self, Frozen};
use crate::error::{BackupError, with_causes};
use crate::fast_forward::{Resumption, WholeEpoch};
use crate::fit::{self, Fit};
use crate::handle::{BackupHandle, whole_seconds};
use crate::history::Chronicle;
use crate::metric_logs::{Mark, MetricLogs};
use crate::panics::{attempt, panic_message};
use crate::position::Position;
use crate::preemption::{Advice, Backups, Lookout};
use crate::restore::{Expected, Restored, load_weights, restore};
use crate::say::{announce, warn};
use crate::seed::{self, Purpose, StepSeeds};
use crate::settings::{BackupAndRestore, FastForward, Snapshot};
use crate::snapshot::{Contents, Metrics, ReadRecords, RunningStates, Shared, Taken};
use crate::state::{DataProgress, Entered, Moment, Phase, TrainingState};
use crate::trigger::{StepTime, Trigger};
use crate::{model, part};

const LOG: &str = "burn_backup::restore";
/// Said of Burn's sampler.
const BURNS_SAMPLER: &str = "not exact after a restart: the training dataset has Burn's \
     SamplerDataset, whose samples follow from how often it was asked; use \
     burn_backup_restore::data::SamplerDataset instead, or FastForward::Replay and no workers";

const TRIGGER_LOG: &str = "burn_backup::trigger";

/// Where the engine reports to, and what it reads from, in the training at hand.
pub(crate) struct Surroundings {
    /// Stops the training, and says whether it is being stopped.
    pub interrupter: Interrupter,
    /// Needed to read records; nothing is looked up in it.
    pub event_store: Arc<EventStoreClient>,
    /// The epoch that a training without a backup begins with.
    pub first_epoch: usize,
    /// How many epochs the training is to have.
    pub num_epochs: usize,
    /// After how many batches the optimizer steps.
    pub grad_accumulation: usize,
    /// Among how many devices the data is split; `None` if it is not.
    pub split: Option<usize>,
    /// Whether a device computes with Burn's fusion.
    pub has_fusion: bool,
    /// What the metrics come to.
    pub chronicle: Chronicle,
    /// The metric logs, if this crate writes them.
    pub metric_logs: Option<MetricLogs>,
    /// Looks out for notices of a preemption, if that is asked for.
    pub lookout: Option<Lookout>,
    /// The device that the model is trained on, or the first of several.
    pub main: Device,
    /// The run seed of a training that has none yet.
    pub drawn_seed: Option<u64>,
}

/// What is left of a training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// Something to train or to validate.
    Unfinished,
    /// Nothing.
    Complete,
    /// `num_epochs` is smaller than the epoch that the training is in.
    Beyond,
}

/// How a training ended. Burn's renderer for terminals has the interrupter forget it.
#[derive(Default)]
pub(crate) struct Ending {
    pub interrupted: Option<Interruption>,
    pub error: Option<Arc<TrainingError>>,
    /// Whether the training was left because of a notice.
    pub is_preempted: bool,
    /// Whether it ended before its first batch, because the loaders can't be brought to where they were.
    pub is_refused: bool,
    /// Where it is, if that is beyond its end, and how many epochs it is to have.
    pub beyond: Option<(Position, usize)>,
    /// Where it was saved when it was stopped, or was complete.
    pub saved_at: Option<Position>,
    /// What became of a training that was stopped, in words.
    pub saved: Option<String>,
}

/// Backs up and restores one training.
pub(crate) struct Engine<M: LearnerModel> {
    store: Arc<Store>,
    background: Background<M>,
    handle: BackupHandle,
    interrupter: Interrupter,
    trigger: Trigger,
    launched: Instant,
    /// When the last step ended, and the backup after it was taken.
    step_began: Instant,
    /// The interval that was logged last.
    logged_interval: Option<u64>,
    state: TrainingState,
    /// Among how many devices the data is split now.
    split: Option<usize>,
    changes: Changes,
    allow_short_epochs: bool,
    fast_forward: FastForward,
    num_epochs: usize,
    has_warned_of_sampler: bool,
    is_restored: bool,
    has_stepped_here: bool,
    committed: Option<Moment>,
    /// Gradients that are being accumulated can't be saved. A stop in the middle of it goes back
    /// to the last optimizer step; this is the training at that moment.
    at_optimizer_step: Option<Taken<M>>,
    accumulates: bool,
    /// Known once the parameters are initialised.
    running_states: Option<RunningStates>,
    /// Reads the records on the training thread, if that is asked for.
    blocking: Option<(RecordReader<M>, Fit)>,
    event_store: Arc<EventStoreClient>,
    skip_nan: bool,
    chronicle: Chronicle,
    metric_logs: Option<MetricLogs>,
    /// The moment of a stop, before Burn logs what the metrics came to in a part of an epoch.
    stop_mark: Option<Mark>,
    lookout: Option<Lookout>,
    is_preempted: bool,
    delete_at_end: bool,
    has_ended: bool,
    ending: Ending,
}

impl<M: LearnerModel> Engine<M> {
    /// Opens the backup directory, and restores the newest backup into `learner` if there is one.
    pub(crate) fn open(
        settings: &BackupAndRestore,
        learner: &mut Learner<M>,
        surroundings: Surroundings,
    ) -> Result<Self, BackupError> {
        let may_change_seed = settings.changes.allows(Change::Seed);
        let options = OpenOptions::default()
            .filesystem(settings.handle.filesystem())
            .run_seed(settings.run_seed)
            .drawn_seed(surroundings.drawn_seed)
            // Whether it may differ is decided here.
            .keep_seed(true);
        let configuration = Configuration {
            accumulation: surroundings.grad_accumulation,
            schedule: Schedule::of(learner),
            label: settings.label.clone(),
        };
        let store = Arc::new(Store::open(&settings.backup_dir, options)?);
        let newest = store.newest_cut(&PerTensor(part::OPTIMIZER))?;
        let state_bytes = match &newest {
            Some(generation) => generation.manifest().bytes(),
            // Numbers of 32 bits, and twice as many that the optimizer keeps.
            None => 12 * learner.model().num_params() as u64,
        };

        let is_restored = newest.is_some();
        let restored = match newest {
            Some(generation) => {
                // Burn's loading of records has panics of its own that nothing can rule out.
                catch_unwind(AssertUnwindSafe(|| {
                    restore_newest(settings, learner, &surroundings, &configuration, generation)
                }))
                .unwrap_or_else(|panic| {
                    Err(BackupError::RestorePanicked {
                        path: settings.backup_dir.clone(),
                        message: panic_message(panic.as_ref()),
                    })
                })?
            }
            None => {
                check_fresh(learner, &surroundings)?;
                if let Some(from) = &settings.warm_start {
                    warm_start(learner, from, settings)?;
                }
                let fresh = TrainingState::fresh(
                    surroundings.first_epoch,
                    settings.reseed_steps,
                    BURN_VERSION,
                );
                Restored {
                    state: TrainingState {
                        configuration: Some(configuration),
                        ..fresh
                    },
                    frozen: Frozen::default(),
                    fit: Fit::default(),
                    changed: Vec::new(),
                }
            }
        };
        let Restored {
            mut state,
            frozen,
            fit,
            ..
        } = restored;
        let recorded_seed = state.run_seed.unwrap_or(store.identity().run_seed);
        if let Some(asked) = settings.run_seed
            && asked != recorded_seed
        {
            if !may_change_seed {
                return Err(BackupError::ConfigurationMismatch {
                    path: settings.backup_dir.clone(),
                    what: "the run seed".to_owned(),
                    recorded: recorded_seed.to_string(),
                    found: asked.to_string(),
                    change: Change::Seed,
                });
            }
            say_changed(&[Change::Seed]);
            state.run_seed = Some(asked);
        }
        if settings.changes.allows(Change::Data) || settings.changes.allows(Change::BatchSize) {
            state.forget_epoch_items();
        }
        let history = std::mem::take(&mut state.history);
        let logs = std::mem::take(&mut state.logs);
        if is_restored {
            surroundings.chronicle.continue_from(history, state.past());
            if let Some(metric_logs) = &surroundings.metric_logs {
                metric_logs.resume(state.position, logs);
            }
        }
        let desk = Desk {
            store: store.clone(),
            handle: settings.handle.clone(),
            keep_last: settings.keep_last,
            skip_nan: settings.skip_nan,
            on_error: settings.on_error,
            interrupter: surroundings.interrupter.clone(),
            event_store: surroundings.event_store.clone(),
            is_left: AtomicBool::new(false),
        };
        let background = Background::start(desk, frozen, fit.clone())?;
        if surroundings.has_fusion {
            log::info!(
                target: LOG,
                "backups are read on the training's thread: with fusion, Burn may lose tensors that \
                 are read on another one while the training goes on",
            );
        }
        let is_blocking = settings.snapshot == Snapshot::Blocking || surroundings.has_fusion;
        let new_reader = || RecordReader::new(surroundings.event_store.clone());
        let blocking = is_blocking.then(|| (new_reader(), fit));
        Ok(Self {
            store,
            background,
            handle: settings.handle.clone(),
            interrupter: surroundings.interrupter,
            trigger: Trigger::new(settings.frequency, state_bytes),
            launched: Instant::now(),
            step_began: Instant::now(),
            logged_interval: None,
            committed: is_restored.then(|| state.moment()),
            state,
            split: surroundings.split,
            changes: settings.changes.clone(),
            allow_short_epochs: settings.allow_short_epochs,
            fast_forward: settings.fast_forward,
            num_epochs: surroundings.num_epochs,
            has_warned_of_sampler: false,
            is_restored,
            has_stepped_here: false,
            at_optimizer_step: None,
            accumulates: surroundings.grad_accumulation > 1,
            running_states: None,
            blocking,
            event_store: surroundings.event_store,
            skip_nan: settings.skip_nan,
            chronicle: surroundings.chronicle,
            metric_logs: surroundings.metric_logs,
            stop_mark: None,
            lookout: surroundings.lookout,
            is_preempted: false,
            delete_at_end: settings.delete_checkpoint,
            has_ended: false,
            ending: Ending::default(),
        })
    }

    /// Where the training is, and what else is known of it.
    pub(crate) fn state(&self) -> &TrainingState {
        &self.state
    }

    /// The learning rate to report for a batch. The learner knows none before its first optimizer
    /// step in this process; the backup does.
    pub(crate) fn learning_rate(
        &self,
        learner: &Learner<M>,
        has_stepped: bool,
    ) -> ModuleLearningRate {
        match self.state.learning_rate {
            Some(restored) if self.is_restored && !self.has_stepped_here && !has_stepped => {
                restored.into()
            }
            _ => learner.lr_current(),
        }
    }

    /// Whether the training was taken up from a backup.
    pub(crate) fn is_restored(&self) -> bool {
        self.is_restored
    }

    /// Says so if the training, of `num_epochs` epochs, is over before a backup is due. `steps` are those
    /// of an epoch, if they are known.
    pub(crate) fn warn_if_unprotected(&self, num_epochs: usize, steps: Option<u64>) {
        let epochs = num_epochs
            .saturating_add(1)
            .saturating_sub(self.state.first_epoch);
        if !self.is_restored && self.trigger.comes_too_late(epochs, steps) {
            log::warn!(
                target: TRIGGER_LOG,
                "this training runs UNPROTECTED: with its save_freq the first backup is not due before \
                 its end; give save_freq fewer batches, or a time",
            );
        }
    }

    /// How many items in the whole epochs before a loader gave, where `index` is that of its device, or
    /// nothing for the validation's.
    fn whole_epoch(&mut self, index: Option<usize>) -> Option<&mut Option<usize>> {
        match index {
            Some(index) => self
                .state
                .all_data()
                .nth(index)
                .map(|data| &mut data.epoch_items),
            None => Some(&mut self.state.valid_items),
        }
    }

    /// Checks that a loader has given all that it promised before its epoch ended. `index` is that of its
    /// device, or nothing for the validation's.
    pub(crate) fn check_whole(
        &mut self,
        index: Option<usize>,
        epoch: WholeEpoch,
    ) -> Result<(), TrainingError> {
        let is_allowed = self.allow_short_epochs;
        let split = match index {
            Some(_) => "training",
            None => "validation",
        };
        // Under DDP nothing is recorded of the other devices' loaders.
        let mut unrecorded = None;
        let recorded = self.whole_epoch(index).unwrap_or(&mut unrecorded);
        match epoch.check(*recorded) {
            Some(_) if is_allowed => Ok(()),
            Some(promised) => {
                let given = epoch.items.processed;
                let error = BackupError::ShortEpoch {
                    split,
                    given,
                    promised,
                };
                Err(BackupError::into_training_error(Arc::new(error)))
            }
            None => {
                recorded.get_or_insert(epoch.items.processed);
                Ok(())
            }
        }
    }

    /// The seed that all random numbers of the steps are derived from.
    fn run_seed(&self) -> u64 {
        self.state
            .run_seed
            .unwrap_or(self.store.identity().run_seed)
    }

    /// Whether everything that was loaded before is to be loaded once more.
    pub(crate) fn replays(&self) -> bool {
        self.fast_forward == FastForward::Replay
    }

    /// The epoch in progress goes on in batches, or with data, that are changed on purpose.
    pub(crate) fn enters(&mut self, at: Entered, change: Option<Change>) {
        let Entered { items, batches } = at;
        if let Some(change) = change {
            announce(&format!(
                "{change} is allowed and there: the epoch goes on after its first {items} items, which were \
                 trained in {batches} batches",
            ));
        }
        self.state.data.entered = Some(at);
    }

    /// The epoch in progress begins anew, because batches or data are changed on purpose.
    pub(crate) fn begins_epoch_anew(&mut self, change: Change) {
        let Position {
            epoch,
            step_in_epoch,
            ..
        } = self.state.position;
        announce(&format!(
            "{change} is allowed and there: epoch {epoch} begins anew, because its loader can't go on in \
             between; what its first {step_in_epoch} batches held is trained twice",
        ));
        self.state.begin_epoch_anew();
    }

    /// Warns of a dataset that a restart can't bring to where it was.
    pub(crate) fn warn_of_sampler(&mut self, found: Option<BurnsSampler>) {
        let is_exact = |found: BurnsSampler| self.replays() && !found.has_workers;
        let is_first = !self.is_restored && !self.has_warned_of_sampler;
        if is_first && found.is_some_and(|found| !is_exact(found)) {
            self.has_warned_of_sampler = true;
            warn(&self.handle, BURNS_SAMPLER);
        }
    }

    /// Early stopping had ended the training, and does so no longer.
    pub(crate) fn goes_on_after_early_stop(&mut self) {
        self.state.early_stopped = false;
    }

    /// What is left to do in a training of `num_epochs` epochs.
    pub(crate) fn outlook(&self, num_epochs: usize) -> Outlook {
        let position = self.state.position;
        if position.epoch <= num_epochs && !self.state.early_stopped {
            Outlook::Unfinished
        } else if position.epoch <= num_epochs.saturating_add(1) && position.step_in_epoch == 0 {
            Outlook::Complete
        } else {
            Outlook::Beyond
        }
    }

    /// Where to take the training up, whose loader has `train_items` in an epoch.
    pub(crate) fn resumption(&self, train_items: usize) -> Result<Resumption, TrainingError> {
        Resumption::new(
            &self.state,
            self.split,
            &self.changes,
            train_items,
            self.store.path(),
        )
    }

    /// The seeds for the next batch, if steps are seeded.
    pub(crate) fn step_seeds(&self) -> Option<StepSeeds> {
        self.state.reseed_steps.then(|| StepSeeds {
            run_seed: self.run_seed(),
            global_step: self.state.position.global_step,
            are_split: self.split.is_some(),
        })
    }

    /// What the metrics came to so far.
    pub(crate) fn chronicle(&self) -> &Chronicle {
        &self.chronicle
    }

    /// The metric logs, if this crate writes them.
    pub(crate) fn metric_logs(&self) -> Option<&MetricLogs> {
        self.metric_logs.as_ref()
    }

    /// A batch boundary: if there is a notice that the training is about to be ended from outside, it
    /// is saved, or stopped.
    pub(crate) fn look_out(&mut self, learner: &Learner<M>, processor: &mut Processor<M>) {
        if self.lookout.is_none() || self.interrupter.should_stop() {
            return;
        }
        match self.look() {
            Advice::GoOn => {}
            // Gradients that are being accumulated can't be saved; the moment before them can.
            Advice::Save => match self.at_optimizer_step.as_ref().and_then(Taken::again) {
                Some(held) => self.save_held(held, processor),
                None => self.save(learner, processor),
            },
            Advice::Leave => {
                let notice = self.lookout.as_ref().and_then(Lookout::notice);
                let notice = notice.map(ToString::to_string);
                self.is_preempted = true;
                self.interrupter.stop(notice.as_deref());
            }
        }
    }

    /// Looks whether a notice has come, and says what to do.
    fn look(&mut self) -> Advice {
        self.poll();
        let stats = self.handle.stats();
        let writing = self.background.in_flight_for();
        let Some(lookout) = &mut self.lookout else {
            return Advice::GoOn;
        };
        let (advice, news) = lookout.look(Backups {
            persist: stats.persist_last.max(writing.unwrap_or_default()),
            is_writing: writing.is_some(),
            failed: stats.failed,
        });
        if let Some(notice) = news {
            self.handle.noticed(notice);
        }
        advice
    }

    /// Seeds `device` for a validation.
    pub(crate) fn seed_validation(&self, device: &Device) {
        self.seed_validation_after(device, self.state.position.global_step);
    }

    /// Seeds `device` for the validation after so many trained batches.
    pub(crate) fn seed_validation_after(&self, device: &Device, global_step: u64) {
        if self.state.reseed_steps {
            let run_seed = self.run_seed();
            device.seed(seed::derive(run_seed, Purpose::Validate, global_step));
        }
    }

    /// The epoch's batches, or what is left of them, are about to be trained.
    pub(crate) fn split_begins(&mut self, learner: &Learner<M>) {
        self.running_states
            .get_or_insert_with(|| RunningStates::of(&learner.model()));
        if self.accumulates {
            self.at_optimizer_step = Some(self.snapshot(learner));
        }
        self.step_began = Instant::now();
    }

    /// To be called before the optimizer steps, if gradients are accumulated: nothing may keep
    /// the tensors alive that it is about to replace.
    pub(crate) fn optimizer_step_begins(&mut self) {
        self.at_optimizer_step = None;
    }

    /// One more batch is trained on each device, after which the loaders are this far. `has_stepped`
    /// says that the optimizer has used the gradients.
    pub(crate) fn step_done(
        &mut self,
        learner: &Learner<M>,
        processor: &mut Processor<M>,
        items: &[Items],
        has_stepped: bool,
    ) {
        self.state.after_step(items, self.split);
        self.handle.advanced(self.progress());
        self.has_stepped_here |= has_stepped;
        self.state.optimizer_steps += u64::from(has_stepped);
        // Running states hold their newest update back until they are asked for it, and a snapshot asks.
        // A model may read them as they are: that must not depend on how often backups are taken.
        if self.running_states == Some(RunningStates::Possible) {
            drop(learner.model().valid());
        }

        let position = self.state.position;
        let step = self.step_time();
        let now = self.launched.elapsed();
        if self.trigger.after_step(&position, has_stepped, step, now) {
            self.save(learner, processor);
        }
        self.show_interval();
        if has_stepped && self.accumulates {
            self.at_optimizer_step = Some(self.snapshot(learner));
        }
        self.step_began = Instant::now();
    }

    /// Which share of all epochs is trained.
    fn progress(&self) -> f64 {
        let DataProgress {
            items_processed,
            items_total,
            ..
        } = self.state.data;
        let epochs = self.state.position.epoch.saturating_sub(1) as f64;
        let part = items_processed as f64 / items_total.max(1) as f64;
        (epochs + part.min(1.0)) / self.num_epochs.max(1) as f64
    }

    /// Whether all batches of the epoch are trained.
    pub(crate) fn is_split_done(&self) -> bool {
        self.state.phase == Phase::Validate
    }

    /// The training is being stopped, and Burn is about to be told that the epoch's part has ended.
    pub(crate) fn split_stops(&mut self) {
        let metric_logs = self.metric_logs.as_ref();
        self.stop_mark = metric_logs.map(MetricLogs::mark);
    }

    /// All batches of the epoch are trained.
    pub(crate) fn split_done(&mut self) {
        self.state.phase = Phase::Validate;
        // Gradients that no optimizer step has used by now are never used.
        self.at_optimizer_step = None;
    }

    /// The epoch's validation is done, and so is what Burn does after it.
    pub(crate) fn epoch_done(
        &mut self,
        learner: &Learner<M>,
        processor: &mut Processor<M>,
        early_stopped: bool,
    ) {
        self.state.after_epoch(early_stopped);
        if self.trigger.after_epoch(self.launched.elapsed()) {
            self.save(learner, processor);
        }
    }

    /// Whether a backup has failed since the last call.
    pub(crate) fn take_failure(&mut self) -> bool {
        self.background.take_failure()
    }

    /// The training stops before its end. If that is a user's wish, this moment is kept; if it is
    /// an error, the last good backup is what stays.
    pub(crate) fn stopped(&mut self, learner: &Learner<M>, processor: &mut Processor<M>) {
        if !self.has_failed() {
            let snapshot = match self.at_optimizer_step.take() {
                Some(snapshot) => snapshot,
                None => self.snapshot(learner),
            };
            let moment = snapshot.state.moment();
            self.keep_at_last(snapshot, processor);
            if self.committed == Some(moment) {
                self.handle.saved_when_stopped(moment.position);
                self.ending.saved_at = Some(moment.position);
            }
            self.report_stop(moment);
        }
        self.settle(processor);
        self.note_ending();
    }

    /// Saves the moment of `snapshot`, at which the training is left. If that fails, it is tried again
    /// while the time before the kill allows.
    fn keep_at_last(&mut self, snapshot: Taken<M>, processor: &mut Processor<M>) {
        let moment = snapshot.state.moment();
        let mut next = Some(snapshot);
        let mut tries = 0;
        while let Some(snapshot) = next.take() {
            let again = snapshot.again();
            let begun = Instant::now();
            self.keep(snapshot, processor);
            tries += 1;
            if self.committed != Some(moment) && self.can_try_again(tries, begun.elapsed()) {
                log::warn!(target: LOG, "the last backup has failed, and is tried again");
                next = again;
            }
        }
    }

    /// Whether the last backup, of which so many `tries` have failed and the last one `took` so long, can
    /// be tried again before the kill.
    fn can_try_again(&self, tries: u32, took: Duration) -> bool {
        let is_hopeless = self.has_failed() || self.handle.is_poisoned();
        let lookout = self.lookout.as_ref().filter(|_| self.is_preempted);
        !is_hopeless && lookout.is_some_and(|lookout| lookout.allows_another_try(tries, took))
    }

    /// Says what became of the training that was stopped, and was to be saved as it was at that `moment`.
    fn report_stop(&mut self, moment: Moment) {
        if self.has_failed() {
            return;
        }
        let position = moment.position;
        let saved = match self.committed {
            Some(committed) if committed == moment => {
                format!("the training is saved at {position}")
            }
            Some(committed) => format!(
                "the training could NOT be saved at {position}, the last backup is of {}",
                committed.position,
            ),
            None => format!("the training could NOT be saved at {position}"),
        };
        self.ending.saved = Some(saved.clone());
        let notice = self.lookout.as_ref().and_then(Lookout::notice);
        let (Some(notice), true) = (notice, self.is_preempted) else {
            log::info!(target: LOG, "stopped; {saved}");
            return;
        };
        let message = format!("{notice}; {saved}");
        log::warn!(target: "burn_backup::preemption", "{message}");
        self.interrupter.stop(Some(&message));
    }

    /// The training has run to its end.
    pub(crate) fn finished(&mut self, learner: &Learner<M>, processor: &mut Processor<M>) {
        if self.trigger.at_end() && !self.has_failed() {
            let snapshot = self.snapshot(learner);
            self.keep(snapshot, processor);
        }
        self.settle(processor);
        if !self.trigger.at_end() && !self.has_failed() {
            self.check_before_deletion(learner);
        }
        if let Some(committed) = self.committed
            && committed == self.state.moment()
        {
            let position = committed.position;
            self.ending.saved_at = Some(position);
            self.ending.saved = Some(format!("the training is complete, and saved at {position}"));
        }
        self.has_ended = true;
        self.note_ending();
    }

    /// There is nothing to train, for the training is beyond its end: it was to have more epochs before.
    pub(crate) fn beyond(&mut self, num_epochs: usize) {
        self.ending.beyond = Some((self.state.position, num_epochs));
        self.note_ending();
    }

    /// Neither: the loaders can't be brought to where they were.
    pub(crate) fn refused(&mut self, error: TrainingError) {
        self.interrupter.fail(error);
        self.ending.is_refused = true;
        self.note_ending();
    }

    /// How the training ended, as it was when its loop did.
    pub(crate) fn take_ending(&mut self) -> Ending {
        std::mem::take(&mut self.ending)
    }

    /// Everything is written, and the program is about to have its result. A training that ran to
    /// its end, and `went_well`, needs its backup no longer.
    pub(crate) fn conclude(mut self, went_well: bool) {
        let (lookout, handle) = (self.lookout.take(), self.handle.clone());
        self.clear_away(went_well);
        // A notice that has come since finds the training at its end: it is told of, and nothing more.
        if let Some(mut lookout) = lookout
            && let (_, Some(notice)) = lookout.look(Backups::default())
        {
            handle.noticed(notice);
        }
    }

    /// Ends the thread that writes backups, and deletes what is needed no longer.
    fn clear_away(self, went_well: bool) {
        let Self {
            store,
            background,
            handle,
            committed,
            has_ended,
            delete_at_end,
            ..
        } = self;
        drop(background);
        if !(has_ended && went_well && delete_at_end) {
            return;
        }
        if handle.is_poisoned() && committed.is_some() {
            log::error!(
                target: LOG,
                "the training ended with a model that holds NaN: the last good backup stays",
            );
            return;
        }
        let Some(store) = Arc::into_inner(store) else {
            log::error!(target: LOG, "the backup stays: it is still being written");
            return;
        };
        if let Err(error) = store.remove() {
            let error = Arc::new(BackupError::from(error));
            log::error!(target: LOG, "the backup is not deleted to its end: {}", with_causes(error.as_ref()));
            handle.failed(error);
        }
    }

    /// Where no backup is taken at the end, nothing has looked for NaN in the model for which the
    /// last backup is about to go.
    fn check_before_deletion(&mut self, learner: &Learner<M>) {
        let is_needed = self.skip_nan && self.delete_at_end && self.committed.is_some();
        if !is_needed {
            return;
        }
        if let Err(error) = attempt(|| encode::check(learner.model().valid())) {
            log::error!(target: LOG, "the last backup stays: {}", with_causes(&error));
            self.handle.failed(Arc::new(error));
            self.delete_at_end = false;
        }
    }

    fn note_ending(&mut self) {
        self.ending.interrupted = self.interrupter.interruption();
        self.ending.error = self.interrupter.error();
        self.ending.is_preempted = self.is_preempted;
    }

    fn has_failed(&self) -> bool {
        self.interrupter.should_stop() && self.interrupter.error().is_some()
    }

    /// This moment, sharing the training's tensors.
    fn snapshot(&mut self, learner: &Learner<M>) -> Taken<M> {
        let running_states = self.running_states.unwrap_or(RunningStates::Possible);
        let mark = self.stop_mark.take();
        let mark = mark.or_else(|| self.metric_logs.as_ref().map(MetricLogs::mark));
        Taken {
            state: self.state_now(learner),
            metrics: match mark {
                Some(mark) => Metrics::Until(mark),
                None => Metrics::Known(self.chronicle.history()),
            },
            contents: Contents::Shared(Box::new(Shared::of(learner, running_states))),
        }
    }

    /// The snapshot, read here and now if that is how it is to be.
    fn read_if_blocking(&mut self, snapshot: Taken<M>) -> Taken<M> {
        let Taken {
            state,
            metrics,
            contents,
        } = snapshot;
        let contents = match (contents, &mut self.blocking) {
            (Contents::Shared(shared), Some((reader, fit))) => {
                let read = attempt(|| ReadRecords::of(*shared, reader, fit));
                if read.is_err() {
                    // Half of a record may still be on its way through this one.
                    *reader = RecordReader::new(self.event_store.clone());
                }
                Contents::Read(read)
            }
            (contents, _) => contents,
        };
        Taken {
            state,
            metrics,
            contents,
        }
    }

    fn state_now(&self, learner: &Learner<M>) -> TrainingState {
        let mut state = self.state.clone();
        if self.has_stepped_here {
            state.learning_rate = Some(learner.lr_current().base()).filter(|lr| lr.is_finite());
        }
        state
    }

    /// Saves this moment, and counts how long that holds the training.
    fn save(&mut self, learner: &Learner<M>, processor: &mut Processor<M>) {
        let started = Instant::now();
        self.settle(processor);
        // The backup before may just have failed, and that may be what ends the training.
        if !self.has_failed() {
            let snapshot = self.snapshot(learner);
            self.submit(snapshot);
        }
        let held = started.elapsed();
        self.handle.held(held);
        self.trigger.saved(self.launched.elapsed(), held);
    }

    /// Saves the moment of a snapshot that was held, unless that is what was saved last.
    fn save_held(&mut self, held: Taken<M>, processor: &mut Processor<M>) {
        let started = Instant::now();
        self.settle(processor);
        if self.committed != Some(held.state.moment()) && !self.has_failed() {
            self.submit(held);
        }
        let held = started.elapsed();
        self.handle.held(held);
        self.trigger.saved(self.launched.elapsed(), held);
    }

    /// How long the step that ends here took.
    fn step_time(&mut self) -> StepTime {
        let is_disturbed = self.background.is_busy();
        self.poll();
        StepTime {
            took: self.step_began.elapsed(),
            is_disturbed,
        }
    }

    fn show_interval(&mut self) {
        let Some((interval, slowed)) = self.trigger.measured() else {
            return;
        };
        self.handle.measured(interval, slowed);
        let is_news = self
            .logged_interval
            .is_none_or(|logged| interval.abs_diff(logged) > logged / 4);
        if is_news {
            log::info!(target: TRIGGER_LOG, "a backup every {interval} batches, as things are");
            self.logged_interval = Some(interval);
        }
    }

    /// Saves the moment of `snapshot`, unless that is what was saved last.
    fn keep(&mut self, snapshot: Taken<M>, processor: &mut Processor<M>) {
        let started = Instant::now();
        self.settle(processor);
        if self.committed != Some(snapshot.state.moment()) && !self.has_failed() {
            self.submit(snapshot);
            self.settle(processor);
        }
        self.handle.held(started.elapsed());
    }

    fn submit(&mut self, snapshot: Taken<M>) {
        let begun = Instant::now();
        let snapshot = self.read_if_blocking(snapshot);
        self.background.submit(snapshot, begun);
    }

    /// Notes what became of the snapshot in flight, if that is known by now.
    fn poll(&mut self) {
        let outcome = self.background.poll();
        self.note(outcome);
    }

    /// Waits until nothing is in flight.
    fn settle(&mut self, processor: &mut Processor<M>) {
        self.poll();
        if let Some(logs) = self
            .metric_logs
            .as_ref()
            .filter(|logs| !logs.is_abandoned())
            && self.background.in_flight_for().is_some()
        {
            // It waits for metrics. Where Burn's thread is gone that works them out, this panics as that
            // thread has, as does whatever Burn is told of.
            logs.telling(|| burn_api::drain::<M>(processor, &self.interrupter));
        }
        let outcome = self.background.settle();
        self.note(outcome);
    }

    fn note(&mut self, outcome: Option<Outcome>) {
        match outcome {
            Some(Outcome::Committed(moment)) => {
                self.committed = Some(moment);
                self.trigger.succeeded();
            }
            Some(Outcome::Failed) => self.trigger.failed(),
            None => {}
        }
    }
}

/// Checks that backups of a training that is begun could be restored.
fn check_fresh<M: LearnerModel>(
    learner: &Learner<M>,
    surroundings: &Surroundings,
) -> Result<(), BackupError> {
    let model = model::outline(&learner.model());
    encode::within_limits(part::MODEL, model.into())?;
    let mut reader = RecordReader::new(surroundings.event_store.clone());
    match fit::misfit_ahead(learner, &mut reader) {
        Some(misfit) => Err(misfit.into_refusal()),
        None => Ok(()),
    }
}

fn restore_newest<M: LearnerModel>(
    settings: &BackupAndRestore,
    learner: &mut Learner<M>,
    surroundings: &Surroundings,
    configuration: &Configuration,
    generation: Generation,
) -> Result<Restored, BackupError> {
    let (id, created) = (generation.id(), generation.manifest().created);
    let bytes = generation.manifest().bytes();
    let mut reader = RecordReader::new(surroundings.event_store.clone());
    let expected = Expected {
        configuration,
        changes: &settings.changes,
        main: &surroundings.main,
    };
    let mut restored = restore(
        learner,
        generation,
        &mut reader,
        expected,
        &settings.backup_dir,
    )?;
    say_changed(&restored.changed);
    let state = &mut restored.state;
    if state.reseed_steps != settings.reseed_steps {
        log::warn!(
            target: LOG,
            "reseed_steps was {} when the backup was made and is {} now: from here on the random \
             numbers are others than the undisturbed training would have drawn",
            state.reseed_steps, settings.reseed_steps,
        );
        state.reseed_steps = settings.reseed_steps;
    }
    // The next snapshot looks at the model itself.
    state.model.clear();
    let age = whole_seconds(settings.handle.restored(state.position, created));
    settings.handle.began(format!(
        "restored from backup {id} at {}, {age} old, {bytes} bytes",
        state.position,
    ));
    Ok(restored)
}

/// Says what follows from changes that were allowed.
fn say_changed(changed: &[Change]) {
    for change in changed {
        let follows = match change {
            Change::Schedule => "the program's own goes on from the current optimizer step",
            Change::Optimizer => "the weights are kept, and the optimizer begins without a state",
            Change::Accumulation => {
                "the optimizer steps after another number of batches from here on"
            }
            Change::Seed => "random numbers are drawn from the new one from here on",
            Change::Label => "the backup is this training's from here on",
            Change::TrainedParameters => "those that the program has trained are, from here on",
            Change::BurnVersion => "what this one computes may differ in the last digits",
            Change::BatchSize | Change::Data => "the epoch goes on with what is there now",
        };
        announce(&format!("{change} is allowed and there: {follows}"));
    }
}

/// Loads the weights of another training's newest backup.
fn warm_start<M: LearnerModel>(
    learner: &mut Learner<M>,
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
    load_weights(learner, generation, from)?;
    log::info!(target: LOG, "the weights of backup {id} in '{}' are loaded", from.display());
    Ok(())
}
