//! Draws the charts as SVG.

use anyhow::{Context as _, Result};
use plotters::prelude::*;

use super::Chart;
use super::curves::{Curve, range};

const WIDTH: u32 = 900;
/// The height of each chart.
const HEIGHT: u32 = 360;
const FONT: &str = "sans-serif";

/// The colours of Okabe and Ito, which people with any kind of colour blindness can distinguish.
const BLUE: RGBColor = RGBColor(0, 114, 178);
const VERMILION: RGBColor = RGBColor(213, 94, 0);
const GREY: RGBColor = RGBColor(110, 110, 110);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// All charts, one below the other.
pub fn draw(charts: &[Chart<'_>]) -> Result<String> {
    let rows = u32::try_from(charts.len().max(1))?;
    let height = HEIGHT
        .checked_mul(rows)
        .context("there are too many metrics")?;
    let mut svg = String::new();
    {
        let canvas = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        canvas.fill(&WHITE)?;
        let areas = canvas.split_evenly((charts.len().max(1), 1));
        for (chart, area) in charts.iter().zip(&areas) {
            draw_one(chart, area)?;
        }
        canvas.present()?;
    }
    Ok(svg)
}

fn draw_one(
    chart: &Chart<'_>,
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
) -> Result<()> {
    let points = || chart.curves.iter().flat_map(Curve::points);
    let xs = range(
        points()
            .map(|(x, _)| x)
            .chain(chart.resumed.iter().copied()),
    );
    let (Some(xs), Some(ys)) = (xs, range(points().map(|(_, y)| y))) else {
        return Ok(());
    };
    let room = (ys.1 - ys.0) * 0.05;
    let ys = (ys.0 - room, ys.1 + room);
    // Such large values have no scale.
    if !(ys.1 - ys.0).is_finite() {
        return Ok(());
    }
    let mut context = ChartBuilder::on(area)
        .caption(chart.title, (FONT, 20))
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(80)
        .build_cartesian_2d(xs.0..xs.1, ys.0..ys.1)?;
    context
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .x_desc("epoch")
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 14))
        .draw()?;
    for at in &chart.resumed {
        let line = [(*at, ys.0), (*at, ys.1)];
        context.draw_series(DashedLineSeries::new(line, 4, 4, GREY.stroke_width(1)))?;
    }
    for curve in chart.curves {
        let color = match curve.split.as_str() {
            "valid" => VERMILION,
            _ => BLUE,
        };
        context.draw_series(LineSeries::new(curve.points(), color.stroke_width(2)))?;
        context
            .draw_series(
                curve
                    .points()
                    .map(|point| Circle::new(point, 3, color.filled())),
            )?
            .label(curve.split.as_str())
            .legend(move |at| {
                EmptyElement::at(at) + PathElement::new([(0, 0), (20, 0)], color.stroke_width(2))
            });
    }
    if !chart.resumed.is_empty() {
        context
            .draw_series(std::iter::empty::<Circle<(f64, f64), i32>>())?
            .label("resumed")
            .legend(|at| {
                EmptyElement::at(at) + PathElement::new([(10, -5), (10, 5)], GREY.stroke_width(1))
            });
    }
    context
        .configure_series_labels()
        .background_style(WHITE.mix(0.85))
        .border_style(GRID)
        .label_font((FONT, 14))
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_has_a_chart_for_each_metric() {
        let curve = |split: &str| Curve::new("Loss", split, "backup", [(1, 2.0), (2, 1.0)].into());
        let curves = [curve("train"), curve("valid")];
        let chart = |title| Chart {
            title,
            curves: &curves,
            resumed: vec![0.5],
        };
        let svg = draw(&[chart("Loss"), chart("<Other>")]).unwrap();
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
        assert!(!svg.contains("NaN") && !svg.contains("<Other>"));
        for text in ["Loss", "train", "valid", "resumed", "epoch"] {
            assert!(svg.lines().any(|line| line == text), "{text} in {svg}");
        }
    }

    #[test]
    fn without_values_the_picture_is_empty() {
        let curves = [Curve::new(
            "Loss",
            "train",
            "backup",
            [(1, f64::NAN)].into(),
        )];
        for curves in [&curves[..], &[]] {
            let svg = draw(&[Chart {
                title: "Loss",
                curves,
                resumed: Vec::new(),
            }])
            .unwrap();
            assert!(svg.starts_with("<svg "));
        }
    }
}
