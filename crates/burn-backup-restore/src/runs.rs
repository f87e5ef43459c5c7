//! The history of the processes that ran a training.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::position::Position;

/// A backup lists at most this many of the latest processes.
const MAX_RUNS: usize = 1000;

/// In this environment variable a supervisor passes on how the program ended before.
const LAST_END: &str = "BURN_BACKUP_LAST_END";

/// A process that has run the training, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The start time, by the clock of the process's machine.
    pub began: Timestamp,
    /// The position at which it resumed the training; `None` if it started a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Position>,
    /// The name of its machine.
    pub host: String,
    /// The process ID.
    pub process: u32,
    /// Its backup frequency, in words.
    #[serde(default)]
    pub frequency: String,
    /// How the process ended, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

/// Records that this process now runs the training, with this backup frequency.
pub(crate) fn begin(runs: &mut Vec<Run>, from: Option<Position>, frequency: String) {
    if let Some(last) = runs.last_mut()
        && last.ended.is_none()
    {
        last.ended = std::env::var(LAST_END).ok().filter(|end| !end.is_empty());
    }
    runs.push(Run {
        began: Timestamp::now(),
        from,
        host: host(),
        process: std::process::id(),
        frequency,
        ended: None,
    });
    let surplus = runs.len().saturating_sub(MAX_RUNS);
    runs.drain(..surplus);
}

/// Records that this process ends the training in an orderly way, and why.
pub(crate) fn end(runs: &mut [Run], how: &str) {
    if let Some(last) = runs.last_mut() {
        last.ended = Some(how.to_owned());
    }
}

fn host() -> String {
    let from_kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let named = |name: String| Some(name.trim().to_owned()).filter(|name| !name.is_empty());
    let variable = |name| std::env::var(name).ok();
    from_kernel
        .and_then(named)
        .or_else(|| variable("HOSTNAME").and_then(named))
        .or_else(|| variable("COMPUTERNAME").and_then(named))
        .unwrap_or_else(|| "an unknown machine".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_is_noted_and_the_last_thousand_are_kept() {
        let mut runs = Vec::new();
        let begin = |runs: &mut _, from| begin(runs, from, "after each epoch".to_owned());
        begin(&mut runs, None);
        end(&mut runs, "stopped");
        let position = Position::start_of(3);
        for _ in 0..MAX_RUNS {
            begin(&mut runs, Some(position));
        }
        assert_eq!(runs.len(), MAX_RUNS);
        assert!(runs.iter().all(|run| run.from == Some(position)));
        assert!(runs.iter().all(|run| run.process == std::process::id()));
        end(&mut runs, "SIGTERM");
        assert_eq!(runs.last().unwrap().ended.as_deref(), Some("SIGTERM"));
        begin(&mut runs, Some(position));
        let ended: Vec<_> = runs.iter().rev().take(3).map(|run| &run.ended).collect();
        assert_eq!(ended, [&None, &Some("SIGTERM".to_owned()), &None]);
    }
}
