//! How fast backups are written and restored, compared with Burn's own, the disk, and the memory.

use anyhow::Result;

use super::axis::{Axis, Scale};
use super::bars::{Bars, Groups};
use super::picture::{BLUE, Canvas, GREY, VERMILION, picture};
use crate::number::significant;
use crate::row::Row;
use crate::spread::Spread;
use crate::{persist, restore};

const OURS: &str = "burn-backup-restore";
const BURNS: &str = "Burn's own checkpoint";

/// Draws the chart. Returns `None` if neither was measured.
pub fn draw(rows: &[Row]) -> Result<Option<String>> {
    let written = of(rows, persist::NAME);
    let restored = of(rows, restore::NAME);
    if written.is_empty() && restored.is_empty() {
        return Ok(None);
    }
    let (width, height) = (680, 460);
    let panels = u32::from(!written.is_empty()) + u32::from(!restored.is_empty());
    let picture = picture((width * panels, height), |canvas| {
        let (left, right) = canvas.split_horizontally(width);
        if !written.is_empty() {
            draw_written(&written, &left)?;
        }
        match written.is_empty() {
            _ if restored.is_empty() => Ok(()),
            true => draw_restored(&restored, &left),
            false => draw_restored(&restored, &right),
        }
    })?;
    Ok(Some(picture))
}

fn of<'a>(rows: &'a [Row], measurement: &str) -> Vec<&'a Row> {
    rows.iter()
        .filter(|row| row.measurement == measurement)
        .collect()
}

fn draw_written(rows: &[&Row], canvas: &Canvas<'_>) -> Result<()> {
    // Leave room for the legend above the highest bar.
    let top = 1.45 * highest(rows);
    let step = step(top);
    let ticks = (0..).map(|tick| f64::from(tick) * step);
    let ticks = ticks.take_while(|tick| *tick <= top);
    let groups = Groups {
        title: "Writing a backup (more is better)",
        names: names(rows),
        y: Axis {
            title: "MB/s",
            scale: Scale::linear(0.0..top, ticks.collect()),
            label: &|speed| significant(*speed),
        },
        bars: bars(rows, "limit: one file, synced"),
    };
    groups.draw(canvas)
}

fn draw_restored(rows: &[&Row], canvas: &Canvas<'_>) -> Result<()> {
    let groups = Groups {
        title: "From launch to the first trained batch (less is better)",
        names: names(rows),
        y: Axis {
            title: "milliseconds",
            scale: Scale::decades(0.1..30.0 * highest(rows)),
            label: &|time| significant(*time),
        },
        bars: bars(rows, "limit: reading the files"),
    };
    groups.draw(canvas)
}

/// The distance between grid lines: 1, 2 or 5 times a power of ten. There are 4 to 10 lines below `top`.
fn step(top: f64) -> f64 {
    let power = 10_f64.powf((top / 4.0).log10().floor());
    [5.0, 2.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| step * 4.0 <= top)
        .unwrap_or(power)
}

fn names(rows: &[&Row]) -> Vec<String> {
    rows.iter().map(|row| row.state.clone()).collect()
}

fn bars(rows: &[&Row], limit: &'static str) -> Vec<Bars> {
    let heights = |spread: fn(&Row) -> Option<Spread>| {
        let median = |row: &&Row| Some(spread(row)?.median);
        rows.iter().map(median).collect()
    };
    vec![
        Bars {
            name: OURS,
            color: BLUE,
            heights: heights(|row| row.ours),
        },
        Bars {
            name: BURNS,
            color: VERMILION,
            heights: heights(|row| row.burns),
        },
        Bars {
            name: limit,
            color: GREY,
            heights: heights(|row| row.limit),
        },
    ]
}

fn highest(rows: &[&Row]) -> f64 {
    rows.iter()
        .flat_map(|row| [row.ours, row.burns, row.limit])
        .flatten()
        .map(|spread| spread.median)
        .fold(1.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::super::picture::tests::check;
    use super::*;

    fn row(measurement: &'static str, state: &str) -> Row {
        Row::new(measurement, state, "speed", "MB/s")
            .ours(Spread::single(1234.0))
            .burns(Spread::single(1511.0))
            .limit(Spread::single(1840.0))
    }

    #[test]
    fn the_chart_names_its_series_and_states_and_shows_each_value() {
        let rows = [row(persist::NAME, "10M"), row(restore::NAME, "63M")];
        let svg = draw(&rows).unwrap().unwrap();
        check(&svg, &[OURS, "Burn&apos;s own checkpoint"]);
        check(
            &svg,
            &["limit: one file, synced", "limit: reading the files"],
        );
        check(&svg, &["10M", "63M", "MB/s", "milliseconds"]);
        check(&svg, &["1234", "1511", "1840"]);
    }

    #[test]
    fn grid_lines_are_at_round_numbers() {
        for (top, expected) in [
            (2668.0, 500.0),
            (4000.0, 1000.0),
            (900.0, 200.0),
            (1.0, 0.2),
        ] {
            assert_eq!(step(top), expected, "{top}");
        }
    }

    #[test]
    fn missing_measurements_are_left_out() {
        let svg = draw(&[row(restore::NAME, "63M")]).unwrap().unwrap();
        check(&svg, &["milliseconds"]);
        assert!(!svg.contains("MB/s"));
        assert_eq!(draw(&[row("stall", "63M")]).unwrap(), None);
    }
}
