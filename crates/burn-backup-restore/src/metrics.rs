//! What is measured: what each metric came to, and the logs that go on after a restart.

mod history;
mod logs;

pub(crate) use history::{Continued, History, MetricHistory, Recall};
pub(crate) use logs::{Mark, MetricLogs, OpenLog, Writer};
