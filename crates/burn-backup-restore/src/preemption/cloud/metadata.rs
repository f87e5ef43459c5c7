//! The HTTP client for metadata services. It uses no proxy and keeps no connections.

use std::time::Duration;

use serde::de::DeserializeOwned;
use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body};

use super::WatchError;

/// The service is one network hop away: it accepts a connection at once, or does not exist.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest body that is read, in bytes.
const BODY_LIMIT: u64 = 64 * 1024;

/// How much of an unknown answer an error shows, in characters.
const SHOWN_CHARS: usize = 100;

/// The status of a successful answer.
const OK: u16 = 200;

/// A metadata service at a base URL.
pub(super) struct Metadata {
    agent: Agent,
    base_url: String,
    timeout: Duration,
}

/// An answer of the service, with any status.
pub(super) struct Answer {
    url: String,
    pub status: u16,
    pub headers: HeaderMap,
    body: String,
}

impl Metadata {
    pub fn new(base_url: &str, timeout: Duration) -> Self {
        let config = Agent::config_builder()
            // The address is local to this machine: a proxy would answer for another machine.
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            // One request per second needs no open connection, which might be dead.
            .max_idle_connections(0)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .build();
        Self {
            agent: Agent::new_with_config(config),
            base_url: base_url.to_owned(),
            timeout,
        }
    }

    pub fn set_base_url(&mut self, base_url: impl Into<String>) {
        let base_url = base_url.into();
        base_url
            .trim_end_matches('/')
            .clone_into(&mut self.base_url);
    }

    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    #[cfg(test)]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    pub fn get(&self, path: &str, header: (&str, &str)) -> Result<Answer, WatchError> {
        let url = self.url(path);
        let request = self.agent.get(&url).header(header.0, header.1);
        let request = request.config().timeout_global(Some(self.timeout)).build();
        answer(url, request.call())
    }

    pub fn put(&self, path: &str, header: (&str, &str)) -> Result<Answer, WatchError> {
        let url = self.url(path);
        let request = self.agent.put(&url).header(header.0, header.1);
        let request = request.config().timeout_global(Some(self.timeout)).build();
        answer(url, request.send_empty())
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }
}

fn answer(
    url: String,
    response: Result<Response<Body>, ureq::Error>,
) -> Result<Answer, WatchError> {
    let (parts, mut body) = match response {
        Ok(response) => response.into_parts(),
        Err(source) => return Err(WatchError::Request { url, source }),
    };
    match body.with_config().limit(BODY_LIMIT).read_to_vec() {
        Ok(body) => Ok(Answer {
            url,
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        }),
        Err(source) => Err(WatchError::Body { url, source }),
    }
}

impl Answer {
    /// The answer, if its status is 200.
    pub fn ok(self) -> Result<Self, WatchError> {
        if self.status == OK {
            return Ok(self);
        }
        Err(WatchError::Status {
            url: self.url,
            status: self.status,
        })
    }

    /// The body without the white space around it.
    pub fn text(&self) -> &str {
        self.body.trim()
    }

    pub fn json<T: DeserializeOwned>(self) -> Result<T, WatchError> {
        serde_json::from_str(&self.body).map_err(|source| WatchError::Json {
            url: self.url,
            source,
        })
    }

    /// The error that the body is not a documented value.
    pub fn unknown(&self) -> WatchError {
        WatchError::Value {
            url: self.url.clone(),
            answer: self
                .text()
                .chars()
                .take(SHOWN_CHARS)
                .flat_map(char::escape_debug)
                .collect(),
        }
    }

    pub fn not_google(self) -> WatchError {
        WatchError::NotGoogle { url: self.url }
    }
}
