//! The metadata services of clouds, which know when a machine is to be taken away.

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

/// Why a cloud can't say whether the machine is about to go.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error(
        "cannot ask '{url}': check that this machine is one of that cloud, and that its metadata \
         service is on and can be reached from here"
    )]
    Request { url: String, source: ureq::Error },

    #[error("cannot read what '{url}' answers")]
    Body { url: String, source: ureq::Error },

    #[error(
        "'{url}' answers with the HTTP status {status}: if that does not pass, check that this \
         machine is one of that cloud, and that its metadata service is on"
    )]
    Status { url: String, status: u16 },

    #[error(
        "'{url}' answers without the header 'Metadata-Flavor: Google': it is not the metadata server \
         of Google Compute Engine"
    )]
    NotGoogle { url: String },

    #[error("'{url}' answers '{answer}', which is none of the documented values")]
    Value { url: String, answer: String },

    #[error("'{url}' answers with something else than the documented JSON")]
    Json {
        url: String,
        source: serde_json::Error,
    },
}

/// The same time, if the standard library is sure to have it: some of its clocks begin in 1601.
fn system_time(time: jiff::Timestamp) -> Option<SystemTime> {
    let since_epoch = Duration::try_from(time.as_duration()).ok()?;
    UNIX_EPOCH.checked_add(since_epoch)
}
