//! A small training in which every mistake in a restore would show. It has shuffling, a batcher that draws
//! noise, batch normalisation, dropout, Adam and a learning-rate schedule. One parameter counts the trained
//! batches.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

mod by_hand;
mod data;
mod model;
pub mod programs;
mod recorder;
mod records;
mod report;
mod training;

pub use by_hand::{BatchSource, Counters, Loop, LoopHalt, LoopRun, LoopState};
pub use data::{Loaders, Numbers, NumbersBatcher, Poison};
pub use model::{Batch, Hooks, Net, Tuning, Turn};
pub use recorder::{Calls, RecordingRenderer};
pub use records::{Record, Records, model_records, named};
pub use report::report;
pub use training::{Backend, Data, Halt, Run, Spread, Training};
