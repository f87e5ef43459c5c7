//! What a mirror costs the training, and how fast it is, with an S3 server on this machine.
//!
//! The server has its own process with the lowest priority. It keeps its objects in memory if there is such a file
//! system. It shares the processors with the measured process, unlike a server on another machine.
//!
//! - *upload*: one generation from the disk to the server, compared with a multipart upload of the same bytes from
//!   memory with the same client.
//! - *fetch*: back into an empty backup directory, verified and synced, compared with reads of the same ranges that
//!   discard the bytes.
//! - *step beside a busy mirror*: continuous backups, with a mirror and without.

mod client;
mod server;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use burn::train::Learner;
use burn_backup_remote::{KeepLast, LeaseStatus, Mirror};
use burn_backup_restore::{BackupAndRestore, BackupExt as _, SaveFreq};
use burn_backup_store::{OpenOptions, Store};
use tempfile::TempDir;

use crate::bench::Bench;
use crate::feed::EpochLengths;
use crate::model::Stack;
use crate::raw_disk::noise;
use crate::row::{Goal, Row};
use crate::spread::Spread;
use crate::state::{LARGE, MEDIUM, SMALL, State};
use crate::{ALLOCATOR, training};

use client::Client;
use server::Server;

pub use server::{ChildArgs, SUBCOMMAND, serve_in_child};

/// The name of the measurement.
pub const NAME: &str = "mirror";

/// The lowest speed relative to a plain client.
const MIN_SPEED: f64 = 0.8;

/// The highest time of a step relative to a step without a mirror.
const MAX_STEP: f64 = 1.02;

/// The highest memory in megabytes that an upload or a fetch may add: a few pieces of 16 MiB.
const MAX_MEMORY: f64 = 160.0;

const POLL: Duration = Duration::from_millis(1);

const STEPS: usize = 60;
const WARM_UP: usize = 10;

/// Measures transfers on a large state, and steps on a state that is written quickly.
pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let (moved, trained) = match bench.is_quick() {
        true => (SMALL, SMALL),
        false => (LARGE, MEDIUM),
    };
    bench.announce(NAME, &moved);
    let mut rows = transfers(bench, &moved)?;
    bench.announce(NAME, &trained);
    rows.extend(steps(bench, &trained)?);
    Ok(rows)
}

fn transfers(bench: &Bench, state: &State) -> Result<Vec<Row>> {
    let bytes = noise(usize::try_from(state.bytes())?);
    let length = bytes.len() as u64;
    let speed = |took: Duration| length as f64 / 1e6 / took.as_secs_f64();
    let bytes: Arc<[u8]> = bytes.into();
    let (mut up, mut plain_up, mut down, mut plain_down) = (vec![], vec![], vec![], vec![]);
    let mut memory = Vec::new();
    for _ in 0..bench.repetitions().rounds {
        let (objects, local) = (objects()?, bench.scratch()?);
        let server = Server::start(objects.path())?;
        let client = Client::of(&server)?;
        let store = generation(local.path(), &bytes)?;
        let before = ALLOCATOR.current_usage();
        ALLOCATOR.reset_peak_usage();
        up.push(speed(upload(&client, &store)?));
        memory.push(ALLOCATOR.peak_usage().saturating_sub(before) as f64 / 1e6);
        plain_up.push(speed(client.put(bytes.clone())?));

        let machine = bench.scratch()?;
        let before = ALLOCATOR.current_usage();
        ALLOCATOR.reset_peak_usage();
        down.push(speed(fetch(&client, machine.path())?));
        memory.push(ALLOCATOR.peak_usage().saturating_sub(before) as f64 / 1e6);
        plain_down.push(speed(client.read(length)?));
    }
    let row = |what, ours: &[f64], plain: &[f64]| {
        let ratios = ours.iter().zip(plain).map(|(ours, plain)| ours / plain);
        let row = Row::new(NAME, state.name, what, "MB/s")
            .ours(Spread::of(ours.iter().copied())?)
            .limit(Spread::of(plain.iter().copied())?)
            .ratio("limit", Spread::of(ratios)?)
            .goal(Goal::RatioAtLeast(MIN_SPEED));
        anyhow::Ok(row)
    };
    Ok(vec![
        row("upload", &up, &plain_up)?,
        row("fetch", &down, &plain_down)?,
        Row::new(NAME, state.name, "peak of a transfer", "MB")
            .ours(Spread::of(memory)?)
            .goal(Goal::OursAtMost(MAX_MEMORY)),
    ])
}

