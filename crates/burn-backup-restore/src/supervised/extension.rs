use std::sync::Arc;

use burn::train::checkpoint::{
    CheckpointingStrategy, ComposedCheckpointingStrategy, KeepLastNCheckpoints,
    MetricCheckpointingStrategy,
};
use burn::train::metric::LossMetric;
use burn::train::metric::store::{Aggregate, Direction, Split};
use burn::train::{LearnerModel, SupervisedTraining, TrainingStrategy};

use super::dashboard::BackupMetric;
use super::strategy::{BackupStrategy, Registered};
use crate::metrics::{Continued, MetricHistory};
use crate::metrics::{MetricLogs, WatchLogger, Writer};
use crate::session::watch_of;
use crate::settings::{BackupAndRestore, taken};

/// Adds `backup_and_restore` to Burn's [`SupervisedTraining`]. This trait is sealed.
pub trait BackupExt: sealed::Sealed {
    /// Backs up the training while it runs. When the program runs again, the training resumes at
    /// the batch after its newest backup. Replaces the builder's training strategy, and with
    /// [`checkpointing_strategy`](BackupAndRestore::checkpointing_strategy) its checkpointing
    /// strategy.
    fn backup_and_restore(self, backup: BackupAndRestore) -> Self;
}

mod sealed {
    pub trait Sealed {}
}

impl<M: LearnerModel> sealed::Sealed for SupervisedTraining<M> {}

impl<M: LearnerModel> BackupExt for SupervisedTraining<M> {
    fn backup_and_restore(mut self, mut backup: BackupAndRestore) -> Self {
        let metric_history = MetricHistory::default();
        let metric_logs = backup.metric_logs.take();
        let metric_logs = metric_logs.map(|dir| MetricLogs::new(dir, metric_history.clone()));
        if let Some(logs) = &metric_logs {
            self = self.with_metric_logger(Writer::new(logs.clone()));
        }
        // Burn adds its own logger only if none is registered, so register this one only beside another one.
        let watches = backup.divergence.watches() && metric_logs.is_some();
        let watch = watches.then(|| watch_of(&backup));
        if let Some(watch) = &watch {
            self = self.with_metric_logger(WatchLogger::new(watch.clone()));
        }
        let checkpointing = taken(&backup.checkpointing);
        let has_checkpointing_strategy = checkpointing.is_some();
        if backup.has_artifacts {
            self = self.summary();
        }
        let default = || backup.has_artifacts.then(default_checkpointing);
        if let Some(strategy) = checkpointing.or_else(default) {
            let continued = Continued::new(strategy, metric_history.clone());
            self = self.with_checkpointing_strategy(continued);
        }
        if backup.dashboard {
            // A validation metric would show an outdated backup during the whole next epoch.
            self = self.metric_train(BackupMetric::new(backup.handle()));
        }
        let registered = Registered {
            metric_history,
            metric_logs,
            watch,
            has_checkpointing_strategy,
        };
        let strategy = Arc::new(BackupStrategy::new(backup, registered));
        self.with_training_strategy(TrainingStrategy::Custom(strategy))
    }
}

/// The default strategy, as in Burn's `SupervisedTraining::new`.
fn default_checkpointing() -> Box<dyn CheckpointingStrategy> {
    let best = MetricCheckpointingStrategy::new(
        &LossMetric::new(),
        Aggregate::Mean,
        Direction::Lowest,
        Split::Valid,
    );
    let strategy = ComposedCheckpointingStrategy::builder()
        .add(KeepLastNCheckpoints::new(2))
        .add(best)
        .build();
    Box::new(strategy)
}
