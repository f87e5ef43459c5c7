//! `burn-backup run`: starts a training, and restarts it until it is finished.

mod beat;
mod child;
mod end;
mod event_log;
mod hang;
mod policy;
mod progress;
mod signals;
mod tail;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;

use beat::BeatFile;
use child::Child;
use end::End;
use event_log::EventLog;
use hang::HangWatch;
use policy::{Decision, Limits, Policy};
use progress::Progress;
use signals::Signals;

/// How often the child is checked.
const TICK: Duration = Duration::from_millis(100);

/// How long the child may take to end after a second signal.
const URGENT: Duration = Duration::from_secs(2);

/// How long a hung child may take to print its stacks.
const STACKS: Duration = Duration::from_secs(5);

/// Starts a training, and restarts it after a crash, a kill or a hang, or on request, until it is finished.
///
/// The exit code is the code of the command. By convention, the command requests a restart with code 75, and code 78
/// means "fix this first": burn-backup-restore uses both. The exit code is also 78 if restarts make no progress.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Gives up after this many restarts in a row without a new backup.
    #[arg(long, value_name = "N", default_value_t = 5)]
    max_restarts: u32,

    /// Counts only the restarts within this period. By default all restarts count if the command reports its backups.
    /// Otherwise the restarts of the last hour count.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    restart_window: Option<Duration>,

    /// The wait before the first restart after a failure. Each further wait is twice as long.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1s")]
    backoff: Duration,

    /// The longest wait before a restart.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    max_backoff: Duration,

    /// How long the command may take to end after a signal, before it is killed.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
    grace: Duration,

    /// The time without a batch after which the command counts as hung. It is longer for a command with slow batches. 0
    /// turns this off.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30min")]
    hang_timeout: Duration,

    /// Further exit codes that request a restart, besides 75.
    #[arg(long, value_name = "CODE")]
    again: Vec<i32>,

    /// Further exit codes that mean "fix this first", besides 78 and 2.
    #[arg(long, value_name = "CODE")]
    fix_first: Vec<i32>,

    /// Also writes the events to this file.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,

    /// The command and its arguments.
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Parses `90s`, `5min` or `1h 30m`. A number without a unit is in seconds.
fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string());
    }
    let parsed: jiff::SignedDuration = text
        .parse()
        .map_err(|error: jiff::Error| error.to_string())?;
    Duration::try_from(parsed).map_err(|_| "a time can't be negative".to_owned())
}

/// Runs the command until it is finished, or a restart can't help.
///
/// # Errors
///
/// If the command can't be started, or signals can't be handled.
pub fn run(arguments: &Arguments, is_json: bool) -> Result<ExitCode> {
    let signals = Signals::handle().context("cannot handle signals")?;
    let beats = BeatFile::create().context("cannot create the heartbeat file")?;
    let mut supervisor = Supervisor {
        arguments,
        signals,
        beats,
        event_log: EventLog::open(arguments.log.as_deref(), is_json)?,
        policy: Policy::new(Limits {
            max_restarts: arguments.max_restarts,
            window: arguments.restart_window,
            backoff: arguments.backoff,
            max_backoff: arguments.max_backoff,
        }),
        progress: Progress::new(Instant::now()),
        last_end: None,
    };
    let ended = supervisor.supervise();
    let summary = supervisor.progress.summary(Instant::now());
    supervisor.event_log.say(&summary);
    ended.map(ExitCode::from)
}

struct Supervisor<'a> {
    arguments: &'a Arguments,
    signals: Signals,
    beats: BeatFile,
    event_log: EventLog,
    policy: Policy,
    progress: Progress,
    /// How the previous run ended, in words.
    last_end: Option<String>,
}

/// How one run of the command ended.
struct Ran {
    end: End,
    /// Whether it ended after a signal that was passed on to it.
    is_asked: bool,
    /// The last lines of its error output, if it was captured.
    tail: Vec<String>,
}

