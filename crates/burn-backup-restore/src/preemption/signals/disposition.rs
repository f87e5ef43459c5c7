//! What a signal does without this crate.

/// What a signal does in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disposition {
    /// The system's default action.
    Default,
    /// It has no effect.
    Ignored,
    /// It calls a handler.
    Caught,
}

impl Disposition {
    /// The current disposition of `signal`. Only Linux shows it; elsewhere the default is assumed.
    pub(super) fn of(signal: i32) -> Self {
        match std::fs::read_to_string("/proc/self/status") {
            Ok(status) => Self::in_status(&status, signal),
            Err(_) => Self::Default,
        }
    }

    /// The disposition of `signal` in a process with this `status`, as Linux shows it under
    /// `/proc`.
    fn in_status(status: &str, signal: i32) -> Self {
        let is_in = |mask: &str| {
            let mask = status.lines().find_map(|line| line.strip_prefix(mask));
            let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            let at = u32::try_from(signal - 1).unwrap_or(u32::MAX);
            mask.is_some_and(|mask| mask.checked_shr(at).unwrap_or(0) & 1 == 1)
        };
        match (is_in("SigIgn:"), is_in("SigCgt:")) {
            (true, _) => Self::Ignored,
            (false, true) => Self::Caught,
            (false, false) => Self::Default,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_process_shows_each_signals_disposition() {
        let status = "Name:\ttrain\nSigIgn:\t0000000000001003\nSigCgt:\t0000000000004000\n";
        for (signal, expected) in [
            (1, Disposition::Ignored),
            (2, Disposition::Ignored),
            (13, Disposition::Ignored),
            (15, Disposition::Caught),
            (10, Disposition::Default),
            (64, Disposition::Default),
            (65, Disposition::Default),
            (-1, Disposition::Default),
        ] {
            assert_eq!(Disposition::in_status(status, signal), expected, "{signal}");
        }
        assert_eq!(Disposition::in_status("", 15), Disposition::Default);
    }
}
