//! Real trainings with the one line.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod announced;
mod artifacts;
mod backends;
mod bad_input;
mod blocking;
mod burn_parity;
mod burn_sources;
mod by_hand;
mod changes;
mod completion;
mod crash;
mod cuda;
#[cfg(unix)]
mod dashboard;
mod devices;
mod disk;
mod divergence;
mod edited;
mod events;
mod exact;
mod failures;
mod formats;
mod frequency;
mod frozen;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod gpu;
mod keep;
mod keras;
mod limits;
mod loader;
mod log_lines;
mod metric_logs;
mod metrics;
mod mirror;
mod optimizers;
mod poisoned;
mod power_cut;
mod precision;
#[cfg(unix)]
mod preemption;
mod process;
mod programs;
mod race;
mod readme;
mod remote;
mod replay;
mod restarts;
#[cfg(unix)]
mod rl;
#[cfg(unix)]
mod session;
mod standard_error;
mod states;
mod structure;
mod support;
mod taken_over;
mod trained;
mod whole_epochs;
