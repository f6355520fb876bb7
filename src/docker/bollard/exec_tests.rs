#![allow(clippy::unwrap_used)]

use super::tests::{Answer, RUNNING, SECOND, Server};
use super::*;
use std::io;
use std::time::Instant;

/// A frame of a stream.
fn frame(channel: u8, bytes: &[u8]) -> Vec<u8> {
    [&[channel, 0, 0, 0], (bytes.len() as u32).to_be_bytes().as_slice(), bytes].concat()
}

const UPGRADED: &[u8] = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";

/// An engine whose commands do `start`, and whose inspection of a command gives these answers in turn, the last one for ever.
fn exec_server(start: impl Fn() -> Answer + Send + Sync + 'static, inspections: &'static [&'static str]) -> Server {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    Server::with(move |line| match line {
        "GET /version" => Answer::Json(200, r#"{"ApiVersion":"1.41"}"#),
        "GET /v1.41/containers/db/json" => Answer::Json(200, RUNNING),
        "POST /v1.41/containers/db/exec" => Answer::Json(201, r#"{"Id":"e1"}"#),
        "POST /v1.41/exec/e1/start" => start(),
        "GET /v1.41/exec/e1/json" => {
            let at = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let text = inspections[at.min(inspections.len() - 1)];
            Answer::Json(if text.starts_with('{') { 200 } else { 404 }, text)
        }
        _ => Answer::Json(500, "{}"),
    })
}

const SUCCEEDED: &str = r#"{"Running":false,"ExitCode":0}"#;
const ENDED: &str = r#"{"Running":false,"ExitCode":3,"Pid":0}"#;
const STILL_RUNNING: &str = r#"{"Running":true,"ExitCode":null,"Pid":4242,"ContainerID":"aa"}"#;

fn run(server: &Server, spec: &ExecSpec) -> (Result<ExecOutcome>, Vec<u8>) {
    let mut out = Vec::new();
    let result = server.connect().unwrap().exec("db", spec, None, &mut |bytes| {
        out.extend_from_slice(bytes);
        Ok(())
    });
    (result, out)
}

#[test]
fn a_command_has_ended_when_the_engine_says_so_and_not_when_its_output_has() {
    let bytes = [UPGRADED, &frame(1, b"a"), &frame(2, b"why"), &frame(1, b"b")].concat();
    let server = exec_server(move || Answer::Raw(bytes.clone()), &[STILL_RUNNING, STILL_RUNNING, ENDED]);
    let (outcome, out) = run(&server, &ExecSpec::new(["x"], SECOND * 10));
    let outcome = outcome.unwrap();
    assert_eq!((outcome.code, outcome.stderr.as_slice(), out.as_slice()), (3, b"why".as_slice(), b"ab".as_slice()));
    assert_eq!(server.requests().iter().filter(|line| line.contains("/exec/e1/json")).count(), 3);
}

#[test]
fn a_broken_or_odd_output_of_a_command_is_an_error_although_it_exits_with_success() {
    let whole = frame(1, b"dump");
    for (bytes, kind) in [
        (whole[..whole.len() - 1].to_vec(), io::ErrorKind::ConnectionReset),
        (whole[..5].to_vec(), io::ErrorKind::ConnectionReset),
        (b"text of a terminal".to_vec(), io::ErrorKind::InvalidData),
        ([whole.clone(), frame(3, b"log driver gone")].concat(), io::ErrorKind::Other),
    ] {
        let bytes = [UPGRADED, &bytes].concat();
        let server =
            exec_server(move || Answer::Raw(bytes.clone()), if kind == io::ErrorKind::Other { &[STILL_RUNNING] } else { &[SUCCEEDED] });
        let error = run(&server, &ExecSpec::new(["x"], SECOND)).0.unwrap_err();
        assert_eq!((error.kind(), error.io_kind()), (ErrorKind::Docker, Some(kind)), "{error}");
        assert_eq!(error.advice().is_some_and(|hint| hint.contains("4242")), kind == io::ErrorKind::Other, "{error}");
    }
    let server = exec_server(|| Answer::Raw(UPGRADED.to_vec()), &[r#"{"Running":false,"ExitCode":null}"#]);
    assert_eq!(run(&server, &ExecSpec::new(["x"], SECOND)).0.unwrap_err().kind(), ErrorKind::Docker, "no exit code");
    let server = exec_server(|| Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\noops".to_vec()), &[SUCCEEDED]);
    assert_eq!(run(&server, &ExecSpec::new(["x"], SECOND)).0.unwrap_err().kind(), ErrorKind::Docker, "no stream");
}

#[test]
fn a_command_that_hangs_is_named_at_its_deadline_or_when_it_is_idle() {
    let bytes = [UPGRADED, &frame(1, b"half")].concat();
    let server = exec_server(move || Answer::Open(bytes.clone()), &[STILL_RUNNING]);
    let whole = ExecSpec::new(["hangs"], Duration::from_millis(300));
    let idle = ExecSpec { deadline: SECOND * 60, idle: Duration::from_millis(300), ..whole.clone() };
    for (spec, text) in [(whole, "did not end within 0.3 s"), (idle, "neither wrote nor read for 0.3 s")] {
        let start = Instant::now();
        let (result, out) = run(&server, &spec);
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.io_kind(), out.as_slice()), (ErrorKind::Docker, Some(io::ErrorKind::TimedOut), b"half".as_slice()));
        assert!(error.to_string().contains(text) && error.to_string().contains("hangs in the container db"), "{error}");
        assert!(error.advice().unwrap().contains("left running as process 4242 on the engine's host"), "{:?}", error.advice());
        assert!(start.elapsed() < SECOND * 5);
    }
    // Its output ended, and it does not.
    let server = exec_server(|| Answer::Raw(UPGRADED.to_vec()), &[STILL_RUNNING]);
    let error = run(&server, &ExecSpec::new(["hangs"], Duration::from_millis(300))).0.unwrap_err();
    assert!(error.to_string().contains("did not end within"), "{error}");
    // Nothing answers at all.
    let server = exec_server(|| Answer::Open(Vec::new()), &[STILL_RUNNING]);
    let error = run(&server, &ExecSpec::new(["hangs"], Duration::from_millis(300))).0.unwrap_err();
    assert_eq!(error.io_kind(), Some(io::ErrorKind::TimedOut), "{error}");
}

#[test]
fn what_the_receiver_says_ends_a_command() {
    let bytes = [UPGRADED, &frame(1, b"a"), &frame(1, b"b")].concat();
    let server = exec_server(move || Answer::Open(bytes.clone()), &[STILL_RUNNING]);
    let full = |_: &[u8]| Err(Error::new(ErrorKind::Storage, "full"));
    let error = server.connect().unwrap().exec("db", &ExecSpec::new(["x"], SECOND), None, &mut { full }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage);
}

#[test]
fn a_stdin_that_cannot_be_read_fails_the_command_with_its_own_error() {
    struct Bad;
    impl Read for Bad {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
    let server = exec_server(|| Answer::Open(UPGRADED.to_vec()), &[STILL_RUNNING]);
    let error = server.connect().unwrap().exec("db", &ExecSpec::new(["x"], SECOND * 30), Some(&mut Bad), &mut |_| Ok(())).unwrap_err();
    assert_eq!((error.kind(), error.io_kind()), (ErrorKind::Source, Some(io::ErrorKind::PermissionDenied)));
}

#[test]
fn a_command_that_the_engine_has_forgotten_did_not_succeed() {
    let bytes = [UPGRADED, &frame(1, b"all of it")].concat();
    let server = exec_server(move || Answer::Raw(bytes.clone()), &["no such exec"]);
    let (result, out) = run(&server, &ExecSpec::new(["x"], SECOND));
    let error = result.unwrap_err();
    assert_eq!((error.kind(), out.as_slice()), (ErrorKind::Docker, b"all of it".as_slice()), "{error}");
    let server = exec_server(|| Answer::Json(409, "paused"), &[ENDED]);
    assert_eq!(run(&server, &ExecSpec::new(["x"], SECOND)).0.unwrap_err().kind(), ErrorKind::Busy);
}
