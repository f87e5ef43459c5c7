use std::fs;
use std::path::Path;

use burn_backup_store::testing::{Image, MemoryFilesystem, Node, Threads, report, seal};
use burn_backup_store::{OpenOptions, Store, StoreError};
use peak_alloc::PeakAlloc;
use serde_json::{Map, Value, json};

use crate::support::{DIR, Scratch, assert_is, frozen_bytes, names, open_on, save, tree};

/// Damages the newest of two generations. Expects a fallback to the previous one, with the reason.
#[track_caller]
fn assert_falls_back(what: &str, damage: impl FnOnce(&Path), reason: &str) {
    let scratch = Scratch::new().with_generations(2);
    damage(&scratch.generation(2));
    assert_is(scratch.open().newest().unwrap(), 1);
    assert!(!scratch.generation(2).exists(), "{what}");
    let written = fs::read_to_string(scratch.quarantined(2).join("reason.txt")).unwrap();
    assert_eq!(written.trim_end(), reason, "{what}");
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_part_is_quarantined_with_the_reason_and_the_previous_is_used() {
    assert_falls_back(
        "a changed byte",
        |dir| edit(&dir.join("model.bpk"), |bytes| bytes[17] ^= 1),
        "model.bpk does not match its hash",
    );
    assert_falls_back(
        "a truncation",
        |dir| edit(&dir.join("optimizer.bpk"), |bytes| bytes.truncate(10)),
        "optimizer.bpk has 10 bytes instead of 1600",
    );
    assert_falls_back(
        "an empty file",
        |dir| edit(&dir.join("model.bpk"), Vec::clear),
        "model.bpk has 0 bytes instead of 1200",
    );
    assert_falls_back(
        "an appended byte",
        |dir| edit(&dir.join("model.bpk"), |bytes| bytes.push(0)),
        "model.bpk has 1201 bytes instead of 1200",
    );
    assert_falls_back(
        "a missing part",
        |dir| fs::remove_file(dir.join("model.bpk")).unwrap(),
        "model.bpk is missing",
    );
    assert_falls_back(
        "a directory in place of a part",
        |dir| {
            fs::remove_file(dir.join("model.bpk")).unwrap();
            fs::create_dir(dir.join("model.bpk")).unwrap();
        },
        "model.bpk is missing",
    );
    assert_falls_back(
        "another file in place of one that both generations share",
        |dir| {
            // A change in place would affect both generations.
            let part = dir.join("frozen.bpk");
            let mut bytes = fs::read(&part).unwrap();
            bytes[17] ^= 1;
            fs::remove_file(&part).unwrap();
            fs::write(&part, bytes).unwrap();
        },
        "frozen.bpk does not match its hash",
    );
    assert_falls_back(
        "a missing name of a file that both generations share",
        |dir| fs::remove_file(dir.join("frozen.bpk")).unwrap(),
        "frozen.bpk is missing",
    );
    assert_falls_back(
        "another generation's part",
        |dir| {
            let other = dir.with_file_name("00000001").join("model.bpk");
            fs::copy(other, dir.join("model.bpk")).unwrap();
        },
        "model.bpk does not match its hash",
    );
}

#[test]
fn damage_to_a_file_costs_all_generations_that_share_it_and_every_start_fails() {
    let damages: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes[17] ^= 1,
        |bytes| bytes.truncate(10),
        Vec::clear,
        |bytes| bytes.push(0),
    ];
    for damage in damages {
        let scratch = Scratch::new().with_generations(3);
        // Edit in place, so that the file stays the same.
        edit(&scratch.generation(3).join("frozen.bpk"), damage);
        for start in 1..=2 {
            let error = scratch.open().newest().err().unwrap();
            assert!(
                matches!(error, StoreError::NoneLeft { .. }),
                "start {start}: {error}"
            );
        }
        for number in 1..=3 {
            let reason = scratch.quarantined(number).join("reason.txt");
            let reason = fs::read_to_string(reason).unwrap();
            assert!(reason.starts_with("frozen.bpk "), "{number}: {reason}");
        }
    }
}

