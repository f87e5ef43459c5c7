//! Replaces the parts of the output that differ in each run.

use std::path::Path;

const AGES: [&str; 4] = ["s", "min", "h", "days"];

/// The text without paths, times, run IDs, and column widths.
pub fn normal(text: &str, dir: &Path) -> String {
    let text = text.replace(&dir.display().to_string(), "<DIR>");
    let mut is_json = false;
    let lines = text.lines().map(|line| {
        is_json = (is_json || line == "{") && line != "}";
        if is_json {
            return words(line);
        }
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        let is_drawing = rest.chars().any(|c| "│└┊".contains(c));
        match is_drawing {
            true => line.to_owned(),
            false => {
                // Right-aligned columns begin with blanks.
                let indent = if indent.len() > 6 { "" } else { indent };
                format!("{indent}{}", columns(&words(rest)))
            }
        }
    });
    lines.map(|line| line + "\n").collect()
}

fn columns(line: &str) -> String {
    let columns = line
        .split("  ")
        .map(str::trim)
        .filter(|column| !column.is_empty());
    columns.collect::<Vec<_>>().join("  ")
}

fn words(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let mut normal: Vec<String> = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let word = words[at];
        let is_age = words
            .get(at + 2)
            .is_some_and(|word| word.starts_with("ago"))
            && AGES.contains(&words[at + 1])
            && word.trim_start_matches('(').parse::<u64>().is_ok();
        if is_age {
            normal.push(
                word.chars()
                    .filter(|c| *c == '(')
                    .chain("<AGO>".chars())
                    .collect(),
            );
            normal.push(words[at + 2].trim_start_matches("ago").to_owned());
            at += 3;
        } else if is_date(word)
            && words
                .get(at + 2)
                .is_some_and(|word| word.starts_with("UTC"))
        {
            normal.push("<TIME>".to_owned());
            at += 3;
        } else {
            normal.push(one(word));
            at += 1;
        }
    }
    normal.join(" ")
}

fn one(word: &str) -> String {
    let bare = word.trim_matches(|c: char| "\",;()".contains(c));
    let is_time = bare.len() > 19
        && is_date(&bare[..10])
        && bare.ends_with('Z')
        && bare.as_bytes()[10] == b'T';
    let is_run = bare.len() == 16 && bare.bytes().all(|byte| byte.is_ascii_hexdigit());
    match (is_time, is_run) {
        (true, _) => word.replace(bare, "<TIME>"),
        (_, true) => word.replace(bare, "<RUN>"),
        _ => word.to_owned(),
    }
}

fn is_date(word: &str) -> bool {
    let form: String = word
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    form == "0000-00-00"
}

#[test]
fn varying_text_is_replaced() {
    let text = "made  12 days ago  (3 min ago)  in /tmp/x/backup\n\"created\": \"2026-11-26T12:59:47.75Z\",\n\
                committed: 2026-11-26 12:59:47 UTC (8 h ago)\nrun 810c8ddb2698ea50 of 12 s\n";
    let expected = "made  <AGO>  (<AGO> )  in <DIR>/backup\n\"created\": \"<TIME>\",\n\
                    committed: <TIME> (<AGO> )\nrun <RUN> of 12 s\n";
    assert_eq!(normal(text, Path::new("/tmp/x")), expected);
}
