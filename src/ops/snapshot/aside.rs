//! What is set aside while everybody who writes to a source is held still: copies of the files that have to be read. They are
//! made as fast as the machine can, clones where the file system makes them, and are read when the writers run again.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{self, Mode, OFlags};
use rustix::io::{Errno, pread, pwrite, retry_on_intr};

use super::large::read_full;
use crate::error::{Error, ErrorKind, Result};
use crate::source::{Extent, SourceFile, Stat, XattrSet};

/// Files up to this length are kept in memory,
const MEMORY_FILE_BYTES_MAX: u64 = 256 << 10;
/// as long as they are not more than this together.
const MEMORY_BYTES_MAX: u64 = 16 << 20;
/// A large file is copied by several threads in stretches of this length.
const STRETCH_BYTES: u64 = 16 << 20;
/// Bytes that are copied with one call.
const STEP_BYTES: usize = 1 << 20;

/// Where copies are kept: files without a name, so that nothing is left of them whatever ends this process.
pub(super) struct Aside<'a> {
    folder: OwnedFd,
    path: String,
    memory_left: AtomicU64,
    copied: AtomicU64,
    cloned: AtomicU64,
    /// Asked again and again: an error ends the copying.
    check: &'a (dyn Fn() -> Result<()> + Sync),
}

/// A copy of a file.
pub(super) struct AsideFile {
    body: Body,
    stat: Stat,
    xattrs: XattrSet,
    /// Where it has data.
    extents: Vec<Extent>,
    /// It changed while it was copied, although nobody was to write.
    pub(super) changed: bool,
}

enum Body {
    Memory(Vec<u8>),
    File(OwnedFd),
}

/// A file that is being copied.
pub(super) struct Copying {
    from: Arc<dyn SourceFile>,
    to: OwnedFd,
    left: AtomicUsize,
    failure: Mutex<Option<Error>>,
}

/// A part of it.
pub(super) struct Stretch {
    copying: Arc<Copying>,
    extent: Extent,
}

impl<'a> Aside<'a> {
    /// Copies go to the file system of `folder`. `check` says whether it is still worth going on.
    pub(super) fn new(folder: &Path, check: &'a (dyn Fn() -> Result<()> + Sync)) -> Result<Self> {
        let path = folder.display().to_string();
        let open = || fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let folder = open().map_err(|cause| failed("cannot open the folder for what is set aside", cause, &path))?;
        Ok(Self { folder, path, memory_left: AtomicU64::new(MEMORY_BYTES_MAX), copied: 0.into(), cloned: 0.into(), check })
    }

    /// Bytes that were copied, and bytes of files that were cloned.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.copied.load(Ordering::Relaxed), self.cloned.load(Ordering::Relaxed))
    }

    pub(super) fn check(&self) -> Result<()> {
        (self.check)()
    }

    /// Copies a file. `share` is given the parts of a large one, to be done by several threads, and returns when they are done.
    pub(super) fn copy(&self, file: &Arc<dyn SourceFile>, share: &dyn Fn(Vec<Stretch>, &Copying) -> Result<()>) -> Result<AsideFile> {
        self.check()?;
        let stat = file.stat()?;
        let (body, extents) = if stat.size <= MEMORY_FILE_BYTES_MAX && self.takes_memory(stat.size) {
            let mut bytes = vec![0; usize::try_from(stat.size).unwrap_or(0)];
            let len = read_full(&**file, 0, &mut bytes)?;
            bytes.truncate(len);
            (Body::Memory(bytes), Vec::from_iter((len > 0).then_some(Extent { start: 0, end: len as u64 })))
        } else {
            self.copy_to_file(file, stat.size, share)?
        };
        let xattrs = file.xattrs()?;
        let after = file.stat()?;
        let changed = (stat.size, stat.mtime, stat.ctime) != (after.size, after.mtime, after.ctime);
        Ok(AsideFile { body, stat, xattrs, extents, changed })
    }

    fn takes_memory(&self, bytes: u64) -> bool {
        let take = |left: u64| left.checked_sub(bytes);
        self.memory_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn copy_to_file(
        &self,
        file: &Arc<dyn SourceFile>,
        size: u64,
        share: &dyn Fn(Vec<Stretch>, &Copying) -> Result<()>,
    ) -> Result<(Body, Vec<Extent>)> {
        let mut extents = Vec::new();
        let mut at = 0;
        while let Some(extent) = file.next_data(at, size)? {
            at = extent.end;
            extents.push(extent);
        }
        let to = self.nameless()?;
        if file.share_into(to.as_fd())? {
            self.cloned.fetch_add(size, Ordering::Relaxed);
            return Ok((Body::File(to), extents));
        }
        let stretches: Vec<Extent> = extents.iter().flat_map(stretches).collect();
        let bytes: u64 = extents.iter().map(|extent| extent.end - extent.start).sum();
        let copying = Copying { from: Arc::clone(file), to, left: AtomicUsize::new(stretches.len()), failure: Mutex::default() };
        let copying = Arc::new(copying);
        let parts = stretches.into_iter().map(|extent| Stretch { copying: Arc::clone(&copying), extent }).collect();
        share(parts, &copying)?;
        if let Some(error) = copying.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        self.copied.fetch_add(bytes, Ordering::Relaxed);
        let copying = Arc::into_inner(copying).ok_or_else(|| Error::new(ErrorKind::Source, "a copy was given up"))?;
        Ok((Body::File(copying.to), extents))
    }

    fn nameless(&self) -> Result<OwnedFd> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match fs::openat(&self.folder, ".", flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => Ok(file),
            Err(Errno::OPNOTSUPP | Errno::ISDIR) => Err(Error::new(
                ErrorKind::Unsupported,
                "the file system of the folder for what is set aside makes no files without a name (O_TMPFILE)",
            )
            .on(&self.path)
            .hint("put the state folder on ext4, XFS, btrfs or tmpfs")),
            Err(cause) => Err(failed("cannot make a file for what is set aside", cause, &self.path)),
        }
    }
}

