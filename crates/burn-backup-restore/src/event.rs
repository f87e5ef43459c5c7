use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::error::BackupError;
use crate::outcome::Outcome;
use crate::position::Position;

/// What happens to a training's backups, for [`on_event`](crate::BackupAndRestore::on_event).
///
/// As JSON, the field `event` has the variant's name in snake case, durations are in seconds, and times are in
/// RFC 3339.
///
/// # Example
///
/// ```
/// use burn_backup_restore::{BackupAndRestore, Event};
///
/// let backup = BackupAndRestore::new("backup").on_event(|event| {
///     if let Event::Failed { failures, error, .. } = &event {
///         log::warn!("{failures} backups have failed in a row, the last one with: {error}");
///     }
/// });
/// ```
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The training was restored, and goes on there.
    #[non_exhaustive]
    Restored {
        /// Where it goes on.
        position: Position,
        /// The backup's number.
        generation: u64,
        /// How large it is.
        bytes: u64,
        /// How old it is, by the clock of this machine.
        #[serde(serialize_with = "seconds")]
        age: Duration,
        /// How long it took to find, fetch, verify and restore it.
        #[serde(serialize_with = "seconds")]
        took: Duration,
    },
    /// A backup is on the disk: this is what would be restored.
    #[non_exhaustive]
    Committed {
        /// Of which moment it is.
        position: Position,
        /// The backup's number.
        generation: u64,
        /// How large it is.
        bytes: u64,
        /// How many of the bytes are linked to the backup before.
        linked: u64,
        /// How long it took from the snapshot on.
        #[serde(serialize_with = "seconds")]
        took: Duration,
    },
    /// A backup has failed. The last good one stays, and the training goes on.
    #[non_exhaustive]
    Failed {
        /// Why, with all causes.
        error: String,
        /// How many have failed since the last one that was committed, with this one.
        failures: u64,
        /// The error itself.
        #[serde(skip)]
        cause: Arc<BackupError>,
    },
    /// A backup was refused because the model holds NaN.
    #[non_exhaustive]
    Refused {
        /// Which parameters.
        error: String,
        /// How many have failed since the last one that was committed, with this one.
        failures: u64,
        /// The error itself.
        #[serde(skip)]
        cause: Arc<BackupError>,
    },
    /// A notice of a preemption has come.
    #[non_exhaustive]
    Noticed {
        /// What it is about: "SIGTERM".
        reason: String,
        /// When the end comes, if the notice says so.
        #[serde(serialize_with = "time")]
        deadline: Option<SystemTime>,
    },
    /// The training went back to its last good backup, without leaving the process.
    #[non_exhaustive]
    RolledBack {
        /// Where it was.
        from: Position,
        /// Where it goes on.
        to: Position,
        /// Which batches it leaves out now, as global steps.
        skipped: Vec<u64>,
        /// Which rollback of the training this is, counted from 1.
        attempt: u32,
    },
    /// A backup is whole in the mirror.
    #[non_exhaustive]
    Mirrored {
        /// Of which moment it is, if this process knows.
        position: Option<Position>,
        /// The backup's number.
        generation: u64,
    },
    /// A backup could not be mirrored. It is tried again, which is told only once it works.
    #[non_exhaustive]
    MirrorFailed {
        /// Why, with all causes.
        error: String,
    },
    /// Nothing is mirrored any more.
    #[non_exhaustive]
    MirrorStopped {
        /// Why, with all causes.
        error: String,
    },
    /// The training has given no sign of life for much longer than its steps and validations took so far. It is told
    /// once, until the next sign of life.
    #[non_exhaustive]
    Hung {
        /// Where it is; `None` before the first batch.
        position: Option<Position>,
        /// How long there was none.
        #[serde(serialize_with = "seconds")]
        silent: Duration,
        /// What was too long.
        #[serde(serialize_with = "seconds")]
        limit: Duration,
    },
    /// Events were dropped here, because the callback is slower than they come.
    #[non_exhaustive]
    Dropped {
        /// How many.
        events: u64,
    },
    /// The training has ended. This is the last event.
    #[non_exhaustive]
    Finished {
        /// How.
        outcome: Outcome,
        /// The code with which the program should exit.
        exit_code: u8,
        /// The error of this crate that ended it.
        error: Option<String>,
        /// The newest backup that this process knows of.
        last_backup: Option<Position>,
    },
}

