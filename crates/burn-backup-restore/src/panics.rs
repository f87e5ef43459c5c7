//! Turns panics of Burn, of devices and of the program's own code into errors.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::BackupError;

/// Runs `work`, in which Burn or a device may panic. A panic becomes an error.
pub(crate) fn attempt<T>(work: impl FnOnce() -> Result<T, BackupError>) -> Result<T, BackupError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(BackupError::Panicked {
            message: panic_message(panic.as_ref()),
        })
    })
}

/// The panic's message.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
