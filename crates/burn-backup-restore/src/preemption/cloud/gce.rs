//! Google Compute Engine.

#[cfg(test)]
mod tests;

use std::error::Error;
use std::time::{Duration, SystemTime};

use super::WatchError;
use super::metadata::{Answer, Metadata};
use crate::notice::Notice;
use crate::preemption::PreemptionWatcher;

const BASE_URL: &str = "http://metadata.google.internal";
const PREEMPTED: &str = "/computeMetadata/v1/instance/preempted";
const MAINTENANCE: &str = "/computeMetadata/v1/instance/maintenance-event";

/// The header of every request and answer, so that neither is meant for another service.
const FLAVOR: (&str, &str) = ("Metadata-Flavor", "Google");

const TIMEOUT: Duration = Duration::from_secs(5);

/// The time that is left in the worst case when a preemption is seen. The machine has 30 seconds. It is polled every
/// second, and two answers may each take the full timeout.
const LEFT: Duration = Duration::from_secs(19);

/// Watches for the preemption of a Spot VM of Google Compute Engine, and for host maintenance that
/// stops the machine.
///
/// A preempted machine has 30 seconds left. The notice's deadline is earlier, because some of this time may have
/// passed before the preemption is seen.
///
/// A maintenance event is a notice if the machine can't be migrated away from it, for example because of GPUs. It is
/// not a notice if the machine is migrated, because the machine keeps running. Google announces maintenance [an hour
/// ahead for machines with GPUs](https://cloud.google.com/compute/docs/gpus/gpu-host-maintenance) and 60 seconds
/// ahead for others, but no exact time. So the notice has no deadline, and
/// [`grace_period`](crate::Preemption::grace_period) says how much of the time is used.
///
/// The metadata server is polled every second.
///
/// # Example
///
/// ```
/// use burn_backup_restore::{GceWatcher, PreemptionWatcher};
///
/// assert_eq!(
///     GceWatcher::new().name(),
///     "Google Compute Engine at http://metadata.google.internal"
/// );
/// ```
pub struct GceWatcher {
    metadata: Metadata,
}

impl Default for GceWatcher {
    fn default() -> Self {
        Self::new()
    }
}

impl GceWatcher {
    /// Polls the metadata server of the machine that the program runs on.
    pub fn new() -> Self {
        Self {
            metadata: Metadata::new(BASE_URL, TIMEOUT),
        }
    }

    /// Polls the server at this URL instead.
    #[must_use]
    pub fn base_url(mut self, base_url: impl Into<String>) -> Self {
        self.metadata.set_base_url(base_url);
        self
    }

    /// How long one answer may take; 5 seconds by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.metadata.set_timeout(timeout);
        self
    }

    fn is_preempted(&self) -> Result<bool, WatchError> {
        let answer = self.ask(PREEMPTED)?;
        match answer.text() {
            "TRUE" => Ok(true),
            "FALSE" => Ok(false),
            _ => Err(answer.unknown()),
        }
    }

    fn is_terminated(&self) -> Result<bool, WatchError> {
        let answer = self.ask(MAINTENANCE)?;
        match answer.text() {
            "TERMINATE_ON_HOST_MAINTENANCE" => Ok(true),
            "NONE" | "MIGRATE_ON_HOST_MAINTENANCE" => Ok(false),
            _ => Err(answer.unknown()),
        }
    }

    fn ask(&self, path: &str) -> Result<Answer, WatchError> {
        let answer = self.metadata.get(path, FLAVOR)?.ok()?;
        let flavor = answer.headers.get(FLAVOR.0);
        if flavor.is_some_and(|flavor| flavor == FLAVOR.1) {
            Ok(answer)
        } else {
            Err(answer.not_google())
        }
    }
}

impl PreemptionWatcher for GceWatcher {
    fn name(&self) -> String {
        format!("Google Compute Engine at {}", self.metadata.base_url())
    }

    fn poll(&mut self) -> Result<Option<Notice>, Box<dyn Error + Send + Sync>> {
        if self.is_preempted()? {
            let notice =
                Notice::new("Google Compute Engine preempts this machine within 30 seconds");
            return Ok(Some(notice.with_deadline(SystemTime::now() + LEFT)));
        }
        Ok(self.is_terminated()?.then(|| {
            Notice::new("Google Compute Engine is about to stop this machine for host maintenance")
        }))
    }
}
