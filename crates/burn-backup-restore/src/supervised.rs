//! Backups for Burn's builder: the builder method, the strategy that it registers, and the loops.

mod dashboard;
mod engine;
mod extension;
mod loops;
mod restore_trained;
mod strategy;

pub use extension::BackupExt;
