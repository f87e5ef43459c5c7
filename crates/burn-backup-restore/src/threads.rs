//! Starts the compute threads of a training.

use std::io;
#[cfg(any(test, feature = "testing"))]
use std::sync::Arc;
#[cfg(any(test, feature = "testing"))]
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};

/// Starts threads. Tests can limit how many.
#[derive(Debug, Clone, Default)]
pub(crate) struct Threads {
    /// How many more threads may be started, if a test limits them.
    #[cfg(any(test, feature = "testing"))]
    left: Option<Arc<AtomicUsize>>,
}

impl Threads {
    /// Starts at most this many threads.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn limited_to(threads: usize) -> Self {
        Self {
            left: Some(Arc::new(AtomicUsize::new(threads))),
        }
    }

    /// Starts a thread.
    ///
    /// # Errors
    ///
    /// If the system can't start a thread, or the limit is reached.
    pub(crate) fn start(
        &self,
        name: String,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        #[cfg(any(test, feature = "testing"))]
        if let Some(left) = &self.left {
            let one_less = |left: usize| left.checked_sub(1);
            let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
            taken.map_err(|_| io::ErrorKind::WouldBlock)?;
        }
        Builder::new().name(name).spawn(work)
    }
}
