//! How a command ends, and what that says.

use std::fmt;

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

/// The command says: start again. `EX_TEMPFAIL` of `sysexits.h`, as burn-backup-restore has it.
pub const START_AGAIN: u8 = 75;

/// The command says: fix this first. `EX_CONFIG` of `sysexits.h`.
pub const FIX_FIRST: u8 = 78;

/// What clap and most shells say of wrong arguments.
const USAGE: i32 = 2;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this code.
    Exited(i32),
    /// By this signal.
    Killed(Signal),
    /// It made no progress, and was ended.
    Hung,
}

/// What its end says of the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// There is nothing left to do.
    Done,
    /// It stopped in order, and is to be started again.
    Again,
    /// A restart does not help.
    FixFirst,
    /// It failed, and may not fail again.
    Failed,
}

impl End {
    /// The end of a process that does not run any more.
    pub fn of(status: WaitStatus) -> Self {
        match status {
            WaitStatus::Signaled(_, signal, _) => Self::Killed(signal),
            WaitStatus::Exited(_, code) => Self::Exited(code),
            // Nobody asked for others.
            _ => Self::Exited(1),
        }
    }

    /// The code that says the same of the process that started it, as shells have it.
    pub fn code(self) -> u8 {
        match self {
            Self::Exited(code) => u8::try_from(code).unwrap_or(1),
            Self::Killed(signal) => u8::try_from(128 + signal as i32).unwrap_or(1),
            Self::Hung => Self::Killed(Signal::SIGKILL).code(),
        }
    }

    /// What it says, with these further codes for a restart, and for none.
    pub fn meaning(self, again: &[i32], fix_first: &[i32]) -> Meaning {
        let Self::Exited(code) = self else {
            return Meaning::Failed;
        };
        let is = |own: u8, further: &[i32]| code == i32::from(own) || further.contains(&code);
        match code {
            _ if is(START_AGAIN, again) => Meaning::Again,
            _ if is(FIX_FIRST, fix_first) => Meaning::FixFirst,
            0 => Meaning::Done,
            USAGE => Meaning::FixFirst,
            _ => Meaning::Failed,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "ended with code {code}"),
            Self::Killed(signal) => write!(f, "was ended by {}", signal.as_str()),
            Self::Hung => f.write_str("hung, and was ended"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_what_is_to_follow() {
        let table = [
            (End::Exited(0), Meaning::Done),
            (End::Exited(1), Meaning::Failed),
            (End::Exited(2), Meaning::FixFirst),
            (End::Exited(75), Meaning::Again),
            (End::Exited(78), Meaning::FixFirst),
            (End::Exited(42), Meaning::Again),
            (End::Exited(7), Meaning::FixFirst),
            (End::Exited(101), Meaning::Failed),
            (End::Killed(Signal::SIGKILL), Meaning::Failed),
            (End::Hung, Meaning::Failed),
        ];
        for (end, meaning) in table {
            assert_eq!(end.meaning(&[42], &[7]), meaning, "{end}");
        }
    }

    #[test]
    fn a_code_is_passed_on_and_a_signal_is_as_in_a_shell() {
        assert_eq!(End::Exited(75).code(), 75);
        assert_eq!(End::Killed(Signal::SIGTERM).code(), 143);
        assert_eq!(End::Hung.code(), 137);
    }
}
