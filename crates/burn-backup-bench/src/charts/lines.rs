//! Charts of lines, with a marker at each measured point.

use anyhow::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::Axis;
use super::picture::{Canvas, FONT, GRID, LETTERS, NOTES, TITLE, draw_legend};

const MARKER: i32 = 5;

/// One line.
pub struct Series {
    /// The name in the legend.
    pub name: String,
    pub color: RGBColor,
    pub points: Vec<(f64, f64)>,
    /// Points of the same series that are not on the line.
    pub others: Vec<(f64, f64)>,
}

/// A text beside a point.
pub struct Note {
    pub at: (f64, f64),
    pub text: String,
}

/// A chart of lines.
pub struct Lines<'a> {
    pub title: &'a str,
    pub x: Axis<'a>,
    pub y: Axis<'a>,
    pub legend: SeriesLabelPosition,
    pub series: Vec<Series>,
    pub notes: Vec<Note>,
}

impl Lines<'_> {
    /// Draws the chart.
    pub fn draw(&self, canvas: &Canvas<'_>) -> Result<()> {
        let mut chart = ChartBuilder::on(canvas)
            .caption(self.title, (FONT, TITLE))
            .margin(16)
            .x_label_area_size(48)
            .y_label_area_size(72)
            .build_cartesian_2d(self.x.scale.clone(), self.y.scale.clone())?;
        chart
            .configure_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .x_desc(self.x.title)
            .y_desc(self.y.title)
            .x_label_formatter(self.x.label)
            .y_label_formatter(self.y.label)
            .x_labels(self.x.scale.ticks())
            .y_labels(self.y.scale.ticks())
            .axis_desc_style((FONT, LETTERS))
            .label_style((FONT, LETTERS))
            .draw()?;
        for series in &self.series {
            let color = series.color;
            let line = || series.points.iter().copied();
            chart.draw_series(LineSeries::new(line(), color.stroke_width(2)))?;
            let points = line().chain(series.others.iter().copied());
            chart
                .draw_series(points.map(|point| Circle::new(point, MARKER, color.filled())))?
                .label(&series.name)
                .legend(move |at| {
                    EmptyElement::at(at)
                        + PathElement::new([(0, 0), (24, 0)], color.stroke_width(2))
                        + Circle::new((12, 0), MARKER, color.filled())
                });
        }
        for note in &self.notes {
            let style = (FONT, NOTES).into_text_style(canvas);
            let style = style.pos(Pos::new(HPos::Left, VPos::Top));
            // Below the point, where a rising line is not.
            let text = EmptyElement::at(note.at) + Text::new(note.text.clone(), (4, 7), style);
            chart.draw_series(std::iter::once(text))?;
        }
        draw_legend(&mut chart, self.legend.clone())
    }
}
