//! Plans carried out with the real programs, where this machine has them: started on private ports and sockets in a temporary
//! folder, and asked for their dumps by the very commands that a container would be given.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::docker::fake::{FakeEngine, FakeExec, FakeOutput};

/// How the server's user runs a program. Unlike runuser, it does not stay between us and the program.
const AS_POSTGRES: [&str; 6] = ["--reuid", "postgres", "--regid", "postgres", "--init-groups", "--"];

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn has(programs: &[&str]) -> bool {
    let found =
        programs.iter().all(|program| Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap().status.success());
    if !found {
        eprintln!("skipped: this machine lacks one of {programs:?}");
    }
    found
}

fn spawn(program: &str, arguments: &[&str]) -> Server {
    Server(Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

fn free_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

/// Runs `program` until it succeeds, for at most a minute.
fn until_it_works(program: &str, arguments: &[&str]) -> String {
    let start = Instant::now();
    loop {
        let output = Command::new(program).args(arguments).output().unwrap();
        if output.status.success() {
            return String::from_utf8_lossy(&output.stdout).into_owned();
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A container whose commands run on this machine, with `env` as its environment.
fn host(env: &[(&str, &str)]) -> (FakeEngine, ContainerDetail) {
    let env: Vec<(String, String)> = env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let container = ContainerDetail {
        id: "b".repeat(64),
        name: "host".into(),
        state: "running".into(),
        running: true,
        env: env.clone(),
        ..ContainerDetail::default()
    };
    let engine = FakeEngine::new();
    engine.add_detail(container.clone());
    engine.on_exec(move |_, exec| Ok(on_host(&env, exec)));
    (engine, container)
}

fn on_host(env: &[(String, String)], exec: &FakeExec) -> FakeOutput {
    let argv = &exec.spec.argv;
    let mut command = match exec.spec.user.as_deref() {
        Some("postgres") => Command::new("setpriv"),
        Some(_) => return FakeOutput::failed(126, "unable to find user"),
        None => Command::new("env"),
    };
    if exec.spec.user.is_some() {
        command.args(AS_POSTGRES);
    }
    command.args(argv);
    command.envs(env.iter().cloned()).envs(exec.spec.env.iter().cloned());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else { return FakeOutput::failed(127, "executable file not found") };
    let (mut stdin, input) = (child.stdin.take().unwrap(), exec.stdin.clone().unwrap_or_default());
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    FakeOutput { stdout: output.stdout, stderr: output.stderr, code: output.status.code().unwrap_or(137).into(), error: None }
}

fn dump(preset: &str, env: &[(&str, &str)]) -> Result<Vec<u8>> {
    let (engine, container) = host(env);
    let plan = Preset::parse(preset)?.dump(&container, &token()?)?;
    let mut out = Vec::new();
    let mut sink = |bytes: &[u8]| {
        out.extend_from_slice(bytes);
        Ok(())
    };
    let report = take(&engine, &container, &plan, &mut sink)?;
    assert_eq!(report.bytes, out.len() as u64);
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    eprintln!("{preset}: {} bytes by {} ({})", report.bytes, report.tool, report.version);
    Ok(out)
}

fn restore(preset: &str, env: &[(&str, &str)], mut bytes: &[u8]) -> Result<()> {
    let (engine, container) = host(env);
    let Restore::Pipe(plan) = Preset::parse(preset)?.restore(&container, "", &token()?)? else { unreachable!() };
    pipe_back(&engine, &container, &plan, &mut bytes).map(|_| ())
}

fn leftovers(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("icecore-")).count()
}

#[test]
fn sqlite_backs_itself_up_under_a_writer() {
    if !has(&["sqlite3"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (path, temporary) = (folder.path().join("a b.db"), folder.path().to_str().unwrap().to_owned());
    let database = path.to_str().unwrap();
    for mode in ["wal", "delete"] {
        let make = format!(
            "pragma journal_mode={mode}; drop table if exists t; create table t(x); with recursive n(i) as \
             (select 1 union all select i+1 from n where i<20000) insert into t select hex(randomblob(100)) from n;"
        );
        until_it_works("sqlite3", &[database, &make]);
        let writes = "insert into t values(1);\n".repeat(20_000);
        let mut writer = Command::new("sqlite3").args([database, ".timeout 10000"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = writer.stdin.take().unwrap();
        let feeder = std::thread::spawn(move || drop(stdin.write_all(writes.as_bytes())));
        let bytes = dump(&format!("sqlite:{database}"), &[("TMPDIR", &temporary)]).unwrap();
        let _ = writer.kill();
        let _ = (writer.wait(), feeder.join());
        assert_eq!(leftovers(folder.path()), 0);
        let copy = folder.path().join("copy.db");
        fs::write(&copy, bytes).unwrap();
        assert_eq!(until_it_works("sqlite3", &[copy.to_str().unwrap(), "pragma integrity_check"]).trim(), "ok", "{mode}");
        let _ = fs::remove_file(folder.path().join("copy.db-wal"));
    }
    let missing = dump(&format!("sqlite:{temporary}/none.db"), &[("TMPDIR", &temporary)]).unwrap_err();
    assert!(missing.to_string().contains("unable to open"), "{missing}");
    assert_eq!(leftovers(folder.path()), 0);
    assert!(!folder.path().join("none.db").exists(), "no database was made");
}

#[test]
fn redis_streams_a_file_that_redis_finds_sound() {
    if !has(&["redis-server", "redis-cli", "redis-check-rdb"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_str().unwrap();
    for settings in [["--rdbchecksum", "yes", "--repl-diskless-sync", "yes"], ["--rdbchecksum", "no", "--repl-diskless-sync", "no"]] {
        let port = free_port();
        let common = ["--port", &port, "--bind", "127.0.0.1", "--dir", home, "--save", "", "--requirepass", "geheim"];
        let _server = spawn("redis-server", &[&common[..], &settings].concat());
        until_it_works("redis-cli", &["-p", &port, "--no-auth-warning", "-a", "geheim", "set", "key", &"x".repeat(100_000)]);
        let env = [("REDIS_PASSWORD", "geheim"), ("REDIS_PORT_NUMBER", port.as_str())];
        let bytes = dump("redis", &env).unwrap();
        assert_eq!(bytes[bytes.len() - 9], 0xff, "no mark is left behind the checksum");
        let file = folder.path().join("dump.rdb");
        fs::write(&file, &bytes).unwrap();
        until_it_works("redis-check-rdb", &[file.to_str().unwrap()]);
        let denied = dump("redis", &[("REDIS_PASSWORD", "wrong"), env[1]]).unwrap_err();
        assert!(denied.to_string().contains("WRONGPASS"), "{denied}");
    }
}

#[test]
fn etcd_saves_a_snapshot_that_etcd_takes() {
    if !has(&["etcd", "etcdctl"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let [clients, peers] = [free_port(), free_port()].map(|port| format!("http://127.0.0.1:{port}"));
    let listen = ["--listen-client-urls", &clients, "--advertise-client-urls", &clients, "--listen-peer-urls", &peers];
    let (cluster, data) = (format!("default={peers}"), path("data"));
    let member = ["--data-dir", &data, "--initial-advertise-peer-urls", &peers, "--initial-cluster", &cluster];
    let _server = spawn("etcd", &[listen, member].concat());
    until_it_works("etcdctl", &["--endpoints", &clients, "put", "key", "value"]);
    let bytes = dump("etcd", &[("ETCDCTL_ENDPOINTS", &clients), ("TMPDIR", &path(""))]).unwrap();
    assert_eq!(leftovers(folder.path()), 0);
    fs::write(path("etcd.db"), &bytes).unwrap();
    let tool = if has(&["etcdutl"]) { "etcdutl" } else { "etcdctl" };
    until_it_works(tool, &["snapshot", "restore", &path("etcd.db"), "--data-dir", &path("new")]);
    assert!(folder.path().join("new/member/snap/db").exists());
}

#[test]
fn mariadb_takes_its_own_dump_with_accounts_and_routines() {
    if !has(&["mariadbd", "mariadb-install-db", "mariadb", "mariadb-dump"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let start = |name: &str| {
        let [data, socket] = ["data", "sock"].map(|kind| format!("{}/{name}.{kind}", folder.path().display()));
        until_it_works(
            "mariadb-install-db",
            &["--no-defaults", "--user=mysql", &format!("--datadir={data}"), "--auth-root-authentication-method=normal"],
        );
        // The system's own configuration may name another socket; the user's comes after it.
        let home = format!("{}/{name}.home", folder.path().display());
        fs::create_dir(&home).unwrap();
        fs::write(format!("{home}/.my.cnf"), format!("[client]\nsocket={socket}\n")).unwrap();
        let options = [format!("--datadir={data}"), format!("--socket={socket}"), format!("--pid-file={data}/pid")];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let server = spawn("mariadbd", &[&["--no-defaults", "--user=mysql", "--skip-networking"][..], &options].concat());
        until_it_works("mariadb", &["-uroot", &format!("--socket={socket}"), "-e", "select 1"]);
        (server, socket, home)
    };
    let (_old, old, home) = start("old");
    let fill = "create database d character set utf8mb4; use d; create table t(i int primary key, s varchar(9), b blob); \
                insert into t values (1, '\u{1f600}', x'00ff0a0d1a27'); create procedure p() select 1; \
                set password for root@localhost = password('geheim');";
    until_it_works("mariadb", &["-uroot", &format!("--socket={old}"), "--default-character-set=utf8mb4", "-e", fill]);
    let env = [("MARIADB_ROOT_PASSWORD", "geheim"), ("HOME", home.as_str()), ("MYSQL_HOST", "elsewhere.invalid")];
    let bytes = dump("mariadb", &env).unwrap();
    assert_eq!(bytes, dump("mariadb", &env).unwrap(), "the same data make the same dump");
    let (_new, new, home) = start("new");
    restore("mariadb", &[("HOME", home.as_str())], &bytes).unwrap();
    let query = "select hex(s), hex(b) from d.t; call d.p()";
    let found = until_it_works(
        "mariadb",
        &["-uroot", "-pgeheim", &format!("--socket={new}"), "--default-character-set=utf8mb4", "-N", "-e", query],
    );
    assert_eq!(found, "F09F9880\t00FF0A0D1A27\n1\n");
}

#[test]
fn postgresql_takes_its_own_dump_into_a_server_that_is_not_quite_new() {
    let Some(bin) = postgres_folder().filter(|_| has(&["setpriv", "pg_dumpall", "psql"]) && rustix::process::geteuid().is_root()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let home = folder.path().to_str().unwrap();
    let start = |port: &str| {
        let [data, initdb, postgres] = [format!("{home}/{port}"), format!("{bin}/initdb"), format!("{bin}/postgres")];
        let init = [initdb.as_str(), "-N", "-A", "trust", "-U", "app", "-D", &data];
        until_it_works("setpriv", &[&AS_POSTGRES[..], &init].concat());
        let serve = [postgres.as_str(), "-D", &data, "-k", home, "-p", port, "-c", "listen_addresses=", "-F"];
        let server = spawn("setpriv", &[&AS_POSTGRES[..], &serve].concat());
        until_it_works("psql", &["-h", home, "-p", port, "-U", "app", "-d", "postgres", "-c", "select 1"]);
        server
    };
    let sql = |port: &str, database: &str, text: &str| {
        until_it_works("psql", &["-h", home, "-p", port, "-U", "app", "-d", database, "-Atqc", text])
    };
    let env = |port| [("POSTGRES_USER", "app"), ("PGHOST", home), ("PGPORT", port)];
    let _old = start("5701");
    sql("5701", "postgres", "create role web login password 'x'");
    sql("5701", "postgres", "create database app owner web");
    sql("5701", "app", "create table t as select 'CREATE ROLE app;' as x from generate_series(1, 1000)");
    let bytes = dump("postgres", &env("5701")).unwrap();
    let (engine, container) = host(&env("5701"));
    let checkpoint = Preset::parse("postgres").unwrap().before_freeze(&container).unwrap();
    assert_eq!(before_freeze(&engine, &container, &checkpoint), None);
    let _new = start("5702");
    sql("5702", "postgres", "create database app");
    restore("postgres", &env("5702"), &bytes).unwrap();
    assert_eq!(sql("5702", "app", "select count(*), min(x) from t").trim(), "1000|CREATE ROLE app;");
    assert_eq!(sql("5702", "app", "select pg_get_userbyid(datdba) from pg_database where datname = 'app'").trim(), "web");
}

/// Where Debian has the server.
fn postgres_folder() -> Option<String> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    versions
        .filter_map(|version| Some(version.ok()?.path().join("bin").to_str()?.to_owned()))
        .find(|bin| Path::new(bin).join("initdb").exists())
}
