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

/// Required, so that no request is redirected here unawares.
const HEADER: (&str, &str) = ("Metadata", "true");

const TIMEOUT: Duration = Duration::from_secs(10);

/// The first request turns Scheduled Events on, which takes up to two minutes.
const FIRST_TIMEOUT: Duration = Duration::from_secs(150);

/// Watches for the events of Azure that take the machine away: the eviction of a Spot VM
/// (`Preempt`), deletion (`Terminate`), `Reboot` and `Redeploy`.
///
/// Azure tells them 30 seconds to 15 minutes before, and the notice has that time as its deadline. A
/// `Redeploy` from hardware that is expected to fail is told days before: that becomes a notice when
/// no more than 15 minutes are left. A `Freeze`, which pauses the machine for seconds, is not a
/// notice, and neither is what happens to other machines of the same scale set. The service is asked
/// every second. Its being asked turns it on, and it can take five minutes from then to events.
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
    /// Asks the metadata service of the machine that the program runs on.
    pub fn new() -> Self {
        Self {
            metadata: Metadata::new(BASE_URL, TIMEOUT),
            resource: None,
            timeout: None,
            has_answered: false,
        }
    }

    /// Asks the service at this URL instead.
    #[must_use]
    pub fn base_url(mut self, base_url: impl Into<String>) -> Self {
        self.metadata.set_base_url(base_url);
        self
    }

    /// The machine whose events count, by the name that Azure knows it by. By default it is the one
    /// that the program runs on, and Azure is asked for its name once.
    #[must_use]
    pub fn resource(mut self, name: impl Into<String>) -> Self {
        self.resource = Some(name.into());
        self
    }

    /// How long one answer may take; by default 10 seconds, and 150 seconds until the service has
    /// answered once, since its first answer takes up to two minutes.
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