impl Supervisor<'_> {
    fn supervise(&mut self) -> Result<u8> {
        loop {
            let ran = self.run_once()?;
            let words = ran.end.to_string();
            self.event_log.say(&match self.progress.position() {
                Some(position) => format!("the command {words} at {position}"),
                None => format!("the command {words}"),
            });
            if ran.is_asked {
                return Ok(ran.end.code());
            }
            let meaning = ran
                .end
                .meaning(&self.arguments.again, &self.arguments.fix_first);
            let made_progress = self.progress.take_has_news();
            let reports_backups = self.progress.reports_backups();
            let now = Instant::now();
            match self
                .policy
                .decide(meaning, made_progress, reports_backups, now)
            {
                Decision::End => return Ok(ran.end.code()),
                Decision::GiveUp { restarts } => {
                    self.give_up(restarts, &ran);
                    return Ok(end::FIX_FIRST);
                }
                Decision::Restart { after } => {
                    if self.is_stopped_within(after) {
                        self.event_log
                            .say("a signal ends the wait: the command is not started again");
                        return Ok(ran.end.code());
                    }
                }
            }
            self.last_end = Some(words);
            self.progress.restarted();
        }
    }

    /// Runs the command once.
    fn run_once(&mut self) -> Result<Ran> {
        self.beats.clear()?;
        let command = &self.arguments.command;
        let mut child = Child::start(command, self.beats.path(), self.last_end.as_deref())
            .with_context(|| format!("cannot start {command:?}"))?;
        self.event_log
            .say(&format!("process {} is started", child.id()));
        self.progress.began(Instant::now());
        let mut hang = HangWatch::new(self.arguments.hang_timeout, self.progress.longest_gap());
        let mut kill_at: Option<Instant> = None;
        let mut quit_at: Option<Instant> = None;
        let mut asked_at: Option<Instant> = None;
        let mut is_hung = false;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            let now = Instant::now();
            if let Some(beat) = self.beats.read() {
                hang.beat(beat.count, now);
                self.progress.record_heartbeat(&beat, now);
            }
            if let Some(limit) = hang
                .exceeded(now)
                .filter(|_| !is_hung && asked_at.is_none())
            {
                is_hung = true;
                self.event_log.say(&format!(
                    "process {} hangs: no batch for {:.1?}",
                    child.id(),
                    limit
                ));
                let asks = child.ask_for_stacks();
                quit_at = Some(if asks { now + STACKS } else { now });
            }
            if quit_at.take_if(|at| *at <= now).is_some() {
                child.terminate();
                kill_at = Some(now + self.arguments.grace);
            }
            if kill_at.take_if(|at| *at <= now).is_some() {
                self.event_log
                    .say(&format!("process {} is killed: it did not end", child.id()));
                child.kill();
            }
            let Some(signal) = self.signals.next(TICK) else {
                continue;
            };
            let is_first = asked_at.is_none();
            asked_at = Some(now);
            self.event_log.say(&format!(
                "{} is passed on to process {}",
                signal.as_str(),
                child.id()
            ));
            child.pass_on(signal);
            if signals::ends(signal) {
                let limit = if is_first {
                    self.arguments.grace
                } else {
                    URGENT
                };
                kill_at = Some(kill_at.map_or(now + limit, |at| at.min(now + limit)));
            }
        };
        let now = Instant::now();
        if let Some(beat) = self.beats.read() {
            self.progress.record_heartbeat(&beat, now);
        }
        self.progress.ended(now, hang.longest_gap());
        let is_asked = asked_at.is_some_and(|at| now - at <= self.arguments.grace + URGENT);
        Ok(Ran {
            end: match is_hung {
                true => End::Hung,
                false => End::of(status),
            },
            is_asked,
            tail: child.finish(),
        })
    }

    /// Waits before a restart. Returns whether a signal ended the wait.
    fn is_stopped_within(&mut self, after: Duration) -> bool {
        if !after.is_zero() {
            self.event_log
                .say(&format!("it is started again in {after:.1?}"));
        }
        let until = Instant::now() + after;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if self.signals.next(left.min(TICK)).is_some() {
                return true;
            }
            if left.is_zero() {
                return false;
            }
        }
    }

    fn give_up(&mut self, restarts: u32, ran: &Ran) {
        self.event_log.say(&format!(
            "GIVING UP: {restarts} restarts without a new backup; the last time the command {}; fix the cause, or \
             allow more with --max-restarts",
            ran.end
        ));
        if !ran.tail.is_empty() {
            self.event_log.say("the last lines of its error output:");
        }
        for line in &ran.tail {
            self.event_log.say(&format!("    {line}"));
        }
        if let Some(log) = &self.arguments.log {
            self.event_log
                .say(&format!("earlier events are in '{}'", log.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_given_with_a_unit_or_in_seconds() {
        let seconds = |text: &str| duration(text).map(|time| time.as_secs_f64()).ok();
        assert_eq!(seconds("90s"), Some(90.0));
        assert_eq!(seconds("0"), Some(0.0));
        assert_eq!(seconds("1.5"), Some(1.5));
        assert_eq!(seconds("5min"), Some(300.0));
        assert_eq!(seconds("1h 30m"), Some(5400.0));
        assert_eq!([seconds("-5s"), seconds("-1"), seconds("soon")], [None; 3]);
    }
}
