//! What metrics come to in a validation, in a loop that is written by hand and has no metric logs.

use std::collections::BTreeMap;

/// The sums of the values that the loop has logged.
#[derive(Debug, Default)]
pub(super) struct MetricValues(BTreeMap<String, Sum>);

#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    /// Each value as often as it counts.
    sum: f64,
    items: usize,
}

impl MetricValues {
    /// Adds a value, which is the mean of so many items.
    pub(super) fn add(&mut self, metric: &str, value: f64, items: usize) {
        if !self.0.contains_key(metric) {
            self.0.insert(metric.to_owned(), Sum::default());
        }
        if let Some(sum) = self.0.get_mut(metric) {
            sum.sum += value * items as f64;
            sum.items += items;
        }
    }

    /// A validation begins.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The mean of each metric. They are forgotten.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (String, f64)> + use<> {
        let sums = std::mem::take(&mut self.0).into_iter();
        sums.map(|(metric, Sum { sum, items })| (metric, sum / items as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_as_often_as_it_has_items() {
        let mut values = MetricValues::default();
        values.add("Loss", 9.0, 5);
        values.clear();
        values.add("Loss", 1.0, 3);
        values.add("Loss", 2.0, 1);
        values.add("Words", f64::NAN, 1);
        values.add("Empty", 1.0, 0);
        let taken: BTreeMap<_, _> = values.take().collect();
        assert_eq!(taken.get("Loss"), Some(&1.25));
        assert!(["Words", "Empty"].iter().all(|name| taken[*name].is_nan()));
        assert_eq!(values.take().count(), 0);
    }
}
