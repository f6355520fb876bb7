//! Plans carried out in a scripted container.

use std::sync::{Arc, Mutex};

use super::plan::Program;
use super::*;
use crate::docker::fake::{FakeEngine, FakeExec, FakeOutput};

const TOKEN: &str = "0123456789abcdef";
const CLUSTER: &[u8] = b"SELECT 1;\n--\n-- PostgreSQL database cluster dump complete\n--\n\n";
const PASSWORD: &str = "hunter2";

/// Every variable that a preset takes a secret from.
const SECRETS: &[&str] =
    &["POSTGRES_PASSWORD", "MYSQL_ROOT_PASSWORD", "MONGO_INITDB_ROOT_PASSWORD", "REDIS_PASSWORD", "VAULT_TOKEN", "ETCD_ROOT_PASSWORD"];

fn container(env: &[(&str, &str)]) -> ContainerDetail {
    ContainerDetail {
        id: "a".repeat(64),
        name: "db".into(),
        state: "running".into(),
        running: true,
        env: env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..ContainerDetail::default()
    }
}

/// A container that answers with `answer`, and the commands that it was given.
fn engine(
    container: &ContainerDetail,
    answer: impl Fn(&FakeExec) -> Result<FakeOutput> + Send + 'static,
) -> (FakeEngine, Arc<Mutex<Vec<FakeExec>>>) {
    let engine = FakeEngine::new();
    engine.add_detail(container.clone());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    engine.on_exec(move |_, exec| {
        record.lock().unwrap().push(exec.clone());
        answer(exec)
    });
    (engine, seen)
}

fn lines(seen: &Mutex<Vec<FakeExec>>) -> Vec<String> {
    seen.lock().unwrap().iter().map(FakeExec::line).collect()
}

fn all() -> Vec<Preset> {
    let names = ["postgres", "timescaledb", "mysql", "mongodb", "redis", "sqlite:/data/app.db", "vault", "etcd"];
    names.map(|name| Preset::parse(name).unwrap()).to_vec()
}

fn dump_of(preset: &str, container: &ContainerDetail, engine: &FakeEngine) -> Result<(DumpReport, Vec<u8>)> {
    let plan = Preset::parse(preset)?.dump(container, TOKEN)?;
    let mut out = Vec::new();
    let mut sink = |bytes: &[u8]| {
        out.extend_from_slice(bytes);
        Ok(())
    };
    let report = take(engine, container, &plan, &mut sink)?;
    Ok((report, out))
}

fn database() -> Vec<u8> {
    let mut file = vec![0; 8192];
    file[..16].copy_from_slice(b"SQLite format 3\0");
    file[16..18].copy_from_slice(&4096_u16.to_be_bytes());
    file[28..32].copy_from_slice(&2_u32.to_be_bytes());
    file
}

#[test]
fn presets_are_read_by_name_and_only_sqlite_takes_a_path() {
    for (text, application) in NAMES.iter().filter(|(_, application)| *application != Application::Sqlite) {
        assert_eq!(Preset::parse(text).unwrap(), Preset { application: *application, path: None });
        assert_eq!(Application::parse(application.name()), Some(*application));
    }
    let sqlite = Preset::parse(" sqlite:/data/a:b.db ").unwrap();
    assert_eq!((sqlite.application, sqlite.path.as_deref()), (Application::Sqlite, Some("/data/a:b.db")));
    for bad in ["", "postgre", "sqlite", "sqlite:", "sqlite:app.db", "sqlite:/a\0b", "redis:/data", "postgres; rm -rf /"] {
        assert_eq!(Preset::parse(bad).unwrap_err().kind(), ErrorKind::Usage, "{bad}");
    }
    assert_eq!(Preset::parse("redis").unwrap().dump(&container(&[]), "../../../../../../x").unwrap_err().kind(), ErrorKind::Usage);
}

