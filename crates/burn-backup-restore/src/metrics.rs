//! What is measured: the value of each metric in each epoch, the logs that go on after a restart, and a watch for
//! divergence.

mod history;
mod lag;
mod logs;
mod watch;

pub(crate) use history::{Continued, History, MetricHistory, Recall};
pub(crate) use logs::{Mark, MetricLogs, OpenLog, Writer};
pub(crate) use watch::{MetricWatch, WatchLogger, WatchMark};
