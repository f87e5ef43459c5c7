//! The loop: steps in the environments, training and evaluation. Each is reported to the session.
//!
//! It sends the events of Burn's `OffPolicyStrategy`, in the same order. The environments run on this thread, so
//! everything can be saved after each step.

use std::sync::Arc;

use burn::rl::{
    Environment as _, Policy as _, PolicyLearner as _, StepResult, ToAction as _,
    ToObservation as _,
};
use burn::tensor::Device;
use burn::train::metric::store::EventStoreClient;
use burn::train::{
    EpisodeSummary, EvaluationItem, EventProcessorTraining as _, Interrupter, OffPolicyConfig,
    RLCheckpointer, RLComponentsTypes, RLEvent, RLEventProcessorType,
};

use super::counters::Episode;
use super::draws::Drawing;
use super::environment::sealed::Backup;
use super::replay_item::ReplayItem;
use super::training::Training;
use crate::burn_api::Items;
use crate::error::BackupError;
use crate::seed::{self, Purpose};
use crate::session::{Core, NoMetrics};

/// A training with its components.
pub(super) struct OffPolicyLoop<'s, RLC: RLComponentsTypes, B: Backup<RLC::Env>> {
    pub core: Core,
    pub training: Training<RLC, B>,
    pub config: &'s OffPolicyConfig,
    pub num_steps: usize,
    pub processor: RLEventProcessorType<RLC>,
    pub interrupter: Interrupter,
    pub checkpointer: Option<RLCheckpointer<RLC>>,
    pub event_store: Arc<EventStoreClient>,
    /// Whether devices are seeded before each step.
    pub reseeds: bool,
}

