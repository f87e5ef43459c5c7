//! A running training: the agent, its policies, the replay buffer and the environments, and their parts in a backup.

use burn::rl::{Policy as _, PolicyLearner as _, PolicyState as _};
use burn::tensor::Device;
use burn::train::RLComponentsTypes;
use serde::Serialize;

use super::counters::Counters;
use super::environment::sealed::Backup;
use super::environments::ValueOf;
use super::record::{Check, RecordOf, encoding};
use super::replay_buffer::ReplayBuffer;
use crate::error::BackupError;
use crate::parts::encode;
use crate::save::SavePart;
use crate::session::HasParts;

pub(super) const AGENT: &str = "agent";
pub(super) const POLICY: &str = "policy";
pub(super) const ACTING_POLICY: &str = "acting_policy";
pub(super) const REPLAY: &str = "replay";
pub(super) const ENVIRONMENTS: &str = "environments";
pub(super) const PROGRESS: &str = "progress";

/// Everything that a training changes.
pub(super) struct Training<RLC: RLComponentsTypes, B: Backup<RLC::Env>> {
    pub agent: RLC::LearningAgent,
    pub policies: Policies<RLC>,
    pub replay: ReplayBuffer<RLC::PolicyObs, RLC::PolicyAction>,
    pub environments: Environments<RLC, B>,
    pub counters: Counters,
    /// Whether a policy that contains NaN is not saved.
    pub refuse_nan: bool,
}

/// The policy that acts in the environments. As in Burn's loop, it is one training behind the agent's policy.
pub(super) struct Policies<RLC: RLComponentsTypes> {
    pub acting: RLC::Policy,
    /// The state that the acting policy takes at the next training.
    pub next: Option<RLC::PolicyState>,
    /// The device on which the policy acts.
    pub device: Device,
}

/// The environments.
pub(super) struct Environments<RLC: RLComponentsTypes, B: Backup<RLC::Env>> {
    /// The environments that the agent learns in.
    pub training: Vec<RLC::Env>,
    /// The environment for evaluations.
    pub evaluation: RLC::Env,
    /// The evaluation environment's state at the start of the episode in progress. A restart after an interruption
    /// begins there.
    pub episode_start: Option<B::Saved>,
}

/// A borrowed [`SavedEnvironments`](super::environments::SavedEnvironments).
#[derive(Serialize)]
struct CurrentEnvironments<'e, S> {
    training: Vec<S>,
    evaluation: &'e S,
}

impl<RLC: RLComponentsTypes> Policies<RLC> {
    /// Updates the acting policy before a training, to the agent's previous policy.
    pub(super) fn advance(&mut self) {
        if let Some(next) = &self.next {
            self.acting.update(next.clone());
            self.acting = self.acting.clone().to_device(&self.device);
        }
    }
}

impl<RLC: RLComponentsTypes, B: Backup<RLC::Env>> Environments<RLC, B> {
    fn encode(&self) -> Result<Vec<u8>, BackupError> {
        let training = self.training.iter().map(B::save).collect();
        let current = match &self.episode_start {
            Some(start) => encode(&CurrentEnvironments {
                training,
                evaluation: start,
            }),
            None => encode(&CurrentEnvironments {
                training,
                evaluation: &B::save(&self.evaluation),
            }),
        };
        current.map_err(|error| error.of_state(ENVIRONMENTS))
    }
}

impl<RLC: RLComponentsTypes, B: Backup<RLC::Env>> Training<RLC, B> {
    /// The parts of the training in its current state.
    pub(super) fn parts(&self) -> TrainingParts<'_, RLC, B> {
        let model = Check::Model {
            refuse_nan: self.refuse_nan,
        };
        TrainingParts {
            agent: RecordOf {
                name: AGENT,
                of: &self.agent,
                take: |agent| {
                    // The record is encoded in the background, or here if it is on a GPU.
                    let record = agent.record();
                    encoding(|| record)
                },
                check: Check::Nothing,
            },
            policy: RecordOf {
                name: POLICY,
                of: &self.agent,
                take: |agent| {
                    let state = agent.policy().state();
                    encoding(|| state.into_record())
                },
                check: model,
            },
            acting_policy: RecordOf {
                name: ACTING_POLICY,
                of: &self.policies.acting,
                take: |policy| {
                    let state = policy.state();
                    encoding(|| state.into_record())
                },
                check: model,
            },
            replay: &self.replay,
            environments: ValueOf {
                of: &self.environments,
                encode: Environments::encode,
            },
            progress: ValueOf {
                of: &self.counters,
                encode,
            },
        }
    }
}

/// The parts of a training. Each is read only on request.
pub(super) struct TrainingParts<'t, RLC: RLComponentsTypes, B: Backup<RLC::Env>> {
    agent: RecordOf<'t, RLC::LearningAgent>,
    policy: RecordOf<'t, RLC::LearningAgent>,
    acting_policy: RecordOf<'t, RLC::Policy>,
    replay: &'t ReplayBuffer<RLC::PolicyObs, RLC::PolicyAction>,
    environments: ValueOf<'t, Environments<RLC, B>>,
    progress: ValueOf<'t, Counters>,
}

impl<RLC, B> HasParts for TrainingParts<'_, RLC, B>
where
    RLC: RLComponentsTypes,
    RLC::PolicyObs: super::ReplayItem,
    RLC::PolicyAction: super::ReplayItem,
    B: Backup<RLC::Env>,
{
    fn named_parts(&self) -> Vec<(String, &dyn SavePart)> {
        let parts: [(&str, &dyn SavePart); 6] = [
            (AGENT, &self.agent),
            (POLICY, &self.policy),
            (ACTING_POLICY, &self.acting_policy),
            (REPLAY, self.replay),
            (ENVIRONMENTS, &self.environments),
            (PROGRESS, &self.progress),
        ];
        let named = parts.map(|(name, part)| (name.to_owned(), part));
        named.into()
    }
}
