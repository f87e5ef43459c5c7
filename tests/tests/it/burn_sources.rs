//! The loops, the loaders and the metric logs do what Burn's own do. `burn_parity` compares them call by
//! call. The test here notices changes of Burn's sources that those tests might miss.
#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use test_fork::test;
use xxhash_rust::xxh3::xxh3_64;

/// Each line: our code in `crates/burn-backup-restore/src`, the file of Burn that it follows, and the XXH3 of
/// that file.
const MIRRORED: &str = "fixtures/burn-sources.txt";

#[test]
fn the_sources_of_burn_that_ours_follow_have_not_changed() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mirrored = std::fs::read_to_string(tests.join(MIRRORED)).unwrap();
    let burn = crates_of_burn(tests);
    let ours = tests.join("../crates/burn-backup-restore/src");
    let mut changed = String::new();
    for line in mirrored.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let (our, theirs, hash) = (
            words.next().unwrap(),
            words.next().unwrap(),
            words.next().unwrap(),
        );
        assert!(
            ours.join(our).exists(),
            "{our} has moved: correct {MIRRORED}"
        );
        let (name, path) = theirs.split_once('/').unwrap();
        let found = match std::fs::read(burn[name].join(path)) {
            Ok(source) => format!("{:016x}", xxh3_64(&source)),
            Err(error) => error.to_string(),
        };
        if found != hash {
            writeln!(changed, "{our} follows {theirs}: {hash} became {found}").unwrap();
        }
    }
    assert!(
        changed.is_empty(),
        "Burn has changed. Compare each file with its version before, change ours as needed, see that `burn_parity` \
         passes, and then write the new hashes into tests/{MIRRORED}:\n{changed}"
    );
}

/// The folder of each crate of Burn that this workspace is built with.
fn crates_of_burn(within: &Path) -> BTreeMap<String, PathBuf> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(within)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .filter_map(|package| {
            let name = package["name"].as_str()?;
            let manifest = Path::new(package["manifest_path"].as_str()?);
            let is_burn = name.starts_with("burn") && !package["source"].is_null();
            is_burn.then(|| (name.to_owned(), manifest.parent().unwrap().to_path_buf()))
        })
        .collect()
}
