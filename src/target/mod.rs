//! SEAM: where restored entries go. A target gets directories before their entries, closes them after the last entry, and
//! is called from several threads at once unless it says otherwise. Nothing it is given can make it leave its root.

use std::sync::Arc;

use crate::error::Result;
use crate::model::{Name, Node, TreePath, XattrSet};

mod beneath;
mod chain;
mod content;
pub mod dir;
mod handles;
mod marker;
mod metadata;
mod outcome;
mod pax;
mod place;
mod reflink;
mod remove;
mod sparse;
mod special;
pub mod tar;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod dir_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod replace_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tar_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod testing;

pub use outcome::ends_run;

/// A stretch of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Offset in the file.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// Whether it is a hole (reads as zeros, takes no space).
    pub hole: bool,
}

/// The bytes of one piece. Shared, because a chunk that stands in several places is decoded once for all of them.
pub type Bytes = Arc<Vec<u8>>;

/// A file's content as the repository has it. Pieces come in order, without gaps, from 0 to the file's size; parts are some
/// pieces that follow on each other, together of a length that fits in memory (holes aside).
pub trait Content: Sync {
    /// The file's size.
    fn len(&self) -> u64;
    /// Whether the file is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Visits the pieces in order. Reads no content.
    fn pieces(&self, visit: &mut dyn FnMut(Piece) -> Result<()>) -> Result<()>;
    /// Visits the parts in order.
    fn parts(&self, visit: &mut dyn FnMut(&mut dyn Part) -> Result<()>) -> Result<()>;
    /// Gives all parts to `place`, in any order and perhaps from several threads at once. After the first error no further
    /// part is begun; it is returned when none is being placed any more.
    fn spread(&self, place: &(dyn Fn(&mut dyn Part) -> Result<()> + Sync)) -> Result<()> {
        self.parts(&mut |part| place(part))
    }
}

/// Some neighbouring pieces of a file.
pub trait Part {
    /// The pieces, in order.
    fn pieces(&self) -> &[Piece];
    /// Whether `bytes` are the content of the data piece with this number; compares by chunk id, reads nothing from the
    /// repository.
    fn matches(&self, number: usize, bytes: &[u8]) -> Result<bool>;
    /// Gives the bytes of the data pieces with these numbers (ascending), in order, each checked against its chunk's id.
    /// Each piece is asked for once.
    fn read(&mut self, numbers: &[usize], give: &mut dyn FnMut(usize, Bytes) -> Result<()>) -> Result<()>;
}

/// What placing one file took. Holes count neither as written nor as kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Placed {
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes that were already right.
    pub kept_bytes: u64,
    /// Whether the file began as a clone that shares its extents with another one.
    pub cloned: bool,
}

/// Whether new files could begin as clones of files elsewhere, sharing their space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reflinks {
    /// Nobody asked for it, or no file was large enough to try.
    #[default]
    Untried,
    /// They were made.
    Made,
    /// The file system has none (or the two places are on different ones): everything was written.
    Unsupported,
}

/// Metadata that could not be set, or an entry that could not be made, without ending the restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// The entry, relative to the root.
    pub path: TreePath,
    /// What could not be set and why.
    pub message: String,
}

/// Somewhere to restore to.
pub trait Target: Send + Sync {
    /// Opens the root. `node` is the root's record.
    fn begin(&self, node: &Node) -> Result<Arc<dyn TargetDir>>;
    /// Everything is placed and every directory closed: makes it durable and removes the mark of an unfinished restore.
    fn finish(&self) -> Result<()>;
    /// Takes what was placed so far to where it lasts, so that less is left to `finish`. It may take long, and is called from
    /// a thread that has nothing else to do. It promises nothing; what goes wrong is told by `finish`.
    fn settle(&self) {}
    /// Whether entries must come one after another in the order of the tree (an archive) rather than from many threads.
    fn sequential(&self) -> bool;
    /// What could not be set so far.
    fn shortfalls(&self) -> Vec<Shortfall>;
    /// How it went with clones so far.
    fn reflinks(&self) -> Reflinks {
        Reflinks::Untried
    }
}

/// A directory of the target.
pub trait TargetDir: Send + Sync {
    /// Whether nothing stood here when the restore came, so that every file's content will be wanted whole. Only a hint.
    fn is_vacant(&self) -> bool;
    /// Makes (or reuses) a directory below. Its metadata is set by its own `close`.
    fn directory(&self, node: &Node) -> Result<Arc<dyn TargetDir>>;
    /// Places a regular file with its metadata.
    fn file(&self, node: &Node, xattrs: &XattrSet, content: &dyn Content) -> Result<Placed>;
    /// Makes another name for a file that this restore placed before, at `first`.
    fn link(&self, node: &Node, first: &TreePath) -> Result<()>;
    /// Makes a symlink, fifo, socket or device node with its metadata.
    fn special(&self, node: &Node, xattrs: &XattrSet) -> Result<()>;
    /// Removes entries that are not in `keep` (sorted). Only called when the user asked for it.
    fn remove_others(&self, keep: &[Name]) -> Result<u64>;
    /// All entries are there: sets the directory's own metadata, mtime last.
    fn close(&self, node: &Node, xattrs: &XattrSet) -> Result<()>;
}
