//! What Burn calls: restores before Burn announces the training, and hands over to the loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::data::dataloader::DataLoader;
use burn::tensor::Device;
use burn::train::{
    EventProcessorTraining as _, ExecutionStrategy, Learner, LearnerEvent, LearnerModel,
    LearningResult, SupervisedLearningStrategy, SupervisedTrainingEventProcessor, TrainLoader,
    TrainingComponents, ValidLoader,
};

use crate::burn_api::{self, LoaderKind};
use crate::divergence::Divergence;
use crate::error::BackupError;
use crate::execution::{Execution, Reduction};
use crate::handle::BackupHandle;
use crate::metrics::{MetricHistory, MetricLogs, MetricWatch};
use crate::outcome::Outcome;
use crate::preemption::{AfterPreemption, Lookout};
use crate::report::{self, report};
use crate::say::{self, say};
use crate::session::{Context, Ending, announcement, closing};
use crate::settings::{BackupAndRestore, FastForward, taken};
use crate::supervised::engine::Engine;
use crate::supervised::loops::Loop;

const LOG: &str = "burn_backup::restore";

/// What is registered with Burn besides the strategy, and has a part of its own in the training.
pub(crate) struct Registered {
    pub metric_history: MetricHistory,
    /// Written to by a metric logger.
    pub metric_logs: Option<MetricLogs>,
    /// Sees the metrics, if divergences are to be looked for.
    pub watch: Option<MetricWatch>,
    /// Whether a checkpointing strategy was given.
    pub has_checkpointing_strategy: bool,
}

/// The training strategy that [`BackupExt`](crate::BackupExt) registers.
pub(crate) struct BackupStrategy {
    settings: BackupAndRestore,
    registered: Registered,
    is_used: AtomicBool,
}

impl Drop for BackupStrategy {
    fn drop(&mut self) {
        if self.is_used.load(Ordering::Relaxed) {
            return;
        }
        let message = format!(
            "backup_and_restore({:?}) was never used: the training was not launched, or a training \
             strategy set after it runs WITHOUT BACKUPS; make it the last line before launch, and \
             give devices with BackupAndRestore::execution",
            self.settings.backup_dir,
        );
        log::error!(target: LOG, "{message}");
        // Before the launch nobody may be listening to logs yet: Burn starts its log file there.
        say(&format!("error: {message}"));
    }
}

impl BackupStrategy {
    pub(crate) fn new(settings: BackupAndRestore, registered: Registered) -> Self {
        Self {
            settings,
            registered,
            is_used: AtomicBool::new(false),
        }
    }

    /// What the training runs on; on the learner's own device by default, as in Burn.
    fn execution<M: LearnerModel>(&self, learner: &Learner<M>) -> Result<Execution, BackupError> {
        let devices = |strategy, devices: &[Device]| match devices {
            [] => Err(BackupError::NoDevices { strategy }),
            devices => Ok(self.autodiff(devices)),
        };
        #[cfg(feature = "testing")]
        if let Some(on_host) = &self.settings.ddp_on_host {
            let devices = devices("DistributedDataParallel", on_host)?;
            return Ok(Execution::Ddp(devices, Reduction::OnHost));
        }
        Ok(match &self.settings.execution {
            None => {
                let device = learner.model().devices().into_iter().next();
                Execution::Single(self.autodiff_device(&device.unwrap_or_default()))
            }
            Some(ExecutionStrategy::SingleDevice(device)) => {
                Execution::Single(self.autodiff_device(device))
            }
            // As Burn does.
            Some(ExecutionStrategy::MultiDevice(only, _)) if let [device] = only.as_slice() => {
                Execution::Single(self.autodiff_device(device))
            }
            Some(ExecutionStrategy::MultiDevice(several, optim)) => {
                Execution::Multi(devices("MultiDevice", several)?, *optim)
            }
            Some(ExecutionStrategy::DistributedDataParallel {
                devices: several, ..
            }) => Execution::Ddp(
                devices("DistributedDataParallel", several)?,
                Reduction::InBackward,
            ),
        })
    }

    /// Checks that divergences can be seen, and that the training can go back after one.
    fn check_divergence<O>(&self, train: &dyn DataLoader<O>) -> Result<(), BackupError> {
        if !self.settings.divergence.watches() {
            return Ok(());
        }
        if self.registered.watch.is_none() {
            return Err(BackupError::DivergenceUnseen {
                setting: "artifacts",
            });
        }
        match burn_api::loader_kind(train) {
            _ if self.settings.divergence == Divergence::Stop => Ok(()),
            LoaderKind::Single | LoaderKind::Workers => Err(BackupError::NoWayBack {
                loader: "Burn's data loader",
            }),
            LoaderKind::Other => Ok(()),
        }
    }

    /// A run seed from the generator of the device, which the program may have seeded. It is drawn at each
    /// start, so that the generator is left the same.
    fn draw_seed(&self, execution: &Execution) -> Option<u64> {
        let is_needed = self.settings.reseed_steps && self.settings.run_seed.is_none();
        is_needed
            .then(|| burn_api::draw_seed(&execution.main()))
            .flatten()
    }