/// A directory for the server's objects that does not use the measured disk.
fn objects() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let dir = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    dir.context("cannot make a directory for the server's objects")
}

/// A store with one generation of one part.
fn generation(dir: &Path, bytes: &Arc<[u8]>) -> Result<Arc<Store>> {
    let store = Store::open(dir.join("backup"), OpenOptions::default())?;
    let mut staging = store.stage()?;
    let mut part = staging.part("model")?;
    part.append(bytes.clone())?;
    part.finish()?;
    let _ = staging.commit(serde_json::Value::Null)?;
    Ok(Arc::new(store))
}

fn upload(client: &Client, store: &Arc<Store>) -> Result<Duration> {
    let connection = mirror(client)?.connect()?;
    let found = connection.find(&store.identity().run_id, true)?;
    let mirroring = connection.mirror(
        Some(&found),
        store,
        None,
        Arc::new(KeepLast(1)),
        Box::new(|_| {}),
    );
    while mirroring.status().lease == LeaseStatus::Waiting {
        std::thread::sleep(POLL);
    }
    let newest = store.newest()?.context("there is a generation")?.id();
    let began = Instant::now();
    mirroring.committed(newest);
    let flushed = mirroring.flush(None, &mut |_| ControlFlow::Continue(()));
    flushed.map_err(|error| anyhow!("{error}"))?;
    Ok(began.elapsed())
}

fn fetch(client: &Client, machine: &Path) -> Result<Duration> {
    let mut store = Store::open(machine.join("backup"), OpenOptions::default())?;
    let mut connection = mirror(client)?.connect()?;
    let run_id = store.identity().run_id.clone();
    let began = Instant::now();
    let found = connection.find(&run_id, false)?;
    connection.fetch(&found, None, &mut store, &mut |_| {})?;
    Ok(began.elapsed())
}

fn mirror(client: &Client) -> Result<Mirror> {
    Ok(Mirror::with_store(client.another()?, "mirror"))
}

/// Measures trainings with continuous backups, alternating with and without a mirror.
fn steps(bench: &Bench, state: &State) -> Result<Vec<Row>> {
    let learner = state.learner();
    let (mut ratios, mut with, mut without) = (Vec::new(), Vec::new(), Vec::new());
    let (mut held_with, mut held_without) = (Vec::new(), Vec::new());
    for _ in 0..bench.turns() {
        let objects = objects()?;
        let server = Server::start(objects.path())?;
        let client = Client::of(&server)?;
        let plain = train(bench, state, &learner, None)?;
        let mirrored = train(bench, state, &learner, Some(mirror(&client)?))?;
        ratios.push(mirrored.step / plain.step);
        with.push(mirrored.step);
        without.push(plain.step);
        held_with.push(mirrored.held);
        held_without.push(plain.held);
    }
    Ok(vec![
        Row::new(NAME, state.name, "step beside a busy mirror", "ms")
            .ours(Spread::of(with)?)
            .limit(Spread::of(without)?)
            .ratio("without", Spread::of(ratios)?)
            .goal(Goal::RatioAtMost(MAX_STEP)),
        Row::new(NAME, state.name, "pause by a backup", "ms")
            .ours(Spread::of(held_with)?)
            .limit(Spread::of(held_without)?),
    ])
}

/// The times of a training in milliseconds.
struct Times {
    step: f64,
    /// The pause for each backup.
    held: f64,
}

fn train(
    bench: &Bench,
    state: &State,
    learner: &Learner<Stack>,
    mirror: Option<Mirror>,
) -> Result<Times> {
    let dir = bench.scratch()?;
    let lengths = EpochLengths {
        first: WARM_UP,
        later: STEPS,
    };
    let (feed, ends) = state.feed(lengths).note_epoch_ends();
    let backup = BackupAndRestore::new(dir.path().join("backup")).save_freq(SaveFreq::Continuous);
    let backup = match mirror {
        Some(mirror) => backup.mirror(mirror),
        None => backup,
    };
    let handle = backup.handle();
    let training = training::supervised(dir.path(), feed, 2).backup_and_restore(backup);
    training::run(training, learner.clone())?;
    let ends: Vec<Instant> = ends.try_iter().collect();
    let (begin, end) = ends.first().zip(ends.last()).context("no epoch ended")?;
    let stats = handle.stats();
    let backups = u32::try_from(stats.committed)?.max(1);
    Ok(Times {
        step: (*end - *begin).as_secs_f64() * 1e3 / STEPS as f64,
        held: (stats.blocked_total / backups).as_secs_f64() * 1e3,
    })
}
