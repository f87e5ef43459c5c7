//! Panics of Burn, of devices and of the program's own code, which become errors.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::BackupError;

/// Does what Burn, or a device, may panic in. A panic is an error like any other.
pub(crate) fn attempt<T>(work: impl FnOnce() -> Result<T, BackupError>) -> Result<T, BackupError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(BackupError::Panicked {
            message: panic_message(panic.as_ref()),
        })
    })
}

/// What a panic says.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
