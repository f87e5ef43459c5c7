//! The codes with which a program tells who has started it whether to start it again.
//!
//! `burn-backup run` goes by them. Kubernetes, systemd and SLURM can be told to. They are those of BSD's
//! [`sysexits.h`](https://man.freebsd.org/cgi/man.cgi?sysexits).

/// The training was stopped before its end, and saved: start the program again. It is `EX_TEMPFAIL`.
pub const START_AGAIN: u8 = 75;

/// The training can't go on until something is changed: a restart ends the same way. It is `EX_CONFIG`.
pub const FIX_FIRST: u8 = 78;

/// The training has failed, and it is not known whether a restart helps.
pub const FAILED: u8 = 1;
