//! From a training to a generation.
//!
//! ```text
//! snapshot    the state of the training at one moment, taken on its thread
//! encode      writes its records tensor by tensor, in the background
//! background  the writer thread: encode, persist, commit, prune
//! ```
//!
//! Further modules: `fit` checks whether a restart can load the saved records. `frozen` finds tensors that don't have
//! to be written again. `poison` finds NaN. `retention` decides which backups are kept.

mod background;
mod encode;
mod fit;
mod frozen;
mod poison;
mod retention;
mod snapshot;

pub(crate) use background::{Background, Outcome, WriterContext};
pub(crate) use encode::{Memory, refuse_nan, within_limits};
pub(crate) use fit::{Fit, Misfit, Optimization, early_misfit, misfit};
pub(crate) use frozen::Frozen;
pub(crate) use retention::{Retention, candidate};
pub(crate) use snapshot::{
    Contents, Metrics, OtherRecords, PartSnapshot, Records, RunningStates, SavePart, Segment,
    SharedModel, SharedPart, TrainingSnapshot,
};
