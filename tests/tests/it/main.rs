//! The one line on real trainings.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod bad_input;
mod blocking;
mod burn_parity;
mod completion;
mod crash;
mod disk;
mod edited;
mod exact;
mod failures;
mod formats;
mod frequency;
mod frozen;
mod keras;
mod optimizers;
mod poisoned;
mod power_cut;
mod process;
mod race;
mod support;
