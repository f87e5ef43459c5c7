//! Formats numbers and times for readers.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];

/// A size, with three digits: "12.3 MB".
pub fn bytes(bytes: u64) -> String {
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    for unit in UNITS {
        // A value that rounds to 1000 belongs to the next unit.
        if value < 999.5 {
            let digits = match value {
                value if value < 9.995 => 2,
                value if value < 99.95 => 1,
                _ => 0,
            };
            return format!("{value:.digits$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.0} EB")
}

/// A point in time, to the second.
pub fn moment(time: SystemTime) -> String {
    match Timestamp::try_from(time) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => "at an invalid time".to_owned(),
    }
}

/// How long ago it was.
pub fn ago(time: SystemTime) -> String {
    match time.elapsed() {
        Ok(age) => format!("{} ago", span(age)),
        Err(_) => "in the future".to_owned(),
    }
}

/// A time in seconds: "3 min".
pub fn seconds(seconds: f64) -> String {
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration < Duration::from_secs(10) => format!("{seconds:.3} s"),
        Ok(duration) => span(duration),
        Err(_) => format!("{seconds} s"),
    }
}

fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A number, with five digits.
pub fn number(number: f64) -> String {
    match number.abs() {
        0.0 => "0".to_owned(),
        size if (1e-3..1e5).contains(&size) => {
            let decimals = (4.0 - size.log10().floor()).max(0.0) as usize;
            format!("{number:.decimals$}")
        }
        _ => format!("{number:.4e}"),
    }
}

/// A count with its noun: "1 part", "2 parts".
pub fn count(count: usize, thing: &str) -> String {
    match count {
        1 => format!("1 {thing}"),
        count => format!("{count} {thing}s"),
    }
}

/// The text, with control characters replaced so that it can't move the cursor of a terminal.
pub fn plain(text: &str) -> String {
    let replaced = |character: char| match character.is_control() && character != '\n' {
        true => char::REPLACEMENT_CHARACTER,
        false => character,
    };
    text.chars().map(replaced).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        let table = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (9_994, "9.99 kB"),
            (9_996, "10.0 kB"),
            (99_960, "100 kB"),
            (999_600, "1.00 MB"),
            (12_345_678, "12.3 MB"),
            (u64::MAX, "18 EB"),
        ];
        for (size, expected) in table {
            assert_eq!(bytes(size), expected, "{size}");
        }
    }

    #[test]
    fn numbers_have_five_digits() {
        let table = [
            (0.0, "0"),
            (5.0, "5.0000"),
            (-0.001_234_567, "-0.0012346"),
            (12_345.67, "12346"),
            (1e-9, "1.0000e-9"),
            (1e300, "1.0000e300"),
            (f64::NAN, "NaN"),
        ];
        for (value, expected) in table {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn times_have_one_unit() {
        let table = [
            (0.0421, "0.042 s"),
            (9.9, "9.900 s"),
            (61.0, "61 s"),
            (125.0, "2 min"),
            (7_300.0, "2 h"),
            (200_000.0, "2 days"),
            (-1.0, "-1 s"),
        ];
        for (time, expected) in table {
            assert_eq!(seconds(time), expected, "{time}");
        }
    }
}
