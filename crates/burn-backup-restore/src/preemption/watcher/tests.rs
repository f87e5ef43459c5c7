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
fn the_first_look_is_at_once() {
    let (_watching, notices) = notices(watcher(false, || Ok(Some(notice()))));
    assert_eq!(notices.recv(), Ok(notice()));
}

#[test]
fn a_notice_is_posted_once_and_so_is_one_that_comes_after_it() {
    let mut looks = 0_u64;
    let (_watching, notices) = notices(watcher(true, move || {
        looks += 1;
        // The same notice, possibly with another deadline.
        let notice = Notice::new(if looks < 5 { "a hint" } else { "an order" });
        let deadline = std::time::UNIX_EPOCH + Duration::from_secs(looks);
        Ok(Some(notice.with_deadline(deadline)))
    }));
    assert_eq!(notices.recv().unwrap().reason(), "a hint");
    assert_eq!(notices.recv().unwrap().reason(), "an order");
}

/// Panics in every method except `poll`.
struct Nervous;

impl PreemptionWatcher for Nervous {
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
fn a_watcher_that_panics_around_its_looks_is_asked_all_the_same() {
    let (_watching, notices) = notices(Nervous);
    assert_eq!(notices.recv(), Ok(notice()));
}

#[test]
fn a_notice_comes_after_looks_that_find_none() {
    let mut looks = 0;
    let (_watching, notices) = notices(watcher(true, move || {
        looks += 1;
        Ok((looks == 3).then(notice))
    }));
    assert_eq!(notices.recv(), Ok(notice()));
}

#[test]
fn a_failing_look_is_tried_again() {
    let mut looks = 0;
    let (_watching, notices) = notices(watcher(true, move || {
        looks += 1;
        if looks < 4 {
            broken()
        } else {
            Ok(Some(notice()))
        }
    }));
    assert_eq!(notices.recv(), Ok(notice()));
}

#[test]
fn a_panicking_look_is_tried_again() {
    let mut looks = 0;
    let (_watching, notices) = notices(watcher(true, move || {
        looks += 1;
        assert!(looks > 2, "look {looks}: this panic is part of the test");
        Ok(Some(notice()))
    }));
    assert_eq!(notices.recv(), Ok(notice()));
}

#[test]
fn dropping_it_ends_the_thread() {
    let (looked, looks) = channel();
    let (watching, notices) = notices(watcher(false, move || {
        let _ = looked.send(());
        Ok(None)
    }));
    assert_eq!(looks.recv(), Ok(()), "it is at work");
    drop(watching);
    assert_eq!(looks.recv(), Err(RecvError), "the watcher was dropped");
    assert_eq!(notices.recv(), Err(RecvError), "nothing was posted");
}

#[test]
fn dropping_it_does_not_wait_for_a_look_that_hangs() {
    let (looked, looks) = channel();
    let (release, released) = channel::<()>();
    let (watching, notices) = notices(watcher(false, move || {
        let _ = looked.send(());
        let _ = released.recv();
        Ok(Some(notice()))
    }));
    assert_eq!(looks.recv(), Ok(()), "it hangs");
    drop(watching);
    drop(release);
    assert_eq!(
        notices.recv(),
        Err(RecvError),
        "what came too late is not posted"
    );
}

#[test]
fn a_row_of_failures_is_told_loudly_once() {
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
fn a_failure_is_told_with_its_causes() {
    let mut failing = watcher(true, broken);
    assert_eq!(
        look(&mut failing),
        Err("nobody answers (cause: the cable is cut)".to_owned())
    );
    let mut panicking = watcher(true, || panic!("number {}", 7));
    assert_eq!(
        look(&mut panicking),
        Err("the watcher panicked: number 7".to_owned())
    );
}
