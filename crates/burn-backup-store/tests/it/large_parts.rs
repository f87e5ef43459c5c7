//! Parts that a thread writes while the caller makes the next chunk.

use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::ThreadId;

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

/// Lengths of chunks on both sides of what is gathered and of what is written in one piece.
const MIXED: [usize; 9] = [0, 1, 255 * KIB, 256 * KIB, 9 * MIB, 1, 255 * KIB, 0, 1000];

/// How many calls write a part of [`MIXED`]: what was gathered, 256 KiB, three pieces of 9 MiB, and
/// what was gathered last.
const WRITES: usize = 6;

/// As many bytes, no two stretches of them alike.
fn bytes(len: usize) -> Vec<u8> {
    let words = (0..len.div_ceil(8) as u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    bytes.truncate(len);
    bytes
}

/// What a part of such chunks holds, and its chunks.
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

/// Commits a generation with the part "model" in such chunks, and [`FROZEN`].
fn save_chunks(store: &Store, lengths: &[usize]) -> Result<(), StoreError> {
    let mut staging = store.stage()?;
    write_chunks(&mut staging, lengths)?;
    link_or_write(&mut staging, FROZEN, contents(FROZEN, 0))?;
    staging.commit(Value::Null).map(drop)
}

/// A filesystem that asks `rule` before each write to the part "model".
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
        // It is linked only if the hash is that of all bytes at once.
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
                assert_eq!(
                    names(scratch.root()),
                    ["burn-backup.json", "generations", "lock"]
                );
                assert_is(store.newest().unwrap(), 1);
                let _ = save(&store, 2).unwrap();
                drop(store);
                assert_is(scratch.open().newest().unwrap(), 2);
            }
        }
    }
    report(&format!("writes of large parts: {failed} failed"));
    assert_eq!(failed, 4 * WRITES);
}

#[test]
fn short_writes_of_a_large_part_go_on_where_they_were_cut() {
    for at in 0..=WRITES {
        let scratch = Scratch::new();
        let calls = AtomicUsize::new(0);
        let store = scratch.open_through(at_writes(move || {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            // The last round: each write, and the rest of each, as long as there is more than one.
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
fn interrupted_writes_of_a_large_part_are_made_again() {
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
fn after_a_failed_write_the_part_takes_nothing_more_and_cannot_be_finished() {
    let scratch = Scratch::new().with_generations(1);
    let store = scratch.open_through(at_writes(|| Err(ErrorKind::StorageFull.into())));
    let mut staging = store.stage().unwrap();
    let mut part = staging.part("model").unwrap();
    // Before the thread's failure shows, one chunk was taken and two wait.
    let error = (0..4).find_map(|_| part.append(vec![1; 256 * KIB]).err());
    let error = error.unwrap();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    for chunk in [256 * KIB, 5 * MIB] {
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

/// The operating system's filesystem, which knows whether the part "model" is open for writing, and
/// holds its writes back until the gate is open.
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

impl Write for GatedFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.filesystem.change(|state| state.is_writing = true);
        self.filesystem.wait_until(|state| state.is_gate_open);
        (self.filesystem).change(|state| state.calls.push(Operation::Write));
        // Little at a time, so that who doesn't wait for the end comes far too early.
        self.file.write(&buffer[..buffer.len().min(256)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl WriteFile for GatedFile {
    fn sync(&mut self) -> io::Result<()> {
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
fn a_large_part_that_is_dropped_in_the_middle_leaves_nothing_behind_and_nobody_writing() {
    let scratch = Scratch::new().with_generations(1);
    let filesystem = Gated::default();
    let store = scratch.open_through(filesystem.clone());
    let mut staging = store.stage().unwrap();
    let mut part = staging.part("model").unwrap();
    // Nothing of it can be written yet: one chunk is held back in its write and one waits, so that
    // the thread has all of its work before it when the part is dropped.
    part.append(bytes(MIB)).unwrap();
    filesystem.wait_until(|state| state.is_writing);
    part.append(bytes(MIB)).unwrap();
    assert!(filesystem.state().is_file_open);
    filesystem.change(|state| state.is_gate_open = true);
    drop(part);
    // Whoever could write has closed the file.
    assert!(!filesystem.state().is_file_open);
    drop(staging);
    let calls = filesystem.state().calls.clone();
    let removed = calls.iter().position(|call| *call == Operation::RemoveFile);
    assert_eq!(calls[removed.unwrap()..], [Operation::RemoveFile]);
    assert!(!calls.contains(&Operation::SyncFile), "{calls:?}");
    assert_eq!(
        names(scratch.root()),
        ["burn-backup.json", "generations", "lock"]
    );
    assert_is(store.newest().unwrap(), 1);
    let _ = save(&store, 2).unwrap();
    assert_is(store.newest().unwrap(), 2);
}

#[test]
fn a_write_that_panics_on_the_thread_is_an_error_and_no_panic() {
    // All writes but the last are the thread's.
    for at in 0..WRITES - 1 {
        let scratch = Scratch::new().with_generations(1);
        let calls = AtomicUsize::new(0);
        let store = scratch.open_through(at_writes(move || {
            assert!(calls.fetch_add(1, Ordering::Relaxed) != at, "as told to");
            Ok(())
        }));
        let error = save_chunks(&store, &MIXED).unwrap_err();
        assert!(
            matches!(&error, StoreError::Io { path, .. } if path.ends_with("model.bpk")),
            "{error}"
        );
        assert_eq!(
            names(scratch.root()),
            ["burn-backup.json", "generations", "lock"]
        );
        assert_is(store.newest().unwrap(), 1);
        let _ = save(&store, 2).unwrap();
        assert_is(store.newest().unwrap(), 2);
    }
}

/// A call, the last name of its path (what is staged has no number in it), and its thread.
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

/// The calls that concern a file, in order.
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
fn a_large_part_is_written_in_pieces_on_one_thread_and_synced_on_the_callers() {
    let calls = calls_of(|_, _| Ok(()), |store| save_chunks(store, &MIXED).unwrap());
    let calls = calls_on(&calls, "model.bpk");
    let operations: Vec<_> = calls.iter().map(|(operation, _)| *operation).collect();
    let writes = [Operation::Write; WRITES];
    let expected = [
        &[Operation::CreateFile],
        &writes[..],
        &[Operation::SyncFile],
    ]
    .concat();
    assert_eq!(operations, expected);
    let here = std::thread::current().id();
    let threads: Vec<_> = calls.iter().map(|(_, thread)| **thread).collect();
    let there = threads[1];
    assert_ne!(there, here);
    assert_eq!(threads[1..WRITES], [there; WRITES - 1]);
    // What was gathered last is written by `finish`.
    assert_eq!(
        [threads[0], threads[WRITES], threads[WRITES + 1]],
        [here; 3]
    );
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
    // The commit syncs it, together with what else it syncs.
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
