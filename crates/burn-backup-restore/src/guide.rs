//! The guide: what to do, what is promised, and what is on the disk.
//!
//! Start with [`builder`] if the program uses Burn's `SupervisedTraining`, or with [`custom_loop`] if its loop is
//! written by hand. [`exactness`] says what a program must do to end with exactly the weights of an uninterrupted run.
//!
//! | page | about |
//! |---|---|
//! | [`builder`] | one line with Burn's builder, and state of your own |
//! | [`custom_loop`] | with a loop of your own: seven calls |
//! | [`reinforcement_learning`] | Burn's `RLTraining` |
//! | [`exactness`] | what is exact, and on which conditions; data loaders |
//! | [`frequency`] | how often to back up, and what it costs |
//! | [`retention`] | which backups are kept, and how to go back to one |
//! | [`preemption`] | signals and the notices of clouds |
//! | [`mirror`] | backups on S3, Google Cloud Storage, Azure, or a shared directory |
//! | [`supervisor`] | restarting the job: `burn-backup run`, systemd, Kubernetes, SLURM |
//! | [`divergence`] | NaN and exploding losses: stop, or go back and skip the batch |
//! | [`metrics`] | metric files, early stopping, the dashboard |
//! | [`devices`] | several devices, GPUs, remote devices, precision |
//! | [`changes`] | restarting with another batch size, schedule or set of trained parameters |
//! | [`ending`] | the end of a training |
//! | [`errors`] | errors and damage |
//! | [`observing`] | the handle, events, logs |
//! | [`comparison`] | Keras 2, Keras 3, Lightning and Burn's own checkpoints |
//! | [`guarantees`] | each failure, its outcome, and the test that shows it |
//! | [`performance`] | what backups cost, measured |
//! | [`format`](mod@format) | what is on the disk |
#![doc = concat!(
    "\nThe examples (folder `examples`) and the files for schedulers (`docs/schedulers`) are in the [repository](",
    env!("CARGO_PKG_REPOSITORY"),
    ")."
)]

/// Where the charts are, for pages that show them.
macro_rules! charts {
    () => {
        concat!(
            "[bench-stall]: ",
            raw!(),
            "bench-stall.svg\n",
            "[bench-disk]: ",
            raw!(),
            "bench-disk.svg\n",
            "[bench-goodput]: ",
            raw!(),
            "bench-goodput.svg\n",
        )
    };
}

macro_rules! raw {
    () => {
        concat!(
            env!("CARGO_PKG_REPOSITORY"),
            "/raw/main/crates/burn-backup-restore/src/guide/"
        )
    };
}

/// A module for each page of the folder `guide`.
///
/// The first definition of a link counts. Rustdoc sees those of `links.txt` first. A book and a code host see only those at
/// the end of the page.
macro_rules! pages {
    ($($name:ident,)+) => {
        $(
            #[doc = include_str!("guide/links.txt")]
            #[doc = charts!()]
            #[doc = include_str!(concat!("guide/", stringify!($name), ".md"))]
            pub mod $name {}
        )+
    };
}

pages! {
    builder,
    custom_loop,
    reinforcement_learning,
    exactness,
    frequency,
    retention,
    preemption,
    mirror,
    supervisor,
    divergence,
    metrics,
    devices,
    changes,
    ending,
    errors,
    observing,
    comparison,
    guarantees,
    performance,
    format,
}