#[test]
fn a_dump_that_ended_well_and_is_whole_is_handed_on_as_it_came() {
    let container = container(&[("POSTGRES_USER", "app"), ("POSTGRES_PASSWORD", PASSWORD)]);
    let (engine, seen) = engine(&container, |exec| {
        Ok(if exec.line().ends_with("--version") {
            FakeOutput::new("pg_dumpall (PostgreSQL) 15.18\nmore")
        } else {
            FakeOutput::new(CLUSTER)
        })
    });
    let (report, out) = dump_of("postgres", &container, &engine).unwrap();
    assert_eq!(out, CLUSTER);
    assert_eq!((report.file, report.bytes, report.tool.as_str()), ("dump.sql", CLUSTER.len() as u64, "pg_dumpall"));
    assert_eq!(report.version, "pg_dumpall (PostgreSQL) 15.18");
    let seen = seen.lock().unwrap();
    let dump = &seen.last().unwrap().spec;
    assert_eq!(dump.user.as_deref(), Some("postgres"));
    assert!(dump.env.contains(&("PGUSER".into(), "app".into())) && dump.env.contains(&("PGPASSWORD".into(), PASSWORD.into())));
}

#[test]
fn neither_an_exit_code_nor_an_end_alone_makes_a_dump() {
    let container = container(&[]);
    let cut = &CLUSTER[..CLUSTER.len() - 10];
    for (stdout, code, expected) in
        [(CLUSTER, 1, "exit code 1"), (cut, 0, "is not whole"), (&b""[..], 0, "is not whole"), (CLUSTER, 137, "exit code 137")]
    {
        let (engine, _) = engine(&container, move |exec| {
            Ok(if exec.line().ends_with("--version") {
                FakeOutput::new("1")
            } else {
                FakeOutput { stdout: stdout.to_vec(), stderr: b"pg_dump: \x1b[31merror".to_vec(), code, error: None }
            })
        });
        let error = dump_of("postgres", &container, &engine).unwrap_err();
        assert!(error.to_string().contains(expected) && error.kind() == ErrorKind::Source, "{error}");
        assert!(!error.to_string().contains('\x1b') && error.subject() == Some("db"), "{error}");
    }
}

#[test]
fn a_stream_that_breaks_is_no_dump_even_with_its_end() {
    let container = container(&[]);
    let (engine, _) = engine(&container, |exec| {
        Ok(if exec.line().ends_with("--version") { FakeOutput::new("1") } else { FakeOutput::broken(CLUSTER, ErrorKind::Docker) })
    });
    assert_eq!(dump_of("postgres", &container, &engine).unwrap_err().kind(), ErrorKind::Docker);
}

#[test]
fn whichever_step_fails_the_temporary_files_go() {
    let container = container(&[("TMPDIR", "/var/cache")]);
    let remove = format!("rm -rf /var/cache/icecore-{TOKEN}");
    for failing in ["mkdir", "sqlite3 -batch", "cat", "nothing"] {
        for is_broken in [false, true] {
            let (engine, seen) = engine(&container, move |exec| {
                if exec.line().starts_with(failing) {
                    return if is_broken { Err(Error::new(ErrorKind::Docker, "gone")) } else { Ok(FakeOutput::failed(1, "no space left")) };
                }
                Ok(if exec.line().starts_with("cat") { FakeOutput::new(database()) } else { FakeOutput::new("") })
            });
            let result = dump_of("sqlite:/data/app.db", &container, &engine);
            assert_eq!(result.is_ok(), failing == "nothing", "{failing}");
            assert_eq!(lines(&seen).last(), Some(&remove), "{failing}");
            assert_eq!(lines(&seen).iter().filter(|line| **line == remove).count(), 1);
        }
    }
}

