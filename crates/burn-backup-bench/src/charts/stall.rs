//! How long a backup pauses the training, against the bytes of the state.

use anyhow::Result;
use plotters::prelude::SeriesLabelPosition;

use super::axis::{Axis, Scale};
use super::lines::{Lines, Note, Series};
use super::picture::{BLUE, VERMILION, picture};
use crate::number::significant;
use crate::row::Row;
use crate::stall::{NAME, WHAT};
use crate::state::{HUGE, LARGE, MEDIUM, SMALL, State};

/// The states that differ only in their number of equal tensors.
const ON_THE_LINE: [State; 4] = [SMALL, MEDIUM, LARGE, HUGE];

/// One state.
struct Point {
    state: State,
    bytes: f64,
    /// In milliseconds.
    ours: f64,
    burns: f64,
}

/// Draws the chart. Returns `None` if the stall was not measured.
pub fn draw(rows: &[Row]) -> Result<Option<String>> {
    let points: Vec<Point> = rows.iter().filter_map(Point::of).collect();
    if points.is_empty() {
        return Ok(None);
    }
    let notes = points.iter().flat_map(|point| {
        [point.ours, point.burns].map(|time| Note {
            at: (point.bytes, time),
            text: point.state.name.to_owned(),
        })
    });
    let chart = Lines {
        title: "How long one backup pauses the training",
        x: Axis {
            title: "size of the state (1M: a million parameters, with what Adam keeps of them)",
            scale: Scale::decades(3e5..6e9),
            label: &in_bytes,
        },
        y: Axis {
            title: "milliseconds",
            scale: Scale::decades(0.003..2000.0),
            label: &|time| significant(*time),
        },
        legend: SeriesLabelPosition::UpperLeft,
        notes: notes.collect(),
        series: vec![
            Series {
                name: "Burn's own checkpoint".to_owned(),
                color: VERMILION,
                points: select(&points, true, |point| point.burns),
                others: select(&points, false, |point| point.burns),
            },
            Series {
                name: "burn-backup-restore".to_owned(),
                color: BLUE,
                points: select(&points, true, |point| point.ours),
                others: select(&points, false, |point| point.ours),
            },
        ],
    };
    picture((860, 520), |canvas| chart.draw(canvas)).map(Some)
}

impl Point {
    fn of(row: &Row) -> Option<Self> {
        let is_stall = row.measurement == NAME && row.what == WHAT;
        let state = State::named(&row.state).ok().filter(|_| is_stall)?;
        Some(Self {
            state,
            bytes: state.bytes() as f64,
            ours: row.ours?.median,
            burns: row.burns?.median,
        })
    }
}

fn select(points: &[Point], is_on_line: bool, time: fn(&Point) -> f64) -> Vec<(f64, f64)> {
    let mut selected: Vec<(f64, f64)> = points
        .iter()
        .filter(|point| ON_THE_LINE.contains(&point.state) == is_on_line)
        .map(|point| (point.bytes, time(point)))
        .collect();
    selected.sort_by(|one, other| one.0.total_cmp(&other.0));
    selected
}

fn in_bytes(bytes: &f64) -> String {
    match *bytes {
        bytes if bytes < 1e9 => format!("{} MB", significant(bytes / 1e6)),
        bytes => format!("{} GB", significant(bytes / 1e9)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::picture::tests::check;
    use super::*;
    use crate::spread::Spread;

    fn row(state: State, ours: f64, burns: f64) -> Row {
        Row::new(NAME, state.name, WHAT, "ms")
            .ours(Spread::single(ours))
            .burns(Spread::single(burns))
    }

    #[test]
    fn the_chart_names_both_series_and_each_state() {
        let rows = [row(SMALL, 0.01, 5.0), row(LARGE, 0.06, 166.0)];
        let svg = draw(&rows).unwrap().unwrap();
        let legend = ["burn-backup-restore", "Burn's own checkpoint"];
        check(&svg, &[legend[0], &legend[1].replace('\'', "&apos;")]);
        check(
            &svg,
            &["1M", "63M", "1 MB", "1 GB", "0.01", "100", "milliseconds"],
        );
    }

    #[test]
    fn the_line_joins_states_of_equal_tensors_from_small_to_large() {
        let rows = [
            row(LARGE, 0.06, 166.0),
            row(crate::state::LUMPED, 0.02, 500.0),
            row(SMALL, 0.01, 5.0),
        ];
        let points: Vec<Point> = rows.iter().filter_map(Point::of).collect();
        let line = select(&points, true, |point| point.ours);
        assert_eq!(line, [(12_595_200.0, 0.01), (755_712_000.0, 0.06)]);
        assert_eq!(select(&points, false, |point| point.ours).len(), 1);
    }

    #[test]
    fn without_measurements_there_is_no_chart() {
        let other = Row::new("persist", "1M", WHAT, "ms").ours(Spread::single(1.0));
        assert_eq!(draw(&[other]).unwrap(), None);
    }
}
