//! Detects which values of a metric are a divergence.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::DivergenceRule;
use crate::text::Text;

/// The factor that turns a median absolute deviation into an estimate of the standard deviation of normally
/// distributed values: 1 / Φ⁻¹(3/4).
const MAD_TO_DEVIATION: f64 = 1.4826;

/// The minimum deviation, as a share of the median.
const LEAST_DEVIATION: f64 = 0.05;

/// A divergence.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Finding {
    pub metric: String,
    /// The first batch with a bad value, counted from 1 over all epochs.
    pub first: u64,
    /// The batch at which the divergence was certain.
    pub last: u64,
    /// The last earlier batch with a good value; `None` if there was none.
    pub good: Option<u64>,
    /// The value of the batch `last`.
    pub value: f64,
    /// The bound that the value exceeded; `None` if the value is not finite.
    pub bound: Option<f64>,
}

/// The state of the watched metrics, which decides about their next values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Detector {
    rule: DivergenceRule,
    record: Record,
}

/// The part of a detector that backups record.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(default)]
    metrics: BTreeMap<String, Values>,
}

/// The values of a metric.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Values {
    /// The last values that were not above the bound, oldest first.
    recent: VecDeque<Text>,
    /// The values after them that are above the bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    above: Option<Above>,
    /// The batch of the last value that was not above the bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    good: Option<u64>,
}

/// Consecutive values above the bound.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Above {
    count: usize,
    /// The batch of the first of these values.
    first: u64,
}

impl Detector {
    pub(crate) fn new(rule: DivergenceRule) -> Self {
        Self {
            rule,
            record: Record::default(),
        }
    }

    pub(crate) fn rule(&self) -> &DivergenceRule {
        &self.rule
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// Continues from the record in a backup.
    pub(crate) fn resume(&mut self, record: Record) {
        self.record = record;
    }

    /// Adds a metric's value for a batch. Returns a finding if that makes a divergence certain.
    pub(crate) fn take(&mut self, metric: &str, batch: u64, value: f64) -> Option<Finding> {
        if !self.rule.metrics.iter().any(|name| name == metric) {
            return None;
        }
        let values = self.record.metrics.entry(metric.to_owned()).or_default();
        let mut bound = None;
        if value.is_finite() {
            bound = values.bound(&self.rule).filter(|bound| value > *bound);
            if bound.is_none() {
                values.push(value, batch, self.rule.window);
                return None;
            }
        }
        let above = values.above.get_or_insert(Above {
            count: 0,
            first: batch,
        });
        above.count += 1;
        let is_certain = bound.is_none() || above.count >= self.rule.patience;
        is_certain.then(|| Finding {
            metric: metric.to_owned(),
            first: above.first,
            last: batch,
            good: values.good,
            value,
            bound,
        })
    }
}

impl Values {
    fn push(&mut self, value: f64, batch: u64, window: usize) {
        self.above = None;
        self.good = Some(batch);
        self.recent.push_back(Text(value));
        while self.recent.len() > window {
            self.recent.pop_front();
        }
    }

    /// The bound for the next value; `None` while too few values are known.
    fn bound(&self, rule: &DivergenceRule) -> Option<f64> {
        if !rule.jumps || self.recent.len() < rule.window / 2 {
            return None;
        }
        let median = median(self.recent.iter().map(|value| value.0))?;
        let deviations = self.recent.iter().map(|value| (value.0 - median).abs());
        let deviation = MAD_TO_DEVIATION * self::median(deviations)?;
        let deviation = deviation.max(LEAST_DEVIATION * median.abs());
        Some(median + rule.deviations * deviation)
    }
}

/// The upper one of the two middle values, if there are two.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The losses of the batches in 3 epochs of `examples/digits`, from its metric log.
    const DIGITS: &str = include_str!("digits.log");

    fn detector(rule: DivergenceRule) -> Detector {
        Detector::new(rule)
    }

    /// The first divergence in the values of batches 1, 2, ..
    fn found(rule: DivergenceRule, values: &[f64]) -> Option<Finding> {
        let mut detector = detector(rule);
        let mut batches = (1..).zip(values);
        batches.find_map(|(batch, value)| detector.take("Loss", batch, *value))
    }

    /// The first and last batch of the divergence, and whether it has a bound.
    fn place(finding: Option<Finding>) -> Option<(u64, u64, bool)> {
        finding.map(|found| (found.first, found.last, found.bound.is_some()))
    }

    /// Falls like a typical loss, with noise that is the same on each call.
    fn falling(batches: usize) -> Vec<f64> {
        let mut noise = 7_u64;
        let value = |batch: usize| {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let noise = (noise >> 40) as f64 / (1 << 24) as f64 - 0.5;
            0.3 + 2.0 / (1.0 + batch as f64 / 20.0) + 0.2 * noise
        };
        (0..batches).map(value).collect()
    }

    fn digits() -> Vec<f64> {
        let value = |line: &str| line.parse().unwrap();
        DIGITS.lines().map(value).collect()
    }