impl<RLC, B> OffPolicyLoop<'_, RLC, B>
where
    RLC: RLComponentsTypes,
    RLC::PolicyObs: ReplayItem,
    RLC::PolicyAction: ReplayItem,
    B: Backup<RLC::Env>,
{
    /// Trains until the end or a stop, and reports it to the session. Returns whether the training has diverged and
    /// goes back.
    pub(super) fn run(&mut self) -> bool {
        self.core.split_begins(&self.training.parts());
        self.warn_if_unprotected();
        loop {
            self.core
                .check_for_notice(&self.training.parts(), &mut NoMetrics);
            let is_done = self.training.counters.is_between_rounds()
                && self.training.counters.processed >= self.num_steps;
            if is_done {
                self.core.settle_divergence(&mut NoMetrics);
            }
            if self.core.has_diverged() {
                return true;
            }
            if self.interrupter.error().is_none() && is_done {
                self.core.finished(&self.training.parts(), &mut NoMetrics);
                return false;
            }
            if self.interrupter.should_stop() {
                if let Some(interruption) = self.interrupter.interruption() {
                    let reason = interruption.reason.as_deref().unwrap_or("reason unknown");
                    log::info!("Training interrupted: {reason}");
                }
                self.core.stopped(&self.training.parts(), &mut NoMetrics);
                return false;
            }
            let done = match self.training.counters.evaluation {
                Some(episodes) => self.evaluate(episodes),
                None => self.advance(),
            };
            if let Err(error) = done {
                let error = BackupError::into_training_error(Arc::new(error));
                self.interrupter.fail(error);
            }
        }
    }

    /// Warns if the training ends before a backup is due.
    fn warn_if_unprotected(&self) {
        self.core
            .warn_if_unprotected(1, Some(self.num_steps as u64));
        if self.num_steps < self.training.counters.next_evaluation {
            // No evaluation happens, so no backup is due after one.
            self.core.warn_if_unprotected(1, None);
        }
    }

    /// One step in an environment, and the training after it.
    fn advance(&mut self) -> Result<(), BackupError> {
        // A rollback skips the agent's training: there is no batch to skip, and later batches are drawn again.
        let is_skipped = self.core.progress.skips_next();
        self.step()?;
        if self
            .training
            .counters
            .is_round_full(self.config.train_interval)
        {
            if !is_skipped {
                self.train()?;
            }
            self.training.counters.end_round();
        }
        let position = self.core.progress.state().position;
        let items = Items {
            processed: position.step_in_epoch + 1,
            total: self.config.eval_interval.clamp(1, self.num_steps.max(1)),
        };
        self.core
            .step_done(&self.training.parts(), &mut NoMetrics, &[items], true);
        Ok(())
    }

    fn step(&mut self) -> Result<(), BackupError> {
        let Training {
            policies,
            replay,
            environments,
            counters,
            ..
        } = &mut self.training;
        let step = counters.environment_steps;
        let index = (step % environments.training.len().max(1) as u64) as usize;
        let (Some(environment), Some(episode)) = (
            environments.training.get_mut(index),
            counters.episodes.get_mut(index),
        ) else {
            return Ok(());
        };
        let run_seed = self.core.progress.run_seed();
        let seed = seed::derive(run_seed, Purpose::EnvironmentStep, step);
        reseed(&policies.device, seed, self.reseeds);
        let _drawing = Drawing::from_seed(seed);

        let state = environment.state();
        let observation = state.to_observation(&policies.device);
        let (action, context) = policies.acting.action(observation, false);
        let context = context.into_iter().next().ok_or_else(no_context)?;
        let action = RLC::Action::from(action);
        let StepResult {
            next_state,
            reward,
            done,
            truncated,
        } = environment.step(action.clone());
        episode.length += 1;
        episode.reward += reward;
        let summary = EpisodeSummary {
            episode_length: episode.length,
            cum_reward: episode.reward,
        };
        replay.push(
            state.to_observation(&policies.device),
            next_state.to_observation(&policies.device),
            action.to_action(&policies.device),
            reward as f32,
            done || truncated,
        )?;
        if done || truncated {
            environment.reset();
            *episode = Episode::default();
        }
        counters.environment_steps += 1;
        counters.processed += 1;

        let progress = counters.progress(self.num_steps);
        let item = EvaluationItem::new(context, progress.clone(), None);
        self.send(RLEvent::EnvStep(item));
        if done {
            let item = EvaluationItem::new(summary, progress, None);
            self.send(RLEvent::EpisodeEnd(item));
        }
        Ok(())
    }

    /// The training at the end of a round.
    fn train(&mut self) -> Result<(), BackupError> {
        let batch_size = self.config.train_batch_size;
        let is_ready = self.training.replay.ring().len() >= batch_size
            && self.training.counters.processed >= self.config.warmup_steps;
        if !is_ready {
            return Ok(());
        }
        let run_seed = self.core.progress.run_seed();
        let device = self.training.agent.device();
        self.training.policies.advance();
        for _ in 0..self.config.train_steps {
            let Training {
                agent,
                policies,
                replay,
                counters,
                ..
            } = &mut self.training;
            let step = counters.train_steps;
            let seed = seed::derive(run_seed, Purpose::AgentTraining, step);
            reseed(&device, seed, self.reseeds);
            let drawing = Drawing::from_seed(seed);
            let batch = replay.sample(batch_size, run_seed, step, &device)?;
            let trained = agent.train(batch);
            policies.next = Some(agent.policy().state());
            drop(drawing);
            counters.train_steps += 1;
            let progress = counters.progress(self.num_steps);
            let item = EvaluationItem::new(trained.item, progress, None);
            self.send(RLEvent::TrainStep(item));
        }
        Ok(())
    }

    fn send(&mut self, event: RLEvent<RLC::TrainingOutput, RLC::ActionContext>) {
        let next = self
            .core
            .progress
            .state()
            .position
            .global_step
            .saturating_add(1);
        match &event {
            RLEvent::TrainStep(_) => self.core.expect_metrics(Some(next)),
            RLEvent::EnvStep(_) | RLEvent::EpisodeEnd(_) => self.core.expect_metrics(None),
            RLEvent::Start { .. } | RLEvent::End(_) => {}
        }
        let sent = self.processor.process_train(event);
        self.interrupter.fail_on_error(sent);
    }
}

/// Seeds a device, which may be one that computes gradients.
pub(super) fn reseed(device: &Device, seed: u64, reseeds: bool) {
    if reseeds {
        device.seed(seed);
    }
}

/// The error of a policy that returns no context for its action.
pub(super) fn no_context() -> BackupError {
    BackupError::Transition {
        expected: "actions that each have a context".to_owned(),
        given: "an action without a context".to_owned(),
    }
}
