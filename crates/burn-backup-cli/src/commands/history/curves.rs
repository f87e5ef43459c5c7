//! The values of metrics, from the backup and from Burn's logs.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::training::Series;

/// A metric's values in one split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve {
    #[serde(skip)]
    pub metric: String,
    /// `train` or `valid`.
    pub split: String,
    /// `backup` or `logs`.
    pub from: &'static str,
    pub values: Vec<Value>,
}

/// The value of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Value {
    pub epoch: u64,
    /// `null` if it is not finite.
    pub value: Option<f64>,
}

impl Curve {
    pub fn new(metric: &str, split: &str, from: &'static str, values: BTreeMap<u64, f64>) -> Self {
        let values = values.into_iter().map(|(epoch, value)| Value {
            epoch,
            value: Some(value).filter(|value| value.is_finite()),
        });
        Self {
            metric: metric.to_owned(),
            split: split.to_owned(),
            from,
            values: values.collect(),
        }
    }

    /// The points that can be drawn.
    pub fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.values
            .iter()
            .filter_map(|value| Some((value.epoch as f64, value.value?)))
    }
}

/// The curves of the backup, and those of the logs that the backup does not have, by metric and split.
pub fn curves(history: &[Series], logged: Vec<Curve>) -> Vec<Curve> {
    let of_backup = history.iter().map(|series| {
        let values = series.values.iter().map(|(epoch, value)| (*epoch, value.0));
        Curve::new(&series.metric, &series.split, "backup", values.collect())
    });
    let mut curves: Vec<_> = of_backup.filter(|curve| !curve.values.is_empty()).collect();
    for curve in logged {
        let is_there =
            |other: &Curve| (&other.metric, &other.split) == (&curve.metric, &curve.split);
        if !curves.iter().any(is_there) {
            curves.push(curve);
        }
    }
    curves.sort_by(|a, b| (&a.metric, &a.split).cmp(&(&b.metric, &b.split)));
    curves
}

/// The least and the greatest number. If they are equal, the range is widened. `None` if there are no numbers.
pub fn range(numbers: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let bounds = |bounds: Option<(f64, f64)>, number: f64| match bounds {
        None => Some((number, number)),
        Some((least, greatest)) => Some((least.min(number), greatest.max(number))),
    };
    let (least, greatest) = numbers.fold(None, bounds)?;
    if greatest - least > 0.0 {
        return Some((least, greatest));
    }
    let room = match least.abs() {
        0.0 => 1.0,
        size => size * 0.1,
    };
    Some((least - room, greatest + room))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backup_takes_precedence_over_the_logs() {
        let series = |metric: &str| -> Series {
            let json =
                serde_json::json!({ "metric": metric, "split": "train", "values": { "1": "0.5" } });
            serde_json::from_value(json).unwrap()
        };
        let logged = |metric: &str, split| Curve::new(metric, split, "logs", [(1, 7.0)].into());
        let all = curves(
            &[series("Loss")],
            vec![
                logged("Loss", "train"),
                logged("Loss", "valid"),
                logged("Accuracy", "train"),
            ],
        );
        let from: Vec<_> = all
            .iter()
            .map(|curve| (curve.metric.as_str(), curve.split.as_str(), curve.from))
            .collect();
        assert_eq!(
            from,
            [
                ("Accuracy", "train", "logs"),
                ("Loss", "train", "backup"),
                ("Loss", "valid", "logs")
            ]
        );
    }

    #[test]
    fn a_range_is_never_empty() {
        assert_eq!(range([].into_iter()), None);
        assert_eq!(range([3.0, 1.0].into_iter()), Some((1.0, 3.0)));
        assert_eq!(range([0.0, 0.0].into_iter()), Some((-1.0, 1.0)));
        assert_eq!(range([10.0].into_iter()), Some((9.0, 11.0)));
    }
}
