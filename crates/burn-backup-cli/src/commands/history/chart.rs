//! Draws a chart with braille characters. Each character has 2 by 4 dots.

use super::Chart;
use super::curves::{Curve, range};
use crate::output::{Page, TextStyle};

const COLUMNS: usize = 64;
const ROWS: usize = 12;
const WIDTH: usize = COLUMNS * 2;
const HEIGHT: usize = ROWS * 4;

/// The width of the numbers at the left.
const MARGIN: usize = 11;

/// The bit of each dot of a character, by column and row.
const DOTS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
const EMPTY: u32 = 0x2800;

const RESUMED: char = '┊';

/// Draws the curves. The validation's curve has points only, so that it differs from the training's without colours.
pub fn draw(chart: &Chart<'_>, page: &mut Page) {
    let points = || chart.curves.iter().flat_map(Curve::points);
    // A chart needs at least two points.
    if chart.curves.iter().all(|curve| curve.points().count() < 2) {
        show_legend(chart, page, "");
        return;
    }
    let (Some(xs), Some(ys)) = (
        range(
            points()
                .map(|(x, _)| x)
                .chain(chart.resumed.iter().copied()),
        ),
        range(points().map(|(_, y)| y)),
    ) else {
        return;
    };
    let mut canvas = Canvas::new(xs, ys);
    for curve in chart.curves {
        let points: Vec<_> = curve.points().collect();
        match is_line(curve) {
            true => canvas.line(&points),
            false => points.iter().for_each(|point| canvas.cross(*point)),
        }
    }
    for at in &chart.resumed {
        canvas.mark(*at);
    }
    canvas.show(page);
    show_legend(chart, page, &" ".repeat(MARGIN + 2));
}

fn is_line(curve: &Curve) -> bool {
    curve.split != "valid"
}

fn show_legend(chart: &Chart<'_>, page: &mut Page, indent: &str) {
    for curve in chart.curves {
        let sign = match is_line(curve) {
            true => "⠤⠤",
            false => "⠿ ",
        };
        let last = curve.values.last();
        let last = last.map(|last| match last.value {
            Some(value) => format!("{value} in epoch {}", last.epoch),
            None => format!("no finite number in epoch {}", last.epoch),
        });
        page.line(format!(
            "{indent}{sign} {}: {}",
            curve.split,
            last.unwrap_or_default()
        ));
    }
    if !chart.resumed.is_empty() {
        page.line(format!("{indent}{RESUMED}  resumed"));
    }
}

struct Canvas {
    xs: (f64, f64),
    ys: (f64, f64),
    dots: Vec<u8>,
    marks: Vec<usize>,
}

impl Canvas {
    fn new(xs: (f64, f64), ys: (f64, f64)) -> Self {
        Self {
            xs,
            ys,
            dots: vec![0; COLUMNS * ROWS],
            marks: Vec::new(),
        }
    }

    /// The place of a point, in dots from the left and from the top.
    fn place(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let share =
            |value: f64, (least, greatest): (f64, f64)| (value - least) / (greatest - least);
        (
            share(x, self.xs) * (WIDTH - 1) as f64,
            (1.0 - share(y, self.ys)) * (HEIGHT - 1) as f64,
        )
    }

    fn dot(&mut self, x: f64, y: f64) {
        if !(x.is_finite() && y.is_finite()) || x < -0.5 || y < -0.5 {
            return;
        }
        let (x, y) = (x.round() as usize, y.round() as usize);
        if x >= WIDTH || y >= HEIGHT {
            return;
        }
        let bits = DOTS.get(x % 2).and_then(|column| column.get(y % 4));
        if let (Some(cell), Some(bits)) = (self.dots.get_mut(y / 4 * COLUMNS + x / 2), bits) {
            *cell |= bits;
        }
    }

    fn line(&mut self, points: &[(f64, f64)]) {
        if let [only] = points {
            self.cross(*only);
        }
        for (from, to) in points.iter().zip(points.iter().skip(1)) {
            let ((x, y), (to_x, to_y)) = (self.place(*from), self.place(*to));
            let steps = (to_x - x).abs().max((to_y - y).abs()).ceil().max(1.0) as usize;
            for step in 0..=steps {
                let share = step as f64 / steps as f64;
                self.dot(x + (to_x - x) * share, y + (to_y - y) * share);
            }
        }
    }

