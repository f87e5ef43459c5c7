//! Imports go one way. The modules at the top of each crate form no circle, and no lower layer imports from a
//! higher one. Imports name modules, because the exports of `lib.rs` could come from any layer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use test_fork::test;

/// The modules at the top of a crate, with the modules that each one imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// The modules of `burn-backup-restore`, from the top: each imports from its own layer and from those below.
const LAYERS: &[&[&str]] = &[
    &["rl", "supervised"],
    &["report"],
    &["session"],
    &["settings"],
    &["parts"],
    &["resume"],
    &["export"],
    &["save"],
    &[
        "data",
        "data_loader",
        "model",
        "preemption",
        "state",
        "trigger",
    ],
    &["burn_api", "metrics"],
    &[
        "change",
        "configuration",
        "divergence",
        "error",
        "event",
        "execution",
        "exit_code",
        "fingerprint",
        "handle",
        "guide",
        "heartbeat",
        "keep",
        "mirror",
        "notice",
        "on_backup_error",
        "outcome",
        "panics",
        "part",
        "position",
        "runs",
        "save_freq",
        "messages",
        "seed",
        "spans",
        "event_sender",
        "terminal",
        "text",
        "threads",
        "which",
    ],
];

/// The code of the file without tests and comments. Tests may import anything, and comments may link to
/// anything.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default();
    // In a macro, it is the caller's path to the exports of `lib.rs`.
    let code = code.replace("$crate::", "");
    let lines = code.lines().map(|line| match line.split_once("//") {
        Some((code, _)) => code,
        None => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The names after each `crate::`: one, or several in braces.
fn imported(code: &str) -> BTreeSet<String> {
    let is_name = |letter: char| letter.is_alphanumeric() || letter == '_';
    let name = |text: &str| {
        text.trim_start()
            .split(|c| !is_name(c))
            .next()
            .map(str::to_owned)
    };
    let mut found = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            None => found.extend(name(after)),
            Some(list) => {
                let mut depth = 0;
                let list = list.split(';').next().unwrap_or_default();
                let list = list.split(|letter| {
                    match letter {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        _ => {}
                    }
                    depth == 0 && letter == ','
                });
                found.extend(list.filter_map(name));
            }
        }
    }
    found
}

fn collect(dir: &Path, top: Option<&str>, imports: &mut Imports) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let module = top.unwrap_or(&stem);
        if path.is_dir() {
            // Tests in their own files may import what they test.
            if stem != "tests" {
                collect(&path, Some(module), imports);
            }
        } else if path.extension().is_some_and(|name| name == "rs")
            && stem != "lib"
            && stem != "tests"
        {
            let mut code = code(&path);
            if top.is_none() {
                code = code.replace("\nuse super::", "\nuse crate::");
            }
            let imported = imported(&code);
            imports
                .entry(module.to_owned())
                .or_default()
                .extend(imported);
        }
    }
}

/// A circle, if there is one.
fn circle(imports: &Imports) -> Option<Vec<&str>> {
    fn visit<'i>(
        module: &'i str,
        imports: &'i Imports,
        path: &mut Vec<&'i str>,
        done: &mut BTreeSet<&'i str>,
    ) -> bool {
        if let Some(at) = path.iter().position(|before| *before == module) {
            path.drain(..at);
            return true;
        }
        if !done.insert(module) {
            return false;
        }
        path.push(module);
        let others = imports.get(module).into_iter().flatten();
        for other in others.filter(|other| *other != module) {
            if imports.contains_key(other) && visit(other, imports, path, done) {
                return true;
            }
        }
        path.pop();
        false
    }

    let mut done = BTreeSet::new();
    imports.keys().find_map(|module| {
        let mut path = Vec::new();
        visit(module, imports, &mut path, &mut done).then_some(path)
    })
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    for name in ["burn-backup-restore", "burn-backup-store"] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
        let mut imports = Imports::new();
        collect(&source.join(name).join("src"), None, &mut imports);
        assert!(imports.len() > 20, "{name} has modules");
        assert_eq!(circle(&imports), None, "in {name}");
    }
}

/// The layer that a module is in, counted from the top.
fn layer(module: &str) -> usize {
    let layer = LAYERS.iter().position(|layer| layer.contains(&module));
    layer.unwrap_or_else(|| {
        panic!("'{module}' is in no layer: add it to LAYERS, or import it from its module")
    })
}

