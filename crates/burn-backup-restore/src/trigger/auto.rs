//! How often a backup may be taken without costing more than a given share of the training's time.
//!
//! A training earns, with each step, that share of the step's time, and spends what its backups
//! cost: how long they hold the training thread, and how much longer the steps take during which
//! one is being written. The next backup is due as soon as what is earned pays for it. So the share
//! holds from the first backup on, not just in the long run, and costs that rise are paid back.
//!
//! What backups cost is kept in the backup, and so is how often the training was interrupted. Once it was, the
//! interval is no shorter than the one that loses least: backups that cost more than they save are left out.
//!
//! A backup that fails may cost next to nothing, on a full disk say. So a failed one tells nothing of what the next one
//! costs. What it did cost is paid for as well, and the next try waits as it does with any other policy (`backoff.rs`).

use std::collections::VecDeque;
use std::time::Duration;

use super::CadenceRecord;

/// The typical undisturbed step is the median of the last so many.
const STEPS: usize = 31;

/// A backup is expected to cost the mean of the last so many.
const BACKUPS: usize = 8;

/// Before anything is measured, a backup is expected to cost as much as moving the state at this
/// many bytes per second, and this long on top.
const ASSUMED_SPEED: f64 = 1e9;
const ASSUMED_COST: f64 = 0.01;

/// A step of the training.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepTime {
    /// From the end of the step before, without what backups held the training.
    pub took: Duration,
    /// Whether a backup was being written during it.
    pub is_disturbed: bool,
}

/// What a backup cost so far, in seconds.
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
    /// Undisturbed steps, in seconds.
    steps: VecDeque<f64>,
    /// What backups cost, in seconds.
    costs: VecDeque<f64>,
    /// The one that is being written.
    open: Option<Open>,
    assumed_cost: f64,
    /// Until now, in seconds, of all processes of this training together.
    uptime: f64,
    /// How many of them did not end in order.
    interruptions: u64,
    /// How long was trained since the last backup, in seconds.
    since_last: f64,
    /// How long it was when the last one was taken.
    before_last: f64,
    earned: f64,
    /// By backups whose cost is known.
    spent: f64,
    slowed: f64,
    is_rested: bool,
}

impl Auto {
    /// With a state of about `bytes`, and what is known of the training.
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

    /// One more step is done.
    pub(crate) fn step(&mut self, step: StepTime) {
        let took = step.took.as_secs_f64();
        self.uptime += took;
        self.since_last += took;
        if step.is_disturbed {
            // Without a step to compare with, none of it is put down to the backup.
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
        // What isn't needed is no licence for many backups in a row later.
        let spare = self.spent + self.likely_cost();
        self.earned = self.earned.min(spare);
    }

    /// A backup was taken, which held the training so long.
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

    /// The backup that was taken last has failed.
    pub(crate) fn failed(&mut self) {
        // What was trained before it is as unsaved as it was.
        self.since_last += std::mem::take(&mut self.before_last);
        if let Some(open) = &mut self.open {
            open.has_failed = true;
        }
    }

    /// Whether a backup is paid for. After each there is a step that no backup disturbs, to know
    /// what a step takes.
    pub(crate) fn is_due(&self) -> bool {
        self.is_rested
            && self.open.is_none()
            && self.earned >= self.spent + self.likely_cost()
            && self.since_last >= self.best_interval()
    }

    /// After how many steps a backup is paid for, as things are. `None` before the first step.
    pub(crate) fn interval(&self) -> Option<u64> {
        let step = self.typical_step()?;
        let paid = self.likely_cost() / (self.max_overhead * step);
        let best = self.best_interval() / step;
        // At least one; an interval beyond all numbers is the greatest of them.
        Some((paid.max(best).ceil() as u64).max(1))
    }

    /// What a backup costs, in seconds, if that was measured.
    pub(crate) fn backup_cost(&self) -> Option<f64> {
        match self.costs.len() {
            0 => None,
            known => Some(self.costs.iter().sum::<f64>() / known as f64),
        }
    }

    /// How much longer steps took because backups were being written.
    pub(crate) fn slowed(&self) -> Duration {
        Duration::try_from_secs_f64(self.slowed).unwrap_or_default()
    }

    /// The last backup disturbs no more: its cost is known.
    fn close(&mut self) {
        if let Some(Open {
            held,
            slowed,
            has_failed,
        }) = self.open.take()
        {
            // Steps that happened to be quick are no gain.
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

    /// The interval, in seconds, at which backups and what is trained again after interruptions take least
    /// together; 0 before the first interruption: `sqrt(2 * cost * MTBF)`.
    ///
    /// J. W. Young, "A first order approximation to the optimum checkpoint interval", Communications of the ACM
    /// 17 (1974).
    fn best_interval(&self) -> f64 {
        match self.interruptions {
            0 => 0.0,
            interruptions => {
                let mean_time_between = self.uptime / interruptions as f64;
                (2.0 * self.likely_cost() * mean_time_between).sqrt()
            }
        }
    }

    /// What a backup costs, in seconds, as far as is known.
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

    /// A training with a clock of its own: steps take `step` seconds, and while a backup is being
    /// written, for `writing` steps, `slow` more.
    struct Machine {
        step: f64,
        held: f64,
        slow: f64,
        writing: u64,
    }

    /// After which steps backups were taken, and what they cost over the training's time without.
    struct Outcome {
        taken: Vec<u64>,
        overhead: f64,
    }

    impl Machine {
        fn cost(&self) -> f64 {
            self.held + self.slow * self.writing as f64
        }

        /// Trains on, and checks after each backup that all of them are paid for.
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
        // The machine, the bound, and the interval in steps that it leads to.
        let table = [
            (machine(0.010, 0.0001, 0.002, 5), 0.01, 101),
            (machine(0.010, 0.0001, 0.002, 5), 0.10, 11),
            (machine(1.0, 0.0001, 0.3, 2), 0.01, 61),
            (machine(0.001, 0.25, 0.0, 0), 0.05, 5000),
            // What costs next to nothing is done after every other step.
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
        // One in a hundred steps is earned; a second are a hundred steps.
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
        // A second is assumed: a hundred seconds have to be trained.
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
        // A hundredth of a second is earned in each step. Says after how many the next one is due.
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
            // On a full disk it costs nothing.
            auto.saved(Duration::ZERO);
            auto.failed();
            assert_eq!(steps_to_the_next(&mut auto), 1, "after {failing}");
        }
        assert_eq!(auto.backup_cost(), Some(0.1));
        // What a failed one costs is earned first.
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
        // A second is assumed, and 0.1 s are earned in a hundred seconds.
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
    fn once_it_was_interrupted_no_more_is_spent_than_that_is_worth() {
        let machine = Machine {
            step: 0.1,
            held: 0.02,
            slow: 0.0,
            writing: 1,
        };
        // The cost is 0.02 s; a tenth of the time would pay for one in 0.2 s.
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
        // One in 1000 s: sqrt(2 * 0.02 * 1000) s are 63 steps, and a little more at the end of 100 s.
        assert!((63..=67).contains(&last_gap(1, 1000.0)));
        assert!((6..=8).contains(&last_gap(100, 1000.0)));
        // However often it is interrupted, a tenth is not exceeded.
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
