//! A node: one entry of a directory, and the record that stands for it in the directory's stream.
//!
//! ```text
//! offset size
//!      0    4  length of all that follows (u32; at most NODE_BYTES_MAX)
//!      4    1  kind: 1 file, 2 directory, 3 symlink, 4 fifo, 5 socket, 6 character device, 7 block device
//!      5    1  flags: 1 xattrs inline, 2 xattrs as a stream, 4 hard-link group, 8 content inline, 16 changed while read
//!      6    2  permission bits (0..07777)
//!      8    4  uid
//!     12    4  gid
//!     16    8  mtime, seconds since 1970 (i64)
//!     24    4  mtime, nanoseconds (u32, below 10^9)
//!     28    1  length of the name (0 only for the root of a snapshot)
//!     29    n  name
//!              [flag 4]  8  hard-link group
//!              [flag 1]  2  length, then the xattr set
//!              [flag 2]  a stream reference to the xattr set
//!              by kind: file with flag 8: 2 length, content (1..=INLINE_BYTES_MAX)
//!                       file without, directory: a stream reference
//!                       symlink: 2 length, target      devices: 4 major, 4 minor
//! stream reference: 8 length; where it is not 0: 1 chunk profile, 1 depth, 32 root id
//! xattr set: for each attribute, sorted by name: 2 length of name, name, 4 length of value, value
//! ```
//!
//! All integers are little-endian. A record has one spelling: decoding and encoding gives the same bytes.
//! Not in a node, so that trees stay equal where nothing changed: atime, ctime, inode, device of the file system.

use crate::clock::Timestamp;
use crate::error::{Error, Result};

use super::id::ChunkId;
use super::path::Name;
use super::wire::Fields;

/// File contents up to this length stand in the node itself.
pub const INLINE_BYTES_MAX: usize = 512;
/// Xattr sets up to this length stand in the node itself.
pub const XATTRS_INLINE_BYTES_MAX: usize = 256;
/// The longest record: fixed fields, a name, an inline content or a symlink's target, each at its limit.
pub const NODE_BYTES_MAX: usize = 8192;
/// The longest symlink target (Linux `PATH_MAX` less the NUL).
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// The deepest tree of lists: 8 levels of at least 50 entries each reach far beyond 2^64 bytes.
pub const STREAM_DEPTH_MAX: u8 = 8;
/// The largest xattr set that is read back (Linux: 64 KiB of names, 64 KiB each value).
pub const XATTRS_BYTES_MAX: u64 = 8 << 20;

/// A reference to a stream of bytes in the repository: a file's content, a directory's nodes, an xattr set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stream {
    /// Length of the whole stream in bytes.
    pub len: u64,
    /// Number of the chunk profile it was cut with; 0 when the stream is empty.
    pub profile: u8,
    /// How many levels of lists stand between `id` and the stream's chunks; 0: `id` is the only chunk (or one hole).
    pub depth: u8,
    /// The chunk or the topmost list; all zero when the stream is empty or one single hole.
    pub id: ChunkId,
}

impl Stream {
    /// The stream of no bytes.
    pub const EMPTY: Self = Self { len: 0, profile: 0, depth: 0, id: ChunkId::HOLE };

    /// The reference as it stands in a node.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.len.to_le_bytes());
        if self.len > 0 {
            out.extend_from_slice(&[self.profile, self.depth]);
            out.extend_from_slice(self.id.as_bytes());
        }
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Self> {
        let len = fields.u64()?;
        if len == 0 {
            return Ok(Self::EMPTY);
        }
        let stream = Self { len, profile: fields.u8()?, depth: fields.u8()?, id: ChunkId(fields.array()?) };
        if stream.depth > STREAM_DEPTH_MAX || stream.profile == 0 || (stream.id.is_hole() && stream.depth > 0) {
            return Err(Error::damaged("a stream reference is impossible").on(stream.id));
        }
        Ok(stream)
    }
}

/// Files that are one inode under several names share a group: a keyed hash of device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkGroup(pub u64);

/// Extended attributes by name: everything that can be read (`user.*`, `trusted.*`, `security.*`, ACLs under `system.*`).
pub type XattrSet = Vec<(Vec<u8>, Vec<u8>)>;

/// A set of extended attributes, ACLs and capabilities among them, in its encoded form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Xattrs {
    /// The entry has none.
    None,
    /// A small set, encoded ([`encode_xattrs`]).
    Inline(Vec<u8>),
    /// A large set, stored as a stream of its encoded form.
    Stream(Stream),
}

