//! Runs the program `burn-backup` on backups.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod backups;
mod careful;
mod damage;
mod doctor;
mod export;
mod golden;
mod in_use;
mod mirrors;
mod normal;
mod program;
#[cfg(unix)]
mod run;
mod streams;
mod wrong_places;
