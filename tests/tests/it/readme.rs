//! Code that the README shows without compiling it is the code that the documentation compiles.

use std::collections::BTreeMap;
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

/// The link definitions in a text: the target of each label.
fn definitions(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .filter_map(|line| line.strip_prefix('[')?.split_once("]: "))
        .collect()
}

/// The link between pages for `crate::guide::page#section`: `page.md#section`.
fn as_page(rustdoc: &str) -> Option<String> {
    let page = rustdoc.strip_prefix("crate::guide::")?;
    let (page, section) = page.split_at(page.find('#').unwrap_or(page.len()));
    Some(format!("{page}.md{section}"))
}

#[test]
fn links_between_pages_of_the_guide_lead_to_the_same_place_in_rustdoc() {
    let guide = "crates/burn-backup-restore/src/guide";
    let links = read(&format!("{guide}/links.txt"));
    assert_eq!(links.lines().count(), definitions(&links).len(), "twice");
    let links = definitions(&links);
    let pages = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(guide)).unwrap();
    for page in pages {
        let name = page.unwrap().file_name().into_string().unwrap();
        if !name.ends_with(".md") || name == "SUMMARY.md" {
            continue;
        }
        let text = read(&format!("{guide}/{name}"));
        let own = definitions(&text);
        for (label, target) in &own {
            let in_rustdoc = links.get(label);
            match target.strip_suffix(".svg") {
                Some(_) => assert_eq!(in_rustdoc, None, "{name}: [{label}]"),
                None if target.starts_with("https://") && in_rustdoc.is_none() => {}
                None if target.starts_with("https://docs.rs/burn-backup-restore/") => {}
                None => assert_eq!(
                    in_rustdoc.and_then(|link| as_page(link)).as_deref(),
                    Some(*target),
                    "{name}: [{label}]"
                ),
            }
        }
        for used in text.split("][").skip(1) {
            let (label, _) = used.split_once(']').unwrap();
            // The label may be on two lines.
            let label = label.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(
                own.contains_key(label.as_str()),
                "{name}: [{label}] leads nowhere"
            );
        }
    }
}
