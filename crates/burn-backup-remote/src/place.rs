//! The object store of a mirror. Each request has a time limit, and errors contain no credentials.

use std::future::Future;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode,
    PutOptions, PutPayload, UpdateVersion,
};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::error::{Damage, MirrorError, RequestFailure};
use crate::redact::Secrets;

/// The time limit of a request that transfers no part.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// The slowest supported link for a piece of a part, in bytes per second.
const SLOWEST: u64 = 64 * 1024;

/// The place of a mirror.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) prefix: Path,
    /// The displayed name.
    pub(crate) name: Arc<str>,
    pub(crate) secrets: Secrets,
    /// A directory that must exist: its user mounts or creates it.
    pub(crate) directory: Option<PathBuf>,
}

/// An object and its version.
pub(crate) struct Object {
    pub bytes: Bytes,
    pub version: UpdateVersion,
}

/// The condition of a put.
#[derive(Clone)]
pub(crate) enum PutCondition {
    Always,
    /// The object is missing.
    Absent,
    /// The object still has this version.
    Unchanged(UpdateVersion),
}

/// The outcome of a put.
pub(crate) enum Put {
    Done(UpdateVersion),
    /// Nothing was put, because the condition was not met.
    Refused,
}

impl Place {
    /// The object at `path`; `None` if there is none.
    pub(crate) async fn get(&self, path: &Path) -> Result<Option<Object>, MirrorError> {
        let got = async {
            let got = self.store.get(path).await?;
            let version = UpdateVersion {
                e_tag: got.meta.e_tag.clone(),
                version: got.meta.version.clone(),
            };
            let size = got.meta.size;
            let bytes = whole(got.bytes().await?, size)?;
            Ok(Object { bytes, version })
        };
        match self.within(REQUEST_LIMIT, "get", path, got).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads bytes of a part. Missing bytes are damage.
    pub(crate) async fn get_range(
        &self,
        path: &Path,
        range: Range<u64>,
    ) -> Result<Bytes, MirrorError> {
        let expected = range.end - range.start;
        if expected == 0 {
            return self.has_length(path, 0).await.map(|()| Bytes::new());
        }
        let options = GetOptions::new().with_range(Some(range.clone()));
        let got = async {
            let got = self.store.get_opts(path, options).await?;
            let size = got.meta.size;
            let there = size.saturating_sub(range.start).min(expected);
            Ok((size, whole(got.bytes().await?, there)?))
        };
        let limit = moving(expected);
        let (size, bytes) = match self.within(limit, "read", path, got).await {
            Ok(got) => got,
            Err(error) if is_not_found(&error) => return Err(self.damaged(path, Damage::Missing)),
            // The object may be too short for the range.
            Err(error) => {
                self.has_length(path, range.end).await?;
                return Err(error);
            }
        };
        match bytes.len() as u64 == expected {
            true => Ok(bytes),
            false => Err(self.damaged(
                path,
                Damage::Length {
                    expected: range.end,
                    found: size,
                },
            )),
        }
    }

    /// Checks that the object at `path` has at least this length.
    async fn has_length(&self, path: &Path, at_least: u64) -> Result<(), MirrorError> {
        let damage = match self.head(path).await? {
            None => Damage::Missing,
            Some(meta) if meta.size < at_least => Damage::Length {
                expected: at_least,
                found: meta.size,
            },
            Some(_) => return Ok(()),
        };
        Err(self.damaged(path, damage))
    }

    /// The metadata of the object at `path`; `None` if it is missing.
    pub(crate) async fn head(&self, path: &Path) -> Result<Option<ObjectMeta>, MirrorError> {
        let head = self.store.head(path);
        match self.within(REQUEST_LIMIT, "inspect", path, head).await {
            Ok(meta) => Ok(Some(meta)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts a document.
    pub(crate) async fn put(
        &self,
        path: &Path,
        bytes: Bytes,
        when: PutCondition,
    ) -> Result<Put, MirrorError> {
        let mode = match when {
            PutCondition::Always => PutMode::Overwrite,
            PutCondition::Absent => PutMode::Create,
            PutCondition::Unchanged(version) => PutMode::Update(version),
        };
        let is_conditional = mode != PutMode::Overwrite;
        let put = async {
            match self.store.put_opts(path, bytes.into(), mode.into()).await {
                Ok(put) => Ok(Put::Done(put.into())),
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) if is_conditional => {
                    Ok(Put::Refused)
                }
                Err(error) => Err(error),
            }
        };
        match self.within(REQUEST_LIMIT, "put", path, put).await {
            Err(MirrorError::Request { kind, .. })
                if is_conditional && kind == RequestFailure::Unsupported =>
            {
                Err(self.unconditional())
            }
            other => other,
        }
    }

    /// Puts a whole part of a few mebibytes at most.
    pub(crate) async fn put_part(&self, path: &Path, part: PutPayload) -> Result<(), MirrorError> {
        let limit = moving(part.content_length() as u64);
        let put = self.store.put_opts(path, part, PutOptions::default());
        self.within(limit, "put", path, put).await.map(drop)
    }

    /// Begins to put a part in pieces.
    pub(crate) async fn begin(&self, path: &Path) -> Result<Box<dyn MultipartUpload>, MirrorError> {
        let begun = self.store.put_multipart(path);
        self.within(REQUEST_LIMIT, "begin to put", path, begun)
            .await
    }

    /// Puts a piece of a part.
    pub(crate) async fn put_piece(
        &self,
        path: &Path,
        bytes: u64,
        put: impl Future<Output = object_store::Result<()>>,
    ) -> Result<(), MirrorError> {
        self.within(moving(bytes), "put", path, put).await
    }

    /// Combines the pieces to one object.
    pub(crate) async fn complete(
        &self,
        path: &Path,
        upload: &mut Box<dyn MultipartUpload>,
    ) -> Result<(), MirrorError> {
        // The store may copy or count the pieces.
        let completed = upload.complete();
        let limit = 10 * REQUEST_LIMIT;
        let completed = self.within(limit, "complete", path, completed).await;
        completed.map(drop)
    }

    /// Discards the pieces, if that succeeds at once. Otherwise, a rule of the bucket must do it.
    pub(crate) async fn abort(&self, path: &Path, upload: &mut Box<dyn MultipartUpload>) {
        let aborted = upload.abort();
        if let Err(error) = self.within(REQUEST_LIMIT, "abort", path, aborted).await {
            log::debug!(target: crate::LOG, "{error}");
        }
    }

    /// Deletes an object. A missing object is no error.
    pub(crate) async fn delete(&self, path: &Path) -> Result<(), MirrorError> {
        let deleted = self.store.delete(path);
        match self.within(REQUEST_LIMIT, "delete", path, deleted).await {
            Err(error) if !is_not_found(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Lists all objects under `prefix`.
    pub(crate) async fn list(&self, prefix: &Path) -> Result<Vec<ObjectMeta>, MirrorError> {
        let listed = self.store.list(Some(prefix)).try_collect();
        // The listing may have many pages.
        self.within(10 * REQUEST_LIMIT, "list", prefix, listed)
            .await
    }

    /// Checks that the mirror's directory exists, if the mirror is in a directory.
    pub(crate) async fn check_directory(&self) -> Result<(), MirrorError> {
        let Some(directory) = self.directory.clone() else {
            return Ok(());
        };
        // The directory may be on a server that does not answer.
        let found = spawn_blocking(move || std::fs::metadata(directory));
        match timeout(REQUEST_LIMIT, found).await {
            Ok(Ok(Ok(found))) if found.is_dir() => Ok(()),
            Ok(Ok(Ok(_))) => Err(self.no_directory("it is not a directory".to_owned())),
            Ok(Ok(Err(error))) => Err(self.no_directory(error.to_string())),
            Ok(Err(_)) => Err(MirrorError::ThreadEnded),
            Err(elapsed) => Err(self.no_directory(elapsed.to_string())),
        }
    }

    fn no_directory(&self, cause: String) -> MirrorError {
        MirrorError::NoDirectory {
            mirror: self.name.to_string(),
            source: crate::error::Cause(cause),
        }
    }

    pub(crate) fn damaged(&self, path: &Path, reason: Damage) -> MirrorError {
        MirrorError::Damaged {
            object: path.to_string(),
            mirror: self.name.to_string(),
            reason,
        }
    }

    pub(crate) fn unconditional(&self) -> MirrorError {
        MirrorError::NoConditionalPut {
            mirror: self.name.to_string(),
        }
    }

    async fn within<T>(
        &self,
        limit: Duration,
        action: &'static str,
        path: &Path,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, MirrorError> {
        let failed = |kind, source| MirrorError::Request {
            action,
            object: path.to_string(),
            mirror: self.name.to_string(),
            kind,
            source,
        };
        match timeout(limit, request).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(failed(kind(&error), self.secrets.cause(&error))),
            Err(elapsed) => Err(failed(
                RequestFailure::Unreachable,
                self.secrets.cause(&elapsed),
            )),
        }
    }
}

/// Returns the bytes, if their number is as expected, because an answer may be cut off.
fn whole(bytes: Bytes, expected: u64) -> object_store::Result<Bytes> {
    match bytes.len() as u64 == expected {
        true => Ok(bytes),
        false => Err(Error::Generic {
            store: "mirror",
            source: format!("only {} of {expected} bytes have arrived", bytes.len()).into(),
        }),
    }
}

fn moving(bytes: u64) -> Duration {
    REQUEST_LIMIT + Duration::from_secs(bytes / SLOWEST)
}

fn kind(error: &Error) -> RequestFailure {
    match error {
        Error::NotFound { .. } => RequestFailure::NotFound,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => RequestFailure::Denied,
        Error::NotSupported { .. } | Error::NotImplemented { .. } => RequestFailure::Unsupported,
        // Servers refuse unknown conditions with this error.
        error if error.to_string().contains("NotImplemented") => RequestFailure::Unsupported,
        _ => RequestFailure::Unreachable,
    }
}

fn is_not_found(error: &MirrorError) -> bool {
    let not_found = RequestFailure::NotFound;
    matches!(error, MirrorError::Request { kind, .. } if *kind == not_found)
}