#[test]
fn files_that_could_not_be_removed_are_told() {
    let container = container(&[]);
    for fails in [false, true] {
        let (engine, _) = engine(&container, move |exec| {
            Ok(match exec.line() {
                line if line.starts_with("rm") => FakeOutput::failed(1, "read-only"),
                line if line.starts_with("cat") && !fails => FakeOutput::new(database()),
                line if line.starts_with("cat") => FakeOutput::failed(1, "gone"),
                _ => FakeOutput::new(""),
            })
        });
        let told = match dump_of("sqlite:/data/app.db", &container, &engine) {
            Ok((report, _)) => report.warnings.join(""),
            Err(error) => error.advice().unwrap_or_default().to_owned(),
        };
        assert!(told.contains("remove the temporary files") && told.contains("read-only"), "{told}");
    }
}

#[test]
fn a_sink_that_fails_ends_the_dump_and_still_cleans_up() {
    let container = container(&[]);
    let (engine, seen) =
        engine(&container, |exec| Ok(if exec.line().starts_with("cat") { FakeOutput::new(vec![0; 1 << 20]) } else { FakeOutput::new("") }));
    let plan = Preset::parse("sqlite:/data/app.db").unwrap().dump(&container, TOKEN).unwrap();
    let mut sink = |_: &[u8]| Err(Error::new(ErrorKind::Interrupted, "interrupted"));
    assert_eq!(take(&engine, &container, &plan, &mut sink).unwrap_err().kind(), ErrorKind::Interrupted);
    assert!(lines(&seen).last().unwrap().starts_with("rm -rf"));
}

#[test]
fn no_secret_is_in_an_argument_a_debug_text_or_an_error() {
    let env: Vec<_> = SECRETS.iter().map(|name| (*name, PASSWORD)).collect();
    let container = container(&env);
    for preset in all() {
        let mut plans = vec![preset.dump(&container, TOKEN).unwrap()];
        plans.extend(preset.before_freeze(&container));
        if let Restore::Pipe(plan) = preset.restore(&container, "", TOKEN).unwrap() {
            plans.push(plan);
        }
        for plan in plans {
            assert!(!format!("{plan:?}").contains(PASSWORD), "{plan:?}");
            let (engine, seen) = engine(&container, |exec| {
                let is_version = exec.spec.argv.last().is_some_and(|argument| argument.contains("version"));
                Ok(if is_version { FakeOutput::new("1") } else { FakeOutput::failed(1, "denied") })
            });
            let mut sink = |_: &[u8]| Ok(());
            let error = take(&engine, &container, &plan, &mut sink).unwrap_err();
            assert!(!format!("{error:?}{error}").contains(PASSWORD), "{error:?}");
            assert!(lines(&seen).iter().all(|line| !line.contains(PASSWORD)), "{:?}", lines(&seen));
        }
        let needs_none = preset.application == Application::Sqlite;
        let (engine, seen) = engine(&container, |_| Ok(FakeOutput::new("")));
        let _ = dump_of(
            &format!("{}{}", preset.application.name(), preset.path.as_deref().map_or(String::new(), |p| format!(":{p}"))),
            &container,
            &engine,
        );
        let handed = |exec: &FakeExec| {
            exec.spec.env.iter().any(|(_, value)| value == PASSWORD)
                || exec.stdin.as_ref().is_some_and(|stdin| String::from_utf8_lossy(stdin).contains(PASSWORD))
        };
        assert_eq!(seen.lock().unwrap().iter().any(handed), !needs_none, "{preset:?} hands the password over another way");
    }
}

#[test]
fn a_password_in_a_file_is_read_in_the_container() {
    let container = container(&[("POSTGRES_PASSWORD_FILE", "/run/secrets/pw"), ("POSTGRES_USER_FILE", "/run/secrets/user")]);
    let (engine, seen) = engine(&container, |exec| {
        Ok(match exec.line().as_str() {
            "cat /run/secrets/pw" => FakeOutput::new(format!("{PASSWORD}\n")),
            "cat /run/secrets/user" => FakeOutput::new("app"),
            _ => FakeOutput::new(CLUSTER),
        })
    });
    dump_of("postgres", &container, &engine).unwrap();
    let seen = seen.lock().unwrap();
    let dump = &seen.last().unwrap().spec;
    assert!(dump.env.contains(&("PGPASSWORD".into(), PASSWORD.into())) && dump.env.contains(&("PGUSER".into(), "app".into())));
    assert!(seen.iter().all(|exec| !exec.line().starts_with("cat") || exec.spec.user.is_none()), "as the container's user");
}

