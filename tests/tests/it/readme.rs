//! What the README shows without having it compiled is what the documentation compiles.

use std::fs;
use std::path::Path;

use test_fork::test;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(path)).unwrap()
}

/// The code of a line, without its comment and its indentation.
fn code(line: &str) -> &str {
    let code = line.split_once("//").map_or(line, |(code, _)| code);
    code.trim()
}

#[test]
fn the_whole_program_of_the_readme_is_the_quickstart() {
    let readme = read("README.md");
    let (_, program) = readme.split_once("```rust,no_run\n").unwrap();
    let (program, _) = program.split_once("```").unwrap();
    let quickstart = read("examples/quickstart/src/main.rs");
    assert_eq!(program, quickstart);
    assert!(quickstart.lines().count() < 60);
}

#[test]
fn the_first_examples_of_the_readme_are_those_of_the_documentation() {
    let source = "crates/burn-backup-restore/src";
    let documented = [
        read(&format!("{source}/lib.rs")),
        read(&format!("{source}/session/by_hand/open.rs")),
    ];
    let documented: Vec<_> = documented.iter().flat_map(|text| text.lines()).collect();
    let documented = documented.iter().filter_map(|line| {
        let line = line.trim();
        line.strip_prefix("///")
            .or_else(|| line.strip_prefix("//!"))
    });
    let documented: Vec<_> = documented.map(code).collect();
    let readme = read("README.md");
    let examples: Vec<_> = readme.split("```rust,ignore\n").skip(1).collect();
    assert_eq!(examples.len(), 2, "the builder and the loop by hand");
    for example in examples {
        let (example, _) = example.split_once("```").unwrap();
        for line in example.lines().map(code) {
            assert!(documented.contains(&line), "{line}");
        }
    }
}