#[test]
fn damage_to_a_shared_file_costs_no_generation_that_has_its_own() {
    for (damaged, stays) in [(1, 3), (2, 3), (3, 2)] {
        let scratch = Scratch::new().with_generations(2);
        // Nothing was read or committed before, so there is nothing to link to.
        assert_eq!(save(&scratch.open(), 3).unwrap().linked(), 0);
        edit(&scratch.generation(damaged).join("frozen.bpk"), |bytes| {
            bytes[17] ^= 1
        });
        assert_is(scratch.open().newest().unwrap(), stays);
    }
}

#[test]
fn damage_to_a_file_after_it_was_read_is_linked_and_the_next_start_reports_it() {
    let scratch = Scratch::new().with_generations(1);
    let store = scratch.open();
    assert_is(store.newest().unwrap(), 1);
    edit(&scratch.generation(1).join("frozen.bpk"), |bytes| {
        bytes[17] ^= 1
    });
    assert_eq!(save(&store, 2).unwrap().linked(), frozen_bytes());
    drop(store);
    let error = scratch.open().newest().err().unwrap();
    assert!(matches!(error, StoreError::NoneLeft { .. }), "{error}");
    assert_eq!(
        names(scratch.root().join("quarantine")),
        ["00000001", "00000002"]
    );
}

#[test]
fn a_damaged_manifest_is_quarantined_with_the_reason_and_the_previous_is_used() {
    assert_falls_back(
        "a changed byte",
        |dir| edit(&dir.join("manifest.json"), |bytes| bytes[20] ^= 1),
        "manifest.json does not match the checksum at its end",
    );
    assert_falls_back(
        "an empty file",
        |dir| edit(&dir.join("manifest.json"), Vec::clear),
        "manifest.json does not match the checksum at its end",
    );
    assert_falls_back(
        "no manifest",
        |dir| fs::remove_file(dir.join("manifest.json")).unwrap(),
        "manifest.json is missing",
    );
    assert_falls_back(
        "another generation's manifest",
        |dir| {
            let other = dir.with_file_name("00000001").join("manifest.json");
            fs::copy(other, dir.join("manifest.json")).unwrap();
        },
        "manifest.json is that of generation 00000001",
    );
}

#[test]
fn another_trainings_generation_is_refused_and_stays() {
    let other = Scratch::new().with_generations(2);
    let scratch = Scratch::new().with_generations(1);
    fs::rename(other.generation(2), scratch.generation(2)).unwrap();
    let error = scratch.open().newest().err().unwrap();
    assert!(matches!(error, StoreError::AnotherRun { .. }), "{error}");
    assert!(scratch.generation(2).join("manifest.json").exists());
    fs::remove_dir_all(scratch.generation(2)).unwrap();
    assert_is(scratch.open().newest().unwrap(), 1);
}

#[test]
fn with_no_whole_generation_left_every_start_fails() {
    let scratch = Scratch::new().with_generations(2);
    for number in [1, 2] {
        edit(&scratch.generation(number).join("model.bpk"), |bytes| {
            bytes[0] ^= 1
        });
    }
    for start in 1..=2 {
        let error = scratch.open().newest().err().unwrap();
        assert!(
            matches!(error, StoreError::NoneLeft { .. }),
            "start {start}: {error}"
        );
        assert!(
            error.to_string().contains("delete the backup directory"),
            "{error}"
        );
    }
    assert_eq!(
        names(scratch.root().join("quarantine")),
        ["00000001", "00000002"]
    );
}

#[test]
fn a_generation_of_a_newer_format_is_refused_and_stays() {
    let scratch = Scratch::new().with_generations(2);
    let manifest = scratch.generation(2).join("manifest.json");
    reseal(&manifest, |document| {
        document.insert("format".to_owned(), json!(9));
    });
    let error = Store::open(scratch.root(), OpenOptions::default())
        .err()
        .unwrap();
    assert!(
        matches!(
            error,
            StoreError::NewerFormat {
                found: 9,
                supported: 2,
                ..
            }
        ),
        "{error}"
    );
    assert!(manifest.exists());
    assert!(!scratch.root().join("quarantine").exists());
}

#[test]
fn a_lost_identity_is_recreated_from_the_newest_manifest() {
    let scratch = Scratch::new().with_generations(2);
    let identity = scratch.open().identity().clone();
    fs::remove_file(scratch.root().join("burn-backup.json")).unwrap();
    assert_eq!(scratch.open().identity(), &identity);
    assert_is(scratch.open().newest().unwrap(), 2);
}

