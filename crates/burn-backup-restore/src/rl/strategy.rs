//! The strategy that Burn calls. It restores before Burn announces the training, and then runs the
//! loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::rl::PolicyLearner as _;
use burn::train::{
    EventProcessorTraining as _, RLComponents, RLComponentsTypes, RLEvent, RLEventProcessorType,
    RLResult, RLStrategy,
};

use super::environment::EnvironmentBackup;
use super::off_policy::OffPolicy;
use super::off_policy_loop::OffPolicyLoop;
use super::opening::{self, TrainingInputs};
use super::replay_item::ReplayItem;
use crate::burn_api;
use crate::error::BackupError;
use crate::handle::BackupHandle;
use crate::messages::{self, print_line};
use crate::metrics::{MetricHistory, MetricWatch};
use crate::outcome::Outcome;
use crate::preemption::{AfterPreemption, NoticeMonitor};
use crate::report::{give_terminal_back, report};
use crate::session::{Context, Ending, announcement, closing};
use crate::settings::{BackupAndRestore, FastForward, taken};

const LOG: &str = "burn_backup::restore";

/// The warning about environments that can't be saved.
const NEW_EPISODES: &str = "not exact after a restart: the environments can't be saved, so a resumed training \
     begins new episodes in them; implement burn_backup_restore::rl::ResumableEnvironment and call \
     OffPolicy::resumable_environments";

/// The note about Burn's own metric logs.
const METRIC_LOGS: &str = "Burn's own metric logs start over at a restart and overwrite the \
                           earlier ones: to keep both, copy them first, or give RLTraining \
                           another directory then";

/// The learning strategy that [`RlBackupExt`](super::RlBackupExt) registers.
pub(super) struct BackupStrategy<B> {
    settings: BackupAndRestore,
    strategy: OffPolicy<B>,
    /// Watches the metrics, if divergences are detected.
    watch: Option<MetricWatch>,
    is_used: AtomicBool,
}

impl<B> Drop for BackupStrategy<B> {
    fn drop(&mut self) {
        if self.is_used.load(Ordering::Relaxed) {
            return;
        }
        let message = format!(
            "backup_and_restore({:?}) was never used: the training was not launched, or a learning strategy set \
             after it runs WITHOUT BACKUPS; make it the last line before launch",
            self.settings.backup_dir,
        );
        log::error!(target: LOG, "{message}");
        // Also printed, because there may be no logger yet: Burn starts its log file at the launch.
        print_line(&format!("error: {message}"));
    }
}

