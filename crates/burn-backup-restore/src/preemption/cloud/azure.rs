//! The Scheduled Events of Azure.

mod events;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::time::{Duration, SystemTime};

use super::WatchError;
use super::metadata::Metadata;
use crate::notice::Notice;
use crate::preemption::PreemptionWatcher;
use events::Document;

const BASE_URL: &str = "http://169.254.169.254";
const EVENTS: &str = "/metadata/scheduledevents?api-version=2020-07-01";
const NAME: &str = "/metadata/instance/compute/name?api-version=2021-02-01&format=text";

/// Azure requires this header, so that no request is redirected here by accident.
const HEADER: (&str, &str) = ("Metadata", "true");

const TIMEOUT: Duration = Duration::from_secs(10);

/// The first request turns on Scheduled Events, which takes up to two minutes.
const FIRST_TIMEOUT: Duration = Duration::from_secs(150);

/// Watches for the Azure events that take the machine away: the eviction of a Spot VM (`Preempt`), deletion
/// (`Terminate`), `Reboot` and `Redeploy`.
///
/// Azure announces these events 30 seconds to 15 minutes ahead, and the notice has that time as its deadline. A
/// `Redeploy` away from hardware that is expected to fail is announced days ahead. It becomes a notice when at most
/// 15 minutes are left. A `Freeze`, which pauses the machine for seconds, is not a notice. Events of other machines
/// of the same scale set are not notices either.
///
/// The service is polled every second. The first request turns Scheduled Events on. It can then take five minutes
/// until events arrive.
///
/// # Example
///
/// ```
/// use burn_backup_restore::{AzureWatcher, PreemptionWatcher};
///
/// let watcher = AzureWatcher::new().resource("trainer_0");
/// assert_eq!(watcher.name(), "Azure at http://169.254.169.254");
/// ```
pub struct AzureWatcher {
    metadata: Metadata,
    resource: Option<String>,
    timeout: Option<Duration>,
    has_answered: bool,
}

impl Default for AzureWatcher {
    fn default() -> Self {
        Self::new()
    }
}

impl AzureWatcher {
    /// Polls the metadata service of the machine that the program runs on.
    pub fn new() -> Self {
        Self {
            metadata: Metadata::new(BASE_URL, TIMEOUT),
            resource: None,
            timeout: None,
            has_answered: false,
        }
    }

    /// Polls the service at this URL instead.
    #[must_use]
    pub fn base_url(mut self, base_url: impl Into<String>) -> Self {
        self.metadata.set_base_url(base_url);
        self
    }

    /// The Azure name of the machine whose events count. By default it is the machine that the program runs on; Azure
    /// is asked for its name once.
    #[must_use]
    pub fn resource(mut self, name: impl Into<String>) -> Self {
        self.resource = Some(name.into());
        self
    }

    /// How long one answer may take; 10 seconds by default. Until the service has answered once, the default is 150
    /// seconds, because its first answer takes up to two minutes.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The name of the machine whose events count.
    fn this_machine(&mut self) -> Result<String, WatchError> {
        if let Some(resource) = &self.resource {
            return Ok(resource.clone());
        }
        self.metadata.set_timeout(self.timeout.unwrap_or(TIMEOUT));
        let answer = self.metadata.get(NAME, HEADER)?.ok()?;
        if answer.text().is_empty() {
            return Err(answer.unknown());
        }
        let name = answer.text().to_owned();
        self.resource = Some(name.clone());
        Ok(name)
    }

    fn scheduled_events(&mut self) -> Result<Document, WatchError> {
        let default = if self.has_answered {
            TIMEOUT
        } else {
            FIRST_TIMEOUT
        };
        self.metadata.set_timeout(self.timeout.unwrap_or(default));
        let document = self.metadata.get(EVENTS, HEADER)?.ok()?.json()?;
        self.has_answered = true;
        Ok(document)
    }
}

impl PreemptionWatcher for AzureWatcher {
    fn name(&self) -> String {
        format!("Azure at {}", self.metadata.base_url())
    }

    fn poll(&mut self) -> Result<Option<Notice>, Box<dyn Error + Send + Sync>> {
        let machine = self.this_machine()?;
        let document = self.scheduled_events()?;
        Ok(document.notice(&machine, SystemTime::now()))
    }
}
