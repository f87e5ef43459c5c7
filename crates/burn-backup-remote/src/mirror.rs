use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;

use crate::connection::Connection;
use crate::error::MirrorError;
use crate::lease::MAX_TTL;

/// How long a lease may stay unchanged before another process takes the mirror over.
const LEASE_TTL: Duration = Duration::from_secs(15);

/// Ordinary delays would cause the loss of shorter leases.
const MIN_LEASE_TTL: Duration = Duration::from_millis(100);

/// A place for the mirror of a training's backups, and its settings.
///
/// Created from a URL, or from an object store that the program has created:
///
/// | URL | credentials |
/// |---|---|
/// | `s3://BUCKET/PREFIX` | `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`, a web identity, or the role of the machine |
/// | `gs://BUCKET/PREFIX` | `GOOGLE_APPLICATION_CREDENTIALS`, gcloud's default credentials, or the service account of the machine |
/// | `az://CONTAINER/PREFIX` | `AZURE_STORAGE_ACCOUNT`, `AZURE_STORAGE_KEY`, `AZURE_STORAGE_CONNECTION_STRING`, `AZURE_STORAGE_SAS_TOKEN`, or the identity of the machine |
/// | `file:///DIRECTORY` | a directory that outlives the machine; it must exist |
/// | `memory:` | lives as long as the process: for tests |
///
/// A mirror belongs to one training, as a backup directory does.
///
/// # Example
///
/// ```
/// use burn_backup_remote::Mirror;
///
/// let mirror = Mirror::new("s3://bucket/run-7").max_bytes_per_second(20_000_000);
/// assert_eq!(mirror.to_string(), "s3://bucket/run-7");
/// ```
#[derive(Clone)]
pub struct Mirror {
    pub(crate) target: Target,
    pub(crate) single_writer: bool,
    pub(crate) lease_ttl: Duration,
    pub(crate) max_bytes_per_second: Option<u64>,
    pub(crate) start_new_if_unreachable: bool,
}

#[derive(Clone)]
pub(crate) enum Target {
    Url(String),
    Store {
        store: Arc<dyn ObjectStore>,
        prefix: String,
    },
}

impl Mirror {
    /// The mirror at this URL. An invalid URL is an error when the mirror is used.
    pub fn new(url: impl Into<String>) -> Self {
        Self::at(Target::Url(url.into()))
    }

    /// The mirror in an object store that the program has created, under `prefix`. The mirror uses the store's
    /// connections on its own thread. If a runtime of the program opened them, this runtime must keep running.
    pub fn with_store(store: Arc<dyn ObjectStore>, prefix: impl Into<String>) -> Self {
        Self::at(Target::Store {
            store,
            prefix: prefix.into(),
        })
    }

    fn at(target: Target) -> Self {
        Self {
            target,
            single_writer: false,
            lease_ttl: LEASE_TTL,
            max_bytes_per_second: None,
            start_new_if_unreachable: false,
        }
    }

    /// Promises that no two processes ever write to the mirror at the same time; false by default.
    ///
    /// Needed for places without conditional puts, which are refused otherwise. There, two processes could mistake each
    /// other's backups for their own.
    pub fn single_writer(mut self, promised: bool) -> Self {
        self.single_writer = promised;
        self
    }

    /// How long a process may be silent before another one takes over its mirror; 15 s by default. Times outside of 0.1
    /// s to 600 s are clamped. The process renews its lease three times in this time.
    pub fn lease_ttl(mut self, ttl: Duration) -> Self {
        self.lease_ttl = ttl.clamp(MIN_LEASE_TTL, MAX_TTL);
        self
    }

    /// Limits the average rate at which backups are sent, in bytes per second; unlimited by default.
    pub fn max_bytes_per_second(mut self, bytes: u64) -> Self {
        self.max_bytes_per_second = Some(bytes.max(1));
        self
    }

    /// Whether a new training begins if there is no local backup and the mirror can't be reached. False by default,
    /// because the mirror may have a backup.
    pub fn start_new_if_unreachable(mut self, begin: bool) -> Self {
        self.start_new_if_unreachable = begin;
        self
    }

    /// Whether a new training begins if the mirror can't be reached.
    pub fn starts_new_if_unreachable(&self) -> bool {
        self.start_new_if_unreachable
    }

    /// Opens the mirror: creates its client and its thread. Sends nothing yet.
    ///
    /// # Errors
    ///
    /// [`MirrorError::Url`], [`MirrorError::Client`], and [`MirrorError::Thread`].
    pub fn connect(&self) -> Result<Connection, MirrorError> {
        Connection::open(self)
    }
}

impl From<&str> for Mirror {
    fn from(url: &str) -> Self {
        Self::new(url)
    }
}

impl From<String> for Mirror {
    fn from(url: String) -> Self {
        Self::new(url)
    }
}

/// The URL, without credentials.
impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::open::name(&self.target))
    }
}

/// Shows no credentials either.
impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror")
            .field("target", &self.to_string())
            .field("single_writer", &self.single_writer)
            .field("lease_ttl", &self.lease_ttl)
            .field("max_bytes_per_second", &self.max_bytes_per_second)
            .finish_non_exhaustive()
    }
}
