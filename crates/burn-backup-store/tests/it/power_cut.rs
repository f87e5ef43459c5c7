//! Every disk that a power cut can leave, at every point of every operation of a store.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn_backup_store::testing::{
    Failure, Fault, FaultyFilesystem, Image, MemoryFilesystem, Node, Operation, Threads, report,
};
use burn_backup_store::{Committed, Filesystem as _, Generation, Store, StoreError};

use crate::support::{DIR, is_whole, open_on, save};

/// The highest number of images that are examined for one power cut.
const IMAGES_PER_CUT: usize = 64;

/// One of this many images is opened by a process that is cut off as well.
const CUT_AGAIN_EVERY: usize = 128;

/// The same, after a process that failed.
const CUT_AGAIN_AFTER_A_FAILURE: usize = 512;

/// A process, from opening the directory to closing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Process {
    Open,
    Save,
    SaveAndPrune,
    /// Restores, saves a part that is linked to the restored generation, and prunes that.
    RestoreAndSave,
    /// The same, with another save before the prune, linked to the committed generation.
    RestoreAndSaveTwice,
    Restore,
    /// Restores, then saves and prunes several times, so that files of pruned generations are
    /// overwritten.
    Train,
    Finish,
}

const ALL: [Process; 6] = [
    Process::Open,
    Process::Save,
    Process::SaveAndPrune,
    Process::RestoreAndSaveTwice,
    Process::Restore,
    Process::Finish,
];

/// The number of saves of [`Process::Train`]. The third one overwrites the files of the first.
const SAVES: usize = 3;

/// What the store has reported to its callers.
#[derive(Debug, Clone, Copy)]
enum Claim {
    Saving(u64),
    Saved(u64),
    /// It was returned to a training, which relies on it from then on.
    Restored(u64),
    Removing,
    Removed,
}

/// The result of a process that looks for the newest generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Generation(u64),
    Nothing,
    /// There were generations, but all are damaged.
    NoneLeft,
}

/// The result, if it is whole. A mixed generation is an error of the test.
fn found(newest: Result<Option<Generation>, StoreError>) -> Result<Found, StoreError> {
    match newest {
        Ok(Some(mut generation)) => {
            let number =
                generation.manifest().state::<serde_json::Value>().unwrap()["number"].as_u64();
            assert!(is_whole(&mut generation), "generation {number:?} is a mix");
            Ok(Found::Generation(number.unwrap_or_default()))
        }
        Ok(None) => Ok(Found::Nothing),
        Err(StoreError::NoneLeft { .. }) => Ok(Found::NoneLeft),
        Err(error) => Err(error),
    }
}

/// The legal results after a power cut.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Legal {
    committed: Option<u64>,
    all_damaged: bool,
    /// Generations whose save had no reported result.
    being_saved: Vec<u64>,
    may_be_gone: bool,
}

impl Legal {
    fn after(mut self, claim: Claim) -> Self {
        let settled = |committed| Self {
            committed,
            all_damaged: false,
            being_saved: Vec::new(),
            may_be_gone: false,
        };
        match claim {
            Claim::Saving(number) => self.being_saved.push(number),
            Claim::Saved(number) | Claim::Restored(number) => return settled(Some(number)),
            Claim::Removing => self.may_be_gone = true,
            Claim::Removed => return settled(None),
        }
        self
    }

    fn allows(&self, found: Found) -> bool {
        match found {
            Found::Generation(number) => {
                self.committed == Some(number) || self.being_saved.contains(&number)
            }
            Found::Nothing => self.may_be_gone || self.committed.is_none() && !self.all_damaged,
            Found::NoneLeft => self.all_damaged,
        }
    }
}

/// The beginning of a scenario.
#[derive(Clone)]
struct Start {
    image: Image,
    /// The newest whole generation.
    newest: Option<u64>,
    is_damaged: bool,
    /// Other people's files: path and contents.
    theirs: BTreeMap<PathBuf, Node>,
}

impl Start {
    fn empty() -> Self {
        Self {
            image: Image::new(),
            newest: None,
            is_damaged: false,
            theirs: BTreeMap::new(),
        }
    }

