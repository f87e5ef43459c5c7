//! An object store in memory that counts requests. It can fail or delay given requests, or stop the process at them.
//!
//! As with Amazon S3, two objects with the same contents have the same tag.

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result, UploadPart,
};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

/// The latency of a request, and again of its answer.
const LATENCY: Duration = Duration::from_millis(10);

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request fails and does nothing.
    Refused,
    /// The request succeeds, and its answer is lost.
    Unanswered,
    /// Half of the bytes of a read arrive. A put does nothing.
    Cut,
    /// The process dies before the request is done.
    KilledBefore,
    /// The process dies after the request is done.
    KilledAfter,
}

/// How the store handles conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Conditions {
    #[default]
    Honoured,
    /// Conditions are ignored.
    Ignored,
    /// Requests with conditions fail.
    Unsupported,
}

/// A client's view of the store.
#[derive(Clone)]
pub struct Model {
    shared: Arc<Mutex<Shared>>,
    client: Arc<Client>,
}

/// The state that all clients share.
#[derive(Default)]
struct Shared {
    objects: BTreeMap<Path, Object>,
    /// The server's clock.
    clock: DateTime<Utc>,
    /// The objects after each change.
    listings: Vec<Vec<ObjectMeta>>,
    /// By how many changes listings are delayed.
    lag: usize,
    conditions: Conditions,
}

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    put: DateTime<Utc>,
}

struct Client {
    state: Mutex<State>,
    /// Notified when the process has died.
    died: Notify,
    /// How many requests may be made.
    allowed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    requests: u64,
    log: Vec<String>,
    fault: Option<(u64, Fault)>,
    /// Requests that must fail, by their beginnings.
    denied: Option<&'static str>,
}

impl Model {
    pub fn new() -> Self {
        Self::on(Arc::default())
    }

    /// Another client of the same store.
    pub fn another(&self) -> Self {
        Self::on(self.shared.clone())
    }

    fn on(shared: Arc<Mutex<Shared>>) -> Self {
        Self {
            shared,
            client: Arc::new(Client {
                state: Mutex::default(),
                died: Notify::new(),
                allowed: watch::Sender::new(u64::MAX),
            }),
        }
    }

    pub fn failing(self, request: u64, fault: Fault) -> Self {
        self.state().fault = Some((request, fault));
        self
    }

    /// Refuses requests whose entry in the [`log`](Self::log) begins with `what`, as if a permission were missing.
    pub fn denying(self, what: &'static str) -> Self {
        self.state().denied = Some(what);
        self
    }

    pub fn lagging(self, changes: usize) -> Self {
        self.shared().lag = changes;
        self
    }

    pub fn with(self, conditions: Conditions) -> Self {
        self.shared().conditions = conditions;
        self
    }

    /// How many requests this client has made.
    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    pub fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    /// Permits only this many requests; later ones wait.
    pub fn allow(&self, requests: u64) {
        self.client.allowed.send_replace(requests);
    }

    /// Waits until the process has died.
    pub async fn died(&self) {
        self.client.died.notified().await;
    }

    /// Advances the server's clock.
    pub fn pass(&self, time: Duration) {
        self.shared().clock += time;
    }

    /// The names of all objects, without a request.
    pub fn names(&self) -> Vec<String> {
        let shared = self.shared();
        shared.objects.keys().map(ToString::to_string).collect()
    }

    /// An object's bytes, without a request.
    pub fn object(&self, name: &str) -> Bytes {
        self.shared().objects[&Path::from(name)].bytes.clone()
    }

    /// Puts an object, without a request.
    pub fn replace(&self, name: &str, bytes: impl Into<Bytes>) {
        self.shared().put(&Path::from(name), bytes.into());
    }

