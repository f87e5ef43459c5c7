//! Reads Burn's metric logs: `<dir>/<split>/epoch-<n>/<metric>.log`. A line is a value, a value with its count, or the
//! metric's own value for the epoch, marked as final.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::curves::Curve;
use crate::exit::{Exit, refuse};

const SPLITS: [&str; 2] = ["train", "valid"];

/// The values of all logged epochs.
pub fn read(dir: &Path) -> Result<Vec<Curve>> {
    if !SPLITS.iter().any(|split| dir.join(split).is_dir()) {
        return Err(refuse(
            Exit::Failed,
            format!(
                "there are no metric logs in '{}': give the directory that contains 'train' and 'valid'",
                dir.display()
            ),
        ));
    }
    let mut curves = Vec::new();
    for split in SPLITS {
        let mut metrics: BTreeMap<String, BTreeMap<u64, f64>> = BTreeMap::new();
        for epoch_dir in entries(&dir.join(split))? {
            let name = epoch_dir.file_name().to_string_lossy().into_owned();
            let Some(epoch) = name
                .strip_prefix("epoch-")
                .and_then(|number| number.parse().ok())
            else {
                continue;
            };
            for log in entries(&epoch_dir.path())? {
                let name = log.file_name().to_string_lossy().into_owned();
                let Some(metric) = name.strip_suffix(".log") else {
                    continue;
                };
                if let Some(value) = value_of(&log.path())? {
                    let values = metrics.entry(metric.replace('_', " ")).or_default();
                    values.insert(epoch, value);
                }
            }
        }
        let of_split = metrics.into_iter();
        curves.extend(of_split.map(|(metric, values)| Curve::new(&metric, split, "logs", values)));
    }
    Ok(curves)
}

/// The entries of a directory. A missing directory has none.
fn entries(dir: &Path) -> Result<Vec<fs::DirEntry>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(dir).and_then(|entries| entries.collect());
    entries.with_context(|| format!("cannot read '{}'", dir.display()))
}

fn value_of(path: &Path) -> Result<Option<f64>> {
    /// A log has a line for each batch.
    const LONGEST: u64 = 1 << 30;
    let read = || {
        ensure!(path.metadata()?.len() <= LONGEST, "it is too long");
        // The last line may be incomplete, so the text may not be valid UTF-8.
        Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
    };
    let text = read().with_context(|| format!("cannot read '{}'", path.display()))?;
    Ok(value(&text))
}

/// The value of an epoch: the final one, or the mean of the lines.
fn value(text: &str) -> Option<f64> {
    let (mut sum, mut count, mut is_final) = (0.0, 0.0, None);
    for line in text.lines() {
        let (value, times) = line.split_once(',').unwrap_or((line, "1"));
        let Ok(value) = value.trim().parse::<f64>() else {
            continue;
        };
        if times == "final" {
            is_final = Some(value);
        } else if let Ok(times) = times.parse::<u64>() {
            sum += value * times as f64;
            count += times as f64;
        }
    }
    is_final.or((count > 0.0).then(|| sum / count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_final_value_or_the_mean_is_used() {
        let table = [
            ("50,4\n25,4\n", Some(37.5)),
            ("1\n2\n", Some(1.5)),
            ("1,1\n4,2\n", Some(3.0)),
            ("1,1\n7,final\n", Some(7.0)),
            ("1,1\n4,", Some(1.0)),
            ("words\n", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(value(text), expected, "{text:?}");
        }
        assert!(value("NaN,1\n").unwrap().is_nan());
    }
}
