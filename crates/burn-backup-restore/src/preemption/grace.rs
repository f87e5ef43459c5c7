//! What to do between a notice and the kill: times in, a decision out.

use std::time::Duration;

/// How many times the longest that a backup is expected to take is left for the last one.
const SAFETY: u32 = 2;

/// What to do at a batch boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Go on.
    GoOn,
    /// Save, and go on.
    Save,
    /// Save, and leave.
    Leave,
}

/// What is known at a batch boundary.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outset {
    /// The time since the notice may have come.
    pub noticed: Duration,
    /// How long the last backup took to be written, or the one that is being written takes already.
    pub persist: Duration,
    /// How long the last batch took.
    pub step: Duration,
}

/// The time from a notice to the kill.
#[derive(Debug)]
pub(super) struct Grace {
    period: Duration,
    has_saved: bool,
}

impl Grace {
    /// That leaves so much time.
    pub(super) fn new(period: Duration) -> Self {
        Self {
            period,
            has_saved: false,
        }
    }

    /// What to do now. It is taken that a [`Save`](Advice::Save) is followed.
    pub(super) fn advise(&mut self, outset: Outset) -> Advice {
        let left = self.period.saturating_sub(outset.noticed);
        // The next boundary comes a batch later, and that one may take longer.
        let reserve = outset.persist * SAFETY + outset.step * SAFETY;
        if left <= reserve {
            return Advice::Leave;
        }
        match std::mem::replace(&mut self.has_saved, true) {
            true => Advice::GoOn,
            false => Advice::Save,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outset(noticed: u64, persist: u64, step: u64) -> Outset {
        Outset {
            noticed: Duration::from_millis(noticed),
            persist: Duration::from_millis(persist),
            step: Duration::from_millis(step),
        }
    }

    #[test]
    fn without_time_the_training_is_left_at_once() {
        let mut grace = Grace::new(Duration::ZERO);
        assert_eq!(grace.advise(Outset::default()), Advice::Leave);
    }

    #[test]
    fn with_time_it_is_saved_at_once_and_left_as_late_as_the_next_backup_allows() {
        let mut grace = Grace::new(Duration::from_secs(30));
        assert_eq!(grace.advise(outset(0, 0, 100)), Advice::Save);
        assert_eq!(grace.advise(outset(100, 100, 100)), Advice::GoOn);
        // Twice four seconds for the backup, and twice a tenth of one for the batch before it.
        assert_eq!(grace.advise(outset(21_700, 4000, 100)), Advice::GoOn);
        assert_eq!(grace.advise(outset(21_800, 4000, 100)), Advice::Leave);
        assert_eq!(grace.advise(outset(40_000, 4000, 100)), Advice::Leave);
    }

    #[test]
    fn a_batch_that_takes_longer_than_there_is_time_is_the_last() {
        let mut grace = Grace::new(Duration::from_secs(30));
        assert_eq!(grace.advise(outset(0, 0, 15_000)), Advice::Leave);
    }

    #[test]
    fn a_backup_that_takes_long_already_leaves_time_for_itself_and_the_last_one() {
        let mut grace = Grace::new(Duration::from_secs(90));
        assert_eq!(grace.advise(outset(0, 0, 0)), Advice::Save);
        assert_eq!(grace.advise(outset(29_000, 29_000, 0)), Advice::GoOn);
        // It has been written for as long as this, and is not done: 60 are left for two like it.
        assert_eq!(grace.advise(outset(30_000, 30_000, 0)), Advice::Leave);
    }
}
