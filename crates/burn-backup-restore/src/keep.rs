//! The retention policy, as a pure function over plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, SystemTime};

use burn_backup_store::GenerationId;

use crate::error::BackupError;

/// Whether lower or higher values of a metric are better. Burn's own `Direction` converts into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Lower is better, for example for a loss.
    Lowest,
    /// Higher is better, for example for an accuracy.
    Highest,
}

impl From<burn::train::metric::store::Direction> for Direction {
    fn from(direction: burn::train::metric::store::Direction) -> Self {
        match direction {
            burn::train::metric::store::Direction::Lowest => Self::Lowest,
            burn::train::metric::store::Direction::Highest => Self::Highest,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lowest => "lowest",
            Self::Highest => "highest",
        })
    }
}

/// A retention policy, for [`BackupAndRestore::keep`](crate::BackupAndRestore::keep): one rule, or several joined with
/// [`and`](Self::and). A backup stays as long as at least one rule keeps it. The newest backup always stays.
///
/// A policy applies to the existing backups, so it may change from one start to the next. Backups that the new policy
/// doesn't keep are removed after the next backup. Removed backups do not come back.
///
/// # Example
///
/// ```
/// use std::time::Duration;
///
/// use burn_backup_restore::{BackupAndRestore, Direction, Keep};
///
/// let keep = Keep::last(2)
///     .and(Keep::best("Loss", Direction::Lowest, 3))
///     .and(Keep::every_epochs(10))
///     .and(Keep::every(Duration::from_secs(3600)));
/// let backup = BackupAndRestore::new("backup").keep(keep);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    Last(usize),
    Best {
        metric: String,
        direction: Direction,
        count: usize,
    },
    EveryEpochs(usize),
    Every(Duration),
    /// Backups for rollbacks, at least this many batches older than the newest one.
    BatchesBack(u64),
}

impl Default for Keep {
    fn default() -> Self {
        Self::last(1)
    }
}

impl Keep {
    /// Keeps this many of the newest backups.
    pub fn last(backups: usize) -> Self {
        Self::rule(Rule::Last(backups))
    }

    /// Keeps the backups of this many best epochs, by the value of the `metric` in their validations.
    ///
    /// For each of these epochs, the backup at its end stays. A backup is taken at the end of each epoch, whatever the
    /// [`SaveFreq`](crate::SaveFreq) is, except with `Never`.
    ///
    /// The metric's name is the one in Burn's logs (`Loss`, `Accuracy`), or the one given to
    /// [`Session::log`](crate::Session::log) after [`Session::trained`](crate::Session::trained). Among equal values,
    /// the earlier epoch is better. An epoch with NaN or without a value is never among the best.
    pub fn best(metric: impl Into<String>, direction: impl Into<Direction>, epochs: usize) -> Self {
        Self::rule(Rule::Best {
            metric: metric.into(),
            direction: direction.into(),
            count: epochs,
        })
    }

    /// Keeps the backup at the end of each epoch whose number is a multiple of `epochs`. It is taken whatever the
    /// [`SaveFreq`](crate::SaveFreq) is, except with `Never`.
    pub fn every_epochs(epochs: usize) -> Self {
        Self::rule(Rule::EveryEpochs(epochs))
    }

    /// Keeps one backup in each `interval`, by commit time: the oldest backup, and each one that was committed at least
    /// one interval after the previously kept one. A clock that is set back delays the next one.
    pub fn every(interval: Duration) -> Self {
        Self::rule(Rule::Every(interval))
    }

    /// Keeps a backup for rollbacks that is at least this many batches older than the newest one, once the training is
    /// that old. This keeps at most two backups besides the newest one.
    pub(crate) fn reaching_back(batches: u64) -> Self {
        Self::rule(Rule::BatchesBack(batches))
    }

    /// Keeps the backups that this policy keeps, and those that `other` keeps.
    #[must_use = "it returns the combined policy"]
    pub fn and(mut self, other: Self) -> Self {
        self.rules.extend(other.rules);
        self
    }

    fn rule(rule: Rule) -> Self {
        Self { rules: vec![rule] }
    }

