//! What users type, and names of objects.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use icecore::cli::testing;
use icecore::model::path::escape;
use icecore::model::{ChunkId, Name, TreePath};
use icecore::repo;
use icecore::storage::Key;
use icecore::volume::spelling::SourceSpec;

/// A TIME or an age.
pub(super) fn time(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let moment = testing::time(text);
    if let Some(moment) = moment {
        assert!(moment.nanos < 1_000_000_000);
    }
    testing::age(text).is_some() || moment.is_some()
}

/// SOURCE|SNAPSHOT.
pub(super) fn snapshot_name(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| testing::snapshot(text).is_some())
}

/// SOURCE. A volume's name never leads anywhere as a path.
pub(super) fn source(bytes: &[u8]) -> bool {
    match SourceSpec::parse(OsStr::from_bytes(bytes)) {
        Ok(SourceSpec::Volume(name)) => {
            assert!(!name.is_empty() && !name.contains('/') && !name.starts_with('.'), "{name:?}");
            true
        }
        Ok(SourceSpec::Path(path)) => !path.as_os_str().is_empty(),
        Err(_) => false,
    }
}

/// An object's name: whatever is accepted stays below the repository's folder.
pub(super) fn key(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let _ = text.parse::<ChunkId>();
    let Ok(key) = text.parse::<Key>() else { return false };
    assert_eq!(key.as_str(), text);
    assert!(key.as_str().split('/').all(|part| !part.is_empty() && !part.starts_with('.')));
    if let Some((session, sequence)) = repo::parse_key(&key) {
        assert_eq!(repo::entry_key(&session, sequence).ok().as_ref(), Some(&key));
    }
    if let Some(pack) = repo::parse_pack_key(&key) {
        assert_eq!(repo::pack_key(&pack).ok().as_ref(), Some(&key));
    }
    true
}

/// A path inside a snapshot: never out of it, and nothing that steers a terminal when it is shown.
pub(super) fn tree_path(bytes: &[u8]) -> bool {
    let shown = escape(bytes);
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
    let Ok(path) = TreePath::parse(bytes) else { return false };
    let names: Vec<Name> = path.names().map(|name| Name::new(name).expect("a name of a path")).collect();
    let again = names.iter().fold(TreePath::root(), |path, name| path.join(name));
    assert_eq!(again, path);
    assert_eq!(TreePath::parse(path.as_bytes()).ok().as_ref(), Some(&path));
    assert!(path.parent().is_none_or(|parent| path.starts_with(&parent)));
    true
}

/// A configuration file. What is said about a bad one steers no terminal.
pub(super) fn settings(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    match testing::settings(text) {
        Ok(()) => true,
        Err(problem) => {
            assert!(!problem.chars().any(|c| c.is_control() && c != '\n'), "{problem:?}");
            false
        }
    }
}