/// What every kind of entry has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Permission, setuid, setgid and sticky bits, 0..07777.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of the content.
    pub mtime: Timestamp,
    /// Extended attributes.
    pub xattrs: Xattrs,
    /// The other names of the same inode, if it has some.
    pub links: Option<LinkGroup>,
    /// The content changed while it was read, every time that it was tried: its parts may be of different moments.
    pub changed: bool,
}

/// What an entry is, with what only that kind has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// A regular file whose content is a stream.
    File(Stream),
    /// A regular file of 1..=[`INLINE_BYTES_MAX`] bytes, here.
    InlineFile(Vec<u8>),
    /// A directory; the stream holds its nodes, sorted by name.
    Directory(Stream),
    /// A symbolic link and where it points.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The entry's name; none for the root of a snapshot.
    pub name: Option<Name>,
    /// Mode, owner, time, attributes.
    pub meta: Meta,
    /// What it is.
    pub kind: NodeKind,
}

/// Where the name stands in a record.
const NAME_OFFSET: usize = 29;
const XATTRS_INLINE: u8 = 1;
const XATTRS_STREAM: u8 = 2;
const LINKED: u8 = 4;
const CONTENT_INLINE: u8 = 8;
const CHANGED: u8 = 16;

impl Node {
    /// Size of the content in bytes; 0 for what has none.
    pub fn size(&self) -> u64 {
        match &self.kind {
            NodeKind::File(stream) => stream.len,
            NodeKind::InlineFile(bytes) => bytes.len() as u64,
            NodeKind::Symlink(target) => target.len() as u64,
            _ => 0,
        }
    }

    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.kind, NodeKind::Directory(_))
    }

    /// The name's bytes, empty for the root.
    pub fn name_bytes(&self) -> &[u8] {
        self.name.as_ref().map_or(&[], Name::as_bytes)
    }

    /// Appends the record to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        let (kind, inline) = match &self.kind {
            NodeKind::File(_) => (1, 0),
            NodeKind::InlineFile(_) => (1, CONTENT_INLINE),
            NodeKind::Directory(_) => (2, 0),
            NodeKind::Symlink(_) => (3, 0),
            NodeKind::Fifo => (4, 0),
            NodeKind::Socket => (5, 0),
            NodeKind::CharDevice { .. } => (6, 0),
            NodeKind::BlockDevice { .. } => (7, 0),
        };
        let xattrs = match &self.meta.xattrs {
            Xattrs::None => 0,
            Xattrs::Inline(_) => XATTRS_INLINE,
            Xattrs::Stream(_) => XATTRS_STREAM,
        };
        let linked = if self.meta.links.is_some() { LINKED } else { 0 };
        let changed = if self.meta.changed { CHANGED } else { 0 };
        out.extend_from_slice(&[kind, inline | xattrs | linked | changed]);
        out.extend_from_slice(&self.meta.mode.to_le_bytes());
        out.extend_from_slice(&self.meta.uid.to_le_bytes());
        out.extend_from_slice(&self.meta.gid.to_le_bytes());
        out.extend_from_slice(&self.meta.mtime.seconds.to_le_bytes());
        out.extend_from_slice(&self.meta.mtime.nanos.to_le_bytes());
        let name = self.name_bytes();
        out.push(name.len() as u8);
        out.extend_from_slice(name);
        if let Some(LinkGroup(group)) = self.meta.links {
            out.extend_from_slice(&group.to_le_bytes());
        }
        match &self.meta.xattrs {
            Xattrs::None => {}
            Xattrs::Inline(set) => short(out, set),
            Xattrs::Stream(stream) => stream.encode(out),
        }
        match &self.kind {
            NodeKind::File(stream) | NodeKind::Directory(stream) => stream.encode(out),
            NodeKind::InlineFile(bytes) | NodeKind::Symlink(bytes) => short(out, bytes),
            NodeKind::CharDevice { major, minor } | NodeKind::BlockDevice { major, minor } => {
                out.extend_from_slice(&major.to_le_bytes());
                out.extend_from_slice(&minor.to_le_bytes());
            }
            NodeKind::Fifo | NodeKind::Socket => {}
        }
        let len = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
        out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    }

    /// How many bytes the record at the start of `bytes` takes, its length field included; none when too few bytes are
    /// there to say.
    pub fn encoded_len(bytes: &[u8]) -> Result<Option<usize>> {
        let Some(len) = bytes.first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_le_bytes(*len) as usize;
        if len > NODE_BYTES_MAX {
            return Err(Error::damaged(format!("a node of {len} bytes is longer than a node can be")));
        }
        Ok(Some(4 + len))
    }

    /// Where in a record the name stands; empty when it has none. Nothing else of it is looked at.
    pub(crate) fn name_range(record: &[u8]) -> Result<std::ops::Range<usize>> {
        let len = *record.get(NAME_OFFSET - 1).ok_or_else(|| Error::damaged("a node ends before its name"))?;
        let range = NAME_OFFSET..NAME_OFFSET + usize::from(len);
        if range.end > record.len() {
            return Err(Error::damaged("a node ends inside its name"));
        }
        Ok(range)
    }

    /// Reads exactly one record, its length field included.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(bytes, "a node");
        let len = fields.u32()? as usize;
        if len != bytes.len() - 4 || len > NODE_BYTES_MAX {
            return Err(Error::damaged("a node's length is wrong"));
        }
        let (kind, flags) = (fields.u8()?, fields.u8()?);
        let mode = fields.u16()?;
        let (uid, gid) = (fields.u32()?, fields.u32()?);
        let (seconds, nanos) = (fields.i64()?, fields.u32()?);
        let name_len = fields.u8()? as usize;
        let name = match fields.bytes(name_len)? {
            [] => None,
            bytes => Some(Name::new(bytes)?),
        };
        if mode > 0o7777 || nanos > 999_999_999 || flags > 31 || flags & 3 == 3 || (flags & CONTENT_INLINE != 0 && kind != 1) {
            return Err(Error::damaged("a node's fields are impossible").on(name.map_or_else(String::new, |n| n.to_string())));
        }
        let links = if flags & LINKED != 0 { Some(LinkGroup(fields.u64()?)) } else { None };
        let xattrs = if flags & XATTRS_INLINE != 0 {
            Xattrs::Inline(bounded(&mut fields, 1, XATTRS_INLINE_BYTES_MAX)?)
        } else if flags & XATTRS_STREAM != 0 {
            match Stream::decode(&mut fields)? {
                stream if stream.len > 0 && stream.len <= XATTRS_BYTES_MAX => Xattrs::Stream(stream),
                _ => return Err(Error::damaged("an xattr set of impossible length")),
            }
        } else {
            Xattrs::None
        };
        let kind = match kind {
            1 if flags & CONTENT_INLINE != 0 => NodeKind::InlineFile(bounded(&mut fields, 1, INLINE_BYTES_MAX)?),
            1 => NodeKind::File(Stream::decode(&mut fields)?),
            2 => NodeKind::Directory(Stream::decode(&mut fields)?),
            3 => NodeKind::Symlink(bounded(&mut fields, 1, SYMLINK_BYTES_MAX)?),
            4 => NodeKind::Fifo,
            5 => NodeKind::Socket,
            6 => NodeKind::CharDevice { major: fields.u32()?, minor: fields.u32()? },
            7 => NodeKind::BlockDevice { major: fields.u32()?, minor: fields.u32()? },
            other => return Err(Error::damaged(format!("a node of unknown kind {other}"))),
        };
        if let NodeKind::Symlink(target) = &kind
            && target.contains(&0)
        {
            return Err(Error::damaged("a symlink's target holds a NUL"));
        }
        fields.end()?;
        let meta = Meta { mode, uid, gid, mtime: Timestamp { seconds, nanos }, xattrs, links, changed: flags & CHANGED != 0 };
        Ok(Self { name, meta, kind })
    }
}

