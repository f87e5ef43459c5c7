//! The README's statements on the two loops.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

const README: &str = include_str!("../README.md");

fn diff() -> String {
    let labels = ["--label", "src/plain.rs", "--label", "src/backed_up.rs"];
    let diff = Command::new("diff")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .arg("-U1")
        .args(labels)
        .args(["src/plain.rs", "src/backed_up.rs"])
        .output();
    String::from_utf8(diff.unwrap().stdout).unwrap()
}

#[test]
fn the_readme_shows_the_difference_between_the_two_loops() {
    let shown = README.split_once("```diff\n").unwrap().1;
    let shown = shown.split_once("```\n").unwrap().0;
    assert_eq!(shown, diff());
}

#[test]
fn the_backup_adds_at_most_ten_lines() {
    let diff = diff();
    let lines = |sign: char, file: &str| {
        let lines = diff.lines().filter_map(|line| line.strip_prefix(sign));
        lines
            .filter(|line| !line.starts_with(file) && !line.is_empty())
            .count()
    };
    let (added, removed) = (lines('+', "++ "), lines('-', "-- "));
    assert!(removed > 0);
    assert!(added <= removed + 10, "{added} added, {removed} removed");
}
