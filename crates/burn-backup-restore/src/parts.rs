//! The parts of a training's state, which are saved and loaded.
//!
//! ```text
//! trainee   a model, its optimizer and its scheduler
//! weights   a module without an optimizer: an average, a teacher, a target network
//! value     a value of the program's own
//! shared    one of these, shared between the training and the backup
//! learner   Burn's learner
//! ```

mod learner;
mod module;
mod optimization;
mod shared;
mod state;
mod trainee;
mod value;
mod weights;

pub(crate) use learner::{LearnerMut, LearnerRef, SharedReader};
pub(crate) use module::running_states;
pub use optimization::{TraineeOptimizer, TraineeScheduler};
pub use shared::{SharedState, StateGuard};
pub use state::{Parts, PartsMut, State};
pub(crate) use state::{check_names, parts_of, parts_of_mut};
pub use trainee::Trainee;
pub use value::Value;
#[cfg(feature = "rl")]
pub(crate) use value::shared_value;
pub(crate) use value::{decode, encode};
pub use weights::Weights;
