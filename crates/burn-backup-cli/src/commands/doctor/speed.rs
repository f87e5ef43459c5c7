//! Measures the disk's speed: writes and syncs a file, and reads it, three times each.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Check;
use super::disk;
use crate::output::{Output, bytes};

const BYTES: u64 = 64 * 1000 * 1000;
const TIMES: usize = 3;
const PIECE: usize = 1000 * 1000;

/// With less free space than this, the test file could take a training's last space.
const ROOM: u64 = 4 * BYTES;

pub fn measure(scratch: &Path, dir: &Path, output: &Output) -> Vec<Check> {
    if disk::free(dir).is_some_and(|free| free < ROOM) {
        return vec![Check::warn(
            "speed",
            "not measured: there is too little space for a test file",
            "free some space",
        )];
    }
    match times(scratch, output) {
        Ok((writes, reads)) => vec![
            speed("write speed", "written and synced", writes),
            speed("read speed", "read", reads),
        ],
        Err(error) => vec![Check::fail(
            "speed",
            format!(
                "a file of {} can't be written and read: {error:#}",
                bytes(BYTES)
            ),
            "check the disk and its quota",
        )],
    }
}

fn speed(name: &'static str, verb: &str, mut times: Vec<Duration>) -> Check {
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let per_second = (BYTES as f64 / median.as_secs_f64().max(1e-9)) as u64;
    let message = format!(
        "{}/s: {} {verb} in {:.3} s",
        bytes(per_second),
        bytes(BYTES),
        median.as_secs_f64()
    );
    Check::ok(name, message).with_value(per_second)
}

fn times(scratch: &Path, output: &Output) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let path = scratch.join("speed");
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    let mut bar = output.bar("measuring", 2 * BYTES * TIMES as u64);
    let noise = noise();
    for _ in 0..TIMES {
        let began = Instant::now();
        let mut file = File::create(&path)?;
        let mut left = BYTES;
        while left > 0 {
            file.write_all(&noise)?;
            left = left.saturating_sub(PIECE as u64);
            bar.add(PIECE as u64);
        }
        file.sync_all()?;
        writes.push(began.elapsed());
        forget(&file);

        let mut file = File::open(&path)?;
        let mut piece = vec![0; PIECE];
        let began = Instant::now();
        loop {
            match file.read(&mut piece)? {
                0 => break,
                read => bar.add(read as u64),
            }
        }
        reads.push(began.elapsed());
        drop(file);
        std::fs::remove_file(&path)?;
    }
    Ok((writes, reads))
}

/// Bytes that a file system can't compress.
fn noise() -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..PIECE / 8).flat_map(|_| next()).collect()
}

/// Asks the system to drop the file's contents from memory, so that they are read from the disk.
#[cfg(target_os = "linux")]
fn forget(file: &File) {
    // If this fails, the speed of the memory is measured.
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
}

#[cfg(not(target_os = "linux"))]
fn forget(_: &File) {}