#[test]
fn a_password_file_that_is_none_is_refused() {
    for (path, answer) in [
        ("run/secrets/pw", FakeOutput::new("x")),
        ("/run/secrets/pw", FakeOutput::failed(1, "No such file")),
        ("/run/secrets/pw", FakeOutput::new(vec![b'x'; 100_000])),
        ("/run/secrets/pw", FakeOutput::new(vec![0xff])),
        ("/run/secrets/pw", FakeOutput::new("a\0b")),
    ] {
        let container = container(&[("REDIS_PASSWORD_FILE", path)]);
        let answer = Mutex::new(Some(answer));
        let (engine, seen) = engine(&container, move |exec| {
            Ok(if exec.line().starts_with("cat") { answer.lock().unwrap().take().unwrap() } else { FakeOutput::new("1") })
        });
        let error = dump_of("redis", &container, &engine).unwrap_err();
        assert!(error.to_string().contains("password's file"), "{error}");
        assert!(lines(&seen).iter().all(|line| !line.contains("--rdb")), "no dump without its password");
    }
}

#[test]
fn the_program_is_found_under_the_name_that_the_image_has() {
    let container = container(&[]);
    let absent = |text: &str| Err(Error::new(ErrorKind::Docker, format!("OCI runtime exec failed: {text}")));
    for by_code in [true, false] {
        let (engine, seen) = engine(&container, move |exec| match exec.spec.argv[0].as_str() {
            "mariadb-dump" if by_code => Ok(FakeOutput::failed(127, "")),
            "mariadb-dump" => absent("exec: \"mariadb-dump\": executable file not found in $PATH"),
            _ if exec.line().ends_with("--version") => Ok(FakeOutput::new("mysqldump  Ver 8.0.36")),
            _ => Ok(FakeOutput::new("-- Dump completed\n")),
        });
        let (report, _) = dump_of("mysql", &container, &engine).unwrap();
        assert_eq!((report.tool.as_str(), report.version.as_str()), ("mysqldump", "mysqldump  Ver 8.0.36"));
        assert!(lines(&seen).iter().all(|line| !line.starts_with("mariadb-dump --user")));
    }
    let (engine, _) = engine(&container, |_| Ok(FakeOutput::failed(126, "")));
    let error = dump_of("mysql", &container, &engine).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("mariadb-dump or mysqldump"), "{error}");
}

#[test]
fn a_user_that_the_image_does_not_have_is_done_without() {
    let container = container(&[]);
    let (engine, _) = engine(&container, |exec| match exec.spec.user.as_deref() {
        Some(_) => Err(Error::new(ErrorKind::Docker, "unable to find user postgres: no matching entries in passwd file")),
        None if exec.line().ends_with("--version") => Ok(FakeOutput::new("1")),
        None => Ok(FakeOutput::new(CLUSTER)),
    });
    assert!(dump_of("postgres", &container, &engine).is_ok());
    let own = ContainerDetail { user: "1001:1001".into(), ..container.clone() };
    let plan = Preset::parse("postgres").unwrap().dump(&own, TOKEN).unwrap();
    assert_eq!(plan.tool.users, [None], "nobody is made another user of a container that has one");
}

#[test]
fn a_paused_container_is_not_taken_for_one_without_the_program() {
    let container = ContainerDetail { state: "paused".into(), paused: true, ..container(&[]) };
    let (engine, _) = engine(&container, |_| Ok(FakeOutput::new("")));
    assert_eq!(dump_of("redis", &container, &engine).unwrap_err().kind(), ErrorKind::Busy);
}

