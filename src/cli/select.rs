//! Which snapshot or source a user means: an id or its beginning, `latest`, `SOURCE@TIME`, or a source as of a time.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use jiff::Zoned;

use super::render;
use super::time::{self, At};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{SourceIdentity, SourceKind};
use crate::repo::Committed;
use crate::volume::spelling::{self, SourceSpec};

/// Fewer digits of an id are taken for a source's name.
const ID_DIGITS_MIN: usize = 4;
/// How many candidates an error names.
const CANDIDATES_SHOWN_MAX: usize = 10;

/// Finds snapshots among `all`.
pub(super) struct Selector<'a> {
    /// All committed snapshots.
    pub(super) all: &'a [Committed],
    /// This host's name: its sources are meant before those of the same name on other hosts.
    pub(super) host: String,
    /// What relative paths start from.
    pub(super) directory: PathBuf,
    /// What times are relative to.
    pub(super) now: Zoned,
}

impl<'a> Selector<'a> {
    /// SNAPSHOT, or a SOURCE, whose newest is meant.
    pub(super) fn snapshot(&self, text: &str) -> Result<&'a Committed> {
        if text == "latest" {
            return self.newest_of_all();
        }
        let by_name = self.find_source(text)?;
        let by_id = self.by_id(text)?;
        match (by_name, by_id) {
            (Some(source), Some(_)) => Err(Error::new(ErrorKind::Usage, "this is both the name of a source and the beginning of an id")
                .on(render::name(text))
                .hint(format!("write {}:{}, or more digits of the id", kind_word(source.kind), render::name(&source.name)))),
            (None, Some(snapshot)) => Ok(snapshot),
            (Some(source), None) => self.as_of(&source, At::Latest),
            (None, None) => match self.source_at_time(text)? {
                Some(snapshot) => Ok(snapshot),
                None => Err(self.nothing_called(text)),
            },
        }
    }

    /// SOURCE|SNAPSHOT with an optional `--at`, which only a source may have.
    pub(super) fn wanted(&self, text: &str, at: Option<At>) -> Result<&'a Committed> {
        match at {
            None => self.snapshot(text),
            Some(at) => self.as_of(&self.source(text)?, at),
        }
    }

    /// SNAPSHOT, or a SOURCE, all of whose snapshots are meant.
    pub(super) fn named(&self, text: &str) -> Result<Vec<&'a Committed>> {
        let one = self.snapshot(text)?;
        Ok(match self.find_source(text)? {
            Some(source) if text != "latest" => self.history(&source),
            _ => vec![one],
        })
    }

    /// The source of a snapshot that `text` names.
    pub(super) fn source(&self, text: &str) -> Result<SourceIdentity> {
        self.find_source(text)?.ok_or_else(|| self.nothing_called(text))
    }

    /// The snapshots of `source`, oldest first.
    pub(super) fn history(&self, source: &SourceIdentity) -> Vec<&'a Committed> {
        let mut found: Vec<_> = self.all.iter().filter(|snapshot| snapshot.record.source == *source).collect();
        found.sort_by_key(|snapshot| (snapshot.record.sequence, snapshot.record.time));
        found
    }

    /// The newest snapshot of `source` that is not later than `at`. Newest is the highest sequence: clocks may jump.
    pub(super) fn as_of(&self, source: &SourceIdentity, at: At) -> Result<&'a Committed> {
        let history = self.history(source);
        let found = match at {
            At::Latest => history.last().copied(),
            At::Moment(moment) => history.iter().rev().find(|snapshot| snapshot.record.time <= moment).copied(),
        };
        found.ok_or_else(|| {
            let none = Error::new(ErrorKind::NotFound, "there is no snapshot that old").on(render::name(&source.name));
            match history.iter().min_by_key(|snapshot| snapshot.record.time) {
                Some(oldest) => none.hint(format!(
                    "the oldest is {} of {}; take it with --at latest or a later time, or by its id",
                    oldest.id.short(),
                    render::local_time(oldest.record.time, self.now.time_zone())
                )),
                None => none,
            }
        })
    }

    /// `volume:NAME`, `path:DIR`, a path, or a volume's name, if a snapshot of it exists. A source of this host is meant
    /// before one of another host.
    fn find_source(&self, text: &str) -> Result<Option<SourceIdentity>> {
        // What is no legal name can be no source, but may still be an id or SOURCE@TIME.
        let (kind, names) = match SourceSpec::parse(OsStr::new(text)) {
            Ok(SourceSpec::Volume(name)) => (SourceKind::Volume, vec![name]),
            Ok(SourceSpec::Path(path)) => (SourceKind::Path, path_names(&path, &self.directory)),
            Err(_) => return Ok(None),
        };
        let sources = self.all.iter().map(|snapshot| &snapshot.record.source);
        let mut found: Vec<&SourceIdentity> = sources.filter(|source| source.kind == kind && names.contains(&source.name)).collect();
        found.sort();
        found.dedup();
        match &found[..] {
            [] => Ok(None),
            [one] => Ok(Some((*one).clone())),
            several => match several.iter().find(|source| source.host == self.host) {
                Some(here) => Ok(Some((*here).clone())),
                None => {
                    let hosts: Vec<String> = several.iter().map(|source| render::name(&source.host)).collect();
                    Err(Error::new(ErrorKind::Usage, format!("several other hosts have a source of this name ({})", hosts.join(", ")))
                        .on(render::name(text))
                        .hint("name the snapshot by its id; `icecore snapshots` lists them"))
                }
            },
        }
    }

    fn by_id(&self, text: &str) -> Result<Option<&'a Committed>> {
        let digits = text.to_ascii_lowercase();
        if digits.len() < ID_DIGITS_MIN || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let found: Vec<_> = self.all.iter().filter(|snapshot| snapshot.id.to_string().starts_with(&digits)).collect();
        match &found[..] {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            several => {
                // Enough digits to tell the candidates apart.
                let shared = shared_digits(several);
                let shown: Vec<String> = several
                    .iter()
                    .take(CANDIDATES_SHOWN_MAX)
                    .map(|snapshot| {
                        let id: String = snapshot.id.to_string().chars().take((shared + 1).max(10)).collect();
                        let when = render::local_time(snapshot.record.time, self.now.time_zone());
                        format!("{id} ({} of {when})", render::name(&snapshot.record.source.name))
                    })
                    .collect();
                let more = if several.len() > shown.len() { ", ..." } else { "" };
                Err(Error::new(ErrorKind::Usage, format!("{} snapshots begin with this", several.len()))
                    .on(digits)
                    .hint(format!("give more digits: {}{more}", shown.join(", "))))
            }
        }
    }

    /// `SOURCE@TIME`; the last `@` counts, since a path may have some.
    fn source_at_time(&self, text: &str) -> Result<Option<&'a Committed>> {
        let Some((name, at)) = text.rsplit_once('@') else { return Ok(None) };
        let Some(source) = self.find_source(name)? else { return Ok(None) };
        self.as_of(&source, time::parse_at(at, &self.now)?).map(Some)
    }

    fn newest_of_all(&self) -> Result<&'a Committed> {
        let newest = self.all.iter().max_by_key(|snapshot| (snapshot.record.time, snapshot.record.sequence));
        newest.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the repository has no snapshots").hint("take one with `icecore snapshot SOURCE`")
        })
    }

    fn nothing_called(&self, text: &str) -> Error {
        Error::new(ErrorKind::NotFound, "there is no snapshot or source of this name")
            .on(render::name(text))
            .hint("`icecore snapshots` lists them; an id needs at least 4 digits")
    }
}

