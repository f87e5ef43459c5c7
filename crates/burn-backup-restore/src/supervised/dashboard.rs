//! The backup metric on the training's dashboard.

use std::sync::Arc;

use burn::tensor::TensorReadError;
use burn::train::metric::{Metric, MetricMetadata, MetricName, SerializedEntry};

use crate::handle::BackupHandle;

/// The text metric "Backup": the last committed position, when it was saved, and any failure since.
///
/// The metric is shown but not logged, because it says nothing about the training's progress.
#[derive(Clone)]
pub(crate) struct BackupMetric {
    handle: BackupHandle,
}

impl BackupMetric {
    pub(crate) fn new(handle: BackupHandle) -> Self {
        Self { handle }
    }

    fn entry(&self) -> SerializedEntry {
        let nothing_to_log = SerializedEntry::NOT_AVAILABLE.to_owned();
        SerializedEntry::new(self.handle.summary(), nothing_to_log)
    }
}

impl Metric for BackupMetric {
    type Input = ();

    fn name(&self) -> MetricName {
        Arc::new("Backup".to_owned())
    }

    fn description(&self) -> Option<String> {
        Some("Where the training would resume if it ended now".to_owned())
    }

    fn update(
        &mut self,
        _item: &(),
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.entry())
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.entry())
    }

    fn clear(&mut self) {}
}
