//! Decides whether and when a command is restarted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::RngExt as _;

use super::end::Meaning;

/// For a command that does not report its backups, the restarts of this last period count.
const WINDOW: Duration = Duration::from_secs(3600);

/// The limits on restarts.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest number of restarts without a new backup.
    pub max_restarts: u32,
    /// Only restarts of this last period count; `None` counts all.
    pub window: Option<Duration>,
    /// The first wait.
    pub backoff: Duration,
    /// The longest wait.
    pub max_backoff: Duration,
}

/// The decision after the end of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The supervisor ends.
    End,
    /// The supervisor ends, because these restarts made no progress.
    GiveUp {
        /// The number of restarts.
        restarts: u32,
    },
    /// The command is restarted.
    Restart {
        /// The wait before the restart.
        after: Duration,
    },
}

/// Decides after each end.
pub struct Policy {
    limits: Limits,
    /// The times of the restarts since the last new backup.
    restarts: VecDeque<Instant>,
    /// The number of failures in a row without a new backup between them.
    failures: u32,
    /// A number from 0 to 1, so that many supervisors don't start at the same time.
    jitter: fn() -> f64,
}

impl Policy {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            restarts: VecDeque::new(),
            failures: 0,
            jitter: || rand::rng().random(),
        }
    }

    /// Decides after an end with this `meaning`. `made_progress` is whether there is a backup at a later position than
    /// ever before. `reports_backups` is whether the command reports its backups at all.
    pub fn decide(
        &mut self,
        meaning: Meaning,
        made_progress: bool,
        reports_backups: bool,
        now: Instant,
    ) -> Decision {
        if made_progress {
            self.restarts.clear();
            self.failures = 0;
        }
        match meaning {
            Meaning::Done | Meaning::FixFirst => return Decision::End,
            Meaning::Again | Meaning::Failed => {}
        }
        let window = self.limits.window.or((!reports_backups).then_some(WINDOW));
        if let Some(window) = window {
            self.restarts.retain(|at| now.duration_since(*at) <= window);
        }
        let restarts = u32::try_from(self.restarts.len()).unwrap_or(u32::MAX);
        if restarts >= self.limits.max_restarts {
            return Decision::GiveUp { restarts };
        }
        let after = match meaning {
            // After an orderly end there is no wait. If it repeats without progress, it waits as after failures.
            Meaning::Again if restarts == 0 => Duration::ZERO,
            _ => self.backoff(),
        };
        self.restarts.push_back(now + after);
        Decision::Restart { after }
    }

    fn backoff(&mut self) -> Duration {
        let factor = 2_u32.saturating_pow(self.failures);
        self.failures = self.failures.saturating_add(1);
        let wait = self.limits.backoff.saturating_mul(factor);
        let wait = wait.min(self.limits.max_backoff);
        // A random time between half of the wait and all of it.
        wait.mul_f64(0.5 + (self.jitter)() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        max_restarts: 3,
        window: None,
        backoff: Duration::from_secs(1),
        max_backoff: Duration::from_secs(3),
    };

    fn policy(limits: Limits) -> Policy {
        Policy {
            jitter: || 1.0,
            ..Policy::new(limits)
        }
    }

    fn restart(seconds: u64) -> Decision {
        let after = Duration::from_secs(seconds);
        Decision::Restart { after }
    }

    #[test]
    fn failures_wait_longer_and_longer_and_end_without_progress() {
        let mut policy = policy(LIMITS);
        let now = Instant::now();
        let mut fail = |made_progress| policy.decide(Meaning::Failed, made_progress, true, now);
        assert_eq!(fail(false), restart(1));
        assert_eq!(fail(false), restart(2));
        assert_eq!(fail(true), restart(1));
        assert_eq!(fail(false), restart(2));
        assert_eq!(fail(false), restart(3));
        assert_eq!(fail(false), Decision::GiveUp { restarts: 3 });
    }

    #[test]
    fn a_finished_command_or_one_that_needs_a_change_ends() {
        let mut policy = policy(LIMITS);
        for meaning in [Meaning::Done, Meaning::FixFirst] {
            let decision = policy.decide(meaning, true, true, Instant::now());
            assert_eq!(decision, Decision::End);
        }
    }

    #[test]
    fn a_requested_restart_is_immediate_but_not_forever() {
        let mut policy = policy(LIMITS);
        let now = Instant::now();
        let mut again = |made_progress| policy.decide(Meaning::Again, made_progress, true, now);
        for _ in 0..10 {
            assert_eq!(again(true), restart(0));
        }
        assert_eq!(again(false), restart(1));
        assert_eq!(again(false), restart(2));
        assert_eq!(again(false), Decision::GiveUp { restarts: 3 });
    }

    #[test]
    fn old_restarts_count_if_the_command_reports_its_backups() {
        for (reports_backups, window, gives_up) in [
            (true, None, true),
            (false, None, false),
            (true, Some(Duration::from_secs(7000)), false),
        ] {
            let mut policy = policy(Limits { window, ..LIMITS });
            let mut now = Instant::now();
            let mut has_given_up = false;
            for _ in 0..10 {
                now += Duration::from_secs(7200);
                let decision = policy.decide(Meaning::Failed, false, reports_backups, now);
                has_given_up |= matches!(decision, Decision::GiveUp { .. });
            }
            assert_eq!(has_given_up, gives_up, "{reports_backups} {window:?}");
        }
    }

    #[test]
    fn waits_are_spread() {
        let mut policy = Policy::new(LIMITS);
        for _ in 0..100 {
            policy.failures = 0;
            let wait = policy.backoff();
            assert!(wait >= LIMITS.backoff / 2 && wait <= LIMITS.backoff);
        }
    }
}
