//! Backups within a share of the training's time.

use std::time::Duration;

use crate::trainee::Scratch;

/// What the example printed at its end.
struct Said {
    /// `12` in `12 backups of 3 bytes in all`.
    backups: u64,
    /// How long backups paused the training: at least in all, and at most by one (`blocked_max`).
    held: Duration,
    blocked_max: Duration,
    /// The line on the share: how many backups, how many batches between two, the percentage, and
    /// how long the training took at most.
    share: Option<(u64, u64, f64, Duration)>,
    digest: String,
}

impl Said {
    fn parse(stdout: &str) -> Self {
        let line = |start: &str| stdout.lines().find_map(|line| line.strip_prefix(start));
        let held = stdout.lines().find(|line| line.contains(" backups of "));
        let (backups, held) = held.unwrap().split_once(" backups of ").unwrap();
        let (_, held) = held.split_once("was held ").unwrap();
        let (held, worst) = held.split_once(" by them in all, ").unwrap();
        let worst = worst.strip_suffix(" at worst").unwrap();
        let share = line("backups: ").map(|share| {
            let (committed, share) = share.split_once(", every ").unwrap();
            let (interval, share) = share.split_once(" batches, ").unwrap();
            let (percent, took) = share.split_once(" % of the time, which was ").unwrap();
            let number = |text: &str| text.parse().unwrap();
            let (_, took) = printed(took);
            (
                number(committed),
                number(interval),
                percent.parse().unwrap(),
                took,
            )
        });
        Self {
            backups: backups.parse().unwrap(),
            held: printed(held).0,
            blocked_max: printed(worst).1,
            share,
            digest: line("digest of the weights: ").unwrap().to_owned(),
        }
    }
}

/// The smallest and the largest time that is printed like this, with one decimal place.
fn printed(text: &str) -> (Duration, Duration) {
    let units = [("ns", 1e-9), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    let with_unit = |(unit, seconds): &(&str, f64)| Some((text.strip_suffix(unit)?, *seconds));
    let (number, unit) = units.iter().find_map(with_unit).unwrap();
    let number: f64 = number.parse().unwrap();
    let at = |number: f64| Duration::from_secs_f64(number.max(0.0) * unit);
    (at(number - 0.051), at(number + 0.051))
}

/// Trains for an epoch with this frequency.
fn train(frequency: &str) -> Said {
    Said::parse(&Scratch::new().train(&["--epochs", "1", "--save-freq", frequency]))
}

#[test]
fn a_share_of_the_time_is_kept_and_changes_nothing_in_the_training() {
    let never = train("never");
    assert_eq!(never.backups, 0);
    assert!(never.share.is_none());

    for (frequency, max_overhead) in [("0.001%", 1e-5), ("25%", 0.25), ("1000%", 10.0)] {
        let said = train(frequency);
        assert_eq!(said.digest, never.digest, "{frequency}");
        let (committed, interval, percent, took) = said.share.unwrap();
        assert_eq!(committed, said.backups);
        assert!(committed >= 1, "that at the end");
        assert!(interval >= 1 && percent >= 0.0);
        // All backups except the last are paid for. The wait at the end belongs to no backup.
        let paid = said.held.saturating_sub(2 * said.blocked_max);
        let trained = took.saturating_sub(said.held);
        assert!(
            paid <= trained.mul_f64(max_overhead),
            "{paid:?} of {trained:?} with {frequency}"
        );
        // The printed percentage includes the pauses and the slowdown by backups.
        let percentage = 100.0 * said.held.div_duration_f64(took);
        assert!(percent >= percentage - 0.1, "{percent} {percentage}");
        if max_overhead < 1e-3 {
            // An epoch would have to take a quarter of an hour.
            assert_eq!(committed, 1);
        }
        if max_overhead > 1.0 {
            // It takes more than a thousandth of a second.
            assert!(committed >= 2, "{committed}");
        }
    }
}

#[test]
fn a_time_changes_nothing_in_the_training() {
    let never = train("never");
    for (frequency, backups) in [("1ms", 2..=49), ("24h", 1..=1)] {
        let said = train(frequency);
        assert_eq!(said.digest, never.digest);
        assert!(said.share.is_none());
        assert!(
            backups.contains(&said.backups),
            "{} {frequency}",
            said.backups
        );
    }
}

#[test]
fn a_meaningless_frequency_is_refused() {
    for (frequency, says) in [
        (
            "sometimes",
            "give \"epoch\", a number of batches, a time such as \"30s\"",
        ),
        ("0s", "Every with a duration above 0"),
        ("0%", "Auto with a finite share above 0"),
    ] {
        let stderr = Scratch::new().refuse(&["--save-freq", frequency]);
        assert!(stderr.contains(says), "{stderr}");
    }
}
