use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use super::*;
use crate::preemption::cloud::server::{Request, Server, response};
use crate::preemption::watcher::testing::first_notice;

const PUT: &str = "PUT /latest/api/token";
const GET: &str = "GET /latest/meta-data/spot/instance-action";

const TERMINATE: &str = r#"{"action": "terminate", "time": "2017-09-18T08:22:00Z"}"#;

/// A metadata service as Amazon documents it, with version 1 turned off.
#[derive(Default)]
struct Service {
    /// The number of tokens given out; only the last one is valid.
    tokens: usize,
    action: Option<&'static str>,
}

impl Service {
    fn answer(&mut self, request: &Request) -> Vec<u8> {
        match request.line.as_str() {
            PUT => self.token(request),
            GET => self.action(request),
            _ => response(404, "", ""),
        }
    }

    fn token(&mut self, request: &Request) -> Vec<u8> {
        if request.header("X-aws-ec2-metadata-token-ttl-seconds") != Some("21600") {
            return response(400, "", "");
        }
        self.tokens += 1;
        response(200, "", self.valid())
    }

    fn action(&self, request: &Request) -> Vec<u8> {
        if request.header("X-aws-ec2-metadata-token") != Some(self.valid().as_str()) {
            return response(401, "", "");
        }
        match self.action {
            Some(action) => response(200, "", action),
            None => response(404, "", "<html>Not Found</html>"),
        }
    }

    fn valid(&self) -> String {
        format!("token-{}==", self.tokens)
    }
}

fn service() -> (Server, Arc<Mutex<Service>>) {
    let service = Arc::new(Mutex::new(Service::default()));
    let shared = service.clone();
    let server = Server::start(move |request| shared.lock().unwrap().answer(request));
    (server, service)
}

fn watcher(server: &Server) -> Ec2SpotWatcher {
    Ec2SpotWatcher::new().base_url(server.url())
}

/// 2017-09-18T08:22:00Z.
fn deadline() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_505_722_920)
}

#[test]
fn a_notice_comes_after_polls_without_one() {
    let (server, service) = service();
    let mut watcher = watcher(&server);
    assert_eq!(watcher.poll().unwrap(), None);
    assert_eq!(watcher.poll().unwrap(), None);
    service.lock().unwrap().action = Some(TERMINATE);
    let expected = Notice::new("Amazon EC2 is about to terminate this Spot Instance");
    assert_eq!(
        watcher.poll().unwrap(),
        Some(expected.with_deadline(deadline()))
    );
}

#[test]
fn the_token_is_kept_between_polls() {
    let (server, _service) = service();
    let mut watcher = watcher(&server);
    for _ in 0..3 {
        assert_eq!(watcher.poll().unwrap(), None);
    }
    assert_eq!(server.requests(), [PUT, GET, GET, GET]);
}

#[test]
fn an_expired_token_is_renewed_within_the_poll() {
    let (server, service) = service();
    let mut watcher = watcher(&server);
    assert_eq!(watcher.poll().unwrap(), None);
    assert_eq!(server.requests(), [PUT, GET]);
    service.lock().unwrap().tokens += 1;
    service.lock().unwrap().action = Some(TERMINATE);
    assert!(watcher.poll().unwrap().is_some());
    assert_eq!(server.requests(), [GET, PUT, GET]);
    assert!(watcher.poll().unwrap().is_some());
    assert_eq!(server.requests(), [GET]);
}

#[test]
fn a_token_that_is_never_valid_is_an_error() {
    let server = Server::start(|request| match request.line.as_str() {
        PUT => response(200, "", "forged"),
        _ => response(401, "", ""),
    });
    let error = watcher(&server).poll().unwrap_err();
    assert!(error.to_string().contains("status 401"), "{error}");
    assert_eq!(server.requests(), [PUT, GET, PUT, GET]);
}

#[test]
fn a_token_that_cannot_be_sent_is_not_kept() {
    let mut tokens = ["one\ntwo", "three"].into_iter();
    let server = Server::start(move |request| match request.line.as_str() {
        PUT => response(200, "", tokens.next().unwrap()),
        _ => response(404, "", ""),
    });
    let mut watcher = watcher(&server);
    watcher.poll().unwrap_err();
    assert_eq!(watcher.poll().unwrap(), None);
    assert_eq!(server.requests(), [PUT, PUT, GET]);
}

#[test]
fn an_instance_can_be_stopped_or_hibernated_too() {
    let (server, service) = service();
    for action in ["stop", "hibernate"] {
        let json = format!(r#"{{"action": "{action}", "time": "2017-09-18T08:22:00Z"}}"#);
        service.lock().unwrap().action = Some(json.leak());
        let notice = watcher(&server).poll().unwrap().unwrap();
        assert!(notice.reason().contains(action), "{}", notice.reason());
        assert_eq!(notice.deadline(), Some(deadline()));
    }
}

#[test]
fn an_invalid_time_is_now() {
    let (server, service) = service();
    for json in [
        r#"{"action": "stop", "time": "soon"}"#,
        r#"{"action": "stop", "time": null}"#,
        r#"{"action": "stop"}"#,
    ] {
        service.lock().unwrap().action = Some(json);
        let notice = watcher(&server).poll().unwrap().unwrap();
        assert!(notice.deadline().unwrap() <= SystemTime::now(), "{json}");
    }
}

#[test]
fn an_answer_without_an_action_is_an_error() {
    let (server, service) = service();
    service.lock().unwrap().action = Some(r#"{"time": "2017-09-18T08:22:00Z"}"#);
    let error = watcher(&server).poll().unwrap_err();
    assert!(error.source().unwrap().to_string().contains("action"));
}

#[test]
fn a_slow_answer_is_waited_for() {
    let (asked, asks) = channel();
    let (release, released) = channel();
    let mut service = Service::default();
    let server = Server::start(move |request| {
        let _ = asked.send(());
        let _ = released.recv();
        service.answer(request)
    });
    let mut watcher = watcher(&server).timeout(Duration::from_secs(60));
    let look = std::thread::spawn(move || watcher.poll().unwrap());
    for _ in [PUT, GET] {
        asks.recv().unwrap();
        assert!(!look.is_finished());
        release.send(()).unwrap();
    }
    assert_eq!(look.join().unwrap(), None);
}

#[test]
fn a_notice_arrives_after_errors() {
    let mut service = Service {
        action: Some(TERMINATE),
        ..Service::default()
    };
    let mut requests = 0;
    let server = Server::start(move |request| {
        requests += 1;
        match requests {
            1 => response(500, "", ""),
            3 => response(503, "", ""),
            _ => service.answer(request),
        }
    });
    let notice = first_notice(watcher(&server));
    assert_eq!(notice.deadline(), Some(deadline()));
    assert_eq!(server.requests(), [PUT, PUT, GET, GET]);
}