    fn cross(&mut self, point: (f64, f64)) {
        let (x, y) = self.place(point);
        for (right, down) in [(0.0, 0.0), (1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)] {
            self.dot(x + right, y + down);
        }
    }

    fn mark(&mut self, at: f64) {
        let (x, _) = self.place((at, self.ys.0));
        if x.is_finite() && x >= 0.0 {
            self.marks.push((x.round() as usize / 2).min(COLUMNS - 1));
        }
    }

    fn show(&self, page: &mut Page) {
        let (least, greatest) = self.ys;
        for (row, cells) in self.dots.chunks(COLUMNS).enumerate() {
            let label = match row {
                0 => short(greatest),
                row if row + 1 == ROWS => short(least),
                _ => String::new(),
            };
            let cell = |(column, bits): (usize, &u8)| match bits {
                0 if self.marks.contains(&column) => RESUMED,
                0 => ' ',
                bits => char::from_u32(EMPTY + u32::from(*bits)).unwrap_or(' '),
            };
            let drawn: String = cells.iter().enumerate().map(cell).collect();
            page.line(format!("{label:>MARGIN$} │{}", drawn.trim_end()));
        }
        page.line(format!("{:>MARGIN$} └{}", "", "─".repeat(COLUMNS)));
        let (first, last) = (short(self.xs.0), format!("epoch {}", short(self.xs.1)));
        let gap = COLUMNS.saturating_sub(first.len());
        page.line(TextStyle::Faint.paint(format!("{:>MARGIN$}  {first}{last:>gap$}", "")));
    }
}

/// A number in ten characters.
fn short(number: f64) -> String {
    let plain = format!("{number}");
    match plain.len() {
        0..=9 => plain,
        _ if (1e-3..1e6).contains(&number.abs()) => {
            format!("{number:.5}").chars().take(9).collect()
        }
        _ => format!("{number:.3e}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn drawn(train: &[f64], valid: &[f64], resumed: &[f64]) -> String {
        let values =
            |values: &[f64]| -> BTreeMap<u64, f64> { (1..).zip(values.iter().copied()).collect() };
        let curves = [
            Curve::new("Loss", "train", "backup", values(train)),
            Curve::new("Loss", "valid", "backup", values(valid)),
        ];
        let mut page = Page::default();
        draw(
            &Chart {
                title: "Loss",
                curves: &curves,
                resumed: resumed.to_vec(),
            },
            &mut page,
        );
        page.finish(false)
    }

    #[test]
    fn a_falling_line_falls() {
        let text = drawn(&[3.0, 2.0, 1.0], &[], &[1.5]);
        let lines: Vec<_> = text.lines().collect();
        let column = |line: &str, at: usize| line.chars().nth(MARGIN + 2 + at).unwrap_or(' ');
        assert!(column(lines[0], 0) != ' ' && column(lines[0], COLUMNS - 1) == ' ');
        assert!(column(lines[ROWS - 1], 0) == ' ' && column(lines[ROWS - 1], COLUMNS - 1) != ' ');
        assert!(text.contains(RESUMED));
        assert!(lines[0].starts_with("          3 │"), "{text}");
    }

    #[test]
    fn a_value_that_cannot_be_drawn_is_described() {
        assert!(
            drawn(&[f64::NAN], &[f64::INFINITY], &[])
                .contains("train: no finite number in epoch 1")
        );
        // A single point, equal values, and extreme values must not panic.
        for values in [
            &[5.0][..],
            &[0.0, 0.0, 0.0],
            &[1e300, -1e300],
            &[f64::MAX, f64::MIN],
        ] {
            let _ = drawn(values, values, &[0.5, 7.0]);
        }
    }

    #[test]
    fn numbers_fit_beside_the_chart() {
        for number in [
            0.0,
            1.0,
            -0.000_012_345,
            123_456_789.123,
            1.234_567_890_123,
            1e-300,
            f64::MAX,
        ] {
            assert!(short(number).len() <= MARGIN, "{}", short(number));
        }
    }
}