    #[test]
    fn values_that_are_not_finite_are_found_at_once() {
        let all = DivergenceRule::default;
        for (values, expected) in [
            (vec![f64::NAN], Some((1, 1, false))),
            (vec![1.0, f64::INFINITY], Some((2, 2, false))),
            (vec![1.0, 2.0, f64::NEG_INFINITY], Some((3, 3, false))),
            (vec![1.0, 1e300, -1e300], None),
        ] {
            let text = format!("{values:?}");
            assert_eq!(place(found(all(), &values)), expected, "{text}");
            let only = all().only_non_finite();
            assert_eq!(place(found(only, &values)), expected, "{text}");
        }
    }

    #[test]
    fn values_that_stay_far_above_are_found_and_single_ones_are_not() {
        let calm = falling(200);
        assert_eq!(found(DivergenceRule::default(), &calm), None);
        for (at, count, expected) in [
            (100, 1, None),
            (100, 3, None),
            (100, 4, Some((101, 104, true))),
            (190, 9, Some((191, 194, true))),
            // Before half of the window is full, there is no bound.
            (20, 8, None),
            (31, 8, Some((33, 36, true))),
            (32, 8, Some((33, 36, true))),
        ] {
            let mut values = calm.clone();
            values[at..at + count].fill(50.0);
            let found = found(DivergenceRule::default(), &values);
            assert_eq!(place(found), expected, "{count} from {at}");
        }
    }

    #[test]
    fn an_explosion_that_ends_in_nan_begins_with_its_first_value() {
        let mut values = falling(100);
        values[80] = 40.0;
        values[81] = f64::NAN;
        let found = found(DivergenceRule::default(), &values).unwrap();
        assert_eq!((found.first, found.last, found.bound), (81, 82, None));
        assert!(found.value.is_nan());
    }

    #[test]
    fn a_slow_drift_a_warm_up_and_steps_of_a_schedule_are_fine() {
        let drift: Vec<_> = (0..2000)
            .map(|batch| 0.5 + f64::from(batch) * 0.002)
            .collect();
        let warm_up: Vec<_> = (0..64)
            .map(|batch| 2.3 + f64::from(batch) * 0.05)
            .chain(falling(500))
            .collect();
        let constant = vec![0.7; 300];
        let mut steps = vec![1.0; 100];
        steps.extend(vec![1.4; 100]);
        let hardly_varies: Vec<_> = (0..300)
            .map(|batch| 1.0 + f64::from(batch % 2) * 1e-6)
            .collect();
        for (name, values) in [
            ("drift", drift),
            ("warm-up", warm_up),
            ("constant", constant),
            ("steps", steps),
            ("hardly varies", hardly_varies),
        ] {
            assert_eq!(found(DivergenceRule::default(), &values), None, "{name}");
        }
    }

    #[test]
    fn a_recorded_training_passes_and_an_exploding_one_fails() {
        let calm = digits();
        assert!(calm.len() > 100);
        assert_eq!(found(DivergenceRule::default(), &calm), None);
        let mut exploded = calm.clone();
        for value in &mut exploded[90..] {
            *value = 30.0;
        }
        let found = found(DivergenceRule::default(), &exploded);
        assert_eq!(place(found), Some((91, 94, true)));
    }

    #[test]
    fn a_rule_has_its_own_window_deviations_patience_and_metrics() {
        let mut values = falling(60);
        values[50..].fill(3.0);
        let narrow = || DivergenceRule::default().window(16).deviations(4.0);
        assert_eq!(
            place(found(narrow().patience(2), &values)),
            Some((51, 52, true))
        );
        assert_eq!(found(narrow().patience(11), &values), None);
        assert_eq!(found(narrow().deviations(1000.0), &values), None);
        assert_eq!(found(narrow().only_non_finite(), &values), None);

        let mut detector = detector(DivergenceRule::of("Loss").and("Gradient norm"));
        assert_eq!(detector.take("Accuracy", 1, f64::NAN), None);
        let found = detector.take("Gradient norm", 1, f64::INFINITY).unwrap();
        assert_eq!(found.metric, "Gradient norm");
    }

    #[test]
    fn after_a_resume_anywhere_the_same_divergence_is_found() {
        let mut values = falling(120);
        values[100..].fill(50.0);
        let whole = found(DivergenceRule::default(), &values);
        for cut in 0..values.len() {
            let mut first = detector(DivergenceRule::default());
            let (before, after) = values.split_at(cut);
            let is_found = (1..)
                .zip(before)
                .any(|(batch, value)| first.take("Loss", batch, *value).is_some());
            if is_found {
                continue;
            }
            let json = serde_json::to_string(first.record()).unwrap();
            let mut second = detector(DivergenceRule::default());
            second.resume(serde_json::from_str(&json).unwrap());
            assert_eq!(second, first);
            let found = (cut as u64 + 1..)
                .zip(after)
                .find_map(|(batch, value)| second.take("Loss", batch, *value));
            assert_eq!(found, whole, "cut at {cut}");
        }
    }
}
