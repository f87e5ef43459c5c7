//! Decides what to do between a notice and the kill, from times only.

use std::time::Duration;

/// The factor by which the expected time of the last backup is multiplied.
const SAFETY: u32 = 2;

/// The maximum number of attempts for the last backup.
const TRIES: u32 = 5;

/// What to do at a batch boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Continue.
    Continue,
    /// Save and continue.
    Save,
    /// Save and end.
    SaveAndStop,
}

/// What is known at a batch boundary.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Boundary {
    /// The longest time that may have passed since the notice.
    pub noticed: Duration,
    /// How long the last batch took.
    pub step: Duration,
    pub backups: Backups,
}

/// What is known of the backups so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Backups {
    /// How long the last backup took, or how long the current one has taken so far.
    pub persist: Duration,
    /// Whether a backup is being written. The last backup waits for it.
    pub is_writing: bool,
    /// The number of failed backups.
    pub failed: u64,
    pub mirror: Upload,
}

/// What is known of the upload to the mirror, which follows each written backup.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Upload {
    /// How long the last upload took, or how long the current one has taken so far.
    pub took: Duration,
    /// Whether an upload is running. The last upload waits for it.
    pub is_uploading: bool,
}

/// The time from a notice to the kill.
#[derive(Debug)]
pub(super) struct Grace {
    period: Duration,
    /// The number of failed backups at the last boundary. `None` before the first save was advised.
    failed_before: Option<u64>,
}

impl Grace {
    /// A grace period of this length.
    pub(super) fn new(period: Duration) -> Self {
        Self {
            period,
            failed_before: None,
        }
    }

    /// Ends the grace period.
    pub(super) fn end(&mut self) {
        self.period = Duration::ZERO;
    }

    /// The time until the kill, when `noticed` has passed since the notice.
    pub(super) fn left(&self, noticed: Duration) -> Duration {
        self.period.saturating_sub(noticed)
    }

    /// Whether there is time to try the last backup again. `noticed` is the time since the notice, `tries` the number
    /// of failed attempts, and `took` the time of the last one.
    pub(super) fn allows_another_try(&self, noticed: Duration, tries: u32, took: Duration) -> bool {
        let left = self.period.saturating_sub(noticed);
        tries < TRIES && took < left
    }

