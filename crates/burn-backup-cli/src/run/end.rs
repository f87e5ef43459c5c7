//! How a command ends, and what its end means for a restart.

use std::fmt;

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

/// The command requests a restart. `EX_TEMPFAIL` of `sysexits.h`, as in burn-backup-restore.
pub const START_AGAIN: u8 = 75;

/// The command needs a change before a restart. `EX_CONFIG` of `sysexits.h`.
pub const FIX_FIRST: u8 = 78;

/// The exit code of clap and most shells for wrong arguments.
const USAGE: i32 = 2;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this code.
    Exited(i32),
    /// By this signal.
    Killed(Signal),
    /// It made no progress, so the supervisor ended it.
    Hung,
}

/// What the end of a command means for a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// There is nothing left to do.
    Done,
    /// It stopped in an orderly way, and requests a restart.
    Again,
    /// A restart does not help.
    FixFirst,
    /// It failed, and a restart may help.
    Failed,
}

impl End {
    /// The end of a process that no longer runs.
    pub fn of(status: WaitStatus) -> Self {
        match status {
            WaitStatus::Signaled(_, signal, _) => Self::Killed(signal),
            WaitStatus::Exited(_, code) => Self::Exited(code),
            // `waitpid` reports no other states, because it was not asked for them.
            _ => Self::Exited(1),
        }
    }

    /// The exit code by which the supervisor passes this end on. As in shells, a signal adds 128.
    pub fn code(self) -> u8 {
        match self {
            Self::Exited(code) => u8::try_from(code).unwrap_or(1),
            Self::Killed(signal) => u8::try_from(128 + signal as i32).unwrap_or(1),
            Self::Hung => Self::Killed(Signal::SIGKILL).code(),
        }
    }

    /// The meaning of this end. `again` and `fix_first` are further codes with these meanings.
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
    fn codes_have_their_meanings() {
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
