//! Decides how often to take a backup so that backups cost at most a given share of the training's time.
//!
//! With each step, a training earns that share of the step's time. It spends the cost of its backups: how long they
//! block the training thread, and how much longer steps take while a backup is written. The next backup is due as
//! soon as the earned time pays for it. So the share holds from the first backup on, not just in the long run, and
//! rising costs are paid back.
//!
//! Each backup records the cost of backups and the number of interruptions. After an interruption, the interval is at
//! least the one that loses the least time. Backups that would cost more than they save are not taken.
//!
//! A failed backup may cost almost nothing, for example on a full disk. Its cost therefore does not predict the cost
//! of the next one. The cost is still paid for, and the next attempt waits as with any other policy (`backoff.rs`).

use std::collections::VecDeque;
use std::time::Duration;

use super::CadenceRecord;

/// The typical uninterrupted step is the median of this many recent steps.
const STEPS: usize = 31;

/// The expected cost of a backup is the mean of this many recent backups.
const BACKUPS: usize = 8;

/// Before the first measurement, the expected cost of a backup is the time to move the state at this many bytes per
/// second, plus this constant.
const ASSUMED_SPEED: f64 = 1e9;
const ASSUMED_COST: f64 = 0.01;

/// A step of the training.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepTime {
    /// The time since the end of the previous step, without the time that backups blocked the training.
    pub took: Duration,
    /// Whether a backup was being written during the step.
    pub is_disturbed: bool,
}

/// The cost of a backup so far, in seconds.
#[derive(Debug)]
struct Open {
    held: f64,
    slowed: f64,
    has_failed: bool,
}

/// Picks the steps after which backups are taken.
#[derive(Debug)]
pub(crate) struct Auto {
    max_overhead: f64,
    /// Uninterrupted steps, in seconds.
    steps: VecDeque<f64>,
    /// The costs of backups, in seconds.
    costs: VecDeque<f64>,
    /// The backup that is being written.
    open: Option<Open>,
    assumed_cost: f64,
    /// The time until now, in seconds, over all processes of this training.
    uptime: f64,
    /// How many of these processes did not end cleanly.
    interruptions: u64,
    /// The training time since the last backup, in seconds.
    since_last: f64,
    /// The value of `since_last` when the last backup was taken.
    before_last: f64,
    earned: f64,
    /// The cost of all backups whose cost is known.
    spent: f64,
    slowed: f64,
    is_rested: bool,
}

impl Auto {
    /// For a state of about `bytes`. `record` holds earlier measurements.
    pub(crate) fn new(max_overhead: f64, bytes: u64, record: &CadenceRecord) -> Self {
        Self {
            max_overhead,
            steps: VecDeque::new(),
            costs: record.backup_cost.into_iter().collect(),
            open: None,
            assumed_cost: ASSUMED_COST + bytes as f64 / ASSUMED_SPEED,
            uptime: record.uptime,
            interruptions: record.interruptions,
            since_last: 0.0,
            before_last: 0.0,
            earned: 0.0,
            spent: 0.0,
            slowed: 0.0,
            is_rested: false,
        }
    }

    /// Records a step.
    pub(crate) fn step(&mut self, step: StepTime) {
        let took = step.took.as_secs_f64();
        self.uptime += took;
        self.since_last += took;
        if step.is_disturbed {
            // Without a step to compare with, charge nothing to the backup.
            let typical = self.typical_step().unwrap_or(took);
            if let Some(open) = &mut self.open {
                open.slowed += took - typical;
            }
            self.earned += self.max_overhead * typical.min(took);
            return;
        }
        self.close();
        push(&mut self.steps, took, STEPS);
        self.earned += self.max_overhead * took;
        self.is_rested = true;
        // Unused earnings must not allow many backups in a row later.
        let spare = self.spent + self.likely_cost();
        self.earned = self.earned.min(spare);
    }

    /// Records that a backup was taken, and that it blocked the training for `held`.
    pub(crate) fn saved(&mut self, held: Duration) {
        self.close();
        self.open = Some(Open {
            held: held.as_secs_f64(),
            slowed: 0.0,
            has_failed: false,
        });
        self.is_rested = false;
        self.before_last = std::mem::take(&mut self.since_last);
    }

