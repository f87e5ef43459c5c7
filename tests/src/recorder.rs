use std::sync::{Arc, Mutex};

use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::MetricDefinition;
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};
use burn::train::{Interrupter, LearnerSummary};

/// The calls that a renderer got, in order.
#[derive(Clone, Default)]
pub struct Calls {
    calls: Arc<Mutex<Vec<String>>>,
}

impl Calls {
    /// The calls so far.
    pub fn list(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn add(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    fn add_metric(&self, call: &str, state: &MetricState) {
        let (MetricState::Generic(entry) | MetricState::Numeric(entry, _)) = state;
        let value = &entry.serialized_entry;
        self.add(format!("{call} {} | {}", value.formatted, value.serialized));
    }
}

/// Records every call.
#[derive(Default)]
pub struct RecordingRenderer {
    calls: Calls,
    resets: Option<Interrupter>,
    /// The number of updates of training metrics before the panic, counted down to 0.
    panics_in: Option<usize>,
}

impl RecordingRenderer {
    /// A renderer that writes to `calls`.
    pub fn new(calls: Calls) -> Self {
        Self {
            calls,
            resets: None,
            panics_in: None,
        }
    }

    /// Panics at the update with this number of a training metric, counted from 1. Burn's renderer for
    /// terminals does so when its user kills the training.
    pub fn panicking_at(mut self, update: usize) -> Self {
        self.panics_in = Some(update);
        self
    }

    /// Resets `interrupter` at the training's end, as Burn's renderer for terminals does.
    pub fn resetting(mut self, interrupter: Interrupter) -> Self {
        self.resets = Some(interrupter);
        self
    }
}

impl MetricsRendererTraining for RecordingRenderer {
    fn update_train(&mut self, state: MetricState) {
        if let Some(left) = &mut self.panics_in {
            *left = left.saturating_sub(1);
            assert!(*left > 0, "the test has the renderer panic");
        }
        self.calls.add_metric("update_train", &state);
    }

    fn update_valid(&mut self, state: MetricState) {
        self.calls.add_metric("update_valid", &state);
    }

    fn on_train_end(
        &mut self,
        summary: Option<LearnerSummary>,
    ) -> Result<(), Box<dyn core::error::Error>> {
        if let Some(interrupter) = &self.resets {
            interrupter.reset();
        }
        self.calls.add(match summary {
            Some(summary) => format!("on_train_end {summary}"),
            None => "on_train_end".to_owned(),
        });
        Ok(())
    }
}

impl TrainingProgressLogger for RecordingRenderer {
    fn start(
        &mut self,
        total_epochs: usize,
        starting_epoch: usize,
        total_items: Option<usize>,
        label: Option<&str>,
    ) {
        self.calls.add(format!(
            "start {total_epochs} {starting_epoch} {total_items:?} {label:?}"
        ));
    }

    fn update_epoch(&mut self, epoch: usize) {
        self.calls.add(format!("update_epoch {epoch}"));
    }

    fn start_split(&mut self, split: &str, total_items: usize) {
        self.calls.add(format!("start_split {split} {total_items}"));
    }

    fn update_split(&mut self, items_processed: usize) {
        self.calls.add(format!("update_split {items_processed}"));
    }

    fn end_split(&mut self) {
        self.calls.add("end_split".to_owned());
    }

    fn end(&mut self) {
        self.calls.add("end".to_owned());
    }

    fn log_event_training(&mut self, event: String) {
        self.calls.add(format!("log_event {event}"));
    }
}

impl EvaluationProgressLogger for RecordingRenderer {
    fn start_global_progress(&mut self, _total_tests: usize) {}

    fn start_test(&mut self, _name: &str, _total_items: usize) {}

    fn update_test_progress(&mut self, _items_processed: usize) {}

    fn end_test(&mut self) {}

    fn end_global_progress(&mut self) {}

    fn log_event_evaluation(&mut self, _event: String) {}
}

impl MetricsRendererEvaluation for RecordingRenderer {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}
}

impl MetricsRenderer for RecordingRenderer {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        self.calls
            .add(format!("register_metric {}", definition.name));
    }
}
