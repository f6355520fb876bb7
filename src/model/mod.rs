//! The nouns of the store: ids, paths, nodes of a tree, snapshot records. Bytes to values and back; no I/O.

pub mod id;
pub mod manifest;
pub mod node;
pub mod path;
pub(crate) mod wire;

pub use id::{ChunkId, PackId, RepositoryId, SessionId, SnapshotId};
pub use manifest::{Consistency, Snapshot, SourceIdentity, SourceKind};
pub use node::{LinkGroup, Meta, Node, NodeKind, Stream, XattrSet, Xattrs};
pub use path::{Name, TreePath};
