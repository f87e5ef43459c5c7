//! One line for each evaluation.

use std::io::{self, Write as _};

use burn::rl::Environment as _;
use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{EpisodeLengthMetric, Metric as _, MetricDefinition, MetricId};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};

use crate::cart_pole::CartPole;

/// Prints how long the episodes of each evaluation were.
#[derive(Default)]
pub struct EvaluationLines {
    episode_length: Option<MetricId>,
    lengths: Vec<String>,
    episodes: usize,
    step: usize,
    is_evaluating: bool,
}

impl MetricsRendererTraining for EvaluationLines {
    fn update_train(&mut self, _state: MetricState) {}

    fn update_valid(&mut self, state: MetricState) {
        if let MetricState::Numeric(entry, Some(length)) = state
            && self.episode_length.as_ref() == Some(&entry.metric_id)
        {
            self.lengths.push(length.current().to_string());
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

    fn start_split(&mut self, _split: &str, total_items: usize) {
        self.is_evaluating = true;
        self.episodes = total_items;
    }

    fn update_split(&mut self, items_processed: usize) {
        if !self.is_evaluating {
            self.step = items_processed;
        }
    }

    fn end_split(&mut self) {
        self.is_evaluating = false;
        let mut lengths = std::mem::take(&mut self.lengths);
        // Burn does not get the end of an episode in which the pole never fell.
        lengths.resize(self.episodes, CartPole::MAX_STEPS.to_string());
        let lengths = lengths.join(", ");
        // The training continues even if nobody reads the output.
        let _ = writeln!(
            io::stdout(),
            "step {}: the pole was balanced for {lengths} steps",
            self.step
        );
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
        if definition.name == EpisodeLengthMetric::new().name() {
            self.episode_length = Some(definition.metric_id);
        }
    }
}
