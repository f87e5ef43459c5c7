//! Metrics of a hand-written loop, written to Burn's files.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::train::logger::MetricLogger as _;
use burn::train::metric::store::{EpochSummary, MetricsUpdate, NumericMetricUpdate, Split};
use burn::train::metric::{
    MetricAttributes, MetricDefinition, MetricEntry, MetricId, NumericAttributes, NumericEntry,
    SerializedEntry,
};

use crate::metrics::{MetricLogs, Writer};

/// Writes a line for each value that the loop logs.
pub(super) struct MetricLines {
    logs: MetricLogs,
    writer: Writer,
    ids: BTreeMap<String, MetricId>,
}

impl MetricLines {
    pub(super) fn new(logs: MetricLogs) -> Self {
        Self {
            writer: Writer::new(logs.clone()),
            logs,
            ids: BTreeMap::new(),
        }
    }

    /// Logs a value of the metric: the mean of `items` items.
    pub(super) fn log(
        &mut self,
        metric: &str,
        value: f64,
        items: usize,
        epoch: usize,
        split: &Split,
    ) {
        let id = self.id(metric);
        let numeric = NumericEntry::Aggregated {
            aggregated_value: value,
            count: items,
        };
        let serialized = SerializedEntry::new(value.to_string(), numeric.serialize());
        let entry = MetricEntry::new(id, serialized);
        let update = NumericMetricUpdate::new(entry, Some(numeric), None);
        self.logs.expect_calls(1);
        let update = MetricsUpdate::new(Vec::new(), vec![update]);
        self.writer.log(update, epoch, split);
    }

    /// Called when a split of the epoch is over.
    pub(super) fn end_split(&mut self, epoch: usize, split: Split) {
        // If the epoch was resumed after its last batch, this reopens the lines that were logged before.
        let nothing = MetricsUpdate::new(Vec::new(), Vec::new());
        self.logs.expect_calls(2);
        self.writer.log(nothing, epoch, &split);
        self.writer
            .log_epoch_summary(EpochSummary::new(epoch, split));
    }

    fn id(&mut self, metric: &str) -> MetricId {
        if let Some(id) = self.ids.get(metric) {
            return id.clone();
        }
        let name = Arc::new(metric.to_owned());
        let id = MetricId::new(name.clone());
        self.ids.insert(metric.to_owned(), id.clone());
        self.writer.log_metric_definition(MetricDefinition {
            metric_id: id.clone(),
            name,
            description: None,
            attributes: MetricAttributes::Numeric(NumericAttributes {
                unit: None,
                higher_is_better: false,
            }),
        });
        id
    }
}