    fn with_generations(count: u64) -> Self {
        let disk = MemoryFilesystem::default();
        let store = open_on(disk.clone()).unwrap();
        for number in 1..=count {
            let _ = save(&store, number).unwrap();
        }
        drop(store);
        let mut image = disk.image();
        let owner = b"process 1 (gone) since long ago".to_vec();
        image.insert(Path::new(DIR).join("lock"), Node::File(owner));
        Self {
            image,
            newest: Some(count),
            ..Self::empty()
        }
    }

    /// Damages the newest generation.
    fn damaged(mut self) -> Self {
        let newest = self.newest.unwrap();
        let part = format!("{DIR}/generations/{newest:08}/model.bpk");
        self.image.insert(part.into(), Node::File(Vec::new()));
        self.newest = (newest > 1).then(|| newest - 1);
        self.is_damaged = true;
        self
    }

    fn with_their_files(mut self, paths: &[&str]) -> Self {
        let theirs = Node::File(b"theirs".to_vec());
        for path in paths {
            let path = Path::new(DIR).join(path);
            self.image.insert(path.clone(), theirs.clone());
            self.theirs.insert(path, theirs.clone());
        }
        self
    }
}

/// The effects of a sequence of processes on a disk, and what they reported.
struct Scenario {
    disk: MemoryFilesystem,
    start: Start,
    /// Whether everything runs sequentially, with the same calls in the same order each time.
    in_turn: bool,
    claims: Vec<(usize, Claim)>,
    next: u64,
    /// The number of bytes that were linked and not written.
    linked: u64,
}

impl Scenario {
    fn new(start: &Start) -> Self {
        Self {
            disk: MemoryFilesystem::holding(&start.image),
            start: start.clone(),
            in_turn: true,
            claims: Vec::new(),
            next: 10,
            linked: 0,
        }
    }

    /// Runs a process on the disk, which `lies` about some syncs.
    fn run(&mut self, process: Process, lies: Lie) -> Result<(), StoreError> {
        let rule = move |operation, path: &Path| match lies(operation, path) {
            true => Err(Fault::Lie),
            false => Ok(()),
        };
        self.run_on(process, FaultyFilesystem::over(self.disk.clone(), rule))
    }

    /// Runs a process on the disk that ends or fails at the call number `at`. Returns the number of
    /// its calls.
    fn run_failing(&mut self, process: Process, failure: Failure, at: usize) -> usize {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let fails = failure.at(at);
        let rule = move |operation, _: &Path| {
            fails(counted.fetch_add(1, Ordering::Relaxed) + 1, operation)
        };
        // The claims contain the result.
        let _ = self.run_on(process, FaultyFilesystem::over(self.disk.clone(), rule));
        calls.load(Ordering::Relaxed)
    }

    fn run_on(&mut self, process: Process, disk: FaultyFilesystem) -> Result<(), StoreError> {
        let _in_turn = self.in_turn.then(Threads::in_turn);
        let store = open_on(disk)?;
        match process {
            Process::Open => {}
            Process::Restore => drop(self.restore(&store)?),
            Process::Save => drop(self.save(&store)?),
            Process::SaveAndPrune => {
                let committed = self.save(&store)?;
                store.prune(&committed, 1)?;
            }
            Process::RestoreAndSave | Process::RestoreAndSaveTwice => {
                if self.restore(&store)? == Found::NoneLeft {
                    // The process does not begin.
                    return Ok(());
                }
                let mut committed = self.save(&store)?;
                if process == Process::RestoreAndSaveTwice {
                    committed = self.save(&store)?;
                }
                store.prune(&committed, 1)?;
            }
            Process::Train => {
                if self.restore(&store)? == Found::NoneLeft {
                    return Ok(());
                }
                for _ in 0..SAVES {
                    let committed = self.save(&store)?;
                    store.prune(&committed, 1)?;
                }
            }
            Process::Finish => {
                self.claim(Claim::Removing);
                store.remove()?;
                self.claim(Claim::Removed);
            }
        }
        Ok(())
    }

