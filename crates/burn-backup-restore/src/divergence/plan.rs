//! Decides how far a training goes back and which batches it then skips.
//!
//! The skipped batches depend only on the findings. They depend neither on when backups were taken nor on
//! interruptions.

use serde::{Deserialize, Serialize};

use super::detector::Finding;
use super::{Divergence, DivergenceRule};
use crate::text::Text;

/// The number of skipped batches is doubled at most this many times.
const MOST_DOUBLED: u32 = 6;

/// A rollback, as recorded in backups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RollBack {
    /// The first skipped batch, counted from 1 over all epochs.
    pub from: u64,
    /// The last skipped batch.
    pub to: u64,
    /// The batch at which the divergence was certain.
    pub found: u64,
    /// The metric that diverged, and its value at that batch.
    pub metric: String,
    pub value: Text,
    /// The number of consecutive divergences at this place, including this one.
    pub attempt: u32,
    /// The batches that the diverged step of a hand-written loop fetched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fetched: Vec<Fetched>,
}

/// Batches that a step has fetched from one loader or stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fetched {
    /// The index among the loaders or among the streams.
    pub place: usize,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_stream: bool,
    pub batches: u64,
}

impl RollBack {
    /// The rollback for a finding, after the `past` rollbacks.
    ///
    /// Only the first batch with a bad metric is skipped, because it is usually the cause. If no batch goes well
    /// after the skipped ones, an earlier batch must be the cause. Then the batches before them are skipped too: one,
    /// two more, four more.
    pub(crate) fn of(finding: &Finding, past: &[Self]) -> Self {
        let is_again = |last: &&Self| {
            finding.first >= last.from && finding.good.is_none_or(|good| good <= last.to)
        };
        let again = past.last().filter(is_again);
        let (from, attempt) = match again {
            Some(last) => {
                let more = 1 << last.attempt.saturating_sub(1).min(MOST_DOUBLED);
                (
                    last.from.saturating_sub(more).max(1),
                    last.attempt.saturating_add(1),
                )
            }
            None => (finding.first, 1),
        };
        Self {
            from,
            to: finding.first.max(from),
            found: finding.last,
            metric: finding.metric.clone(),
            value: Text(match finding.value.is_nan() {
                // Use one NaN representation, so that a value read back is the same.
                true => f64::NAN,
                false => finding.value,
            }),
            attempt,
            fetched: Vec::new(),
        }
    }

    /// Whether it skips this batch.
    pub(crate) fn skips(&self, batch: u64) -> bool {
        (self.from..=self.to).contains(&batch)
    }
}

/// The minimum age, in batches before the newest backup, of a backup that is kept for a rollback. All rollbacks may
/// belong to the same divergence, which each time appears one batch later. Backups are taken until the divergence is
/// certain.
pub(crate) fn reach(divergence: Divergence, rule: &DivergenceRule) -> u64 {
    let more = u64::from(divergence.at_most().saturating_sub(1));
    let doubled = more.min(u64::from(MOST_DOUBLED));
    let not_doubled = (more - doubled) << MOST_DOUBLED;
    (1 << doubled) + not_doubled + more + rule.patience as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(first: u64, last: u64) -> Finding {
        Finding {
            metric: "Loss".to_owned(),
            first,
            last,
            good: first.checked_sub(1),
            value: f64::NAN,
            bound: None,
        }
    }

    /// The skipped ranges when the training diverges at each of these batches.
    fn skipped(at: &[u64]) -> Vec<(u64, u64, u32)> {
        let mut past = Vec::new();
        for first in at {
            let next = RollBack::of(&finding(*first, first + 3), &past);
            past.push(next);
        }
        let ranges = past.iter().map(|of| (of.from, of.to, of.attempt));
        ranges.collect()
    }

    #[test]
    fn one_batch_is_skipped_and_those_before_it_if_that_does_not_help() {
        for (at, expected) in [
            (&[10][..], vec![(10, 10, 1)]),
            (&[10, 11], vec![(10, 10, 1), (9, 11, 2)]),
            (
                &[10, 11, 12, 13],
                vec![(10, 10, 1), (9, 11, 2), (7, 12, 3), (3, 13, 4)],
            ),
            // No batch before the first one is skipped.
            (&[1, 2, 3], vec![(1, 1, 1), (1, 2, 2), (1, 3, 3)]),
            // After a batch went well, the next divergence is a separate one.
            (&[10, 12], vec![(10, 10, 1), (12, 12, 1)]),
            (&[10, 11, 13], vec![(10, 10, 1), (9, 11, 2), (13, 13, 1)]),
            // Another program may have written a backup from after the rollback.
            (&[10, 10], vec![(10, 10, 1), (9, 10, 2)]),
            // An earlier divergence, on a device whose numbers differ each time.
            (&[10, 5], vec![(10, 10, 1), (5, 5, 1)]),
        ] {
            assert_eq!(skipped(at), expected, "{at:?}");
        }
    }

    #[test]
    fn a_rollback_is_read_as_it_was_written() {
        for value in [f64::NAN, -f64::NAN, f64::INFINITY, 0.1 + 0.2] {
            let rollback = RollBack::of(
                &Finding {
                    value,
                    ..finding(3, 4)
                },
                &[],
            );
            let json = serde_json::to_string(&rollback).unwrap();
            assert_eq!(serde_json::from_str::<RollBack>(&json).unwrap(), rollback);
        }
    }

    #[test]
    fn backups_reach_back_beyond_every_skipped_batch() {
        for at_most in 1..=12 {
            // Each divergence as late as possible while it still counts as the same.
            let mut past: Vec<RollBack> = Vec::new();
            let mut first = 10_000;
            for _ in 0..at_most {
                let next = RollBack::of(&finding(first, first + 3), &past);
                first = next.to + 1;
                past.push(next);
            }
            let last = past.last().unwrap();
            let newest = last.to + DivergenceRule::default().patience as u64 - 1;
            let kept = newest - reach(Divergence::RollBack { at_most }, &DivergenceRule::default());
            assert!(kept < last.from, "{at_most}: {kept} and {last:?}");
        }
    }
}
