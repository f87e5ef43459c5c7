//! Selects a backup when a program asks for a certain one.

use std::collections::BTreeMap;
use std::fmt;

use burn_backup_store::GenerationId;

use crate::keep::{self, Candidate, Direction};

/// Selects a backup, for [`BackupAndRestore::restore_from`](crate::BackupAndRestore::restore_from) and
/// [`BackupHandle::export`](crate::BackupHandle::export).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Which {
    /// The newest one.
    #[default]
    Newest,
    /// The one at the end of the epoch whose validation has the best value of a metric. Among equal values, the
    /// earliest epoch is chosen.
    #[non_exhaustive]
    Best {
        /// The metric's name, as in [`Keep::best`](crate::Keep::best).
        metric: String,
        /// Whether lower or higher values are better.
        direction: Direction,
    },
    /// The one at the end of this epoch, after its validation. Epochs are counted from 1.
    Epoch(usize),
    /// The one with this number, as `burn-backup list` shows it.
    Generation(u64),
}

impl Which {
    /// The best one by a metric.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_backup_restore::{BackupAndRestore, Direction, Which};
    ///
    /// let backup = BackupAndRestore::new("backup")
    ///     .restore_from(Which::best("Loss", Direction::Lowest));
    /// ```
    pub fn best(metric: impl Into<String>, direction: impl Into<Direction>) -> Self {
        Self::Best {
            metric: metric.into(),
            direction: direction.into(),
        }
    }

    /// The metric to rank by.
    pub(crate) fn metric(&self) -> Option<&str> {
        match self {
            Self::Best { metric, .. } => Some(metric),
            Self::Newest | Self::Epoch(_) | Self::Generation(_) => None,
        }
    }

    /// The selected backup among these, which are sorted newest first.
    pub(crate) fn find(
        &self,
        newest_first: &[GenerationId],
        known: &BTreeMap<GenerationId, Candidate>,
    ) -> Option<GenerationId> {
        let candidates: Vec<_> = newest_first
            .iter()
            .filter_map(|id| Some((*id, known.get(id)?)))
            .collect();
        match self {
            Self::Newest => newest_first.first().copied(),
            Self::Best { metric, direction } => {
                let ranked = keep::ranked(&candidates, metric, *direction);
                ranked.first().copied()
            }
            Self::Epoch(epoch) => {
                let of_epoch = keep::closing(&candidates).remove(epoch)?;
                Some(of_epoch.0)
            }
            Self::Generation(number) => {
                let id = GenerationId::new(*number);
                newest_first.contains(&id).then_some(id)
            }
        }
    }

    /// A text for each existing backup.
    pub(crate) fn describe(
        &self,
        newest_first: &[GenerationId],
        known: &BTreeMap<GenerationId, Candidate>,
    ) -> Vec<String> {
        let describe = |id: &GenerationId| match known.get(id) {
            Some(candidate) => match candidate.closes {
                Some(epoch) => format!("{id} (end of epoch {epoch}{})", self.value_of(candidate)),
                None => id.to_string(),
            },
            None => id.to_string(),
        };
        newest_first.iter().map(describe).collect()
    }

    /// The value of the metric to rank by.
    fn value_of(&self, candidate: &Candidate) -> String {
        let Some(metric) = self.metric() else {
            return String::new();
        };
        if let Some(value) = candidate.values.get(metric) {
            return format!(", {metric} {value}");
        }
        let known: Vec<_> = candidate.values.keys().map(String::as_str).collect();
        match known.as_slice() {
            [] => ", no metric".to_owned(),
            known => format!(", no {metric}, but {}", known.join(", ")),
        }
    }

    /// The text by which a backup records the selection.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Newest => "newest".to_owned(),
            Self::Best { metric, direction } => format!("best:{direction}:{metric}"),
            Self::Epoch(epoch) => format!("epoch:{epoch}"),
            Self::Generation(number) => format!("generation:{number}"),
        }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest => f.write_str("the newest backup"),
            Self::Best { metric, direction } => {
                write!(f, "the best backup by '{metric}' ({direction})")
            }
            Self::Epoch(epoch) => write!(f, "the backup at the end of epoch {epoch}"),
            Self::Generation(number) => write!(f, "the backup {}", GenerationId::new(*number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn each_kind_finds_its_backup_or_none() {
        let candidate = |closes, loss: Option<f64>| Candidate {
            step: 0,
            rollbacks: Vec::new(),
            created: SystemTime::UNIX_EPOCH,
            closes,
            values: loss
                .map(|loss| ("Loss".to_owned(), loss))
                .into_iter()
                .collect(),
        };
        let known: BTreeMap<_, _> = [
            (1, candidate(Some(1), Some(0.5))),
            (2, candidate(Some(2), Some(0.2))),
            (3, candidate(None, None)),
            (4, candidate(Some(3), Some(0.2))),
            (5, candidate(Some(3), Some(f64::NAN))),
        ]
        .into_iter()
        .map(|(number, candidate)| (GenerationId::new(number), candidate))
        .collect();
        let newest_first: Vec<_> = known.keys().rev().copied().collect();
        let table = [
            (Which::Newest, Some(5)),
            (Which::best("Loss", Direction::Lowest), Some(2)),
            (Which::best("Loss", Direction::Highest), Some(1)),
            (Which::best("Accuracy", Direction::Highest), None),
            (Which::Epoch(1), Some(1)),
            (Which::Epoch(3), Some(5)),
            (Which::Epoch(4), None),
            (Which::Generation(3), Some(3)),
            (Which::Generation(6), None),
        ];
        for (which, expected) in table {
            let found = which.find(&newest_first, &known);
            assert_eq!(found.map(GenerationId::number), expected, "{which}");
            // The selection stays the same while the newer backups are removed one by one.
            for gone in (expected.unwrap_or(9) + 1)..=5 {
                let left: Vec<_> = newest_first
                    .iter()
                    .filter(|id| !(expected.unwrap_or(9) + 1..=gone).contains(&id.number()))
                    .copied()
                    .collect();
                assert_eq!(which.find(&left, &known), found, "{which} without {gone}");
            }
        }
    }
}