/// The names that a directory may have in a repository: the real one while it is there, and what its text alone says for
/// when it is gone.
fn path_names(path: &Path, directory: &Path) -> Vec<String> {
    let lexical = absolute(path, directory);
    let real = spelling::identity(&SourceSpec::Path(lexical.clone()), "").ok().map(|identity| identity.name);
    let text = lexical.to_str().map(str::to_owned);
    real.into_iter().chain(text).chain([render::path(&lexical)]).collect()
}

fn absolute(path: &Path, directory: &Path) -> PathBuf {
    let mut parts: Vec<&OsStr> = Vec::new();
    let whole = directory.join(path);
    for part in whole.components() {
        match part {
            Component::Normal(name) => parts.push(name),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    std::iter::once(OsStr::new("/")).chain(parts).collect()
}

/// `volume` or `path`, as in `volume:NAME`.
pub(super) fn kind_word(kind: SourceKind) -> &'static str {
    match kind {
        SourceKind::Volume => "volume",
        SourceKind::Path => "path",
    }
}

/// How many digits all of these ids begin with.
fn shared_digits(snapshots: &[&Committed]) -> usize {
    let ids: Vec<String> = snapshots.iter().map(|snapshot| snapshot.id.to_string()).collect();
    let Some((first, others)) = ids.split_first() else { return 0 };
    let shared = |other: &String| first.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    others.iter().map(shared).min().unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::model::manifest::SnapshotStats;
    use crate::model::{Consistency, Meta, Node, NodeKind, SessionId, Snapshot, SnapshotId, Stream, Xattrs};

    pub(in super::super) fn committed(id: &str, kind: SourceKind, name: &str, host: &str, sequence: u64, seconds: i64) -> Committed {
        let meta = Meta { mode: 0o755, uid: 0, gid: 0, mtime: Timestamp::default(), xattrs: Xattrs::None, links: None, changed: false };
        let record = Snapshot {
            source: SourceIdentity { kind, name: name.into(), host: host.into() },
            run: SessionId([1; 16]),
            sequence,
            started: Timestamp::new(seconds, 0),
            time: Timestamp::new(seconds, 0),
            milliseconds: 10,
            consistency: Consistency::Stopped,
            frozen_milliseconds: 0,
            root: Node { name: None, meta, kind: NodeKind::Directory(Stream::EMPTY) },
            parent: None,
            unreadable: vec![],
            unreadable_count: 0,
            changed: vec![],
            changed_count: 0,
            stats: SnapshotStats::default(),
            volume: None,
            tags: vec![],
            program: "icecore".into(),
        };
        Committed { id: format!("{id:0<64}").parse::<SnapshotId>().unwrap(), record, session: SessionId([1; 16]), sequence: 1 }
    }

    fn volume(id: &str, name: &str, sequence: u64, seconds: i64) -> Committed {
        committed(id, SourceKind::Volume, name, "here", sequence, seconds)
    }

    struct World {
        all: Vec<Committed>,
        now: Zoned,
    }

    impl World {
        fn new(all: Vec<Committed>) -> Self {
            Self { all, now: "2026-11-20T16:30:15+00:00[UTC]".parse().unwrap() }
        }

        fn selector(&self) -> Selector<'_> {
            Selector { all: &self.all, host: "here".into(), directory: "/home/u".into(), now: self.now.clone() }
        }

        fn id(&self, text: &str) -> Result<String> {
            self.selector().snapshot(text).map(|snapshot| snapshot.id.to_string().trim_end_matches('0').to_owned())
        }

        fn at(&self, text: &str, moment: i64) -> Result<String> {
            let at = Some(At::Moment(Timestamp::new(moment, 0)));
            self.selector().wanted(text, at).map(|snapshot| snapshot.id.to_string().trim_end_matches('0').to_owned())
        }
    }

    #[test]
    fn a_snapshot_is_named_by_id_prefix_latest_source_or_source_at_time() {
        let world = World::new(vec![
            volume("abcd1", "pg", 1, 1_795_176_000), // 2026-11-20 12:00:00 UTC
            volume("abcd2", "pg", 2, 1_795_179_600), // 13:00:00
            committed("beef1", SourceKind::Path, "/srv/data", "here", 1, 1_795_183_200), // 14:00:00
        ]);
        assert_eq!(world.id("beef").unwrap(), "beef1");
        assert_eq!(world.id("BEEF1").unwrap(), "beef1");
        assert_eq!(world.id(&format!("{:0<64}", "abcd1")).unwrap(), "abcd1");
        assert_eq!(world.id("latest").unwrap(), "beef1");
        assert_eq!(world.id("pg").unwrap(), "abcd2");
        assert_eq!(world.id("volume:pg").unwrap(), "abcd2");
        assert_eq!(world.id("pg@latest").unwrap(), "abcd2");
        assert_eq!(world.id("pg@12:30").unwrap(), "abcd1");
        assert_eq!(world.id("pg@2026-11-20 13:00").unwrap(), "abcd2");
        assert_eq!(world.id("pg@4h ago").unwrap(), "abcd1");
        for path in ["/srv/data", "/srv/./data/", "../../srv/data", "path:/srv/data", "path:../../srv/x/../data", "/srv/data@latest"] {
            assert_eq!(world.id(path).unwrap(), "beef1", "{path}");
        }
    }

    #[test]
    fn what_names_nothing_or_several_is_an_error_that_helps() {
        let world = World::new(vec![volume("abcd1", "pg", 1, 100), volume("abcd2", "pg", 2, 200), volume("beef1", "beef", 1, 300)]);
        let error = world.id("abcd").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.advice().unwrap().contains("abcd100000 (pg of "), "{:?}", error.advice());
        assert_eq!(world.id("abc").unwrap_err().kind(), ErrorKind::NotFound, "three digits are no id");
        assert_eq!(world.id("abce").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(world.id("path:pg").unwrap_err().kind(), ErrorKind::NotFound, "kinds are kept apart");
        assert_eq!(world.id("pg@nonsense").unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(world.id("other@12:00").unwrap_err().kind(), ErrorKind::NotFound);
        assert!(world.id("beef").unwrap_err().advice().unwrap().contains("volume:beef"), "a name that is an id, too");
        assert_eq!(world.id("volume:beef").unwrap(), "beef1");
        assert_eq!(World::new(vec![]).id("latest").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(world.at("abcd1", 100).unwrap_err().kind(), ErrorKind::NotFound, "--at is for sources");
    }

    #[test]
    fn candidates_are_shown_with_enough_digits() {
        let world = World::new(vec![volume("abcdabcdabcd1", "pg", 1, 100), volume("abcdabcdabcd2", "pg", 2, 200)]);
        let error = world.id("abcd").unwrap_err();
        let hint = error.advice().unwrap();
        assert!(hint.contains("abcdabcdabcd1 ") && hint.contains("abcdabcdabcd2 "), "{hint}");
    }

    #[test]
    fn as_of_takes_the_highest_sequence_that_is_not_too_late() {
        // The clock jumped back between the second and the third.
        let world = World::new(vec![
            volume("a1", "pg", 1, 100),
            volume("a3", "pg", 3, 150),
            volume("a2", "pg", 2, 200),
            volume("b", "other", 9, 120),
        ]);
        assert_eq!(world.at("pg", 100).unwrap(), "a1");
        assert_eq!(world.at("pg", 149).unwrap(), "a1");
        assert_eq!(world.at("pg", 150).unwrap(), "a3");
        assert_eq!(world.at("pg", 500).unwrap(), "a3");
        assert_eq!(world.id("pg").unwrap(), "a3");
        let error = world.at("pg", 99).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.advice().unwrap().contains("1970-01-01 00:01:40"), "names the oldest: {:?}", error.advice());
    }

    #[test]
    fn a_source_of_this_host_is_meant_first() {
        let foreign = |id: &str, host: &str| committed(id, SourceKind::Volume, "pg", host, 1, 100);
        let world = World::new(vec![foreign("a1", "b"), foreign("a2", "here"), foreign("a3", "c")]);
        assert_eq!(world.id("pg").unwrap(), "a2");
        assert_eq!(World::new(vec![foreign("a1", "b")]).id("pg").unwrap(), "a1");
        assert_eq!(World::new(vec![foreign("a1", "b"), foreign("a3", "c")]).id("pg").unwrap_err().kind(), ErrorKind::Usage);
    }

    #[test]
    fn a_path_is_made_absolute_by_its_text() {
        let directory = Path::new("/home/u");
        for (text, expected) in
            [("./x", "/home/u/x"), (".", "/home/u"), ("..", "/home"), ("/../x//y/", "/x/y"), ("/", "/"), (".hidden", "/home/u/.hidden")]
        {
            assert_eq!(absolute(Path::new(text), directory), PathBuf::from(expected), "{text}");
        }
    }
}
