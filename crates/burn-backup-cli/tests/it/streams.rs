//! The output streams: reports, errors, and closed streams.

use std::fs;
use std::process::Stdio;

use crate::backups::training;
use crate::program::{Ran, Scratch};

#[test]
fn a_closed_pipe_is_no_failure() {
    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    for command in [
        "list backup",
        "show backup --json",
        "completions bash",
        "man",
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = scratch
            .command(command)
            .stdout(Stdio::from(writer))
            .output()
            .unwrap();
        let ran = Ran::of(command, &output).good();
        assert_eq!(ran.err, "", "{}", ran.text());
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_a_failure() {
    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = scratch
        .command("list backup")
        .stdout(Stdio::from(full))
        .output()
        .unwrap();
    Ran::of("list backup", &output)
        .ends_with(1)
        .says(&["cannot write to the standard output"]);
}

#[test]
fn there_are_no_colours_and_no_bars_without_a_terminal() {
    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    for command in [
        "list backup",
        "verify backup",
        "show backup",
        "history backup",
        "show nothing",
    ] {
        let ran = scratch.run(command);
        assert!(!ran.text().contains('\u{1b}'), "{}", ran.text());
    }
}

#[test]
fn a_backup_can_not_send_escape_sequences_to_the_terminal() {
    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    let ran = scratch.run("show backup").good();
    assert!(
        ran.out.contains("label:           the \u{fffd}[31mbest"),
        "{}",
        ran.out
    );
}

#[test]
fn charts_are_written_as_svg() {
    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    scratch
        .run("history backup --svg charts/all.svg")
        .good()
        .prints(&["charts/all.svg"]);
    let svg = fs::read_to_string(scratch.join("charts/all.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
    for text in ["Loss", "Accuracy", "train", "valid", "resumed"] {
        assert!(svg.lines().any(|line| line == text), "{text}");
    }
    // The file is overwritten.
    scratch
        .run("history backup --metric Loss --svg charts/all.svg")
        .good();
    assert!(
        fs::read_to_string(scratch.join("charts/all.svg"))
            .unwrap()
            .len()
            < svg.len()
    );
    scratch
        .run("history backup --logs nowhere")
        .ends_with(1)
        .says(&["no metric logs in 'nowhere'"]);
}

#[test]
fn completions_and_manual_pages_are_made() {
    let scratch = Scratch::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        scratch
            .run(&format!("completions {shell}"))
            .good()
            .prints(&["burn-backup", "unquarantine"]);
    }
    scratch
        .run("man")
        .good()
        .prints(&[".TH burn", "Exit codes"]);
    scratch.run("man --to pages").good();
    let page = fs::read_to_string(scratch.join("pages/burn-backup-prune.1")).unwrap();
    assert!(page.contains("keep"));
    assert!(fs::read_dir(scratch.join("pages")).unwrap().count() >= 15);
}
