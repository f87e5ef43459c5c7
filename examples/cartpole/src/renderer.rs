//! One line for each evaluation.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write as _};

use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{MetricDefinition, MetricId};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};

/// Prints the metrics of each evaluation's last episode.
#[derive(Default)]
pub struct EvaluationLines {
    names: HashMap<MetricId, String>,
    valid: BTreeMap<String, String>,
    step: usize,
    is_evaluating: bool,
}

impl MetricsRendererTraining for EvaluationLines {
    fn update_train(&mut self, _state: MetricState) {}

    fn update_valid(&mut self, state: MetricState) {
        if let MetricState::Numeric(entry, _) = state
            && let Some(name) = self.names.get(&entry.metric_id)
        {
            let logged = entry.serialized_entry.serialized;
            self.valid.insert(name.clone(), logged);
        }
    }
}

impl TrainingProgressLogger for EvaluationLines {
    fn start(
        &mut self,
        _total_epochs: usize,
        _starting_epoch: usize,
        _total_items: Option<usize>,
        _label: Option<&str>,
    ) {
    }

    fn update_epoch(&mut self, _epoch: usize) {}

    fn start_split(&mut self, _split: &str, _total_items: usize) {
        self.is_evaluating = true;
    }

    fn update_split(&mut self, items_processed: usize) {
        if !self.is_evaluating {
            self.step = items_processed;
        }
    }

    fn end_split(&mut self) {
        self.is_evaluating = false;
        let metrics: Vec<_> = self
            .valid
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        // The training goes on if nobody reads it any more.
        let _ = writeln!(io::stdout(), "step {}, {}", self.step, metrics.join("; "));
    }

    fn end(&mut self) {}

    fn log_event_training(&mut self, _event: String) {}
}

impl EvaluationProgressLogger for EvaluationLines {
    fn start_global_progress(&mut self, _total_tests: usize) {}

    fn start_test(&mut self, _name: &str, _total_items: usize) {}

    fn update_test_progress(&mut self, _items_processed: usize) {}

    fn end_test(&mut self) {}

    fn end_global_progress(&mut self) {}

    fn log_event_evaluation(&mut self, _event: String) {}
}

impl MetricsRendererEvaluation for EvaluationLines {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}
}

impl MetricsRenderer for EvaluationLines {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        self.names
            .insert(definition.metric_id, definition.name.to_string());
    }
}
