//! Opens the backup directory, and builds a training from the restored parts.

use std::borrow::Borrow;

use burn::rl::{
    Environment as _, EnvironmentInit as _, Policy as _, PolicyLearner, PolicyState as _,
};
use burn::tensor::Device;
use burn::train::{OffPolicyConfig, RLComponentsTypes};

use super::counters::Counters;
use super::draws::Drawing;
use super::environment::sealed::Backup;
use super::environments::{EnvironmentsSlot, SavedEnvironments};
use super::off_policy_loop::reseed;
use super::record::{Check, RecordSlot};
use super::replay_buffer::ReplayBuffer;
use super::replay_item::ReplayItem;
use super::training::{
    ACTING_POLICY, AGENT, ENVIRONMENTS, Environments, POLICY, PROGRESS, Policies, REPLAY, Training,
};
use crate::error::BackupError;
use crate::messages::announce;
use crate::panics::attempt;
use crate::parts::Value;
use crate::resume::{LoadPart, PartsMut};
use crate::seed;
use crate::session::{Context, Core, NoMetrics};
use crate::settings::{BackupAndRestore, taken};

/// The program's settings for a training.
pub(super) struct TrainingInputs<'g, RLC: RLComponentsTypes> {
    pub settings: &'g BackupAndRestore,
    pub config: &'g OffPolicyConfig,
    /// The step of Burn's own checkpoint that the training continues, if any.
    pub checkpoint: Option<usize>,
    pub environment: &'g RLC::EnvInit,
    /// The device on which the policy acts.
    pub device: Device,
}

/// Opens the backup directory, and restores the newest backup, if any.
pub(super) fn open<RLC, B>(
    given: &TrainingInputs<'_, RLC>,
    agent: RLC::LearningAgent,
    context: Context,
) -> Result<(Core, Training<RLC, B>), BackupError>
where
    RLC: RLComponentsTypes,
    RLC::PolicyObs: ReplayItem,
    RLC::PolicyAction: ReplayItem,
    B: Backup<RLC::Env>,
{
    let settings = given.settings;
    load(given, agent, |parts| {
        let states = taken(&settings.states).unwrap_or_default();
        Core::open(settings, states, parts, context)
    })
}

/// Restores everything that a training changes from a backup before a divergence.
pub(super) fn roll_back<RLC, B>(
    given: &TrainingInputs<'_, RLC>,
    training: Training<RLC, B>,
    core: &mut Core,
) -> Result<Training<RLC, B>, BackupError>
where
    RLC: RLComponentsTypes,
    RLC::PolicyObs: ReplayItem,
    RLC::PolicyAction: ReplayItem,
    B: Backup<RLC::Env>,
{
    let loaded = load(given, training.agent, |parts| {
        core.roll_back(parts, &mut NoMetrics, Vec::new())?;
        Ok(&*core)
    });
    loaded.map(|(_core, training)| training)
}

/// Restores the parts of a training with `restore`, and builds a training from them.
fn load<RLC, B, C>(
    given: &TrainingInputs<'_, RLC>,
    mut agent: RLC::LearningAgent,
    restore: impl FnOnce(PartsMut<'_>) -> Result<C, BackupError>,
) -> Result<(C, Training<RLC, B>), BackupError>
where
    RLC: RLComponentsTypes,
    RLC::PolicyObs: ReplayItem,
    RLC::PolicyAction: ReplayItem,
    B: Backup<RLC::Env>,
    C: Borrow<Core>,
{
    let TrainingInputs {
        settings,
        config,
        checkpoint,
        environment,
        device,
    } = given;
    let model = Check::Model {
        refuse_nan: settings.refuse_nan,
    };
    let policy = || agent.policy().state().into_record();
    let mut agent_record = RecordSlot::new(AGENT, agent.record(), Check::Nothing);
    let mut policy_record = RecordSlot::new(POLICY, policy(), model);
    let mut acting_record = RecordSlot::new(ACTING_POLICY, policy(), model);
    let mut replay = ReplayBuffer::new(config.replay_buffer_size);
    let mut environments = EnvironmentsSlot::<B::Saved> {
        expected: config.num_envs,
        loaded: None,
    };
    let mut counters = Value(Counters::new(config, *checkpoint));
    let parts: [(&str, &mut dyn LoadPart); 6] = [
        (AGENT, &mut agent_record),
        (POLICY, &mut policy_record),
        (ACTING_POLICY, &mut acting_record),
        (REPLAY, &mut replay),
        (ENVIRONMENTS, &mut environments),
        (PROGRESS, &mut counters),
    ];
    let parts: PartsMut<'_> = parts.map(|(name, part)| (name.to_owned(), part)).into();
    let restored = restore(parts)?;
    let core: &Core = restored.borrow();

    // Loading an agent or a policy runs the program's code, which may panic.
    let loaded = attempt(|| {
        if let Some(record) = agent_record.into_loaded() {
            agent = agent.load_record(record);
        }
        if let Some(record) = policy_record.into_loaded() {
            let policy = agent.policy().load_record(record);
            agent.update_policy(policy);
        }
        let mut acting = agent.policy();
        if let Some(record) = acting_record.into_loaded() {
            acting = acting.load_record(record);
        }
        Ok((agent, acting.to_device(device)))
    });
    let (agent, acting) = loaded.map_err(|error| match error {
        BackupError::Panicked { message } => BackupError::RestorePanicked {
            path: settings.backup_dir.clone(),
            message,
        },
        other => other,
    })?;
    let Value(mut counters) = counters;
    if core.progress.is_restored() {
        for (name, before, now) in counters.change_configuration(config) {
            announce(&format!(
                "OffPolicyConfig::{name} was {before} when the backup was made, and is {now} now: \
                 the training continues with {now}"
            ));
        }
        if !B::IS_EXACT {
            counters.episodes.clear();
        }
        counters
            .episodes
            .resize_with(config.num_envs, Default::default);
    }
    let next = (counters.train_steps > 0).then(|| agent.policy().state());
    let environments = make_environments::<RLC, B>(
        environment,
        config.num_envs,
        environments.loaded,
        core.progress.run_seed(),
        settings.reseed_steps.then_some(device),
    );
    let training = Training {
        agent,
        policies: Policies {
            acting,
            next,
            device: device.clone(),
        },
        replay,
        environments,
        counters,
        refuse_nan: settings.refuse_nan,
    };
    Ok((restored, training))
}

fn make_environments<RLC: RLComponentsTypes, B: Backup<RLC::Env>>(
    init: &RLC::EnvInit,
    count: usize,
    saved: Option<SavedEnvironments<B::Saved>>,
    run_seed: u64,
    seeded: Option<&Device>,
) -> Environments<RLC, B> {
    let make = |index| {
        let seed = seed::of_environment(run_seed, index);
        if let Some(device) = seeded {
            reseed(device, seed, true);
        }
        let _drawing = Drawing::from_seed(seed);
        let mut environment = init.init();
        environment.reset();
        environment
    };
    let mut training: Vec<_> = (0..count).map(make).collect();
    let mut evaluation = make(count);
    if let Some(saved) = saved {
        for (environment, saved) in training.iter_mut().zip(saved.training) {
            B::load(environment, saved);
        }
        B::load(&mut evaluation, saved.evaluation);
    }
    Environments {
        training,
        evaluation,
        episode_start: None,
    }
}
