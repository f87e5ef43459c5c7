//! How often to take a backup, as given on a command line.

use std::time::Duration;

use burn_backup_restore::SaveFreq;

/// The units of a time, in seconds.
const UNITS: [(&str, f64); 4] = [("ms", 1e-3), ("s", 1.0), ("min", 60.0), ("h", 3600.0)];

/// A word, a number of batches, a time or a share.
///
/// # Errors
///
/// The valid forms, if `text` has none of them.
pub fn parse(text: &str) -> Result<SaveFreq, String> {
    let wrong = || {
        "give \"epoch\", a number of batches, a time such as \"30s\" (or in ms, min or h), a share of \
         the training's time such as \"1%\", \"continuous\" or \"never\""
            .to_owned()
    };
    match text {
        "epoch" => return Ok(SaveFreq::Epoch),
        "continuous" => return Ok(SaveFreq::Continuous),
        "never" => return Ok(SaveFreq::Never),
        _ => {}
    }
    if let Ok(batches) = text.parse() {
        return Ok(SaveFreq::Steps(batches));
    }
    let unit_at = text.find(|c: char| c.is_alphabetic() || c == '%');
    let (number, unit) = text.split_at(unit_at.ok_or_else(wrong)?);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    if unit == "%" {
        return Ok(SaveFreq::auto(number / 100.0));
    }
    let seconds = UNITS.iter().find(|(name, _)| *name == unit);
    let (_, seconds) = seconds.ok_or_else(wrong)?;
    let interval = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
    Ok(SaveFreq::Every(interval))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frequency_is_a_word_a_number_a_time_or_a_share() {
        let every = |seconds| Ok(SaveFreq::Every(Duration::from_secs_f64(seconds)));
        let auto = |share| Ok(SaveFreq::auto(share));
        assert_eq!(parse("epoch"), Ok(SaveFreq::Epoch));
        assert_eq!(parse("continuous"), Ok(SaveFreq::Continuous));
        assert_eq!(parse("never"), Ok(SaveFreq::Never));
        assert_eq!(parse("500"), Ok(SaveFreq::Steps(500)));
        assert_eq!(parse("250ms"), every(0.25));
        assert_eq!(parse("30s"), every(30.0));
        assert_eq!(parse("1.5min"), every(90.0));
        assert_eq!(parse("2h"), every(7200.0));
        assert_eq!(parse("1%"), auto(0.01));
        assert_eq!(parse("0.5%"), auto(0.005));
        let wrongs = [
            "", "epochs", "1.5", "-3", "s", "30 s", "-1s", "1d", "%", "1%s", "1s%", "1e400s",
        ];
        for wrong in wrongs {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
