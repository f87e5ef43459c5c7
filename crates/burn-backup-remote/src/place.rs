//! The object store under a mirror: each request with a time limit, and errors without credentials.

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

/// How long a request may take that moves no part.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// The slowest link that a piece of a part is moved over, in bytes per second.
const SLOWEST: u64 = 64 * 1024;

/// Where a mirror is.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) prefix: Path,
    /// As it is shown.
    pub(crate) name: Arc<str>,
    pub(crate) secrets: Secrets,
    /// A directory that has to be there: it is mounted, or made, by its user.
    pub(crate) directory: Option<PathBuf>,
}

/// An object, and what tells this state of it from another one.
pub(crate) struct Object {
    pub bytes: Bytes,
    pub version: UpdateVersion,
}

/// When a put is to do something.
#[derive(Clone)]
pub(crate) enum When {
    Always,
    /// There is no object.
    Absent,
    /// The object is still the one that was got.
    Unchanged(UpdateVersion),
}

/// What a put did.
pub(crate) enum Put {
    Done(UpdateVersion),
    /// Nothing: it was not the time.
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

    /// Bytes of a part. Fewer, or none, are damage.
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
            // It may be too short for the range.
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

    /// Checks that the object at `path` is at least so long.
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

    /// What is known of the object at `path`; `None` if there is none.
    pub(crate) async fn head(&self, path: &Path) -> Result<Option<ObjectMeta>, MirrorError> {
        let head = self.store.head(path);
        match self.within(REQUEST_LIMIT, "look at", path, head).await {
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
        when: When,
    ) -> Result<Put, MirrorError> {
        let mode = match when {
            When::Always => PutMode::Overwrite,
            When::Absent => PutMode::Create,
            When::Unchanged(version) => PutMode::Update(version),
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

    /// Puts a whole part, of a few mebibytes at most.
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

    /// Makes an object of its pieces.
    pub(crate) async fn complete(
        &self,
        path: &Path,
        upload: &mut Box<dyn MultipartUpload>,
    ) -> Result<(), MirrorError> {
        // The store copies them, or counts them.
        let completed = upload.complete();
        let limit = 10 * REQUEST_LIMIT;
        let completed = self.within(limit, "complete", path, completed).await;
        completed.map(drop)
    }

    /// Throws the pieces away, if that can be done at once: a rule of the bucket does it else.
    pub(crate) async fn abort(&self, path: &Path, upload: &mut Box<dyn MultipartUpload>) {
        let aborted = upload.abort();
        if let Err(error) = self.within(REQUEST_LIMIT, "abort", path, aborted).await {
            log::debug!(target: crate::LOG, "{error}");
        }
    }

    /// Deletes an object. One that is not there is deleted.
    pub(crate) async fn delete(&self, path: &Path) -> Result<(), MirrorError> {
        let deleted = self.store.delete(path);
        match self.within(REQUEST_LIMIT, "delete", path, deleted).await {
            Err(error) if !is_not_found(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// All objects under `prefix`.
    pub(crate) async fn list(&self, prefix: &Path) -> Result<Vec<ObjectMeta>, MirrorError> {
        let listed = self.store.list(Some(prefix)).try_collect();
        // There may be many pages.
        self.within(10 * REQUEST_LIMIT, "list", prefix, listed)
            .await
    }

    /// Checks that the directory is there that the mirror is in, if it is in one.
    pub(crate) async fn check_directory(&self) -> Result<(), MirrorError> {
        let Some(directory) = self.directory.clone() else {
            return Ok(());
        };
        // It may be on a server that does not answer.
        let found = spawn_blocking(move || std::fs::metadata(directory));
        match timeout(REQUEST_LIMIT, found).await {
            Ok(Ok(Ok(found))) if found.is_dir() => Ok(()),
            Ok(Ok(Ok(_))) => Err(self.no_directory("it is no directory".to_owned())),
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

/// The bytes, if they are as many as there are to be: an answer may be cut.
fn whole(bytes: Bytes, expected: u64) -> object_store::Result<Bytes> {
    match bytes.len() as u64 == expected {
        true => Ok(bytes),
        false => Err(Error::Generic {
            store: "mirror",
            source: format!("{} bytes of {expected} have arrived", bytes.len()).into(),
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
        // That is how servers refuse a condition that they don't know.
        error if error.to_string().contains("NotImplemented") => RequestFailure::Unsupported,
        _ => RequestFailure::Unreachable,
    }
}

fn is_not_found(error: &MirrorError) -> bool {
    let not_found = RequestFailure::NotFound;
    matches!(error, MirrorError::Request { kind, .. } if *kind == not_found)
}
