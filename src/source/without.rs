//! A source without some of its entries.

use std::sync::Arc;

use super::{Entry, Source, SourceDir, SourceFile, Stat, XattrSet};
use crate::error::Result;
use crate::model::Name;

/// Whether the entry with this path below the root, names separated by `/`, is left out with all that is below it.
pub type LeavesOut = dyn Fn(&[u8]) -> bool + Send + Sync;

/// The entries of `inner` that `leaves_out` does not name.
pub struct Without {
    inner: Box<dyn Source>,
    leaves_out: Arc<LeavesOut>,
}

impl Without {
    /// A source that has fewer entries.
    pub fn new(inner: Box<dyn Source>, leaves_out: Arc<LeavesOut>) -> Self {
        Self { inner, leaves_out }
    }
}

impl Source for Without {
    fn root(&self) -> Result<Arc<dyn SourceDir>> {
        Ok(Arc::new(Dir { inner: self.inner.root()?, path: Vec::new(), leaves_out: self.leaves_out.clone() }))
    }

    fn settle(&self) -> Result<()> {
        self.inner.settle()
    }
}

struct Dir {
    inner: Arc<dyn SourceDir>,
    path: Vec<u8>,
    leaves_out: Arc<LeavesOut>,
}

impl Dir {
    fn path_of(&self, name: &Name) -> Vec<u8> {
        if self.path.is_empty() { name.as_bytes().to_vec() } else { [&self.path[..], b"/", name.as_bytes()].concat() }
    }
}

impl SourceDir for Dir {
    fn stat(&self) -> Result<Stat> {
        self.inner.stat()
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = self.inner.entries()?;
        entries.retain(|entry| !(self.leaves_out)(&self.path_of(&entry.name)));
        Ok(entries)
    }

    fn open_dir(&self, name: &Name, expected: &Stat) -> Result<Arc<dyn SourceDir>> {
        let inner = self.inner.open_dir(name, expected)?;
        Ok(Arc::new(Self { inner, path: self.path_of(name), leaves_out: self.leaves_out.clone() }))
    }

    fn open_file(&self, name: &Name, expected: &Stat) -> Result<Box<dyn SourceFile>> {
        self.inner.open_file(name, expected)
    }

    fn read_link(&self, name: &Name) -> Result<Vec<u8>> {
        self.inner.read_link(name)
    }

    fn xattrs(&self) -> Result<XattrSet> {
        self.inner.xattrs()
    }

    fn entry_xattrs(&self, name: &Name) -> Result<XattrSet> {
        self.inner.entry_xattrs(name)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::scripted::ScriptedSource;
    use super::*;

    #[test]
    fn what_is_left_out_is_not_listed_and_the_rest_is_as_it_was() {
        let source = ScriptedSource::build(|tree| _ = tree.file("a/cache/x", "1").file("a/keep", "2").file("cache/y", "3").file("z", "4"));
        let source = Without::new(Box::new(source), Arc::new(|path| path == b"a/cache" || path == b"z"));
        let names = |dir: &dyn SourceDir| dir.entries().unwrap().iter().map(|e| e.name.to_string()).collect::<Vec<_>>();
        let root = source.root().unwrap();
        assert_eq!(names(&*root), ["a", "cache"]);
        let a = root.entries().unwrap().remove(0);
        let a = root.open_dir(&a.name, &a.stat.unwrap()).unwrap();
        assert_eq!(names(&*a), ["keep"]);
    }
}
