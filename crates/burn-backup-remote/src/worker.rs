//! The thread of a mirror. All asynchronous code runs on it.

use std::future::Future;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::error::MirrorError;

/// How long the shutdown waits for reads of the local disk.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(1);

pub(crate) struct Worker {
    handle: Handle,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub(crate) fn start() -> Result<Self, MirrorError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(MirrorError::Thread)?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("mirror".to_owned());
        let thread = thread.spawn(move || {
            // The thread also ends when the sender is dropped.
            let _ = runtime.block_on(ended);
            runtime.shutdown_timeout(SHUTDOWN_LIMIT);
        });
        Ok(Self {
            handle,
            end: Some(end),
            thread: Some(thread.map_err(MirrorError::Thread)?),
        })
    }

    /// From now on, runs the thread only when no other thread needs the processor, because a training begins.
    pub(crate) fn lower_priority(&self) {
        self.spawn(async { crate::priority::lower() });
    }

    /// Runs this work on the thread, concurrently with other work.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        drop(self.handle.spawn(work));
    }

    /// Runs this work on the thread, and waits for it.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, MirrorError>> + Send + 'static,
    ) -> Result<T, MirrorError> {
        let (out, done) = mpsc::channel();
        self.spawn(async move {
            // The caller waits for the answer.
            let _ = out.send(work.await);
        });
        done.recv().unwrap_or(Err(MirrorError::ThreadEnded))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // The panic hook has logged a panic of the thread.
            drop(thread.join());
        }
    }
}
