//! The name that a process gives itself.

use std::process;

/// `host, process 17`.
pub(crate) fn name() -> String {
    let host = hostname().unwrap_or_else(|| "an unknown machine".to_owned());
    format!("{host}, process {}", process::id())
}

#[cfg(unix)]
fn hostname() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .or_else(|| std::env::var("HOSTNAME").ok())
}

#[cfg(not(unix))]
fn hostname() -> Option<String> {
    std::env::var("COMPUTERNAME").ok()
}
