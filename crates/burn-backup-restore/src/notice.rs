use std::fmt;
use std::time::SystemTime;

use jiff::Timestamp;

/// A notice that the machine or the process is about to be stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    reason: String,
    deadline: Option<SystemTime>,
}

impl Notice {
    /// A notice with this reason, such as "SIGTERM" or "Amazon EC2 is about to terminate the instance".
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            deadline: None,
        }
    }

    /// Sets the time of the preemption.
    #[must_use]
    pub fn with_deadline(mut self, deadline: SystemTime) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The notice's reason.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The time of the preemption, if the notice names it.
    pub fn deadline(&self) -> Option<SystemTime> {
        self.deadline
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        match self.deadline.map(Timestamp::try_from) {
            Some(Ok(deadline)) => write!(f, " (at {deadline:.0})"),
            _ => Ok(()),
        }
    }
}
