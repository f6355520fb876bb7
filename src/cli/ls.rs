//! `icecore ls`

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::Args;
use serde::Serialize;

use super::exit::Outcome;
use super::{Context, open, render};
use crate::error::Result;
use crate::model::path::escape;
use crate::model::{Node, NodeKind, TreePath};
use crate::ops;

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// The snapshot
    snapshot: String,
    /// List this directory or entry instead of the snapshot's root
    path: Option<OsString>,
    /// Show mode, owner, size and time
    #[arg(short, long)]
    long: bool,
    /// List what is below, too
    #[arg(short, long)]
    recursive: bool,
}

#[derive(Serialize)]
struct Head {
    snapshot: String,
    source: String,
}

#[derive(Serialize)]
struct Nothing {}

/// One entry as JSON. A path that is not UTF-8 is escaped, and then its bytes follow in hexadecimal.
#[derive(Serialize)]
struct EntryFact {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    kind: &'static str,
    mode: String,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    changed_while_read: bool,
}

pub(super) fn run(args: &LsArgs, context: &mut Context) -> Result<Outcome> {
    let path = args.path.as_ref().map_or(Ok(TreePath::root()), |path| TreePath::parse(path.as_bytes()))?;
    let repo = open::repository(context)?;
    let all = context.snapshots(&repo)?.0;
    let snapshot = context.selector(&all)?.snapshot(&args.snapshot)?;
    context.out.begin_list(&Head { snapshot: snapshot.id.to_string(), source: snapshot.record.source.name.clone() }, "entries")?;
    let (out, zone, progress) = (&mut context.out, &context.zone, &context.progress);
    ops::tree::list(&repo, &snapshot.record, &path, args.recursive, &mut |path, node| {
        progress.check()?;
        out.item(&fact(path, node), || if args.long { long_line(path, node, zone) } else { short_line(path, node) })
    })?;
    context.out.end_list(&Nothing {}, String::new)?;
    Ok(Outcome::Done)
}

/// Bytes as text that loses nothing: as they are when they are UTF-8, else escaped and in hexadecimal.
pub(super) fn lossless(bytes: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (escape(bytes), Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())),
    }
}

fn fact(path: &TreePath, node: &Node) -> EntryFact {
    let (text, path_hex) = lossless(path.as_bytes());
    let target = match &node.kind {
        NodeKind::Symlink(target) => Some(lossless(target).0),
        _ => None,
    };
    EntryFact {
        path: text,
        path_hex,
        kind: kind_word(&node.kind),
        mode: format!("{:04o}", node.meta.mode),
        uid: node.meta.uid,
        gid: node.meta.gid,
        size: node.size(),
        mtime: node.meta.mtime.to_string(),
        target,
        changed_while_read: node.meta.changed,
    }
}

fn kind_word(kind: &NodeKind) -> &'static str {
    match kind {
        NodeKind::File(_) | NodeKind::InlineFile(_) => "file",
        NodeKind::Directory(_) => "directory",
        NodeKind::Symlink(_) => "symlink",
        NodeKind::Fifo => "fifo",
        NodeKind::Socket => "socket",
        NodeKind::CharDevice { .. } => "character-device",
        NodeKind::BlockDevice { .. } => "block-device",
    }
}

fn short_line(path: &TreePath, node: &Node) -> String {
    let end = if node.is_dir() && !path.is_root() { "/" } else { "" };
    format!("{path}{end}")
}

fn long_line(path: &TreePath, node: &Node, zone: &jiff::tz::TimeZone) -> String {
    let size = match node.kind {
        NodeKind::CharDevice { major, minor } | NodeKind::BlockDevice { major, minor } => format!("{major},{minor}"),
        NodeKind::Directory(_) => "-".to_owned(),
        _ => node.size().to_string(),
    };
    let target = match &node.kind {
        NodeKind::Symlink(target) => format!(" -> {}", escape(target)),
        _ => String::new(),
    };
    let changed = if node.meta.changed { " (changed while read)" } else { "" };
    format!(
        "{} {:>6} {:>6} {size:>14} {} {}{target}{changed}",
        render::mode(node),
        node.meta.uid,
        node.meta.gid,
        render::local_time(node.meta.mtime, zone),
        short_line(path, node)
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::model::{Meta, Xattrs};

    fn node(kind: NodeKind) -> Node {
        let meta = Meta { mode: 0o640, uid: 999, gid: 0, mtime: Timestamp::new(0, 0), xattrs: Xattrs::None, links: None, changed: false };
        Node { name: None, meta, kind }
    }

    #[test]
    fn names_that_are_not_text_are_printed_safely_and_lose_nothing_in_json() {
        let path = TreePath::parse(b"etc/\x1b[2J\xff").unwrap();
        let link = node(NodeKind::Symlink(b"../\x07".to_vec()));
        let line = long_line(&path, &link, &jiff::tz::TimeZone::UTC);
        assert_eq!(line, "lrw-r-----    999      0              4 1970-01-01 00:00:00 etc/\\u{1b}[2J\\xff -> ../\\u{7}");
        let fact = serde_json::to_value(fact(&path, &link)).unwrap();
        assert_eq!(fact["path_hex"], "6574632f1b5b324aff");
        assert_eq!(fact["target"], "../\u{7}");
        assert_eq!(fact["mode"], "0640");
    }

    #[test]
    fn a_plain_name_is_itself_in_json() {
        let path = TreePath::parse("a \\ \"ü\"".as_bytes()).unwrap();
        let fact = serde_json::to_value(fact(&path, &node(NodeKind::InlineFile(vec![1, 2])))).unwrap();
        assert_eq!((fact["path"].as_str(), fact.get("path_hex"), fact["size"].as_u64()), (Some("a \\ \"ü\""), None, Some(2)));
    }
}
