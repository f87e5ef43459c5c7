use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// The median and the range of some measured values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The middle value, or the mean of the middle two.
    pub median: f64,
    /// The lowest value.
    pub minimum: f64,
    /// The highest value.
    pub maximum: f64,
    /// The number of values.
    pub samples: usize,
}

impl Spread {
    /// The spread of `values`. At least one value is necessary.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Result<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Ok(Self {
            median: median(&values).context("nothing was measured")?,
            minimum: *values.first().context("nothing was measured")?,
            maximum: *values.last().context("nothing was measured")?,
            samples: values.len(),
        })
    }

    /// The spread of `times`, in milliseconds.
    pub fn of_milliseconds(times: impl IntoIterator<Item = Duration>) -> Result<Self> {
        Self::of(times.into_iter().map(|time| time.as_secs_f64() * 1e3))
    }

    /// The spread of one value.
    pub fn single(value: f64) -> Self {
        Self {
            median: value,
            minimum: value,
            maximum: value,
            samples: 1,
        }
    }
}

fn median(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get((sorted.len() / 2).checked_sub(1)?)?;
    Some((lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        let odd = Spread::of([5.0, 1.0, 3.0]).unwrap();
        assert_eq!((odd.minimum, odd.median, odd.maximum), (1.0, 3.0, 5.0));
        let even = Spread::of([4.0, 1.0, 2.0, 100.0]).unwrap();
        assert_eq!((even.minimum, even.median, even.maximum), (1.0, 3.0, 100.0));
        assert_eq!(even.samples, 4);
        assert_eq!(Spread::of([7.0]).unwrap(), Spread::single(7.0));
    }

    #[test]
    fn times_are_in_milliseconds() {
        let spread = Spread::of_milliseconds([Duration::from_micros(1500)]).unwrap();
        assert_eq!(spread.median, 1.5);
    }

    #[test]
    fn an_empty_spread_is_refused() {
        assert!(Spread::of([]).is_err());
    }
}