impl Event {
    /// The variant's name in snake case, as in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Restored { .. } => "restored",
            Self::Committed { .. } => "committed",
            Self::Failed { .. } => "failed",
            Self::Refused { .. } => "refused",
            Self::Noticed { .. } => "noticed",
            Self::RolledBack { .. } => "rolled_back",
            Self::Mirrored { .. } => "mirrored",
            Self::MirrorFailed { .. } => "mirror_failed",
            Self::MirrorStopped { .. } => "mirror_stopped",
            Self::Hung { .. } => "hung",
            Self::Dropped { .. } => "dropped",
            Self::Finished { .. } => "finished",
        }
    }

    /// The event as one line of JSON.
    pub fn to_json(&self) -> String {
        // Plain data with names for keys: nothing in it can fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// One line, for people.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restored { position, age, .. } => {
                write!(f, "restored at {position}, {age:.1?} old")
            }
            Self::Committed {
                position,
                bytes,
                took,
                ..
            } => write!(f, "backup at {position}: {bytes} bytes in {took:.1?}"),
            Self::Failed { error, .. } => write!(f, "backup failed: {error}"),
            Self::Refused { error, .. } => write!(f, "backup refused: {error}"),
            Self::Noticed { reason, .. } => write!(f, "notice: {reason}"),
            Self::RolledBack {
                from, to, attempt, ..
            } => {
                write!(f, "rollback {attempt}: from {from} back to {to}")
            }
            Self::Mirrored {
                position: Some(position),
                ..
            } => write!(f, "the mirror has {position}"),
            Self::Mirrored { generation, .. } => write!(f, "the mirror has backup {generation}"),
            Self::MirrorFailed { error } => write!(f, "not mirrored, tried again: {error}"),
            Self::MirrorStopped { error } => write!(f, "nothing is mirrored any more: {error}"),
            Self::Hung { silent, .. } => write!(f, "no sign of life for {silent:.0?}"),
            Self::Dropped { events } => write!(f, "{events} events were dropped"),
            Self::Finished { outcome, .. } => write!(f, "the training has ended: {outcome:?}"),
        }
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn time<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    let time = time.and_then(|time| Timestamp::try_from(time).ok());
    time.serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_plain_json() {
        let position = Position::start_of(2);
        let event = Event::Committed {
            position,
            generation: 7,
            bytes: 1000,
            linked: 10,
            took: Duration::from_millis(1500),
        };
        let json = serde_json::to_string(&event).unwrap();
        let expected = r#"{"event":"committed","position":{"epoch":2,"step_in_epoch":0,"global_step":0},"generation":7,"bytes":1000,"linked":10,"took":1.5}"#;
        assert_eq!(json, expected);

        let deadline: Timestamp = "2026-02-03T14:02:11Z".parse().unwrap();
        let noticed = Event::Noticed {
            reason: "SIGTERM".to_owned(),
            deadline: Some(deadline.into()),
        };
        let json = serde_json::to_string(&noticed).unwrap();
        let expected =
            r#"{"event":"noticed","reason":"SIGTERM","deadline":"2026-02-03T14:02:11Z"}"#;
        assert_eq!(json, expected);

        let saved = Some(position);
        let finished = Event::Finished {
            outcome: Outcome::Stopped { saved },
            exit_code: 75,
            error: None,
            last_backup: saved,
        };
        let json: serde_json::Value = serde_json::to_value(&finished).unwrap();
        assert_eq!(json["outcome"]["stopped"]["saved"]["epoch"], 2);
        assert_eq!(json["event"], finished.name());
    }
}
