//! What a worker does: takes a batch, plans the reading of its chunks, and places entry after entry.

use std::sync::{Arc, Mutex};

use crossbeam_channel::Receiver;

use super::content::{LEAVES_KEPT_MAX, Shape, Stored};
use super::links::{Claim, LateLink};
use super::walk::{Batch, Job, Pending};
use super::{Restore, tree};
use crate::error::Result;
use crate::model::{LinkGroup, Node, NodeKind, TreePath};
use crate::repo::Fetch;
use crate::seal::keys::ChunkKind;
use crate::target::Placed;

impl<'c, 'r> Restore<'c, 'r> {
    /// Works until there is nothing more to do, or somebody failed.
    pub(super) fn work(&self, queue: Receiver<Batch>) {
        let _writer = self.behind.writer();
        loop {
            let resting = self.hands.rest();
            let Ok(batch) = queue.recv() else {
                // For good: whoever still has a large file may have a thread in this one's place.
                std::mem::forget(resting);
                return;
            };
            drop(resting);
            if self.place_batch(batch).map_err(|error| self.fail(error)).is_err() {
                return;
            }
        }
    }

    pub(super) fn place_batch(&self, batch: Batch) -> Result<()> {
        let mut leaves_left = LEAVES_KEPT_MAX;
        let jobs = batch.jobs.into_iter();
        let jobs: Vec<(Job, Result<Shape>)> = jobs
            .map(|job| {
                let shape = self.shape(&job.node, &mut leaves_left);
                (job, shape)
            })
            .collect();
        // Where nothing stands yet, all of it will be wanted. Elsewhere most may be right already.
        let vacant = jobs.iter().filter(|(job, _)| job.directory.handle.is_vacant());
        let ids = vacant.filter_map(|(_, shape)| shape.as_ref().ok()).flat_map(Shape::ids);
        let fetch = Mutex::new(Fetch::plan(self.reader, ChunkKind::Data, ids)?);
        for (job, shape) in jobs {
            self.check()?;
            self.place(job, shape, &fetch)?;
        }
        Ok(())
    }

    fn shape(&self, node: &Node, leaves_left: &mut usize) -> Result<Shape> {
        match &node.kind {
            // Only a link will be made.
            _ if node.meta.links.is_some_and(|group| self.links.is_claimed(group)) => Ok(Shape::None),
            NodeKind::InlineFile(_) => Ok(Shape::Inline),
            NodeKind::File(stream) => Shape::of(self.reader, stream, leaves_left),
            _ => Ok(Shape::None),
        }
    }

    fn place(&self, job: Job, shape: Result<Shape>, fetch: &Mutex<Fetch<'c, 'r>>) -> Result<()> {
        let Some(name) = &job.node.name else { return Ok(()) };
        let path = job.directory.path.join(name);
        if let Some(group) = job.node.meta.links {
            let late = || LateLink { directory: Arc::clone(&job.directory), node: job.node.clone() };
            match self.links.claim(group, &path, late) {
                Claim::First => {}
                Claim::Link(first) => return self.link(job.directory, &job.node, &path, &first),
                Claim::Later => return Ok(()),
            }
        }
        match self.place_first(&job, &path, shape, fetch) {
            Ok(placed) => self.count(&job.node, placed),
            Err(error) => self.entry_failed(&path, error)?,
        }
        self.done(job.directory)?;
        match job.node.meta.links {
            Some(group) => self.link_late(group),
            None => Ok(()),
        }
    }

    fn place_first(&self, job: &Job, path: &TreePath, shape: Result<Shape>, fetch: &Mutex<Fetch<'c, 'r>>) -> Result<Placed> {
        let xattrs = tree::xattrs(self.reader, &job.node).map_err(|e| e.on(path))?;
        match &job.node.kind {
            NodeKind::File(_) | NodeKind::InlineFile(_) => {
                let shape = shape.map_err(|e| e.on(path))?;
                let is_planned = matches!(shape, Shape::Short(_)) && job.directory.handle.is_vacant();
                let content = Stored { restore: self, node: &job.node, shape, fetch: is_planned.then_some(fetch) };
                job.directory.handle.file(&job.node, &xattrs, &content)
            }
            _ => job.directory.handle.special(&job.node, &xattrs).map(|()| Placed::default()),
        }
    }

    fn link(&self, directory: Arc<Pending>, node: &Node, path: &TreePath, first: &TreePath) -> Result<()> {
        match directory.handle.link(node, first) {
            Ok(()) => self.count(node, Placed::default()),
            Err(error) => self.entry_failed(path, error)?,
        }
        self.done(directory)
    }

    /// The first name of a group is there: makes the links that waited for it.
    fn link_late(&self, group: LinkGroup) -> Result<()> {
        let Some((first, waiting)) = self.links.placed(group) else { return Ok(()) };
        for late in waiting {
            let Some(name) = &late.node.name else { continue };
            let path = late.directory.path.join(name);
            self.link(late.directory, &late.node, &path, &first)?;
        }
        Ok(())
    }
}
