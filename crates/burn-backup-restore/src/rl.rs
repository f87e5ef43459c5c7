//! Reinforcement learning: backups for Burn's [`RLTraining`](burn::train::RLTraining).
//!
//! Burn's own off-policy loop can't resume exactly: its replay buffer has no record, and its environments run on
//! their own threads. [`RlBackupExt::backup_and_restore`] replaces it, in one line, with another loop. That loop
//! takes the same [`OffPolicyConfig`](burn::train::OffPolicyConfig), sends the same events, and runs on the thread
//! that launched the training. A backup contains the agent, the policies, the replay buffer, the environments and all
//! counters.
//!
//! ```text
//! step:      environment -> replay buffer -> training -> session -> evaluation -> session
//! snapshot:  agent, policies, replay buffer, environments, counters
//! ```
//!
//! In the settings of [`BackupAndRestore`](crate::BackupAndRestore), a batch is a step in an environment here, and an
//! epoch is the time from one evaluation to the next. So [`SaveFreq::Epoch`](crate::SaveFreq::Epoch), the default,
//! takes a backup after each evaluation. [`SaveFreq::Steps`](crate::SaveFreq::Steps) counts steps in the
//! environments.
//!
//! # What is exact
//!
//! With one or several environments that implement [`ResumableEnvironment`], an interrupted training ends with the
//! same bytes as an uninterrupted one, wherever it was interrupted. This has three conditions:
//!
//! - The policy's record contains everything that decides its actions.
//! - The agent's record contains everything that it learns with.
//! - Both draw random numbers only from the device or from [`draw_seed`].
//!
//! Other environments begin new episodes after a restart. Everything else is restored.
//!
//! # What differs from Burn's loop
//!
//! - An action is chosen after the previous step is done. Burn's environments are one step ahead.
//! - A stop takes effect after the current step. The remaining steps of the round of `train_interval` steps are done
//!   after the restart, whereas Burn trains on an incomplete round. After a stop in an evaluation, the restart begins
//!   the episode in progress again.
//! - Transitions are stored in the host's memory. Each batch is copied to the agent's device.

mod counters;
mod draws;
mod environment;
mod environments;
mod evaluation;
mod extension;
mod layout;
mod off_policy;
mod off_policy_loop;
mod opening;
mod record;
mod replay_buffer;
mod replay_item;
mod replay_part;
mod segment;
mod strategy;
mod training;

pub use draws::draw_seed;
pub use environment::{EnvironmentBackup, FromEpisodeStart, FromSavedState, ResumableEnvironment};
pub use extension::RlBackupExt;
pub use off_policy::OffPolicy;
pub use replay_item::{ReplayItem, ReplayTensors};
