//! The metadata services of clouds, which announce that a machine will be taken away.

mod azure;
mod ec2;
mod gce;
mod metadata;
#[cfg(test)]
mod server;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use azure::AzureWatcher;
pub use ec2::Ec2SpotWatcher;
pub use gce::GceWatcher;

/// Why a cloud can't report whether the machine is about to be taken away.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error(
        "cannot ask '{url}': check that this machine runs in that cloud, and that its metadata \
         service is on and can be reached from here"
    )]
    Request { url: String, source: ureq::Error },

    #[error("cannot read the answer of '{url}'")]
    Body { url: String, source: ureq::Error },

    #[error(
        "'{url}' answered with the HTTP status {status}: if this persists, check that this \
         machine runs in that cloud, and that its metadata service is on"
    )]
    Status { url: String, status: u16 },

    #[error(
        "'{url}' answered without the header 'Metadata-Flavor: Google': it is not the metadata \
         server of Google Compute Engine"
    )]
    NotGoogle { url: String },

    #[error("'{url}' answered '{answer}', which is not a documented value")]
    Value { url: String, answer: String },

    #[error("'{url}' did not answer with the documented JSON")]
    Json {
        url: String,
        source: serde_json::Error,
    },
}

/// Converts the time. `None` before 1970, because some clocks of the standard library begin in
/// 1601.
fn system_time(time: jiff::Timestamp) -> Option<SystemTime> {
    let since_epoch = Duration::try_from(time.as_duration()).ok()?;
    UNIX_EPOCH.checked_add(since_epoch)
}
