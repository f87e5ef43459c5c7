//! Failures that all clouds have in common. The success of each cloud is tested next to it.

use std::sync::mpsc::channel;
use std::time::Duration;

use super::server::{RefusingPort, Request, Server, response};
use super::*;
use crate::preemption::PreemptionWatcher;

const GOOGLE: &str = "Metadata-Flavor: Google\r\n";

/// Long enough for any answer that arrives.
const PATIENT: Duration = Duration::from_secs(60);

fn watchers(url: &str, timeout: Duration) -> [Box<dyn PreemptionWatcher>; 3] {
    [
        Box::new(GceWatcher::new().base_url(url).timeout(timeout)),
        Box::new(Ec2SpotWatcher::new().base_url(url).timeout(timeout)),
        Box::new(AzureWatcher::new().base_url(url).timeout(timeout)),
    ]
}

/// The errors of each watcher's first and second poll, with causes.
fn errors(url: &str, timeout: Duration) -> Vec<String> {
    let mut errors = Vec::new();
    for mut watcher in watchers(url, timeout) {
        for _ in 0..2 {
            let error = watcher.poll().expect_err(&watcher.name());
            let cause = error.source().map(ToString::to_string);
            assert!(error.to_string().contains(url), "{error}");
            errors.push(format!("{error}; {}", cause.unwrap_or_default()));
        }
    }
    errors
}

#[track_caller]
fn assert_all_contain(errors: &[String], text: &str) {
    assert_eq!(errors.len(), 6);
    for error in errors {
        assert!(error.contains(text), "{error}");
    }
}

fn errors_with(answer: fn(&Request) -> Vec<u8>) -> Vec<String> {
    let server = Server::start(answer);
    errors(&server.url(), PATIENT)
}

#[test]
fn a_failing_service_is_an_error() {
    assert_all_contain(&errors_with(|_| response(500, GOOGLE, "")), "status 500");
    assert_all_contain(&errors_with(|_| response(503, GOOGLE, "")), "status 503");
    assert_all_contain(&errors_with(|_| response(403, GOOGLE, "")), "status 403");
}

#[test]
fn garbage_is_an_error() {
    let errors = errors_with(|_| response(200, GOOGLE, "<html>"));
    let (gce, others) = errors.split_at(2);
    assert!(gce[0].contains("'<html>', which is not"), "{gce:?}");
    for error in others {
        assert!(error.contains("documented JSON; expected value"), "{error}");
    }
}

#[test]
fn bytes_that_are_not_text_are_an_error() {
    errors_with(|_| response(200, GOOGLE, b"\xff\xfe\0"));
    errors_with(|_| response(200, GOOGLE, ""));
}

#[test]
fn an_answer_without_http_is_an_error() {
    assert_all_contain(&errors_with(|_| b"220 mail\r\n\r\n".to_vec()), "cannot ask");
    assert_all_contain(&errors_with(|_| Vec::new()), "cannot ask");
}

#[test]
fn an_answer_that_is_cut_off_is_an_error() {
    let cut = |_: &Request| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n{GOOGLE}\r\nFALSE").into_bytes()
    };
    assert_all_contain(&errors_with(cut), "cannot read");
}

#[test]
fn a_body_that_is_too_large_is_an_error() {
    let large = |_: &Request| response(200, GOOGLE, vec![b' '; 64 * 1024 + 1]);
    assert_all_contain(&errors_with(large), "larger than");
}

#[test]
fn a_service_that_is_not_there_is_an_error() {
    let nobody = RefusingPort::new();
    assert_all_contain(&errors(&nobody.url(), PATIENT), "refused");
}

#[test]
fn a_service_that_never_answers_is_an_error_after_the_timeout() {
    let (release, released) = channel::<()>();
    let server = Server::start(move |_| {
        let _ = released.recv();
        Vec::new()
    });
    let errors = errors(&server.url(), Duration::from_millis(50));
    assert_all_contain(&errors, "timeout");
    drop(release);
}

#[test]
fn redirects_are_not_followed() {
    let elsewhere = Server::start(|_| response(200, GOOGLE, "TRUE"));
    let location = format!("{GOOGLE}Location: {}/\r\n", elsewhere.url());
    let server = Server::start(move |_| response(302, &location, ""));
    assert_all_contain(&errors(&server.url(), PATIENT), "status 302");
    assert!(elsewhere.requests().is_empty());
}

#[test]
fn a_proxy_of_the_environment_is_not_used() {
    let nobody = RefusingPort::new();
    let (_, module) = module_path!().split_once("::").unwrap();
    let others = module.strip_suffix("tests").unwrap();
    for cloud in ["gce", "ec2", "azure"] {
        let test = format!("{others}{cloud}::tests::a_notice_comes_after_polls_without_one");
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args([test.as_str(), "--exact"]);
        for variable in ["NO_PROXY", "no_proxy"] {
            child.env_remove(variable);
        }
        for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
            child.env(variable, nobody.url());
        }
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("1 passed"), "{text}");
    }
}

#[test]
fn a_slash_at_the_end_of_the_base_url_is_tolerated() {
    let server = Server::start(|_| response(500, "", ""));
    for mut watcher in watchers(&format!("{}/", server.url()), PATIENT) {
        assert!(
            watcher.name().ends_with(&server.url()),
            "{}",
            watcher.name()
        );
        watcher.poll().unwrap_err();
    }
    assert_eq!(
        server.requests(),
        [
            "GET /computeMetadata/v1/instance/preempted",
            "PUT /latest/api/token",
            "GET /metadata/instance/compute/name?api-version=2021-02-01&format=text",
        ]
    );
}

#[test]
fn times_before_the_epoch_are_left_out() {
    let time = |text: &str| system_time(text.parse().unwrap());
    assert_eq!(time("1970-01-01T00:00:00Z"), Some(UNIX_EPOCH));
    assert_eq!(time("0001-01-01T00:00:00Z"), None);
}