    /// Begins to look out for notices, and says what follows them.
    fn look_out(&self) -> Result<(Option<Lookout>, AfterPreemption), BackupError> {
        let Some(preemption) = taken(&self.settings.preemption) else {
            return Ok((None, AfterPreemption::default()));
        };
        preemption.validate()?;
        let after = preemption.after;
        Ok((Some(Lookout::start(preemption)?), after))
    }

    /// Says what a training that was restored inside an epoch does not go on with.
    fn say_what_does_not_continue<M: LearnerModel>(&self, engine: &Engine<M>) {
        let is_in_epoch = engine.progress.state().position.step_in_epoch > 0;
        if is_in_epoch && self.registered.metric_logs.is_none() {
            log::warn!(
                target: LOG,
                "what Burn's own metric log has of the epoch that was interrupted is written over, and \
                 its training metrics will be of the rest of it only; BackupAndRestore::artifacts \
                 continues them",
            );
        }
    }

    fn autodiff(&self, devices: &[Device]) -> Vec<Device> {
        let devices = devices.iter().map(|device| self.autodiff_device(device));
        devices.collect()
    }

    fn autodiff_device(&self, device: &Device) -> Device {
        let device = match device.is_autodiff() {
            true => device.clone(),
            false => device.clone().autodiff(),
        };
        match self.settings.gradient_checkpointing {
            true => device.gradient_checkpointing(),
            false => device,
        }
    }
}

impl<M: LearnerModel> SupervisedLearningStrategy<M> for BackupStrategy {
    fn train(
        &self,
        mut learner: Learner<M>,
        train: TrainLoader<M>,
        valid: ValidLoader<M>,
        mut components: TrainingComponents<M>,
    ) -> LearningResult<M> {
        self.is_used.store(true, Ordering::Relaxed);
        say::leave_terminal_to_renderer(self.settings.dashboard);
        // Before the restore: a notice that comes during it counts.
        let (lookout, after) = match self.look_out() {
            Ok(lookout) => lookout,
            Err(error) => return refuse(&learner, components, error, &self.settings.handle),
        };
        let execution = self.settings.validate();
        let execution = execution.and_then(|()| self.check_divergence(train.as_ref()));
        let execution = execution.and_then(|()| self.execution(&learner));
        let replays = self.settings.fast_forward == FastForward::Replay;
        let execution = execution.and_then(|execution| match execution {
            Execution::Ddp(..) if replays => Err(BackupError::ReplayUnderDdp),
            execution => computable(execution, &learner),
        });
        let execution = match execution {
            Ok(execution) => execution,
            Err(error) => return refuse(&learner, components, error, &self.settings.handle),
        };
        if self.registered.has_checkpointing_strategy && components.checkpointer.is_none() {
            say::warn(
                &self.settings.handle,
                "the strategy given to BackupAndRestore::checkpointing_strategy is never asked, because the \
                 training writes no checkpoints of Burn's: call with_default_checkpointers() or \
                 with_custom_checkpointers(..) on the training as well",
            );
        }
        let event_store = components.event_store.clone();
        let context = Context {
            interrupter: components.interrupter.clone(),
            first_epoch: components.checkpoint.unwrap_or(0) + 1,
            num_epochs: components.num_epochs,
            grad_accumulation: components.grad_accumulation.unwrap_or(1),
            split: execution.split(),
            devices: execution.devices().to_vec(),
            metric_history: self.registered.metric_history.clone(),
            metric_logs: self.registered.metric_logs.clone(),
            lookout,
            main: execution.main(),
            drawn_seed: self.draw_seed(&execution),
            watch: self.registered.watch.clone(),
        };
        let engine = match Engine::open(&self.settings, &mut learner, event_store, context) {
            Ok(engine) => engine,
            Err(error) => return refuse(&learner, components, error, &self.settings.handle),
        };

        let devices = devices(&self.settings, &execution);
        say::announce(&announcement::line(&self.settings, &devices));
        announcement::say_of_validation(burn_api::loader_kind(valid.as_ref()));
        announcement::warn_of_workers(
            &self.settings.handle,
            burn_api::loader_kind(train.as_ref()),
            engine.progress.is_restored(),
        );
        if engine.progress.is_restored() {
            self.say_what_does_not_continue(&engine);
        }
        // Burn announces the epoch after this one as the first.
        components.checkpoint = engine.progress.state().position.epoch.checked_sub(1);
        let handle = &self.settings.handle;
        let on_panic = closing::OnPanic(handle.clone());
        let training_loop = Loop::new(execution, engine, self.settings.threads.clone());
        let result = training_loop.train(learner, train, valid, components);
        drop(on_panic);
        let Some(mut engine) = training_loop.into_engine() else {
            return result;
        };
        let ending = engine.take_ending();
        let mut result = with_ending(result, &ending);
        engine
            .into_core()
            .conclude(result.error.is_none() && result.interrupted.is_none());
        let outcome = outcome(&result, &ending);
        handle.ended(outcome, result.error.as_deref().and_then(BackupError::find));
        let line = closing_line(outcome, &result, ending.saved.as_deref(), handle);
        let notes = handle.take_notes();
        match after {
            AfterPreemption::Exit(code) if ending.is_preempted && result.error.is_none() => {
                exit(result, line.unwrap_or_default(), code)
            }
            _ => report(&mut result.renderer, line.as_deref(), &notes),
        }
        result
    }

