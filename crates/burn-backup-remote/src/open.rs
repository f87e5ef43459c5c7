//! Opens the object store of a URL, with the credentials that the cloud's own tools would use.

use std::env;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use crate::directory::Directory;
use crate::error::MirrorError;
use crate::mirror::Target;
use crate::place::Place;
use crate::redact::Secrets;

/// How long a request is retried. After that, the mirror counts as unreachable until the next try.
const RETRY_LIMIT: Duration = Duration::from_secs(20);
const RETRIES: usize = 5;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// The object store of `memory:`.
static MEMORY: OnceLock<Arc<InMemory>> = OnceLock::new();

/// Opens the place of a mirror.
pub(crate) fn place(target: &Target) -> Result<Place, MirrorError> {
    let name: Arc<str> = name(target).into();
    let url = match target {
        Target::Store { store, prefix } => {
            return Ok(Place {
                store: store.clone(),
                prefix: Path::from(prefix.as_str()),
                name,
                secrets: Secrets::known(None),
                directory: None,
            });
        }
        Target::Url(url) => url,
    };
    let invalid = |reason| MirrorError::Url {
        url: name.to_string(),
        reason,
    };
    let url = Url::parse(url).map_err(|_| invalid("it is not a URL"))?;
    let secrets = Secrets::known(Some(&url));
    let client_failed = |cause| MirrorError::Client {
        mirror: name.to_string(),
        source: cause,
    };
    let failed = |error: object_store::Error| client_failed(secrets.cause(&error));
    let path =
        || Path::from_url_path(url.path()).map_err(|_| invalid("its path can't name an object"));
    let needs_host = |what| match url.host_str() {
        Some(host) if !host.is_empty() => Ok(()),
        _ => Err(invalid(what)),
    };
    let mut directory = None;
    let (store, prefix): (Arc<dyn ObjectStore>, Path) = match url.scheme() {
        "s3" | "s3a" => {
            needs_host("it names no bucket")?;
            install_crypto();
            (Arc::new(s3(&url).map_err(failed)?), path()?)
        }
        "gs" => {
            needs_host("it names no bucket")?;
            install_crypto();
            (Arc::new(gs(&url).map_err(failed)?), path()?)
        }
        "az" | "azure" | "abfs" | "abfss" => {
            needs_host("it names no container")?;
            install_crypto();
            (Arc::new(az(&url).map_err(failed)?), path()?)
        }
        "file" => {
            let root = file_path(&url).ok_or_else(|| invalid("it names no absolute path"))?;
            directory = Some(root);
            let prefix = Path::from_url_path(url.path());
            let prefix = prefix.map_err(|_| invalid("its path can't be used"))?;
            (Arc::new(Directory::new()), prefix)
        }
        "memory" => {
            let memory = MEMORY.get_or_init(|| Arc::new(InMemory::new()));
            (memory.clone(), path()?)
        }
        _ => return Err(invalid("its scheme is unknown")),
    };
    Ok(Place {
        store,
        prefix,
        name,
        secrets,
        directory,
    })
}

/// The displayed name of a mirror: its URL, without credentials.
pub(crate) fn name(target: &Target) -> String {
    match target {
        Target::Url(url) => match Url::parse(url) {
            Ok(mut url) => {
                if url.password().is_some() {
                    let _ = url.set_password(None);
                    let _ = url.set_username("");
                }
                url.set_query(None);
                url.set_fragment(None);
                url.to_string()
            }
            // It is unknown which parts of it are secret.
            Err(_) => Secrets::known(None).redact(url),
        },
        Target::Store { store, prefix } => {
            let store = Secrets::known(None).redact(&store.to_string());
            match prefix.as_str() {
                "" => store,
                prefix => format!("{store}/{prefix}"),
            }
        }
    }
}

fn file_path(url: &Url) -> Option<PathBuf> {
    // `file://nfs/backup` names a host, although a directory is meant.
    url.host_str()
        .is_none()
        .then(|| url.to_file_path().ok())
        .flatten()
}