fn stretches(extent: &Extent) -> impl Iterator<Item = Extent> + use<> {
    let Extent { start, end } = *extent;
    (start..end).step_by(STRETCH_BYTES as usize).map(move |at| Extent { start: at, end: end.min(at + STRETCH_BYTES) })
}

fn failed(what: &str, cause: Errno, path: &str) -> Error {
    Error::new(ErrorKind::Cache, what).on(path).because(std::io::Error::from(cause))
}

impl Copying {
    /// Whether all parts are done.
    pub(super) fn is_done(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }

    /// Gives it up: the parts that are left are done at once.
    pub(super) fn fail(&self, error: Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

impl Stretch {
    /// Copies this part.
    pub(super) fn copy(self, check: &dyn Fn() -> Result<()>) {
        thread_local! {
            static STEP: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(vec![0; STEP_BYTES]);
        }
        let copying = self.copying;
        let failure = || copying.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let done = STEP.with_borrow_mut(|buffer| {
            let mut at = self.extent.start;
            while at < self.extent.end && failure().is_none() {
                check()?;
                let wanted = usize::try_from(self.extent.end - at).map_or(STEP_BYTES, |left| left.min(STEP_BYTES));
                let len = copying.from.read_at(at, &mut buffer[..wanted])?;
                if len == 0 {
                    break;
                }
                write_full(&copying.to, at, &buffer[..len])?;
                at += len as u64;
            }
            Ok(())
        });
        if let Err(error) = done {
            failure().get_or_insert(error);
        }
        copying.left.fetch_sub(1, Ordering::SeqCst);
    }
}

fn write_full(to: &OwnedFd, mut at: u64, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let len = retry_on_intr(|| pwrite(to, bytes, at)).map_err(|cause| failed("cannot set a file aside", cause, "a nameless file"))?;
        if len == 0 {
            return Err(failed("cannot set a file aside", Errno::NOSPC, "a nameless file"));
        }
        bytes = &bytes[len..];
        at += len as u64;
    }
    Ok(())
}

impl SourceFile for AsideFile {
    fn stat(&self) -> Result<Stat> {
        Ok(self.stat)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        match &self.body {
            Body::Memory(bytes) => {
                let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
                let len = rest.len().min(buffer.len());
                buffer[..len].copy_from_slice(&rest[..len]);
                Ok(len)
            }
            Body::File(file) => retry_on_intr(|| pread(file, &mut *buffer, offset))
                .map_err(|cause| failed("cannot read what was set aside", cause, "a nameless file")),
        }
    }

    fn next_data(&self, offset: u64, end: u64) -> Result<Option<Extent>> {
        let next = self.extents.partition_point(|extent| extent.end <= offset);
        let clamped = self.extents.get(next).map(|extent| Extent { start: extent.start.max(offset), end: extent.end.min(end) });
        Ok(clamped.filter(|extent| extent.start < extent.end))
    }

    fn xattrs(&self) -> Result<XattrSet> {
        Ok(self.xattrs.clone())
    }

    fn will_read(&self, _: u64, _: u64) {}
}
