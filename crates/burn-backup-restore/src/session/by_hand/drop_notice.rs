use std::thread;

use crate::error::BackupError;
use crate::handle::BackupHandle;
use crate::messages::print_line;
use crate::outcome::Outcome;
use crate::session::closing;

/// Prints the last backup when a session is dropped without `finish`, by an early return or a panic.
pub(super) struct DropNotice {
    handle: BackupHandle,
    is_finished: bool,
}

impl DropNotice {
    pub(super) fn new(handle: BackupHandle) -> Self {
        Self {
            handle,
            is_finished: false,
        }
    }

    /// Records that the session was finished, with the error that ended it, if any.
    pub(super) fn finished(&mut self, outcome: Outcome, error: Option<&BackupError>) {
        self.is_finished = true;
        self.handle.ended(outcome, error);
    }

    pub(super) fn handle(&self) -> &BackupHandle {
        &self.handle
    }
}

impl Drop for DropNotice {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        self.handle.ended(Outcome::Failed, None);
        let how = match thread::panicking() {
            true => "with a panic",
            false => "before Session::finish",
        };
        let backup = closing::last_backup(&self.handle);
        print_line(&format!("the training ended {how}; {backup}"));
    }
}
