//! The validation results of a hand-written loop without metric logs.

use std::collections::BTreeMap;

/// The sums of the logged values.
#[derive(Debug, Default)]
pub(super) struct MetricValues(BTreeMap<String, Sum>);

#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    /// The sum of the values, each multiplied by its number of items.
    sum: f64,
    items: usize,
}

impl MetricValues {
    /// Adds a value: the mean of `items` items.
    pub(super) fn add(&mut self, metric: &str, value: f64, items: usize) {
        if !self.0.contains_key(metric) {
            self.0.insert(metric.to_owned(), Sum::default());
        }
        if let Some(sum) = self.0.get_mut(metric) {
            sum.sum += value * items as f64;
            sum.items += items;
        }
    }

    /// Called when a validation begins.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the mean of each metric, and clears the sums.
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
