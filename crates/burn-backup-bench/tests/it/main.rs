//! The program, as it is called.

use std::process::Command;

#[test]
fn a_quick_measurement_prints_its_table_and_writes_its_file() {
    let scratch = tempfile::tempdir().unwrap();
    let json = scratch.path().join("loading.json");
    let output = Command::new(env!("CARGO_BIN_EXE_burn-backup-bench"))
        .args(["--quick", "--only", "loading"])
        .arg("--dir")
        .arg(scratch.path())
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    assert!(output.status.success());
    let table = String::from_utf8(output.stdout).unwrap();
    for row in [
        "cheap items, 1 worker",
        "waiting unevenly, 8 workers",
        "to batch 1000",
    ] {
        assert!(table.contains(row), "{table}");
    }
    let json = std::fs::read(json).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(report["rows"].as_array().unwrap().len(), 19);
    assert_eq!(report["is_quick"], true);
}
