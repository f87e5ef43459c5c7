use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::UNIX_EPOCH;

use super::*;
use crate::preemption::cloud::server::{Request, Server, response};
use crate::preemption::watcher::testing::first_notice;

const GET_NAME: &str = "GET /metadata/instance/compute/name?api-version=2021-02-01&format=text";
const GET_EVENTS: &str = "GET /metadata/scheduledevents?api-version=2020-07-01";

const NO_EVENTS: &str = r#"{"DocumentIncarnation": 1, "Events": []}"#;

/// A metadata service as Microsoft documents it, of the machine "vm_0".
struct Service {
    events: String,
}

impl Service {
    fn answer(&self, request: &Request) -> Vec<u8> {
        if request.header("Metadata") != Some("true") {
            return response(400, "", "");
        }
        match request.line.as_str() {
            GET_NAME => response(200, "", "vm_0"),
            GET_EVENTS => response(200, "", &self.events),
            _ => response(404, "", ""),
        }
    }
}

fn preempt(resource: &str) -> String {
    format!(
        r#"{{
            "DocumentIncarnation": 2,
            "Events": [{{
                "EventId": "602d9444-d2cd-49c7-8624-8643e7171297",
                "EventType": "Preempt",
                "ResourceType": "VirtualMachine",
                "Resources": ["{resource}"],
                "EventStatus": "Scheduled",
                "NotBefore": "Mon, 19 Sep 2016 18:29:47 GMT",
                "Description": "Spot eviction",
                "EventSource": "Platform",
                "DurationInSeconds": -1
            }}]
        }}"#
    )
}

fn service() -> (Server, Arc<Mutex<Service>>) {
    let service = Arc::new(Mutex::new(Service {
        events: NO_EVENTS.to_owned(),
    }));
    let shared = service.clone();
    let server = Server::start(move |request| shared.lock().unwrap().answer(request));
    (server, service)
}

fn watcher(server: &Server) -> AzureWatcher {
    AzureWatcher::new().base_url(server.url())
}

/// The notice for the event of `preempt`.
fn notice(machine: &str) -> Notice {
    let reason =
        format!("Azure announces the event Preempt for this machine, '{machine}': Spot eviction");
    Notice::new(reason).with_deadline(UNIX_EPOCH + Duration::from_secs(1_474_309_787))
}

#[test]
fn a_notice_comes_after_polls_without_one() {
    let (server, service) = service();
    let mut watcher = watcher(&server);
    assert_eq!(watcher.poll().unwrap(), None);
    service.lock().unwrap().events = preempt("vm_7");
    assert_eq!(watcher.poll().unwrap(), None, "that is another machine");
    service.lock().unwrap().events = preempt("vm_0");
    assert_eq!(watcher.poll().unwrap(), Some(notice("vm_0")));
}

#[test]
fn the_name_of_the_machine_is_requested_once() {
    let (server, _service) = service();
    let mut watcher = watcher(&server);
    for _ in 0..2 {
        assert_eq!(watcher.poll().unwrap(), None);
    }
    assert_eq!(server.requests(), [GET_NAME, GET_EVENTS, GET_EVENTS]);
}

#[test]
fn a_given_name_is_not_requested() {
    let (server, service) = service();
    service.lock().unwrap().events = preempt("vm_7");
    let mut watcher = watcher(&server).resource("vm_7");
    assert_eq!(watcher.poll().unwrap(), Some(notice("vm_7")));
    assert_eq!(server.requests(), [GET_EVENTS]);
}

#[test]
fn a_machine_without_a_name_is_an_error() {
    let server = Server::start(|_| response(200, "", "\n"));
    let error = watcher(&server).poll().unwrap_err();
    assert!(
        error.to_string().contains("not a documented value"),
        "{error}"
    );
}

#[test]
fn a_document_without_events_is_an_error() {
    let (server, service) = service();
    service.lock().unwrap().events = r#"{"DocumentIncarnation": 1}"#.to_owned();
    let error = watcher(&server).poll().unwrap_err();
    assert!(error.source().unwrap().to_string().contains("Events"));
}

#[test]
fn only_the_first_events_may_take_minutes() {
    let (server, _service) = service();
    let mut watcher = watcher(&server);
    assert_eq!(watcher.poll().unwrap(), None);
    assert_eq!(watcher.metadata.timeout(), FIRST_TIMEOUT);
    assert!(FIRST_TIMEOUT > Duration::from_secs(120));
    assert_eq!(watcher.poll().unwrap(), None);
    assert_eq!(watcher.metadata.timeout(), TIMEOUT);
}

#[test]
fn a_first_answer_that_failed_may_take_minutes_again() {
    let mut are_on = false;
    let server = Server::start(move |_| {
        let status = if are_on { 200 } else { 500 };
        are_on = true;
        response(status, "", NO_EVENTS)
    });
    let mut watcher = watcher(&server).resource("vm_0");
    watcher.poll().unwrap_err();
    assert_eq!(watcher.poll().unwrap(), None);
    assert_eq!(watcher.metadata.timeout(), FIRST_TIMEOUT);
}

#[test]
fn a_slow_answer_is_waited_for() {
    let (asked, asks) = channel();
    let (release, released) = channel();
    let service = Service {
        events: preempt("vm_0"),
    };
    let server = Server::start(move |request| {
        let _ = asked.send(());
        let _ = released.recv();
        service.answer(request)
    });
    let mut watcher = watcher(&server);
    let look = std::thread::spawn(move || watcher.poll().unwrap());
    for _ in [GET_NAME, GET_EVENTS] {
        asks.recv().unwrap();
        assert!(!look.is_finished());
        release.send(()).unwrap();
    }
    assert_eq!(look.join().unwrap(), Some(notice("vm_0")));
}

#[test]
fn a_notice_arrives_after_errors() {
    let service = Service {
        events: preempt("vm_0"),
    };
    let mut requests = 0;
    let server = Server::start(move |request| {
        requests += 1;
        match requests {
            1 => response(500, "", ""),
            3 => response(429, "", ""),
            _ => service.answer(request),
        }
    });
    assert_eq!(first_notice(watcher(&server)), notice("vm_0"));
    assert_eq!(
        server.requests(),
        [GET_NAME, GET_NAME, GET_EVENTS, GET_EVENTS]
    );
}
