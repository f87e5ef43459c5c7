//! How long a backup pauses the training thread. The previous backup is committed before, so no
//! wait for it is included.

use anyhow::{Context as _, Result};

use crate::bench::Bench;
use crate::goals::Goals;
use crate::row::{Goal, Row};
use crate::spread::Spread;
use crate::state::{LARGE, LUMPED, SMALL, State};
use crate::{burns, ours};

/// The name of the measurement.
pub const NAME: &str = "stall";
/// The quantity in its rows of single states.
pub const WHAT: &str = "pause per backup";

/// The highest growth from 1 to 63 million parameters in as many tensors.
const MAX_GROWTH: f64 = 3.0;

/// The pauses by ours and Burn's on one state, in milliseconds.
struct StallTimes {
    state: State,
    ours: Spread,
    burns: Spread,
}

/// Measures the pauses on all states.
pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let mut states = bench.states();
    if states.contains(&LARGE) {
        states.push(LUMPED);
    }
    let held = states
        .into_iter()
        .map(|state| measure_state(bench, state))
        .collect::<Result<Vec<_>>>()?;
    let mut rows: Vec<Row> = held.iter().map(row).collect();
    rows.extend(growth(&held));
    Ok(rows)
}

fn measure_state(bench: &Bench, state: State) -> Result<StallTimes> {
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
    Ok(StallTimes {
        state,
        ours: Spread::of_milliseconds(ours).context(NAME)?,
        burns: Spread::of_milliseconds(burns).context(NAME)?,
    })
}

fn row(held: &StallTimes) -> Row {
    let ratio = Spread::single(held.ours.median / held.burns.median);
    Row::new(NAME, held.state.name, WHAT, "ms")
        .ours(held.ours)
        .burns(held.burns)
        .ratio("Burn's", ratio)
        .goal(Goal::OursAtMost(Goals::of(&held.state).stall))
}

/// The ratio of pauses between many and few parameters in as many tensors.
fn growth(held: &[StallTimes]) -> Option<Row> {
    let median = |state| {
        let held = held.iter().find(|held| held.state == state)?;
        Some(held.ours.median)
    };
    let growth = median(LUMPED)? / median(SMALL)?;
    let row = Row::new(NAME, LUMPED.name, "pause, against 1M", "")
        .ratio("1M", Spread::single(growth))
        .goal(Goal::RatioAtMost(MAX_GROWTH));
    Some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(state: State, ours: f64) -> StallTimes {
        StallTimes {
            state,
            ours: Spread::single(ours),
            burns: Spread::single(100.0),
        }
    }

    #[test]
    fn growth_compares_states_of_as_many_tensors() {
        let held = [held(SMALL, 0.1), held(LARGE, 5.0), held(LUMPED, 0.2)];
        let row = growth(&held).unwrap();
        assert_eq!(row.ratio.as_ref().unwrap().spread.median, 2.0);
        assert_eq!(row.is_met(), Some(true));
        assert_eq!(growth(&held[..2]), None);
    }

    #[test]
    fn each_state_has_its_own_bound() {
        assert_eq!(row(&held(SMALL, 0.03)).is_met(), Some(false));
        assert_eq!(row(&held(LARGE, 0.03)).is_met(), Some(true));
    }
}
