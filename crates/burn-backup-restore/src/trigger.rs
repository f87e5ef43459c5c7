//! When a backup is due: positions, clock and policy in, yes or no out.

mod auto;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::position::Position;
use crate::save_freq::SaveFreq;
use auto::Auto;

pub(crate) use auto::StepTime;

/// After a backup that failed, [`SaveFreq::Continuous`] waits this long, and twice as long after each further
/// one in a row.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// After so many failures in a row, it waits no longer than that.
const MAX_DOUBLINGS: u32 = 8;

/// What there is to know about the moment of a decision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// Since the training's launch.
    pub time: Duration,
    /// Whether a backup is being written, or pruned after.
    pub is_writing: bool,
}

/// What a training has learned of backups and interruptions. It is part of each backup.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct CadenceRecord {
    /// What a backup adds to the training's time, in seconds, if that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_cost: Option<f64>,
    /// How long the processes of this training have been running, in seconds.
    pub uptime: f64,
    /// How many of them did not end in order.
    pub interruptions: u64,
    /// Whether this backup was made by one that did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_stopped: bool,
}

impl CadenceRecord {
    /// The same after a restart from this backup.
    pub(crate) fn resumed(self) -> Self {
        Self {
            interruptions: self
                .interruptions
                .saturating_add(u64::from(!self.is_stopped)),
            is_stopped: false,
            // Whoever wrote it.
            uptime: self.uptime.max(0.0),
            backup_cost: self.backup_cost.filter(|cost| *cost >= 0.0),
        }
    }
}

/// Decides at each step and at each epoch's end. Times are counted from the training's launch.
#[derive(Debug)]
pub(crate) struct Trigger {
    policy: Policy,
    /// A backup was due while gradients were accumulated that can't be saved.
    is_overdue: bool,
}

#[derive(Debug)]
enum Policy {
    Epoch,
    Steps(u64),
    Every {
        interval: Duration,
        last: Duration,
    },
    Auto(Auto),
    Continuous {
        /// How many backups have failed in a row.
        failures: u32,
        /// When the last one was taken.
        last: Duration,
    },
    Never,
}

impl Trigger {
    /// For a training whose state has about `state_bytes`, and of which this is known.
    pub(crate) fn new(frequency: SaveFreq, state_bytes: u64, record: &CadenceRecord) -> Self {
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
            SaveFreq::Continuous => Policy::Continuous {
                failures: 0,
                last: Duration::ZERO,
            },
            SaveFreq::Never => Policy::Never,
        };
        Self {
            policy,
            is_overdue: false,
        }
    }

    /// Whether to take a backup after the batch that led to `position`, in a `step` that ends
    /// `now`. It can be taken only if `can_save`, that is if no gradients wait for the optimizer.
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
            Policy::Every { .. } | Policy::Continuous { .. } => self.is_time(now),
            Policy::Epoch | Policy::Never => false,
        };
        self.decide(is_due, can_save)
    }

    /// Whether to take a backup now that an epoch's validation is done. It can be taken only if
    /// `can_save`, as after a step. `may_be_kept` says that this one may be kept for being at an epoch's end.
    pub(crate) fn after_epoch(&mut self, can_save: bool, may_be_kept: bool, now: Now) -> bool {
        let is_due = match &self.policy {
            Policy::Never => false,
            _ if may_be_kept => true,
            Policy::Epoch => true,
            Policy::Every { .. } | Policy::Continuous { .. } => self.is_time(now),
            // Nothing has been learned since the last step.
            Policy::Steps(_) | Policy::Auto(_) => false,
        };
        self.decide(is_due, can_save)
    }

    /// A backup was taken at `now`, which held the training so long.
    pub(crate) fn saved(&mut self, now: Duration, held: Duration) {
        match &mut self.policy {
            Policy::Every { last, .. } | Policy::Continuous { last, .. } => *last = now,
            Policy::Auto(auto) => auto.saved(held),
            Policy::Epoch | Policy::Steps(_) | Policy::Never => {}
        }
    }

    /// The backup that was taken last is committed.
    pub(crate) fn succeeded(&mut self) {
        match &mut self.policy {
            Policy::Auto(auto) => auto.succeeded(),
            Policy::Continuous { failures, .. } => *failures = 0,
            Policy::Epoch | Policy::Steps(_) | Policy::Every { .. } | Policy::Never => {}
        }
    }

    /// The backup that was taken last has failed.
    pub(crate) fn failed(&mut self) {
        match &mut self.policy {
            Policy::Auto(auto) => auto.failed(),
            Policy::Continuous { failures, .. } => *failures = failures.saturating_add(1),
            Policy::Epoch | Policy::Steps(_) | Policy::Every { .. } | Policy::Never => {}
        }
    }

    /// Whether a training of so many `epochs`, with `steps` in each if that is known, is over before a
    /// backup is due.
    pub(crate) fn comes_too_late(&self, epochs: usize, steps: Option<u64>) -> bool {
        match &self.policy {
            // Said once, at the start.
            Policy::Epoch => epochs <= 1 && steps.is_none(),
            Policy::Steps(interval) => {
                steps.is_some_and(|steps| steps.saturating_mul(epochs as u64) < *interval)
            }
            // Times are not known beforehand, and never is as it is wanted.
            Policy::Every { .. } | Policy::Auto(_) | Policy::Continuous { .. } | Policy::Never => {
                false
            }
        }
    }

    /// Whether a backup is due because the one before is written.
    pub(crate) fn follows_writing(&self) -> bool {
        matches!(self.policy, Policy::Continuous { .. })
    }

    /// Whether to take a backup when the training has run to its end.
    pub(crate) fn at_end(&self) -> bool {
        !matches!(self.policy, Policy::Never)
    }

    /// After how many batches the next backup comes, and how much longer steps took because backups
    /// were being written, if that is being measured.
    pub(crate) fn measured(&self) -> Option<(u64, Duration)> {
        match &self.policy {
            Policy::Auto(auto) => Some((auto.interval()?, auto.slowed())),
            _ => None,
        }
    }

    /// What a backup adds to the training's time, in seconds, if that is being measured.
    pub(crate) fn backup_cost(&self) -> Option<f64> {
        match &self.policy {
            Policy::Auto(auto) => auto.backup_cost(),
            _ => None,
        }
    }

    fn is_time(&self, now: Now) -> bool {
        match self.policy {
            Policy::Every { interval, last } => now.time.saturating_sub(last) >= interval,
            Policy::Continuous { failures, last } => {
                !now.is_writing && now.time.saturating_sub(last) >= retry_after(failures)
            }
            _ => false,
        }
    }

    fn decide(&mut self, is_due: bool, can_save: bool) -> bool {
        let is_wanted = is_due || self.is_overdue;
        self.is_overdue = is_wanted && !can_save;
        is_wanted && can_save
    }
}