    /// Refuses a rule that keeps nothing.
    pub(crate) fn check(&self) -> Result<(), BackupError> {
        for rule in &self.rules {
            match rule {
                Rule::Last(0) => return Err(BackupError::InvalidKeepLast),
                Rule::Best { count: 0, .. }
                | Rule::EveryEpochs(0)
                | Rule::Every(Duration::ZERO) => {
                    return Err(BackupError::InvalidKeep {
                        rule: rule.to_string(),
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether a rule needs more than the order of the backups.
    pub(crate) fn needs_candidates(&self) -> bool {
        !self.rules.iter().all(|rule| matches!(rule, Rule::Last(_)))
    }

    /// The metrics that the rules use.
    pub(crate) fn metrics(&self) -> BTreeSet<&str> {
        let metrics = self.rules.iter().filter_map(|rule| match rule {
            Rule::Best { metric, .. } => Some(metric.as_str()),
            _ => None,
        });
        metrics.collect()
    }

    /// Whether a rule may keep the backup at the end of this epoch.
    pub(crate) fn may_keep_end_of(&self, epoch: usize) -> bool {
        self.rules.iter().any(|rule| match rule {
            Rule::Best { .. } => true,
            Rule::EveryEpochs(epochs) => epoch.is_multiple_of(*epochs),
            Rule::Last(_) | Rule::Every(_) | Rule::BatchesBack(_) => false,
        })
    }

    /// The first epoch, from this one on, whose end a rule may keep.
    pub(crate) fn first_end(&self, from: usize) -> Option<usize> {
        let ends = self.rules.iter().filter_map(|rule| match rule {
            Rule::Best { .. } => Some(from),
            Rule::EveryEpochs(epochs) => from.checked_next_multiple_of(*epochs),
            Rule::Last(_) | Rule::Every(_) | Rule::BatchesBack(_) => None,
        });
        ends.min()
    }

    /// The backups that stay. `known` has the data of the backups whose data could be read.
    pub(crate) fn decide(
        &self,
        newest_first: &[GenerationId],
        known: &BTreeMap<GenerationId, Candidate>,
    ) -> BTreeSet<GenerationId> {
        let candidates: Vec<_> = newest_first
            .iter()
            .filter_map(|id| Some((*id, known.get(id)?)))
            .collect();
        let mut kept: BTreeSet<_> = newest_first.first().copied().into_iter().collect();
        for rule in &self.rules {
            match rule {
                Rule::Last(backups) => kept.extend(newest_first.iter().take(*backups)),
                Rule::Best {
                    metric,
                    direction,
                    count,
                } => {
                    let ranked = ranked(&candidates, metric, *direction);
                    kept.extend(ranked.into_iter().take(*count));
                }
                Rule::EveryEpochs(epochs) => {
                    let of_epochs = closing(&candidates).into_iter();
                    let of_epochs = of_epochs.filter(|(epoch, _)| epoch.is_multiple_of(*epochs));
                    kept.extend(of_epochs.map(|(_, (id, _))| id));
                }
                Rule::Every(interval) => kept.extend(spaced(&candidates, *interval)),
                Rule::BatchesBack(batches) => kept.extend(reaching_back(&candidates, *batches)),
            }
        }
        kept
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last(1) => f.write_str("the newest"),
            Self::Last(usize::MAX) => f.write_str("all"),
            Self::Last(backups) => write!(f, "the newest {backups}"),
            Self::Best {
                metric,
                direction,
                count: 1,
            } => write!(f, "the best by '{metric}' ({direction})"),
            Self::Best {
                metric,
                direction,
                count,
            } => write!(f, "the best {count} by '{metric}' ({direction})"),
            Self::EveryEpochs(1) => f.write_str("the one at the end of each epoch"),
            Self::EveryEpochs(epochs) => write!(f, "one every {epochs} epochs"),
            Self::Every(interval) => write!(f, "one every {interval:?}"),
            Self::BatchesBack(1) => f.write_str("one that is a batch older"),
            Self::BatchesBack(batches) => write!(f, "one that is {batches} batches older"),
        }
    }
}

/// The newest backup that is at least `batches` older than the newest of all, and the oldest backup after it, which
/// replaces it later. Backups that a rollback has abandoned are excluded.
fn reaching_back(candidates: &[(GenerationId, &Candidate)], batches: u64) -> Vec<GenerationId> {
    let mut oldest = u64::MAX;
    let rollbacks = candidates.first().map(|(_, newest)| &newest.rollbacks);
    let in_line = candidates.iter().filter(|(_, candidate)| {
        // A backup that has trained a batch that a later rollback skips is abandoned.
        let mut later = rollbacks
            .into_iter()
            .flatten()
            .skip(candidate.rollbacks.len());
        let is_in_line = candidate.step < oldest && later.all(|from| candidate.step < *from);
        oldest = oldest.min(candidate.step);
        is_in_line
    });
    let in_line: Vec<_> = in_line.collect();
    let Some((newest, older)) = in_line.split_first() else {
        return Vec::new();
    };
    let is_enough = |candidate: &Candidate| candidate.step.saturating_add(batches) <= newest.1.step;
    let reaches = older.iter().position(|(_, candidate)| is_enough(candidate));
    let (between, reaching) = older.split_at(reaches.unwrap_or(older.len()));
    let kept = between.last().into_iter().chain(reaching.first());
    kept.map(|(id, _)| *id).collect()
}

/// The policy in words.
impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, rule) in self.rules.iter().enumerate() {
            let before = match index {
                0 => "",
                index if index + 1 == self.rules.len() => " and ",
                _ => ", ",
            };
            write!(f, "{before}{rule}")?;
        }
        let is_one = matches!(self.rules.as_slice(), [Rule::Last(1)]);
        f.write_str(if is_one { " is kept" } else { " are kept" })
    }
}

/// The data of a backup that the policy uses.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Candidate {
    /// The number of trained batches.
    pub step: u64,
    /// The first skipped batch of each earlier rollback.
    pub rollbacks: Vec<u64>,
    /// The commit time, by the clock of the machine.
    pub created: SystemTime,
    /// The epoch at whose end the backup was taken, after the validation.
    pub closes: Option<usize>,
    /// The metric values of that epoch's validation.
    pub values: BTreeMap<String, f64>,
}

type Listed<'c> = (GenerationId, &'c Candidate);

