//! Signals as notices. Handlers set flags, and nothing else; once nobody listens, a signal does again
//! what it did before.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use signal_hook::consts::FORBIDDEN;
use signal_hook::low_level::{signal_name, unregister};
use signal_hook::{SigId, flag};

pub(super) use signal_hook::consts::{SIGINT, SIGTERM};

/// Whether a signal with this number can be a notice. Of one that is not known by a name it is not known
/// either what it does when nobody listens.
pub(super) fn can_be(signal: i32) -> bool {
    signal_name(signal).is_some() && !FORBIDDEN.contains(&signal)
}

/// Listens to signals until it is dropped.
pub(super) struct Signals {
    heard: Vec<Heard>,
    /// A signal that asks for the process's end was heard: another one has its way.
    is_leaving: Arc<AtomicBool>,
}

/// A signal that is listened to.
struct Heard {
    signal: i32,
    flag: Arc<AtomicBool>,
    actions: Vec<SigId>,
}

impl Signals {
    /// Begins to listen.
    pub(super) fn listen(signals: &[i32]) -> io::Result<Self> {
        let mut listening = Self {
            heard: Vec::new(),
            is_leaving: Arc::default(),
        };
        for signal in signals {
            // One that fails half way is taken back when it is dropped.
            let heard = listening.begin(*signal)?;
            listening.heard.push(heard);
        }
        Ok(listening)
    }

    fn begin(&self, signal: i32) -> io::Result<Heard> {
        let mut takeovers = takeovers();
        let takeover = match takeovers.get_mut(&signal) {
            Some(takeover) => takeover,
            None => {
                let takeover = TakenOver::new(signal)?;
                takeovers.entry(signal).or_insert(takeover)
            }
        };
        let mut heard = Heard {
            signal,
            flag: Arc::default(),
            actions: Vec::new(),
        };
        // In this order: the first one sets the flag after it was looked at.
        if matches!(signal, SIGINT | SIGTERM) {
            let is_leaving = self.is_leaving.clone();
            let end = flag::register_conditional_default(signal, is_leaving)?;
            heard.actions.push(end);
            let leave = flag::register(signal, self.is_leaving.clone())?;
            heard.actions.push(leave);
        }
        heard
            .actions
            .push(flag::register(signal, heard.flag.clone())?);
        // Only now: a signal that comes before is not lost, but ends the process as it always did.
        takeover.listeners += 1;
        takeover.is_idle.store(false, Ordering::SeqCst);
        Ok(heard)
    }

    /// The names of the signals that have come since the last call.
    pub(super) fn take(&self) -> Vec<&'static str> {
        let come = |heard: &&Heard| heard.flag.swap(false, Ordering::SeqCst);
        let heard = self.heard.iter().filter(come);
        heard
            .filter_map(|heard| signal_name(heard.signal))
            .collect()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let mut takeovers = takeovers();
        for heard in &self.heard {
            if let Some(takeover) = takeovers.get_mut(&heard.signal) {
                takeover.listeners = takeover.listeners.saturating_sub(1);
                // Before the flags are gone: a signal that comes in between must not be swallowed.
                takeover
                    .is_idle
                    .store(takeover.listeners == 0, Ordering::SeqCst);
            }
        }
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        for action in &self.actions {
            unregister(*action);
        }
    }
}

/// A signal that this process has listened to once. Its handler can't be taken away again, so it does
/// what the signal did before when nobody listens.
struct TakenOver {
    listeners: usize,
    is_idle: Arc<AtomicBool>,
}

impl TakenOver {
    fn new(signal: i32) -> io::Result<Self> {
        let is_idle = Arc::new(AtomicBool::new(true));
        // A handler of the program's own goes on being called; one that is ignored goes on being.
        if has_default(signal) {
            flag::register_conditional_default(signal, is_idle.clone())?;
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

/// Whether the program has left it to the system what the signal does. Only Linux tells.
fn has_default(signal: i32) -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        return true;
    };
    let is_in = |mask: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(mask));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        let at = u32::try_from(signal - 1).unwrap_or(u32::MAX);
        mask.is_some_and(|mask| mask.checked_shr(at).unwrap_or(0) & 1 == 1)
    };
    !is_in("SigCgt:") && !is_in("SigIgn:")
}
