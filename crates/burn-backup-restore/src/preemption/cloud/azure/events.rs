//! Decides which scheduled event is a notice, from the document, the machine's name and the time.

use std::time::{Duration, SystemTime};

use jiff::fmt::rfc2822::DateTimeParser;
use serde::Deserialize;

use crate::notice::Notice;
use crate::preemption::cloud::system_time;

/// Later events are not notices yet: failing hardware is announced days ahead. This is the longest
/// warning of all other events.
const AHEAD: Duration = Duration::from_secs(15 * 60);

/// Microsoft's own examples have weekdays that don't match their dates.
static DATES: DateTimeParser = DateTimeParser::new().relaxed_weekday(true);

/// All events for this machine and for the machines that are grouped with it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Document {
    events: Vec<Event>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    event_type: String,
    #[serde(default)]
    resources: Vec<String>,
    /// Empty once the event has started.
    not_before: Option<String>,
    description: Option<String>,
}

impl Document {
    /// The first event that is about to take the machine away, if any.
    pub fn notice(&self, machine: &str, now: SystemTime) -> Option<Notice> {
        self.events
            .iter()
            .filter(|event| event.removes_machine(machine))
            .map(|event| (event.not_before(), event))
            .filter(|(deadline, _)| deadline.is_none_or(|deadline| is_near(deadline, now)))
            .min_by_key(|(deadline, _)| *deadline)
            // An event without a time is assumed to have begun.
            .map(|(deadline, event)| event.notice(machine, deadline.unwrap_or(now)))
    }
}

impl Event {
    fn removes_machine(&self, machine: &str) -> bool {
        let is_lethal = matches!(
            self.event_type.as_str(),
            "Preempt" | "Terminate" | "Reboot" | "Redeploy"
        );
        let mut resources = self.resources.iter();
        // Azure preserves the case of names, but compares them without case.
        is_lethal && resources.any(|resource| resource.eq_ignore_ascii_case(machine))
    }

    fn not_before(&self) -> Option<SystemTime> {
        let time = DATES.parse_timestamp(self.not_before.as_deref()?).ok()?;
        system_time(time)
    }

    fn notice(&self, machine: &str, deadline: SystemTime) -> Notice {
        let description = match self.description.as_deref() {
            None | Some("") => String::new(),
            Some(description) => format!(": {description}"),
        };
        let event = &self.event_type;
        let notice = Notice::new(format!(
            "Azure announces the event {event} for this machine, '{machine}'{description}"
        ));
        notice.with_deadline(deadline)
    }
}

fn is_near(deadline: SystemTime, now: SystemTime) -> bool {
    // If the deadline has passed, no time is left to compare.
    !deadline.duration_since(now).is_ok_and(|left| left > AHEAD)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const NOT_BEFORE: &str = "Mon, 19 Sep 2016 18:29:47 GMT";

    fn not_before() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_474_309_787)
    }

    fn event(event_type: &str, not_before: &str) -> Event {
        Event {
            event_type: event_type.to_owned(),
            resources: vec!["vm_0".to_owned(), "vm_1".to_owned()],
            not_before: Some(not_before.to_owned()),
            description: None,
        }
    }

    fn now() -> SystemTime {
        not_before() - Duration::from_secs(30)
    }

    /// The deadline of the notice, as vm_1 sees it half a minute before `NOT_BEFORE`.
    fn deadline(events: impl Into<Vec<Event>>) -> Option<Option<SystemTime>> {
        let events = events.into();
        let notice = Document { events }.notice("vm_1", now());
        notice.map(|notice| notice.deadline())
    }

    #[test]
    fn losing_the_machine_is_a_notice() {
        for lethal in ["Preempt", "Terminate", "Reboot", "Redeploy"] {
            assert_eq!(
                deadline([event(lethal, NOT_BEFORE)]),
                Some(Some(not_before())),
                "{lethal}"
            );
        }
        assert_eq!(deadline([]), None);
        assert_eq!(deadline([event("Freeze", NOT_BEFORE)]), None);
        assert_eq!(deadline([event("LunchBreak", NOT_BEFORE)]), None);
    }

    #[test]
    fn only_events_of_this_machine_count() {
        let seen_by = |machine| {
            let events = vec![event("Preempt", NOT_BEFORE)];
            Document { events }.notice(machine, not_before()).is_some()
        };
        assert!(seen_by("vm_0"));
        assert!(seen_by("VM_1"));
        assert!(!seen_by("vm_2"));
        assert!(!seen_by("vm"));
    }

    #[test]
    fn the_deadline_of_a_started_event_is_now() {
        assert_eq!(deadline([event("Reboot", "")]), Some(Some(now())));
        let mut started = event("Reboot", "");
        started.not_before = None;
        assert_eq!(deadline([started]), Some(Some(now())));
    }

    #[test]
    fn an_invalid_time_is_now() {
        for time in [
            "soon",
            "2016-09-19T18:29:47Z",
            "Mon, 19 Sep 0016 18:29:47 GMT",
        ] {
            assert_eq!(
                deadline([event("Preempt", time)]),
                Some(Some(now())),
                "{time}"
            );
        }
    }

    #[test]
    fn a_wrong_weekday_is_forgiven() {
        let time = "Fri, 19 Sep 2016 18:29:47 GMT";
        assert_eq!(deadline([event("Preempt", time)]), Some(Some(not_before())));
    }

    #[test]
    fn a_later_event_waits_until_a_quarter_of_an_hour_before() {
        let events = vec![event("Redeploy", NOT_BEFORE)];
        let document = Document { events };
        let seen_at = |before: u64| {
            let now = not_before() - Duration::from_secs(before);
            document.notice("vm_0", now).is_some()
        };
        assert!(!seen_at(7 * 24 * 60 * 60));
        assert!(!seen_at(901));
        assert!(seen_at(900));
        assert!(seen_at(0));
        let late = not_before() + Duration::from_secs(60);
        assert!(document.notice("vm_0", late).is_some());
    }

    #[test]
    fn the_first_of_several_events_counts() {
        let later = "Mon, 19 Sep 2016 18:35:00 GMT";
        assert_eq!(
            deadline([event("Redeploy", later), event("Preempt", NOT_BEFORE)]),
            Some(Some(not_before()))
        );
        assert_eq!(
            deadline([event("Preempt", NOT_BEFORE), event("Reboot", "")]),
            Some(Some(now())),
            "the one that has started"
        );
        let next_week = "Mon, 26 Sep 2016 18:29:47 GMT";
        assert_eq!(
            deadline([event("Redeploy", next_week), event("Preempt", NOT_BEFORE)]),
            Some(Some(not_before()))
        );
    }
}
