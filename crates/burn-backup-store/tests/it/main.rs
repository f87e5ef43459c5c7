//! Tests the store on real directories.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod adopted;
mod aside;
mod contract;
mod corpus;
mod damage;
mod directory;
mod edits;
mod faults;
mod formats;
mod generations;
mod large_parts;
mod linked;
mod observed;
mod pinned;
mod power_cut;
mod private;
mod reading;
mod reuse;
mod support;
mod taken_over;
mod threads;
mod unusual_disks;
