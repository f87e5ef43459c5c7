//! The inputs of the fuzz targets, including those that once found a bug.

use std::path::Path;

use burn_backup_store::testing::report;

#[expect(
    clippy::expect_used,
    reason = "a test fails by panicking, and a fuzz target too"
)]
#[path = "../../../../fuzz/src/lib.rs"]
mod targets;

/// Runs a target on each input of its corpus.
fn run_on_corpus(target: fn(&[u8]), name: &str) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let mut inputs = 0;
    for entry in std::fs::read_dir(fuzz.join("corpus").join(name)).unwrap() {
        target(&std::fs::read(entry.unwrap().path()).unwrap());
        inputs += 1;
    }
    report(&format!("fuzz target {name}: {inputs} inputs"));
    assert!(inputs > 5, "{inputs}");
}

#[test]
fn manifests_found_by_fuzzing_get_an_answer() {
    run_on_corpus(targets::manifest, "manifest");
}

#[test]
fn directories_found_by_fuzzing_are_exact_or_refused() {
    run_on_corpus(targets::open_directory, "open_directory");
}
