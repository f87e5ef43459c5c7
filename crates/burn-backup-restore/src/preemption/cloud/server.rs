//! A metadata service for tests.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// An HTTP request without a body.
pub(super) struct Request {
    /// Method and target, such as "GET /name?format=text".
    pub line: String,
    headers: Vec<(String, String)>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    fn read(stream: &TcpStream) -> Option<Self> {
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let first = lines.next()?;
        let (line, version) = first.rsplit_once(' ')?;
        assert_eq!(version, "HTTP/1.1");
        let headers = lines
            .take_while(|line| !line.is_empty())
            .filter_map(|line| {
                let (name, value) = line.split_once(':')?;
                Some((name.to_owned(), value.trim().to_owned()))
            })
            .collect();
        Some(Self {
            line: line.to_owned(),
            headers,
        })
    }
}

/// The bytes of a response. `headers` are lines, each with its end.
pub(super) fn response(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let mut bytes = format!(
        "HTTP/1.1 {status} A Phrase\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n"
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Answers one request after the other, until dropped.
pub(super) struct Server {
    address: SocketAddr,
    lines: Arc<Mutex<Vec<String>>>,
    is_stopped: Arc<AtomicBool>,
}

impl Server {
    /// Sends the bytes that `answer` returns, unchanged.
    pub fn start(answer: impl FnMut(&Request) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let server = Self {
            address: listener.local_addr().expect("it is bound"),
            lines: Arc::default(),
            is_stopped: Arc::default(),
        };
        let (lines, is_stopped) = (server.lines.clone(), server.is_stopped.clone());
        std::thread::spawn(move || serve(&listener, &lines, &is_stopped, answer));
        server
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The lines of the requests since the last call.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().expect("no thread has panicked"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        // Wakes the thread, which waits for a connection.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(
    listener: &TcpListener,
    lines: &Mutex<Vec<String>>,
    is_stopped: &AtomicBool,
    mut answer: impl FnMut(&Request) -> Vec<u8>,
) {
    for stream in listener.incoming() {
        if is_stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(mut stream) = stream else { continue };
        let Some(request) = Request::read(&stream) else {
            continue;
        };
        let line = request.line.clone();
        lines.lock().expect("no thread has panicked").push(line);
        // In some tests the client no longer waits.
        let _ = stream.write_all(&answer(&request));
    }
}

/// A port that refuses connections: it is taken, but nothing listens on it.
pub(super) struct RefusingPort(TcpStream);

impl RefusingPort {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        Self(TcpStream::connect(address).expect("it listens"))
    }

    pub fn url(&self) -> String {
        let address = self.0.local_addr().expect("it is connected");
        format!("http://{address}")
    }
}