#[test]
fn a_damaged_identity_is_quarantined_and_recreated() {
    let scratch = Scratch::new().with_generations(2);
    let identity = scratch.open().identity().clone();
    edit(&scratch.root().join("burn-backup.json"), |bytes| {
        bytes[12] ^= 1
    });
    assert_eq!(scratch.open().identity(), &identity);
    assert_is(scratch.open().newest().unwrap(), 2);
    assert_eq!(
        names(scratch.root().join("quarantine/burn-backup.json")),
        ["burn-backup.json", "reason.txt"]
    );
}

/// Changes a field of a sealed document and seals it again, as another version of this crate would.
fn reseal(path: &Path, change: impl FnOnce(&mut Map<String, Value>)) {
    let text = fs::read_to_string(path).unwrap();
    let mut document: Map<String, Value> = serde_json::from_str(&text).unwrap();
    document.remove("checksum");
    change(&mut document);
    fs::write(path, seal(&document).unwrap()).unwrap();
}

/// Two generations on a disk in memory.
fn two_generations() -> Image {
    let disk = MemoryFilesystem::default();
    let store = open_on(disk.clone()).unwrap();
    for number in [1, 2] {
        let _ = save(&store, number).unwrap();
    }
    drop(store);
    disk.image()
}

/// All kinds of damage to a file's contents.
fn damaged(contents: &[u8]) -> Vec<Vec<u8>> {
    let changed = (0..contents.len()).flat_map(|at| {
        [0x01, 0x20, 0x80, 0xff].map(|mask| {
            let mut changed = contents.to_vec();
            changed[at] ^= mask;
            changed
        })
    });
    let cut = (0..contents.len()).map(|len| contents[..len].to_vec());
    let tails: [&[u8]; 6] = [b"\0", b"\n", b" ", b"}", &[0; 4096], contents];
    let lengthened = tails.map(|tail| [contents, tail].concat());
    changed.chain(cut).chain(lengthened).collect()
}

/// Damages the file `name` in every way, and runs `check` on each disk. Returns the number of
/// disks.
fn damage_in_every_way(name: &str, check: impl Fn(&MemoryFilesystem)) -> usize {
    let image = two_generations();
    let path = Path::new(DIR).join(name);
    let Some(Node::File(contents)) = image.get(&path) else {
        panic!("{name} is missing");
    };
    let damaged = damaged(contents);
    let _without = Threads::refused(|_| true);
    for damaged in &damaged {
        let mut image = image.clone();
        image.insert(path.clone(), Node::File(damaged.clone()));
        check(&MemoryFilesystem::holding(&image));
    }
    damaged.len()
}

#[test]
fn any_byte_changed_any_cut_and_any_tail_is_detected_in_every_file_of_a_generation() {
    let mut examined = 0;
    for name in ["manifest.json", "model.bpk", "optimizer.bpk", "frozen.bpk"] {
        examined += damage_in_every_way(&format!("generations/00000002/{name}"), |disk| {
            assert_is(open_on(disk.clone()).unwrap().newest().unwrap(), 1);
            let reason = Path::new(DIR).join("quarantine/00000002/reason.txt");
            match disk.image().get(&reason) {
                Some(Node::File(reason)) => assert!(reason.starts_with(name.as_bytes())),
                other => panic!("{other:?}"),
            }
        });
    }
    report(&format!(
        "damage: {examined} damaged files of a generation, all detected"
    ));
    assert!(examined > 10_000, "{examined}");
}

#[test]
fn any_byte_changed_any_cut_and_any_tail_of_the_other_files_costs_no_generation() {
    let mut examined = 0;
    for name in ["burn-backup.json", "lock"] {
        examined += damage_in_every_way(name, |disk| {
            assert_is(open_on(disk.clone()).unwrap().newest().unwrap(), 2);
        });
    }
    report(&format!(
        "damage: {examined} damaged other files, none of them harmful"
    ));
    assert!(examined > 500, "{examined}");
}

