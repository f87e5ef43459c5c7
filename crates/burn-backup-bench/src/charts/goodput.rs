//! Goodput against the mean time between failures, with one line for each policy.

use anyhow::Result;
use plotters::prelude::{RGBColor, SeriesLabelPosition};

use super::axis::{Axis, Scale};
use super::lines::{Lines, Series};
use super::picture::{BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, picture};
use crate::goodput::{Contender, Outcome, best_fixed, by_failures};
use crate::number::significant;

const BEST: &str = "best fixed interval of the sweep";

/// Draws the chart. Returns `None` if goodput was not measured.
pub fn draw(outcomes: &[Outcome]) -> Result<Option<String>> {
    let groups = by_failures(outcomes);
    let times: Vec<f64> = groups
        .iter()
        .filter_map(|group| Some(group.first()?.mtbf))
        .collect();
    let Some((first, last)) = times.first().zip(times.last()) else {
        return Ok(None);
    };
    let mut title = "mean time between kills".to_owned();
    if let Some(epoch) = outcomes.first().map(|outcome| outcome.epoch) {
        title += &format!(" (an epoch takes {} s)", significant(epoch));
    }
    let tenths = (0..=10).map(|tick| f64::from(tick) / 10.0);
    let chart = Lines {
        title: "A training whose process is killed again and again",
        x: Axis {
            title: &title,
            scale: Scale::logarithmic(first / 1.5..last * 1.5, times.clone()),
            label: &|time| format!("{} s", significant(*time)),
        },
        y: Axis {
            title: "useful share of the time",
            scale: Scale::linear(0.0..1.0, tenths.collect()),
            label: &|share| format!("{:.0} %", 100.0 * share),
        },
        legend: SeriesLabelPosition::LowerRight,
        notes: Vec::new(),
        series: series(&groups),
    };
    picture((860, 520), |canvas| chart.draw(canvas)).map(Some)
}

fn series(groups: &[Vec<&Outcome>]) -> Vec<Series> {
    let line = |name: String, color, find: &dyn Fn(&[&Outcome]) -> Option<f64>| Series {
        name,
        color,
        points: groups
            .iter()
            .filter_map(|group| Some((group.first()?.mtbf, find(group)?)))
            .collect(),
        others: Vec::new(),
    };
    let best = line(BEST.to_owned(), GREY, &|group| {
        let has_sweep = group
            .iter()
            .any(|outcome| outcome.contender == Contender::Sweep);
        Some(best_fixed(group).filter(|_| has_sweep)?.goodput)
    });
    let lines = Contender::all().into_iter().filter_map(|contender| {
        let color = color(contender)?;
        let goodput = |group: &[&Outcome]| {
            let is_its = |outcome: &&&Outcome| outcome.contender == contender;
            Some(group.iter().find(is_its)?.goodput)
        };
        Some(line(contender.to_string(), color, &goodput))
    });
    std::iter::once(best)
        .chain(lines)
        .filter(|series| !series.points.is_empty())
        .collect()
}

/// The colour of a line. The sweep has no line of its own.
fn color(contender: Contender) -> Option<RGBColor> {
    match contender {
        Contender::Auto => Some(BLUE),
        Contender::AutoTenth => Some(PURPLE),
        Contender::YoungDaly => Some(GREEN),
        Contender::Continuous => Some(ORANGE),
        Contender::Epoch => Some(SKY),
        Contender::Burns => Some(VERMILION),
        Contender::Sweep => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::picture::tests::check;
    use super::*;
    use crate::goodput::tests::outcome;

    #[test]
    fn the_chart_has_a_line_for_each_policy_and_one_for_the_best_of_the_sweep() {
        let outcomes = [
            outcome(15.0, Contender::Auto, None, 0.9),
            outcome(5.0, Contender::Auto, None, 0.7),
            outcome(5.0, Contender::Burns, None, 0.2),
            outcome(5.0, Contender::YoungDaly, Some(20), 0.8),
            outcome(5.0, Contender::Sweep, Some(40), 0.85),
        ];
        let svg = draw(&outcomes).unwrap().unwrap();
        check(
            &svg,
            &["auto(0.01)", "Burn&apos;s own, epoch", "Young/Daly", BEST],
        );
        check(&svg, &["mean time between kills (an epoch takes 10 s)"]);
        check(&svg, &["5 s", "15 s", "50 %"]);
        assert!(!svg.contains("continuous"));

        let lines = series(&by_failures(&outcomes));
        let points = |name: &str| {
            let series = lines.iter().find(|series| series.name == name).unwrap();
            series.points.clone()
        };
        assert_eq!(points("auto(0.01)"), [(5.0, 0.7), (15.0, 0.9)]);
        assert_eq!(points(BEST), [(5.0, 0.85)]);
    }

    #[test]
    fn without_outcomes_there_is_no_chart() {
        assert_eq!(draw(&[]).unwrap(), None);
    }
}