    fn restore(&mut self, store: &Store) -> Result<Found, StoreError> {
        let found = found(store.newest())?;
        if let Found::Generation(number) = found {
            self.claim(Claim::Restored(number));
        }
        Ok(found)
    }

    fn save(&mut self, store: &Store) -> Result<Committed, StoreError> {
        let number = self.next;
        self.next += 1;
        self.claim(Claim::Saving(number));
        let committed = save(store, number)?;
        self.claim(Claim::Saved(number));
        self.linked += committed.linked();
        Ok(committed)
    }

    fn claim(&mut self, claim: Claim) {
        self.claims.push((self.disk.changes(), claim));
    }

    fn legal(&self, cut: usize) -> Legal {
        let at_start = Legal {
            committed: self.start.newest,
            all_damaged: self.start.is_damaged && self.start.newest.is_none(),
            being_saved: Vec::new(),
            may_be_gone: false,
        };
        self.claims
            .iter()
            .filter(|(at, _)| *at <= cut)
            .fold(at_start, |legal, (_, claim)| legal.after(*claim))
    }
}

/// Examines each image of the scenarios once.
struct Checker {
    images_per_cut: usize,
    cut_again_every: usize,
    seen: HashSet<(Image, Legal)>,
    images: usize,
    cut_again: usize,
    /// The number of bytes that the scenarios linked.
    linked: u64,
}

impl Default for Checker {
    fn default() -> Self {
        Self {
            images_per_cut: IMAGES_PER_CUT,
            cut_again_every: CUT_AGAIN_EVERY,
            seen: HashSet::new(),
            images: 0,
            cut_again: 0,
            linked: 0,
        }
    }
}

impl Checker {
    /// Cuts the power at every point of a scenario, and examines the possible images.
    fn check(&mut self, scenario: &Scenario) -> Result<(), String> {
        self.check_from(0, scenario)
    }

