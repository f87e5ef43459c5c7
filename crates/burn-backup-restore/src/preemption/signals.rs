//! Signals as notices. Handlers only set flags. After the last listener is gone, a signal has its previous effect
//! again.

mod disposition;
mod repeats;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use signal_hook::consts::FORBIDDEN;
use signal_hook::low_level::{signal_name, unregister};
use signal_hook::{SigId, flag};

use disposition::Disposition;
use repeats::Repeats;

pub(super) use signal_hook::consts::{SIGINT, SIGTERM};

const LOG: &str = "burn_backup::preemption";

/// Whether a signal with this number can be a notice. For a signal without a known name, the default action is
/// unknown too.
pub(super) fn can_be(signal: i32) -> bool {
    signal_name(signal).is_some() && !FORBIDDEN.contains(&signal)
}

/// Listens to signals until it is dropped.
pub(super) struct Signals {
    listened: Vec<ListenedSignal>,
    /// Decides when a second SIGINT or SIGTERM ends the process.
    repeats: Repeats,
    after: After,
}

/// What a signal does after the last listener is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum After {
    /// The same as before.
    #[default]
    AsBefore,
    /// Nothing in this crate: the program handles it.
    LeftToProgram,
}

/// A signal with a registered listener.
struct ListenedSignal {
    signal: i32,
    flag: Arc<AtomicBool>,
    actions: Vec<SigId>,
}

impl Signals {
    /// Starts to listen. A signal that the process ignores stays ignored: `nohup` and `sh -c 'train &'` do that on
    /// purpose.
    pub(super) fn listen(signals: &[i32], after: After) -> io::Result<Self> {
        let mut listening = Self {
            listened: Vec::new(),
            repeats: Repeats::watch(),
            after,
        };
        for signal in signals {
            if Disposition::of(*signal) == Disposition::Ignored {
                log::warn!(
                    target: LOG,
                    "{} is not used as a preemption notice: this process was started with the \
                     signal ignored, as nohup and a shell's '&' do",
                    signal_name(*signal).unwrap_or("the signal"),
                );
                continue;
            }
            // If this fails halfway, dropping the `ListenedSignal` unregisters its actions.
            let listened = listening.begin(*signal)?;
            listening.listened.push(listened);
        }
        Ok(listening)
    }

    fn begin(&self, signal: i32) -> io::Result<ListenedSignal> {
        let mut installed_handlers = installed_handlers();
        let handler = match installed_handlers.get_mut(&signal) {
            Some(handler) => handler,
            None => {
                let handler = InstalledHandler::new(signal)?;
                installed_handlers.entry(signal).or_insert(handler)
            }
        };
        let mut listened = ListenedSignal {
            signal,
            flag: Arc::default(),
            actions: Vec::new(),
        };
        if matches!(signal, SIGINT | SIGTERM) {
            let end = register_default(signal, self.repeats.next_counts())?;
            listened.actions.push(end);
            let has_arrived = flag::register(signal, self.repeats.has_arrived())?;
            listened.actions.push(has_arrived);
        }
        listened
            .actions
            .push(flag::register(signal, listened.flag.clone())?);
        // Disable the default action last. A signal before this point ends the process instead of being lost.
        handler.listeners += 1;
        handler.is_idle.store(false, Ordering::SeqCst);
        Ok(listened)
    }

    /// The names of the signals that have arrived since the last call. Call it at each batch boundary.
    pub(super) fn take(&self) -> Vec<&'static str> {
        self.repeats.at_boundary();
        let come = |listened: &&ListenedSignal| listened.flag.swap(false, Ordering::SeqCst);
        let came = self.listened.iter().filter(come);
        came.filter_map(|listened| signal_name(listened.signal))
            .collect()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let mut installed_handlers = installed_handlers();
        for listened in &self.listened {
            if let Some(handler) = installed_handlers.get_mut(&listened.signal) {
                handler.listeners = handler.listeners.saturating_sub(1);
                // Restore the default action before the flags are unregistered, so that no signal in between is lost.
                let is_idle = handler.listeners == 0 && self.after == After::AsBefore;
                handler.is_idle.store(is_idle, Ordering::SeqCst);
            }
        }
    }
}

impl Drop for ListenedSignal {
    fn drop(&mut self) {
        for action in &self.actions {
            unregister(*action);
        }
    }
}

/// A signal that this process has listened to once. Its handler can't be removed, so without listeners the handler
/// does what the signal did before.
///
/// The handler calls the actions of all users of `signal-hook-registry`, such as tokio, in the order of their
/// registration. It can't tell whether there are other actions. So an action that the program adds later runs after
/// the one here, which ends the process: see [`After::LeftToProgram`].
struct InstalledHandler {
    listeners: usize,
    is_idle: Arc<AtomicBool>,
}

impl InstalledHandler {
    fn new(signal: i32) -> io::Result<Self> {
        let is_idle = Arc::new(AtomicBool::new(true));
        // The program's own handler is still called, and an ignored signal stays ignored.
        if Disposition::of(signal) == Disposition::Default {
            register_default(signal, is_idle.clone())?;
        }
        Ok(Self {
            listeners: 0,
            is_idle,
        })
    }
}

fn installed_handlers() -> MutexGuard<'static, BTreeMap<i32, InstalledHandler>> {
    static INSTALLED: Mutex<BTreeMap<i32, InstalledHandler>> = Mutex::new(BTreeMap::new());
    INSTALLED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While the flag is set, `signal` has its default action.
#[cfg(not(windows))]
fn register_default(signal: i32, flag: Arc<AtomicBool>) -> io::Result<SigId> {
    flag::register_conditional_default(signal, flag)
}

/// While the flag is set, `signal` ends the process as an unhandled Ctrl-C does. Signal-hook would raise it with the
/// system's own handler in place, which ends in an abort.
#[cfg(windows)]
fn register_default(signal: i32, flag: Arc<AtomicBool>) -> io::Result<SigId> {
    /// `STATUS_CONTROL_C_EXIT`, 0xC000013A.
    const CONTROL_C_EXIT: i32 = -1_073_741_510;
    flag::register_conditional_shutdown(signal, CONTROL_C_EXIT, flag)
}
