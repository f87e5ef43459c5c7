//! From a training to a generation.
//!
//! ```text
//! snapshot    the training at one moment, on its thread
//! encode      its records, tensor by tensor, in the background
//! background  the thread: encode, persist, commit, prune
//! ```
//!
//! Beside them: `fit`, whether a restart can load what is saved; `frozen`, what needn't be written
//! again; `poison`, NaN; `retention`, what stays.

mod background;
mod encode;
mod fit;
mod frozen;
mod poison;
mod retention;
mod snapshot;

pub(crate) use background::{Background, Outcome, WriterContext};
pub(crate) use encode::{Memory, refuse_nan, within_limits};
pub(crate) use fit::{Fit, Misfit, Optimization, misfit, misfit_ahead};
pub(crate) use frozen::Frozen;
pub(crate) use retention::{Retention, candidate};
pub(crate) use snapshot::{
    Contents, Metrics, Others, PartSnapshot, Records, RunningStates, SavePart, Segment,
    SharedModel, SharedPart, TrainingSnapshot,
};
