//! An HTTP server on loopback that prints the body of each request.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use anyhow::Context as _;

/// Runs until it is stopped.
pub struct Server {
    address: SocketAddr,
    thread: JoinHandle<io::Result<u64>>,
}

/// A request to this path ends the server.
const STOP: &str = "/stop";

impl Server {
    pub fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port on loopback")?;
        let address = listener.local_addr()?;
        let thread = thread::spawn(move || serve(&listener));
        Ok(Self { address, thread })
    }

    pub fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }

    /// Returns the number of requests.
    pub fn stop(self) -> anyhow::Result<u64> {
        ureq::post(format!("http://{}{STOP}", self.address)).send_empty()?;
        let served = self.thread.join();
        let served = served.map_err(|_| anyhow::anyhow!("the server has panicked"))?;
        Ok(served?)
    }
}

fn serve(listener: &TcpListener) -> io::Result<u64> {
    let mut requests = 0;
    for stream in listener.incoming() {
        let (path, body) = answer(stream?)?;
        if path == STOP {
            break;
        }
        requests += 1;
        writeln!(io::stdout(), "POST {path} {body}")?;
    }
    Ok(requests)
}

/// Reads one request, and answers that all is well.
fn answer(mut stream: TcpStream) -> io::Result<(String, String)> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = String::new();
    reader.take(length).read_to_string(&mut body)?;
    stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")?;
    Ok((path, body))
}
