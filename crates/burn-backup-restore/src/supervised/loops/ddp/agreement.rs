//! Makes all workers of a training do the same at the same batch. If only some workers computed the
//! gradients of a step, the step would never end, or would end differently on each device.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A worker's vote for the next action. The greatest vote, in this order, decides for all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Vote {
    /// Train on a batch. More batches may follow.
    #[default]
    Train,
    /// Train on the last batch of the epoch.
    TrainLast,
    /// No batch of the epoch is left.
    EndEpoch,
    /// The training ends here.
    Leave,
}

/// The vote on the next action. Each worker votes once per round, and waits for the others.
pub(super) struct Agreement {
    workers: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    round: u64,
    votes: usize,
    /// The greatest vote of this round so far.
    tally: Vote,
    /// The result of the previous round.
    decided: Vote,
    /// Whether a worker is gone and will not vote again.
    is_broken: bool,
}

impl Agreement {
    pub(super) fn of(workers: usize) -> Self {
        Self {
            workers,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Votes, waits for all votes, and returns the decision. Once a worker is gone, the decision is
    /// `Leave`.
    pub(super) fn agree(&self, vote: Vote) -> Vote {
        let mut state = self.state();
        if state.is_broken {
            return Vote::Leave;
        }
        let round = state.round;
        state.votes += 1;
        state.tally = state.tally.max(vote);
        if state.votes == self.workers {
            state.decided = std::mem::take(&mut state.tally);
            state.votes = 0;
            state.round += 1;
            self.changed.notify_all();
        }
        while state.round == round && !state.is_broken {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        match state.round == round {
            true => Vote::Leave,
            false => state.decided,
        }
    }

    /// The calling worker will not vote again.
    pub(super) fn leave(&self) {
        self.state().is_broken = true;
        self.changed.notify_all();
    }

    /// Whether a worker is gone.
    pub(super) fn is_broken(&self) -> bool {
        self.state().is_broken
    }

    /// Nothing can panic while the lock is held, so a poisoned lock is still valid.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    /// Delays a thread by a pseudo-random time. Each thread has its own numbers.
    fn delay(numbers: &mut u64) {
        *numbers = numbers
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        match *numbers >> 61 {
            0..=3 => {}
            4..=6 => thread::yield_now(),
            _ => (0..*numbers % 5000).for_each(|_| std::hint::spin_loop()),
        }
    }

    /// Lets `workers` threads vote for `rounds` rounds, and returns the decisions that each got.
    fn decisions(
        workers: usize,
        rounds: usize,
        vote: impl Fn(usize, usize) -> Vote + Sync,
    ) -> Vec<Vec<Vote>> {
        let agreement = Agreement::of(workers);
        thread::scope(|scope| {
            let threads: Vec<_> = (0..workers)
                .map(|worker| {
                    let (agreement, vote) = (&agreement, &vote);
                    scope.spawn(move || {
                        let mut numbers = worker as u64;
                        let mut decisions = Vec::new();
                        for round in 0..rounds {
                            delay(&mut numbers);
                            decisions.push(agreement.agree(vote(worker, round)));
                        }
                        decisions
                    })
                })
                .collect();
            let decisions = threads.into_iter().map(|thread| thread.join().unwrap());
            decisions.collect()
        })
    }

    #[test]
    fn all_workers_follow_the_last_vote_in_order() {
        use Vote::{EndEpoch, Leave, Train, TrainLast};

        let votes = [
            [Train, Train, Train],
            [Train, TrainLast, Train],
            [TrainLast, Train, EndEpoch],
            [Train, Leave, EndEpoch],
            [Train, Train, Train],
        ];
        let expected = vec![Train, TrainLast, EndEpoch, Leave, Train];
        let decisions = decisions(3, votes.len(), |worker, round| votes[round][worker]);
        assert!(
            decisions.iter().all(|decisions| *decisions == expected),
            "{decisions:?}"
        );
    }

    #[test]
    fn many_delayed_workers_agree_in_each_of_many_rounds() {
        for workers in [1, 2, 7, 32] {
            // In some rounds a single worker, a different one each time, votes differently.
            let vote = |worker: usize, round: usize| match round % 11 {
                3 if worker == round % workers => Vote::EndEpoch,
                7 if worker == (round / 3) % workers => Vote::Leave,
                _ => Vote::Train,
            };
            let expected: Vec<_> = (0..1000)
                .map(|round| match round % 11 {
                    3 => Vote::EndEpoch,
                    7 => Vote::Leave,
                    _ => Vote::Train,
                })
                .collect();
            let decisions = decisions(workers, 1000, vote);
            assert_eq!(decisions.len(), workers);
            assert!(
                decisions.iter().all(|decisions| *decisions == expected),
                "{workers} workers"
            );
        }
    }

    #[test]
    fn a_stop_at_any_time_ends_all_workers_at_the_same_batch() {
        for run in 0..200_u64 {
            let workers = 2 + (run % 6) as usize;
            let agreement = Agreement::of(workers);
            // The stop arrives while one worker trains, wherever the others are.
            let steps = AtomicUsize::new(0);
            let stop_at = 1 + (run * 7 % 50) as usize;
            let batches: Vec<usize> = thread::scope(|scope| {
                let threads: Vec<_> = (0..workers)
                    .map(|worker| {
                        let (agreement, steps) = (&agreement, &steps);
                        scope.spawn(move || {
                            let mut numbers = run * 100 + worker as u64;
                            let mut trained = 0;
                            loop {
                                delay(&mut numbers);
                                let is_stopped = steps.load(Ordering::Relaxed) >= stop_at;
                                let vote = if is_stopped { Vote::Leave } else { Vote::Train };
                                if agreement.agree(vote) == Vote::Leave {
                                    return trained;
                                }
                                trained += 1;
                                steps.fetch_add(1, Ordering::Relaxed);
                            }
                        })
                    })
                    .collect();
                threads.into_iter().map(|t| t.join().unwrap()).collect()
            });
            assert!(
                batches.iter().all(|trained| *trained == batches[0]),
                "{batches:?}"
            );
            assert!(batches[0] >= stop_at / workers, "{batches:?}");
        }
    }

    #[test]
    fn when_a_worker_is_gone_the_others_leave() {
        for gone_after in 0..20 {
            let agreement = Agreement::of(4);
            thread::scope(|scope| {
                for worker in 0..4 {
                    let agreement = &agreement;
                    scope.spawn(move || {
                        let mut numbers = worker;
                        for round in 0.. {
                            delay(&mut numbers);
                            if worker == 2 && round == gone_after {
                                return agreement.leave();
                            }
                            if agreement.agree(Vote::Train) == Vote::Leave {
                                assert_eq!(round, gone_after);
                                return;
                            }
                        }
                    });
                }
            });
            assert!(agreement.is_broken());
            assert_eq!(agreement.agree(Vote::Train), Vote::Leave);
        }
    }
}
