//! Runs the program.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

/// Runs the program, and returns its output.
fn call(arguments: &[&str], dir: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_burn-backup-bench"))
        .args(arguments)
        .current_dir(dir)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_quick_measurement_prints_its_table_and_writes_its_file() {
    let scratch = tempfile::tempdir().unwrap();
    let table = call(&["--quick", "--only", "loading"], scratch.path());
    for row in [
        "cheap items, 1 worker",
        "waiting unevenly, 8 workers",
        "to batch 1000",
    ] {
        assert!(table.contains(row), "{table}");
    }
    let json = std::fs::read(scratch.path().join("backup-bench.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(report["rows"].as_array().unwrap().len(), 19);
    assert_eq!(report["is_quick"], true);
}

#[test]
fn a_repeatedly_killed_training_has_goodput_and_a_chart() {
    let scratch = tempfile::tempdir().unwrap();
    // The first kill of this seed comes after a thirtieth of the mean. So even a short training is killed.
    let arguments = "--quick --only goodput --policies epoch,burns --kill-seed 7";
    let arguments: Vec<_> = arguments.split(' ').collect();
    let table = call(&arguments, scratch.path());
    assert!(table.contains("1M, MTBF 0.5 s | epoch"), "{table}");

    let json = std::fs::read(scratch.path().join("backup-bench.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let outcomes = report["goodput"].as_array().unwrap();
    assert_eq!(outcomes.len(), 2);
    for outcome in outcomes {
        let goodput = outcome["goodput"].as_f64().unwrap();
        assert!((0.0..1.5).contains(&goodput), "{outcome}");
        assert!(outcome["kills"].as_u64().unwrap() > 0, "{outcome}");
    }

    let first = std::fs::read(scratch.path().join("bench-goodput.svg")).unwrap();
    let again = call(
        &["charts", "backup-bench.json", "--charts", "again"],
        scratch.path(),
    );
    assert_eq!(again, table);
    let second = std::fs::read(scratch.path().join("again/bench-goodput.svg")).unwrap();
    assert!(!first.is_empty() && first == second);
}
