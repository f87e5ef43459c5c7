//! The commands, one file each, with their arguments and reports.

pub mod completions;
pub mod diff;
pub mod discard;
pub mod doctor;
pub mod export;
pub mod history;
pub mod list;
pub mod man;
pub mod migrate;
pub mod prune;
pub mod pull;
pub mod push;
pub mod show;
pub mod unquarantine;
pub mod verify;
