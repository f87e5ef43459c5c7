//! The evaluation of an agent, in whole episodes. Finished episodes are not run again.

use std::sync::Arc;

use burn::data::dataloader::Progress;
use burn::rl::{Environment as _, Policy as _, PolicyLearner as _, StepResult, ToObservation as _};
use burn::train::{
    AgentEvaluationEvent, EpisodeSummary, EvaluationItem, EventProcessorTraining as _,
    RLComponentsTypes,
};

use super::counters::Episode;
use super::draws::Drawing;
use super::environment::sealed::Backup;
use super::off_policy_loop::{OffPolicyLoop, no_context, reseed};
use super::replay_item::ReplayItem;
use crate::error::BackupError;
use crate::panics::attempt;
use crate::seed;
use crate::session::NoMetrics;

/// A finished episode.
struct Evaluated<C> {
    contexts: Vec<C>,
    episode: Episode,
    /// Whether the environment ended the episode. False if the step limit did.
    is_done: bool,
}

impl<RLC, B> OffPolicyLoop<'_, RLC, B>
where
    RLC: RLComponentsTypes,
    RLC::PolicyObs: ReplayItem,
    RLC::PolicyAction: ReplayItem,
    B: Backup<RLC::Env>,
{
    /// Evaluates the agent. `done` episodes are already finished.
    pub(super) fn evaluate(&mut self, done: usize) -> Result<(), BackupError> {
        let episodes = self.config.eval_episodes;
        self.send_valid(AgentEvaluationEvent::Start(episodes));
        self.core.split_done();
        let agent = &self.training.agent;
        let mut policy = agent.policy().to_device(&self.training.policies.device);
        policy.update(agent.policy().state());
        let mut is_stopped = false;
        for episode in done..episodes {
            let Some(evaluated) = self.run_episode(&mut policy, episode)? else {
                is_stopped = true;
                break;
            };
            self.send_episode(evaluated, episode);
            self.training.counters.evaluation = Some(episode + 1);
            self.core.part_validated(format!("episode-{episode}"));
        }
        if is_stopped {
            self.send_valid(AgentEvaluationEvent::End);
            return Ok(());
        }
        self.save_checkpoint();
        let eval_interval = self.config.eval_interval;
        self.training.counters.end_evaluation(eval_interval);
        self.send_valid(AgentEvaluationEvent::End);
        self.core.forget_validated_parts();
        self.core
            .epoch_done(&self.training.parts(), &mut NoMetrics, false);
        Ok(())
    }

    /// Runs an episode to its end. `None` if a stop comes first.
    fn run_episode(
        &mut self,
        policy: &mut RLC::Policy,
        number: usize,
    ) -> Result<Option<Evaluated<RLC::ActionContext>>, BackupError> {
        let environments = &mut self.training.environments;
        environments.episode_start = Some(B::save(&environments.evaluation));
        let steps = self.training.counters.environment_steps;
        let seed = seed::of_evaluation(self.core.progress.run_seed(), steps, number);
        let device = self.training.policies.device.clone();
        reseed(&device, seed, self.reseeds);
        let _drawing = Drawing::from_seed(seed);

        let mut contexts = Vec::new();
        let mut episode = Episode::default();
        let is_done = loop {
            self.core
                .check_for_notice(&self.training.parts(), &mut NoMetrics);
            if self.interrupter.should_stop() {
                return Ok(None);
            }
            let environment = &mut self.training.environments.evaluation;
            let observation = environment.state().to_observation(&device);
            let (action, context) = policy.action(observation, true);
            contexts.push(context.into_iter().next().ok_or_else(no_context)?);
            let StepResult {
                reward,
                done,
                truncated,
                ..
            } = environment.step(RLC::Action::from(action));
            episode.length += 1;
            episode.reward += reward;
            if done || truncated {
                environment.reset();
                break done;
            }
        };
        self.training.environments.episode_start = None;
        Ok(Some(Evaluated {
            contexts,
            episode,
            is_done,
        }))
    }

    /// Reports an episode to Burn after its end, as Burn's own loop does.
    fn send_episode(&mut self, evaluated: Evaluated<RLC::ActionContext>, number: usize) {
        let Evaluated {
            contexts,
            episode,
            is_done,
        } = evaluated;
        for (index, context) in contexts.into_iter().enumerate() {
            let progress = Progress::new(index, index, Some("steps".to_owned()));
            let item = EvaluationItem::new(context, progress, None);
            self.send_valid(AgentEvaluationEvent::EnvStep(item));
        }
        if is_done {
            let summary = EpisodeSummary {
                episode_length: episode.length,
                cum_reward: episode.reward,
            };
            let episodes = self.config.eval_episodes;
            let progress = Progress::new(number + 1, episodes, Some("episodes".to_owned()));
            let item = EvaluationItem::new(summary, progress, None);
            self.send_valid(AgentEvaluationEvent::EpisodeEnd(item));
        }
    }

    /// Saves Burn's own checkpoint. Burn panics if it can't be written.
    fn save_checkpoint(&mut self) {
        let Some(checkpointer) = &mut self.checkpointer else {
            return;
        };
        let step = self.training.counters.next_evaluation;
        let saved = attempt(|| {
            let policy = self.training.policies.acting.state();
            checkpointer.checkpoint(&policy, &self.training.agent, step, &self.event_store);
            Ok(())
        });
        if let Err(error) = saved {
            let error = BackupError::into_training_error(Arc::new(error));
            self.interrupter.fail(error);
        }
    }

    fn send_valid(&mut self, event: AgentEvaluationEvent<RLC::ActionContext>) {
        let sent = self.processor.process_valid(event);
        self.interrupter.fail_on_error(sent);
    }
}