/// For each epoch, the newest backup at its end. `candidates` are sorted newest first.
pub(crate) fn closing<'c>(candidates: &[Listed<'c>]) -> BTreeMap<usize, Listed<'c>> {
    let mut closing = BTreeMap::new();
    for listed in candidates {
        if let Some(epoch) = listed.1.closes {
            closing.entry(epoch).or_insert(*listed);
        }
    }
    closing
}

/// The backups with a value of the metric, best first.
pub(crate) fn ranked(
    candidates: &[Listed<'_>],
    metric: &str,
    direction: Direction,
) -> Vec<GenerationId> {
    let closing = closing(candidates).into_values();
    let mut ranked: Vec<(f64, GenerationId)> = closing
        .filter_map(|(id, candidate)| Some((*candidate.values.get(metric)?, id)))
        .filter(|(value, _)| !value.is_nan())
        // Makes -0.0 and 0.0 equal.
        .map(|(value, id)| (value + 0.0, id))
        .collect();
    // The backups are in the order of epochs, and the stable sort keeps that order among equal values.
    ranked.sort_by(|(one, _), (other, _)| match direction {
        Direction::Lowest => one.total_cmp(other),
        Direction::Highest => other.total_cmp(one),
    });
    ranked.into_iter().map(|(_, id)| id).collect()
}

/// The oldest backup, and each one that is at least `interval` younger than the previously kept one.
fn spaced(candidates: &[Listed<'_>], interval: Duration) -> Vec<GenerationId> {
    let mut kept: Vec<GenerationId> = Vec::new();
    let mut last: Option<SystemTime> = None;
    for (id, candidate) in candidates.iter().rev() {
        let is_due = match last {
            None => true,
            Some(last) => {
                let since = candidate.created.duration_since(last);
                since.is_ok_and(|since| since >= interval)
            }
        };
        if is_due {
            kept.push(*id);
            last = Some(candidate.created);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u64]) -> Vec<GenerationId> {
        numbers.iter().copied().map(GenerationId::new).collect()
    }

    /// A backup inside an epoch.
    fn inside(seconds: u64) -> Candidate {
        Candidate {
            step: seconds,
            rollbacks: Vec::new(),
            created: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            closes: None,
            values: BTreeMap::new(),
        }
    }

    /// A backup at the end of `epoch`.
    fn closes(epoch: usize, loss: Option<f64>) -> Candidate {
        let value = |loss| ("Loss".to_owned(), loss);
        Candidate {
            closes: Some(epoch),
            values: loss.into_iter().map(value).collect(),
            ..inside(60 * epoch as u64)
        }
    }

    /// The numbers of the kept backups, oldest first. Candidates are numbered from 1.
    fn kept(keep: &Keep, candidates: &[Candidate]) -> Vec<u64> {
        let known: BTreeMap<_, _> = (1..)
            .map(GenerationId::new)
            .zip(candidates.iter().cloned())
            .collect();
        let newest_first: Vec<_> = known.keys().rev().copied().collect();
        let kept = keep.decide(&newest_first, &known);
        kept.into_iter().map(GenerationId::number).collect()
    }

    /// The same, if backups are pruned each time that a new one is committed.
    fn kept_in_turn(keep: &Keep, candidates: &[Candidate]) -> Vec<u64> {
        let mut known = BTreeMap::new();
        for (number, candidate) in (1..).zip(candidates) {
            known.insert(GenerationId::new(number), candidate.clone());
            let newest_first: Vec<_> = known.keys().rev().copied().collect();
            let kept = keep.decide(&newest_first, &known);
            known.retain(|id, _| kept.contains(id));
        }
        known.keys().map(|id| id.number()).collect()
    }

    fn lowest(count: usize) -> Keep {
        Keep::best("Loss", Direction::Lowest, count)
    }

    #[test]
    fn each_policy_keeps_what_its_table_says_at_once_and_in_turn() {
        let nan = f64::NAN;
        let epochs = |losses: &[f64]| -> Vec<Candidate> {
            let losses = (1..).zip(losses);
            losses
                .map(|(epoch, loss)| closes(epoch, Some(*loss)))
                .collect()
        };
        let times = |seconds: &[u64]| -> Vec<Candidate> {
            seconds.iter().map(|seconds| inside(*seconds)).collect()
        };
        let mixed = vec![
            inside(1),
            closes(1, Some(0.5)),
            inside(2),
            closes(2, Some(0.9)),
            inside(3),
        ];
        let minutes = |minutes: u64| Keep::every(Duration::from_secs(60 * minutes));
        let highest = Keep::best("Loss", Direction::Highest, 2);
        let table: Vec<(Keep, Vec<Candidate>, &[u64])> = vec![
            (Keep::default(), epochs(&[1.0, 2.0, 3.0]), &[3]),
            (Keep::last(2), epochs(&[1.0, 2.0, 3.0]), &[2, 3]),
            (Keep::last(usize::MAX), epochs(&[1.0, 2.0]), &[1, 2]),
            (Keep::last(2), Vec::new(), &[]),
            // The best two, and the newest.
            (lowest(2), epochs(&[0.4, 0.2, 0.3, 0.9]), &[2, 3, 4]),
            (highest, epochs(&[0.4, 0.2, 0.9, 0.3]), &[1, 3, 4]),
            // An equal value does not replace an earlier one.
            (lowest(1), epochs(&[0.2, 0.2, 0.2, 0.2]), &[1, 4]),
            (lowest(1), epochs(&[0.0, -0.0, 0.0]), &[1, 3]),
            // NaN is no value; infinity is the worst one.
            (lowest(2), epochs(&[nan, 0.7, nan, nan]), &[2, 4]),
            (
                lowest(2),
                epochs(&[f64::INFINITY, 0.7, 0.8, 0.9]),
                &[2, 3, 4],
            ),
            // The metric is unknown, or has no value in some epochs.
            (
                Keep::best("Accuracy", Direction::Highest, 2),
                epochs(&[0.1, 0.2]),
                &[2],
            ),
            (
                lowest(2),
                vec![closes(1, None), closes(2, Some(0.5)), closes(3, None)],
                &[2, 3],
            ),
            // A backup inside an epoch has no value.
            (lowest(1), mixed.clone(), &[2, 5]),
            (Keep::every_epochs(1), mixed.clone(), &[2, 4, 5]),
            (Keep::every_epochs(2), mixed, &[4, 5]),
            (Keep::every_epochs(2), epochs(&[1.0; 5]), &[2, 4, 5]),
            // An epoch ended twice because of a rollback: the later backup counts.
            (
                lowest(2),
                vec![
                    closes(1, Some(0.1)),
                    closes(1, Some(0.6)),
                    closes(2, Some(0.3)),
                    inside(9),
                ],
                &[2, 3, 4],
            ),
            (minutes(1), times(&[0, 30, 60, 90, 119, 130]), &[1, 3, 6]),
            (minutes(1), times(&[0, 59]), &[1, 2]),
            (minutes(1), times(&[100, 10, 50, 159, 160, 161]), &[1, 5, 6]),
            (
                Keep::last(1).and(lowest(1)).and(Keep::every_epochs(4)),
                epochs(&[0.9, 0.1, 0.9, 0.8, 0.7, 0.6]),
                &[2, 4, 6],
            ),
        ];
        for (keep, candidates, expected) in table {
            assert_eq!(kept(&keep, &candidates), expected, "{keep}: {candidates:?}");
            let in_turn = kept_in_turn(&keep, &candidates);
            assert_eq!(in_turn, expected, "{keep}, in turn: {candidates:?}");
        }
    }

    #[test]
    fn a_changed_policy_judges_existing_backups() {
        let candidates: Vec<_> = [0.1, 0.2, 0.3, 0.4]
            .into_iter()
            .zip(1..)
            .map(|(loss, epoch)| closes(epoch, Some(loss)))
            .collect();
        // Backups that another policy kept are treated like all others.
        let known: BTreeMap<_, _> = [1, 3, 4]
            .into_iter()
            .filter_map(|number| {
                let candidate = candidates.get(number - 1)?;
                Some((GenerationId::new(number as u64), candidate.clone()))
            })
            .collect();
        let decide = |keep: Keep| keep.decide(&ids(&[4, 3, 1]), &known);
        assert_eq!(decide(Keep::last(1)), ids(&[4]).into_iter().collect());
        assert_eq!(decide(lowest(2)), ids(&[1, 3, 4]).into_iter().collect());
    }

    #[test]
    fn only_the_age_of_an_unknown_backup_counts() {
        let nothing = BTreeMap::new();
        let keep = Keep::last(2).and(lowest(3)).and(Keep::every_epochs(1));
        let kept = keep.decide(&ids(&[9, 8, 7]), &nothing);
        assert_eq!(kept, ids(&[9, 8]).into_iter().collect());
    }

    #[test]
    fn an_epochs_end_is_requested_if_a_rule_may_keep_it() {
        let asks = |keep: &Keep| (1..=6).filter(|epoch| keep.may_keep_end_of(*epoch)).count();
        assert_eq!(asks(&Keep::last(5)), 0);
        assert_eq!(asks(&Keep::every(Duration::from_secs(1))), 0);
        assert_eq!(asks(&Keep::every_epochs(3)), 2);
        assert_eq!(asks(&Keep::every_epochs(3).and(lowest(1))), 6);
        assert_eq!(Keep::last(5).first_end(1), None);
        assert_eq!(Keep::every_epochs(3).first_end(4), Some(6));
        assert_eq!(Keep::every_epochs(3).and(lowest(1)).first_end(4), Some(4));
    }

    #[test]
    fn rules_that_keep_nothing_are_refused() {
        for keep in [
            Keep::last(0),
            lowest(0),
            Keep::every_epochs(0),
            Keep::every(Duration::ZERO),
            Keep::last(1).and(lowest(0)),
        ] {
            assert!(keep.check().is_err(), "{keep}");
        }
        assert!(Keep::last(1).and(lowest(1)).check().is_ok());
    }

    #[test]
    fn a_backup_that_many_batches_older_always_exists() {
        let keep = Keep::last(1).and(Keep::reaching_back(10));
        // There is a backup after each of these numbers of batches, and backups are pruned each time.
        let steps = [0, 1, 2, 3, 9, 10, 11, 12, 19, 20, 21, 22, 23, 35, 36, 100];
        let mut there: Vec<(u64, Candidate)> = Vec::new();
        for (id, step) in (1..).zip(steps) {
            there.push((id, inside(step)));
            let known = there.iter().cloned();
            let known = known.map(|(id, of)| (GenerationId::new(id), of)).collect();
            let newest_first: Vec<_> = there
                .iter()
                .rev()
                .map(|(id, _)| GenerationId::new(*id))
                .collect();
            let kept = keep.decide(&newest_first, &known);
            there.retain(|(id, _)| kept.contains(&GenerationId::new(*id)));
            assert!(there.len() <= 3, "{there:?}");
            let oldest = there.first().unwrap().1.step;
            assert!(oldest == 0 || oldest + 10 <= step, "{oldest} at {step}");
        }
        // The training was rolled back from 30 to 10, so the abandoned backups at 20 and 30 don't count.
        let left = [
            inside(5),
            inside(10),
            inside(20),
            inside(30),
            inside(12),
            inside(21),
        ];
        assert_eq!(kept(&keep, &left), [2, 5, 6]);
        // A backup that has trained a batch that a later rollback skips doesn't count either.
        let dead = |step, rollbacks: &[u64]| Candidate {
            rollbacks: rollbacks.to_vec(),
            ..inside(step)
        };
        let line = [dead(5, &[]), dead(20, &[]), dead(50, &[20])];
        assert_eq!(kept(&keep, &line), [1, 3]);
    }
}