impl<B> BackupStrategy<B> {
    pub(super) fn new(
        settings: BackupAndRestore,
        strategy: OffPolicy<B>,
        watch: Option<MetricWatch>,
    ) -> Self {
        Self {
            settings,
            strategy,
            watch,
            is_used: AtomicBool::new(false),
        }
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

    /// Rejects settings that have no effect here.
    fn check_settings(&self) -> Result<(), BackupError> {
        let settings = &self.settings;
        settings.validate()?;
        self.strategy.validate()?;
        let devices = ": the agent's device trains, and RLTraining::with_inference_device sets the device \
             where it acts";
        let logs = ": Burn's own metric loggers write them, and start over at a restart";
        let strategy = ": give it to RLTraining::with_checkpointing_strategy";
        let by_epochs = ": its metrics belong to episodes, not to evaluations; Keep::every_epochs \
                         and Which::Epoch count evaluations";
        let refused = [
            (settings.execution.is_some(), "execution", devices),
            (
                settings.gradient_checkpointing,
                "gradient_checkpointing",
                ": make the model on such a device",
            ),
            (settings.has_artifacts, "artifacts", logs),
            (
                settings.metric_logs.is_some() && !settings.divergence.watches(),
                "metric_logs",
                logs,
            ),
            (
                settings.has_checkpointing_strategy(),
                "checkpointing_strategy",
                strategy,
            ),
            (
                settings.fast_forward != FastForward::default(),
                "fast_forward(FastForward::Replay)",
                "",
            ),
            (settings.allow_short_epochs, "allow_short_epochs", ""),
            (
                !settings.keep.metrics().is_empty(),
                "keep(Keep::best(..))",
                by_epochs,
            ),
            (
                settings.restore_from.metric().is_some(),
                "restore_from(Which::best(..))",
                by_epochs,
            ),
        ];
        if let Some((_, setting, hint)) = refused.into_iter().find(|(is_given, ..)| *is_given) {
            return Err(BackupError::NotForRl { setting, hint });
        }
        match settings.divergence.watches() && self.watch.is_none() {
            true => Err(BackupError::DivergenceWithoutMetrics {
                setting: "metric_logs",
            }),
            false => Ok(()),
        }
    }

    /// The context of the session.
    fn context<RLC: RLComponentsTypes>(
        &self,
        agent: &RLC::LearningAgent,
        components: &RLComponents<RLC>,
        monitor: Option<NoticeMonitor>,
    ) -> Context {
        let config = &self.strategy.config;
        let main = agent.device();
        let draws = self.settings.reseed_steps && self.settings.run_seed.is_none();
        Context {
            interrupter: components.interrupter.clone(),
            first_epoch: 1,
            num_epochs: components.num_steps.div_ceil(config.eval_interval.max(1)),
            grad_accumulation: 1,
            split: None,
            devices: vec![main.clone(), components.inference_device.clone()],
            metric_history: MetricHistory::default(),
            metric_logs: None,
            monitor,
            drawn_seed: draws.then(|| burn_api::draw_seed(&main)).flatten(),
            watch: self.watch.clone(),
            main,
        }
    }
}

impl<RLC, B> RLStrategy<RLC> for BackupStrategy<B>
where
    RLC: RLComponentsTypes,
    RLC::PolicyObs: ReplayItem,
    RLC::PolicyAction: ReplayItem,
    B: EnvironmentBackup<RLC::Env>,
{
    fn train(
        &self,
        agent: RLC::LearningAgent,
        components: RLComponents<RLC>,
        environment: RLC::EnvInit,
    ) -> RLResult<RLC::Policy> {
        self.is_used.store(true, Ordering::Relaxed);
        messages::leave_terminal_to_renderer(self.settings.dashboard);
        let handle = &self.settings.handle;
        let _on_panic = closing::OnPanic(handle.clone());
        // The policy to return if the training can't start.
        let policy = agent.policy();
        // Start the monitor before the restore, so that a notice during the restore counts.
        let checked = self.check_settings().and_then(|()| self.check_for_notice());
        let (monitor, after) = match checked {
            Ok(monitor) => monitor,
            Err(error) => return refuse(policy, components, error, handle),
        };
        let device = agent.device();
        let context = self.context(&agent, &components, monitor);
        let given = TrainingInputs {
            settings: &self.settings,
            config: &self.strategy.config,
            checkpoint: components.checkpoint,
            environment: &environment,
            device: components.inference_device.clone(),
        };
        let (core, training) = match opening::open::<RLC, B>(&given, agent, context) {
            Ok(opened) => opened,
            Err(error) => return refuse(policy, components, error, handle),
        };
        drop(policy);

        let devices = announcement::devices(std::slice::from_ref(&device));
        messages::announce(&announcement::line(&self.settings, &devices));
        match core.progress.is_restored() {
            true => log::warn!(target: LOG, "{METRIC_LOGS}"),
            // Printed only at the first start, while the user can still act on it.
            false => messages::announce(METRIC_LOGS),
        }
        if !B::IS_EXACT {
            match core.progress.is_restored() {
                // Printed only at the first start; later starts only log it.
                true => log::warn!(target: LOG, "{NEW_EPISODES}"),
                false => messages::warn(handle, NEW_EPISODES),
            }
        }
        let mut training_loop = OffPolicyLoop {
            core,
            training,
            config: &self.strategy.config,
            num_steps: components.num_steps,
            processor: components.event_processor,
            interrupter: components.interrupter,
            checkpointer: components.checkpointer,
            event_store: components.event_store,
            reseeds: self.settings.reseed_steps,
        };
        let interrupter = training_loop.interrupter.clone();
        let started = training_loop.processor.process_train(RLEvent::Start {
            total_items: components.num_steps,
            label: components.label,
        });
        interrupter.fail_on_error(started);
        let (mut core, policy, mut processor, checkpointer) = loop {
            let rolls_back = training_loop.run();
            let policy = training_loop.training.agent.policy();
            let OffPolicyLoop {
                mut core,
                training,
                processor,
                checkpointer,
                ..
            } = training_loop;
            if !rolls_back {
                break (core, policy, processor, checkpointer);
            }
            match opening::roll_back::<RLC, B>(&given, training, &mut core) {
                Ok(training) => {
                    training_loop = OffPolicyLoop {
                        core,
                        training,
                        processor,
                        checkpointer,
                        ..training_loop
                    };
                }
                Err(error) => {
                    core.fails(error);
                    break (core, policy, processor, checkpointer);
                }
            }
        };
        // Waits until all checkpoints are written.
        drop(checkpointer);

        let summary = components.summary.and_then(|summary| summary.init().ok());
        interrupter.fail_on_error(processor.process_train(RLEvent::End(summary)));
        interrupter.fail_on_error(processor.flush());
        let ending = core.take_ending();
        let result = RLResult {
            policy,
            renderer: processor.renderer(),
            interrupted: interrupter.interruption(),
            error: interrupter.error(),
        };
        let mut result = with_ending(result, &ending);
        core.conclude(result.error.is_none() && result.interrupted.is_none());
        let outcome = outcome(&result, &ending);
        handle.ended(outcome, result.error.as_deref().and_then(BackupError::find));
        let line = closing_line(outcome, &result, &ending, handle);
        match after {
            AfterPreemption::Exit(code) if ending.is_preempted && result.error.is_none() => {
                let _ = give_terminal_back(&mut result.renderer);
                closing::exit(&line.unwrap_or_default(), code)
            }
            _ => report(&mut result.renderer, line.as_deref(), &handle.take_notes()),
        }
        result
    }

    /// Not called by Burn: it calls [`train`](Self::train), which has its own loop.
    fn train_loop(
        &self,
        components: RLComponents<RLC>,
        agent: &mut RLC::LearningAgent,
        _starting_epoch: usize,
        _environment: RLC::EnvInit,
    ) -> (RLC::Policy, RLEventProcessorType<RLC>) {
        (agent.policy(), components.event_processor)
    }
}

/// Adds the loop's ending to the result, because Burn's terminal renderer resets the interrupter.
fn with_ending<P>(mut result: RLResult<P>, ending: &Ending) -> RLResult<P> {
    result.error = result.error.or_else(|| ending.error.clone());
    result.interrupted = match result.error {
        Some(_) => None,
        None => result.interrupted.or_else(|| ending.interrupted.clone()),
    };
    result
}

fn outcome<P>(result: &RLResult<P>, ending: &Ending) -> Outcome {
    match (&result.error, &result.interrupted) {
        (Some(_), _) if ending.is_refused => Outcome::Refused,
        (Some(_), _) => Outcome::Failed,
        (None, Some(_)) => Outcome::Stopped {
            saved: ending.saved_at,
        },
        (None, None) => Outcome::Finished,
    }
}

/// The closing line of the training; `None` if it is finished.
fn closing_line<P>(
    outcome: Outcome,
    result: &RLResult<P>,
    ending: &Ending,
    handle: &BackupHandle,
) -> Option<String> {
    let reason = result.interrupted.as_ref();
    let reason = reason.and_then(|stop| stop.reason.as_deref());
    let error = result.error.as_deref();
    closing::line(outcome, error, reason, ending.saved.as_deref(), handle)
}

/// Ends the training before it starts.
fn refuse<RLC: RLComponentsTypes>(
    policy: RLC::Policy,
    components: RLComponents<RLC>,
    error: BackupError,
    handle: &BackupHandle,
) -> RLResult<RLC::Policy> {
    let interrupter = components.interrupter;
    let mut processor = components.event_processor;
    interrupter.fail(BackupError::into_training_error(Arc::new(error)));
    let ending = Ending {
        error: interrupter.error(),
        is_refused: true,
        ..Ending::default()
    };
    interrupter.fail_on_error(processor.process_train(RLEvent::End(None)));
    interrupter.fail_on_error(processor.flush());
    let result = RLResult {
        policy,
        renderer: processor.renderer(),
        interrupted: None,
        error: None,
    };
    let mut result = with_ending(result, &ending);
    let outcome = outcome(&result, &ending);
    handle.ended(outcome, result.error.as_deref().and_then(BackupError::find));
    let line = closing_line(outcome, &result, &ending, handle);
    report(&mut result.renderer, line.as_deref(), &handle.take_notes());
    result
}