    /// Burn calls [`train`](Self::train), which has the loop's own strategy fit.
    fn fit(
        &self,
        components: TrainingComponents<M>,
        learner: Learner<M>,
        _train: TrainLoader<M>,
        _valid: ValidLoader<M>,
        _starting_epoch: usize,
    ) -> (M, SupervisedTrainingEventProcessor<M>) {
        (learner.model(), components.event_processor)
    }
}

/// Which devices train. Burn's builder hides a strategy that was set before, so where none was given to this
/// crate, this says how.
fn devices(settings: &BackupAndRestore, execution: &Execution) -> String {
    let used = announcement::devices(execution.devices());
    if settings.execution.is_some() || execution.split().is_some() {
        return used;
    }
    let more = match burn_api::devices_like(&execution.main()) {
        Some(there) if there > 1 => format!(" of {there}"),
        _ => String::new(),
    };
    format!(
        "{used}{more} (a training strategy set before is not used: give it to BackupAndRestore::execution)"
    )
}

/// Ends the process with `code`, whatever its user has just told the dashboard.
fn exit<M>(mut result: LearningResult<M>, line: String, code: i32) -> ! {
    let _ = report::give_terminal_back(&mut result.renderer);
    closing::exit(&line, code)
}

/// Checks that the model can be computed with where it is to be trained: moved to the device that it
/// is on, its parameters keep the gradient checkpointing that they were made with.
fn computable<M: LearnerModel>(
    execution: Execution,
    learner: &Learner<M>,
) -> Result<Execution, BackupError> {
    for model in learner.model().devices() {
        let strategy = model.gradient_checkpointing_strategy();
        for device in execution
            .devices()
            .iter()
            .filter(|device| **device == model)
        {
            let trained_with = device.gradient_checkpointing_strategy();
            if let (Some(model), Some(training)) = (strategy, trained_with)
                && model != training
            {
                return Err(BackupError::GradientCheckpointing {
                    model: format!("{model:?}"),
                    training: format!("{training:?}"),
                });
            }
        }
    }
    Ok(execution)
}

/// The result with what the loop ended on. Burn reads it from the interrupter after the renderer
/// has been told, and the one for terminals resets the interrupter then.
fn with_ending<M>(mut result: LearningResult<M>, ending: &Ending) -> LearningResult<M> {
    result.error = result.error.or_else(|| ending.error.clone());
    result.interrupted = match result.error {
        Some(_) => None,
        None => result.interrupted.or_else(|| ending.interrupted.clone()),
    };
    result
}

/// The line on a training that ended like this; `None` if it is finished. `saved` says what became of one
/// that was stopped.
fn closing_line<M>(
    outcome: Outcome,
    result: &LearningResult<M>,
    saved: Option<&str>,
    handle: &BackupHandle,
) -> Option<String> {
    let reason = result.interrupted.as_ref();
    let reason = reason.and_then(|stop| stop.reason.as_deref());
    let error = result.error.as_deref();
    closing::line(outcome, error, reason, saved, handle)
}

fn outcome<M>(result: &LearningResult<M>, ending: &Ending) -> Outcome {
    if result.error.is_some() {
        return match ending.is_refused {
            true => Outcome::Refused,
            false => Outcome::Failed,
        };
    }
    match (ending.beyond, &result.interrupted) {
        (Some((at, num_epochs)), _) => Outcome::Beyond { at, num_epochs },
        (None, Some(_)) => Outcome::Stopped {
            saved: ending.saved_at,
        },
        (None, None) => Outcome::Finished,
    }
}

/// Ends the training before it starts.
fn refuse<M: LearnerModel>(
    learner: &Learner<M>,
    components: TrainingComponents<M>,
    error: BackupError,
    handle: &BackupHandle,
) -> LearningResult<M> {
    let interrupter = components.interrupter;
    let mut processor = components.event_processor;
    interrupter.fail(BackupError::into_training_error(Arc::new(error)));
    let ending = Ending {
        error: interrupter.error(),
        is_refused: true,
        ..Ending::default()
    };
    interrupter.fail_on_error(processor.process_train(LearnerEvent::End(None)));
    interrupter.fail_on_error(processor.flush());
    let result = LearningResult {
        model: learner.model().valid(),
        renderer: processor.renderer(),
        interrupted: None,
        error: None,
    };
    let mut result = with_ending(result, &ending);
    let outcome = outcome(&result, &ending);
    handle.ended(outcome, result.error.as_deref().and_then(BackupError::find));
    let line = closing_line(outcome, &result, None, handle);
    report(&mut result.renderer, line.as_deref(), &handle.take_notes());
    result
}
