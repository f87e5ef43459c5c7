//! A directory as an object store. Its writes are synced, and it has the conditional put that `object_store` leaves
//! out.

use std::fmt;
use std::fs::File;
use std::io;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result, UpdateVersion,
};

const STORE: &str = "directory";

/// The suffix of the file that is locked while an object is replaced.
const LOCK_SUFFIX: &str = ".lock";

/// The file system of this machine, starting at its root.
#[derive(Debug)]
pub(crate) struct Directory {
    files: LocalFileSystem,
}

impl Directory {
    pub(crate) fn new() -> Self {
        Self {
            files: LocalFileSystem::new().with_fsync(true),
        }
    }

    /// Replaces an object, if its version is still the expected one. Other processes that replace it wait.
    async fn update(
        &self,
        location: &Path,
        payload: PutPayload,
        expected: &UpdateVersion,
    ) -> Result<PutResult> {
        let lock = self.files.path_to_filesystem(location)?;
        let lock = {
            let mut name = lock.into_os_string();
            name.push(LOCK_SUFFIX);
            std::path::PathBuf::from(name)
        };
        let locked = tokio::task::spawn_blocking(move || lock_file(&lock)).await?;
        // The lock is held until this function returns.
        let _locked = locked.map_err(|error| match error.kind() {
            io::ErrorKind::Unsupported => Error::NotSupported {
                source: Box::new(error),
            },
            _ => Error::Generic {
                store: STORE,
                source: Box::new(error),
            },
        })?;
        let there = match self.files.head(location).await {
            Ok(meta) => meta.e_tag,
            Err(Error::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        if there.is_none() || there != expected.e_tag {
            return Err(Error::Precondition {
                path: location.to_string(),
                source: "it was replaced meanwhile".into(),
            });
        }
        self.files.put(location, payload).await
    }
}

fn lock_file(path: &std::path::Path) -> io::Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    file.lock()?;
    Ok(file)
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STORE)
    }
}

#[async_trait]
impl ObjectStore for Directory {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        match &options.mode {
            PutMode::Update(expected) => self.update(location, payload, expected).await,
            PutMode::Overwrite | PutMode::Create => {
                self.files.put_opts(location, payload, options).await
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.files.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_object_is_replaced_only_if_it_is_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let path = Path::from_absolute_path(dir.path().join("object")).unwrap();
        let store = Directory::new();
        let update = |version| store.put_opts(&path, "x".into(), PutMode::Update(version).into());

        let none = UpdateVersion {
            e_tag: None,
            version: None,
        };
        assert!(update(none.clone()).await.is_err());
        let first: UpdateVersion = store.put(&path, "a".into()).await.unwrap().into();
        let second: UpdateVersion = update(first.clone()).await.unwrap().into();
        let refused = update(first).await;
        assert!(matches!(refused, Err(Error::Precondition { .. })));
        assert!(update(second).await.is_ok());
    }
}