    pub fn remove(&self, name: &str) {
        self.shared().delete(&Path::from(name));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.client.state.lock().unwrap()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    /// Performs a request, unless it must fail. Returns whether its answer must be cut.
    async fn request<T>(
        &self,
        what: String,
        path: &Path,
        is_change: bool,
        done: impl FnOnce(&mut Shared) -> Result<T>,
    ) -> Result<(T, bool)> {
        let (number, is_denied) = {
            let mut state = self.state();
            let is_denied = state.denied.is_some_and(|denied| what.starts_with(denied));
            state.log.push(what.clone());
            state.requests += 1;
            (state.requests - 1, is_denied)
        };
        sleep(LATENCY).await;
        let mut allowed = self.client.allowed.subscribe();
        allowed.wait_for(|allowed| number < *allowed).await.unwrap();
        let planned = self.state().fault;
        let fault = planned.and_then(|(at, fault)| (at == number).then_some(fault));
        if is_denied {
            return Err(Error::PermissionDenied {
                path: path.to_string(),
                source: "not for you".into(),
            });
        }
        match fault {
            Some(Fault::Refused) => return Err(failed(&what)),
            Some(Fault::Cut) if is_change => return Err(failed(&what)),
            Some(Fault::KilledBefore) => self.die().await,
            _ => {}
        }
        let done = done(&mut self.shared());
        sleep(LATENCY).await;
        match fault {
            Some(Fault::Unanswered) => return Err(failed(&what)),
            Some(Fault::KilledAfter) => self.die().await,
            _ => {}
        }
        done.map(|done| (done, fault == Some(Fault::Cut)))
    }

    async fn die(&self) {
        self.client.died.notify_one();
        pending().await
    }
}

impl Shared {
    fn put(&mut self, path: &Path, bytes: Bytes) -> PutResult {
        let put = self.clock;
        let object = Object { bytes, put };
        let result = PutResult {
            e_tag: Some(object.tag()),
            version: None,
            extensions: Default::default(),
        };
        self.objects.insert(path.clone(), object);
        self.changed();
        result
    }

    fn put_if(&mut self, path: &Path, bytes: Bytes, mode: &PutMode) -> Result<PutResult> {
        let is_conditional = *mode != PutMode::Overwrite;
        match self.conditions {
            Conditions::Unsupported if is_conditional => {
                return Err(Error::NotImplemented {
                    operation: "a condition".to_owned(),
                    implementer: "model".to_owned(),
                });
            }
            Conditions::Ignored => return Ok(self.put(path, bytes)),
            Conditions::Honoured | Conditions::Unsupported => {}
        }
        let there = self.objects.get(path).map(Object::tag);
        match mode {
            PutMode::Create if there.is_some() => Err(Error::AlreadyExists {
                path: path.to_string(),
                source: "it is there".into(),
            }),
            PutMode::Update(version) if there.is_none() || there != version.e_tag => {
                Err(Error::Precondition {
                    path: path.to_string(),
                    source: "it is another one".into(),
                })
            }
            _ => Ok(self.put(path, bytes)),
        }
    }

    fn delete(&mut self, path: &Path) {
        self.objects.remove(path);
        self.changed();
    }

    fn changed(&mut self) {
        let listing = self.objects.iter().map(|(path, object)| object.meta(path));
        let listing = listing.collect();
        self.listings.push(listing);
    }

    fn get(&self, path: &Path) -> Result<(Object, ObjectMeta)> {
        let object = self.objects.get(path).ok_or_else(|| Error::NotFound {
            path: path.to_string(),
            source: "it is not there".into(),
        })?;
        Ok((object.clone(), object.meta(path)))
    }

    fn listed(&self, prefix: &Path) -> Vec<ObjectMeta> {
        let at = self.listings.len().checked_sub(1 + self.lag);
        let listing = at.map(|at| self.listings[at].clone()).unwrap_or_default();
        let mut listing = listing;
        listing.retain(|object| object.location.prefix_matches(prefix));
        listing
    }
}

impl Object {
    fn tag(&self) -> String {
        blake3::hash(&self.bytes).to_hex().to_string()
    }