/// The imports that go from a lower layer to a higher one.
fn upward(imports: &Imports) -> Vec<String> {
    let mut upward = Vec::new();
    for (module, others) in imports {
        let above = others.iter().filter(|other| layer(other) < layer(module));
        upward.extend(above.map(|other| format!("{module} imports {other}")));
    }
    upward
}

#[test]
fn no_module_imports_from_a_layer_above_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/burn-backup-restore/src");
    let mut imports = Imports::new();
    collect(&source, None, &mut imports);
    for module in imports.keys() {
        layer(module);
    }
    assert_eq!(upward(&imports), [""; 0]);
    let leaf = imports.entry("seed".to_owned()).or_default();
    leaf.insert("session".to_owned());
    assert_eq!(upward(&imports), ["seed imports session"]);
}

#[test]
fn a_circle_is_found() {
    let modules = |imports: &[(&str, &[&str])]| -> Imports {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let imports = imports.iter();
        imports
            .map(|(module, names)| ((*module).to_owned(), owned(names)))
            .collect()
    };
    let straight = modules(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])]);
    assert_eq!(circle(&straight), None);
    let round = modules(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])]);
    assert_eq!(circle(&round), Some(vec!["b", "c"]));
    let code = "use crate::a::B;\nuse crate::{c, d::{E, F}};\nlet x = crate::g::h();";
    let found = imported(code);
    assert_eq!(found, ["a", "c", "d", "g"].map(str::to_owned).into());
}

/// Public types that are complete: users construct them, or match all their variants.
const COMPLETE: &[&str] = &[
    "Direction",
    "Divergence",
    "EntryKind",
    "LockAttempt",
    "Trainee",
];

/// The public types and variants of a file that can't get another field or variant without breaking users.
fn closed(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut item: Option<(&str, bool)> = None;
    let mut is_non_exhaustive = false;
    for line in code.lines().filter(|line| !line.trim().is_empty()) {
        if line.trim().starts_with("#[") {
            is_non_exhaustive |= line.trim() == "#[non_exhaustive]";
            continue;
        }
        let begins = |keyword| line.starts_with(keyword) && line.ends_with('{');
        if begins("pub struct ") || begins("pub enum ") {
            let name = line.split([' ', '<']).nth(2).unwrap_or_default();
            item = (!COMPLETE.contains(&name)).then_some((name, is_non_exhaustive));
            if begins("pub enum ") && item.is_some() && !is_non_exhaustive {
                found.push(name.to_owned());
            }
        } else if line == "}" {
            item = None;
        } else if let Some((name, is_open)) = item {
            let is_variant = line.strip_prefix("    ").is_some_and(|variant| {
                variant.starts_with(char::is_uppercase) && variant.ends_with('{')
            });
            let is_closed_field = line.starts_with("    pub ") && !is_open;
            if is_closed_field || (is_variant && !is_non_exhaustive) {
                found.push(format!("{name}: {}", line.trim()));
            }
        }
        is_non_exhaustive = false;
    }
    found
}

fn each_file(dir: &Path, look: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => each_file(&path, look),
            false => look(&path),
        }
    }
}

#[test]
fn public_types_may_grow() {
    for name in ["burn-backup-restore", "burn-backup-store"] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
        let source = source.join(name).join("src");
        each_file(&source, &mut |path| {
            // Code for tests promises no stability.
            let below = path.strip_prefix(&source).unwrap();
            let is_for_tests = below
                .iter()
                .any(|part| part == "testing" || part == "tests");
            let found = closed(&code(path));
            assert!(
                is_for_tests || found.is_empty(),
                "add #[non_exhaustive], or to COMPLETE: {found:?} in {}",
                path.display()
            );
        });
    }
}

#[test]
fn a_public_type_that_can_not_grow_is_found() {
    let code = "pub enum A {\n    One,\n}\n#[non_exhaustive]\n#[derive(Debug)]\npub enum B {\n    \
                #[non_exhaustive]\n    Two {\n        x: u8,\n    },\n    Three {\n        y: u8,\n    },\n}\n\
                pub struct C {\n    z: u8,\n}\npub struct D<T> {\n    pub t: T,\n}\n";
    assert_eq!(closed(code), ["A", "B: Three {", "D: pub t: T,"]);
}
