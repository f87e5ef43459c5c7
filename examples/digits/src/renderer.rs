//! One line for each epoch.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write as _};

use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{MetricDefinition, MetricId};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};

/// Prints the validation metrics at the end of each epoch.
#[derive(Default)]
pub struct EpochLines {
    names: HashMap<MetricId, String>,
    valid: BTreeMap<String, String>,
    total_epochs: usize,
}

impl MetricsRendererTraining for EpochLines {
    fn update_train(&mut self, _state: MetricState) {}

    fn update_valid(&mut self, state: MetricState) {
        // The metric of the backups is for dashboards.
        if let MetricState::Numeric(entry, _) = state
            && let Some(name) = self.names.get(&entry.metric_id)
        {
            self.valid
                .insert(name.clone(), entry.serialized_entry.formatted);
        }
    }
}

impl TrainingProgressLogger for EpochLines {
    fn start(
        &mut self,
        total_epochs: usize,
        _starting_epoch: usize,
        _total_items: Option<usize>,
        _label: Option<&str>,
    ) {
        self.total_epochs = total_epochs;
    }

    fn update_epoch(&mut self, epoch: usize) {
        let metrics: Vec<_> = self
            .valid
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        // The training continues even if nobody reads the output.
        let _ = writeln!(
            io::stdout(),
            "epoch {epoch} of {}, validation: {}",
            self.total_epochs,
            metrics.join("; ")
        );
    }

    fn start_split(&mut self, _split: &str, _total_items: usize) {}

    fn update_split(&mut self, _items_processed: usize) {}

    fn end_split(&mut self) {}

    fn end(&mut self) {}

    fn log_event_training(&mut self, _event: String) {}
}

impl EvaluationProgressLogger for EpochLines {
    fn start_global_progress(&mut self, _total_tests: usize) {}

    fn start_test(&mut self, _name: &str, _total_items: usize) {}

    fn update_test_progress(&mut self, _items_processed: usize) {}

    fn end_test(&mut self) {}

    fn end_global_progress(&mut self) {}

    fn log_event_evaluation(&mut self, _event: String) {}
}

impl MetricsRendererEvaluation for EpochLines {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}
}

impl MetricsRenderer for EpochLines {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        self.names
            .insert(definition.metric_id, definition.name.to_string());
    }
}
