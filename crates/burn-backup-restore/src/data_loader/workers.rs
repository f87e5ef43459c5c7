//! Threads that make batches in advance. The reader gets the batches in order.
//!
//! One thread claims a batch, makes it without holding a lock, and puts it into the slot of its index. If no thread
//! has claimed the batch that the reader needs next, the reader makes it itself. So slow threads never block the
//! reader.
//!
//! The threads live as long as the loader, not only for an epoch: a device may keep streams and memory for each
//! thread that ever used it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

const LOG: &str = "burn_backup::data_loader";

/// How many batches may be claimed in advance, per thread. While one thread makes a slow batch, the others make the
/// batches after it. With a smaller window they would soon have to wait.
pub(crate) const WINDOW_PER_THREAD: usize = 16;

/// Makes the batch with this index. It must not panic.
pub(super) type Make<T> = Arc<dyn Fn(usize) -> T + Send + Sync>;

/// The threads of a loader. Dropping it waits for the batches that are being made.
pub(super) struct Workers<T> {
    shared: Arc<Shared<T>>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    /// Notified when a batch can be claimed, or when the threads must end.
    work: Condvar,
    /// How many batches of an iterator may be claimed in advance.
    window: usize,
}

struct State<T> {
    /// All iterators in use.
    runs: Vec<IteratorRun<T>>,
    next_id: u64,
    /// The number of threads that wait for work and have not been notified.
    waiting: usize,
    is_over: bool,
}

/// The batches of one iterator.
struct IteratorRun<T> {
    id: u64,
    make: Make<T>,
    /// The index of the batch that the reader takes next.
    next: usize,
    /// The number of batches.
    end: usize,
    /// The claimed batches, from `next` on. A slot is `None` while its batch is being made.
    slots: VecDeque<Option<T>>,
    /// Notified when the next batch is made, if the reader waits for it.
    taker: Arc<Condvar>,
    is_awaited: bool,
}

/// Where a finished batch goes.
enum Delivery<T> {
    /// It stays in its slot until it is taken.
    Early,
    /// The reader waits for it.
    Awaited(Arc<Condvar>),
    /// It was skipped, or its iterator was dropped.
    Unwanted(T),
}

/// The reader's side of one iterator.
pub(super) struct Prefetched<'w, T> {
    shared: &'w Shared<T>,
    id: u64,
    make: Make<T>,
    taker: Arc<Condvar>,
}

impl<T: Send + 'static> Workers<T> {
    /// Starts `threads` threads, or as many as the system allows.
    pub(super) fn start(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                runs: Vec::new(),
                next_id: 0,
                waiting: 0,
                is_over: false,
            }),
            work: Condvar::new(),
            window: threads.saturating_mul(WINDOW_PER_THREAD),
        });
        let mut started = Vec::new();
        for index in 0..threads {
            let shared = shared.clone();
            let thread = Builder::new()
                .name(format!("data-loader-{index}"))
                .spawn(move || shared.work());
            match thread {
                Ok(thread) => started.push(thread),
                Err(error) => {
                    log::warn!(
                        target: LOG,
                        "only {index} of {threads} workers could be started: {error}",
                    );
                    break;
                }
            }
        }
        Self {
            shared,
            threads: started,
        }
    }

    /// Lets the threads make the batches from `next` up to `end`.
    pub(super) fn begin(&self, next: usize, end: usize, make: Make<T>) -> Prefetched<'_, T> {
        let taker = Arc::new(Condvar::new());
        let mut state = self.shared.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.runs.push(IteratorRun {
            id,
            make: make.clone(),
            next,
            end,
            slots: VecDeque::new(),
            taker: taker.clone(),
            is_awaited: false,
        });
        Prefetched {
            shared: &self.shared,
            id,
            make,
            taker,
        }
    }
}

impl<T> Drop for Workers<T> {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // The thread does not panic, and `drop` could not report it.
            let _ = thread.join();
        }
    }
}