/// Reads the configuration as `aws` does.
fn s3(url: &Url) -> object_store::Result<impl ObjectStore + use<>> {
    let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
    let builder = AmazonS3Builder::from_env()
        .with_url(bucket_url(url))
        .with_client_options(client())
        .with_allow_http(endpoint.iter().any(|name| is_plain(name)))
        .with_retry(retry());
    let builder = match (env::var("AWS_REGION"), env::var("AWS_DEFAULT_REGION")) {
        (Ok(region), _) | (Err(_), Ok(region)) => builder.with_region(region),
        _ => builder,
    };
    match crate::aws_profile::credentials() {
        Some(profile) => {
            let builder = builder
                .with_access_key_id(profile.access_key_id)
                .with_secret_access_key(profile.secret_access_key);
            match profile.session_token {
                Some(token) => builder.with_token(token).build(),
                None => builder.build(),
            }
        }
        None => builder.build(),
    }
}

/// Reads the configuration as `gcloud` does.
fn gs(url: &Url) -> object_store::Result<impl ObjectStore + use<>> {
    let builder = GoogleCloudStorageBuilder::from_env()
        .with_url(bucket_url(url))
        .with_retry(retry());
    match env::var("STORAGE_EMULATOR_HOST") {
        Ok(host) => {
            let base = match host.contains("://") {
                true => host,
                false => format!("http://{host}"),
            };
            builder
                .with_client_options(client().with_allow_http(true))
                .with_base_url(base.trim_end_matches('/'))
                // An emulator needs no credentials, and the client would ask the machine's metadata server for a token.
                .with_config(GoogleConfigKey::BearerToken, "none")
                .build()
        }
        Err(_) => builder.with_client_options(client()).build(),
    }
}

/// Reads the configuration as `az` does.
fn az(url: &Url) -> object_store::Result<impl ObjectStore + use<>> {
    let connection = env::var("AZURE_STORAGE_CONNECTION_STRING").unwrap_or_default();
    let settings = connection
        .split(';')
        .filter_map(|setting| setting.split_once('='));
    let mut builder = MicrosoftAzureBuilder::from_env().with_url(url.as_str());
    let mut allows_http = is_plain("AZURE_STORAGE_ENDPOINT");
    let names = [
        ("AZURE_STORAGE_ACCOUNT", AzureConfigKey::AccountName),
        ("AZURE_STORAGE_KEY", AzureConfigKey::AccessKey),
        ("AZURE_STORAGE_SAS_TOKEN", AzureConfigKey::SasKey),
    ];
    for (name, key) in names {
        if let Ok(value) = env::var(name) {
            builder = builder.with_config(key, value);
        }
    }
    for (name, value) in settings {
        let key = match name {
            "AccountName" => AzureConfigKey::AccountName,
            "AccountKey" => AzureConfigKey::AccessKey,
            "SharedAccessSignature" => AzureConfigKey::SasKey,
            "BlobEndpoint" => {
                allows_http |= value.starts_with("http://");
                AzureConfigKey::Endpoint
            }
            _ => continue,
        };
        builder = builder.with_config(key, value.trim_end_matches('/'));
    }
    builder
        .with_client_options(client().with_allow_http(allows_http))
        .with_retry(retry())
        .build()
}

/// The URL of the bucket without the path. This crate adds the path itself.
fn bucket_url(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    format!("{}://{host}", url.scheme())
}

fn is_plain(endpoint: &str) -> bool {
    env::var(endpoint).is_ok_and(|endpoint| endpoint.starts_with("http://"))
}

fn client() -> ClientOptions {
    // The time limit of a request depends on its length: see `Place`. The client's read timeout also counts the time of
    // sending.
    ClientOptions::new()
        .with_timeout_disabled()
        .with_read_timeout_disabled()
        .with_connect_timeout(CONNECT_LIMIT)
}

fn retry() -> RetryConfig {
    RetryConfig {
        max_retries: RETRIES,
        retry_timeout: RETRY_LIMIT,
        backoff: BackoffConfig::default(),
    }
}

/// The program may have installed another provider.
fn install_crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
