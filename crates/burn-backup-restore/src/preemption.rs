//! Leaving well: a notice that the machine or the process is about to go leads to a backup at the
//! next batch, and to an orderly end.

mod file;
mod grace;
mod lookout;
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
pub(crate) use lookout::Lookout;
pub use watcher::PreemptionWatcher;

/// What counts as a notice that the training is about to be ended from outside, and what to do then
/// (Keras: `save_before_preemption`).
///
/// At the next batch boundary, in training or in validation, a backup is taken and committed, and the
/// training ends in order: [`LearningResult::interrupted`](burn::train::LearningResult) names the
/// notice and the position that was saved. Run the program again, and it goes on from there.
///
/// The model that `launch` returns then is *not* the trained one: look at `result.interrupted` before
/// saving it as final, or have the process end with [`AfterPreemption::Exit`].
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
    /// The program handles the signals after `launch`.
    pub(crate) leaves_signals: bool,
}

/// What follows once the training is saved after a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AfterPreemption {
    /// `launch` returns, with the notice in the result's `interrupted`.
    #[default]
    Return,
    /// The process exits with this code; choose one that the scheduler takes as "start again":
    /// [`START_AGAIN`](crate::exit_code::START_AGAIN) for `burn-backup run`, or the 42 of TensorFlow's
    /// [`TerminationConfig`](https://www.tensorflow.org/api_docs/python/tf/distribute/experimental/TerminationConfig).
    Exit(i32),
}

impl Preemption {
    /// Nothing is a notice yet: to be followed by [`signal`](Self::signal) or [`watch`](Self::watch).
    pub fn new() -> Self {
        Self::default()
    }

    /// SIGTERM and SIGINT are notices; on Windows, Ctrl-C is.
    ///
    /// The handlers only set a flag. They are there while `launch` runs. A second SIGTERM or SIGINT
    /// ends the process at once, as without them; but not within half a second of the first one, nor
    /// before a batch has ended or two seconds have passed, so that one that is sent twice does not end
    /// the process before it is saved.
    ///
    /// A signal that the process ignores when the training starts, as under `nohup` or in a shell's
    /// background, is no notice. (Only Linux tells that.)
    pub fn signals() -> Self {
        Self::new().signal(signals::SIGTERM).signal(signals::SIGINT)
    }

    /// The signal with this number is a notice too: SLURM's `--signal` sends SIGUSR1, for one.
    ///
    /// SIGKILL, SIGSTOP, those of the processor's faults (SIGSEGV, SIGILL, SIGFPE) and real-time signals can't
    /// be one: the training does not start then.
    pub fn signal(mut self, signal: i32) -> Self {
        if !self.signals.contains(&signal) {
            self.signals.push(signal);
        }
        self
    }

    /// What `watcher` finds is a notice too. It is asked again and again on a thread of its own.
    pub fn watch(mut self, watcher: impl PreemptionWatcher) -> Self {
        self.watchers.push(Box::new(watcher));
        self
    }

    /// The time that the platform leaves between its notice and the kill; zero by default.
    ///
    /// With zero, the training is saved at once and ends. With more, it is saved at once and goes on;
    /// it is saved again, and ends, as late as the time that backups have taken so far allows, with
    /// twice that time in reserve. A notice that says itself when the kill comes, as that of Amazon EC2
    /// does, can shorten the time, but not lengthen it. Another notice, for another reason, ends it: the
    /// training is saved and left at once.
    pub fn grace_period(mut self, grace_period: Duration) -> Self {
        self.grace_period = grace_period;
        self
    }

    /// What follows once the training is saved; by default, `launch` returns.
    pub fn after(mut self, after: AfterPreemption) -> Self {
        self.after = after;
        self
    }

    /// The program handles the signals itself after `launch`, as with `tokio::signal::ctrl_c`.
    ///
    /// Without this, a signal does after `launch` what it did before it: SIGTERM and Ctrl-C end the
    /// process, and they do so before an action is called that the program has added since through
    /// tokio, `signal-hook` or anything else on `signal-hook-registry`. With this, nothing here acts on them
    /// after `launch`: one that comes before the program has its own handler is lost.
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

    /// Checks what can be checked without asking anybody.
    pub(crate) fn validate(&self) -> Result<(), BackupError> {
        if self.signals.is_empty() && self.watchers.is_empty() {
            return Err(BackupError::NoNotice);
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
