//! Commands that read a directory do not disturb the training that uses it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::backups::{contents, open, save, training};
use crate::program::Scratch;

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn reading_does_not_disturb_saves_and_prunes() {
    let scratch = Scratch::new();
    let store = open(&scratch.join("backup"));
    let committed = save(&store, 1);
    store.prune(&committed, 1).unwrap();
    let is_over = AtomicBool::new(false);
    let saved = thread::scope(|scope| {
        // The flag is also set if an assertion fails, because the scope waits for the saving thread.
        let end = SetOnDrop(&is_over);
        let saving = scope.spawn(|| {
            let mut number = 1;
            while !is_over.load(Ordering::Relaxed) {
                number += 1;
                let committed = save(&store, number);
                store.prune(&committed, 1).unwrap();
                assert_eq!(committed.id().number(), number);
            }
            number
        });
        for _ in 0..15 {
            for command in [
                "list backup",
                "show backup",
                "verify backup",
                "history backup",
                "export backup --to out --force",
            ] {
                let ran = scratch.run(command);
                // A generation may be pruned before all of it is copied, never while it is read.
                assert_eq!(ran.code, 0, "{}", ran.text());
                assert!(!ran.text().contains("damaged"), "{}", ran.text());
            }
        }
        drop(end);
        saving.join().unwrap()
    });
    assert!(saved > 15, "the saves continued: {saved}");
    let listed = scratch.run("list backup --json").good().json();
    assert_eq!(listed["generations"][0]["number"], saved);
    assert!(listed["quarantine"].as_array().unwrap().is_empty());
    drop(store);
    scratch.run("verify backup").good();
}

#[test]
#[cfg(unix)]
fn a_link_in_the_place_of_a_manifest_is_not_followed() {
    use std::os::unix::fs::symlink;

    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    let manifest = scratch.join("backup/generations/00000002/manifest.json");
    std::fs::remove_file(&manifest).unwrap();
    symlink("/proc/self/mem", &manifest).unwrap();
    scratch.run("verify backup").ends_with(3).prints(&[
        "generation 1: whole",
        "generation 2: damaged",
        "not a file",
    ]);
}

#[test]
#[cfg(unix)]
fn a_generation_may_have_more_parts_than_files_may_be_open() {
    let scratch = Scratch::new();
    let store = open(&scratch.join("backup"));
    let mut staging = store.stage().unwrap();
    for number in 0..200 {
        let mut part = staging.part(&format!("replay-{number:05}")).unwrap();
        part.append(vec![1; 10]).unwrap();
        part.finish().unwrap();
    }
    let _ = staging.commit(1).unwrap();
    drop(store);
    for command in ["list backup", "verify backup"] {
        let program = env!("CARGO_BIN_EXE_burn-backup");
        let script = format!("ulimit -Sn 50; exec {program} {command}");
        let mut shell = std::process::Command::new("sh");
        let output = shell
            .args(["-c", &script])
            .current_dir(scratch.path())
            .output()
            .unwrap();
        crate::program::Ran::of(command, &output).good();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn the_using_process_is_named() {
    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    let in_use = |state: &str| {
        let listed = scratch.run("list backup --json").good().json();
        assert_eq!(listed["in_use"]["state"], state);
        listed["in_use"]["by"].clone()
    };
    in_use("unused");
    let store = open(&scratch.join("backup"));
    let by = in_use("in_use");
    let process = format!("process {}", std::process::id());
    assert!(by.as_str().unwrap().starts_with(&process), "{by}");
    drop(scratch.run("list backup").good().prints(&[&process]));
    drop(store);
    in_use("unused");
}

#[test]
fn changes_to_a_directory_in_use_are_refused() {
    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    crate::backups::fixture(
        "tests/fixtures/format-1/with-metrics/backup",
        &scratch.join("old"),
    );
    let url = scratch.mirror("mirror");
    let stores = [
        open(&scratch.join("backup")),
        burn_backup_store::Store::open(scratch.join("old"), Default::default()).unwrap(),
    ];
    let before = contents(&scratch.path());
    let commands = [
        "prune backup --keep 1 --yes".to_owned(),
        "discard backup --yes".to_owned(),
        format!("discard backup --mirror {url} --yes"),
        "migrate old".to_owned(),
        format!("push backup --to {url}"),
    ];
    for command in &commands {
        scratch
            .run(command)
            .ends_with(5)
            .says(&["in use by process", "nothing was changed"]);
    }
    assert!(contents(&scratch.path()) == before, "something was changed");
    // A dry run is still possible.
    for command in [
        "prune backup --keep 1 --dry-run",
        "discard backup --dry-run",
        "migrate old --dry-run",
    ] {
        scratch.run(command).good();
    }
    drop(stores);
}

#[test]
fn nothing_is_pulled_into_a_directory_in_use_or_moved_in_it() {
    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    let url = scratch.mirror("mirror");
    scratch.run(&format!("push backup --to {url}")).good();
    scratch.run(&format!("pull copy --from {url}")).good();
    let store = open(&scratch.join("backup"));
    let committed = save(&store, 3);
    drop(committed);
    drop(store);
    scratch.run(&format!("push backup --to {url}")).good();
    let store = burn_backup_store::Store::open(scratch.join("copy"), Default::default()).unwrap();
    scratch.run(&format!("pull copy --from {url}")).ends_with(5);
    let quarantine = scratch.join("copy/quarantine");
    std::fs::create_dir(&quarantine).unwrap();
    std::fs::rename(
        scratch.join("copy/generations/00000002"),
        quarantine.join("00000002"),
    )
    .unwrap();
    scratch.run("unquarantine copy 2").ends_with(5);
    drop(store);
    scratch.run("unquarantine copy 2").good();
    scratch.run(&format!("pull copy --from {url}")).good();
}
