//! A program as its user would write it.
//!
//! `program NAME VARIANT DIR [WHAT@N]..`: `VARIANT` is `without`, `line` or `checklist`. The program writes
//! into `DIR` only. `abort@N` aborts the process in its training batch N, counted from 1. `workers@N` gives
//! each loader N workers.
//!
//! At its end it prints `digest: ` of the final model. It prints the losses of the last validation after
//! `validated: `, of the evaluations after `tested: `, and of all epochs after `logged: `. It also prints
//! `checkpoints: ` with Burn's remaining checkpoints, and a line `fact: ` for each setting of the program
//! that took effect.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn_backup_tests::programs::{Options, PROGRAMS, Variant, abort_in};
use xxhash_rust::xxh3::Xxh3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, variant, dir, told @ ..] = arguments.as_slice() else {
        unreachable!("program NAME VARIANT DIR [WHAT@N]..");
    };
    let mut options = Options {
        dir: dir.into(),
        variant: match variant.as_str() {
            "without" => Variant::Without,
            "line" => Variant::Line,
            "checklist" => Variant::Checklist,
            _ => unreachable!("{variant} is no variant"),
        },
        workers: None,
    };
    for told in told {
        let (what, number) = told.split_once('@').unwrap();
        let number = number.parse().unwrap();
        match what {
            "abort" => abort_in(number, &options.dir),
            "workers" => options.workers = Some(number),
            _ => unreachable!("{what} can't be told"),
        }
    }

    let program = PROGRAMS.iter().find(|program| program.name == name);
    let trained = (program.unwrap().train)(&options);

    let model = trained.model.iter();
    let model = model.flat_map(|(path, value)| [path.as_bytes(), value.as_slice()]);
    println!("digest: {}", digest(model));
    let written = Written::list(&options.dir);
    println!("validated: {}", written.last_validations());
    println!("tested: {}", written.losses(|path| path.contains("/test/")));
    println!("logged: {}", written.losses(|_| true));
    println!("checkpoints: {}", written.checkpoints());
    for fact in trained.facts {
        println!("fact: {fact}");
    }
}

fn digest<'a>(parts: impl Iterator<Item = &'a [u8]>) -> String {
    let mut hash = Xxh3::new();
    for part in parts {
        hash.update(&part.len().to_le_bytes());
        hash.update(part);
    }
    format!("{:032x}", hash.digest128())
}

/// The files that the program has written, by their paths.
struct Written {
    files: BTreeMap<String, Vec<u8>>,
}

impl Written {
    fn list(dir: &Path) -> Self {
        let mut files = BTreeMap::new();
        collect(dir, &mut files);
        let below = |path: PathBuf| path.strip_prefix(dir).unwrap().display().to_string();
        Self {
            files: files
                .into_iter()
                .map(|(path, bytes)| (below(path), bytes))
                .collect(),
        }
    }

    /// The losses in the files that `is_asked` for: the number of files, and a digest of them.
    fn losses(&self, is_asked: impl Fn(&str) -> bool) -> String {
        let losses = self
            .files
            .iter()
            .filter(|(path, _)| path.ends_with("/Loss.log"));
        let losses: Vec<_> = losses.filter(|(path, _)| is_asked(path)).collect();
        let parts = losses.iter();
        let parts = parts.flat_map(|(path, bytes)| [path.as_bytes(), bytes.as_slice()]);
        format!("{} files, {}", losses.len(), digest(parts))
    }

    /// The losses of each training's last validation.
    fn last_validations(&self) -> String {
        let mut last = BTreeMap::new();
        for path in self.files.keys() {
            let Some((training, rest)) = path.split_once("/valid/epoch-") else {
                continue;
            };
            let (epoch, _) = rest.split_once('/').unwrap();
            let epoch: usize = epoch.parse().unwrap();
            let known = last.entry(training).or_insert(epoch);
            *known = epoch.max(*known);
        }
        let last: Vec<String> = last
            .into_iter()
            .map(|(training, epoch)| format!("{training}/valid/epoch-{epoch}/"))
            .collect();
        self.losses(|path| last.iter().any(|last| path.starts_with(last)))
    }

    fn checkpoints(&self) -> String {
        let paths = self.files.keys().map(String::as_str);
        let checkpoints: Vec<&str> = paths.filter(|path| path.contains("/checkpoint/")).collect();
        checkpoints.join(" ")
    }
}

fn collect(dir: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => collect(&path, files),
            false => drop(files.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
}
