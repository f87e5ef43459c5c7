//! The outcomes in the table: goodput, and the time of a restart.

use crate::goodput::contender::Contender;
use crate::goodput::outcome::Outcome;
use crate::row::{Goal, Row};
use crate::spread::Spread;

/// The name of the measurement.
pub const NAME: &str = "goodput";

/// The lowest ratio of Auto's goodput to that of the best fixed interval.
const MIN_OF_BEST: f64 = 0.97;
/// The lowest goodput of Auto if the MTBF is at least this many seconds.
const MIN_GOODPUT: f64 = 0.97;
const RARE: f64 = 60.0;

/// Two lines for each of our outcomes, with Burn's own beside them. One more line compares Auto
/// with the best fixed interval.
pub fn rows(outcomes: &[Outcome]) -> Vec<Row> {
    by_failures(outcomes)
        .iter()
        .flat_map(|group| rows_of(group))
        .collect()
}

/// The outcomes of each mean time between failures, shortest first.
pub fn by_failures(outcomes: &[Outcome]) -> Vec<Vec<&Outcome>> {
    let mut sorted: Vec<&Outcome> = outcomes.iter().collect();
    sorted.sort_by(|one, other| one.mtbf.total_cmp(&other.mtbf));
    sorted
        .chunk_by(|one, other| one.mtbf == other.mtbf)
        .map(<[_]>::to_vec)
        .collect()
}

/// The outcome of the fixed interval with the best goodput.
pub fn best_fixed<'a>(outcomes: &[&'a Outcome]) -> Option<&'a Outcome> {
    outcomes
        .iter()
        .copied()
        .filter(|outcome| outcome.contender.is_fixed())
        .max_by(|one, other| one.goodput.total_cmp(&other.goodput))
}

fn find<'a>(outcomes: &[&'a Outcome], contender: Contender) -> Option<&'a Outcome> {
    outcomes
        .iter()
        .copied()
        .find(|outcome| outcome.contender == contender)
}

fn rows_of(outcomes: &[&Outcome]) -> Vec<Row> {
    let burns = find(outcomes, Contender::Burns);
    let ours = || {
        let is_ours = |outcome: &&Outcome| outcome.contender != Contender::Burns;
        outcomes.iter().copied().filter(is_ours)
    };
    let mut rows: Vec<Row> = match burns {
        // Without our outcomes, there are no lines to put Burn's into.
        Some(burns) if ours().next().is_none() => vec![line(burns, burns.contender.to_string())],
        _ => Vec::new(),
    };
    rows.extend(ours().map(|outcome| goodput(outcome, burns)));
    let autos = [Contender::Auto, Contender::AutoTenth];
    rows.extend(
        autos
            .into_iter()
            .filter_map(|auto| against_the_best(outcomes, auto)),
    );
    rows.extend(ours().filter_map(|outcome| recovery(outcome, burns)));
    rows
}

fn line(outcome: &Outcome, what: String) -> Row {
    let state = format!("{}, MTBF {} s", outcome.state, outcome.mtbf);
    let row = Row::new(NAME, state, what, "of time");
    match outcome.contender {
        Contender::Burns => row.burns(Spread::single(outcome.goodput)),
        _ => row.ours(Spread::single(outcome.goodput)),
    }
}

fn goodput(outcome: &Outcome, burns: Option<&Outcome>) -> Row {
    let row = line(outcome, outcome.label());
    let row = match burns {
        Some(burns) => row.burns(Spread::single(burns.goodput)),
        None => row,
    };
    if outcome.contender == Contender::Auto && outcome.mtbf >= RARE {
        return row.goal(Goal::OursAtLeast(MIN_GOODPUT));
    }
    row
}

fn against_the_best(outcomes: &[&Outcome], auto: Contender) -> Option<Row> {
    let auto = find(outcomes, auto)?;
    let best = best_fixed(outcomes)?;
    let what = format!("{}, against the best", auto.contender);
    let over = format!("{} batches", best.interval?);
    let row = line(auto, what)
        .ratio(over, Spread::single(auto.goodput / best.goodput))
        .goal(Goal::RatioAtLeast(MIN_OF_BEST));
    Some(row)
}

fn recovery(outcome: &Outcome, burns: Option<&Outcome>) -> Option<Row> {
    let state = format!("{}, MTBF {} s", outcome.state, outcome.mtbf);
    let what = format!("recovery, {}", outcome.label());
    let row = Row::new(NAME, state, what, "s").ours(outcome.recovery?);
    Some(match burns.and_then(|burns| burns.recovery) {
        Some(burns) => row.burns(burns),
        None => row,
    })
}
