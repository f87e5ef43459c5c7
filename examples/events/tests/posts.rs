//! The output of the example.

use std::process::Command;

#[test]
fn each_event_is_posted_as_json_and_in_order() {
    let output = Command::new(env!("CARGO_BIN_EXE_events")).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}{complaints}");
    let posts = printed
        .lines()
        .filter_map(|line| line.strip_prefix("POST /events "));
    let events: Vec<serde_json::Value> = posts
        .map(|json| serde_json::from_str(json).unwrap())
        .collect();
    let names: Vec<_> = events
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    // An epoch has 47 batches. Backups come after every 20 batches, and at the end.
    let expected = [
        "committed",
        "committed",
        "committed",
        "finished",
        "restored",
        "committed",
        "committed",
        "committed",
        "finished",
    ];
    assert_eq!(names, expected, "{printed}");
    let restored = events.get(4).unwrap();
    assert_eq!(restored["position"]["global_step"], 47);
    assert!(printed.contains("9 events were posted to http://127.0.0.1:"));
}
