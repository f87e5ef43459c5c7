//! Learns to balance a pole, with backups. Crash it, run it again, and compare the last line with that of an
//! uninterrupted run.

mod agent;
mod arguments;
mod cart_pole;
mod crash;
mod digest;
mod policy;
mod renderer;
mod rows;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::PoisonError;

use anyhow::Context as _;
use burn::rl::{Environment as _, Policy as _, ToObservation as _};
use burn::tensor::Device;
use burn::train::metric::{
    CumulativeRewardMetric, EpisodeLengthMetric, ExplorationRateMetric, LossMetric,
};
use burn::train::{OffPolicyConfig, RLComponentsMarker, RLResult, RLStrategies, RLTraining};
use burn_backup_restore::rl::{OffPolicy, RlBackupExt as _};
use burn_backup_restore::{BackupAndRestore, Preemption, SaveFreq};
use clap::Parser as _;

use agent::{DqnAgent, LastRecord};
use arguments::Arguments;
use cart_pole::CartPole;
use crash::CrashPoint;
use policy::EpsilonGreedy;
use renderer::EvaluationLines;

fn main() -> anyhow::Result<ExitCode> {
    let log = env_logger::Env::default().default_filter_or("warn");
    env_logger::Builder::from_env(log).init();
    let arguments = Arguments::parse();
    let device = Device::flex();

    let save_freq = arguments.save_freq.map_or(SaveFreq::Epoch, SaveFreq::Steps);
    let backup = BackupAndRestore::new(&arguments.backup_dir)
        .save_freq(save_freq)
        .save_before_preemption(Preemption::signals())
        .seed(SEED);
    let handle = backup.handle();
    let crash = arguments
        .crash_at
        .map(|step| CrashPoint::new(step, handle.clone()));

    device.seed(SEED);
    let last = LastRecord::default();
    let agent = DqnAgent::new(&device, crash, last.clone());
    let config = OffPolicyConfig::new()
        .with_replay_buffer_size(50_000)
        .with_train_batch_size(128)
        .with_warmup_steps(500)
        .with_eval_interval(2_000)
        .with_eval_episodes(3);
    let training =
        RLTraining::<RLComponentsMarker<_, _, _>>::new(&arguments.artifact_dir, CartPole::default)
            .num_steps(arguments.steps)
            .with_inference_device(device.clone())
            .metrics_train((LossMetric::new(),))
            .metrics_agent((ExplorationRateMetric::new(),))
            .metrics_episode((CumulativeRewardMetric::new(), EpisodeLengthMetric::new()))
            .renderer(Box::new(EvaluationLines::default()))
            .with_application_logger(None);
    let training = match arguments.no_backup {
        true => training.with_learning_strategy(RLStrategies::OffPolicyStrategy(config)),
        false => {
            training.backup_and_restore(backup, OffPolicy::new(config).resumable_environments())
        }
    };
    let RLResult {
        policy,
        renderer,
        interrupted,
        error,
    } = training.launch(agent);

    drop(renderer);
    // The error itself is on the standard error.
    anyhow::ensure!(error.is_none(), "the training ended with an error");
    let mut output = io::stdout().lock();
    if let Some(interruption) = interrupted {
        let reason = interruption.reason.unwrap_or_default();
        let saved = handle.stopped_at();
        anyhow::ensure!(saved.is_some(), "the training was interrupted: {reason}");
        writeln!(output, "interrupted: {reason}")?;
        writeln!(output, "run it again to go on from there")?;
        return Ok(ExitCode::from(handle.exit_code()));
    }
    let steps = balanced_for(policy.clone(), &device);
    writeln!(output, "the pole was balanced for {steps} steps of 500")?;
    let record = last.lock().unwrap_or_else(PoisonError::into_inner).take();
    let record = record.context("the agent is still there")?;
    let digest = digest::of(policy.state(), record)?;
    writeln!(output, "digest of the weights: {digest}")?;
    Ok(ExitCode::SUCCESS)
}

/// How long the policy balances a pole that leans a little.
fn balanced_for(mut policy: EpsilonGreedy, device: &Device) -> usize {
    let mut environment = CartPole::leaning();
    for step in 1.. {
        let observation = environment.state().to_observation(device);
        let (action, _) = policy.action(observation, true);
        let result = environment.step(action.into());
        if result.done || result.truncated {
            return step;
        }
    }
    0
}

/// The seed of the initial weights, and of all random numbers of the steps.
const SEED: u64 = 42;