#[test]
fn swapped_parts_are_detected() {
    for (from, to) in [
        ("00000002/model.bpk", "00000002/optimizer.bpk"),
        ("00000001/model.bpk", "00000002/model.bpk"),
        ("00000001/optimizer.bpk", "00000002/optimizer.bpk"),
        ("00000001/manifest.json", "00000002/manifest.json"),
        ("00000002/manifest.json", "00000002/model.bpk"),
        ("00000002/model.bpk", "00000002/frozen.bpk"),
    ] {
        let at = |path: &str| Path::new(DIR).join("generations").join(path);
        let mut image = two_generations();
        let (a, b) = (image[&at(from)].clone(), image[&at(to)].clone());
        image.insert(at(to), a);
        image.insert(at(from), b);
        let disk = MemoryFilesystem::holding(&image);
        let newest = open_on(disk.clone()).unwrap().newest();
        // With two generations, each directory has the other's files.
        match from.starts_with("00000001") {
            true => assert!(matches!(newest, Err(StoreError::NoneLeft { .. })), "{from}"),
            false => assert_is(newest.unwrap(), 1),
        }
    }
}

#[test]
fn the_quarantine_keeps_the_newest() {
    let scratch = Scratch::new().with_generations(6);
    for number in 2..=6 {
        fs::write(scratch.generation(number).join("model.bpk"), b"").unwrap();
    }
    let theirs = scratch.root().join("quarantine/notes");
    fs::create_dir_all(&theirs).unwrap();
    assert_is(scratch.open().newest().unwrap(), 1);
    let quarantine = scratch.root().join("quarantine");
    assert_eq!(
        names(&quarantine),
        ["00000004", "00000005", "00000006", "notes"]
    );

    let _ = save(&scratch.open(), 7).unwrap();
    fs::write(scratch.generation(7).join("model.bpk"), b"").unwrap();
    assert_is(scratch.open().newest().unwrap(), 1);
    assert_eq!(
        names(&quarantine),
        ["00000005", "00000006", "00000007", "notes"]
    );
    assert_eq!(
        names(scratch.root()),
        ["burn-backup.json", "generations", "lock", "quarantine"]
    );
}

#[test]
fn of_a_file_quarantined_repeatedly_the_latest_copies_stay() {
    let scratch = Scratch::new().with_generations(1);
    for _ in 1..=6 {
        fs::write(scratch.root().join("burn-backup.json"), b"damaged").unwrap();
        assert_is(scratch.open().newest().unwrap(), 1);
    }
    assert_eq!(
        names(scratch.root().join("quarantine")),
        [
            "burn-backup.json-4",
            "burn-backup.json-5",
            "burn-backup.json-6"
        ]
    );
}

#[test]
fn with_no_whole_generation_left_all_damaged_ones_stay_in_quarantine() {
    let scratch = Scratch::new().with_generations(6);
    for number in 1..=6 {
        fs::write(scratch.generation(number).join("model.bpk"), b"").unwrap();
    }
    let error = scratch.open().newest().err().unwrap();
    assert!(matches!(error, StoreError::NoneLeft { .. }), "{error}");
    assert_eq!(names(scratch.root().join("quarantine")).len(), 6);
}

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

#[test]
fn memory_stays_bounded_whatever_length_a_file_has_or_claims() {
    const HUGE: u64 = 1 << 40;
    MEMORY.reset_peak_usage();
    for name in ["manifest.json", "model.bpk", "optimizer.bpk"] {
        let scratch = Scratch::new().with_generations(2);
        let file = fs::File::options()
            .write(true)
            .open(scratch.generation(2).join(name))
            .unwrap();
        // The file is sparse.
        file.set_len(HUGE).unwrap();
        assert_is(scratch.open().newest().unwrap(), 1);
    }
    let scratch = Scratch::new().with_generations(2);
    let file = fs::File::options()
        .write(true)
        .open(scratch.generation(2).join("frozen.bpk"))
        .unwrap();
    file.set_len(HUGE).unwrap();
    // Both generations share the file.
    let error = scratch.open().newest().err().unwrap();
    assert!(matches!(error, StoreError::NoneLeft { .. }), "{error}");
    for name in ["burn-backup.json", "lock"] {
        let scratch = Scratch::new().with_generations(2);
        let file = fs::File::options()
            .write(true)
            .open(scratch.root().join(name))
            .unwrap();
        file.set_len(HUGE).unwrap();
        assert_is(scratch.open().newest().unwrap(), 2);
    }
    for claimed in [HUGE, u64::MAX, 0] {
        let scratch = Scratch::new().with_generations(2);
        let manifest = scratch.generation(2).join("manifest.json");
        reseal(&manifest, |document| {
            document["parts"][0]["bytes"] = json!(claimed);
        });
        assert_is(scratch.open().newest().unwrap(), 1);
    }
    // Other tests run at the same time.
    let peak = MEMORY.peak_usage() as u64;
    assert!(peak < HUGE / 1024, "{peak} bytes");
}

