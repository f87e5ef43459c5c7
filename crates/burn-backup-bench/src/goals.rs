//! What is to be reached, of each state.

use crate::state::{LARGE, MEDIUM, SCATTERED, SMALL, State};

/// The bounds for one state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goals {
    /// The time of a training with a backup after each batch, over that with Burn's own checkpoints; at most.
    pub back_to_back: f64,
    /// The time of a training with a backup every ten persist times, over that without; at most.
    pub at_interval: f64,
    /// The speed of a backup, over that of writing and syncing as many bytes; at least.
    pub persist: f64,
    /// The time from the launch to the first trained batch, over that of Burn's own; at most.
    pub restore: f64,
    /// The memory beyond the training's own, in sizes of the state; at most.
    pub memory: f64,
    /// How long the training's thread is held, in milliseconds; at most.
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

/// Of larger ones too: nothing is to grow except the bytes.
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
    /// Those for `state`.
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
    fn a_larger_state_is_held_to_what_the_large_one_is() {
        assert_eq!(Goals::of(&SCATTERED).memory, 2.0);
        assert_eq!(Goals::of(&HUGE), Goals::of(&LARGE));
    }
}
