//! How long a backup holds the training thread. Waits for the backup before are no part of it: it
//! is committed before the next is taken.

use anyhow::{Context as _, Result};

use crate::bench::Bench;
use crate::goals::Goals;
use crate::row::{Goal, Row};
use crate::spread::Spread;
use crate::state::{LARGE, LUMPED, SMALL, State};
use crate::{burns, ours};

/// The measurement's name.
pub const NAME: &str = "stall";
/// What its rows of single states are about.
pub const WHAT: &str = "held per backup";

/// From 1 to 63 million parameters in as many tensors.
const MAX_GROWTH: f64 = 3.0;

/// What ours and Burn's take on one state, in milliseconds.
struct Held {
    state: State,
    ours: Spread,
    burns: Spread,
}

/// Measures it on all states.
pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let mut states = bench.states();
    if states.contains(&LARGE) {
        states.push(LUMPED);
    }
    let held = states
        .into_iter()
        .map(|state| held(bench, state))
        .collect::<Result<Vec<_>>>()?;
    let mut rows: Vec<Row> = held.iter().map(row).collect();
    rows.extend(growth(&held));
    Ok(rows)
}

fn held(bench: &Bench, state: State) -> Result<Held> {
    bench.announce(NAME, &state);
    let learner = state.learner();
    let repetitions = bench.repetitions();
    let batches = repetitions.batches();
    let (mut ours, mut burns) = (Vec::new(), Vec::new());
    for _ in 0..repetitions.rounds {
        let dir = bench.scratch()?;
        let held = ours::backups(&state, &learner, dir.path(), batches, |backup| {
            Ok(backup.held)
        })?;
        ours.extend(held.into_iter().skip(1));
        let held = burns::checkpoints(&state, &learner, dir.path(), batches, |checkpoint| {
            Ok(checkpoint.held)
        })?;
        burns.extend(held.into_iter().skip(1));
    }
    Ok(Held {
        state,
        ours: Spread::of_milliseconds(ours).context(NAME)?,
        burns: Spread::of_milliseconds(burns).context(NAME)?,
    })
}

fn row(held: &Held) -> Row {
    let ratio = Spread::single(held.ours.median / held.burns.median);
    Row::new(NAME, held.state.name, WHAT, "ms")
        .ours(held.ours)
        .burns(held.burns)
        .ratio("Burn's", ratio)
        .goal(Goal::OursAtMost(Goals::of(&held.state).stall))
}

/// How much more a backup of many parameters holds than one of few in as many tensors.
fn growth(held: &[Held]) -> Option<Row> {
    let median = |state| {
        let held = held.iter().find(|held| held.state == state)?;
        Some(held.ours.median)
    };
    let growth = median(LUMPED)? / median(SMALL)?;
    let row = Row::new(NAME, LUMPED.name, "held, against 1M", "")
        .ratio("1M", Spread::single(growth))
        .goal(Goal::RatioAtMost(MAX_GROWTH));
    Some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(state: State, ours: f64) -> Held {
        Held {
            state,
            ours: Spread::single(ours),
            burns: Spread::single(100.0),
        }
    }

    #[test]
    fn growth_is_that_of_the_same_number_of_tensors() {
        let held = [held(SMALL, 0.1), held(LARGE, 5.0), held(LUMPED, 0.2)];
        let row = growth(&held).unwrap();
        assert_eq!(row.ratio.as_ref().unwrap().spread.median, 2.0);
        assert_eq!(row.is_met(), Some(true));
        assert_eq!(growth(&held[..2]), None);
    }

    #[test]
    fn each_state_has_a_bound_of_its_own() {
        assert_eq!(row(&held(SMALL, 0.03)).is_met(), Some(false));
        assert_eq!(row(&held(LARGE, 0.03)).is_met(), Some(true));
    }
}
