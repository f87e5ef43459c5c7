//! Crash-safe, exact backup and restore for trainings with [Burn](burn). One line backs the training up in the
//! background. After a crash, a kill, a power cut or a full disk, run the same program again: it resumes after the last
//! batch of its newest backup. Its final weights are, byte for byte, those of an uninterrupted run.
//!
//! # With Burn's builder: one line
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
//! # With your own loop: seven calls
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use burn::data::dataloader::DataLoader;
//! # use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
//! # use burn::module::Module;
//! # use burn::optim::{AdamConfig, GradientsParams};
//! # use burn::tensor::{Device, Tensor};
//! use burn_backup_restore::{BackupAndRestore, Trainee};
//!
//! # trait Loss { fn loss(&self, batch: Tensor<2>) -> Tensor<1>; }
//! # type Loader = Arc<dyn DataLoader<Tensor<2>>>;
//! # type Error = Box<dyn std::error::Error>;
//! # fn run<M: Module + Loss + 'static>(model: M, loader: Loader, device: Device) -> Result<M, Error> {
//! # let optim = AdamConfig::new().init();
//! # let lr = CosineAnnealingLrSchedulerConfig::new(1e-3, 10_000).init()?;
//! let mut t = Trainee { model, optim, lr };
//! let mut session = BackupAndRestore::new("backup").resume(&mut t, &device)?; // 1
//! for _epoch in session.epochs(10) {                                          // 2
//!     let mut batches = session.batches(&loader)?;                            // 3
//!     while let Some(batch) = session.next(&mut batches, &t)? {               // 4
//!         let grads = GradientsParams::from_grads(t.model.loss(batch).backward(), &t.model);
//!         t.model = t.optim.step(t.lr.step(), t.model, grads);
//!         session.stepped(&t);                                                // 5
//!     }
//!     if session.epoch_done(&t).is_stop() {                                   // 6
//!         break;
//!     }
//! }
//! session.finish(&t)?;                                                        // 7
//! # Ok(t.model)
//! # }
//! ```
//!
//! [`Session`] explains each call.
//!
//! # What you see
//!
//! Each start prints one line (wrapped here), for example:
//!
//! ```text
//! backups in '/data/backup', after each epoch, the newest is kept; trains on Flex(Cpu) (a training strategy set before
//! is not used: give it to BackupAndRestore::execution); a new training
//! ```
//!
//! If something in the program can't resume exactly, the first start warns: `warning: not exact after a restart: ..`.
//! Burn's dashboard shows the last backup as a text metric. A [`BackupHandle`] answers questions about the backups.
//!
//! # The guide
//!
//! The module [`guide`] has one page for each topic, such as [exactness](guide::exactness),
//! [how often to back up](guide::frequency), [preemption](guide::preemption), [mirrors](guide::mirror) and
//! [errors](guide::errors).
//!
//! # How it works
//!
//! ```text
//! save:     trigger -> snapshot -> encode -> persist -> commit -> prune
//!           `-- training thread --'  `-------- background thread ------'
//!                                                         `-> mirror
//! restore:  discover -> (fetch from the mirror) -> verify -> restore -> fast_forward
//! ```
//!
//! # Features
//!
//! - `mirror`: backups that outlive the machine, on S3, Google Cloud Storage, Azure, or in a directory.
//! - `cloud`: watchers for the preemption notices of Google Compute Engine, Amazon EC2 and Azure.
//! - `rl`: reinforcement learning with Burn's `RLTraining`.
//! - `tracing`: spans and events for [`tracing`](https://docs.rs/tracing), with the target `burn_backup`.
//! - `testing`: what the tests of this crate need. It is exempt from semantic versioning.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod burn_api;
mod change;
mod configuration;
pub mod data;
mod data_loader;
mod divergence;
mod error;
mod event;
mod event_sender;
mod execution;
pub mod exit_code;
mod export;
mod fingerprint;
pub mod guide;
mod handle;
mod heartbeat;
mod keep;
mod messages;
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
mod seed;
mod session;
mod settings;
mod spans;
mod state;
mod supervised;
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
