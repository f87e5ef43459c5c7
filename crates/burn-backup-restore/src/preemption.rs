//! Handles notices that the machine or the process is about to end: a backup at the next batch, and an orderly stop.

mod file;
mod grace;
mod monitor;
mod signals;
mod watcher;

#[cfg(feature = "cloud")]
mod cloud;

use std::fmt;
use std::time::Duration;

use crate::error::BackupError;

#[cfg(feature = "cloud")]
pub use cloud::{AzureWatcher, Ec2SpotWatcher, GceWatcher};
pub use file::FileWatcher;
pub(crate) use grace::{Advice, Backups, Upload};
pub(crate) use monitor::NoticeMonitor;
pub use watcher::PreemptionWatcher;

/// Defines what counts as a preemption notice, and what happens after one (Keras: `save_before_preemption`). A notice
/// says that the training is about to be ended from outside.
///
/// At the next batch boundary, in training or in validation, a backup is taken and committed, and the training stops
/// cleanly. [`LearningResult::interrupted`](burn::train::LearningResult) names the notice and the saved position. Run
/// the program again to resume from there.
///
/// The model that `launch` returns then is *not* the trained one. Check `result.interrupted` before you save it as
/// final, or end the process with [`AfterPreemption::Exit`].
///
/// # Example
///
/// ```
/// use std::time::Duration;
///
/// use burn_backup_restore::{AfterPreemption, BackupAndRestore, FileWatcher, Preemption};
///
/// let backup = BackupAndRestore::new("backup").save_before_preemption(
///     Preemption::signals()
///         .watch(FileWatcher::new("/run/leave"))
///         .grace_period(Duration::from_secs(30))
///         .after(AfterPreemption::Exit(42)),
/// );
/// ```
#[derive(Default)]
pub struct Preemption {
    pub(crate) signals: Vec<i32>,
    pub(crate) watchers: Vec<Box<dyn PreemptionWatcher>>,
    pub(crate) grace_period: Duration,
    pub(crate) after: AfterPreemption,
    /// Whether the program handles the signals itself after `launch`.
    pub(crate) leaves_signals: bool,
}

/// What happens once the training is saved after a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AfterPreemption {
    /// `launch` returns, with the notice in `result.interrupted`.
    #[default]
    Return,
    /// The process exits with this code. Choose a code that the scheduler treats as "start again":
    /// [`START_AGAIN`](crate::exit_code::START_AGAIN) for `burn-backup run`, or the 42 of TensorFlow's
    /// [`TerminationConfig`](https://www.tensorflow.org/api_docs/python/tf/distribute/experimental/TerminationConfig).
    Exit(i32),
}

impl Preemption {
    /// No notices yet. Add some with [`signal`](Self::signal) or [`watch`](Self::watch).
    pub fn new() -> Self {
        Self::default()
    }

    /// SIGTERM and SIGINT are notices; on Windows, Ctrl-C is one.
    ///
    /// The handlers only set a flag, and are installed while `launch` runs. A second SIGTERM or SIGINT ends the
    /// process, as without the handlers. It is ignored within half a second of the first one. Between half a second and
    /// two seconds, it counts only if a batch has ended since the first one. So a supervisor that sends a signal twice
    /// does not kill the process before the training is saved.
    ///
    /// A signal that the process ignores when the training starts is not a notice. Under `nohup` or in a shell's
    /// background, for example, signals are ignored. (This can be detected only on Linux.)
    pub fn signals() -> Self {
        Self::new().signal(signals::SIGTERM).signal(signals::SIGINT)
    }

    /// The signal with this number is a notice too, such as the SIGUSR1 that SLURM's `--signal` sends.
    ///
    /// SIGKILL, SIGSTOP, the signals of processor faults (SIGSEGV, SIGILL, SIGFPE) and real-time signals can't be
    /// notices: with one of them, the training does not start.
    pub fn signal(mut self, signal: i32) -> Self {
        if !self.signals.contains(&signal) {
            self.signals.push(signal);
        }
        self
    }

    /// The notices that `watcher` finds count too. It is polled on its own thread.
    pub fn watch(mut self, watcher: impl PreemptionWatcher) -> Self {
        self.watchers.push(Box::new(watcher));
        self
    }

    /// The time that the platform leaves between the notice and the kill; zero by default.
    ///
    /// With zero, the training is saved at once and ends. With a longer time, it is saved at once and continues.
    /// Shortly before the kill, it is saved again and ends. This happens when the time left is twice the time of the
    /// last backup, its upload to the mirror, and a batch.
    ///
    /// A notice with a deadline of its own, such as that of Amazon EC2, can shorten this time, but not lengthen it. A
    /// second notice for another reason ends it: the training is saved and ends at once.
    pub fn grace_period(mut self, grace_period: Duration) -> Self {
        self.grace_period = grace_period;
        self
    }

    /// What happens once the training is saved; by default, `launch` returns.
    pub fn after(mut self, after: AfterPreemption) -> Self {
        self.after = after;
        self
    }

    /// Leaves the signals to the program after `launch`, for example to `tokio::signal::ctrl_c`.
    ///
    /// Without this setting, a signal does the same after `launch` as before it: SIGTERM and Ctrl-C end the process.
    /// They do so before any action that the program has added since, through tokio, `signal-hook` or anything else
    /// on `signal-hook-registry`. With this setting, this crate ignores signals after `launch`. A signal that arrives
    /// before the program has its own handler is lost.
    ///
    /// A program that installs its handler before `launch` does not need this on Linux.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_backup_restore::{BackupAndRestore, Preemption};
    ///
    /// let preemption = Preemption::signals().leave_signals_after_launch();
    /// let backup = BackupAndRestore::new("backup").save_before_preemption(preemption);
    /// // launch(..), and then serve the model until tokio::signal::ctrl_c()
    /// ```
    pub fn leave_signals_after_launch(mut self) -> Self {
        self.leaves_signals = true;
        self
    }

    /// Checks the settings, without asking the system or a service.
    pub(crate) fn validate(&self) -> Result<(), BackupError> {
        if self.signals.is_empty() && self.watchers.is_empty() {
            return Err(BackupError::EmptyPreemption);
        }
        match self
            .signals
            .iter()
            .find(|signal| !signals::can_be(**signal))
        {
            Some(signal) => Err(BackupError::ForbiddenSignal { signal: *signal }),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Preemption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let watchers: Vec<_> = self.watchers.iter().map(|watcher| watcher.name()).collect();
        f.debug_struct("Preemption")
            .field("signals", &self.signals)
            .field("watchers", &watchers)
            .field("grace_period", &self.grace_period)
            .field("after", &self.after)
            .field("leaves_signals", &self.leaves_signals)
            .finish()
    }
}
