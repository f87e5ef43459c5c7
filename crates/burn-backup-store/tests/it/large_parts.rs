//! A thread writes a part while the caller makes the next chunk.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::ThreadId;
use std::time::Duration;

use burn_backup_store::testing::{Fault, FaultyFilesystem, Operation, Threads, report};
use burn_backup_store::{
    Entry, EntryKind, Filesystem, LockAttempt, ReadFile, RealFilesystem, Staging, Store,
    StoreError, WriteFile,
};
use serde_json::Value;

use crate::support::{
    FROZEN, Scratch, assert_is, contents, digest, link_or_write, names, save, write,
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Lengths of chunks above and below the limits for gathering and for writing in one piece.
const MIXED: [usize; 9] = [0, 1, 255 * KIB, 256 * KIB, 9 * MIB, 1, 255 * KIB, 0, 1000];

/// The number of writes for a part of [`MIXED`]. The block of 8 MiB has the gathered bytes, 256 KiB, and 8 pieces of
/// the 9 MiB. The rest has 2 pieces, and the bytes gathered last.
const WRITES: usize = 13;

/// This many bytes without repeated sequences.
fn bytes(len: usize) -> Vec<u8> {
    let words = (0..len.div_ceil(8) as u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    bytes.truncate(len);
    bytes
}

/// The contents of a part of such chunks, and the chunks.
fn chunked(lengths: &[usize]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let whole = bytes(lengths.iter().sum());
    let mut rest = &whole[..];
    let chunks = lengths.iter().map(|len| {
        let (chunk, after) = rest.split_at(*len);
        rest = after;
        chunk.to_vec()
    });
    let chunks = chunks.collect();
    (whole, chunks)
}

/// Writes the part "model" in chunks of these lengths.
fn write_chunks(staging: &mut Staging<'_>, lengths: &[usize]) -> Result<(), StoreError> {
    let mut part = staging.part("model")?;
    for chunk in chunked(lengths).1 {
        part.append(chunk)?;
    }
    part.finish()
}

/// Commits a generation with [`FROZEN`] and with the part "model" in such chunks.
fn save_chunks(store: &Store, lengths: &[usize]) -> Result<(), StoreError> {
    let mut staging = store.stage()?;
    write_chunks(&mut staging, lengths)?;
    link_or_write(&mut staging, FROZEN, contents(FROZEN, 0))?;
    staging.commit(Value::Null).map(drop)
}

/// Asserts that the save of the second generation left nothing behind, and that the next one
/// succeeds.
#[track_caller]
fn assert_nothing_is_left(scratch: &Scratch, store: Store) {
    assert_eq!(
        names(scratch.root()),
        ["burn-backup.json", "generations", "lock"]
    );
    assert_is(store.newest().unwrap(), 1);
    let _ = save(&store, 2).unwrap();
    assert_is(store.newest().unwrap(), 2);
    drop(store);
    assert_is(scratch.open().newest().unwrap(), 2);
}

/// A filesystem that calls `rule` before each write to the part "model".
fn at_writes(rule: impl Fn() -> Result<(), Fault> + Send + Sync + 'static) -> FaultyFilesystem {
    FaultyFilesystem::new(move |operation, path| {
        match operation == Operation::Write && path.ends_with("model.bpk") {
            true => rule(),
            false => Ok(()),
        }
    })
}

#[test]
fn a_part_in_chunks_of_any_lengths_reads_back_exactly_and_has_the_hash_of_the_whole() {
    let reversed: Vec<usize> = MIXED.iter().rev().copied().collect();
    let many_small = [vec![1000; 300], vec![256 * KIB], vec![10; 40]].concat();
    let cases: [&[usize]; 12] = [
        &MIXED,
        &reversed,
        &many_small,
        &[],
        &[0],
        &[1],
        &[255 * KIB, KIB - 1],
        &[255 * KIB, KIB],
        &[256 * KIB - 1, 256 * KIB - 1, 256 * KIB - 1],
        &[4 * MIB],
        &[4 * MIB + 1],
        &[4 * MIB - 1, 1, 8 * MIB],
    ];
    let scratch = Scratch::new();
    for lengths in cases {
        let store = scratch.open();
        save_chunks(&store, lengths).unwrap();
        let (whole, _) = chunked(lengths);
        let mut newest = store.newest().unwrap().unwrap();
        let entry = &newest.manifest().parts[0];
        assert_eq!(entry.bytes, whole.len() as u64);
        assert!(
            newest.take_part("model").as_ref() == Some(&whole),
            "{lengths:?}"
        );
        // The part is linked only if the hash equals that of all bytes at once.
        let mut staging = store.stage().unwrap();
        assert!(
            staging.link("model", &digest(&whole)).unwrap(),
            "{lengths:?}"
        );
    }
    assert!(!scratch.root().join("quarantine").exists());
}

#[test]
fn whichever_write_of_a_large_part_fails_the_error_names_the_file_and_nothing_is_left() {
    let mut failed = 0;
    for (what, number) in [("EIO", 5), ("ENOSPC", 28)] {
        let error = move || io::Error::from_raw_os_error(number);
        for is_cut_short_before in [false, true] {
            for at in 0.. {
                let scratch = Scratch::new().with_generations(1);
                let calls = Arc::new(AtomicUsize::new(0));
                let counted = calls.clone();
                let _in_turn = Threads::in_turn();
                let store = scratch.open_through(at_writes(move || {
                    match (counted.fetch_add(1, Ordering::Relaxed), is_cut_short_before) {
                        (call, false) if call == at => Err(error().into()),
                        (call, true) if call == at => Err(Fault::ShortWrite),
                        (call, true) if call == at + 1 => Err(error().into()),
                        _ => Ok(()),
                    }
                }));
                let saved = save_chunks(&store, &MIXED);
                if calls.load(Ordering::Relaxed) <= at {
                    saved.unwrap();
                    assert_eq!(at, WRITES);
                    break;
                }
                failed += 1;
                match saved {
                    Err(StoreError::Io { path, source, .. }) => {
                        assert!(path.ends_with("model.bpk"), "{}", path.display());
                        assert_eq!(source.raw_os_error(), Some(number), "{what}");
                    }
                    other => panic!("{what} at write {at}: {other:?}"),
                }
                let made = at + 1 + usize::from(is_cut_short_before);
                assert_eq!(
                    calls.load(Ordering::Relaxed),
                    made,
                    "{what}: no write after it"
                );
                assert_nothing_is_left(&scratch, store);
            }
        }
    }
    report(&format!("writes of large parts: {failed} failed"));
    assert_eq!(failed, 4 * WRITES);
}

#[test]
fn whichever_write_fails_on_a_thread_the_save_fails_and_nothing_is_left() {
    for at in 0..WRITES {
        let scratch = Scratch::new().with_generations(1);
        let calls = AtomicUsize::new(0);
        let store = scratch.open_through(at_writes(move || {
            match calls.fetch_add(1, Ordering::Relaxed) == at {
                true => Err(ErrorKind::StorageFull.into()),
                false => Ok(()),
            }
        }));
        match save_chunks(&store, &MIXED) {
            Err(StoreError::Io { path, source, .. }) => {
                assert!(path.ends_with("model.bpk"), "{}", path.display());
                assert_eq!(source.kind(), ErrorKind::StorageFull);
            }
            other => panic!("at write {at}: {other:?}"),
        }
        assert_nothing_is_left(&scratch, store);
    }
}

#[test]
fn short_writes_of_a_large_part_are_continued() {
    for at in 0..=WRITES {
        let scratch = Scratch::new();
        let calls = AtomicUsize::new(0);
        let store = scratch.open_through(at_writes(move || {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            // The last round cuts each write, and the rest of each, if it has more than one byte.
            match call == at || at == WRITES && call % 3 != 2 {
                true => Err(Fault::ShortWrite),
                false => Ok(()),
            }
        }));
        save_chunks(&store, &MIXED).unwrap();
        let mut newest = store.newest().unwrap().unwrap();
        assert!(newest.take_part("model") == Some(chunked(&MIXED).0), "{at}");
    }
}

#[test]
fn interrupted_writes_of_a_large_part_are_retried() {
    let scratch = Scratch::new();
    let calls = AtomicUsize::new(0);
    let store = scratch.open_through(at_writes(move || {
        match calls.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => Err(ErrorKind::Interrupted.into()),
            _ => Ok(()),
        }
    }));
    save_chunks(&store, &MIXED).unwrap();
    let mut newest = store.newest().unwrap().unwrap();
    assert!(newest.take_part("model") == Some(chunked(&MIXED).0));
}

#[test]
fn after_a_failed_write_the_part_accepts_no_bytes_and_cannot_be_finished() {
    let scratch = Scratch::new().with_generations(1);
    let store = scratch.open_through(at_writes(|| Err(ErrorKind::StorageFull.into())));
    let mut staging = store.stage().unwrap();
    let mut part = staging.part("model").unwrap();
    // Before the failure is visible, each thread has a block, and some blocks wait.
    let error = (0..20).find_map(|_| part.append(vec![1; 8 * MIB]).err());
    let error = error.unwrap();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    for chunk in [1, 256 * KIB, 9 * MIB] {
        let error = part.append(vec![1; chunk]).unwrap_err();
        assert!(
            matches!(&error, StoreError::Io { path, .. } if path.ends_with("model.bpk")),
            "{error}"
        );
    }
    let error = part.finish().unwrap_err();
    assert!(
        matches!(&error, StoreError::Io { path, .. } if path.ends_with("model.bpk")),
        "{error}"
    );
    drop(staging);
    assert_is(store.newest().unwrap(), 1);
}

/// The operating system's filesystem. It tracks whether the part "model" is open for writing, and
/// delays its writes until the gate opens.
#[derive(Clone, Default)]
struct Gated {
    state: Arc<(Mutex<GateState>, Condvar)>,
}

#[derive(Default)]
struct GateState {
    is_gate_open: bool,
    is_writing: bool,
    is_file_open: bool,
    calls: Vec<Operation>,
}

struct GatedFile {
    file: Box<dyn WriteFile>,
    filesystem: Gated,
}

impl Gated {
    fn state(&self) -> MutexGuard<'_, GateState> {
        self.state.0.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut GateState)) {
        change(&mut self.state());
        self.state.1.notify_all();
    }

    fn wait_until(&self, is_so: impl Fn(&GateState) -> bool) {
        let waits = |state: &mut GateState| !is_so(state);
        drop(self.state.1.wait_while(self.state(), waits).unwrap());
    }
}

