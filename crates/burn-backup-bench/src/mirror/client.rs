//! A plain client of the server, whose speed is the limit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, RetryConfig, WriteMultipart};
use tokio::runtime::{Builder, Runtime};

use super::server::Server;

/// The same size as the mirror's pieces.
const PIECE_BYTES: usize = 16 * 1024 * 1024;
const RANGE_BYTES: u64 = 8 * 1024 * 1024;
const CONCURRENCY: usize = 4;

const OBJECT: &str = "plain";

/// A client of one server.
pub struct Client {
    store: Arc<dyn ObjectStore>,
    endpoint: String,
    runtime: Runtime,
}

/// Bytes that all parts of an upload share.
struct Shared(Arc<[u8]>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Client {
    /// A client of `server`.
    pub fn of(server: &Server) -> Result<Self> {
        let endpoint = server.endpoint().to_owned();
        let store = s3_server::client(&endpoint, RetryConfig::default())?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self {
            store,
            endpoint,
            runtime,
        })
    }

    /// Another client, for a mirror. Connections belong to the runtime that opened them.
    pub fn another(&self) -> Result<Arc<dyn ObjectStore>> {
        s3_server::client(&self.endpoint, RetryConfig::default())
    }

    /// Puts one object, and returns the time.
    pub fn put(&self, bytes: Arc<[u8]>) -> Result<Duration> {
        let bytes = Bytes::from_owner(Shared(bytes));
        let began = Instant::now();
        self.runtime.block_on(async {
            let upload = self.store.put_multipart(&Path::from(OBJECT)).await?;
            let mut writer = WriteMultipart::new_with_chunk_size(upload, PIECE_BYTES);
            for start in (0..bytes.len()).step_by(PIECE_BYTES) {
                writer.wait_for_capacity(CONCURRENCY - 1).await?;
                writer.put(bytes.slice(start..bytes.len().min(start + PIECE_BYTES)));
            }
            writer.finish().await?;
            anyhow::Ok(())
        })?;
        Ok(began.elapsed())
    }

    /// Reads the object, and returns the time.
    pub fn read(&self, length: u64) -> Result<Duration> {
        let path = Path::from(OBJECT);
        let began = Instant::now();
        self.runtime.block_on(async {
            let starts = (0..length).step_by(usize::try_from(RANGE_BYTES)?);
            let ranges = starts.map(|start| start..length.min(start + RANGE_BYTES));
            let reads = ranges.map(|range| self.store.get_range(&path, range));
            let mut reads = stream::iter(reads).buffered(CONCURRENCY);
            while reads.try_next().await?.is_some() {}
            anyhow::Ok(())
        })?;
        Ok(began.elapsed())
    }
}
