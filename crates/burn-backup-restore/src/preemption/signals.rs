//! Signals as notices. Handlers set flags, and nothing else; once nobody listens, a signal does again
//! what it did before.

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

/// Whether a signal with this number can be a notice. Of one that is not known by a name it is not known
/// either what it does when nobody listens.
pub(super) fn can_be(signal: i32) -> bool {
    signal_name(signal).is_some() && !FORBIDDEN.contains(&signal)
}

/// Listens to signals until it is dropped.
pub(super) struct Signals {
    listened: Vec<ListenedSignal>,
    /// When a second signal that asks for the process's end has its way.
    repeats: Repeats,
    after: After,
}

/// What a signal does once nobody listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum After {
    /// What it did before.
    #[default]
    AsBefore,
    /// Nothing of this crate's: the program handles it.
    LeftToProgram,
}

/// A signal that is listened to.
struct ListenedSignal {
    signal: i32,
    flag: Arc<AtomicBool>,
    actions: Vec<SigId>,
}

impl Signals {
    /// Begins to listen. A signal that the process ignores stays ignored: `nohup` and `sh -c 'train &'`
    /// have it so on purpose.
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
                    "{} is no notice of a preemption: whoever started this process has it ignored, as \
                     nohup and a shell's '&' do",
                    signal_name(*signal).unwrap_or("the signal"),
                );
                continue;
            }
            // One that fails half way is taken back when it is dropped.
            let listened = listening.begin(*signal)?;
            listening.listened.push(listened);
        }
        Ok(listening)
    }

    fn begin(&self, signal: i32) -> io::Result<ListenedSignal> {
        let mut takeovers = takeovers();
        let takeover = match takeovers.get_mut(&signal) {
            Some(takeover) => takeover,
            None => {
                let takeover = TakenOver::new(signal)?;
                takeovers.entry(signal).or_insert(takeover)
            }
        };
        let mut listened = ListenedSignal {
            signal,
            flag: Arc::default(),
            actions: Vec::new(),
        };
        if matches!(signal, SIGINT | SIGTERM) {
            let count = self.repeats.count();
            let end = register_default(signal, count)?;
            listened.actions.push(end);
            let come = flag::register(signal, self.repeats.come())?;
            listened.actions.push(come);
        }
        listened
            .actions
            .push(flag::register(signal, listened.flag.clone())?);
        // Only now: a signal that comes before is not lost, but ends the process as it always did.
        takeover.listeners += 1;
        takeover.is_idle.store(false, Ordering::SeqCst);
        Ok(listened)
    }

    /// The names of the signals that have come since the last call, which is to be made at each batch
    /// boundary.
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
        let mut takeovers = takeovers();
        for listened in &self.listened {
            if let Some(takeover) = takeovers.get_mut(&listened.signal) {
                takeover.listeners = takeover.listeners.saturating_sub(1);
                // Before the flags are gone: a signal that comes in between must not be swallowed.
                let is_idle = takeover.listeners == 0 && self.after == After::AsBefore;
                takeover.is_idle.store(is_idle, Ordering::SeqCst);
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

/// A signal that this process has listened to once. Its handler can't be taken away again, so it does
/// what the signal did before when nobody listens.
///
/// The handler calls the actions of all who use `signal-hook-registry`, as tokio does, in the order in
/// which they came, and nobody can ask it whether there are others. So an action that the program adds
/// later comes after the one here, which ends the process: see [`After::LeftToProgram`].
struct TakenOver {
    listeners: usize,
    is_idle: Arc<AtomicBool>,
}

impl TakenOver {
    fn new(signal: i32) -> io::Result<Self> {
        let is_idle = Arc::new(AtomicBool::new(true));
        // A handler of the program's own goes on being called; one that is ignored goes on being.
        if Disposition::of(signal) == Disposition::Default {
            register_default(signal, is_idle.clone())?;
        }
        Ok(Self {
            listeners: 0,
            is_idle,
        })
    }
}

fn takeovers() -> MutexGuard<'static, BTreeMap<i32, TakenOver>> {
    static TAKEN_OVER: Mutex<BTreeMap<i32, TakenOver>> = Mutex::new(BTreeMap::new());
    TAKEN_OVER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has `signal` do what the system has it do by default, when the flag is set.
#[cfg(not(windows))]
fn register_default(signal: i32, flag: Arc<AtomicBool>) -> io::Result<SigId> {
    flag::register_conditional_default(signal, flag)
}

/// Has `signal` end the process as an unhandled Ctrl-C does, when the flag is set. Raising it with the
/// system's own handler in place, as signal-hook emulates it, would end in an abort.
#[cfg(windows)]
fn register_default(signal: i32, flag: Arc<AtomicBool>) -> io::Result<SigId> {
    /// `STATUS_CONTROL_C_EXIT`, 0xC000013A.
    const CONTROL_C_EXIT: i32 = -1_073_741_510;
    flag::register_conditional_shutdown(signal, CONTROL_C_EXIT, flag)
}