impl WriteFile for GatedFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.filesystem.change(|state| state.is_writing = true);
        self.filesystem.wait_until(|state| state.is_gate_open);
        (self.filesystem).change(|state| state.calls.push(Operation::Write));
        // Short writes, so that a caller that does not wait for the end returns far too early.
        self.file.write_at(&bytes[..bytes.len().min(256)], offset)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        (self.filesystem).change(|state| state.calls.push(Operation::SyncFile));
        self.file.sync()
    }
}

impl Drop for GatedFile {
    fn drop(&mut self) {
        self.filesystem.change(|state| state.is_file_open = false);
    }
}

impl Filesystem for Gated {
    fn create_file(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let file = RealFilesystem.create_file(path)?;
        if !path.ends_with("model.bpk") {
            return Ok(file);
        }
        self.change(|state| state.is_file_open = true);
        let filesystem = self.clone();
        Ok(Box::new(GatedFile { file, filesystem }))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.change(|state| state.calls.push(Operation::RemoveFile));
        RealFilesystem.remove_file(path)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        RealFilesystem.kind(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        RealFilesystem.list(dir)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealFilesystem.create_dir(path)
    }

    fn open_file(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        RealFilesystem.open_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFilesystem.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFilesystem.link(from, to)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        RealFilesystem.remove_dir(path)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        RealFilesystem.sync_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealFilesystem.sync_dir(path)
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<LockAttempt> {
        RealFilesystem.lock(path, owner)
    }
}

#[test]
fn a_generation_dropped_during_a_write_leaves_no_files_and_no_writers() {
    let scratch = Scratch::new().with_generations(1);
    let filesystem = Gated::default();
    let store = scratch.open_through(filesystem.clone());
    let mut staging = store.stage().unwrap();
    let mut part = staging.part("model").unwrap();
    // Nothing can be written yet, so the threads have all of their work left when the part is dropped.
    part.append(bytes(17 * MIB)).unwrap();
    filesystem.wait_until(|state| state.is_writing);
    assert!(filesystem.state().is_file_open);
    filesystem.change(|state| state.is_gate_open = true);
    drop(part);
    drop(staging);
    // All writers have closed the file.
    assert!(!filesystem.state().is_file_open);
    let calls = filesystem.state().calls.clone();
    let removed = calls.iter().position(|call| *call == Operation::RemoveFile);
    assert_eq!(calls[removed.unwrap()..], [Operation::RemoveFile]);
    assert!(!calls.contains(&Operation::SyncFile), "{calls:?}");
    assert_nothing_is_left(&scratch, store);
}

#[test]
fn a_write_that_panics_on_the_thread_is_an_error() {
    for at in 0..WRITES {
        let scratch = Scratch::new().with_generations(1);
        let calls = AtomicUsize::new(0);
        let store = scratch.open_through(at_writes(move || {
            assert!(
                calls.fetch_add(1, Ordering::Relaxed) != at,
                "the requested panic"
            );
            Ok(())
        }));
        let error = save_chunks(&store, &MIXED).unwrap_err();
        assert!(
            matches!(&error, StoreError::Io { path, .. } if path.ends_with("model.bpk")),
            "{error}"
        );
        assert_nothing_is_left(&scratch, store);
    }
}

/// A call, the last name of its path, and its thread. Names of staged files contain no number.
type Call = (Operation, String, ThreadId);

/// Records the calls of `process` on a directory with one generation that was read.
fn calls_of(
    rule: impl Fn(usize, Operation) -> Result<(), Fault> + Send + Sync + 'static,
    process: impl Fn(&Store),
) -> Vec<Call> {
    let scratch = Scratch::new().with_generations(1);
    let calls = Arc::new(Mutex::new(Vec::<Call>::new()));
    let recorded = calls.clone();
    let store = scratch.open_through(FaultyFilesystem::new(move |operation, path| {
        let mut calls = recorded.lock().unwrap();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = match name.rsplit_once('-') {
            Some((staged, _)) if staged.starts_with(".staging") => staged.to_owned(),
            _ => name.into_owned(),
        };
        calls.push((operation, name, std::thread::current().id()));
        rule(calls.len(), operation)
    }));
    assert_is(store.newest().unwrap(), 1);
    calls.lock().unwrap().clear();
    let _in_turn = Threads::in_turn();
    process(&store);
    calls.lock().unwrap().clone()
}

/// The calls for a file, in order.
fn calls_on<'c>(calls: &'c [Call], name: &str) -> Vec<(Operation, &'c ThreadId)> {
    calls
        .iter()
        .filter(|(_, of, _)| of == name)
        .map(|(operation, _, thread)| (*operation, thread))
        .collect()
}

fn without_threads(calls: &[Call]) -> Vec<(Operation, &str)> {
    calls
        .iter()
        .map(|(operation, name, _)| (*operation, name.as_str()))
        .collect()
}

#[test]
fn without_threads_a_large_part_is_written_in_order_and_synced_once() {
    let calls = calls_of(|_, _| Ok(()), |store| save_chunks(store, &MIXED).unwrap());
    let calls = calls_on(&calls, "model.bpk");
    let here = std::thread::current().id();
    let expected = [
        &[Operation::CreateFile],
        &[Operation::Write; WRITES][..],
        &[Operation::SyncFile],
    ];
    let expected: Vec<_> = expected
        .concat()
        .into_iter()
        .map(|call| (call, &here))
        .collect();
    assert_eq!(calls, expected);
}

/// More than twice the bytes that are synced at once.
const HUGE: usize = 90 * MIB;

/// After this many writes of a mebibyte, more blocks are complete than are synced at once. This holds for any number of
/// threads with a block each.
const WRITES_BEFORE_SYNC: usize = 70;

#[test]
fn a_large_part_is_synced_while_it_is_being_written() {
    // The last blocks can't be written before the first sync of the file. Without any sync, they are written later, and
    // the test detects it.
    let seen = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
    let has_timed_out = Arc::new(AtomicBool::new(false));
    let (seen_there, timed_out) = (seen.clone(), has_timed_out.clone());
    let scratch = Scratch::new();
    let store = scratch.open_through(FaultyFilesystem::new(move |operation, path| {
        let is_of_part = path.ends_with("model.bpk");
        if !is_of_part || !matches!(operation, Operation::Write | Operation::SyncFile) {
            return Ok(());
        }
        let (calls, changed) = &*seen_there;
        let mut calls = calls.lock().unwrap();
        if operation == Operation::Write && calls.len() > WRITES_BEFORE_SYNC {
            let is_missing = |calls: &mut Vec<(Operation, ThreadId)>| {
                calls.iter().all(|(call, _)| *call == Operation::Write)
            };
            let waited = changed.wait_timeout_while(calls, Duration::from_secs(20), is_missing);
            let (unlocked, timeout) = waited.unwrap();
            timed_out.fetch_or(timeout.timed_out(), Ordering::Relaxed);
            calls = unlocked;
        }
        calls.push((operation, std::thread::current().id()));
        changed.notify_all();
        Ok(())
    }));
    save_chunks(&store, &[HUGE]).unwrap();
    assert!(!has_timed_out.load(Ordering::Relaxed));
    let calls = seen.0.lock().unwrap().clone();
    let first_sync = calls
        .iter()
        .position(|(call, _)| *call == Operation::SyncFile);
    let last_write = calls
        .iter()
        .rposition(|(call, _)| *call == Operation::Write);
    assert!(first_sync < last_write, "{calls:?}");
    assert_eq!(calls.last().unwrap().0, Operation::SyncFile);
    // Writers and syncs have their own threads.
    let threads_of = |operation| {
        let of = calls.iter().filter(move |(call, _)| *call == operation);
        of.map(|(_, thread)| *thread).collect::<HashSet<_>>()
    };
    let (writers, syncers) = (
        threads_of(Operation::Write),
        threads_of(Operation::SyncFile),
    );
    assert_eq!(syncers.len(), 1);
    assert!(writers.is_disjoint(&syncers));
    assert!(!writers.contains(&std::thread::current().id()));
    let mut newest = store.newest().unwrap().unwrap();
    assert!(newest.take_part("model").unwrap() == bytes(HUGE));
}

#[test]
fn a_sync_that_fails_while_a_part_is_being_written_fails_the_part() {
    for in_turn in [true, false] {
        for at in 0..2 {
            let scratch = Scratch::new().with_generations(1);
            let _in_turn = in_turn.then(Threads::in_turn);
            let syncs = AtomicUsize::new(0);
            let store = scratch.open_through(FaultyFilesystem::new(move |operation, path| {
                let is_sync = operation == Operation::SyncFile && path.ends_with("model.bpk");
                match is_sync && syncs.fetch_add(1, Ordering::Relaxed) == at {
                    true => Err(io::Error::other("the device fails").into()),
                    false => Ok(()),
                }
            }));
            let error = save_chunks(&store, &[HUGE]).unwrap_err();
            let StoreError::Io {
                operation, path, ..
            } = &error
            else {
                panic!("{error}");
            };
            assert!(
                *operation == "sync" && path.ends_with("model.bpk"),
                "{error}"
            );
            assert_nothing_is_left(&scratch, store);
        }
    }
}

#[test]
fn refused_bytes_are_not_written_and_the_refusals_error_is_returned() {
    for (len, in_turn) in [(100, false), (9 * MIB, false), (9 * MIB, true)] {
        let scratch = Scratch::new().with_generations(1);
        let _in_turn = in_turn.then(Threads::in_turn);
        let store = scratch.open();
        let mut staging = store.stage().unwrap();
        let mut part = staging.part("model").unwrap();
        let mut whole = vec![1_u8; len];
        whole[len - 1] = 2;
        let inspect = |bytes: &[u8]| match bytes.contains(&2) {
            true => Err("a two"),
            false => Ok(()),
        };
        let appended = part.append_inspected(whole, inspect);
        let error = appended
            .and_then(|()| part.finish())
            .and_then(|()| staging.commit(Value::Null).map(drop))
            .unwrap_err();
        let StoreError::Refused { part, source, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(
            (part.as_str(), source.to_string().as_str()),
            ("model", "a two")
        );
        assert_is(store.newest().unwrap(), 1);
    }
}

#[test]
fn a_small_part_is_written_at_once_by_finish_on_the_callers_thread() {
    let lengths = [100, 0, 1000, 254 * KIB];
    let calls = calls_of(|_, _| Ok(()), |store| save_chunks(store, &lengths).unwrap());
    let here = &std::thread::current().id();
    let calls = calls_on(&calls, "model.bpk");
    assert_eq!(
        calls[..2],
        [(Operation::CreateFile, here), (Operation::Write, here)]
    );
    // The commit syncs the file together with all others.
    assert_eq!(calls.len(), 3);
    assert_eq!(calls[2].0, Operation::SyncFile);

    let scratch = Scratch::new();
    let store = scratch.open();
    let mut staging = store.stage().unwrap();
    write(&mut staging, FROZEN, contents(FROZEN, 1)).unwrap();
    let mut part = staging.part("model").unwrap();
    part.append(vec![1; 254 * KIB]).unwrap();
    drop(part);
    let staged = names(scratch.root());
    let file = scratch.root().join(&staged[0]).join("model.bpk");
    assert_eq!(std::fs::metadata(file).unwrap().len(), 0);
}

const RUNS: usize = 8;

#[test]
fn a_save_of_a_large_part_makes_the_same_calls_in_every_run() {
    let run = || calls_of(|_, _| Ok(()), |store| save_chunks(store, &MIXED).unwrap());
    let first = run();
    assert!(first.iter().any(|(call, ..)| *call == Operation::Link));
    report(&format!("a save of a large part: {} calls", first.len()));
    for again in 1..RUNS {
        assert_eq!(without_threads(&run()), without_threads(&first), "{again}");
    }
}

#[test]
fn a_save_of_a_large_part_that_fails_makes_the_same_calls_in_every_run() {
    for at in 0..WRITES {
        let run = || {
            let writes = AtomicUsize::new(0);
            let fails = move |_, operation| match operation == Operation::Write
                && writes.fetch_add(1, Ordering::Relaxed) == at
            {
                true => Err(ErrorKind::StorageFull.into()),
                false => Ok(()),
            };
            calls_of(fails, |store| assert!(save_chunks(store, &MIXED).is_err()))
        };
        let first = run();
        assert!(
            first
                .iter()
                .any(|(call, ..)| *call == Operation::RemoveFile)
        );
        for again in 1..RUNS / 2 {
            assert_eq!(without_threads(&run()), without_threads(&first), "{again}");
        }
    }
}
