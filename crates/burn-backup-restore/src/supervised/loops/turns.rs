//! Makes threads take turns. Work that draws random numbers must happen in a fixed order, because Burn's generators
//! belong to the process, not to a device.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Lets threads take turns in the order of their tickets, which count up from 0.
#[derive(Default)]
pub(super) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The ticket whose turn it is.
    ticket: u64,
    /// Whether a thread is gone that may still have had a turn.
    is_abandoned: bool,
}

/// A turn. It ends when this is dropped.
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    /// Waits for the turn of `ticket`. Each ticket must be taken exactly once, and its turn must end.
    pub(super) fn wait(&self, ticket: u64) -> Turn<'_> {
        let mut state = self.state();
        while state.ticket < ticket && !state.is_abandoned {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Turn(self)
    }

    /// Ends all waits for turns.
    pub(super) fn abandon(&self) {
        self.state().is_abandoned = true;
        self.changed.notify_all();
    }

    /// The state is always valid, so a poisoned lock is still used.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state().ticket += 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Mutex;
    use std::thread;

    use super::*;

    #[test]
    fn threads_take_their_turns_in_the_order_of_their_tickets() {
        const THREADS: u64 = 8;
        const ROUNDS: u64 = 200;
        let turns = Turns::default();
        let order = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for index in 0..THREADS {
                let (turns, order) = (&turns, &order);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let ticket = round * THREADS + index;
                        let _turn = turns.wait(ticket);
                        order.lock().unwrap().push(ticket);
                    }
                });
            }
        });
        let expected: Vec<_> = (0..THREADS * ROUNDS).collect();
        assert_eq!(order.into_inner().unwrap(), expected);
    }

    #[test]
    fn a_panic_in_a_turn_ends_it() {
        let turns = Turns::default();
        let panic = catch_unwind(AssertUnwindSafe(|| {
            let _turn = turns.wait(0);
            panic!("this panic is part of the test");
        }));
        assert!(panic.is_err());
        drop(turns.wait(1));
    }

    #[test]
    fn nobody_waits_for_a_thread_that_is_gone() {
        let turns = Turns::default();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(turns.wait(1)));
            turns.abandon();
            waiting.join().unwrap();
        });
    }
}
