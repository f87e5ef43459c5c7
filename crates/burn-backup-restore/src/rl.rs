//! Reinforcement learning: backups for Burn's [`RLTraining`](burn::train::RLTraining).
//!
//! Burn's own off-policy loop can't be continued exactly: its replay buffer has no record, and its environments
//! run on threads of their own. The one line here, [`RlBackupExt::backup_and_restore`], puts a loop in its place
//! that takes the same [`OffPolicyConfig`](burn::train::OffPolicyConfig), sends the same events, and runs on the
//! thread that launched the training. A backup has the agent, the policies, the replay buffer, the environments
//! and all counters.
//!
//! ```text
//! step:      environment -> replay buffer -> training -> session -> evaluation -> session
//! snapshot:  agent, policies, replay buffer, environments, counters
//! ```
//!
//! What [`BackupAndRestore`](crate::BackupAndRestore) calls a batch is a step in an environment here, and what it
//! calls an epoch is the time from one evaluation to the next: with
//! [`SaveFreq::Epoch`](crate::SaveFreq::Epoch), the default, a backup is taken after each evaluation, and with
//! [`SaveFreq::Steps`](crate::SaveFreq::Steps) every so many steps in the environments.
//!
//! # What is exact
//!
//! With environments that implement [`ResumableEnvironment`], one or several, an interrupted training ends with
//! the same bytes as one that was left alone, wherever it was interrupted. For that, what decides the
//! policy's actions must be in its record, and what an agent learns with in its own; what they
//! draw at random must come from the device or from [`draw_seed`]. Other environments begin new episodes
//! after a restart, and everything else is as it was.
//!
//! # What differs from Burn's loop
//!
//! - An action is chosen when the step before it is done. Burn's environments are one step ahead.
//! - A stop is obeyed after the step at hand: what the round of `train_interval` steps still lacks is done after
//!   the restart, where Burn trains on a part of a round. A stop in an evaluation goes back to the start of the
//!   episode in progress.
//! - Transitions are in the host's memory, from where a batch goes to the agent's device.

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
