//! Training processes, and the machines that they run on.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use burn_backup_store::testing::MemoryFilesystem;
use burn_backup_store::{GenerationId, OpenOptions, Store};
use object_store::path::Path;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::model::Model;
use crate::error::MirrorError;
use crate::fetch::{Block, adopt, fetch, prepare};
use crate::finish::clear;
use crate::keys::Keys;
use crate::lease::{LeaseRenewer, LeaseSettings};
use crate::mirroring::shared::{EndRequest, Shared};
use crate::mirroring::{Task, task};
use crate::pace::Pace;
use crate::place::Place;
use crate::redact::Secrets;
use crate::retention::KeepLast;
use crate::survey::{SurveyQuery, present, survey};

pub const TTL: Duration = Duration::from_secs(15);

const DIR: &str = "backup";

pub fn place(model: &Model) -> Place {
    Place {
        store: Arc::new(model.clone()),
        prefix: Path::from("prefix"),
        name: "model".into(),
        secrets: Secrets::default(),
        directory: None,
    }
}

pub fn terms(process: &str) -> LeaseSettings {
    LeaseSettings {
        nonce: process.to_owned(),
        holder: process.to_owned(),
        ttl: TTL,
        single_writer: false,
    }
}

/// A machine with an empty disk.
pub fn machine() -> Store {
    let disk = Arc::new(MemoryFilesystem::default());
    Store::open(DIR, OpenOptions::default().filesystem(disk)).unwrap()
}

/// The contents of a part: unique for each process and generation, or the same in all generations.
pub fn contents(name: &str, process: &str, number: u64) -> Vec<u8> {
    match name {
        "frozen" => b"frozen in all; ".repeat(20),
        _ => format!("{name} of {process} {number}; ")
            .into_bytes()
            .repeat(50),
    }
}

const PARTS: [&str; 3] = ["model", "optimizer", "frozen"];

/// Commits the next generation of `process`.
pub fn save(store: &Store, process: &str) -> GenerationId {
    let mut staging = store.stage().unwrap();
    let number = staging.id().number();
    for name in PARTS {
        let mut part = staging.part(name).unwrap();
        part.append(contents(name, process, number)).unwrap();
        part.finish().unwrap();
    }
    let committed = staging.commit(json!({ "process": process })).unwrap();
    store.prune(&committed, 1).unwrap();
    committed.id()
}

/// The process that made the newest generation, and the generation's number. Checks every byte of it.
pub fn newest(store: &Store) -> Option<(String, u64)> {
    let mut generation = store.newest().unwrap()?;
    let number = generation.id().number();
    let state: serde_json::Value = generation.manifest().state().unwrap();
    let process = state["process"].as_str().unwrap().to_owned();
    for name in PARTS {
        let part = generation.take_part(name).unwrap();
        assert_eq!(
            *part,
            *contents(name, &process, number),
            "{name} of {number}"
        );
    }
    Some((process, number))
}

/// A process that mirrors.
pub struct Process {
    pub store: Arc<Store>,
    pub shared: Arc<Shared>,
    pub task: JoinHandle<()>,
    pub name: &'static str,
    place: Place,
    keys: Keys,
}

impl Process {
    /// Begins to mirror `store`, with the result of [`survey`] if the mirror was reached.
    pub async fn start(
        model: &Model,
        name: &'static str,
        store: Store,
        keep: usize,
    ) -> Result<Self, MirrorError> {
        Self::start_as(model, name, store, keep, terms(name)).await
    }

    pub async fn start_as(
        model: &Model,
        name: &'static str,
        store: Store,
        keep: usize,
        terms: LeaseSettings,
    ) -> Result<Self, MirrorError> {
        let place = place(model);
        let base = store.newest().unwrap().map(|generation| generation.id());
        let question = SurveyQuery {
            run_id: store.identity().run_id.clone(),
            has_backup: base.is_some(),
        };
        let found = match survey(&place, &question, &terms).await {
            Ok(found) => {
                store.count_from(found.greatest);
                Some(found)
            }
            Err(error) if error.is_unavailable() => None,
            Err(error) => return Err(error),
        };
        let shared = Arc::new(Shared::default());
        let task = Task {
            place: place.clone(),
            terms,
            question: SurveyQuery {
                has_backup: true,
                ..question
            },
            survey: found,
            renewer: None,
            damaged: Vec::new(),
            base,
            begins: false,
            pace: Arc::new(Pace::new(None)),
            retention: Arc::new(KeepLast(keep)),
            listener: Box::new(|_| {}),
        };
        let keys = task.keys();
        let process = Self {
            store: Arc::new(store),
            shared: shared.clone(),
            task: tokio::spawn(task::run(task, shared)),
            name,
            place,
            keys,
        };
        if let Some(base) = base {
            process.submit(base);
        }
        Ok(process)
    }