    /// Records that the last backup has failed.
    pub(crate) fn failed(&mut self) {
        // The training time before the failed backup is still unsaved.
        self.since_last += std::mem::take(&mut self.before_last);
        if let Some(open) = &mut self.open {
            open.has_failed = true;
        }
    }

    /// Whether a backup is paid for. After each backup, an uninterrupted step must come first, to measure how long a
    /// step takes.
    pub(crate) fn is_due(&self) -> bool {
        self.is_rested
            && self.open.is_none()
            && self.earned >= self.spent + self.likely_cost()
            && self.since_last >= self.best_interval()
    }

    /// The number of steps that pay for a backup at current costs. `None` before the first step.
    pub(crate) fn interval(&self) -> Option<u64> {
        let step = self.typical_step()?;
        let paid = self.likely_cost() / (self.max_overhead * step);
        let best = self.best_interval() / step;
        // The result is at least one. The cast turns an interval beyond `u64` into `u64::MAX`.
        Some((paid.max(best).ceil() as u64).max(1))
    }

    /// The cost of a backup, in seconds, if it was measured.
    pub(crate) fn backup_cost(&self) -> Option<f64> {
        match self.costs.len() {
            0 => None,
            known => Some(self.costs.iter().sum::<f64>() / known as f64),
        }
    }

    /// How much longer steps took because backups were written.
    pub(crate) fn slowed(&self) -> Duration {
        Duration::try_from_secs_f64(self.slowed).unwrap_or_default()
    }

    /// Closes the last backup, which no longer disturbs steps, so its cost is known.
    fn close(&mut self) {
        if let Some(Open {
            held,
            slowed,
            has_failed,
        }) = self.open.take()
        {
            // Steps that happened to be fast are not a gain.
            let slowed = slowed.max(0.0);
            self.slowed += slowed;
            let cost = held + slowed;
            self.spent += cost;
            if !has_failed {
                push(&mut self.costs, cost, BACKUPS);
            }
        }
    }

    fn typical_step(&self) -> Option<f64> {
        let mut steps: Vec<_> = self.steps.iter().copied().collect();
        steps.sort_by(f64::total_cmp);
        steps.get(steps.len() / 2).copied()
    }

    /// The interval, in seconds, that minimizes the total time for backups and for retraining after interruptions:
    /// `sqrt(2 * cost * MTBF)`. It is 0 before the first interruption.
    ///
    /// J. W. Young, "A first order approximation to the optimum checkpoint interval", Communications of the ACM 17
    /// (1974).
    fn best_interval(&self) -> f64 {
        match self.interruptions {
            0 => 0.0,
            interruptions => {
                let mean_time_between = self.uptime / interruptions as f64;
                (2.0 * self.likely_cost() * mean_time_between).sqrt()
            }
        }
    }

    /// The expected cost of a backup, in seconds.
    fn likely_cost(&self) -> f64 {
        self.backup_cost().unwrap_or(self.assumed_cost)
    }
}

