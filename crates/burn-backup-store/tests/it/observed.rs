//! Directories that are only read, and changes next to a generation that was read.

use burn_backup_store::{GenerationId, Observation, Observer, OpenGeneration, StoreError};

use crate::support::{Scratch, save};

fn observer(scratch: &Scratch) -> Observer {
    Observer::new(scratch.root()).unwrap()
}

fn numbers(ids: &[GenerationId]) -> Vec<u64> {
    ids.iter().map(|id| id.number()).collect()
}

fn opened(observer: &Observer, number: u64) -> Box<OpenGeneration> {
    match observer.open(GenerationId::new(number)).unwrap() {
        Observation::Manifest(generation) => generation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_observer_creates_nothing() {
    let scratch = Scratch::new();
    let observer = observer(&scratch);
    assert!(observer.identity().unwrap().is_none());
    assert!(observer.generations().unwrap().is_empty());
    assert!(observer.quarantined().unwrap().is_empty());
    assert!(observer.leftovers().unwrap().is_empty());
    assert!(observer.to_prune(1).unwrap().is_empty());
    assert!(!scratch.root().exists());
}

#[test]
fn a_prune_removes_the_planned_generations() {
    for keep in 1..=4 {
        let scratch = Scratch::new().with_generations(4);
        std::fs::write(scratch.generation(2).join("manifest.json"), "damaged").unwrap();
        let observer = observer(&scratch);
        let planned = observer.to_prune(keep).unwrap();
        let store = scratch.open();
        let mut read = 0;
        let newest = opened(&observer, 4);
        let pruned = store.prune_beside(&newest, keep, &mut |bytes| read += bytes);
        assert_eq!(numbers(&pruned.unwrap()), numbers(&planned), "keep {keep}");
        assert_eq!(read, newest.manifest().bytes());
        let left: &[u64] = match keep {
            1 => &[4],
            2 => &[4, 3],
            // The damaged generation does not count.
            3 => &[4, 3, 2, 1],
            _ => &[4, 3, 2, 1],
        };
        assert_eq!(
            numbers(&observer.generations().unwrap()),
            left,
            "keep {keep}"
        );
    }
}

#[test]
fn nothing_is_pruned_beside_a_damaged_generation() {
    let scratch = Scratch::new().with_generations(3);
    let path = scratch.generation(3).join("model.bpk");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let observer = observer(&scratch);
    let store = scratch.open();
    let refused = store.prune_beside(&opened(&observer, 3), 1, &mut |_| {});
    assert!(
        matches!(refused, Err(StoreError::GenerationDamaged { .. })),
        "{refused:?}"
    );
    assert_eq!(numbers(&observer.generations().unwrap()), [3, 2, 1]);
}

#[test]
fn nothing_is_pruned_beside_another_trainings_generation() {
    let [scratch, other] = [3, 4].map(|count| Scratch::new().with_generations(count));
    let store = scratch.open();
    let refused = store.prune_beside(&opened(&observer(&other), 4), 1, &mut |_| {});
    assert!(
        matches!(refused, Err(StoreError::AnotherRun { .. })),
        "{refused:?}"
    );
    assert_eq!(
        numbers(&observer(&scratch).generations().unwrap()),
        [3, 2, 1]
    );
}

#[test]
fn an_open_generation_is_read_whole_after_it_was_pruned() {
    let scratch = Scratch::new().with_generations(1);
    let observer = observer(&scratch);
    let opened = opened(&observer, 1);
    let store = scratch.open();
    for number in 2..=4 {
        let committed = save(&store, number).unwrap();
        store.prune(&committed, 1).unwrap();
    }
    assert!(matches!(
        observer.open(GenerationId::new(1)).unwrap(),
        Observation::Gone
    ));
    for part in opened.parts() {
        assert_eq!(part.verify(&mut |_| {}).unwrap(), Ok(()));
    }
}

#[test]
fn leftovers_are_interrupted_saves_and_no_user_files() {
    let scratch = Scratch::new().with_generations(1);
    for name in [
        ".staging-00000002-0123456789abcdef",
        ".staging-notes",
        "notes",
    ] {
        std::fs::create_dir(scratch.root().join(name)).unwrap();
    }
    let left = observer(&scratch).leftovers().unwrap();
    assert_eq!(
        left,
        [scratch.root().join(".staging-00000002-0123456789abcdef")]
    );
}
