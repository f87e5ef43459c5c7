//! The example as a process, killed or uninterrupted.
#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod kill;
mod share;
mod terminate;
mod trainee;
