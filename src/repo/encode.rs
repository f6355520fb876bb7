//! How a new chunk is stored: as a delta against what stood in its place before, compressed, or raw.
//!
//! A base is always a full copy, one that is no delta itself: where the chunk before is a delta, its base is used, so that
//! reading takes two blobs at most. A chunk that the delta does not serve well is stored plain and is a base for what
//! comes after it.

use std::cell::RefCell;
use std::sync::Arc;

use super::write::{Before, ChunkWriter};
use crate::error::{Error, ErrorKind, Result};
use crate::index::Location;
use crate::model::ChunkId;
use crate::pack;
use crate::seal::keys::ChunkKind;
use crate::seal::{compress, probe};

/// What a delta costs beside its frame: the base's id, in the pack's index and in the journal's copy of it.
const DELTA_OVERHEAD_BYTES: usize = 2 * ChunkId::LEN;
/// A delta is taken where it is this many times smaller than plain compression. A base is the farther away the more
/// snapshots were taken since, and each delta holds all that changed since; at this share a new base costs less than going
/// on (`docs/performance.md`).
const SMALLER: usize = 4;
/// Where it is this many times smaller than the base is as stored, plain compression is not even tried.
const CLEARLY_SMALLER: usize = 12;

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Encoding {
    /// Number of the pack format.
    pub(super) codec: u8,
    /// What a delta is encoded against.
    pub(super) base: Option<ChunkId>,
}

/// An encoded chunk, still unsealed.
pub struct Encoded {
    pub(super) encoding: Encoding,
    pub(super) raw_len: usize,
    pub(super) body: Vec<u8>,
}

struct Base {
    id: ChunkId,
    raw: Arc<Vec<u8>>,
    /// Length as stored, which says how well chunks in this place compress.
    stored_len: usize,
}

#[derive(Default)]
struct Buffers {
    plain: Vec<u8>,
    delta: Vec<u8>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

impl ChunkWriter<'_> {
    /// Encodes `raw`, whose id is `id`, and gives the body to `take`. Before that it is decoded again and compared: what a
    /// broken compressor or memory made of a chunk must not become the only copy.
    pub(super) fn encode<T>(
        &self,
        kind: ChunkKind,
        id: &ChunkId,
        raw: &[u8],
        before: Before<'_>,
        take: impl FnOnce(Encoding, &[u8]) -> Result<T>,
    ) -> Result<T> {
        BUFFERS.with(|buffers| {
            let buffers = &mut *buffers.borrow_mut();
            let base = match before()? {
                Some(before) => self.base_for(kind, id, &before)?,
                None => None,
            };
            let (encoding, body) = self.choose(raw, base.as_ref(), buffers)?;
            let good = match encoding.codec {
                pack::CODEC_RAW => true,
                _ => compress::reads_back(body, base.as_ref().filter(|_| encoding.base.is_some()).map(|base| &base.raw[..]), raw)?,
            };
            if !good {
                return Err(Error::new(
                    ErrorKind::Storage,
                    "a chunk does not decompress to what it was; the machine's memory or processor may be faulty",
                )
                .on(id));
            }
            take(encoding, body)
        })
    }

    /// A delta where that is much less than the chunk compressed, and otherwise the chunk compressed or raw.
    fn choose<'b>(&self, raw: &'b [u8], base: Option<&Base>, buffers: &'b mut Buffers) -> Result<(Encoding, &'b [u8])> {
        let mut delta_len = usize::MAX;
        if let Some(base) = base {
            delta_len = compress::delta(raw, &base.raw, &mut buffers.delta)? + DELTA_OVERHEAD_BYTES;
            let expected = base.stored_len.saturating_mul(raw.len()) / base.raw.len().max(1);
            if delta_len.saturating_mul(CLEARLY_SMALLER) < expected {
                return Ok((Encoding { codec: pack::CODEC_DELTA, base: Some(base.id) }, &buffers.delta));
            }
        }
        let smaller = !probe::looks_incompressible(raw) && compress::compress(raw, self.compression(), &mut buffers.plain)?;
        let plain = if smaller { &buffers.plain[..] } else { raw };
        if let Some(base) = base
            && delta_len.saturating_mul(SMALLER) < plain.len()
        {
            return Ok((Encoding { codec: pack::CODEC_DELTA, base: Some(base.id) }, &buffers.delta));
        }
        Ok((Encoding { codec: if smaller { pack::CODEC_ZSTD } else { pack::CODEC_RAW }, base: None }, plain))
    }

    /// What `id` may be encoded against, when `before` stood in its place. A base that can't be read is none: the chunk is
    /// stored plain then.
    fn base_for(&self, kind: ChunkKind, id: &ChunkId, before: &ChunkId) -> Result<Option<Base>> {
        let Some(first) = self.repository().index().get(before)? else { return Ok(None) };
        let base = first.blob.base.unwrap_or(*before);
        let Some(copy) = self.full_copy(&base)?.filter(|copy| copy.blob.kind == kind.number() && base != *id) else { return Ok(None) };
        match self.reader().base(kind, &base) {
            Ok(raw) if compress::can_be_base(&raw) => Ok(Some(Base { id: base, raw, stored_len: copy.blob.stored_len as usize })),
            Ok(_) => Ok(None),
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound | ErrorKind::Storage) => {
                tracing::warn!("a chunk is stored whole because what stood in its place can't be read: {error}");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A copy of a chunk that is no delta, in a pack that may be referred to.
    pub(super) fn full_copy(&self, id: &ChunkId) -> Result<Option<Location>> {
        let serves = |copy: &Location| Ok::<_, Error>(copy.blob.base.is_none() && self.usable(copy.pack)?);
        let Some(first) = self.repository().index().get(id)? else { return Ok(None) };
        if serves(&first)? {
            return Ok(Some(first));
        }
        for copy in self.repository().index().copies(id)? {
            if serves(&copy)? {
                return Ok(Some(copy));
            }
        }
        Ok(None)
    }
}
