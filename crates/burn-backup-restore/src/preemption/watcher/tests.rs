use std::sync::mpsc::RecvError;

use super::testing::{FromFn, notices};
use super::*;

type Seen = Result<Option<Notice>, Box<dyn Error + Send + Sync>>;

fn broken() -> Seen {
    let cause = io::Error::other("the cable is cut");
    Err(Box::new(io::Error::other(Causing(cause))))
}

#[derive(Debug, thiserror::Error)]
#[error("nobody answers")]
struct Causing(#[source] io::Error);

fn notice() -> Notice {
    Notice::new("a test")
}

/// Polls as often as possible, or once a day.
fn watcher(
    is_quick: bool,
    poll: impl FnMut() -> Seen + Send + 'static,
) -> FromFn<impl FnMut() -> Seen + Send + 'static> {
    let interval = if is_quick { 0 } else { 24 * 60 * 60 };
    FromFn(Duration::from_secs(interval), poll)
}

#[test]
fn the_first_poll_is_immediate() {
    let (_watchers, notices) = notices(watcher(false, || Ok(Some(notice()))));
    assert_eq!(notices.recv(), Ok(notice()));
}

#[test]
fn a_notice_is_posted_once_and_so_is_the_next_one() {
    let mut polls = 0_u64;
    let (_watchers, notices) = notices(watcher(true, move || {
        polls += 1;
        // The same notice, possibly with another deadline.
        let notice = Notice::new(if polls < 5 { "a hint" } else { "an order" });
        let deadline = std::time::UNIX_EPOCH + Duration::from_secs(polls);
        Ok(Some(notice.with_deadline(deadline)))
    }));
    assert_eq!(notices.recv().unwrap().reason(), "a hint");
    assert_eq!(notices.recv().unwrap().reason(), "an order");
}

/// Panics in every method except `poll`.
struct PanickingWatcher;

impl PreemptionWatcher for PanickingWatcher {
    fn name(&self) -> String {
        panic!("this panic is part of the test");
    }

    fn poll(&mut self) -> Seen {
        Ok(Some(notice()))
    }

    fn interval(&self) -> Duration {
        panic!("this panic is part of the test");
    }
}

#[test]
fn a_watcher_that_panics_around_its_polls_is_still_polled() {
    let (_watchers, notices) = notices(PanickingWatcher);
    assert_eq!(notices.recv(), Ok(notice()));
}

#[test]
fn a_notice_comes_after_polls_without_one() {
    let mut polls = 0;
    let (_watchers, notices) = notices(watcher(true, move || {
        polls += 1;
        Ok((polls == 3).then(notice))
    }));
    assert_eq!(notices.recv(), Ok(notice()));
}

#[test]
fn a_failing_poll_is_retried() {
    let mut polls = 0;
    let (_watchers, notices) = notices(watcher(true, move || {
        polls += 1;
        if polls < 4 {
            broken()
        } else {
            Ok(Some(notice()))
        }
    }));
    assert_eq!(notices.recv(), Ok(notice()));
}

#[test]
fn a_panicking_poll_is_retried() {
    let mut polls = 0;
    let (_watchers, notices) = notices(watcher(true, move || {
        polls += 1;
        assert!(polls > 2, "poll {polls}: this panic is part of the test");
        Ok(Some(notice()))
    }));
    assert_eq!(notices.recv(), Ok(notice()));
}

#[test]
fn dropping_it_ends_the_thread() {
    let (polled, polls) = channel();
    let (watching, notices) = notices(watcher(false, move || {
        let _ = polled.send(());
        Ok(None)
    }));
    assert_eq!(polls.recv(), Ok(()), "the watcher polls");
    drop(watching);
    assert_eq!(polls.recv(), Err(RecvError), "the watcher was dropped");
    assert_eq!(notices.recv(), Err(RecvError), "nothing was posted");
}

#[test]
fn dropping_it_does_not_wait_for_a_poll_that_hangs() {
    let (polled, polls) = channel();
    let (release, released) = channel::<()>();
    let (watching, notices) = notices(watcher(false, move || {
        let _ = polled.send(());
        let _ = released.recv();
        Ok(Some(notice()))
    }));
    assert_eq!(polls.recv(), Ok(()), "it hangs");
    drop(watching);
    drop(release);
    assert_eq!(
        notices.recv(),
        Err(RecvError),
        "a late notice is not posted"
    );
}

#[test]
fn repeated_failures_are_one_warning() {
    let mut failures = Failures::default();
    assert!(!failures.end());
    assert_eq!(failures.add("it is off"), log::Level::Warn);
    assert_eq!(failures.add("it is off"), log::Level::Debug);
    assert_eq!(failures.add("it is on fire"), log::Level::Warn);
    assert_eq!(failures.add("it is on fire"), log::Level::Debug);
    assert!(failures.end());
    assert!(!failures.end());
    assert_eq!(failures.add("it is on fire"), log::Level::Warn);
}

#[test]
fn a_failure_is_logged_with_its_causes() {
    let mut failing = watcher(true, broken);
    assert_eq!(
        poll_once(&mut failing),
        Err("nobody answers (cause: the cable is cut)".to_owned())
    );
    let mut panicking = watcher(true, || panic!("number {}", 7));
    assert_eq!(
        poll_once(&mut panicking),
        Err("the watcher panicked: number 7".to_owned())
    );
}
