//! The parts that all charts share: a white background, fonts, and colours.

use anyhow::Result;
use plotters::coord::Shift;
use plotters::prelude::*;

use super::axis::Scale;

/// The canvas of a chart.
pub type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The size of the title in pixels.
pub const TITLE: u32 = 20;
/// The size of axis labels and legends in pixels.
pub const LETTERS: u32 = 14;
/// The size of the texts beside points and bars in pixels.
pub const NOTES: u32 = 12;

pub const FONT: &str = "sans-serif";

/// The colours of Okabe and Ito, which remain distinct with any kind of colour blindness.
pub const BLUE: RGBColor = RGBColor(0, 114, 178);
pub const VERMILION: RGBColor = RGBColor(213, 94, 0);
pub const GREEN: RGBColor = RGBColor(0, 158, 115);
pub const PURPLE: RGBColor = RGBColor(204, 121, 167);
pub const ORANGE: RGBColor = RGBColor(230, 159, 0);
pub const SKY: RGBColor = RGBColor(86, 180, 233);
/// The colour of bounds, which are not contenders.
pub const GREY: RGBColor = RGBColor(110, 110, 110);

/// The colour of grid lines.
pub const GRID: RGBColor = RGBColor(225, 225, 225);

/// A chart with these axes.
pub type Chart<'c, 'a> = ChartContext<'c, SVGBackend<'a>, Cartesian2d<Scale, Scale>>;

/// Draws the legend of everything drawn so far.
pub fn draw_legend<'c, 'a: 'c>(
    chart: &mut Chart<'c, 'a>,
    position: SeriesLabelPosition,
) -> Result<()> {
    chart
        .configure_series_labels()
        .position(position)
        .background_style(WHITE.mix(0.85))
        .border_style(GRID)
        .label_font((FONT, LETTERS))
        .legend_area_size(34)
        .margin(10)
        .draw()?;
    Ok(())
}

/// Draws with `draw` on a white background of `width` by `height` pixels. Returns the SVG.
pub fn picture(
    (width, height): (u32, u32),
    draw: impl FnOnce(&Canvas<'_>) -> Result<()>,
) -> Result<String> {
    let mut svg = String::new();
    {
        let canvas = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        // Some readers' pages are dark, and so are the letters.
        canvas.fill(&WHITE)?;
        draw(&canvas)?;
        canvas.present()?;
    }
    Ok(svg)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Checks that `svg` is an SVG that contains `texts`.
    pub fn check(svg: &str, texts: &[&str]) {
        assert!(svg.starts_with("<svg "), "{svg}");
        assert!(svg.trim_end().ends_with("</svg>"), "{svg}");
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        for text in texts {
            // Each text has its own line.
            assert!(svg.lines().any(|line| line == *text), "{text:?} in {svg}");
        }
    }

    #[test]
    fn a_picture_has_a_white_ground() {
        let svg = picture((30, 20), |_| Ok(())).unwrap();
        check(&svg, &[]);
        assert!(svg.contains("fill=\"#FFFFFF\""), "{svg}");
    }
}