#[test]
fn another_seed_than_that_of_the_directory_is_refused_and_nothing_is_changed() {
    let scratch = Scratch::new().with_generations(2);
    let identity = scratch.root().join("burn-backup.json");
    let seed = scratch.open().identity().run_seed;
    let run_seed = seed.wrapping_add(1);
    reseal(&identity, |document| {
        document.insert("run_seed".to_owned(), json!(run_seed));
    });
    let before = tree(scratch.root());
    let store = scratch.open();
    let error = store.newest().err().unwrap();
    assert!(matches!(error, StoreError::AnotherSeed { .. }), "{error}");
    assert!(error.to_string().contains(&seed.to_string()), "{error}");
    drop(store);
    assert_eq!(tree(scratch.root()), before);
    // The error advises this.
    fs::remove_file(&identity).unwrap();
    let store = scratch.open();
    assert_eq!(store.identity().run_seed, seed);
    assert_is(store.newest().unwrap(), 2);
}

#[test]
fn a_newer_programs_files_are_refused_before_anything_is_changed() {
    let newer = |path: &Path| {
        reseal(path, |document| {
            document.insert("format".to_owned(), json!(9));
        });
    };
    type Prepare<'a> = &'a dyn Fn(&Scratch);
    let cases: [(&str, Prepare<'_>); 4] = [
        ("the directory", &|scratch| {
            newer(&scratch.root().join("burn-backup.json"));
        }),
        ("the newest generation", &|scratch| {
            newer(&scratch.generation(3).join("manifest.json"));
        }),
        ("the directory, before its first generation", &|scratch| {
            newer(&scratch.root().join("burn-backup.json"));
            fs::remove_dir_all(scratch.root().join("generations")).unwrap();
        }),
        (
            "the one that would be next, with the newest damaged",
            &|scratch| {
                edit(&scratch.generation(3).join("model.bpk"), |bytes| {
                    bytes[17] ^= 1
                });
                newer(&scratch.generation(2).join("manifest.json"));
            },
        ),
    ];
    for (what, prepare) in cases {
        let scratch = Scratch::new().with_generations(3);
        prepare(&scratch);
        // The leftovers of a process that was killed in a save or in a removal.
        for left in [
            ".staging-00000004-0123456789abcdef",
            ".staging-removed-generations+00000001-0123456789abcdef",
        ] {
            // In this case, the directory may be opened.
            if what.starts_with("the one") {
                continue;
            }
            let left = scratch.root().join(left);
            fs::create_dir(&left).unwrap();
            fs::write(left.join("model.bpk"), b"half").unwrap();
        }
        let before = tree(scratch.root());
        let opened = Store::open(scratch.root(), OpenOptions::default());
        let error = opened.and_then(|store| store.newest()).err().unwrap();
        assert!(matches!(error, StoreError::NewerFormat { .. }), "{error}");
        assert_eq!(tree(scratch.root()), before, "{what}");
    }
}

#[test]
fn other_refusals_change_nothing_either() {
    let scratch = Scratch::new().with_generations(1);
    let left = scratch.root().join(".staging-00000004-0123456789abcdef");
    fs::create_dir(&left).unwrap();
    let seed = scratch.open().identity().run_seed;
    fs::create_dir(&left).unwrap();
    let before = tree(scratch.root());
    let options = OpenOptions::default().run_seed(Some(seed.wrapping_add(1)));
    let error = Store::open(scratch.root(), options).err().unwrap();
    assert!(matches!(error, StoreError::SeedMismatch { .. }), "{error}");
    assert_eq!(tree(scratch.root()), before);
}

#[test]
fn a_directory_with_an_absurd_number_hides_no_generation() {
    for number in [
        1_000_000_000_000_u64,
        999_999_999_999_999,
        1_000_000_000_000_000,
    ] {
        for is_empty in [true, false] {
            let scratch = Scratch::new().with_generations(2);
            let strange = scratch.generation(number);
            fs::create_dir(&strange).unwrap();
            if !is_empty {
                fs::copy(
                    scratch.generation(1).join("manifest.json"),
                    strange.join("manifest.json"),
                )
                .unwrap();
            }
            // The first two saves happen without a read, with the directory in place. The others
            // follow a read.
            for saved in 3..=6 {
                let store = scratch.open();
                if saved > 4 {
                    assert_is(store.newest().unwrap(), saved - 1);
                }
                let committed = save(&store, saved).unwrap();
                store.prune(&committed, 1).unwrap();
                let id = committed.id().number();
                assert!(id <= number.min(1_000_000_000_001) + 10, "{id}");
                assert_is(store.newest().unwrap(), saved);
            }
            // The strange generation was quarantined, or pruned like any damaged one.
            assert!(!strange.exists(), "{number}");
        }
    }
}

#[test]
fn numbers_continue_to_the_greatest_and_then_fail() {
    const GREATEST: u64 = 1_000_000_000_000_000;
    let scratch = Scratch::new().with_generations(1);
    // Such a number counts only if this training's own manifest has it.
    fs::rename(scratch.generation(1), scratch.generation(GREATEST - 1)).unwrap();
    reseal(
        &scratch.generation(GREATEST - 1).join("manifest.json"),
        |document| {
            document.insert("generation".to_owned(), json!(GREATEST - 1));
        },
    );
    let store = scratch.open();
    assert_is(store.newest().unwrap(), 1);
    let committed = save(&store, 2).unwrap();
    assert_eq!(committed.id().number(), GREATEST);
    assert_is(store.newest().unwrap(), 2);
    let error = save(&store, 3).unwrap_err();
    assert!(matches!(error, StoreError::NumbersUsedUp { .. }), "{error}");
    drop(store);
    assert_is(scratch.open().newest().unwrap(), 2);
}

#[test]
fn a_manifest_of_very_many_parts_is_damage_and_does_not_delay_the_start() {
    let scratch = Scratch::new().with_generations(2);
    reseal(&scratch.generation(2).join("manifest.json"), |document| {
        let part = document["parts"][0].clone();
        let parts = (0..200_000).map(|number| {
            let mut part = part.clone();
            part["name"] = json!(format!("part-{number}"));
            part["file"] = json!(format!("part-{number}.bpk"));
            part
        });
        document["parts"] = parts.collect();
    });
    assert_is(scratch.open().newest().unwrap(), 1);
    let reason = fs::read_to_string(scratch.quarantined(2).join("reason.txt")).unwrap();
    assert!(reason.contains("it names 200000 parts"), "{reason}");
}

#[test]
fn no_more_parts_are_staged_than_can_be_read() {
    let disk = MemoryFilesystem::default();
    let store = open_on(disk).unwrap();
    let mut staging = store.stage().unwrap();
    let mut staged = 0;
    let error = loop {
        match staging.part(&format!("part-{staged}")) {
            Ok(part) => part.finish().unwrap(),
            Err(error) => break error,
        }
        staged += 1;
    };
    assert!(matches!(error, StoreError::TooManyParts { .. }), "{error}");
    let _ = staging.commit(json!({})).unwrap();
    let newest = store.newest().unwrap().unwrap();
    assert_eq!(newest.manifest().parts.len(), staged);
}

#[test]
fn errors_that_advise_a_deletion_say_when() {
    let scratch = Scratch::new().with_generations(1);
    fs::write(scratch.generation(1).join("model.bpk"), b"").unwrap();
    let none_left = scratch.open().newest().err().unwrap();
    let other = Scratch::new().with_generations(1);
    fs::rename(other.generation(1), scratch.generation(1)).unwrap();
    let another_run = scratch.open().newest().err().unwrap();
    let other = Scratch::new().with_generations(1);
    let seed = other.open().identity().run_seed;
    let options = OpenOptions::default().run_seed(Some(seed.wrapping_add(1)));
    let seeds = Store::open(other.root(), options).err().unwrap();
    reseal(&other.root().join("burn-backup.json"), |document| {
        document.insert("format".to_owned(), json!(9));
    });
    let newer = Store::open(other.root(), OpenOptions::default())
        .err()
        .unwrap();
    for error in [none_left, another_run, seeds, newer] {
        let text = error.to_string();
        assert!(text.contains("delete the backup directory"), "{text}");
        assert!(text.contains("when no training uses it"), "{text}");
    }
}
