//! Charts of grouped bars with a value above each bar.

use anyhow::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::{Axis, Scale};
use super::picture::{Canvas, FONT, GRID, LETTERS, NOTES, TITLE, draw_legend};
use crate::number::significant;

/// The share of a group's width that its bars fill.
const FILLED: f64 = 0.84;

/// One bar in each group.
pub struct Bars {
    /// The name in the legend.
    pub name: &'static str,
    pub color: RGBColor,
    /// One height for each group.
    pub heights: Vec<Option<f64>>,
}

/// A chart of grouped bars.
pub struct Groups<'a> {
    pub title: &'a str,
    /// The names below the groups.
    pub names: Vec<String>,
    pub y: Axis<'a>,
    pub bars: Vec<Bars>,
}

impl Groups<'_> {
    /// Draws the chart.
    pub fn draw(&self, canvas: &Canvas<'_>) -> Result<()> {
        let groups = self.names.len();
        let middles = (0..groups).map(|group| group as f64 + 0.5).collect();
        let x = Scale::linear(0.0..groups as f64, middles);
        let mut chart = ChartBuilder::on(canvas)
            .caption(self.title, (FONT, TITLE))
            .margin(16)
            .x_label_area_size(36)
            .y_label_area_size(72)
            .build_cartesian_2d(x, self.y.scale.clone())?;
        let name = |middle: &f64| {
            self.names
                .get(*middle as usize)
                .cloned()
                .unwrap_or_default()
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .y_desc(self.y.title)
            .x_label_formatter(&name)
            .y_label_formatter(self.y.label)
            .x_labels(groups)
            .y_labels(self.y.scale.ticks())
            .axis_desc_style((FONT, LETTERS))
            .label_style((FONT, LETTERS))
            .draw()?;
        let width = FILLED / self.bars.len() as f64;
        for (number, bars) in self.bars.iter().enumerate() {
            let color = bars.color;
            let left = (1.0 - FILLED) / 2.0 + number as f64 * width;
            let heights = (0..).zip(&bars.heights);
            let heights = heights.filter_map(|(group, height)| {
                let left = f64::from(group) + left;
                Some((left, (*height)?))
            });
            let ground = self.y.scale.start();
            let bar = |(left, height)| {
                let corners = [(left, ground), (left + width * 0.92, height)];
                Rectangle::new(corners, color.filled())
            };
            chart
                .draw_series(heights.clone().map(bar))?
                .label(bars.name)
                .legend(move |(x, y)| {
                    Rectangle::new([(x + 4, y - 6), (x + 24, y + 6)], color.filled())
                });
            let style = (FONT, NOTES).into_text_style(canvas);
            let style = style.pos(Pos::new(HPos::Center, VPos::Bottom));
            chart.draw_series(heights.map(|(left, height)| {
                let top = (left + width * 0.46, height);
                EmptyElement::at(top) + Text::new(significant(height), (0, -4), style.clone())
            }))?;
        }
        draw_legend(&mut chart, SeriesLabelPosition::UpperLeft)
    }
}
