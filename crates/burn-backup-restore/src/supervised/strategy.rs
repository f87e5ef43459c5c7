//! The strategy that Burn calls. It restores before Burn announces the training, and then runs the loop.

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
use crate::messages::{self, print_line};
use crate::metrics::{MetricHistory, MetricLogs, MetricWatch};
use crate::outcome::Outcome;
use crate::preemption::{AfterPreemption, NoticeMonitor};
use crate::report::{self, report};
use crate::session::{Context, Ending, announcement, closing};
use crate::settings::{BackupAndRestore, FastForward, taken};
use crate::supervised::engine::Engine;
use crate::supervised::loops::Loop;

const LOG: &str = "burn_backup::restore";

/// Parts that are registered with Burn in addition to the strategy.
pub(crate) struct Registered {
    pub metric_history: MetricHistory,
    /// Written by a metric logger.
    pub metric_logs: Option<MetricLogs>,
    /// Watches the metrics, if divergences are detected.
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
             set the devices with BackupAndRestore::execution",
            self.settings.backup_dir,
        );
        log::error!(target: LOG, "{message}");
        // Also printed, because there may be no logger yet: Burn starts its log file at the launch.
        print_line(&format!("error: {message}"));
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

    /// The devices of the training. By default the learner's own device, as in Burn.
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
            // A single device is trained as such, as in Burn.
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

    /// Checks that divergences can be detected, and that the training can go back after one.
    fn check_divergence<O>(&self, train: &dyn DataLoader<O>) -> Result<(), BackupError> {
        if !self.settings.divergence.watches() {
            return Ok(());
        }
        if self.registered.watch.is_none() {
            return Err(BackupError::DivergenceWithoutMetrics {
                setting: "artifacts",
            });
        }
        match burn_api::loader_kind(train) {
            _ if self.settings.divergence == Divergence::Stop => Ok(()),
            LoaderKind::Single | LoaderKind::Workers => Err(BackupError::UnrepeatableLoader {
                loader: "Burn's data loader",
            }),
            LoaderKind::Other => Ok(()),
        }
    }

    /// Draws a run seed from the generator of the device, which the program may have seeded. It is drawn at each
    /// start, so that the generator is always in the same state afterwards.
    fn draw_seed(&self, execution: &Execution) -> Option<u64> {
        let is_needed = self.settings.reseed_steps && self.settings.run_seed.is_none();
        is_needed
            .then(|| burn_api::draw_seed(&execution.main()))
            .flatten()
    }

    /// Starts to listen for preemption notices, and returns what happens after one.
    fn check_for_notice(&self) -> Result<(Option<NoticeMonitor>, AfterPreemption), BackupError> {
        let Some(preemption) = taken(&self.settings.preemption) else {
            return Ok((None, AfterPreemption::default()));
        };
        preemption.validate()?;
        let after = preemption.after;
        Ok((Some(NoticeMonitor::start(preemption)?), after))
    }

    /// Warns about metric logs that do not continue after a restore inside an epoch.
    fn warn_of_metric_logs<M: LearnerModel>(&self, engine: &Engine<M>) {
        let is_in_epoch = engine.progress.state().position.step_in_epoch > 0;
        if is_in_epoch && self.registered.metric_logs.is_none() {
            log::warn!(
                target: LOG,
                "Burn overwrites its metric log of the interrupted epoch, and the epoch's training metrics cover \
                 only its remaining batches: to continue them, call BackupAndRestore::artifacts with the training's \
                 directory",
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
        messages::leave_terminal_to_renderer(self.settings.dashboard);
        // Start the monitor before the restore, so that a notice during the restore counts.
        let (monitor, after) = match self.check_for_notice() {
            Ok(monitor) => monitor,
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
            messages::warn(
                &self.settings.handle,
                "the strategy given to BackupAndRestore::checkpointing_strategy is never used, \
                 because the training writes no Burn checkpoints: call with_default_checkpointers() or \
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
            monitor,
            main: execution.main(),
            drawn_seed: self.draw_seed(&execution),
            watch: self.registered.watch.clone(),
        };
        let engine = match Engine::open(&self.settings, &mut learner, event_store, context) {
            Ok(engine) => engine,
            Err(error) => return refuse(&learner, components, error, &self.settings.handle),
        };

        let devices = devices(&self.settings, &execution);
        messages::announce(&announcement::line(&self.settings, &devices));
        announcement::log_validation_order(burn_api::loader_kind(valid.as_ref()));
        announcement::warn_of_workers(
            &self.settings.handle,
            burn_api::loader_kind(train.as_ref()),
            engine.progress.is_restored(),
        );
        if engine.progress.is_restored() {
            self.warn_of_metric_logs(&engine);
        }
        // Burn announces the next epoch after this one as the first.
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

    /// Not called by Burn: it calls [`train`](Self::train), which runs the loop's own strategy.
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

/// A description of the devices that train. Burn's builder hides a strategy that was set earlier. If this crate was
/// given no devices, the text says how to set them.
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

/// Ends the process with `code`, regardless of the user's last input in the dashboard.
fn exit<M>(mut result: LearningResult<M>, line: String, code: i32) -> ! {
    let _ = report::give_terminal_back(&mut result.renderer);
    closing::exit(&line, code)
}

/// Checks that the model's gradient checkpointing matches the training's. A move to the device that the model is
/// already on does not change its parameters' checkpointing.
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

/// Adds the loop's ending to the result. Burn reads the ending from the interrupter only after it has notified the
/// renderer, and the terminal renderer resets the interrupter.
fn with_ending<M>(mut result: LearningResult<M>, ending: &Ending) -> LearningResult<M> {
    result.error = result.error.or_else(|| ending.error.clone());
    result.interrupted = match result.error {
        Some(_) => None,
        None => result.interrupted.or_else(|| ending.interrupted.clone()),
    };
    result
}

/// The closing line of the training; `None` if it is finished without NaN. `saved` describes what was saved if it was
/// stopped.
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
    match (ending.past_last_epoch, &result.interrupted) {
        (Some((at, num_epochs)), _) => Outcome::PastLastEpoch { at, num_epochs },
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