    fn submit(&self, id: GenerationId) {
        let pinned = self.store.pin(id).unwrap().unwrap();
        self.shared.submit(Arc::new(pinned));
    }

    /// Commits a generation to be mirrored.
    pub fn save(&self) -> GenerationId {
        let id = save(&self.store, self.name);
        self.submit(id);
        id
    }

    /// Waits until everything is mirrored, or mirroring has stopped.
    pub async fn settle(&self) -> Result<(), Arc<MirrorError>> {
        loop {
            if let Some(flushed) = self.shared.is_flushed() {
                return flushed;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Commits and mirrors this many generations, one after the other.
    pub async fn train(&self, generations: usize) -> Result<(), Arc<MirrorError>> {
        for _ in 0..generations {
            self.save();
            self.settle().await?;
        }
        Ok(())
    }

    /// Ends normally, and releases the lease.
    pub async fn leave(self) {
        let (out, left) = channel();
        self.shared.ask(EndRequest::Leave(out));
        self.task.await.unwrap();
        drop(left);
    }

    /// Finishes the training.
    pub async fn finish(self) -> Result<(), Arc<MirrorError>> {
        let (out, done) = channel();
        self.shared.ask(EndRequest::Finish(out));
        self.task.await.unwrap();
        let known: BTreeSet<Path> = match done.try_recv() {
            Ok(finished) => finished?,
            Err(_) => return Err(self.shared.reason()),
        };
        let mut deleter = Default::default();
        let cleared = clear(&self.place, &self.keys, known, &mut deleter).await;
        cleared.map_err(Arc::new)
    }

    /// The machine dies.
    pub async fn die(self) {
        self.task.abort();
        drop(self.task.await);
    }
}

/// Restores on a machine with an empty disk.
pub async fn restore(
    model: &Model,
    process: &'static str,
) -> Result<(Store, Option<GenerationId>), MirrorError> {
    let (place, terms) = (place(model), terms(process));
    let mut store = machine();
    let question = SurveyQuery {
        run_id: store.identity().run_id.clone(),
        has_backup: false,
    };
    let found = survey(&place, &question, &terms).await?;
    let Some(run_id) = &found.run_id else {
        return Ok((store, None));
    };
    let keys = Keys::new(&place.prefix, run_id);
    let renewer = LeaseRenewer::take(&place, &keys, &terms, &found.generations).await?;
    let named = renewer.lease.generations().await;
    let mut generations = present(&place, &keys, &named, &BTreeSet::new()).await?;
    let names = generations.clone();
    renewer
        .lease
        .update_generations(|named| *named = names)
        .await?;
    generations.sort_unstable_by(|a, b| b.cmp(a));
    let mut damage = None;
    for ordinal in generations {
        let prepared = match prepare(&place, &keys, ordinal).await {
            Ok(prepared) => prepared,
            Err(error) if error.is_damage() => {
                damage = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        let (out, mut blocks) = channel();
        let fetching = tokio::spawn(fetch(place.clone(), prepared.plan, out));
        let mut arrived = VecDeque::new();
        // A blocking thread would stop the virtual clock.
        while let Some(block) = arrival(&mut blocks, &fetching).await {
            arrived.push_back(block.map(Block::into_bytes));
        }
        let next = || arrived.pop_front().unwrap();
        let sealed = prepared.sealed.as_bytes();
        match adopt(&mut store, sealed, &prepared.manifest, next, &mut |_| {}) {
            Ok(id) => {
                renewer.lease.release().await?;
                store.count_from(found.greatest);
                return Ok((store, Some(id)));
            }
            Err(error) if error.is_damage() => damage = Some(error),
            Err(error) => return Err(error),
        }
    }
    match damage {
        Some(error) => Err(error),
        None => Ok((store, None)),
    }
}

/// The next block, if there is another one.
async fn arrival(
    blocks: &mut Receiver<Result<Block, MirrorError>>,
    fetching: &JoinHandle<()>,
) -> Option<Result<Block, MirrorError>> {
    loop {
        let is_over = fetching.is_finished();
        match blocks.try_recv() {
            Ok(block) => return Some(block),
            Err(_) if is_over => return None,
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
}

/// The greatest number of any manifest in the mirror.
pub fn newest_manifest(model: &Model) -> Option<u64> {
    let names = model.names();
    let numbers = names.iter().filter_map(|name| {
        let (_, name) = name.split_once("/generations/")?;
        name.split_once('/')?.1.strip_suffix(".json")?.parse().ok()
    });
    numbers.max()
}

pub fn is_finished(model: &Model) -> bool {
    let names = model.names();
    names.iter().any(|name| name.ends_with("/finished.json"))
}
