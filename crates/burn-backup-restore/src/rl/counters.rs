//! The progress of a training: everything that the loop counts.

use burn::data::dataloader::Progress;
use burn::train::OffPolicyConfig;
use serde::{Deserialize, Serialize};

/// The progress of a training. Numbers that Burn's loop also has keep Burn's meaning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Counters {
    /// Burn's `items_processed`: the number of the announced step, counted from 1.
    pub processed: usize,
    /// The value of `processed` at the start of the round in progress. A round is `train_interval` steps and then
    /// training.
    pub round_began: usize,
    /// The step after which the next evaluation follows.
    pub next_evaluation: usize,
    /// The number of finished episodes of the evaluation in progress, if any.
    pub evaluation: Option<usize>,
    /// The number of steps in the environments since the first start.
    pub environment_steps: u64,
    /// The number of training steps of the agent.
    pub train_steps: u64,
    /// The episode in progress in each environment.
    pub episodes: Vec<Episode>,
    /// The settings of the training.
    settings: Settings,
}

/// An episode in progress.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Episode {
    pub length: usize,
    pub reward: f64,
}

/// Settings that may change at a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Settings {
    train_interval: usize,
    train_steps: usize,
    train_batch_size: usize,
    warmup_steps: usize,
    eval_interval: usize,
    eval_episodes: usize,
}

impl From<&OffPolicyConfig> for Settings {
    fn from(config: &OffPolicyConfig) -> Self {
        Self {
            train_interval: config.train_interval,
            train_steps: config.train_steps,
            train_batch_size: config.train_batch_size,
            warmup_steps: config.warmup_steps,
            eval_interval: config.eval_interval,
            eval_episodes: config.eval_episodes,
        }
    }
}

impl Settings {
    fn named(&self) -> [(&'static str, usize); 6] {
        [
            ("train_interval", self.train_interval),
            ("train_steps", self.train_steps),
            ("train_batch_size", self.train_batch_size),
            ("warmup_steps", self.warmup_steps),
            ("eval_interval", self.eval_interval),
            ("eval_episodes", self.eval_episodes),
        ]
    }
}

impl Counters {
    /// The counters before the first step. `checkpoint` is the Burn checkpoint that the training continues, if any.
    pub(super) fn new(config: &OffPolicyConfig, checkpoint: Option<usize>) -> Self {
        let done = checkpoint.unwrap_or(0);
        Self {
            processed: done + 1,
            round_began: done + 1,
            next_evaluation: done + config.eval_interval,
            evaluation: None,
            environment_steps: 0,
            train_steps: 0,
            episodes: vec![Episode::default(); config.num_envs],
            settings: config.into(),
        }
    }

    /// Continues with this configuration. Returns the changed settings: name, previous number, current number.
    pub(super) fn change_configuration(
        &mut self,
        config: &OffPolicyConfig,
    ) -> Vec<(&'static str, usize, usize)> {
        let now = Settings::from(config);
        let pairs = self.settings.named().into_iter().zip(now.named());
        let changed = pairs.filter(|(before, now)| before.1 != now.1);
        let changed = changed.map(|(before, now)| (before.0, before.1, now.1));
        let changed = changed.collect();
        self.settings = now;
        changed
    }

    /// The progress to report to Burn, for a training of `total` steps.
    pub(super) fn progress(&self, total: usize) -> Progress {
        Progress::new(self.processed, total, Some("steps".to_owned()))
    }

    /// Whether the training is between two rounds, and no evaluation is in progress.
    pub(super) fn is_between_rounds(&self) -> bool {
        self.processed == self.round_began && self.evaluation.is_none()
    }

    /// Whether a round of `train_interval` steps has all its steps.
    pub(super) fn is_round_full(&self, train_interval: usize) -> bool {
        self.processed.saturating_sub(self.round_began) >= train_interval
    }

    /// Ends the round after its training. Begins the evaluation that is due, if any.
    pub(super) fn end_round(&mut self) {
        // As in Burn's loop, an evaluation from before this round is never caught up.
        let is_due =
            self.next_evaluation > self.round_began && self.next_evaluation <= self.processed;
        self.evaluation = is_due.then_some(0);
        self.round_began = self.processed;
    }

    /// Ends the evaluation in progress.
    pub(super) fn end_evaluation(&mut self, eval_interval: usize) {
        self.evaluation = None;
        self.next_evaluation += eval_interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(train_interval: usize, eval_interval: usize) -> OffPolicyConfig {
        OffPolicyConfig::new()
            .with_train_interval(train_interval)
            .with_eval_interval(eval_interval)
    }

    /// The steps after which an evaluation follows, in a training of `steps` steps.
    fn evaluations(
        config: &OffPolicyConfig,
        checkpoint: Option<usize>,
        steps: usize,
    ) -> Vec<usize> {
        let mut counters = Counters::new(config, checkpoint);
        let mut found = Vec::new();
        while counters.processed < steps {
            counters.processed += config.train_interval;
            assert!(counters.is_round_full(config.train_interval));
            counters.end_round();
            if counters.evaluation.is_some() {
                found.push(counters.processed);
                counters.end_evaluation(config.eval_interval);
            }
            assert!(counters.is_between_rounds());
        }
        found
    }

    #[test]
    fn evaluations_come_after_the_same_steps_as_in_burns_loop() {
        /// Both intervals, the checkpoint, the number of steps, and the evaluations.
        type Case<'c> = (usize, usize, Option<usize>, usize, &'c [usize]);
        let table: &[Case<'_>] = &[
            // Burn announces its first step as the second one.
            (1, 5, None, 16, &[5, 10, 15]),
            (4, 5, None, 20, &[5, 13, 17, 21]),
            (1, 5, Some(10), 21, &[15, 20]),
            // At most one evaluation per round. Evaluations that a round has passed are skipped.
            (10, 4, None, 31, &[11]),
            (1, 1, None, 4, &[]),
        ];
        for (train_interval, eval_interval, checkpoint, steps, expected) in table {
            let config = config(*train_interval, *eval_interval);
            let found = evaluations(&config, *checkpoint, *steps);
            assert_eq!(found, *expected, "{train_interval}, {eval_interval}");
        }
    }

    #[test]
    fn changed_settings_are_named() {
        let mut counters = Counters::new(&config(4, 100), None);
        assert_eq!(counters.change_configuration(&config(4, 100)), []);
        let changed = counters.change_configuration(&config(8, 100));
        assert_eq!(changed, [("train_interval", 4, 8)]);
        assert_eq!(counters.change_configuration(&config(8, 100)), []);
    }
}
