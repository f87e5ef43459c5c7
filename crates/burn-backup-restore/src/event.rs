use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::error::BackupError;
use crate::outcome::Outcome;
use crate::position::Position;

/// An event in a training with backups, for [`on_event`](crate::BackupAndRestore::on_event).
///
/// In JSON, the field `event` has the variant's name in snake case, durations are in seconds, and times are in
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
    /// The training was restored from a backup.
    #[non_exhaustive]
    Restored {
        /// The position at which the training continues.
        position: Position,
        /// The backup's generation number.
        generation: u64,
        /// The backup's size.
        bytes: u64,
        /// The backup's age, by the clock of this machine.
        #[serde(serialize_with = "seconds")]
        age: Duration,
        /// The time to find, fetch, verify and restore the backup.
        #[serde(serialize_with = "seconds")]
        took: Duration,
    },
    /// A backup is on the disk. A restart would restore it.
    #[non_exhaustive]
    Committed {
        /// The backup's position.
        position: Position,
        /// The backup's generation number.
        generation: u64,
        /// The backup's size.
        bytes: u64,
        /// How many of the bytes are linked from the previous backup.
        linked: u64,
        /// The time from the snapshot to the commit.
        #[serde(serialize_with = "seconds")]
        took: Duration,
    },
    /// A backup has failed. The last good backup stays. The training continues, except with
    /// [`OnBackupError::Stop`](crate::OnBackupError::Stop).
    #[non_exhaustive]
    Failed {
        /// The error with all its causes.
        error: String,
        /// The number of failures since the last committed backup, including this one.
        failures: u64,
        /// The error itself.
        #[serde(skip)]
        cause: Arc<BackupError>,
    },
    /// A backup was refused because the model contains NaN.
    #[non_exhaustive]
    Refused {
        /// The error, which names the parameter.
        error: String,
        /// The number of failures since the last committed backup, including this one.
        failures: u64,
        /// The error itself.
        #[serde(skip)]
        cause: Arc<BackupError>,
    },
    /// A notice of a preemption has arrived.
    #[non_exhaustive]
    Noticed {
        /// The notice's reason, such as "SIGTERM".
        reason: String,
        /// The time of the preemption, if the notice names it.
        #[serde(serialize_with = "time")]
        deadline: Option<SystemTime>,
    },
    /// The training was rolled back to its last good backup, within the same process.
    #[non_exhaustive]
    RolledBack {
        /// The position before the rollback.
        from: Position,
        /// The position at which the training continues.
        to: Position,
        /// The batches that the training now skips, as global steps.
        skipped: Vec<u64>,
        /// The number of this rollback, counted from 1 over the whole training.
        attempt: u32,
    },
    /// A backup is complete in the mirror.
    #[non_exhaustive]
    Mirrored {
        /// The backup's position, if this process knows it.
        position: Option<Position>,
        /// The backup's generation number.
        generation: u64,
    },
    /// A backup could not be mirrored. It is retried, and further failures send no event until a retry succeeds.
    #[non_exhaustive]
    MirrorFailed {
        /// The error with all its causes.
        error: String,
    },
    /// No further backups are mirrored.
    #[non_exhaustive]
    MirrorStopped {
        /// The error with all its causes.
        error: String,
    },
    /// The training has made no progress for much longer than its steps and validations took so far. This event is sent
    /// once per hang. If the training makes progress and hangs again, it is sent again.
    #[non_exhaustive]
    Hung {
        /// The training's position; `None` before the first batch.
        position: Option<Position>,
        /// The time without progress.
        #[serde(serialize_with = "seconds")]
        silent: Duration,
        /// The limit that this time exceeds.
        #[serde(serialize_with = "seconds")]
        limit: Duration,
    },
    /// Events were dropped at this point, because the callback is slower than the events.
    #[non_exhaustive]
    Dropped {
        /// The number of dropped events.
        events: u64,
    },
    /// The training has ended. This is the last event.
    #[non_exhaustive]
    Finished {
        /// How the training ended.
        outcome: Outcome,
        /// The code with which the program should exit.
        exit_code: u8,
        /// This crate's error that ended the training, if there is one.
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
        // Plain data with string keys always serializes.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// One line of text.
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
            Self::MirrorFailed { error } => write!(f, "not mirrored, will retry: {error}"),
            Self::MirrorStopped { error } => write!(f, "mirroring has stopped: {error}"),
            Self::Hung { silent, .. } => write!(f, "no progress for {silent:.0?}"),
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
