use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::threads::TestHook;

/// Changes how the store starts threads, until it is dropped. Applies to calls on the test's own thread, and to the
/// threads that these calls start.
pub struct Threads {
    hook: Arc<TestHook>,
    before: Option<Arc<TestHook>>,
}

impl Threads {
    /// The system refuses a thread if `refuses` returns true for its number, counted from 0.
    pub fn refused(refuses: impl Fn(usize) -> bool + Send + Sync + 'static) -> Self {
        Self::with(Box::new(refuses), false)
    }

    /// Parallel work is done on one thread after the other, so that the calls come in the same order each time.
    pub fn in_turn() -> Self {
        Self::with(Box::new(|_| false), true)
    }

    /// How many threads were requested so far.
    pub fn asked(&self) -> usize {
        self.hook.asked.load(Ordering::Relaxed)
    }

    fn with(refuses: Box<dyn Fn(usize) -> bool + Send + Sync>, in_turn: bool) -> Self {
        let hook = Arc::new(TestHook {
            asked: AtomicUsize::new(0),
            refuses,
            in_turn,
        });
        let before = TestHook::replace(Some(hook.clone()));
        Self { hook, before }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        TestHook::replace(self.before.take());
    }
}