    /// What to do now. Assumes that the caller follows the advice to [`Save`](Advice::Save).
    pub(super) fn advise(&mut self, boundary: Boundary) -> Advice {
        let left = self.period.saturating_sub(boundary.noticed);
        // The next boundary is one batch later, and that batch may take longer.
        let Boundary { step, backups, .. } = boundary;
        let to_write = SAFETY + u32::from(backups.is_writing);
        let Upload { took, is_uploading } = backups.mirror;
        let to_upload = SAFETY + u32::from(is_uploading);
        let reserve = backups.persist * to_write + took * to_upload + step * SAFETY;
        if left <= reserve {
            return Advice::SaveAndStop;
        }
        match self.failed_before.replace(backups.failed) {
            Some(failed) if failed == backups.failed => Advice::Continue,
            // No save was advised yet, or a backup has failed since: save again.
            _ => Advice::Save,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boundary(noticed: u64, persist: u64, step: u64) -> Boundary {
        Boundary {
            noticed: Duration::from_millis(noticed),
            step: Duration::from_millis(step),
            backups: Backups {
                persist: Duration::from_millis(persist),
                ..Backups::default()
            },
        }
    }

    #[test]
    fn without_time_the_training_stops_at_once() {
        let mut grace = Grace::new(Duration::ZERO);
        assert_eq!(grace.advise(Boundary::default()), Advice::SaveAndStop);
    }

    #[test]
    fn with_time_it_is_saved_at_once_and_stops_as_late_as_the_next_backup_allows() {
        let mut grace = Grace::new(Duration::from_secs(30));
        assert_eq!(grace.advise(boundary(0, 0, 100)), Advice::Save);
        assert_eq!(grace.advise(boundary(100, 100, 100)), Advice::Continue);
        // Twice four seconds for the backup, and twice a tenth of a second for the batch before it.
        assert_eq!(grace.advise(boundary(21_700, 4000, 100)), Advice::Continue);
        assert_eq!(
            grace.advise(boundary(21_800, 4000, 100)),
            Advice::SaveAndStop
        );
        assert_eq!(
            grace.advise(boundary(40_000, 4000, 100)),
            Advice::SaveAndStop
        );
    }

    #[test]
    fn a_mirror_needs_time_for_the_current_and_the_last_upload() {
        let mirrored = |noticed, took, is_uploading| {
            let mut boundary = boundary(noticed, 1000, 0);
            boundary.backups.mirror = Upload {
                took: Duration::from_secs(took),
                is_uploading,
            };
            boundary
        };
        let mut grace = Grace::new(Duration::from_secs(60));
        assert_eq!(grace.advise(mirrored(0, 0, false)), Advice::Save);
        // Two seconds for the backup, and twice ten for the upload to the mirror.
        assert_eq!(grace.advise(mirrored(37_900, 10, false)), Advice::Continue);
        assert_eq!(
            grace.advise(mirrored(38_000, 10, false)),
            Advice::SaveAndStop
        );
        assert_eq!(grace.advise(mirrored(27_900, 10, true)), Advice::Continue);
        assert_eq!(
            grace.advise(mirrored(28_000, 10, true)),
            Advice::SaveAndStop
        );
    }

    #[test]
    fn a_batch_longer_than_the_remaining_time_is_the_last() {
        let mut grace = Grace::new(Duration::from_secs(30));
        assert_eq!(grace.advise(boundary(0, 0, 15_000)), Advice::SaveAndStop);
    }

    #[test]
    fn a_slow_backup_reserves_time_for_itself_and_the_last_one() {
        let writing = |millis| {
            let mut boundary = boundary(millis, millis, 0);
            boundary.backups.is_writing = true;
            boundary
        };
        let mut grace = Grace::new(Duration::from_secs(80));
        assert_eq!(grace.advise(boundary(0, 0, 0)), Advice::Save);
        assert_eq!(grace.advise(writing(19_000)), Advice::Continue);
        // The backup has taken this long and is not done: reserve three times that, for it and two more.
        assert_eq!(grace.advise(writing(20_000)), Advice::SaveAndStop);
    }

    #[test]
    fn a_failed_backup_is_taken_again() {
        let mut grace = Grace::new(Duration::from_secs(30));
        assert_eq!(grace.advise(boundary(0, 0, 0)), Advice::Save);
        assert_eq!(grace.advise(boundary(1, 0, 0)), Advice::Continue);
        let mut after_failure = boundary(2, 0, 0);
        after_failure.backups.failed = 1;
        assert_eq!(grace.advise(after_failure), Advice::Save);
        assert_eq!(grace.advise(after_failure), Advice::Continue);
    }

    #[test]
    fn a_last_backup_that_has_failed_is_tried_again_while_time_is_left() {
        let table = [
            // Seconds of grace, seconds since the notice, attempts, seconds of the last attempt, whether to try
            // again.
            (30, 10, 1, 4, true),
            (30, 25, 1, 4, true),
            (30, 26, 1, 4, false),
            (30, 31, 1, 0, false),
            (30, 10, 4, 0, true),
            (30, 10, 5, 0, false),
            (0, 0, 1, 0, false),
        ];
        for (grace, noticed, attempts, took, expected) in table {
            let [grace, noticed, took] = [grace, noticed, took].map(Duration::from_secs);
            let again = Grace::new(grace).allows_another_try(noticed, attempts, took);
            assert_eq!(again, expected, "{grace:?} {noticed:?} {attempts} {took:?}");
        }
        let mut grace = Grace::new(Duration::from_secs(30));
        grace.end();
        assert!(!grace.allows_another_try(Duration::ZERO, 1, Duration::ZERO));
    }

    #[test]
    fn once_no_time_is_left_the_training_stops() {
        let mut grace = Grace::new(Duration::from_secs(3600));
        assert_eq!(grace.advise(boundary(0, 0, 0)), Advice::Save);
        grace.end();
        assert_eq!(grace.advise(boundary(1, 0, 0)), Advice::SaveAndStop);
    }
}
