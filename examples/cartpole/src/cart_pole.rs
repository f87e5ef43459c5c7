//! A cart with a pole on it. The pole must not fall.
//!
//! The equations of motion are those of A. G. Barto, R. S. Sutton and C. W. Anderson, "Neuronlike adaptive
//! elements that can solve difficult learning control problems", IEEE Transactions on Systems, Man, and
//! Cybernetics SMC-13(5), 1983, pages 834-846, without friction. The constants, Euler's method, the limits
//! and the reward are those that Gymnasium documents for its CartPole-v1.

use burn::rl::{Environment, StepResult, ToAction, ToObservation};
use burn::tensor::{Device, Tensor};
use burn_backup_restore::rl::{ResumableEnvironment, draw_seed};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use crate::rows::Rows;

/// In m/s².
const GRAVITY: f64 = 9.8;
/// In kg.
const CART_MASS: f64 = 1.0;
const POLE_MASS: f64 = 0.1;
const TOTAL_MASS: f64 = CART_MASS + POLE_MASS;
/// Half of the pole's length, in m.
const HALF_LENGTH: f64 = 0.5;
/// The force with which the cart is pushed, in N.
const FORCE: f64 = 10.0;
/// The time between two steps, in s.
const STEP: f64 = 0.02;
/// How far the pole may lean to either side: 12 degrees, in radians.
const MOST_LEANING: f64 = 12.0 * std::f64::consts::TAU / 360.0;
/// How far the cart may be from the middle, in m.
const MOST_DISTANCE: f64 = 2.4;
/// The largest distance from zero of each number in the first state.
const MOST_AT_START: f64 = 0.05;

/// The position and speed of the cart and of the pole, in m, m/s, radians and radians/s.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct State {
    position: f64,
    velocity: f64,
    angle: f64,
    angular_velocity: f64,
}

impl State {
    fn after(self, push: Push) -> Self {
        let force = match push {
            Push::Left => -FORCE,
            Push::Right => FORCE,
        };
        let (sine, cosine) = self.angle.sin_cos();
        let pole = POLE_MASS * HALF_LENGTH;
        let pushed = (force + pole * self.angular_velocity.powi(2) * sine) / TOTAL_MASS;
        let angular = (GRAVITY * sine - cosine * pushed)
            / (HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * cosine.powi(2) / TOTAL_MASS));
        let linear = pushed - pole * angular * cosine / TOTAL_MASS;
        Self {
            position: self.position + STEP * self.velocity,
            velocity: self.velocity + STEP * linear,
            angle: self.angle + STEP * self.angular_velocity,
            angular_velocity: self.angular_velocity + STEP * angular,
        }
    }

    fn has_failed(self) -> bool {
        self.position.abs() > MOST_DISTANCE || self.angle.abs() > MOST_LEANING
    }
}

impl ToObservation<Rows> for State {
    fn to_observation(&self, device: &Device) -> Rows {
        let numbers = [
            self.position,
            self.velocity,
            self.angle,
            self.angular_velocity,
        ];
        Rows(Tensor::from_data(
            [numbers.map(|number| number as f32)],
            device,
        ))
    }
}

/// The side to which the cart is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Push {
    Left,
    Right,
}

impl From<Rows> for Push {
    fn from(action: Rows) -> Self {
        match action.0.into_scalar::<f32>() > 0.5 {
            true => Self::Right,
            false => Self::Left,
        }
    }
}

impl ToAction<Rows> for Push {
    fn to_action(&self, device: &Device) -> Rows {
        let number = f32::from(u8::from(*self == Self::Right));
        Rows(Tensor::from_data([[number]], device))
    }
}

/// The cart with the pole.
#[derive(Debug, Default)]
pub struct CartPole {
    state: State,
    steps: usize,
}

impl CartPole {
    /// Always the same: the pole leans a little.
    pub fn leaning() -> Self {
        Self {
            state: State {
                angle: 0.03,
                ..State::default()
            },
            steps: 0,
        }
    }
}

impl Environment for CartPole {
    type State = State;
    type Action = Push;

    const MAX_STEPS: usize = 500;

    fn state(&self) -> State {
        self.state
    }

    fn step(&mut self, push: Push) -> StepResult<State> {
        self.state = self.state.after(push);
        self.steps += 1;
        let done = self.state.has_failed();
        StepResult {
            next_state: self.state,
            reward: 1.0,
            done,
            truncated: !done && self.steps >= Self::MAX_STEPS,
        }
    }

    fn reset(&mut self) {
        let mut random = StdRng::seed_from_u64(draw_seed());
        let mut draw = || random.random_range(-MOST_AT_START..=MOST_AT_START);
        self.state = State {
            position: draw(),
            velocity: draw(),
            angle: draw(),
            angular_velocity: draw(),
        };
        self.steps = 0;
    }
}

impl ResumableEnvironment for CartPole {
    type Saved = (State, usize);

    fn save(&self) -> (State, usize) {
        (self.state, self.steps)
    }

    fn load(&mut self, (state, steps): (State, usize)) {
        *self = Self { state, steps };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pole_that_nobody_balances_falls() {
        let mut environment = CartPole::default();
        environment.reset();
        let mut steps = 0;
        while !environment.step(Push::Right).done {
            steps += 1;
        }
        // Gymnasium says 8 to 10.
        assert!((7..=10).contains(&steps), "{steps}");
    }

    #[test]
    fn from_rest_the_first_step_moves_nothing_and_the_push_shows_in_the_speeds() {
        let state = State::default().after(Push::Right);
        assert_eq!((state.position, state.angle), (0.0, 0.0));
        // By hand: 10 N on 1.1 kg, minus the part that moves the pole.
        let pushed = 10.0 / 1.1;
        let angular = -pushed / (0.5 * (4.0 / 3.0 - 0.1 / 1.1));
        let linear = pushed - 0.05 * angular / 1.1;
        assert!((state.angular_velocity - 0.02 * angular).abs() < 1e-12);
        assert!((state.velocity - 0.02 * linear).abs() < 1e-12);
    }
}
