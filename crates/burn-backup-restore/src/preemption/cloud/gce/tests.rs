use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use super::*;
use crate::preemption::cloud::server::{Request, Server, response};
use crate::preemption::watcher::testing::first_notice;

/// A metadata server as Google documents it.
struct Service {
    preempted: &'static str,
    maintenance: &'static str,
}

impl Service {
    fn answer(&self, request: &Request) -> Vec<u8> {
        if request.header("Metadata-Flavor") != Some("Google") {
            return response(403, "", "");
        }
        let value = match request.line.as_str() {
            "GET /computeMetadata/v1/instance/preempted" => self.preempted,
            "GET /computeMetadata/v1/instance/maintenance-event" => self.maintenance,
            _ => return response(404, "", ""),
        };
        response(200, "Metadata-Flavor: Google\r\n", value)
    }
}

fn service() -> (Server, Arc<Mutex<Service>>) {
    let service = Arc::new(Mutex::new(Service {
        preempted: "FALSE",
        maintenance: "NONE",
    }));
    let shared = service.clone();
    let server = Server::start(move |request| shared.lock().unwrap().answer(request));
    (server, service)
}

fn watcher(server: &Server) -> GceWatcher {
    GceWatcher::new().base_url(server.url())
}

fn reason(watcher: &mut GceWatcher) -> Option<String> {
    let notice = watcher.poll().unwrap()?;
    let left = |deadline: SystemTime| deadline.duration_since(SystemTime::now());
    match notice.reason().contains("maintenance") {
        // Google does not say whether an hour or a minute is left.
        true => assert_eq!(notice.deadline(), None),
        false => assert!(left(notice.deadline().unwrap()).unwrap() <= Duration::from_secs(19)),
    }
    Some(notice.reason().to_owned())
}

#[test]
fn a_notice_comes_after_polls_without_one() {
    let (server, service) = service();
    let mut watcher = watcher(&server);
    assert_eq!(reason(&mut watcher), None);
    assert_eq!(reason(&mut watcher), None);
    service.lock().unwrap().preempted = "TRUE\n";
    let reason = reason(&mut watcher).unwrap();
    assert!(reason.contains("preempts this machine"), "{reason}");
}

#[test]
fn maintenance_is_a_notice_if_it_stops_the_machine() {
    let (server, service) = service();
    let mut watcher = watcher(&server);
    service.lock().unwrap().maintenance = "MIGRATE_ON_HOST_MAINTENANCE";
    assert_eq!(reason(&mut watcher), None);
    service.lock().unwrap().maintenance = "TERMINATE_ON_HOST_MAINTENANCE";
    let reason = reason(&mut watcher).unwrap();
    assert!(reason.contains("maintenance"), "{reason}");
}

#[test]
fn an_unknown_value_is_an_error() {
    let (server, service) = service();
    let mut watcher = watcher(&server);
    service.lock().unwrap().maintenance = "TAKE_OFF";
    let error = watcher.poll().unwrap_err();
    assert!(error.to_string().contains("'TAKE_OFF'"), "{error}");
    service.lock().unwrap().preempted = "PERHAPS\u{1b}[2J";
    let error = watcher.poll().unwrap_err();
    assert!(error.to_string().contains(r"'PERHAPS\u{1b}[2J'"), "{error}");
}

#[test]
fn an_answer_of_another_server_is_an_error() {
    for header in ["", "Metadata-Flavor: Amazon\r\n"] {
        let server = Server::start(move |_| response(200, header, "TRUE"));
        let error = watcher(&server).poll().unwrap_err();
        assert!(
            error.to_string().contains("is not the metadata server"),
            "{error}"
        );
    }
}

#[test]
fn a_slow_answer_is_waited_for() {
    let (asked, asks) = channel();
    let (release, released) = channel();
    let server = Server::start(move |_| {
        let _ = asked.send(());
        let _ = released.recv();
        response(200, "Metadata-Flavor: Google\r\n", "TRUE")
    });
    let mut watcher = watcher(&server).timeout(Duration::from_secs(60));
    let look = std::thread::spawn(move || reason(&mut watcher).is_some());
    asks.recv().unwrap();
    assert!(!look.is_finished());
    release.send(()).unwrap();
    assert!(look.join().unwrap());
}

#[test]
fn a_notice_arrives_after_errors() {
    let service = Service {
        preempted: "TRUE",
        maintenance: "NONE",
    };
    let mut requests = 0;
    let server = Server::start(move |request| {
        requests += 1;
        match requests {
            1 => response(503, "", ""),
            2 => b"nonsense".to_vec(),
            _ => service.answer(request),
        }
    });
    let notice = first_notice(watcher(&server));
    assert!(notice.reason().contains("preempts this machine"));
    assert_eq!(server.requests().len(), 3);
}