impl<T> Shared<T> {
    /// Nothing panics while the lock is held, so a poisoned lock is still valid.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop of a thread.
    fn work(&self) {
        let mut state = self.lock();
        while !state.is_over {
            let Some((id, index, make)) = state.claim(self.window) else {
                state.waiting += 1;
                state = self
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let made = make(index);
            drop(make);
            state = self.lock();
            match state.deliver(id, index, made) {
                Delivery::Early => {}
                // Release the lock first, so that the reader finds it free.
                Delivery::Awaited(taker) => {
                    drop(state);
                    taker.notify_one();
                    state = self.lock();
                }
                Delivery::Unwanted(made) => {
                    drop(state);
                    discard(made);
                    state = self.lock();
                }
            }
        }
    }

    /// Notifies the waiting threads once half of the window is free. Waking a thread for each batch would cost more
    /// than many batches do.
    fn call(&self, state: &mut State<T>, id: u64) {
        if state.waiting == 0 {
            return;
        }
        let is_worth_it = state.run(id).is_some_and(|run| {
            run.claimed() < run.end && self.window - run.slots.len() >= self.window.div_ceil(2)
        });
        if is_worth_it {
            state.waiting = 0;
            self.work.notify_all();
        }
    }
}

/// Drops an unwanted batch. A panic in its destructor must not end the thread.
fn discard<T>(made: T) {
    if catch_unwind(AssertUnwindSafe(|| drop(made))).is_err() {
        log::warn!(target: LOG, "a batch that is no longer needed panicked while it was dropped");
    }
}

impl<T> State<T> {
    fn run(&mut self, id: u64) -> Option<&mut IteratorRun<T>> {
        self.runs.iter_mut().find(|run| run.id == id)
    }

    /// Claims the first batch that may be made in advance.
    fn claim(&mut self, window: usize) -> Option<(u64, usize, Make<T>)> {
        let run = self
            .runs
            .iter_mut()
            .find(|run| run.slots.len() < window && run.claimed() < run.end)?;
        Some((run.id, run.claim(), run.make.clone()))
    }

    /// Puts a batch into its slot, if the slot still exists.
    fn deliver(&mut self, id: u64, index: usize, made: T) -> Delivery<T> {
        let Some(run) = self.run(id) else {
            return Delivery::Unwanted(made);
        };
        let slot = index
            .checked_sub(run.next)
            .and_then(|place| run.slots.get_mut(place));
        let Some(slot) = slot else {
            return Delivery::Unwanted(made);
        };
        *slot = Some(made);
        if run.is_awaited && index == run.next {
            run.is_awaited = false;
            return Delivery::Awaited(run.taker.clone());
        }
        Delivery::Early
    }
}

impl<T> IteratorRun<T> {
    /// The index of the batch that is claimed next.
    fn claimed(&self) -> usize {
        self.next + self.slots.len()
    }

    fn claim(&mut self) -> usize {
        let index = self.claimed();
        self.slots.push_back(None);
        index
    }

    /// Continues at `index`. Returns the finished batches before it.
    fn jump(&mut self, index: usize) -> Vec<T> {
        let skipped = index.saturating_sub(self.next).min(self.slots.len());
        self.next = self.next.max(index);
        self.slots.drain(..skipped).flatten().collect()
    }
}

impl<T> Prefetched<'_, T> {
    /// Takes the batch with this index, which must be greater than the last one taken. `None` if a later batch was
    /// taken.
    pub(super) fn take(&self, index: usize) -> Option<T> {
        let mut state = self.shared.lock();
        let skipped = state.run(self.id)?.jump(index);
        if !skipped.is_empty() {
            drop(state);
            drop(skipped);
            state = self.shared.lock();
        }
        self.shared.call(&mut state, self.id);
        loop {
            let run = state.run(self.id).filter(|run| run.next == index)?;
            let Some(slot) = run.slots.front_mut() else {
                run.claim();
                drop(state);
                let made = (self.make)(index);
                let _unmade = self.shared.lock().run(self.id)?.jump(index + 1);
                return Some(made);
            };
            if let Some(made) = slot.take() {
                let _taken = run.jump(index + 1);
                self.shared.call(&mut state, self.id);
                return Some(made);
            }
            run.is_awaited = true;
            state = self
                .taker
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Drop for Prefetched<'_, T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let place = state.runs.iter().position(|run| run.id == self.id);
        let run = place.map(|place| state.runs.swap_remove(place));
        drop(state);
        drop(run);
    }
}
