//! One line for each event, on the standard error and in a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::Serialize;

pub struct EventLog {
    log: Option<File>,
    is_json: bool,
}

/// An event as JSON.
#[derive(Serialize)]
struct Event<'e> {
    time: &'e str,
    event: &'e str,
}

impl EventLog {
    /// Appends to the file `log`, if it is given. Each event is a line of JSON if `is_json`.
    pub fn open(log: Option<&Path>, is_json: bool) -> Result<Self> {
        let log = log.map(|path| {
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.with_context(|| format!("cannot open the log '{}'", path.display()))
        });
        Ok(Self {
            log: log.transpose()?,
            is_json,
        })
    }

    pub fn say(&mut self, event: &str) {
        let time = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let json = || serde_json::to_string(&Event { time: &time, event }).unwrap_or_default();
        let (said, logged) = match self.is_json {
            true => (json(), json()),
            false => (format!("burn-backup: {event}"), format!("{time} {event}")),
        };
        // If the standard error is closed, there is no other place to report it.
        let _ = io::stderr()
            .lock()
            .write_all(format!("{said}\n").as_bytes());
        if let Some(log) = &mut self.log {
            // A full disk must not end the training.
            let _ = log.write_all(format!("{logged}\n").as_bytes());
        }
    }
}