fn short(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn bounded(fields: &mut Fields<'_>, min: usize, max: usize) -> Result<Vec<u8>> {
    let len = fields.u16()? as usize;
    if len < min || len > max {
        return Err(Error::damaged(format!("a node's field of {len} bytes is out of bounds")));
    }
    Ok(fields.bytes(len)?.to_vec())
}

/// A set of extended attributes in its encoded form: sorted by name, so that equal sets are equal bytes.
pub fn encode_xattrs(mut set: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<u8> {
    set.sort();
    let mut out = Vec::new();
    for (name, value) in &set {
        short(&mut out, name);
        out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(value);
    }
    out
}

/// The attributes of an encoded set, by name. Names are 1..=255 bytes without NUL, values at most 64 KiB.
pub fn decode_xattrs(bytes: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut fields = Fields::new(bytes, "an xattr set");
    let mut set: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    while !fields.is_empty() {
        let name = bounded(&mut fields, 1, 255)?;
        let len = fields.u32()? as usize;
        let sorted = set.last().is_none_or(|(before, _)| *before < name);
        if len > 65536 || name.contains(&0) || !sorted {
            return Err(Error::damaged("an xattr set is malformed").on(super::path::escape(&name)));
        }
        set.push((name, fields.bytes(len)?.to_vec()));
    }
    Ok(set)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream() -> impl Strategy<Value = Stream> {
        prop_oneof![
            Just(Stream::EMPTY),
            (1..u64::MAX, 1..20u8, 0..=STREAM_DEPTH_MAX, any::<[u8; 32]>()).prop_map(|(len, profile, depth, id)| Stream {
                len,
                profile,
                depth,
                id: ChunkId(id)
            })
        ]
    }

    fn kind() -> impl Strategy<Value = NodeKind> {
        prop_oneof![
            stream().prop_map(NodeKind::File),
            stream().prop_map(NodeKind::Directory),
            prop::collection::vec(any::<u8>(), 1..=INLINE_BYTES_MAX).prop_map(NodeKind::InlineFile),
            prop::collection::vec(1..=255u8, 1..=SYMLINK_BYTES_MAX).prop_map(NodeKind::Symlink),
            Just(NodeKind::Fifo),
            Just(NodeKind::Socket),
            any::<(u32, u32)>().prop_map(|(major, minor)| NodeKind::CharDevice { major, minor }),
            any::<(u32, u32)>().prop_map(|(major, minor)| NodeKind::BlockDevice { major, minor }),
        ]
    }

    fn xattrs() -> impl Strategy<Value = Xattrs> {
        prop_oneof![
            Just(Xattrs::None),
            prop::collection::vec(any::<u8>(), 1..=XATTRS_INLINE_BYTES_MAX).prop_map(Xattrs::Inline),
            (1..=XATTRS_BYTES_MAX, any::<[u8; 32]>()).prop_map(|(len, id)| Xattrs::Stream(Stream {
                len,
                profile: 16,
                depth: 0,
                id: ChunkId(id)
            })),
        ]
    }

    fn meta() -> impl Strategy<Value = Meta> {
        (0..=0o7777u16, any::<u32>(), any::<u32>(), any::<i64>(), 0..1_000_000_000u32, xattrs(), any::<Option<u64>>(), any::<bool>())
            .prop_map(|(mode, uid, gid, seconds, nanos, xattrs, links, changed)| {
                let mtime = Timestamp { seconds, nanos };
                Meta { mode, uid, gid, mtime, xattrs, links: links.map(LinkGroup), changed }
            })
    }

    fn name() -> impl Strategy<Value = Option<Name>> {
        prop::collection::vec(any::<u8>(), 0..=255).prop_map(|bytes| Name::new(bytes).ok())
    }

    proptest! {
        #[test]
        fn a_record_is_read_back_as_it_was_and_has_one_spelling(name in name(), meta in meta(), kind in kind()) {
            let node = Node { name, meta, kind };
            let mut bytes = Vec::new();
            node.encode(&mut bytes);
            prop_assert!(bytes.len() <= 4 + NODE_BYTES_MAX);
            prop_assert_eq!(Node::encoded_len(&bytes).unwrap(), Some(bytes.len()));
            prop_assert_eq!(Node::decode(&bytes).unwrap(), node.clone());
            prop_assert_eq!(&bytes[Node::name_range(&bytes).unwrap()], node.name_bytes());
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(name in name(), meta in meta(), kind in kind(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let mut bytes = Vec::new();
            Node { name, meta, kind }.encode(&mut bytes);
            let at = at.index(bytes.len());
            bytes[at] = to;
            if let Ok(node) = Node::decode(&bytes) {
                let mut again = Vec::new();
                node.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }

        #[test]
        fn xattr_sets_are_sorted_and_read_back(set in prop::collection::btree_map(prop::collection::vec(1..=255u8, 1..40), prop::collection::vec(any::<u8>(), 0..200), 0..8)) {
            let set: Vec<_> = set.into_iter().collect();
            let reversed = set.iter().rev().cloned().collect();
            prop_assert_eq!(decode_xattrs(&encode_xattrs(reversed)).unwrap(), set);
        }
    }

    #[test]
    fn lengths_are_bounded_before_anything_is_read() {
        let too_long = u32::try_from(NODE_BYTES_MAX + 1).unwrap().to_le_bytes();
        assert!(Node::encoded_len(&too_long).is_err());
        assert_eq!(Node::encoded_len(&[1, 2]).unwrap(), None);
        assert!(Node::decode(&[]).is_err());
    }
}
