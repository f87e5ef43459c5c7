//! Spot Instances of Amazon EC2.

#[cfg(test)]
mod tests;

use std::error::Error;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::metadata::{Answer, Metadata};
use super::{WatchError, system_time};
use crate::notice::Notice;
use crate::preemption::PreemptionWatcher;

const BASE_URL: &str = "http://169.254.169.254";
const TOKEN: &str = "/latest/api/token";
const INSTANCE_ACTION: &str = "/latest/meta-data/spot/instance-action";

const TOKEN_HEADER: &str = "X-aws-ec2-metadata-token";

/// Six hours, the maximum.
const TOKEN_TTL: (&str, &str) = ("X-aws-ec2-metadata-token-ttl-seconds", "21600");

/// The token has expired or is invalid.
const UNAUTHORIZED: u16 = 401;

/// No interruption is planned.
const NOT_FOUND: u16 = 404;

const TIMEOUT: Duration = Duration::from_secs(5);

/// The interval that Amazon recommends.
const INTERVAL: Duration = Duration::from_secs(5);

/// Watches for the interruption of a Spot Instance of Amazon EC2.
///
/// Amazon announces a stop or a termination two minutes ahead, and the notice has that time as its
/// deadline. Hibernation begins at once. The metadata service is polled every 5 seconds, with
/// version 2 of its protocol. In a container, it answers only if the instance's metadata options
/// allow two hops (`HttpPutResponseHopLimit`) or the container uses the host's network.
///
/// # Example
///
/// ```
/// use burn_backup_restore::{Ec2SpotWatcher, PreemptionWatcher};
///
/// assert_eq!(
///     Ec2SpotWatcher::new().name(),
///     "Amazon EC2 at http://169.254.169.254"
/// );
/// ```
pub struct Ec2SpotWatcher {
    metadata: Metadata,
    token: Option<String>,
}

#[derive(Deserialize)]
struct InstanceAction {
    action: String,
    time: Option<String>,
}

impl Default for Ec2SpotWatcher {
    fn default() -> Self {
        Self::new()
    }
}

impl Ec2SpotWatcher {
    /// Polls the metadata service of the instance that the program runs on.
    pub fn new() -> Self {
        Self {
            metadata: Metadata::new(BASE_URL, TIMEOUT),
            token: None,
        }
    }

    /// Polls the service at this URL instead.
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

    /// Asks with the current token, or with a new one. A new token is kept if it works.
    fn ask(&mut self) -> Result<Answer, WatchError> {
        let token = match self.token.take() {
            Some(token) => token,
            None => self.new_token()?,
        };
        let answer = self.metadata.get(INSTANCE_ACTION, (TOKEN_HEADER, &token))?;
        if answer.status != UNAUTHORIZED {
            self.token = Some(token);
        }
        Ok(answer)
    }

    fn new_token(&self) -> Result<String, WatchError> {
        let answer = self.metadata.put(TOKEN, TOKEN_TTL)?.ok()?;
        Ok(answer.text().to_owned())
    }
}

impl PreemptionWatcher for Ec2SpotWatcher {
    fn name(&self) -> String {
        format!("Amazon EC2 at {}", self.metadata.base_url())
    }

    fn poll(&mut self) -> Result<Option<Notice>, Box<dyn Error + Send + Sync>> {
        let mut answer = self.ask()?;
        if answer.status == UNAUTHORIZED {
            answer = self.ask()?;
        }
        match answer.status {
            NOT_FOUND => Ok(None),
            _ => Ok(Some(notice(answer.ok()?.json()?))),
        }
    }

    fn interval(&self) -> Duration {
        INTERVAL
    }
}

fn notice(interruption: InstanceAction) -> Notice {
    let InstanceAction { action, time } = interruption;
    let notice = Notice::new(format!(
        "Amazon EC2 is about to {action} this Spot Instance"
    ));
    let deadline = time
        .and_then(|time| time.parse().ok())
        .and_then(system_time);
    // Hibernation begins at once, without a time in the answer.
    notice.with_deadline(deadline.unwrap_or_else(SystemTime::now))
}
