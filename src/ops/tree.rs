//! Reading inside snapshots: `ls`, `cat`, and the walk that other verbs share.

use std::io::Write;

use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::model::node::{XATTRS_BYTES_MAX, decode_xattrs};
use crate::model::{Node, NodeKind, Snapshot, Stream, TreePath, Xattrs};
use crate::progress::Progress;
use crate::repo::{ChunkReader, NodeReader, Repository, StreamReader};
use crate::seal::keys::ChunkKind;

/// The node at `path`.
pub fn find(repo: &Repository, snapshot: &Snapshot, path: &TreePath) -> Result<Node> {
    let reader = ChunkReader::new(repo);
    let mut node = snapshot.root.clone();
    for name in path.names() {
        let absent = || Error::new(ErrorKind::NotFound, "the snapshot has no such entry").on(path).hint("see `icecore ls`");
        let NodeKind::Directory(stream) = &node.kind else { return Err(absent()) };
        let mut nodes = NodeReader::new(&reader, stream);
        node = loop {
            match nodes.next_node()? {
                Some(node) if node.name_bytes() == name => break node,
                Some(node) if node.name_bytes() < name => {}
                _ => return Err(absent()),
            }
        };
    }
    Ok(node)
}

/// Visits the entries of the directory at `path` (or the one entry, when it is no directory), and with `recursive` all
/// that is below, in tree order.
pub fn list(
    repo: &Repository,
    snapshot: &Snapshot,
    path: &TreePath,
    recursive: bool,
    visit: &mut dyn FnMut(&TreePath, &Node) -> Result<()>,
) -> Result<()> {
    let node = find(repo, snapshot, path)?;
    let reader = ChunkReader::new(repo);
    match &node.kind {
        NodeKind::Directory(stream) => walk(&reader, stream, path, &mut |path, node| {
            visit(path, node)?;
            Ok(recursive)
        }),
        _ => visit(path, &node),
    }
}

/// Visits every entry below a directory, a directory before its entries. `visit` says whether to enter a directory.
pub fn walk(
    reader: &ChunkReader<'_>,
    root: &Stream,
    path: &TreePath,
    visit: &mut dyn FnMut(&TreePath, &Node) -> Result<bool>,
) -> Result<()> {
    let mut stack = vec![(path.clone(), NodeReader::new(reader, root))];
    while let Some((path, nodes)) = stack.last_mut() {
        let Some(node) = nodes.next_node().map_err(|e| e.on(&*path))? else {
            stack.pop();
            continue;
        };
        let Some(name) = &node.name else { continue };
        let path = path.join(name);
        let enter = visit(&path, &node)?;
        if let NodeKind::Directory(stream) = &node.kind
            && enter
        {
            check_nesting(&path, stack.len())?;
            stack.push((path, NodeReader::new(reader, stream)));
        }
    }
    Ok(())
}

/// Refuses a directory, `depth` below the root, that is deeper than any snapshot of ours has them.
pub fn check_nesting(path: &TreePath, depth: usize) -> Result<()> {
    if path.is_too_deep(depth) {
        let start = TreePath::parse(&path.as_bytes()[..path.as_bytes().len().min(200)]).unwrap_or_default();
        return Err(Error::damaged("directories are nested deeper than any snapshot has them").on(start));
    }
    Ok(())
}

/// Writes the content of the file at `path` to `out`; returns its length.
pub fn cat(repo: &Repository, snapshot: &Snapshot, path: &TreePath, out: &mut dyn Write, progress: &Progress) -> Result<u64> {
    let node = find(repo, snapshot, path)?;
    let mut put = |bytes: &[u8]| out.write_all(bytes).context(ErrorKind::Target, "cannot write the content of", path);
    match &node.kind {
        NodeKind::InlineFile(bytes) => put(bytes)?,
        NodeKind::File(stream) => {
            let reader = ChunkReader::new(repo);
            let mut leaves = StreamReader::new(&reader, stream);
            let zeros = vec![0; 64 << 10];
            while let Some(leaf) = leaves.next_leaf().map_err(|e| e.on(path))? {
                progress.check()?;
                if leaf.id.is_hole() {
                    let mut left = leaf.len;
                    while left > 0 {
                        progress.check()?;
                        let part = left.min(zeros.len() as u64);
                        put(&zeros[..usize::try_from(part).unwrap_or(0)])?;
                        left -= part;
                    }
                } else {
                    put(&read_chunk(&reader, ChunkKind::Data, &leaf.id, leaf.len).map_err(|e| e.on(path))?)?;
                }
                Progress::add(&progress.bytes_done, leaf.len);
            }
        }
        _ => return Err(Error::new(ErrorKind::Usage, "only a regular file has content").on(path)),
    }
    Ok(node.size())
}

/// The extended attributes of a node.
pub fn xattrs(reader: &ChunkReader<'_>, node: &Node) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    match &node.meta.xattrs {
        Xattrs::None => Ok(Vec::new()),
        Xattrs::Inline(bytes) => decode_xattrs(bytes),
        Xattrs::Stream(stream) => {
            if stream.len > XATTRS_BYTES_MAX {
                return Err(Error::damaged("an xattr set of impossible length"));
            }
            let mut bytes = Vec::new();
            let mut leaves = StreamReader::new(reader, stream);
            while let Some(leaf) = leaves.next_leaf()? {
                if leaf.id.is_hole() {
                    return Err(Error::damaged("an xattr set has a hole"));
                }
                bytes.extend_from_slice(&read_chunk(reader, ChunkKind::Tree, &leaf.id, leaf.len)?);
            }
            decode_xattrs(&bytes)
        }
    }
}

/// A chunk that must have the length that its list says.
pub fn read_chunk(reader: &ChunkReader<'_>, kind: ChunkKind, id: &crate::model::ChunkId, len: u64) -> Result<Vec<u8>> {
    let chunk = reader.read(kind, id)?;
    if chunk.len() as u64 != len {
        return Err(Error::damaged("a chunk has another length than its list says").on(id));
    }
    Ok(chunk)
}
