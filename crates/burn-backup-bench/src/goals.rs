//! The goals for each state.

use crate::state::{LARGE, MEDIUM, SCATTERED, SMALL, State};

/// The goals for one state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goals {
    /// The highest ratio of training times: a backup after each batch, over Burn's own checkpoints.
    pub back_to_back: f64,
    /// The highest ratio of training times: a backup every ten persist times, over no backups.
    pub at_interval: f64,
    /// The lowest ratio of speeds: a backup, over writing and syncing as many bytes.
    pub persist: f64,
    /// The highest ratio of times from the launch to the first trained batch: ours, over Burn's
    /// own.
    pub restore: f64,
    /// The highest use of memory beyond the training's own, in sizes of the state.
    pub memory: f64,
    /// The longest pause of the training thread, in milliseconds.
    pub stall: f64,
}

const OF_SMALL: Goals = Goals {
    back_to_back: 1.0,
    at_interval: 1.03,
    persist: 0.75,
    restore: 1.1,
    memory: 1.6,
    stall: 0.02,
};

const OF_MEDIUM: Goals = Goals {
    back_to_back: 0.95,
    at_interval: 1.02,
    persist: 0.9,
    restore: 0.95,
    memory: 1.4,
    stall: 0.05,
};

/// The goals for large and larger states, because only the bytes may grow.
const OF_LARGE: Goals = Goals {
    back_to_back: 0.9,
    at_interval: 1.02,
    persist: 1.0,
    restore: 0.9,
    memory: 1.35,
    stall: 0.1,
};

const OF_SCATTERED: Goals = Goals {
    back_to_back: 0.7,
    at_interval: 1.02,
    persist: 0.15,
    restore: 1.0,
    memory: 2.0,
    stall: 0.3,
};

impl Goals {
    /// The goals for `state`.
    pub fn of(state: &State) -> Self {
        let goals = [
            (SMALL, OF_SMALL),
            (MEDIUM, OF_MEDIUM),
            (LARGE, OF_LARGE),
            (SCATTERED, OF_SCATTERED),
        ];
        let found = goals.into_iter().find(|(of, _)| of == state);
        found.map_or(OF_LARGE, |(_, goals)| goals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::HUGE;

    #[test]
    fn larger_states_have_the_goals_of_the_large_one() {
        assert_eq!(Goals::of(&SCATTERED).memory, 2.0);
        assert_eq!(Goals::of(&HUGE), Goals::of(&LARGE));
    }
}
