//! Metrics: the value of each metric in each epoch, logs that continue after a restart, and detection of divergences.

mod history;
mod lag;
mod logs;
mod watch;

pub(crate) use history::{Continued, History, MetricHistory, QueryRecorder};
pub(crate) use logs::{Mark, MetricLogs, OpenLog, Writer};
pub(crate) use watch::{MetricWatch, WatchLogger, WatchMark};
