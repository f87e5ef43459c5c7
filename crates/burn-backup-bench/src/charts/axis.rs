//! Axes with grid lines where the chart needs them.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};

/// The description of an axis.
pub struct Axis<'a> {
    /// The title, with the unit.
    pub title: &'a str,
    pub scale: Scale,
    /// The label of a grid line.
    pub label: &'a dyn Fn(&f64) -> String,
}

/// The positions of values on an axis.
#[derive(Debug, Clone)]
pub struct Scale {
    range: Range<f64>,
    ticks: Vec<f64>,
    is_logarithmic: bool,
}

impl Scale {
    /// A linear axis with grid lines at `ticks`.
    pub fn linear(range: Range<f64>, ticks: Vec<f64>) -> Self {
        Self {
            range,
            ticks,
            is_logarithmic: false,
        }
    }

    /// A logarithmic axis with grid lines at `ticks`.
    pub fn logarithmic(range: Range<f64>, ticks: Vec<f64>) -> Self {
        Self {
            range,
            ticks,
            is_logarithmic: true,
        }
    }

    /// A logarithmic axis with grid lines at the powers of ten.
    pub fn decades(range: Range<f64>) -> Self {
        let powers = range.start.log10().ceil() as i32..=range.end.log10().floor() as i32;
        let ticks = powers.map(|power| 10_f64.powi(power)).collect();
        Self::logarithmic(range, ticks)
    }

    /// The lowest value of the axis.
    pub fn start(&self) -> f64 {
        self.range.start
    }

    /// The number of grid lines.
    pub fn ticks(&self) -> usize {
        self.ticks.len()
    }

    /// The position of a value, from 0 at the beginning of the axis to 1 at its end.
    fn share(&self, value: f64) -> f64 {
        let Range { start, end } = self.range;
        if self.is_logarithmic {
            return (value / start).ln() / (end / start).ln();
        }
        (value - start) / (end - start)
    }
}

impl Ranged for Scale {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        from + (f64::from(to - from) * self.share(*value)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match hint.weight().allow_light_points() {
            true => Vec::new(),
            false => self.ticks.clone(),
        }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_linear_or_logarithmic() {
        let linear = Scale::linear(0.0..4.0, Vec::new());
        assert_eq!(linear.map(&1.0, (100, 500)), 200);
        // Pixels are counted downwards.
        assert_eq!(linear.map(&1.0, (500, 100)), 400);
        let logarithmic = Scale::logarithmic(0.1..1000.0, Vec::new());
        assert_eq!(logarithmic.map(&1.0, (100, 500)), 200);
    }

    #[test]
    fn decades_lie_inside_the_range() {
        assert_eq!(Scale::decades(0.005..20.0).ticks, [0.01, 0.1, 1.0, 10.0]);
    }
}