#[test]
fn an_engine_that_cannot_be_reached_is_not_taken_for_a_container_without_the_program() {
    let container = container(&[]);
    for why in ["cannot connect: permission denied", "cannot connect: no such file or directory", "there is no such container"] {
        let (engine, seen) = engine(&container, move |_| Err(Error::new(ErrorKind::Docker, why)));
        assert_eq!(dump_of("redis", &container, &engine).unwrap_err().kind(), ErrorKind::Docker);
        assert_eq!(lines(&seen).len(), 1, "no other name is tried");
    }
}

/// The end of a collection, as a mongodump archive ends.
fn archive(filler: usize) -> Vec<u8> {
    let fields = b"\x02db\0\x02\0\0\0a\0\x08EOF\0\x01\x12CRC\0\0\0\0\0\0\0\0\0";
    let document = [&(fields.len() as u32 + 5).to_le_bytes()[..], fields, &[0]].concat();
    [&vec![7; filler][..], &document, &[0xff; 4]].concat()
}

#[test]
fn a_server_without_an_oplog_is_dumped_without_and_that_is_told() {
    let container = container(&[]);
    for has_oplog in [true, false] {
        let (engine, seen) = engine(&container, move |exec| {
            Ok(match exec.line() {
                line if line.ends_with("--version") => FakeOutput::new("1"),
                line if line.contains("--oplog") && !has_oplog => FakeOutput { stdout: vec![1; 100], ..FakeOutput::failed(1, "no oplog") },
                _ => FakeOutput::new(archive(0)),
            })
        });
        let (report, out) = dump_of("mongodb", &container, &engine).unwrap();
        assert_eq!(out, archive(0), "nothing of the first attempt");
        assert_eq!((report.variant, report.warnings.len()), if has_oplog { ("oplog", 0) } else { ("", 1) });
        assert_eq!(lines(&seen).len(), if has_oplog { 2 } else { 3 });
        let restore = Preset::parse("mongodb").unwrap().restore(&container, report.variant, TOKEN).unwrap();
        let Restore::Pipe(plan) = restore else { unreachable!() };
        assert_eq!(plan.steps[0].variants[0].args.contains(&"--oplogReplay".to_owned()), has_oplog);
    }
}

#[test]
fn a_dump_that_was_handed_on_in_part_is_not_begun_again() {
    let container = container(&[]);
    let (engine, seen) = engine(&container, |exec| {
        Ok(match exec.line() {
            line if line.ends_with("--version") => FakeOutput::new("1"),
            line if line.contains("--oplog") => FakeOutput { stdout: archive(1 << 20), ..FakeOutput::failed(1, "oplog overflow") },
            _ => FakeOutput::new(archive(0)),
        })
    });
    let error = dump_of("mongodb", &container, &engine).unwrap_err();
    assert!(error.to_string().contains("oplog overflow"), "{error}");
    assert_eq!(lines(&seen).len(), 2);
}

#[test]
fn a_password_of_mongodb_goes_by_stdin_into_a_dump_and_by_a_file_that_goes_into_a_restore() {
    let container = container(&[("MONGO_INITDB_ROOT_USERNAME", "root"), ("MONGO_INITDB_ROOT_PASSWORD", "p@ss")]);
    let config = b"uri: \"mongodb://root:p%40ss@localhost/?authSource=admin&directConnection=true\"\n";
    let (engine, seen) =
        engine(&container, |exec| Ok(if exec.line().ends_with("--version") { FakeOutput::new("1") } else { FakeOutput::new(archive(0)) }));
    dump_of("mongodb", &container, &engine).unwrap();
    assert_eq!(seen.lock().unwrap().last().unwrap().stdin.as_deref(), Some(&config[..]));
    seen.lock().unwrap().clear();
    let Restore::Pipe(plan) = Preset::parse("mongodb").unwrap().restore(&container, "", TOKEN).unwrap() else { unreachable!() };
    pipe_back(&engine, &container, &plan, &mut &b"the dump"[..]).unwrap();
    let folder = format!("/tmp/icecore-{TOKEN}");
    assert_eq!(
        lines(&seen),
        [
            "mongorestore --version".to_owned(),
            format!("mkdir -m 700 {folder}"),
            format!("dd of={folder}/mongo.yaml"),
            format!("mongorestore --archive --drop --stopOnError --config={folder}/mongo.yaml"),
            format!("rm -rf {folder}"),
        ]
    );
    let seen = seen.lock().unwrap();
    assert_eq!((seen[2].stdin.as_deref(), seen[3].stdin.as_deref()), (Some(&config[..]), Some(&b"the dump"[..])));
}

