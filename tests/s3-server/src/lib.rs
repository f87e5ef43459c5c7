//! An S3 server on loopback, which keeps its objects in a directory. It can be stopped and started again, and told to
//! answer badly.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, HeaderValue};
use hyper::service::{Service, service_fn};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use object_store::aws::AmazonS3Builder;
use object_store::{ObjectStore, RetryConfig};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError, HttpResponse};
use s3s_fs::FileSystem;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// What clients sign their requests with.
pub const ACCESS_KEY: &str = "an-access-key";
/// What clients sign their requests with.
pub const SECRET_KEY: &str = "a-secret-key-nobody-is-told";
/// The bucket that is there.
pub const BUCKET: &str = "bucket";

/// A client of the server at `endpoint`, which tries requests again as `retry` says.
///
/// # Errors
///
/// Those of the endpoint.
pub fn client(endpoint: &str, retry: RetryConfig) -> Result<Arc<dyn ObjectStore>> {
    // The program may have another one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = AmazonS3Builder::new()
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name(BUCKET)
        .with_access_key_id(ACCESS_KEY)
        .with_secret_access_key(SECRET_KEY)
        .with_retry(retry)
        .build()?;
    Ok(Arc::new(client))
}

/// How requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Answer {
    /// As they should be.
    #[default]
    Well,
    /// With "503 Slow Down".
    Unavailable,
    /// After this time.
    After(Duration),
    /// What is read is cut to half its length.
    Half,
}

/// A server that runs until it is dropped.
pub struct S3Server {
    directory: PathBuf,
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    running: Option<Running>,
}

struct Running {
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl S3Server {
    /// Starts a server on a port of its own. Its objects are in `directory`.
    ///
    /// # Errors
    ///
    /// Those of the directory and of the network.
    pub fn start(directory: impl Into<PathBuf>) -> Result<Self> {
        Self::start_at(directory, 0)
    }

    /// The same on this port; 0 is any.
    ///
    /// # Errors
    ///
    /// Those of the directory and of the network.
    pub fn start_at(directory: impl Into<PathBuf>, port: u16) -> Result<Self> {
        let directory = directory.into();
        let bucket = directory.join(BUCKET);
        std::fs::create_dir_all(&bucket).with_context(|| bucket.display().to_string())?;
        let mut server = Self {
            directory,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            answer: Arc::default(),
            running: None,
        };
        server.restart()?;
        Ok(server)
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers like this from now on.
    pub fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    /// Cuts all connections, and takes no new ones.
    pub fn stop(&mut self) {
        if let Some(Running { end, thread }) = self.running.take() {
            // It may have ended by itself.
            let _ = end.send(());
            let _ = thread.join();
        }
    }

    /// Runs again, at the same address.
    ///
    /// # Errors
    ///
    /// Those of the directory and of the network.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        let service = service(&self.directory)?;
        let (answer, address) = (self.answer.clone(), self.address);
        let (end, ended) = oneshot::channel();
        let (out, bound) = channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build();
            let served = runtime.and_then(|runtime| {
                runtime.block_on(async {
                    let listener = TcpListener::bind(address).await?;
                    // Whoever has started it waits for this.
                    let _ = out.send(Ok(listener.local_addr()?));
                    tokio::select! {
                        _ = ended => Ok(()),
                        served = serve(listener, service, answer) => served,
                    }
                })
            });
            if let Err(error) = served {
                let _ = out.send(Err(error));
            }
        });
        self.address = bound.recv().context("the server's thread has ended")??;
        self.running = Some(Running { end, thread });
        Ok(())
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn service(directory: &Path) -> Result<S3Service> {
    let files = FileSystem::new(directory).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    Ok(builder.build())
}

async fn serve(
    listener: TcpListener,
    service: S3Service,
    answer: Arc<Mutex<Answer>>,
) -> io::Result<()> {
    loop {
        let (connection, _) = listener.accept().await?;
        tokio::spawn(answer_all(connection, service.clone(), answer.clone()));
    }
}

async fn answer_all(connection: TcpStream, service: S3Service, answer: Arc<Mutex<Answer>>) {
    // Small answers would wait for each other.
    let _ = connection.set_nodelay(true);
    let answered = service_fn(move |request: Request<Incoming>| {
        let answer = *answer.lock().unwrap_or_else(PoisonError::into_inner);
        respond(service.clone(), request, answer)
    });
    let server = Builder::new(TokioExecutor::new());
    // A client may leave at any time.
    let _ = server
        .serve_connection(TokioIo::new(connection), answered)
        .await;
}

async fn respond(
    service: S3Service,
    request: Request<Incoming>,
    answer: Answer,
) -> Result<HttpResponse, HttpError> {
    let is_read = *request.method() == Method::GET;
    match answer {
        Answer::Unavailable => {
            let mut response = HttpResponse::new(Body::empty());
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return Ok(response);
        }
        Answer::After(time) => tokio::time::sleep(time).await,
        Answer::Well | Answer::Half => {}
    }
    let response = Service::call(&service, request).await?;
    if answer != Answer::Half || !is_read {
        return Ok(response);
    }
    let (mut parts, body) = response.into_parts();
    let bytes = body.collect().await.map(|body| body.to_bytes());
    let bytes = bytes.unwrap_or_default();
    let half: Bytes = bytes.slice(..bytes.len() / 2);
    parts
        .headers
        .insert(CONTENT_LENGTH, HeaderValue::from(half.len()));
    Ok(HttpResponse::from_parts(parts, Body::from(half)))
}
