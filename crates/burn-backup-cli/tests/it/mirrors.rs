//! Mirrors: copies in both directions, and refusals.

use std::ops::ControlFlow;
use std::sync::Arc;

use burn_backup_remote::{KeepLast, Mirror};

use crate::backups::{contents, open, save, training};
use crate::program::Scratch;

#[test]
fn reading_a_mirror_does_not_disturb_its_training() {
    let scratch = Scratch::new();
    let url = scratch.mirror("mirror");
    let store = Arc::new(open(&scratch.join("backup")));
    let connection = Mirror::new(&*url).connect().unwrap();
    let found = connection.find(&store.identity().run_id, false).unwrap();
    let mirroring = connection.mirror(
        Some(&found),
        &store,
        None,
        Arc::new(KeepLast(1)),
        Box::new(|_| {}),
    );
    let go_on = &mut |_| ControlFlow::Continue(());
    for number in 1..=5 {
        let committed = save(&store, number);
        mirroring.committed(committed.id());
        mirroring.flush(None, go_on).unwrap();
        let listed = scratch.run(&format!("list {url} --json")).good().json();
        let training = &listed["trainings"][0];
        assert_eq!(training["generations"][0]["number"], number);
        let holder = training["lease"]["holder"].as_str().unwrap();
        assert!(holder.contains(&std::process::id().to_string()), "{holder}");
        scratch.run(&format!("verify {url}")).good();
        scratch
            .run(&format!("show {url}"))
            .good()
            .prints(&["not read from a mirror"]);
        scratch
            .run(&format!("history {url}"))
            .good()
            .prints(&["Loss"]);
    }
    scratch
        .run(&format!("pull copy --from {url}"))
        .good()
        .says(&["holds the lease of"]);
    // The training still holds the lease.
    let _ = mirroring.status();
    let committed = save(&store, 6);
    mirroring.committed(committed.id());
    mirroring.flush(None, go_on).unwrap();
    // A second writer is refused, and the error names the holder.
    scratch
        .run(&format!("discard {url} --yes"))
        .ends_with(5)
        .says(&["is in use by"]);
    mirroring.flush(None, go_on).unwrap();
    drop(mirroring);
    scratch.run(&format!("discard {url} --yes")).good();
    scratch
        .run(&format!("list {url}"))
        .ends_with(4)
        .prints(&["finished"]);
}

#[test]
fn a_push_and_a_pull_preserve_every_byte() {
    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    let url = scratch.mirror("mirror");
    scratch.run(&format!("push backup --to {url}")).good();
    scratch.run(&format!("pull copy --from {url}")).good();
    let generation = |dir: &str| {
        let dir = scratch.join(dir).join("generations/00000002");
        let files = contents(&dir).into_iter();
        files
            .map(|(path, bytes)| (path.strip_prefix(&dir).unwrap().to_owned(), bytes))
            .collect::<Vec<_>>()
    };
    assert!(generation("backup") == generation("copy"));
    let run_id = |dir: &str| scratch.run(&format!("list {dir} --json")).json()["run_id"].clone();
    assert_eq!(run_id("backup"), run_id("copy"));

    // A generation is not copied twice, and an older one is not copied.
    scratch
        .run(&format!("pull copy --from {url}"))
        .good()
        .prints(&["nothing newer"]);
    scratch
        .run(&format!("push backup --to {url}"))
        .good()
        .prints(&["already"]);
    let store = open(&scratch.join("backup"));
    let _ = save(&store, 3);
    drop(store);
    scratch.run(&format!("push backup --to {url}")).good();
    let listed = scratch.run(&format!("list {url} --json")).good().json();
    let numbers: Vec<_> = listed["trainings"][0]["generations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["number"].as_u64())
        .collect();
    assert_eq!(numbers, [Some(3), Some(2)], "nothing is pruned there");
    scratch
        .run(&format!("push copy --to {url}"))
        .ends_with(1)
        .says(&["newer generation", "pull"]);
    scratch.run(&format!("pull copy --from {url}")).good();
    scratch.run("verify copy").good();
}

#[test]
fn another_trainings_mirror_is_refused() {
    let scratch = Scratch::new();
    for name in ["backup", "other"] {
        training(&scratch.join(name));
    }
    let url = scratch.mirror("mirror");
    scratch.run(&format!("push backup --to {url}")).good();
    let before = contents(&scratch.path());
    scratch
        .run(&format!("pull other --from {url}"))
        .ends_with(1)
        .says(&["of the training", "nothing was changed"]);
    assert!(contents(&scratch.path()) == before, "something was changed");
    scratch
        .run(&format!("push other --to {url}"))
        .ends_with(1)
        .says(&["nothing was changed"]);
    let listed = scratch
        .run(&format!("list other --mirror {url} --json"))
        .good()
        .json();
    assert_eq!(listed["generations"][0]["in_mirror"], false);
    std::fs::create_dir(scratch.join("mine")).unwrap();
    std::fs::write(scratch.join("mine/notes.txt"), "").unwrap();
    scratch
        .run(&format!("pull mine --from {url}"))
        .ends_with(4)
        .says(&["no backup"]);
}

#[test]
fn a_finished_training_is_not_brought_back() {
    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    let url = scratch.mirror("mirror");
    scratch.run(&format!("push backup --to {url}")).good();
    scratch.run(&format!("pull copy --from {url}")).good();
    scratch
        .run(&format!("discard backup --mirror {url} --yes"))
        .good();
    assert!(!scratch.join("backup").exists());
    scratch
        .run(&format!("pull new --from {url}"))
        .ends_with(4)
        .says(&["run to its end"]);
    assert!(!scratch.join("new").exists());
    scratch
        .run(&format!("push copy --to {url}"))
        .ends_with(1)
        .says(&["as finished"]);
    // A second discard does no harm.
    scratch.run(&format!("discard {url} --yes")).good();
}