#[test]
fn a_restore_of_postgresql_leaves_out_the_role_that_is_there() {
    let container = container(&[("POSTGRES_USER", "app")]);
    let script = b"DROP ROLE IF EXISTS app;\nCREATE ROLE app;\nCREATE ROLE web;\n\\connect app\nCREATE ROLE app;\n";
    let (engine, seen) = engine(&container, |_| Ok(FakeOutput::new("1")));
    let Restore::Pipe(plan) = Preset::parse("postgres").unwrap().restore(&container, "", TOKEN).unwrap() else { unreachable!() };
    pipe_back(&engine, &container, &plan, &mut &script[..]).unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen[1].stdin.as_deref(), Some(&b"CREATE ROLE web;\n\\connect app\nCREATE ROLE app;\n"[..]));
    assert!(seen[1].line().contains("--set=ON_ERROR_STOP=1"), "{}", seen[1].line());
}

#[test]
fn a_restore_that_fails_says_what_the_program_said() {
    let container = container(&[]);
    let (engine, _) = engine(&container, |exec| {
        Ok(if exec.line().ends_with("--version") { FakeOutput::new("1") } else { FakeOutput::failed(3, "psql:<stdin>:3: ERROR:  no") })
    });
    let Restore::Pipe(plan) = Preset::parse("postgres").unwrap().restore(&container, "", TOKEN).unwrap() else { unreachable!() };
    let error = pipe_back(&engine, &container, &plan, &mut &b"x"[..]).unwrap_err();
    assert!(error.kind() == ErrorKind::Target && error.to_string().contains("<stdin>:3: ERROR"), "{error}");
}

#[test]
fn a_checkpoint_that_fails_is_only_told() {
    let container = container(&[]);
    let plan = Preset::parse("postgres").unwrap().before_freeze(&container).unwrap();
    for (code, is_told) in [(0, false), (2, true), (127, true)] {
        let (engine, _) = engine(&container, move |_| Ok(FakeOutput::failed(code, "no")));
        assert_eq!(before_freeze(&engine, &container, &plan).is_some(), is_told);
    }
    assert!(Preset::parse("redis").unwrap().before_freeze(&container).is_none());
}

#[test]
fn no_command_writes_to_a_path_that_it_would_replace() {
    let plan = Preset::parse("etcd").unwrap().dump(&container(&[]), TOKEN).unwrap();
    assert!(plan.steps.iter().all(|step| step.variants.iter().all(|variant| !variant.args.iter().any(|arg| arg.contains("/dev/")))));
    assert!(plan.steps.iter().any(|step| step.program == Program::System("cat")));
}

#[test]
fn an_unusual_temporary_folder_is_not_used() {
    for folder in ["relative", "/tmp; rm -rf /", "/a b", "/a'b", ""] {
        let plan = Preset::parse("etcd").unwrap().dump(&container(&[("TMPDIR", folder)]), TOKEN).unwrap();
        assert_eq!(plan.steps[0].variants[0].args[2], format!("/tmp/icecore-{TOKEN}"), "{folder}");
    }
}

#[test]
fn a_random_root_password_is_said_to_be_unknown() {
    let error = Preset::parse("mysql").unwrap().dump(&container(&[("MYSQL_RANDOM_ROOT_PASSWORD", "yes")]), TOKEN).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}
