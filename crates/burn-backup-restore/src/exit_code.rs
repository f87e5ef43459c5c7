//! Exit codes that tell a supervisor whether to start the program again.
//!
//! `burn-backup run` uses them, and Kubernetes, systemd and SLURM can be configured to use them. 75 and 78 are codes of
//! BSD's [`sysexits.h`](https://man.freebsd.org/cgi/man.cgi?sysexits).

/// The training was stopped before its end: start the program again, to resume from the last backup. This is
/// `EX_TEMPFAIL`.
pub const START_AGAIN: u8 = 75;

/// The training can't continue until something is changed: a restart would fail in the same way. This is `EX_CONFIG`.
pub const FIX_FIRST: u8 = 78;

/// The training has failed, and a restart may help.
pub const FAILED: u8 = 1;