    /// The same, beginning with the change number `from`.
    fn check_from(&mut self, from: usize, scenario: &Scenario) -> Result<(), String> {
        self.linked += scenario.linked;
        for cut in from..=scenario.disk.changes() {
            let legal = scenario.legal(cut);
            for image in scenario.disk.power_cuts(cut, self.images_per_cut) {
                if !self.seen.insert((image.clone(), legal.clone())) {
                    continue;
                }
                self.images += 1;
                let failed = |what| format!("after {cut} changes: {what}; on {}", paths(&image));
                let examined = examine(&image, &legal, &scenario.start).map_err(failed)?;
                if self.images.is_multiple_of(self.cut_again_every) {
                    self.check_again(&examined, &legal, &scenario.start)
                        .map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    /// Also cuts off the process that found `legal` on the disk.
    fn check_again(
        &mut self,
        examined: &Examined,
        legal: &Legal,
        start: &Start,
    ) -> Result<(), String> {
        let restored = match examined.found {
            Found::Generation(number) => legal.clone().after(Claim::Restored(number)),
            Found::Nothing | Found::NoneLeft => legal.clone(),
        };
        for cut in 0..=examined.disk.changes() {
            let legal = match cut < examined.restored_after {
                true => legal,
                false => &restored,
            };
            for image in examined.disk.power_cuts(cut, IMAGES_PER_CUT) {
                self.cut_again += 1;
                examine(&image, legal, start).map_err(|what| format!("cut again: {what}"))?;
            }
        }
        Ok(())
    }

    fn report(&self, what: &str) {
        report(&format!(
            "power cuts, {what}: {} images, and {} of a second cut",
            self.images, self.cut_again
        ));
        assert!(self.images > 500, "{} images", self.images);
        assert!(self.linked > 0, "no part was linked");
        assert!(self.cut_again > 100, "{} of a second cut", self.cut_again);
    }
}

/// The contents of a disk, for messages.
fn paths(image: &Image) -> String {
    let entries = image.iter().map(|(path, node)| match node {
        Node::File(contents) => format!("{} of {} bytes", path.display(), contents.len()),
        Node::Dir | Node::Other => path.display().to_string(),
    });
    entries.collect::<Vec<_>>().join(", ")
}

/// A disk after a restore.
struct Examined {
    disk: MemoryFilesystem,
    found: Found,
    /// The number of changes before the generation was returned.
    restored_after: usize,
}

/// Restores from an image. Returns an error if the result is wrong.
fn examine(image: &Image, legal: &Legal, start: &Start) -> Result<Examined, String> {
    let in_words = |error: StoreError| error.to_string();
    // There are thousands of images, and threads would take most of the time.
    let _without = Threads::refused(|_| true);
    let disk = MemoryFilesystem::holding(image);
    let store = open_on(disk.clone()).map_err(in_words)?;
    let found = found(store.newest()).map_err(in_words)?;
    let restored_after = disk.changes();
    if !legal.allows(found) {
        return Err(format!("{found:?} was found, legal is {legal:?}"));
    }
    let after = disk.image();
    if !start.is_damaged && after.contains_key(&Path::new(DIR).join("quarantine")) {
        return Err("something was put into quarantine".to_owned());
    }
    for (path, node) in &start.theirs {
        if after.get(path) != Some(node) {
            return Err(format!("'{}' is gone", path.display()));
        }
    }
    drop(store);
    let examined = Examined {
        disk,
        found,
        restored_after,
    };
    if found == Found::NoneLeft {
        return Ok(examined);
    }

    // The next process continues normally from here.
    let next = MemoryFilesystem::holding(&after);
    let store = open_on(next).map_err(in_words)?;
    let again = store.newest().map_err(in_words)?;
    let committed = save(&store, 99).map_err(in_words)?;
    if (committed.linked() > 0) != again.is_some() {
        return Err(format!("{} bytes were linked", committed.linked()));
    }
    store.prune(&committed, 1).map_err(in_words)?;
    let newest = store.newest().map_err(in_words)?;
    match newest.map(|mut generation| {
        let number = generation.manifest().state::<serde_json::Value>().unwrap()["number"].as_u64();
        (number, is_whole(&mut generation))
    }) {
        Some((Some(99), true)) => Ok(examined),
        other => Err(format!("{other:?} was found after the next save")),
    }
}

/// All processes, alone and in pairs. The longest process is in few of them.
fn scenarios() -> Vec<Vec<Process>> {
    let pairs = ALL
        .iter()
        .flat_map(|first| ALL.iter().map(|second| vec![*first, *second]));
    let train = Process::Train;
    let long = [vec![train], vec![train, Process::Finish]];
    let all = ALL.iter().map(|only| vec![*only]).chain(pairs);
    all.chain(long).collect()
}

fn assert_all_legal(what: &str, start: &Start) {
    let mut checker = Checker::default();
    for processes in scenarios() {
        let mut scenario = Scenario::new(start);
        for process in &processes {
            scenario.run(*process, |_, _| false).unwrap();
        }
        if let Err(what) = checker.check(&scenario) {
            panic!("{processes:?}: {what}");
        }
    }
    checker.report(what);
}

#[test]
fn cut_off_on_a_new_disk() {
    assert_all_legal("a new disk", &Start::empty());
}

/// With threads, as in production: several threads run syncs concurrently.
#[test]
fn cut_off_while_several_threads_sync() {
    let start = Start::with_generations(2);
    let mut checker = Checker::default();
    for _ in 0..10 {
        for processes in [
            &[Process::Train][..],
            &[Process::RestoreAndSaveTwice, Process::Finish],
        ] {
            let mut scenario = Scenario::new(&start);
            scenario.in_turn = false;
            for process in processes {
                scenario.run(*process, |_, _| false).unwrap();
            }
            if let Err(what) = checker.check(&scenario) {
                panic!("{processes:?}: {what}");
            }
        }
    }
    checker.report("several threads at once");
}

#[test]
fn cut_off_with_generations_there() {
    assert_all_legal("two generations", &Start::with_generations(2));
}

#[test]
fn cut_off_with_the_newest_generation_damaged() {
    let start = Start::with_generations(3).damaged();
    assert_all_legal("a damaged generation", &start);
}

#[test]
fn cut_off_with_other_peoples_files_in_the_directory() {
    let start = Start::with_generations(2).with_their_files(&[
        "notes.txt",
        "generations/notes.txt",
        "generations/00000001/notes.txt",
    ]);
    assert_all_legal("other people's files", &start);
}

#[test]
fn cut_off_with_every_generation_damaged() {
    let start = Start::with_generations(1).damaged();
    assert_all_legal("every generation damaged", &start);
}

/// The highest number of images that are examined for one power cut after a process that failed.
const IMAGES_AFTER_A_FAILURE: usize = 20;

/// The same after [`Process::Train`], which has three times as many calls.
const IMAGES_AFTER_A_LONG_ONE: usize = 6;

/// Lets a process die or a call fail, at every call. The next process runs on the result, some of
/// which is not durable. The power is cut at every point from then on.
fn assert_legal_after_failures(what: &str, failure: Failure, start: &Start) {
    let mut checker = Checker {
        images_per_cut: IMAGES_AFTER_A_FAILURE,
        cut_again_every: CUT_AGAIN_AFTER_A_FAILURE,
        ..Checker::default()
    };
    // Like a program, the first process reads before it saves, so that a part is linked. Saves
    // without a read are in the scenarios without failures. Here they would take half as long
    // again.
    let processes = [
        Process::RestoreAndSave,
        Process::Restore,
        Process::Train,
        Process::Finish,
    ];
    for first in processes {
        for second in processes
            .into_iter()
            .filter(|second| *second != Process::Train)
        {
            let mut before = None;
            for at in 1.. {
                let mut scenario = Scenario::new(start);
                let calls = scenario.run_failing(first, failure, at);
                let from = scenario.disk.changes();
                let left = Some((from, format!("{:?}", scenario.claims)));
                if failure == Failure::Dead && left == before && calls >= at {
                    // A kill one call later had the same effects and reports.
                    continue;
                }
                before = left;
                if let Err(error) = scenario.run(second, |_, _| false) {
                    panic!("{first:?} failed at {at}, {second:?}: {error}");
                }
                checker.images_per_cut = match first {
                    Process::Train => IMAGES_AFTER_A_LONG_ONE,
                    _ => IMAGES_AFTER_A_FAILURE,
                };
                if let Err(what) = checker.check_from(from, &scenario) {
                    panic!("{first:?} failed at {at}, {second:?}: {what}");
                }
                if calls < at {
                    break;
                }
            }
        }
    }
    checker.report(what);
}

#[test]
fn cut_off_after_a_process_that_was_killed() {
    assert_legal_after_failures("killed before, a new disk", Failure::Dead, &Start::empty());
    let start = Start::with_generations(2);
    assert_legal_after_failures("killed before, two generations", Failure::Dead, &start);
}

#[test]
fn cut_off_after_a_process_whose_disk_failed_once() {
    let start = Start::with_generations(2);
    assert_legal_after_failures("failed before, two generations", Failure::Device, &start);
    let start = Start::with_generations(3).damaged();
    assert_legal_after_failures(
        "failed before, a damaged generation",
        Failure::Device,
        &start,
    );
}

type Lie = fn(Operation, &Path) -> bool;

/// Whether power cuts reveal that the disk lies about some syncs.
fn is_detected(lies: Lie, start: &Start) -> bool {
    let mut checker = Checker::default();
    scenarios().iter().any(|processes| {
        let mut scenario = Scenario::new(start);
        for process in processes {
            scenario.run(*process, lies).unwrap();
        }
        checker.check(&scenario).is_err()
    })
}

#[test]
fn a_disk_that_lies_about_the_syncs_of_one_place_is_detected() {
    let whole = Start::with_generations(1);
    let damaged = Start::with_generations(1).damaged();
    let shared = Start::with_generations(2).with_their_files(&["generations/00000002/theirs"]);
    let lies: [(&str, &Start, Lie); 7] = [
        ("a part", &whole, |operation, path| {
            operation == Operation::SyncFile && path.ends_with("model.bpk")
        }),
        ("the manifest", &whole, |operation, path| {
            operation == Operation::SyncFile && path.ends_with("manifest.json")
        }),
        ("what is staged", &whole, |operation, path| {
            operation == Operation::SyncDir && name(path).starts_with(".staging-0")
        }),
        ("the generations", &whole, |operation, path| {
            operation == Operation::SyncDir && path.ends_with("generations")
        }),
        ("the directory", &whole, |operation, path| {
            operation == Operation::SyncDir && path.ends_with(DIR)
        }),
        (
            "the directory before the quarantine",
            &damaged,
            |operation, path| operation == Operation::SyncDir && path.ends_with(DIR),
        ),
        ("what goes back to its place", &shared, |operation, path| {
            operation == Operation::SyncDir
                && path
                    .iter()
                    .any(|name| name.to_string_lossy().starts_with(".staging-removed"))
        }),
    ];
    for start in [&whole, &damaged, &shared] {
        assert!(!is_detected(|_, _| false, start), "all synced");
    }
    for (what, start, lie) in lies {
        assert!(is_detected(lie, start), "{what}, not synced");
    }
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[test]
fn a_restored_generation_stays_if_its_commit_was_cut_short() {
    let start = Start::with_generations(1);
    let mut scenarios = 0;
    for at in 1.. {
        let mut scenario = Scenario::new(&start);
        // The kill may be between the rename of the commit and its syncs.
        let calls = scenario.run_failing(Process::Save, Failure::Dead, at);
        if calls < at {
            break;
        }
        scenario.run(Process::Restore, |_, _| false).unwrap();
        // Nothing more is written from here on.
        let (restored_after, claim) = *scenario.claims.last().unwrap();
        let Claim::Restored(number) = claim else {
            panic!("{claim:?}");
        };
        for cut in restored_after..=scenario.disk.changes() {
            for image in scenario.disk.power_cuts(cut, 1000) {
                let store = open_on(MemoryFilesystem::holding(&image)).unwrap();
                let found = found(store.newest()).unwrap();
                assert_eq!(found, Found::Generation(number), "killed in call {at}");
            }
        }
        scenarios += 1;
    }
    assert!(scenarios > 30, "{scenarios}");
}

#[test]
fn an_unsynced_copy_is_durable_once_it_is_restored() {
    let copied = Start::with_generations(1).image;
    let disk = MemoryFilesystem::default();
    for (path, node) in &copied {
        match node {
            Node::File(contents) => {
                let file = disk.create_file(path).unwrap();
                file.write_all_at(contents, 0).unwrap();
            }
            _ => disk.create_dir(path).unwrap(),
        }
    }
    let store = open_on(disk.clone()).unwrap();
    assert_eq!(found(store.newest()).unwrap(), Found::Generation(1));
    let restored_after = disk.changes();
    drop(store);
    let images = disk.power_cuts(restored_after, 1000);
    for image in images {
        let store = open_on(MemoryFilesystem::holding(&image)).unwrap();
        assert_eq!(found(store.newest()).unwrap(), Found::Generation(1));
    }
}

/// A directory that is removed while its training runs, and that the next save creates again.
#[test]
fn cut_off_after_the_directory_was_moved_away_and_recreated() {
    let mut checker = Checker::default();
    let mut start = Start::with_generations(2);
    start.newest = None;
    let dir = Path::new(DIR);
    for next in [
        None,
        Some(Process::Restore),
        Some(Process::RestoreAndSave),
        Some(Process::Finish),
    ] {
        let mut scenario = Scenario::new(&start);
        let store = open_on(scenario.disk.clone()).unwrap();
        assert!(scenario.restore(&store).is_ok());
        scenario.disk.rename(dir, Path::new("away")).unwrap();
        scenario.disk.sync_dir(Path::new("")).unwrap();
        scenario.claims.clear();
        let from = scenario.disk.changes();
        for _ in 1..=2 {
            let committed = scenario.save(&store).unwrap();
            store.prune(&committed, 1).unwrap();
        }
        drop(store);
        if let Some(next) = next {
            scenario.run(next, |_, _| false).unwrap();
        }
        if let Err(what) = checker.check_from(from, &scenario) {
            panic!("{next:?}: {what}");
        }
    }
    checker.report("a directory created again");
}
