//! The training that all measurements watch: no metrics, no logs, nothing on the terminal.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use burn::train::logger::InMemoryMetricLogger;
use burn::train::{Learner, SupervisedTraining};

use crate::feed::Feed;
use crate::model::Stack;
use crate::renderer::Silent;

/// A training of `epochs` epochs, each with a validation of one row, that keeps no checkpoints.
pub fn supervised(dir: &Path, feed: Feed, epochs: usize) -> SupervisedTraining<Stack> {
    let valid = Arc::new(feed.single_row());
    SupervisedTraining::new(dir, Arc::new(feed), valid)
        .num_epochs(epochs)
        .renderer(Box::new(Silent))
        .with_application_logger(None)
        .with_metric_logger(InMemoryMetricLogger::new())
}

/// Launches the training, and is content only if it runs to its end.
pub fn run(training: SupervisedTraining<Stack>, learner: Learner<Stack>) -> Result<()> {
    let result = training.launch(learner);
    if let Some(error) = result.error {
        return Err(error).context("a training failed");
    }
    if let Some(interruption) = result.interrupted {
        bail!("a training was interrupted: {:?}", interruption.reason);
    }
    Ok(())
}
