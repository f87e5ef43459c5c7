//! The training that all measurements use, without metrics, logs, and output on the terminal.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use burn::train::logger::InMemoryMetricLogger;
use burn::train::{Learner, SupervisedTraining};

use crate::feed::Feed;
use crate::model::Stack;
use crate::renderer::Silent;

/// A training of `epochs` epochs without checkpoints. Each epoch has a validation of one row.
pub fn supervised(dir: &Path, feed: Feed, epochs: usize) -> SupervisedTraining<Stack> {
    let valid = Arc::new(feed.single_row());
    SupervisedTraining::new(dir, Arc::new(feed), valid)
        .num_epochs(epochs)
        .renderer(Box::new(Silent))
        .with_application_logger(None)
        .with_metric_logger(InMemoryMetricLogger::new())
}

/// Launches the training. Returns an error unless it finishes.
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