/// How long to wait after the last of so many failures in a row.
fn retry_after(failures: u32) -> Duration {
    match failures.checked_sub(1) {
        Some(doublings) => RETRY_AFTER * (1 << doublings.min(MAX_DOUBLINGS)),
        None => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_that_is_due_after_the_trainings_end_comes_too_late() {
        let table = [
            // The frequency, epochs, the steps in each, and whether it is too late.
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
            let trigger = Trigger::new(frequency, 1, &CadenceRecord::default());
            let is_too_late = trigger.comes_too_late(epochs, steps);
            assert_eq!(is_too_late, expected, "{frequency:?}, {epochs}, {steps:?}");
        }
    }

    const VALIDATION: Duration = Duration::from_secs(20);

    /// The global steps after which a backup is taken, in a training of epochs of 5 batches of 10
    /// seconds each.
    fn saves(
        frequency: SaveFreq,
        steps: u64,
        optimizer_steps_every: u64,
    ) -> Vec<(u64, &'static str)> {
        saves_keeping(frequency, steps, optimizer_steps_every, false)
    }

    /// The same with a policy that may keep the end of each epoch.
    fn saves_keeping(
        frequency: SaveFreq,
        steps: u64,
        optimizer_steps_every: u64,
        may_be_kept: bool,
    ) -> Vec<(u64, &'static str)> {
        let mut trigger = Trigger::new(frequency, 0, &CadenceRecord::default());
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
        assert!(!Trigger::new(SaveFreq::Never, 0, &CadenceRecord::default()).at_end());
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
        // Gradients are accumulated over two batches, and the fifth.
        assert_eq!(saves(every(35), 5, 2), [(4, "step")]);
    }

    #[test]
    fn a_share_of_the_time_is_enough_for_backups_that_cost_nothing() {
        let auto = SaveFreq::Auto { max_overhead: 0.01 };
        assert_eq!(saves(auto, 3, 1).len(), 3);
        assert!(Trigger::new(auto, 0, &CadenceRecord::default()).at_end());
    }

    /// The steps after which backups are taken in a training of steps of 10 seconds, where each backup is
    /// written for `writing` and the first so many fail.
    fn continuous_saves(steps: u64, writing: Duration, failing: usize) -> Vec<u64> {
        let mut trigger = Trigger::new(SaveFreq::Continuous, 0, &CadenceRecord::default());
        let (mut position, mut taken) = (Position::start_of(1), Vec::new());
        let mut written = None;
        for step in 1..=steps {
            position = position.after_step();
            let time = Duration::from_secs(10 * step);
            if written.is_some_and(|written| written <= time) {
                written = None;
                match taken.len() <= failing {
                    true => trigger.failed(),
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
        assert!(Trigger::new(SaveFreq::Continuous, 0, &CadenceRecord::default()).at_end());
        assert_eq!(saves(SaveFreq::Continuous, 2, 1).len(), 2);
        // The epoch's end is a moment of its own.
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
        assert_eq!(
            taken,
            [1, 2, 3, 4, 5, 7, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]
        );
        assert_eq!(retry_after(u32::MAX), 256 * RETRY_AFTER);
    }

    #[test]
    fn what_says_nothing_is_not_valid() {
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
