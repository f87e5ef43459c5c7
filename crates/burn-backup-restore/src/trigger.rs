//! Decides when a backup is due, as a function of positions, clock and policy.

mod auto;
mod backoff;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::position::Position;
use crate::save_freq::SaveFreq;
use auto::Auto;
use backoff::Backoff;

pub(crate) use auto::StepTime;
pub(crate) use backoff::RETRY_AFTER;

/// The facts about the moment of a decision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// The time since the training's launch.
    pub time: Duration,
    /// Whether a backup is being written, or pruning after it is in progress.
    pub is_writing: bool,
}

/// What a training has measured about backups and interruptions. It is part of each backup.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct CadenceRecord {
    /// The time that a backup adds to the training, in seconds, if it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_cost: Option<f64>,
    /// The total running time of this training's processes, in seconds.
    pub uptime: f64,
    /// How many of these processes did not end cleanly.
    pub interruptions: u64,
    /// Whether the process that made this backup ended cleanly.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_stopped: bool,
}

impl CadenceRecord {
    /// The record after a restart from this backup.
    pub(crate) fn resumed(self) -> Self {
        Self {
            interruptions: self
                .interruptions
                .saturating_add(u64::from(!self.is_stopped)),
            is_stopped: false,
            // Ignore impossible values, because the file may have been edited.
            uptime: self.uptime.max(0.0),
            backup_cost: self.backup_cost.filter(|cost| *cost >= 0.0),
        }
    }
}

/// Decides after each step and each epoch. Times are measured from the training's launch.
#[derive(Debug)]
pub(crate) struct Trigger {
    policy: Policy,
    /// Delays the next attempt after consecutive failures, with any policy.
    backoff: Backoff,
    /// Whether a due backup was not taken: accumulated gradients can't be saved, or a failure delays it.
    is_overdue: bool,
}

#[derive(Debug)]
enum Policy {
    Epoch,
    Steps(u64),
    Every { interval: Duration, last: Duration },
    Auto(Auto),
    Continuous,
    Never,
}

impl Trigger {
    /// For a training whose state has about `state_bytes`. `record` holds earlier measurements. After a failure, the
    /// next attempt waits for `retry_after`, and twice as long after each further failure in a row.
    pub(crate) fn new(
        frequency: SaveFreq,
        state_bytes: u64,
        record: &CadenceRecord,
        retry_after: Duration,
    ) -> Self {
        let policy = match frequency {
            SaveFreq::Epoch => Policy::Epoch,
            SaveFreq::Steps(steps) => Policy::Steps(steps as u64),
            SaveFreq::Every(interval) => Policy::Every {
                interval,
                last: Duration::ZERO,
            },
            SaveFreq::Auto { max_overhead } => {
                Policy::Auto(Auto::new(max_overhead, state_bytes, record))
            }
            SaveFreq::Continuous => Policy::Continuous,
            SaveFreq::Never => Policy::Never,
        };
        Self {
            policy,
            backoff: Backoff::new(retry_after),
            is_overdue: false,
        }
    }

    /// Whether to take a backup after the batch that led to `position`, in a `step` that ends `now`. It can be taken
    /// only if `can_save` is true, which means that no gradients wait for the optimizer.
    pub(crate) fn after_step(
        &mut self,
        position: &Position,
        can_save: bool,
        step: StepTime,
        now: Now,
    ) -> bool {
        let is_due = match &mut self.policy {
            Policy::Steps(steps) => position.global_step.is_multiple_of(*steps),
            Policy::Auto(auto) => {
                auto.step(step);
                auto.is_due()
            }
            Policy::Every { .. } | Policy::Continuous => self.is_time(now),
            Policy::Epoch | Policy::Never => false,
        };
        self.decide(is_due, can_save, now)
    }

    /// Whether to take a backup after an epoch's validation. It can be taken only if `can_save` is true, as after a
    /// step. `may_be_kept` says that a retention rule may keep this backup because it is at an epoch's end.
    pub(crate) fn after_epoch(&mut self, can_save: bool, may_be_kept: bool, now: Now) -> bool {
        let is_due = match &self.policy {
            Policy::Never => false,
            _ if may_be_kept => true,
            Policy::Epoch => true,
            Policy::Every { .. } | Policy::Continuous => self.is_time(now),
            // Nothing has changed since the last step.
            Policy::Steps(_) | Policy::Auto(_) => false,
        };
        self.decide(is_due, can_save, now)
    }

