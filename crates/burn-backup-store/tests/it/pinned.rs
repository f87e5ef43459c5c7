//! Generations that are read while newer ones are committed.

use std::sync::Arc;

use burn_backup_store::GenerationId;

use crate::support::{Scratch, contents, names, save};

#[test]
fn a_pinned_generation_stays_and_the_next_prune_after_that_removes_it() {
    let scratch = Scratch::new().with_generations(1);
    let store = Arc::new(scratch.open());
    let generation = |number: u64| scratch.generation(number).exists();
    let (first, again) = (GenerationId::new(1), GenerationId::new(1));
    let pinned = store.pin(first).unwrap().unwrap();
    let twice = store.pin(again).unwrap().unwrap();
    for number in 2..5 {
        let committed = save(&store, number).unwrap();
        let pruned = store.prune(&committed, 1).unwrap();
        assert!(!pruned.contains(&first));
        assert_eq!((generation(1), generation(number - 1)), (true, number == 2),);
    }
    // It is still what was committed, byte for byte, whatever was written since.
    for entry in &pinned.manifest().parts {
        let mut bytes = vec![0; entry.bytes as usize];
        pinned.part(entry).unwrap().read(0, &mut bytes).unwrap();
        assert!(entry.is_block(0, &bytes), "{}", entry.name);
        if entry.name == "model" {
            assert_eq!(bytes, contents("model", 1));
        }
    }
    drop(pinned);
    let committed = save(&store, 5).unwrap();
    store.prune(&committed, 1).unwrap();
    assert!(generation(1));
    drop(twice);
    let committed = save(&store, 6).unwrap();
    assert!(store.prune(&committed, 1).unwrap().contains(&first));
    assert!(!generation(1));
    assert!(store.pin(first).unwrap().is_none());
    drop(store);
    assert_eq!(
        names(scratch.root()),
        ["burn-backup.json", "generations", "lock"]
    );
}
