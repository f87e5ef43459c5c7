//! Backups measured against Burn's own checkpoints and the raw disk.

fn main() {}
