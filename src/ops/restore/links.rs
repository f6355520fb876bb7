//! Hard links: one name of a group is placed with the content, the others become links to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::lock;
use super::walk::Pending;
use crate::model::{LinkGroup, Node, TreePath};

/// The groups met so far.
#[derive(Default)]
pub(super) struct Links {
    groups: Mutex<HashMap<LinkGroup, Group>>,
}

/// Where the first name of a group was (or is being) placed, whether it is there yet, and who waits for that.
struct Group {
    first: TreePath,
    placed: bool,
    waiting: Vec<LateLink>,
}

/// A further name of an inode whose first name is still being placed.
pub(super) struct LateLink {
    pub(super) directory: Arc<Pending>,
    pub(super) node: Node,
}

/// What a name of a group is to become.
pub(super) enum Claim {
    /// The first name: it gets the content.
    First,
    /// A link to the first name, which is there.
    Link(TreePath),
    /// Nothing yet: the link is made when the first name is there.
    Later,
}

impl Links {
    /// Whether some name of the group was claimed, so that no other one needs the content.
    pub(super) fn is_claimed(&self, group: LinkGroup) -> bool {
        lock(&self.groups).contains_key(&group)
    }

    /// Decides who places a group's content.
    pub(super) fn claim(&self, group: LinkGroup, path: &TreePath, late: impl FnOnce() -> LateLink) -> Claim {
        let mut groups = lock(&self.groups);
        match groups.get_mut(&group) {
            None => {
                groups.insert(group, Group { first: path.clone(), placed: false, waiting: Vec::new() });
                Claim::First
            }
            Some(Group { first, placed: true, .. }) => Claim::Link(first.clone()),
            Some(group) => {
                group.waiting.push(late());
                Claim::Later
            }
        }
    }

    /// The first name of a group is there, or will never be: gives it, and the names that waited.
    pub(super) fn placed(&self, group: LinkGroup) -> Option<(TreePath, Vec<LateLink>)> {
        let mut groups = lock(&self.groups);
        let group = groups.get_mut(&group)?;
        group.placed = true;
        Some((group.first.clone(), std::mem::take(&mut group.waiting)))
    }
}
