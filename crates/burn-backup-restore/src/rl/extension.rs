use std::sync::Arc;

use burn::train::logger::FileMetricLogger;
use burn::train::{RLComponentsTypes, RLStrategies, RLTraining};

use super::environment::EnvironmentBackup;
use super::off_policy::OffPolicy;
use super::replay_item::ReplayItem;
use super::strategy::BackupStrategy;
use crate::metrics::WatchLogger;
use crate::session::watch_of;
use crate::settings::BackupAndRestore;

/// Adds `backup_and_restore` to Burn's [`RLTraining`]. This trait is sealed.
///
/// # Example
///
/// ```no_run
/// use burn::rl::SliceAccess;
/// use burn::train::{OffPolicyConfig, RLComponentsTypes, RLResult, RLTraining};
/// use burn_backup_restore::BackupAndRestore;
/// use burn_backup_restore::rl::{OffPolicy, ReplayItem, ResumableEnvironment, RlBackupExt as _};
///
/// # fn run<C: RLComponentsTypes + 'static>(
/// #     training: RLTraining<C>,
/// #     agent: C::LearningAgent,
/// # ) -> RLResult<C::Policy>
/// # where
/// #     C::Env: ResumableEnvironment,
/// #     C::PolicyObs: ReplayItem + SliceAccess,
/// #     C::PolicyAction: ReplayItem + SliceAccess,
/// # {
/// let config = OffPolicyConfig::new().with_replay_buffer_size(50_000);
/// training // RLTraining::new("artifacts", CartPole::new)
///     .num_steps(100_000)
///     .backup_and_restore(
///         BackupAndRestore::new("backup").save_freq(1000),
///         OffPolicy::new(config).resumable_environments(),
///     )
///     .launch(agent)
/// # }
/// ```
pub trait RlBackupExt<RLC: RLComponentsTypes>: sealed::Sealed {
    /// Backs up the training while it runs. When the program runs again, the training resumes at the
    /// step after its newest backup.
    /// Replaces the builder's learning strategy with `strategy`.
    fn backup_and_restore<B: EnvironmentBackup<RLC::Env>>(
        self,
        backup: BackupAndRestore,
        strategy: OffPolicy<B>,
    ) -> Self;
}

mod sealed {
    pub trait Sealed {}
}

impl<RLC: RLComponentsTypes + 'static> sealed::Sealed for RLTraining<RLC> {}

impl<RLC> RlBackupExt<RLC> for RLTraining<RLC>
where
    RLC: RLComponentsTypes + 'static,
    RLC::PolicyObs: ReplayItem,
    RLC::PolicyAction: ReplayItem,
{
    fn backup_and_restore<B: EnvironmentBackup<RLC::Env>>(
        self,
        backup: BackupAndRestore,
        strategy: OffPolicy<B>,
    ) -> Self {
        let mut training = self;
        let mut watch = None;
        if let Some(logs) = &backup.metric_logs
            && backup.divergence.watches()
        {
            let watching = watch.insert(watch_of(&backup));
            // Burn adds its own logger only if there is none.
            training = training
                .with_metric_logger(FileMetricLogger::new(logs))
                .with_metric_logger(WatchLogger::new(watching.clone()));
        }
        let strategy = Arc::new(BackupStrategy::new(backup, strategy, watch));
        training.with_learning_strategy(RLStrategies::Custom(strategy))
    }
}
