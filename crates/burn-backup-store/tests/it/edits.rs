//! After random edits of the whole directory, the result is exact or an error.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn_backup_store::testing::{
    FOREIGN_FILE, Image, MemoryFilesystem, Node, Threads, below, edit_each, report,
};
use burn_backup_store::{Generation, StoreError};
use proptest::prelude::{ProptestConfig, any};
use proptest::test_runner::{TestCaseError, TestRunner};

use crate::support::{DIR, is_whole, open_on, save};

const CASES: u32 = 20_000;

/// Three generations in place, and one in quarantine.
fn image() -> Image {
    let disk = MemoryFilesystem::default();
    let store = open_on(disk.clone()).unwrap();
    for number in 1..=4 {
        let _ = save(&store, number).unwrap();
    }
    drop(store);
    let mut image = disk.image();
    let part = Path::new(DIR).join("generations/00000004/model.bpk");
    image.insert(part, Node::File(Vec::new()));
    let disk = MemoryFilesystem::holding(&image);
    assert!(open_on(disk.clone()).unwrap().newest().unwrap().is_some());
    disk.image()
}

/// The newest generation in place that the edits did not touch.
fn newest_untouched(before: &Image, after: &Image) -> Option<u64> {
    (1..=3).rev().find(|number| {
        let dir = Path::new(DIR).join(format!("generations/{number:08}"));
        below(before, &dir) == below(after, &dir)
    })
}

fn number(generation: &Generation) -> Option<u64> {
    generation.manifest().state::<serde_json::Value>().unwrap()["number"].as_u64()
}

fn their_files(image: &Image) -> usize {
    let (name, contents) = FOREIGN_FILE;
    let theirs = Node::File(contents.to_vec());
    let is_theirs = |path: &Path, node: &Node| path.ends_with(name) && *node == theirs;
    image
        .iter()
        .filter(|(path, node)| is_theirs(path, node))
        .count()
}

/// The possible answers of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Found,
    Empty,
    Refused,
}

/// Opens the newest generation on an edited disk. Returns an error if the answer is wrong.
fn check(before: &Image, after: &Image) -> Result<Answer, String> {
    // There are thousands of disks, and threads would take most of the time.
    let _without = Threads::refused(|_| true);
    let disk = MemoryFilesystem::holding(after);
    let untouched = newest_untouched(before, after);
    let found =
        open_on(disk.clone()).and_then(|store| store.newest().map(|newest| (store, newest)));
    if their_files(&disk.image()) != their_files(after) {
        return Err("somebody's file is gone".to_owned());
    }
    let (store, answer) = match (found, untouched) {
        (Ok((store, Some(mut generation))), _) => {
            let found = number(&generation);
            if !is_whole(&mut generation) {
                return Err(format!("generation {found:?} is not what was saved"));
            }
            if found < untouched {
                return Err(format!("{found:?} was found, but {untouched:?} is whole"));
            }
            (store, Answer::Found)
        }
        (Ok((_, None)), Some(whole)) => {
            return Err(format!("nothing was found, but {whole} is whole"));
        }
        (Err(StoreError::NoneLeft { .. }), Some(whole)) => {
            return Err(format!("none is left, but {whole} is whole"));
        }
        (Ok((store, None)), None) => (store, Answer::Empty),
        // These errors report a foreign file or directory.
        (
            Err(
                StoreError::Foreign { .. }
                | StoreError::NotADirectory { .. }
                | StoreError::NoneLeft { .. },
            ),
            _,
        ) => return Ok(Answer::Refused),
        (Err(error), _) => return Err(format!("an uninformative error: {error}")),
    };

    let committed = save(&store, 99).map_err(|error| format!("cannot save: {error}"))?;
    let linked = committed.linked();
    if (linked > 0) != (answer == Answer::Found) {
        return Err(format!("{linked} bytes were linked to what was {answer:?}"));
    }
    let pruned = store.prune(&committed, 1);
    pruned.map_err(|error| format!("cannot prune: {error}"))?;
    let newest = store.newest().map_err(|error| error.to_string())?;
    if newest.as_ref().and_then(number) != Some(99) || !newest.is_some_and(|mut g| is_whole(&mut g))
    {
        return Err("what was saved is not found".to_owned());
    }
    store
        .remove()
        .map_err(|error| format!("cannot remove: {error}"))?;
    if their_files(&disk.image()) != their_files(after) {
        return Err("somebody's file was removed".to_owned());
    }
    Ok(answer)
}

#[test]
fn after_random_edits_of_the_directory_the_result_is_exact_or_an_error() {
    let before = image();
    let edits = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::new());
    let config = ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let drawn = proptest::collection::vec(proptest::collection::vec(any::<u16>(), 10), 1..6);
    let checked = TestRunner::new(config).run(&drawn, |drawn| {
        let mut after = before.clone();
        let done = edit_each(&mut after, &drawn);
        edits.fetch_add(done.len(), Ordering::Relaxed);
        let answer = check(&before, &after)
            .map_err(|what| TestCaseError::fail(format!("{what}, after {done:?}")))?;
        answers.lock().unwrap().push(answer);
        Ok(())
    });
    if let Err(failure) = checked {
        panic!("{failure}");
    }
    let answers = answers.into_inner().unwrap();
    let count = |which| answers.iter().filter(|answer| **answer == which).count();
    let (found, refused) = (count(Answer::Found), count(Answer::Refused));
    report(&format!(
        "random edits: {} of {CASES} directories, in {found} of which a generation was found, and \
         {refused} of which were refused",
        edits.into_inner(),
    ));
    assert!(found > answers.len() / 2, "{found}");
}
