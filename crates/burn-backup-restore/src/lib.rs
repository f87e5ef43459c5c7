//! One line makes a [Burn](burn) training survive crashes, kills, power cuts and full disks. Run the
//! same program again and it continues where it stopped, and ends with the same weights, byte for
//! byte, that an undisturbed run would have ended with.
//!
//! ```text
//! save:     trigger -> snapshot -> encode -> persist -> commit -> prune
//!           `-- training thread --'  `-------- background thread ------'
//!                                                         `-> mirror
//! restore:  discover -> (fetch from the mirror) -> verify -> restore -> fast_forward
//! ```
//!
//! # Example
//!
//! ```no_run
//! # use std::sync::Arc;
//! use burn::train::{Learner, LearnerModel, LearningResult, SupervisedTraining};
//! # use burn::train::{TrainLoader, ValidLoader};
//! use burn_backup_restore::{BackupAndRestore, BackupExt as _};
//!
//! # fn run<M: LearnerModel>(
//! #     learner: Learner<M>,
//! #     train: TrainLoader<M>,
//! #     valid: ValidLoader<M>,
//! # ) -> LearningResult<M> {
//! SupervisedTraining::new("artifacts", train, valid)
//!     .num_epochs(10)
//!     .backup_and_restore(BackupAndRestore::new("backup")) // the one line
//!     .launch(learner)
//! # }
//! ```
//!
//! A loop that is written by hand has a [`Session`] instead: see [`BackupAndRestore::resume`].
//!
//! # Features
//!
//! - `mirror`: backups that outlive the machine, on S3, Google Cloud Storage, Azure, or in a directory.
//! - `cloud`: watchers for the preemption notices of Google Compute Engine, Amazon EC2 and Azure.
//! - `rl`: reinforcement learning with Burn's `RLTraining`.
//! - `tracing`: spans and events for [`tracing`](https://docs.rs/tracing), with the target `burn_backup`.
//! - `testing`: what the tests of this crate need. It is exempt from semantic versioning.

mod burn_api;
mod change;
mod configuration;
pub mod data;
mod data_loader;
mod divergence;
mod error;
mod event;
mod execution;
pub mod exit_code;
mod export;
mod fingerprint;
pub mod guide;
mod handle;
mod heartbeat;
mod keep;
mod metrics;
mod mirror;
mod model;
mod notice;
mod on_backup_error;
mod outcome;
mod panics;
mod part;
mod parts;
mod position;
mod preemption;
mod report;
mod resume;
#[cfg(feature = "rl")]
pub mod rl;
mod runs;
mod save;
mod save_freq;
mod say;
mod seed;
mod session;
mod settings;
mod spans;
mod state;
mod supervised;
mod telling;
mod terminal;
mod text;
mod threads;
mod trigger;
mod which;

pub use change::Change;
pub use data::DataLoaderBuilder as ResumableDataLoaderBuilder;
pub use divergence::{Divergence, DivergenceRule};
pub use error::BackupError;
pub use event::Event;
pub use fingerprint::ParamDifference;
pub use handle::{BackupHandle, BackupStats};
pub use keep::{Direction, Keep};
pub use notice::Notice;
pub use on_backup_error::OnBackupError;
pub use outcome::Outcome;
pub use parts::{
    Parts, PartsMut, SharedState, State, StateGuard, Trainee, TraineeOptimizer, TraineeScheduler,
    Value, Weights,
};
pub use position::Position;
pub use preemption::{AfterPreemption, FileWatcher, Preemption, PreemptionWatcher};
#[cfg(feature = "cloud")]
pub use preemption::{AzureWatcher, Ec2SpotWatcher, GceWatcher};
pub use save_freq::SaveFreq;
pub use session::{Batches, Flow, Session};
pub use settings::{BackupAndRestore, FastForward, Snapshot};
pub use supervised::BackupExt;
pub use which::Which;

#[cfg(feature = "mirror")]
pub use burn_backup_remote::{LeaseStatus, Mirror, MirrorError, ObjectStore};
pub use burn_backup_store::StoreError;
#[cfg(feature = "mirror")]
pub use handle::MirrorStats;
