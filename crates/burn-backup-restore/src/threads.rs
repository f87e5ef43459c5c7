//! Threads that compute for a training.

use std::io;
#[cfg(any(test, feature = "testing"))]
use std::sync::Arc;
#[cfg(any(test, feature = "testing"))]
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};

/// Where they come from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Threads {
    /// How many can still be had, if a test says so.
    #[cfg(any(test, feature = "testing"))]
    left: Option<Arc<AtomicUsize>>,
}

impl Threads {
    /// No more than so many can be had.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn limited_to(threads: usize) -> Self {
        Self {
            left: Some(Arc::new(AtomicUsize::new(threads))),
        }
    }

    /// Starts one.
    ///
    /// # Errors
    ///
    /// When none can be had.
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