    /// Records that a backup was taken at `now`, and that it blocked the training for `held`.
    pub(crate) fn saved(&mut self, now: Duration, held: Duration) {
        self.is_overdue = false;
        match &mut self.policy {
            Policy::Every { last, .. } => *last = now,
            Policy::Auto(auto) => auto.saved(held),
            Policy::Epoch | Policy::Steps(_) | Policy::Continuous | Policy::Never => {}
        }
    }

    /// Records that the last backup is committed.
    pub(crate) fn succeeded(&mut self) {
        self.backoff.reset();
    }

    /// Called when the training has gone back to a backup. Backups that failed since then are no longer due.
    pub(crate) fn rolled_back(&mut self) {
        self.backoff.reset();
        self.is_overdue = false;
    }

    /// Records that the last backup has failed, which became known at `now`. The backup stays due.
    pub(crate) fn failed(&mut self, now: Duration) {
        self.backoff.failed(now);
        match &mut self.policy {
            // It is due again once its cost is paid for.
            Policy::Auto(auto) => auto.failed(),
            Policy::Never => {}
            Policy::Epoch | Policy::Steps(_) | Policy::Every { .. } | Policy::Continuous => {
                self.is_overdue = true;
            }
        }
    }

    /// Whether the next attempt must wait because of failures.
    pub(crate) fn is_held_back(&self, now: Now) -> bool {
        self.backoff.holds_back(now)
    }

    /// Whether a training of `epochs` epochs ends before a backup is due. `steps` is the number of steps per epoch,
    /// if known.
    pub(crate) fn is_due_after_end(&self, epochs: usize, steps: Option<u64>) -> bool {
        match &self.policy {
            // Report this only once, at the start.
            Policy::Epoch => epochs <= 1 && steps.is_none(),
            Policy::Steps(interval) => {
                steps.is_some_and(|steps| steps.saturating_mul(epochs as u64) < *interval)
            }
            // Times are not known in advance, and `Never` is a deliberate choice.
            Policy::Every { .. } | Policy::Auto(_) | Policy::Continuous | Policy::Never => false,
        }
    }

    /// Whether a backup is due as soon as the previous one is written.
    pub(crate) fn follows_writing(&self) -> bool {
        matches!(self.policy, Policy::Continuous)
    }

    /// Whether to take a backup when the training is complete.
    pub(crate) fn at_end(&self) -> bool {
        !matches!(self.policy, Policy::Never)
    }

    /// The number of batches until the next backup, and how much backups have slowed steps down so far, if that is
    /// measured.
    pub(crate) fn measured(&self) -> Option<(u64, Duration)> {
        match &self.policy {
            Policy::Auto(auto) => Some((auto.interval()?, auto.slowed())),
            _ => None,
        }
    }

    /// The time that a backup adds to the training, in seconds, if it is measured.
    pub(crate) fn backup_cost(&self) -> Option<f64> {
        match &self.policy {
            Policy::Auto(auto) => auto.backup_cost(),
            _ => None,
        }
    }

    fn is_time(&self, now: Now) -> bool {
        match self.policy {
            Policy::Every { interval, last } => now.time.saturating_sub(last) >= interval,
            Policy::Continuous => !now.is_writing,
            _ => false,
        }
    }

