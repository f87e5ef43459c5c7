//! The programs that people write. With the line only, each is exact after kills, or its output says what to
//! change. With everything that the README and the guide ask for, each is exact.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus};

use burn_backup_tests::programs::{PROGRAMS, Program, Variant};
use burn_backup_tests::report;
use test_fork::test;

use crate::crash::assert_aborted;

/// Part of a line on the standard error that says that kills change the result, and why.
const NOT_EXACT: &str = "not exact";
/// Part of a line that says that a setting of the program has no effect.
const NOT_USED: &str = "is not used";
/// Part of a line that says that a training was restored.
const RESTORED: &str = "restored from backup";

#[test]
fn each_program_is_exact_or_warned_with_the_line_and_exact_with_the_checklist() {
    let mut matrix = format!("{:28}{:12}{}\n", "", "line", "checklist");
    let mut faults = Vec::new();
    for program in &PROGRAMS {
        let without = run_uninterrupted(program, Variant::Without);
        let line = outcome(program, Variant::Line, &without);
        let checklist = outcome(program, Variant::Checklist, &without);
        if matches!(line, Outcome::Silent(_)) {
            faults.push(format!("{} with the line: {line}", program.name));
        }
        if checklist != Outcome::Exact {
            faults.push(format!("{} with the checklist: {checklist}", program.name));
        }
        let (name, line, checklist) = (program.name, line.word(), checklist.word());
        matrix += &format!("{name:28}{line:12}{checklist}\n");
    }
    report(&format!("{matrix}{}", faults.join("\n")));
    assert!(faults.is_empty(), "{matrix}{}", faults.join("\n"));
}

#[test]
fn without_workers_a_seeded_device_makes_the_training_the_same_each_time() {
    let guide = PROGRAMS.iter().find(|program| program.name == "guide");
    let guide = guide.unwrap();
    let [first, second] = [(), ()].map(|()| {
        let scratch = tempfile::tempdir().unwrap();
        let mut command = command(guide, Variant::Line, scratch.path());
        Run::of(command.arg("workers@0")).ended()
    });
    assert_eq!(values(&first, "digest"), values(&second, "digest"));
}

/// The outcome of a program that was killed.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It ends as if uninterrupted, and its settings take effect.
    Exact,
    /// It does not, and its first start has said so on the standard error.
    Told,
    /// It does not, in these ways, and no message said so. Or it does, and a message said that it does not.
    Silent(Vec<String>),
}

impl Outcome {
    fn word(&self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Told => "told",
            Self::Silent(_) => "SILENT",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact | Self::Told => f.write_str(self.word()),
            Self::Silent(differences) => write!(f, "silent: {}", differences.join("; ")),
        }
    }
}

fn run_uninterrupted(program: &Program, variant: Variant) -> Said {
    let scratch = tempfile::tempdir().unwrap();
    Run::of(&mut command(program, variant, scratch.path())).ended()
}

/// Compares a killed program with an uninterrupted one, and its settings with their effects `without` this
/// crate.
fn outcome(program: &Program, variant: Variant, without: &Said) -> Outcome {
    let [first, second] = [(), ()].map(|()| run_uninterrupted(program, variant));
    let (first_start, killed) = killed_twice(program, variant);
    // Each difference has the text that a message must contain.
    let mut differences = Vec::new();
    for what in compared(variant) {
        let (first, second) = (values(&first, what), values(&second, what));
        let killed = values(&killed, what);
        if first != second {
            let difference = format!("{what} differs between two uninterrupted runs");
            differences.push((NOT_EXACT, difference));
        } else if first != killed {
            let difference = format!("{what} is {killed:?}, and {first:?} uninterrupted");
            differences.push((NOT_EXACT, difference));
        }
    }
    let has_effect = values(without, "fact");
    let lost = values(&first, "fact").iter();
    let lost = lost.filter(|fact| !has_effect.contains(fact));
    differences.extend(lost.map(|fact| (NOT_USED, format!("a setting is lost: {fact}"))));

    let reported = |tell: &str| first_start.stderr.contains(tell);
    let is_exact = differences.is_empty();
    differences.retain(|(tell, _)| !reported(tell));
    let mut silent: Vec<String> = differences.into_iter().map(|(_, silent)| silent).collect();
    if is_exact && variant == Variant::Checklist && reported(NOT_EXACT) {
        silent.push(format!(
            "it is exact, but it reports otherwise: {}",
            first_start.stderr
        ));
    }
    if !silent.is_empty() {
        silent.extend(first_start.logged);
        return Outcome::Silent(silent);
    }
    match is_exact {
        true => Outcome::Exact,
        false => Outcome::Told,
    }
}

/// The parts of the output of the binary `program` that must be the same after kills.
fn compared(variant: Variant) -> &'static [&'static str] {
    match variant {
        Variant::Without => &[],
        Variant::Line => &["digest", "validated", "tested"],
        Variant::Checklist => &["digest", "validated", "tested", "logged", "checkpoints"],
    }
}

/// What a program's first start reported.
struct FirstStart {
    stderr: String,
    /// The warnings and errors in Burn's application log.
    logged: Vec<String>,
}

/// Kills the program twice and lets it end. Also returns its output at its end.
fn killed_twice(program: &Program, variant: Variant) -> (FirstStart, Said) {
    let scratch = tempfile::tempdir().unwrap();
    let start = || command(program, variant, scratch.path());
    let [first, second] = program.aborts.map(|batch| format!("abort@{batch}"));
    let first = Run::of(start().arg(first));
    assert_aborted(first.status);
    let first_start = FirstStart {
        stderr: first.stderr,
        // The next start may delete the log.
        logged: warnings(scratch.path()),
    };
    let second = Run::of(start().arg(second));
    assert_aborted(second.status);
    let last = Run::of(&mut start());
    for run in [&second, &last] {
        let is_restored = run.stderr.contains(RESTORED);
        assert!(is_restored, "{} {variant:?}: {}", program.name, run.stderr);
    }
    (first_start, last.ended())
}

/// The warnings and errors in the application logs below the directory.
fn warnings(dir: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            warnings.extend(self::warnings(&path));
        } else if path.ends_with("experiment.log") {
            let log = fs::read_to_string(path).unwrap();
            let lines = log
                .lines()
                .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
            warnings.extend(lines.map(|line| format!("its log: {line}")));
        }
    }
    warnings
}

fn command(program: &Program, variant: Variant, dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_program"));
    let variant = match variant {
        Variant::Without => "without",
        Variant::Line => "line",
        Variant::Checklist => "checklist",
    };
    command
        .arg(program.name)
        .arg(variant)
        .arg(dir.join("files"));
    command.env("TMPDIR", dir);
    command
}

/// The output of a program at its end, by name.
type Said = BTreeMap<String, Vec<String>>;

fn values<'a>(said: &'a Said, what: &str) -> &'a [String] {
    said.get(what).map_or(&[], Vec::as_slice)
}

struct Run {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Run {
    fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        Self {
            status: output.status,
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Its output at its end, which it must have reached.
    #[track_caller]
    fn ended(self) -> Said {
        assert!(self.status.success(), "{}: {}", self.status, self.stderr);
        let mut said = Said::new();
        for line in self.stdout.lines() {
            if let Some((what, value)) = line.split_once(": ") {
                said.entry(what.to_owned())
                    .or_default()
                    .push(value.to_owned());
            }
        }
        assert!(said.contains_key("digest"), "{}", self.stdout);
        said
    }
}
