//! A program that learns in the world, and its result.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::rl::{EnvironmentInit, Policy as _};
use burn::tensor::Device;
use burn::train::logger::InMemoryMetricLogger;
use burn::train::metric::{
    CumulativeRewardMetric, EpisodeLengthMetric, ExplorationRateMetric, LossMetric,
};
use burn::train::{
    Interrupter, Interruption, OffPolicyConfig, RLComponentsMarker, RLStrategies, RLTraining,
    TrainingError,
};
use burn_backup_restore::rl::{OffPolicy, RlBackupExt as _};
use burn_backup_restore::{BackupAndRestore, BackupError, BackupHandle};
use burn_backup_tests::{Calls, Record, RecordingRenderer, named};

use super::world::{Halt, Halter, Learned, Learner, Walk};

type Components<I> = RLComponentsMarker<Walk, I, Learner>;

/// A program that is the same each time it is run.
#[derive(Clone)]
pub struct Program {
    pub config: OffPolicyConfig,
    pub num_steps: usize,
    /// Whether the environments are saved.
    pub is_exact: bool,
    /// Whether each episode has five steps.
    pub is_even: bool,
    /// Whether losses are measured, and the values by which actions are chosen. Both differ in Burn's loop,
    /// because it draws other transitions and acts one step ahead.
    pub measures_values: bool,
    /// How many zeros an observation has in addition to the observed values.
    pub padding: usize,
    /// The units of the network.
    pub hidden: usize,
    /// The training that gives NaN, counted from 1 in the process.
    pub nan_at: Option<usize>,
    /// The training in which the user stops it.
    pub stop_at: Option<usize>,
}

/// The result of a run.
pub struct Run {
    pub policy: Record,
    pub learned: Learned,
    /// The calls of the renderer.
    pub calls: Vec<String>,
    /// Steps in all environments.
    pub steps: usize,
    pub error: Option<Arc<TrainingError>>,
    pub interrupted: Option<Interruption>,
    pub handle: BackupHandle,
}

impl Default for Program {
    fn default() -> Self {
        Self {
            config: OffPolicyConfig::new()
                .with_replay_buffer_size(24)
                .with_train_interval(3)
                .with_train_steps(2)
                .with_train_batch_size(8)
                .with_warmup_steps(9)
                .with_eval_interval(11)
                .with_eval_episodes(2),
            num_steps: 36,
            is_exact: true,
            is_even: false,
            measures_values: true,
            padding: 0,
            hidden: 6,
            nan_at: None,
            stop_at: None,
        }
    }
}

/// A backup after each step, with a fixed seed.
pub fn backup(dir: &Path) -> BackupAndRestore {
    BackupAndRestore::new(dir).save_freq(1).seed(5)
}

impl Program {
    pub fn run(&self, backup: BackupAndRestore, halt: Halt) -> Run {
        let handle = backup.handle();
        let strategy = OffPolicy::new(self.config.clone());
        let interrupter = Interrupter::new();
        let halter = halter(halt, &interrupter);
        let init = self.init(halter.clone());
        let training = RLTraining::<Components<_>>::new("unused", init);
        let training = training.num_steps(self.num_steps);
        let training = match self.is_exact {
            true => training.backup_and_restore(backup, strategy.resumable_environments()),
            false => training.backup_and_restore(backup, strategy),
        };
        self.launch(training, interrupter, halter.steps, handle)
    }

    /// The same with Burn's own loop.
    pub fn run_burns(&self) -> Run {
        let interrupter = Interrupter::new();
        let halter = halter(Halt::Never, &interrupter);
        let init = self.init(halter.clone());
        let training = RLTraining::<Components<_>>::new("unused", init)
            .num_steps(self.num_steps)
            .with_learning_strategy(RLStrategies::OffPolicyStrategy(self.config.clone()));
        let handle = BackupAndRestore::new("unused").handle();
        self.launch(training, interrupter, halter.steps, handle)
    }

    fn init(&self, halter: Halter) -> impl Fn() -> Walk + Clone + Send + 'static {
        let (is_even, padding) = (self.is_even, self.padding);
        move || Walk::new(is_even, padding, halter.clone())
    }

    fn launch<I>(
        &self,
        training: RLTraining<Components<I>>,
        interrupter: Interrupter,
        steps: Arc<AtomicUsize>,
        handle: BackupHandle,
    ) -> Run
    where
        I: EnvironmentInit<Walk> + Send + 'static,
    {
        let device = Device::flex();
        let mut learner = Learner::new(self.hidden, &device);
        learner.nan_at = self.nan_at;
        learner.reports_values = self.measures_values;
        learner.stop_at = self.stop_at.map(|at| (at, interrupter.clone()));
        let learned = learner.learned.clone();
        let calls = Calls::default();
        let mut training = training
            .with_inference_device(device)
            .with_interrupter(interrupter)
            .with_application_logger(None)
            .with_metric_logger(InMemoryMetricLogger::default())
            .renderer(Box::new(RecordingRenderer::new(calls.clone())))
            .metrics_agent((ExplorationRateMetric::new(),))
            .metrics_episode((CumulativeRewardMetric::new(), EpisodeLengthMetric::new()));
        if self.measures_values {
            training = training.metrics_train((LossMetric::new(),));
        }
        let result = training.launch(learner);
        drop(result.renderer);
        let policy = result.policy.state();
        let policy = burn::rl::PolicyState::into_record(policy);
        let learned = learned.lock().unwrap().clone();
        Run {
            policy: named(policy.into_bytes().unwrap()),
            learned,
            calls: calls.list(),
            steps: steps.load(Ordering::Relaxed),
            error: result.error,
            interrupted: result.interrupted,
            handle,
        }
    }
}

fn halter(halt: Halt, interrupter: &Interrupter) -> Halter {
    Halter {
        halt,
        interrupter: interrupter.clone(),
        steps: Arc::default(),
    }
}

impl Run {
    /// The error of this crate that ended the run.
    #[track_caller]
    pub fn backup_error(&self) -> &BackupError {
        let error = self.error.as_deref().unwrap();
        BackupError::find(error).unwrap()
    }

    /// The logged values, in order. The mean that is shown beside each of them restarts in each run.
    pub fn logged(&self) -> Vec<&str> {
        let calls = self.calls.iter();
        let updates = calls
            .filter(|call| call.starts_with("update_train ") || call.starts_with("update_valid "));
        let logged = updates.filter_map(|call| call.split_once(" | "));
        logged.map(|(_shown, logged)| logged).collect()
    }
}