    fn meta(&self, path: &Path) -> ObjectMeta {
        ObjectMeta {
            location: path.clone(),
            last_modified: self.put,
            size: self.bytes.len() as u64,
            e_tag: Some(self.tag()),
            version: None,
        }
    }
}

fn failed(what: &str) -> Error {
    Error::Generic {
        store: "model",
        source: format!("{what} has failed").into(),
    }
}

fn joined(payload: PutPayload) -> Bytes {
    payload.into()
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("model")
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Model")
    }
}

#[async_trait]
impl ObjectStore for Model {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let (bytes, mode) = (joined(payload), options.mode);
        let put = self.request(format!("put {location}"), location, true, |shared| {
            shared.put_if(location, bytes, &mode)
        });
        put.await.map(|(put, _)| put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let begun = self.request(format!("begin {location}"), location, false, |_| Ok(()));
        begun.await?;
        Ok(Box::new(Upload {
            model: self.clone(),
            location: location.clone(),
            pieces: Arc::default(),
            count: 0,
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let what = match (options.head, &options.range) {
            (true, _) => format!("head {location}"),
            (false, None) => format!("get {location}"),
            (false, Some(range)) => format!("get {location} {range}"),
        };
        let got = self.request(what, location, false, |shared| shared.get(location));
        let ((object, meta), is_cut) = got.await?;
        let range = match options.range {
            Some(range) => range
                .as_range(meta.size)
                .map_err(|error| failed(&error.to_string()))?,
            None => 0..meta.size,
        };
        let mut bytes = object.bytes.slice(range.start as usize..range.end as usize);
        if is_cut {
            bytes.truncate(bytes.len() / 2);
        }
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed()),
            range,
            meta,
            attributes: Default::default(),
            extensions: Default::default(),
        })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let model = self.clone();
        let deleted = locations.then(move |location| {
            let model = model.clone();
            async move {
                let location = location?;
                let what = format!("delete {location}");
                let deleted = model.request(what, &location, true, |shared| {
                    shared.delete(&location);
                    Ok(())
                });
                deleted.await?;
                Ok(location)
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (model, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        let listed = async move {
            let what = format!("list {prefix}");
            let listed = model.request(what, &prefix, false, |shared| Ok(shared.listed(&prefix)));
            let (listed, is_cut) = listed.await?;
            let mut listed: Vec<Result<ObjectMeta>> = listed.into_iter().map(Ok).collect();
            if is_cut {
                listed.truncate(listed.len() / 2);
                listed.push(Err(failed("list")));
            }
            Ok::<_, Error>(stream::iter(listed))
        };
        stream::once(listed).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, _prefix: Option<&Path>) -> Result<ListResult> {
        Err(failed("the crate makes no such request"))
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        Err(failed("the crate makes no such request"))
    }
}

struct Upload {
    model: Model,
    location: Path,
    pieces: Arc<Mutex<BTreeMap<usize, Bytes>>>,
    count: usize,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upload")
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (model, location, pieces) = (
            self.model.clone(),
            self.location.clone(),
            self.pieces.clone(),
        );
        let number = self.count;
        self.count += 1;
        Box::pin(async move {
            let what = format!("piece {location}");
            let put = model.request(what, &location, false, |_| {
                pieces.lock().unwrap().insert(number, joined(data));
                Ok(())
            });
            put.await.map(drop)
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let what = format!("complete {}", self.location);
        let (location, count) = (&self.location, self.count);
        let pieces = self.pieces.lock().unwrap().clone();
        let completed = self.model.request(what, location, true, |shared| {
            assert_eq!(pieces.len(), count, "all pieces exist");
            let bytes: Vec<u8> = pieces.into_values().flatten().collect();
            Ok(shared.put(location, bytes.into()))
        });
        completed.await.map(|(put, _)| put)
    }

    async fn abort(&mut self) -> Result<()> {
        let what = format!("abort {}", self.location);
        let aborted = self.model.request(what, &self.location, false, |_| Ok(()));
        aborted.await.map(drop)
    }
}
