use std::marker::PhantomData;

use burn::train::OffPolicyConfig;

use super::environment::{FromEpisodeStart, FromSavedState};
use crate::error::BackupError;

/// The learning strategy of a training with backups: Burn's [`OffPolicyConfig`], and how its environments resume.
///
/// It replaces Burn's `RLStrategies::OffPolicyStrategy`. `autobatch_size` is not used, because the environments run
/// on the training's thread, one after the other.
///
/// # Example
///
/// ```
/// use burn::train::OffPolicyConfig;
/// use burn_backup_restore::rl::OffPolicy;
///
/// let config = OffPolicyConfig::new().with_replay_buffer_size(50_000);
/// // Exact, for environments that implement ResumableEnvironment:
/// let exact = OffPolicy::new(config.clone()).resumable_environments();
/// // For all others:
/// let from_episode_start = OffPolicy::new(config);
/// ```
#[derive(Debug)]
pub struct OffPolicy<B = FromEpisodeStart> {
    pub(super) config: OffPolicyConfig,
    backup: PhantomData<B>,
}

impl OffPolicy<FromEpisodeStart> {
    /// Learns according to `config`. A restart begins new episodes in the environments.
    pub fn new(config: OffPolicyConfig) -> Self {
        Self {
            config,
            backup: PhantomData,
        }
    }

    /// Also saves the environments, which must implement [`ResumableEnvironment`](super::ResumableEnvironment). A
    /// restart resumes in the middle of an episode.
    pub fn resumable_environments(self) -> OffPolicy<FromSavedState> {
        OffPolicy {
            config: self.config,
            backup: PhantomData,
        }
    }
}

impl<B> OffPolicy<B> {
    /// Rejects numbers with which Burn's loop would panic or never end.
    pub(super) fn validate(&self) -> Result<(), BackupError> {
        let config = &self.config;
        let needed = [
            ("num_envs", config.num_envs),
            ("replay_buffer_size", config.replay_buffer_size),
            ("train_interval", config.train_interval),
            ("train_batch_size", config.train_batch_size),
        ];
        match needed.into_iter().find(|(_, number)| *number == 0) {
            Some((field, _)) => Err(BackupError::InvalidOffPolicy { field }),
            None => Ok(()),
        }
    }
}
