//! Reads of a generation: large parts concurrently, into the requested buffers, and each file once.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex};

use burn_backup_store::testing::{Fault, FaultyFilesystem, Operation};
use burn_backup_store::{Buffer, Chunking, OpenOptions, ReadProgress, Store, StoreError};
use serde_json::json;

use crate::support::{Scratch, names};

const MIB: usize = 1024 * 1024;

/// Two large parts and a small one.
const PARTS: [(&str, usize); 3] = [
    ("model", 9 * MIB + 1),
    ("optimizer", 17 * MIB),
    ("state", 100),
];

fn contents(name: &str, len: usize) -> Vec<u8> {
    let first = name.len();
    (0..len)
        .map(|at| (at / 3 + at / 70_000 + first) as u8)
        .collect()
}

fn save_parts(store: &Store) {
    let mut staging = store.stage().unwrap();
    for (name, len) in PARTS {
        let mut part = staging.part(name).unwrap();
        part.append(contents(name, len)).unwrap();
        part.finish().unwrap();
    }
    let _ = staging.commit(json!({})).unwrap();
}

fn with_parts() -> Scratch {
    let scratch = Scratch::new();
    save_parts(&scratch.open());
    scratch
}

/// Requests the same lengths repeatedly.
struct Every(Vec<usize>);

impl Chunking for Every {
    fn next_lengths(&self, part: &str, read: usize, last: &[u8]) -> Vec<usize> {
        assert_eq!(read == 0, last.is_empty(), "{part}");
        self.0.clone()
    }
}

#[test]
fn a_part_is_read_into_the_requested_buffers() {
    let scratch = with_parts();
    let store = scratch.open();
    for lengths in [
        vec![],
        vec![10, 100_000, 3 * MIB],
        vec![5 * MIB],
        // More bytes than exist, and no length at all.
        vec![10, usize::MAX],
        vec![0],
        vec![10_000, 0],
    ] {
        let chunking = Every(lengths.clone());
        let mut generation = store.newest_chunked(&chunking).unwrap().unwrap();
        for (name, len) in PARTS {
            let pieces = generation.take_chunks(name).unwrap();
            assert!(generation.take_chunks(name).is_none());
            let mut asked = lengths.iter().copied().filter(|len| *len > 0).cycle();
            for piece in &pieces[..pieces.len() - 1] {
                assert_eq!(Some(piece.len()), asked.next(), "{name} {lengths:?}");
            }
            assert!(
                Buffer::concat(pieces)[..] == contents(name, len)[..],
                "{name} {lengths:?}"
            );
        }
        let mut generation = store.newest_chunked(&chunking).unwrap().unwrap();
        for (name, len) in PARTS {
            assert!(generation.take_part(name).unwrap() == contents(name, len));
        }
    }
}

#[test]
fn progress_reports_every_byte_once() {
    let scratch = with_parts();
    let store = scratch.open();
    let reported: Mutex<Vec<ReadProgress>> = Mutex::default();
    let watch = |read: ReadProgress| reported.lock().unwrap().push(read);
    let chunking = Every(vec![MIB]);
    store.newest_watched(&chunking, &watch).unwrap().unwrap();
    let reported = reported.into_inner().unwrap();
    let all: usize = PARTS.iter().map(|(_, len)| len).sum();
    let of = all as u64;
    assert!(reported.iter().all(|read| read.of == of && read.done <= of));
    let mut done: Vec<_> = reported.iter().map(|read| read.done).collect();
    assert_eq!(done.first(), Some(&0), "before anything is read");
    done.sort_unstable();
    done.dedup();
    assert_eq!(done.len(), reported.len(), "nothing is reported twice");
    assert_eq!(done.last(), Some(&of));
    assert!(done.len() > all / MIB, "{} times", done.len());
}

#[test]
fn each_file_is_opened_once() {
    let scratch = with_parts();
    let calls: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
    let counted = calls.clone();
    let disk = FaultyFilesystem::new(move |operation, path: &Path| {
        if let (Operation::OpenFile, Some(name)) = (operation, path.file_name()) {
            let name = name.to_string_lossy().into_owned();
            *counted.lock().unwrap().entry(name).or_default() += 1;
        }
        Ok(())
    });
    let options = OpenOptions::default().filesystem(Arc::new(disk));
    let store = Store::open(scratch.root(), options).unwrap();
    calls.lock().unwrap().clear();
    store.newest_chunked(&Every(vec![MIB])).unwrap().unwrap();
    let calls = calls.lock().unwrap();
    let opened: Vec<_> = calls
        .iter()
        .map(|(name, times)| (name.as_str(), *times))
        .collect();
    assert_eq!(
        opened,
        [
            ("manifest.json", 1),
            ("model.bpk", 1),
            ("optimizer.bpk", 1),
            ("state.bpk", 1)
        ]
    );
}

#[test]
fn damage_anywhere_in_a_large_part_is_detected_however_it_is_cut() {
    let scratch = with_parts();
    let file = scratch.generation(1).join("optimizer.bpk");
    let whole = std::fs::read(&file).unwrap();
    let manifest = std::fs::read(scratch.generation(1).join("manifest.json")).unwrap();
    let changed = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let mut longer = whole.clone();
    longer.push(0);
    let damaged = [
        changed(0),
        changed(5 * MIB - 1),
        changed(5 * MIB),
        changed(whole.len() - 1),
        whole[..whole.len() - 1].to_vec(),
        whole[..5 * MIB].to_vec(),
        Vec::new(),
        longer,
    ];
    for (number, bytes) in damaged.iter().enumerate() {
        // Put it back, because the last round moved it to the quarantine.
        let dir = scratch.generation(1);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("manifest.json"), &manifest).unwrap();
        for (name, len) in PARTS {
            std::fs::write(dir.join(format!("{name}.bpk")), contents(name, len)).unwrap();
        }
        let store = scratch.open();
        assert!(
            store
                .newest_chunked(&Every(vec![5 * MIB]))
                .unwrap()
                .is_some()
        );
        std::fs::write(&file, bytes).unwrap();
        let found = store.newest_chunked(&Every(vec![5 * MIB]));
        assert!(
            matches!(found, Err(StoreError::NoneLeft { .. })),
            "{number}"
        );
        assert!(!dir.exists(), "{number}");
        let quarantine = scratch.root().join("quarantine");
        for moved in names(&quarantine) {
            let reason = std::fs::read_to_string(quarantine.join(&moved).join("reason.txt"));
            assert!(reason.unwrap().contains("optimizer.bpk"), "{number}");
            std::fs::remove_dir_all(quarantine.join(moved)).unwrap();
        }
    }
}

#[test]
fn a_large_part_that_cannot_be_read_is_an_error_and_stays() {
    let scratch = with_parts();
    for failing in ["model.bpk", "optimizer.bpk", "state.bpk"] {
        let disk = FaultyFilesystem::new(move |operation, path: &Path| {
            if operation == Operation::Read && path.ends_with(failing) {
                return Err(Fault::from(ErrorKind::ConnectionAborted));
            }
            Ok(())
        });
        let options = OpenOptions::default().filesystem(Arc::new(disk));
        let store = Store::open(scratch.root(), options).unwrap();
        match store.newest_chunked(&Every(vec![MIB])) {
            Err(StoreError::Io {
                operation, path, ..
            }) => {
                assert_eq!(operation, "read");
                assert!(path.ends_with(failing), "{path:?}");
            }
            other => panic!("{:?}", other.map(|found| found.is_some())),
        }
        drop(store);
        assert!(
            scratch.open().newest().unwrap().is_some(),
            "it is still there"
        );
    }
}
