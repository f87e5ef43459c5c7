use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread::{self, ThreadId};

static TRAINED: AtomicUsize = AtomicUsize::new(0);
/// The batch to abort in, or 0 for none.
static ABORTS_IN: AtomicUsize = AtomicUsize::new(0);
static THREADS: Mutex<Option<HashSet<ThreadId>>> = Mutex::new(None);

/// The directory of all files that the program writes.
static FILES: OnceLock<PathBuf> = OnceLock::new();

/// Aborts this process in that training batch, counted from 1. The process writes into `files`.
pub fn abort_in(batch: usize, files: &Path) {
    FILES.get_or_init(|| files.to_path_buf());
    ABORTS_IN.store(batch, Ordering::Relaxed);
}

/// Whether Burn is writing no checkpoint at the moment. It writes them on threads of its own, and does not
/// write one again that a kill left half written. These tests compare whole checkpoints only.
fn are_checkpoints_whole(dir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(dir) else {
        return true;
    };
    let mut files = 0;
    let is_whole = entries.map(Result::unwrap).all(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return are_checkpoints_whole(&path);
        }
        files += 1;
        path.extension().is_none_or(|extension| extension != "tmp")
    });
    // Model, optimizer and scheduler.
    is_whole && (!dir.ends_with("checkpoint") || files % 3 == 0)
}

/// Called in each training step of each program.
pub fn count_batch() {
    let batch = TRAINED.fetch_add(1, Ordering::Relaxed) + 1;
    if batch == ABORTS_IN.load(Ordering::Relaxed) {
        while !FILES.get().is_none_or(|files| are_checkpoints_whole(files)) {
            thread::yield_now();
        }
        std::process::abort();
    }
    let mut threads = THREADS.lock().unwrap();
    threads
        .get_or_insert_default()
        .insert(thread::current().id());
}

/// Whether more than one thread has trained batches.
pub fn on_several_threads() -> bool {
    let threads = THREADS.lock().unwrap();
    threads.as_ref().is_some_and(|threads| threads.len() > 1)
}
