use burn::train::checkpoint::{CheckpointingAction, CheckpointingStrategy};
use burn::train::metric::store::EventStoreClient;

use super::MetricHistory;

/// A checkpointing strategy that makes the same decisions after a restart as without one. It repeats its past
/// decisions, but their actions are dropped, because they were already carried out.
pub(crate) struct Continued {
    strategy: Box<dyn CheckpointingStrategy>,
    metric_history: MetricHistory,
    is_caught_up: bool,
}

impl Continued {
    pub(crate) fn new(
        strategy: Box<dyn CheckpointingStrategy>,
        metric_history: MetricHistory,
    ) -> Self {
        Self {
            strategy,
            metric_history,
            is_caught_up: false,
        }
    }
}

impl CheckpointingStrategy for Continued {
    fn checkpointing(
        &mut self,
        epoch: usize,
        store: &EventStoreClient,
    ) -> Vec<CheckpointingAction> {
        self.metric_history.note_continued_checkpoints();
        if !std::mem::replace(&mut self.is_caught_up, true) {
            for past in self.metric_history.past() {
                self.metric_history.hide_after(past);
                drop(self.strategy.checkpointing(past, store));
            }
            self.metric_history.hide_after(epoch);
        }
        self.strategy.checkpointing(epoch, store)
    }
}
