#![allow(clippy::unwrap_used)]

use super::*;
use crate::clock::Timestamp;
use address::parse_address;
use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// What a [`Server`] does with a request.
pub(super) enum Answer {
    /// A status and a body.
    Json(u16, &'static str),
    /// These bytes and the end of the connection.
    Raw(Vec<u8>),
    /// These bytes, and then the connection stays open.
    Open(Vec<u8>),
}

/// An HTTP server on a Unix socket that answers each request by its line.
pub(super) struct Server {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
    open: Arc<Mutex<Vec<UnixStream>>>,
    folder: tempfile::TempDir,
}

impl Server {
    /// `None` answers nothing, ever.
    fn new(answer: fn(&str) -> Option<(u16, &'static str)>) -> Self {
        Self::with(move |line| answer(line).map_or(Answer::Open(Vec::new()), |(status, body)| Answer::Json(status, body)))
    }

    pub(super) fn with(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("engine.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (requests, open) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let (seen, kept) = (Arc::clone(&requests), Arc::clone(&open));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some(line) = read_request(&mut stream) else { continue };
                seen.lock().unwrap().push(line.clone());
                match answer(&line) {
                    Answer::Json(status, body) => {
                        let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}", body.len());
                        let _ = write!(stream, "{head}\r\nConnection: close\r\n\r\n{body}");
                    }
                    Answer::Raw(bytes) => drop(stream.write_all(&bytes)),
                    Answer::Open(bytes) => {
                        let _ = stream.write_all(&bytes);
                        kept.lock().unwrap().push(stream);
                    }
                }
            }
        });
        Self { address: format!("unix://{}", path.display()), requests, open, folder }
    }

    pub(super) fn connect(&self) -> Result<BollardEngine> {
        BollardEngine::connect_within(&self.address, Duration::from_secs(1))
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Reads a request with its body and returns its first line.
fn read_request(stream: &mut UnixStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length:")).map_or(0, |n| n.trim().parse().unwrap());
            if bytes.len() >= head + 4 + length {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                return Some(text.lines().next()?.trim_end_matches(" HTTP/1.1").to_owned());
            }
        }
        match stream.read(&mut buffer).unwrap() {
            0 => return None,
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

fn version(line: &str) -> Option<(u16, &'static str)> {
    line.ends_with("/version").then_some((200, r#"{"ApiVersion":"1.41"}"#))
}

#[test]
fn addresses_are_understood_or_refused_with_a_way_out() {
    for (text, expected) in [
        ("unix:///run/x.sock", "unix:///run/x.sock"),
        ("/run/x.sock", "unix:///run/x.sock"),
        ("tcp://h:2375", "tcp://h:2375"),
        ("http://h:2375", "tcp://h:2375"),
    ] {
        assert_eq!(parse_address(text, false).unwrap(), expected);
    }
    for (text, tls, kind) in [
        ("ssh://root@h", false, ErrorKind::Unsupported),
        ("https://h:2376", false, ErrorKind::Unsupported),
        ("tcp://h:2376", true, ErrorKind::Unsupported),
        ("npipe:////./pipe/docker_engine", false, ErrorKind::Usage),
        ("unix://relative", false, ErrorKind::Usage),
        ("tcp://", false, ErrorKind::Usage),
        ("host:2375", false, ErrorKind::Usage),
    ] {
        let error = parse_address(text, tls).unwrap_err();
        assert_eq!(error.kind(), kind, "{text}");
        assert!(error.advice().is_some(), "{text}");
    }
}

#[test]
fn an_absent_or_deaf_engine_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let absent = format!("unix://{}/none.sock", folder.path().display());
    let error = BollardEngine::connect(Some(&absent)).err().unwrap();
    assert_eq!((error.kind(), error.subject()), (ErrorKind::Docker, Some(absent.as_str())));
    assert!(error.advice().unwrap().contains("is the engine running"), "{error}");

    let path = folder.path().join("left.sock");
    drop(UnixListener::bind(&path).unwrap());
    let error = BollardEngine::connect(path.to_str()).err().unwrap();
    assert!(error.advice().unwrap().contains("is the engine running") && error.to_string().contains("refused"), "{error}");
}

#[test]
fn a_socket_that_we_may_not_use_asks_for_root_or_the_group() {
    let error = failure("unix:///s", "cannot connect", &ApiError::IOError { err: io::ErrorKind::PermissionDenied.into() });
    assert!(error.kind() == ErrorKind::Docker && error.advice().unwrap().contains("group docker"), "{error}");
    assert_eq!(error.io_kind(), Some(io::ErrorKind::PermissionDenied));
}

#[test]
fn an_engine_that_never_answers_costs_one_deadline() {
    let error = Server::new(|_| None).connect().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Docker);
    assert!(error.advice().unwrap().contains("hangs"), "{error}");

    let server = Server::new(version);
    let engine = server.connect().unwrap();
    let start = std::time::Instant::now();
    let error = engine.volumes().unwrap_err();
    assert!(error.advice().unwrap().contains("hangs") && error.subject() == Some(server.address.as_str()), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn answers_are_read_and_refusals_keep_their_meaning() {
    let server = Server::new(|line| {
        version(line).or(Some(match line.rsplit('/').next().unwrap_or_default() {
            "info" => (
                200,
                r#"{"ID":"I","ServerVersion":"27.0","DockerRootDir":"/r","Name":"h","OperatingSystem":"Docker Desktop",
                    "SecurityOptions":["name=seccomp,profile=builtin","name=rootless","name=userns"]}"#,
            ),
            "volumes" => (
                200,
                r#"{"Volumes":[{"Name":"bb","Driver":"local","Mountpoint":"/r/volumes/bb/_data","Labels":null,"Options":null,
                    "Scope":"local","CreatedAt":"2026-11-21T03:29:17Z"},{"Name":"aa","Driver":"d","Mountpoint":"",
                    "Labels":{"k":"v"},"Options":{"o":"x"},"Scope":"global"}],"Warnings":["driver gone"]}"#,
            ),
            "gone" => (404, r#"{"message":"no such volume"}"#),
            "used" => (409, r#"{"message":"volume is in use"}"#),
            _ => (500, r#"{"message":"boom\u001b[2J"}"#),
        }))
    });
    let engine = server.connect().unwrap();
    let info = engine.info().unwrap();
    assert_eq!((info.rootless, info.userns_remap, info.api_version.as_str()), (true, true, "1.41"));
    assert_eq!((info.root_dir.as_str(), info.operating_system.as_str()), ("/r", "Docker Desktop"));

    let list = engine.volumes().unwrap();
    assert_eq!(list.volumes.iter().map(|volume| volume.name.as_str()).collect::<Vec<_>>(), ["aa", "bb"]);
    assert_eq!(list.volumes[1].created, Some(Timestamp::new(1_795_231_757, 0)));
    assert_eq!(list.warnings, ["driver gone"]);

    assert_eq!(engine.volume("gone").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(engine.remove_volume("used").unwrap_err().kind(), ErrorKind::Busy);
    let error = engine.volume("other").unwrap_err();
    assert!(error.kind() == ErrorKind::Docker && error.to_string().contains("500: boom\\u{1b}[2J"), "{error}");

    let before = server.requests.lock().unwrap().len();
    for name in ["../x", "a?b", "a/../../containers"] {
        assert_eq!(engine.volume(name).unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(engine.remove_volume(name).unwrap_err().kind(), ErrorKind::Usage);
    }
    assert_eq!(server.requests.lock().unwrap().len(), before, "nothing was sent for an illegal name");
}

#[test]
fn requests_carry_the_version_agreed_on() {
    let server = Server::new(|line| version(line).or(Some((200, r#"{"Volumes":[]}"#))));
    let engine = server.connect().unwrap();
    engine.volumes().unwrap();
    engine.volume("aa").unwrap_err();
    let seen = server.requests();
    assert_eq!(seen[1..], ["GET /v1.41/volumes", "GET /v1.41/volumes/aa"], "the first one asks for the version");
}

/// An engine with one container whose state is `state` (JSON) and which answers its changes by `status`.
fn container_server(status: u16, state: &'static str) -> Server {
    Server::with(move |line| match line {
        "GET /version" => Answer::Json(200, r#"{"ApiVersion":"1.41"}"#),
        "GET /v1.41/containers/db/json" => Answer::Json(200, state),
        line if line.contains("/containers/gone/") => Answer::Json(404, r#"{"message":"No such container: gone"}"#),
        _ => Answer::Json(status, r#"{"message":"it is so"}"#),
    })
}

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const RUNNING: &str = r#"{"Id":"aa","Name":"/db","State":{"Status":"running","Running":true,"Paused":false,"Pid":7}}"#;

#[test]
fn refusals_about_a_container_say_gone_or_busy() {
    type Call = fn(&BollardEngine, &str) -> Result<()>;
    let calls: [(&str, Call); 5] = [
        ("pause", |engine, id| engine.pause(id, SECOND)),
        ("unpause", |engine, id| engine.unpause(id, SECOND)),
        ("stop", |engine, id| engine.stop(id, Some(SECOND))),
        ("start", |engine, id| engine.start(id)),
        ("exec", |engine, id| engine.exec(id, &ExecSpec::new(["x"], SECOND), None, &mut |_| Ok(())).map(|_| ())),
    ];
    for (name, call) in calls {
        let server = container_server(409, RUNNING);
        let conflict = server.connect().unwrap();
        assert_eq!(call(&conflict, "gone").unwrap_err().kind(), ErrorKind::NotFound, "{name}");
        let error = call(&conflict, "db").unwrap_err();
        assert!(error.kind() == ErrorKind::Busy && error.to_string().contains("it is so"), "{name}: {error}");
        let before = server.requests().len();
        assert_eq!(call(&conflict, "../db").unwrap_err().kind(), ErrorKind::Usage, "{name}");
        assert_eq!(server.requests().len(), before);
        if ["stop", "start"].contains(&name) {
            let server = container_server(304, RUNNING);
            call(&server.connect().unwrap(), "db").unwrap();
        }
    }
}

#[test]
fn a_container_that_is_not_paused_is_busy_also_where_the_engine_says_500() {
    let server = container_server(500, RUNNING);
    let engine = server.connect().unwrap();
    assert_eq!(engine.unpause("db", SECOND).unwrap_err().kind(), ErrorKind::Busy);
    // A failed pause may have frozen something: never "somebody else did".
    assert_eq!(engine.pause("db", SECOND).unwrap_err().kind(), ErrorKind::Docker);
    let server = container_server(500, r#"{"State":{"Running":true,"Paused":true}}"#);
    assert_eq!(server.connect().unwrap().unpause("db", SECOND).unwrap_err().kind(), ErrorKind::Docker);
}

#[test]
fn a_pause_that_is_given_up_is_not_withdrawn() {
    let server = Server::with(|line| match line {
        "GET /version" => Answer::Json(200, r#"{"ApiVersion":"1.41"}"#),
        _ => Answer::Open(Vec::new()),
    });
    let engine = server.connect().unwrap();
    let start = Instant::now();
    let error = engine.pause("db", Duration::from_millis(200)).unwrap_err();
    assert_eq!((error.kind(), error.io_kind()), (ErrorKind::Docker, Some(io::ErrorKind::TimedOut)));
    assert!(start.elapsed() < SECOND && error.advice().unwrap().contains("may still be at it"), "{error}");
    engine.volumes().unwrap_err();
    std::thread::sleep(Duration::from_millis(300));
    let mut open = server.open.lock().unwrap();
    assert_eq!(open.len(), 2);
    let (mut question, mut pause) = (open.pop().unwrap(), open.pop().unwrap());
    pause.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert_eq!(pause.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock, "the pause still waits for its answer");
    assert_eq!(question.read(&mut [0]).unwrap(), 0, "the question does not");
}

#[test]
fn an_engine_that_goes_away_in_the_middle_says_so() {
    for answer in [b"".as_slice(), b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"Volumes\":"] {
        let server = Server::with(|line| match line {
            "GET /version" => Answer::Json(200, r#"{"ApiVersion":"1.41"}"#),
            _ => Answer::Raw(answer.to_vec()),
        });
        let engine = server.connect().unwrap();
        let error = engine.volumes().unwrap_err();
        assert_eq!((error.kind(), error.io_kind()), (ErrorKind::Docker, Some(io::ErrorKind::ConnectionReset)), "{error}");
        assert!(error.advice().unwrap().contains("restarted"));
        if answer.is_empty() {
            assert_eq!(engine.pause("db", SECOND).unwrap_err().io_kind(), Some(io::ErrorKind::ConnectionReset));
        }
        std::fs::remove_file(server.folder.path().join("engine.sock")).unwrap();
        let error = engine.volumes().unwrap_err();
        assert!(error.advice().unwrap().contains("is the engine running"), "{error}");
    }
}
