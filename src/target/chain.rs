//! A directory's way up to the root, shared by everything below it. A path is spelled out only when somebody asks:
//! at a depth of 2,000 a spelled path for each open directory would take half a gigabyte.

use std::sync::Arc;

use crate::model::{Name, TreePath};

/// One directory on the way, with what its user keeps for it.
pub(super) struct Chain<T> {
    parent: Option<Arc<Self>>,
    name: Option<Name>,
    pub(super) value: T,
}

impl<T> Chain<T> {
    pub(super) fn root(value: T) -> Arc<Self> {
        Arc::new(Self { parent: None, name: None, value })
    }

    pub(super) fn child(parent: &Arc<Self>, name: &Name, value: T) -> Arc<Self> {
        Arc::new(Self { parent: Some(Arc::clone(parent)), name: Some(name.clone()), value })
    }

    /// The directory above and the name in it; none for the root.
    pub(super) fn above(&self) -> Option<(&Arc<Self>, &Name)> {
        self.parent.as_ref().zip(self.name.as_ref())
    }

    pub(super) fn is_root(&self) -> bool {
        self.parent.is_none()
    }

    /// The names from the root down to this directory.
    fn names(&self) -> Vec<&Name> {
        let mut names = Vec::new();
        let mut at = self;
        while let Some((parent, name)) = at.above() {
            names.push(name);
            at = parent;
        }
        names.reverse();
        names
    }

    /// This directory's path as bytes: every name followed by a `/`, nothing for the root.
    pub(super) fn prefix(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for name in self.names() {
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(b'/');
        }
        bytes
    }

    /// This directory's path.
    pub(super) fn path(&self) -> TreePath {
        self.names().into_iter().fold(TreePath::root(), |path, name| path.join(name))
    }
}

impl<T> Drop for Chain<T> {
    /// Lets go of the way up in a loop: dropping link by link would need a stack frame for each level.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(parent) = next {
            next = Arc::into_inner(parent).and_then(|mut last_user| last_user.parent.take());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_a_million_links_spells_its_path_and_drops_without_overflow() {
        let name = Name::new(&b"d"[..]).unwrap();
        let mut chain = Chain::root(());
        assert_eq!(chain.prefix(), b"");
        for _ in 0..1_000_000 {
            chain = Chain::child(&chain, &name, ());
        }
        assert_eq!(chain.prefix().len(), 2_000_000);
        drop(chain);
        let two = Chain::child(&Chain::child(&Chain::root(()), &name, ()), &Name::new(&b"\xff"[..]).unwrap(), ());
        assert_eq!((two.prefix(), two.path().as_bytes()), (b"d/\xff/".to_vec(), &b"d/\xff"[..]));
    }
}