    fn decide(&mut self, is_due: bool, can_save: bool, now: Now) -> bool {
        let is_wanted = is_due || self.is_overdue;
        let is_possible = can_save && !self.is_held_back(now);
        self.is_overdue = is_wanted && !is_possible;
        is_wanted && is_possible
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trigger(frequency: SaveFreq) -> Trigger {
        Trigger::new(frequency, 0, &CadenceRecord::default(), RETRY_AFTER)
    }

    #[test]
    fn a_backup_that_is_due_after_the_trainings_end_comes_too_late() {
        let table = [
            // The frequency, epochs, steps per epoch, and whether the backup comes too late.
            (SaveFreq::Epoch, 1, None, true),
            (SaveFreq::Epoch, 1, Some(9), false),
            (SaveFreq::Epoch, 2, None, false),
            (SaveFreq::Steps(100), 2, None, false),
            (SaveFreq::Steps(100), 2, Some(49), true),
            (SaveFreq::Steps(100), 2, Some(50), false),
            (SaveFreq::Steps(1), 1, Some(1), false),
            (SaveFreq::Every(Duration::from_secs(9)), 1, Some(1), false),
            (SaveFreq::Never, 1, Some(1), false),
        ];
        for (frequency, epochs, steps, expected) in table {
            let trigger = trigger(frequency);
            let is_too_late = trigger.is_due_after_end(epochs, steps);
            assert_eq!(is_too_late, expected, "{frequency:?}, {epochs}, {steps:?}");
        }
    }

    const VALIDATION: Duration = Duration::from_secs(20);

    /// The global steps after which a backup is taken. Epochs have 5 batches, which take 10 seconds each.
    fn saves(
        frequency: SaveFreq,
        steps: u64,
        optimizer_steps_every: u64,
    ) -> Vec<(u64, &'static str)> {
        saves_keeping(frequency, steps, optimizer_steps_every, false)
    }

    /// Like `saves`, with a policy that may keep the end of each epoch.
    fn saves_keeping(
        frequency: SaveFreq,
        steps: u64,
        optimizer_steps_every: u64,
        may_be_kept: bool,
    ) -> Vec<(u64, &'static str)> {
        let mut trigger = trigger(frequency);
        let mut position = Position::start_of(1);
        let mut taken = Vec::new();
        let (took, is_disturbed) = (Duration::from_secs(10), false);
        let step_time = StepTime { took, is_disturbed };
        let idle = |time| Now {
            time,
            is_writing: false,
        };
        let mut now = Duration::ZERO;
        while position.global_step < steps {
            position = position.after_step();
            let step = position.global_step;
            now += took;
            let epoch_ends = position.step_in_epoch == 5;
            let can_save =
                (position.step_in_epoch as u64).is_multiple_of(optimizer_steps_every) || epoch_ends;
            if trigger.after_step(&position, can_save, step_time, idle(now)) {
                trigger.saved(now, Duration::ZERO);
                taken.push((step, "step"));
            }
            if epoch_ends {
                position = position.after_epoch();
                now += VALIDATION;
                if trigger.after_epoch(true, may_be_kept, idle(now)) {
                    trigger.saved(now, Duration::ZERO);
                    taken.push((step, "epoch"));
                }
            }
        }
        taken
    }

    #[test]
    fn epoch_saves_after_each_validation_only() {
        assert_eq!(saves(SaveFreq::Epoch, 12, 1), [(5, "epoch"), (10, "epoch")]);
    }

    #[test]
    fn steps_are_counted_across_epochs() {
        assert_eq!(
            saves(SaveFreq::Steps(3), 12, 1),
            [(3, "step"), (6, "step"), (9, "step"), (12, "step")]
        );
        assert_eq!(saves(SaveFreq::from(1), 3, 1).len(), 3);
    }

    #[test]
    fn the_end_of_an_epoch_that_may_be_kept_is_saved_whatever_the_frequency_except_never() {
        let saves = |frequency| saves_keeping(frequency, 11, 1, true);
        assert_eq!(saves(SaveFreq::Epoch), [(5, "epoch"), (10, "epoch")]);
        assert_eq!(
            saves(SaveFreq::Steps(4)),
            [(4, "step"), (5, "epoch"), (8, "step"), (10, "epoch")]
        );
        let hourly = SaveFreq::Every(Duration::from_secs(3600));
        assert_eq!(saves(hourly), [(5, "epoch"), (10, "epoch")]);
        assert_eq!(saves(SaveFreq::Never), []);
    }

    #[test]
    fn never_saves_on_its_own() {
        assert_eq!(saves(SaveFreq::Never, 12, 1), []);
        assert!(!trigger(SaveFreq::Never).at_end());
    }

    #[test]
    fn a_due_backup_waits_for_the_optimizer_step() {
        // Windows of 2 batches: the optimizer steps after batches 2, 4 and 5 of each epoch.
        assert_eq!(
            saves(SaveFreq::Steps(3), 12, 2),
            [(4, "step"), (7, "step"), (9, "step"), (12, "step")]
        );
    }

    #[test]
    fn a_time_is_counted_from_backup_to_backup() {
        let every = |seconds| SaveFreq::from(Duration::from_secs(seconds));
        // The first epoch ends at 50 seconds and is validated at 70, the second at 120 and 140.
        assert_eq!(
            saves(every(25), 10, 1),
            [(3, "step"), (5, "epoch"), (8, "step"), (10, "epoch")]
        );
        assert_eq!(
            saves(every(60), 12, 1),
            [(5, "epoch"), (10, "epoch")],
            "70 seconds each"
        );
        assert_eq!(saves(every(1), 3, 1).len(), 3);
        // Gradients are accumulated over batches 1 and 2, 3 and 4, and the fifth alone.
        assert_eq!(saves(every(35), 5, 2), [(4, "step")]);
    }

    #[test]
    fn a_share_of_the_time_is_enough_for_backups_that_cost_nothing() {
        let auto = SaveFreq::Auto { max_overhead: 0.01 };
        assert_eq!(saves(auto, 3, 1).len(), 3);
        assert!(trigger(auto).at_end());
    }

    /// The steps after which backups are taken, if steps take 10 seconds. Each backup is written for `writing`, and
    /// the first `failing` ones fail.
    fn continuous_saves(steps: u64, writing: Duration, failing: usize) -> Vec<u64> {
        let mut trigger = trigger(SaveFreq::Continuous);
        let (mut position, mut taken) = (Position::start_of(1), Vec::new());
        let mut written = None;
        for step in 1..=steps {
            position = position.after_step();
            let time = Duration::from_secs(10 * step);
            if written.is_some_and(|written| written <= time) {
                written = None;
                match taken.len() <= failing {
                    true => trigger.failed(time),
                    false => trigger.succeeded(),
                }
            }
            let now = Now {
                time,
                is_writing: written.is_some(),
            };
            let step_time = StepTime {
                took: Duration::from_secs(10),
                is_disturbed: now.is_writing,
            };
            if trigger.after_step(&position, true, step_time, now) {
                trigger.saved(time, Duration::ZERO);
                written = Some(time + writing);
                taken.push(step);
            }
        }
        taken
    }

    #[test]
    fn continuous_saves_as_soon_as_the_last_one_is_written_and_never_before() {
        let seconds = Duration::from_secs;
        assert_eq!(continuous_saves(4, seconds(1), 0), [1, 2, 3, 4]);
        assert_eq!(continuous_saves(4, seconds(10), 0), [1, 2, 3, 4]);
        assert_eq!(continuous_saves(7, seconds(11), 0), [1, 3, 5, 7]);
        assert_eq!(continuous_saves(10, seconds(35), 0), [1, 5, 9]);
        assert!(trigger(SaveFreq::Continuous).at_end());
        assert_eq!(saves(SaveFreq::Continuous, 2, 1).len(), 2);
        // The epoch's end is a separate moment.
        assert_eq!(
            saves(SaveFreq::Continuous, 5, 1).last(),
            Some(&(5, "epoch"))
        );
        assert_eq!(
            saves(SaveFreq::Continuous, 4, 2),
            [(2, "step"), (4, "step")]
        );
    }

    #[test]
    fn continuous_waits_twice_as_long_after_each_failure_in_a_row() {
        // 1, 2, 4, 8, 16 and 32 seconds, in steps of 10.
        let taken = continuous_saves(20, Duration::from_secs(1), 6);
        assert_eq!(taken, [1, 3, 5, 7, 9, 12, 17, 18, 19, 20]);
    }

    /// The steps after which backups are attempted. Each step takes a second, and an epoch has 10 steps. All attempts
    /// fail, which becomes known one step later.
    fn attempts(frequency: SaveFreq, steps: u64) -> Vec<u64> {
        let mut trigger = trigger(frequency);
        let (mut position, mut taken) = (Position::start_of(1), Vec::new());
        let mut is_in_flight = false;
        for step in 1..=steps {
            position = position.after_step();
            let time = Duration::from_secs(step);
            if std::mem::take(&mut is_in_flight) {
                trigger.failed(time);
            }
            let now = Now {
                time,
                is_writing: false,
            };
            let took = Duration::from_secs(1);
            let is_disturbed = false;
            let mut is_due =
                trigger.after_step(&position, true, StepTime { took, is_disturbed }, now);
            if !is_due && position.step_in_epoch == 10 {
                position = position.after_epoch();
                is_due = trigger.after_epoch(true, false, now);
            }
            if is_due {
                trigger.saved(time, Duration::ZERO);
                is_in_flight = true;
                taken.push(step);
            }
        }
        taken
    }

    #[test]
    fn whatever_the_frequency_failing_backups_are_tried_less_and_less_often() {
        // Each failure is known a second after the attempt. From then on, the waits are 1, 2, 4, .. 60
        // seconds.
        let from = |first: u64| -> Vec<u64> {
            let waits = [2, 3, 5, 9, 17, 33, 61, 61, 61].into_iter();
            let attempts = waits.scan(first, |at, wait| {
                *at += wait;
                Some(*at)
            });
            [first].into_iter().chain(attempts).collect()
        };
        let table = [
            (SaveFreq::Steps(1), 1),
            (SaveFreq::Steps(5), 5),
            (SaveFreq::Every(Duration::from_secs(3)), 3),
            (SaveFreq::Auto { max_overhead: 0.5 }, 1),
            (SaveFreq::Continuous, 1),
            (SaveFreq::Epoch, 10),
        ];
        for (frequency, first) in table {
            let attempts = attempts(frequency, 250);
            let expected = from(first).into_iter().filter(|at| *at <= 250);
            assert_eq!(attempts, expected.collect::<Vec<_>>(), "{frequency:?}");
        }
        assert_eq!(attempts(SaveFreq::Never, 250), [0; 0]);
        let hour = attempts(SaveFreq::Steps(1), 3600).len();
        assert!((60..=66).contains(&hour), "{hour} attempts in an hour");
    }

    #[test]
    fn a_success_ends_the_wait_and_an_overdue_backup_is_taken_at_once() {
        let mut trigger = trigger(SaveFreq::Steps(100));
        let step_time = StepTime {
            took: Duration::from_secs(1),
            is_disturbed: false,
        };
        let at = |trigger: &mut Trigger, step: u64, is_writing| {
            let position = Position {
                global_step: step,
                ..Position::start_of(1)
            };
            let time = Duration::from_secs(step);
            trigger.after_step(&position, true, step_time, Now { time, is_writing })
        };
        assert!(at(&mut trigger, 100, false));
        trigger.saved(Duration::from_secs(100), Duration::ZERO);
        for failure in 0..4 {
            trigger.failed(Duration::from_secs(100 + failure));
        }
        // Three failures after the first: wait 8 seconds from the last one.
        assert!(!at(&mut trigger, 110, false));
        assert!(at(&mut trigger, 111, false));
        trigger.saved(Duration::from_secs(111), Duration::ZERO);
        // The result of that backup must be known before the next one.
        assert!(!at(&mut trigger, 200, true));
        trigger.succeeded();
        assert!(at(&mut trigger, 201, false));
        trigger.saved(Duration::from_secs(201), Duration::ZERO);
        assert!(!at(&mut trigger, 202, false));
        assert!(at(&mut trigger, 300, false));
    }

    #[test]
    fn meaningless_frequencies_are_invalid() {
        let auto = |max_overhead| SaveFreq::Auto { max_overhead };
        for frequency in [
            SaveFreq::Steps(0),
            SaveFreq::Every(Duration::ZERO),
            auto(0.0),
            auto(-0.1),
            auto(f64::NAN),
            auto(f64::INFINITY),
        ] {
            assert!(!frequency.is_valid(), "{frequency:?}");
        }
        let continuous = SaveFreq::Continuous;
        for frequency in [
            SaveFreq::Never,
            continuous,
            SaveFreq::from(1),
            auto(0.01),
            auto(2.0),
        ] {
            assert!(frequency.is_valid(), "{frequency:?}");
        }
    }

    #[test]
    fn a_restart_counts_as_an_interruption_unless_the_training_was_stopped_in_order() {
        let killed = CadenceRecord {
            backup_cost: Some(0.5),
            uptime: 7.0,
            interruptions: 2,
            is_stopped: false,
        };
        let resumed = killed.resumed();
        assert_eq!(resumed.interruptions, 3);
        assert_eq!((resumed.backup_cost, resumed.uptime), (Some(0.5), 7.0));
        let stopped = CadenceRecord {
            is_stopped: true,
            ..killed
        };
        let resumed = stopped.resumed();
        assert_eq!(resumed.interruptions, 2);
        assert!(!resumed.is_stopped);
        let impossible = CadenceRecord {
            backup_cost: Some(-1.0),
            uptime: -1.0,
            interruptions: u64::MAX,
            ..killed
        };
        let resumed = impossible.resumed();
        assert_eq!((resumed.backup_cost, resumed.uptime), (None, 0.0));
        assert_eq!(resumed.interruptions, u64::MAX);
    }
}
