//! The progress of the training over all runs of the command, and the work that was lost.

use std::time::{Duration, Instant};

use super::beat::{Beat, Position};

/// The progress of all runs so far.
pub struct Progress {
    began: Instant,
    runs: u32,
    /// The number of batches at which the first run began, or resumed.
    first: Option<u64>,
    /// The newest backup of all runs.
    committed: Option<Position>,
    has_news: bool,
    reports_backups: bool,
    /// The position of the current run.
    position: Option<Position>,
    /// The position at which the current run resumed.
    restored: Option<Position>,
    /// The time and the number of the current run's first batch that was seen.
    first_batch: Option<(Instant, u64)>,
    /// The batch at which the previous run ended.
    left_at: Option<u64>,
    /// Batches that were trained more than once.
    repeated: u64,
    /// The number of batches that were seen, and the time that they took.
    trained: (u64, Duration),
    longest_gap: Duration,
}

impl Progress {
    pub fn new(now: Instant) -> Self {
        Self {
            began: now,
            runs: 0,
            first: None,
            committed: None,
            has_news: false,
            reports_backups: false,
            position: None,
            restored: None,
            first_batch: None,
            left_at: None,
            repeated: 0,
            trained: (0, Duration::ZERO),
            longest_gap: Duration::ZERO,
        }
    }

    /// A run begins.
    pub fn began(&mut self, now: Instant) {
        if self.runs == 0 {
            self.began = now;
        }
        self.runs += 1;
        self.position = None;
        self.restored = None;
        self.first_batch = None;
    }

    /// Takes a heartbeat of the current run.
    pub fn record_heartbeat(&mut self, beat: &Beat, now: Instant) {
        self.reports_backups = true;
        let Some(position) = beat.position else {
            return;
        };
        if self.position.is_none() {
            let from = beat.restored.map_or(0, |at| at.global_step);
            self.restored = beat.restored;
            self.first.get_or_insert(from);
            if let Some(left_at) = self.left_at.take() {
                self.repeated += left_at.saturating_sub(from);
            }
            self.first_batch = Some((now, position.global_step));
        }
        self.position = Some(position);
        let order = |position: Option<Position>| position.map(Position::order);
        if order(beat.committed) > order(self.committed) {
            self.committed = beat.committed;
            self.has_news = true;
        }
    }

    /// The current run has ended.
    pub fn ended(&mut self, now: Instant, longest_gap: Duration) {
        self.longest_gap = self.longest_gap.max(longest_gap);
        let (Some(position), Some((began, first))) = (self.position, self.first_batch) else {
            return;
        };
        self.left_at = Some(position.global_step);
        let (batches, took) = &mut self.trained;
        *batches += position.global_step.saturating_sub(first);
        *took += now - began;
    }

    /// The command is restarted.
    pub fn restarted(&mut self) {
        self.has_news = false;
    }

    /// Whether there is a new backup since the last restart.
    pub fn take_has_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// Whether the command reports its backups: it has sent a heartbeat.
    pub fn reports_backups(&self) -> bool {
        self.reports_backups
    }

    /// The position of the current run.
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// The longest time between two batches.
    pub fn longest_gap(&self) -> Duration {
        self.longest_gap
    }

    /// A summary in one line.
    pub fn summary(&self, now: Instant) -> String {
        let wall = now - self.began;
        let restarts = self.runs.saturating_sub(1);
        let restarts = match restarts {
            1 => "1 restart".to_owned(),
            restarts => format!("{restarts} restarts"),
        };
        let mut summary = format!("{restarts} in {}", seconds(wall));
        if !self.reports_backups {
            return summary;
        }
        match self.repeated {
            1 => summary.push_str("; 1 batch was trained again"),
            batches => summary.push_str(&format!("; {batches} batches were trained again")),
        }
        if let Some(goodput) = self.goodput(wall) {
            summary.push_str(&format!("; goodput {goodput:.2}"));
        }
        if let Some(position) = self.position {
            summary.push_str(&format!("; the training is at {position}"));
        }
        summary
    }

    /// The share of the time that was spent on batches that did not have to be trained again.
    fn goodput(&self, wall: Duration) -> Option<f64> {
        let (batches, took) = self.trained;
        let useful = self.position?.global_step.checked_sub(self.first?)?;
        if batches == 0 || wall.is_zero() {
            return None;
        }
        let per_batch = took.as_secs_f64() / batches as f64;
        Some((per_batch * useful as f64 / wall.as_secs_f64()).min(1.0))
    }
}

fn seconds(time: Duration) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    format!("{:#}", jiff::SignedDuration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(global_step: u64) -> Option<Position> {
        Some(Position {
            epoch: 1,
            step_in_epoch: global_step,
            global_step,
        })
    }

    fn beat(position: u64, restored: Option<u64>, committed: Option<u64>) -> Beat {
        Beat {
            count: position,
            position: at(position),
            restored: restored.and_then(at),
            committed: committed.and_then(at),
        }
    }

    #[test]
    fn repeated_batches_are_counted_and_lower_the_goodput() {
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let mut progress = Progress::new(begun);
        progress.began(begun);
        progress.record_heartbeat(&beat(0, None, None), begun);
        progress.record_heartbeat(&beat(50, None, Some(40)), after(49));
        progress.ended(after(50), Duration::from_secs(3));
        assert!(progress.take_has_news() && !progress.take_has_news());
        progress.began(after(60));
        progress.record_heartbeat(&beat(40, Some(40), None), after(60));
        assert!(!progress.take_has_news());
        progress.record_heartbeat(&beat(100, Some(40), Some(80)), after(119));
        assert!(progress.take_has_news());
        progress.ended(after(120), Duration::ZERO);
        // 110 batches took 110 s. 100 of them count, in 120 s.
        assert_eq!(
            progress.summary(after(120)),
            "1 restart in 2m; 10 batches were trained again; goodput 0.83; the training is at epoch 1, \
             batch 100 (batch 100 of the training)"
        );
        assert_eq!(progress.longest_gap(), Duration::from_secs(3));
    }

    #[test]
    fn without_a_heartbeat_only_restarts_are_known() {
        let begun = Instant::now();
        let mut progress = Progress::new(begun);
        progress.began(begun);
        progress.ended(begun, Duration::ZERO);
        progress.began(begun);
        assert!(!progress.reports_backups());
        let summary = progress.summary(begun + Duration::from_secs(61));
        assert_eq!(summary, "1 restart in 1m 1s");
    }
}