fn push(window: &mut VecDeque<f64>, value: f64, len: usize) {
    if window.len() == len {
        window.pop_front();
    }
    window.push_back(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A training with a simulated clock. A step takes `step` seconds. While a backup is being written, for `writing`
    /// steps, each step takes `slow` seconds longer.
    struct Machine {
        step: f64,
        held: f64,
        slow: f64,
        writing: u64,
    }

    /// The steps after which backups were taken, and the overhead relative to the training without backups.
    struct Outcome {
        taken: Vec<u64>,
        overhead: f64,
    }

    impl Machine {
        fn cost(&self) -> f64 {
            self.held + self.slow * self.writing as f64
        }

        /// Continues the training.
        fn run(&self, auto: &mut Auto, steps: u64) -> Outcome {
            let (mut taken, mut left, mut cost) = (Vec::new(), 0, 0.0);
            for step in 1..=steps {
                let is_disturbed = left > 0;
                left -= u64::from(is_disturbed);
                let took = self.step + if is_disturbed { self.slow } else { 0.0 };
                auto.step(StepTime {
                    took: Duration::from_secs_f64(took),
                    is_disturbed,
                });
                if auto.is_due() {
                    auto.saved(Duration::from_secs_f64(self.held));
                    (left, cost) = (self.writing, cost + self.cost());
                    taken.push(step);
                }
            }
            let overhead = cost / (steps as f64 * self.step);
            Outcome { taken, overhead }
        }
    }

    fn gaps(taken: &[u64]) -> Vec<u64> {
        taken.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    #[test]
    fn backups_are_as_frequent_as_the_bound_allows() {
        let machine = |step, held, slow, writing| Machine {
            step,
            held,
            slow,
            writing,
        };
        // The machine, the bound, and the resulting interval in steps.
        let table = [
            (machine(0.010, 0.0001, 0.002, 5), 0.01, 101),
            (machine(0.010, 0.0001, 0.002, 5), 0.10, 11),
            (machine(1.0, 0.0001, 0.3, 2), 0.01, 61),
            (machine(0.001, 0.25, 0.0, 0), 0.05, 5000),
            // A backup that costs almost nothing is taken after every other step.
            (machine(1.0, 0.0001, 0.0, 1), 0.01, 2),
        ];
        for (machine, bound, interval) in table {
            let mut auto = Auto::new(bound, 0, &CadenceRecord::default());
            let outcome = machine.run(&mut auto, 20 * interval);
            let gaps = gaps(&outcome.taken);
            let last = *gaps.last().unwrap();
            assert!(last.abs_diff(interval) <= 1, "{last} and not {interval}");
            assert!(outcome.overhead <= bound * 1.0001, "{}", outcome.overhead);
            let unused = bound - outcome.overhead;
            assert!(
                unused < bound / 4.0 || interval <= 2,
                "{}",
                outcome.overhead
            );
            assert!(auto.interval().unwrap() <= interval);
        }
    }

    #[test]
    fn the_interval_follows_the_cost() {
        let cheap = Machine {
            step: 0.01,
            held: 0.0,
            slow: 0.002,
            writing: 5,
        };
        let dear = Machine {
            slow: 0.02,
            ..cheap
        };
        let mut auto = Auto::new(0.01, 0, &CadenceRecord::default());
        for (machine, interval) in [(&cheap, 100_u64), (&dear, 1000), (&cheap, 100)] {
            let gaps = gaps(&machine.run(&mut auto, 20_000).taken);
            let last = *gaps.last().unwrap();
            assert!(last.abs_diff(interval) <= 1, "{last} and not {interval}");
        }
    }

    #[test]
    fn a_backup_that_costs_more_than_expected_is_paid_back() {
        let usual = Machine {
            step: 0.01,
            held: 0.01,
            slow: 0.0,
            writing: 1,
        };
        let mut auto = Auto::new(0.01, 0, &CadenceRecord::default());
        let before = usual.run(&mut auto, 1000).taken.len();
        assert!((9..=10).contains(&before), "{before}");
        auto.saved(Duration::from_secs(1));
        // Each step earns a hundredth of its time, and a second is a hundred steps.
        assert!(usual.run(&mut auto, 9_000).taken.is_empty());
        assert!(!usual.run(&mut auto, 3_000).taken.is_empty());
    }

    #[test]
    fn the_first_backup_waits_until_the_state_could_have_been_moved() {
        let machine = Machine {
            step: 0.1,
            held: 0.0,
            slow: 0.1,
            writing: 4,
        };
        let mut auto = Auto::new(0.01, 990_000_000, &CadenceRecord::default());
        // The assumed cost is a second, so a hundred seconds must be trained first.
        let first = machine.run(&mut auto, 2000).taken.first().copied();
        assert!(matches!(first, Some(1000 | 1001)), "{first:?}");
    }

    #[test]
    fn a_failed_backup_is_paid_for_and_is_not_taken_for_a_cheap_one() {
        let step = StepTime {
            took: Duration::from_secs(1),
            is_disturbed: false,
        };
        let record = CadenceRecord {
            backup_cost: Some(0.1),
            ..CadenceRecord::default()
        };
        // Each step earns a hundredth of a second. Returns the number of steps until the next backup is due.
        let steps_to_the_next = |auto: &mut Auto| {
            let mut steps = 0;
            while !auto.is_due() {
                auto.step(step);
                steps += 1;
            }
            steps
        };
        let mut auto = Auto::new(0.01, 0, &record);
        let first = steps_to_the_next(&mut auto);
        assert!(matches!(first, 10 | 11), "{first}");
        for failing in 0..100 {
            // On a full disk, a backup costs nothing.
            auto.saved(Duration::ZERO);
            auto.failed();
            assert_eq!(steps_to_the_next(&mut auto), 1, "after {failing}");
        }
        assert_eq!(auto.backup_cost(), Some(0.1));
        // The cost of a failed backup must be earned first.
        auto.saved(Duration::from_secs(1));
        auto.failed();
        let after = steps_to_the_next(&mut auto);
        assert!((99..=111).contains(&after), "{after}");
        assert_eq!(auto.backup_cost(), Some(0.1));
    }

    #[test]
    fn after_a_failure_as_much_is_unsaved_as_before() {
        let record = CadenceRecord {
            backup_cost: Some(0.02),
            uptime: 1000.0,
            interruptions: 1,
            is_stopped: false,
        };
        let step = StepTime {
            took: Duration::from_secs(1),
            is_disturbed: false,
        };
        let mut auto = Auto::new(0.1, 0, &record);
        let mut steps = 0;
        while !auto.is_due() {
            auto.step(step);
            steps += 1;
        }
        // sqrt(2 * 0.02 * 1000) s.
        assert!((6..=8).contains(&steps), "{steps}");
        auto.saved(Duration::ZERO);
        auto.failed();
        auto.step(step);
        assert!(auto.is_due(), "no other interval passes first");
    }

    #[test]
    fn after_a_restart_a_backup_costs_what_it_cost_before() {
        let machine = Machine {
            step: 0.1,
            held: 0.001,
            slow: 0.0,
            writing: 1,
        };
        // The assumed cost is a second, and 0.1 s steps earn that in a hundred seconds.
        let first = |record: &CadenceRecord| {
            let mut auto = Auto::new(0.01, 990_000_000, record);
            (machine.run(&mut auto, 1100).taken[0], auto)
        };
        let (step, auto) = first(&CadenceRecord::default());
        assert!(matches!(step, 1000 | 1001), "{step}");
        let known = CadenceRecord {
            backup_cost: auto.backup_cost(),
            ..CadenceRecord::default()
        };
        assert_eq!(known.backup_cost, Some(0.001));
        let (step, _) = first(&known);
        assert!(matches!(step, 1 | 2), "{step}");
    }

    #[test]
    fn after_an_interruption_no_more_is_spent_than_it_is_worth() {
        let machine = Machine {
            step: 0.1,
            held: 0.02,
            slow: 0.0,
            writing: 1,
        };
        // The cost is 0.02 s. A tenth of the time would pay for one backup per 0.2 s.
        let last_gap = |interruptions, uptime| {
            let record = CadenceRecord {
                backup_cost: Some(0.02),
                uptime,
                interruptions,
                is_stopped: false,
            };
            let mut auto = Auto::new(0.1, 0, &record);
            let outcome = machine.run(&mut auto, 1000);
            assert!(outcome.overhead <= 0.1);
            *gaps(&outcome.taken).last().unwrap()
        };
        assert_eq!(last_gap(0, 0.0), 2);
        // One interruption in 1000 s: sqrt(2 * 0.02 * 1000) s are 63 steps, and slightly more after 100 s.
        assert!((63..=67).contains(&last_gap(1, 1000.0)));
        assert!((6..=8).contains(&last_gap(100, 1000.0)));
        // Even with many interruptions, a tenth is not exceeded.
        assert_eq!(last_gap(1_000_000, 1000.0), 2);
    }

    #[test]
    fn before_the_first_step_nothing_is_known() {
        let mut auto = Auto::new(1e-300, u64::MAX, &CadenceRecord::default());
        assert_eq!(auto.interval(), None);
        assert!(!auto.is_due());
        let took = Duration::from_nanos(1);
        auto.step(StepTime {
            took,
            is_disturbed: false,
        });
        assert_eq!(auto.interval(), Some(u64::MAX));
    }
}
