//! Reads chunks and packs back. Nothing is returned that does not match its id.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Repository;
use crate::error::{Error, ErrorKind, Result};
use crate::index::{Location, PackInfo, PackNumber};
use crate::model::{ChunkId, PackId};
use crate::pack::{self, Footer, HEADER_BYTES, Header, PackEntry, TRAILER_BYTES};
use crate::seal::compress;
use crate::seal::keys::{ChunkKind, PackKeys};
use crate::storage::Key;

/// The key of a pack: `packs/<first two digits>/<id>`.
pub fn pack_key(id: &PackId) -> Result<Key> {
    let name = id.to_string();
    format!("packs/{}/{name}", &name[..2]).parse()
}

/// The pack that a key names.
pub fn parse_pack_key(key: &Key) -> Option<PackId> {
    let id: PackId = key.as_str().rsplit('/').next()?.parse().ok()?;
    pack_key(&id).is_ok_and(|its| its == *key).then_some(id)
}

/// Reads and checks a pack's header and index (two or three short reads).
pub fn read_footer(repo: &Repository, id: &PackId, pack_len: u64) -> Result<(PackInfo, Footer)> {
    let key = pack_key(id)?;
    let named = |error: Error| error.on(&key);
    let short = || Error::damaged(format!("a pack can't be {pack_len} bytes long")).on(&key);
    let mut trailer = [0; TRAILER_BYTES];
    let offset = pack_len.checked_sub(TRAILER_BYTES as u64).ok_or_else(short)?;
    repo.storage.get_range(&key, offset, &mut trailer)?;
    let sections = pack::reader::Sections::parse(&trailer, pack_len, id).map_err(named)?;
    let mut header = [0; HEADER_BYTES];
    repo.storage.get_range(&key, 0, &mut header)?;
    let mut tail = vec![0; usize::try_from(sections.trailer_offset - sections.index_offset).map_err(|_| short())?];
    repo.storage.get_range(&key, sections.index_offset, &mut tail)?;
    let footer = Footer::read(&sections, &header, &mut tail, |header, aad, index| {
        check_header(repo, header)?;
        Ok(repo.keys.pack(&header.salt)?.index.open(0, aad, index)?.len())
    })
    .map_err(named)?;
    Ok((PackInfo { id: *id, len: pack_len, salt: footer.header.salt }, footer))
}

fn check_header(repo: &Repository, header: &Header) -> Result<()> {
    if header.repository != repo.config.repository || header.suite != repo.keys.suite().number() {
        return Err(Error::damaged("the pack belongs to another repository"));
    }
    Ok(())
}

/// Opens one blob: decrypts, decompresses, compares with its id.
pub(crate) fn open_blob(
    repo: &Repository,
    keys: &PackKeys,
    salt: &[u8; 32],
    number: u32,
    entry: &PackEntry,
    mut sealed: Vec<u8>,
) -> Result<Vec<u8>> {
    let kind = ChunkKind::from_number(entry.kind)?;
    let aad = pack::blob_aad(&repo.config.repository, salt, number, entry.kind, entry.codec, entry.raw_len, &entry.id);
    let body_len = keys.blob(kind).open(number, &aad, &mut sealed).map_err(|e| e.on(entry.id))?.len();
    sealed.truncate(body_len);
    let raw_len = entry.raw_len as usize;
    if raw_len > crate::chunk::CHUNK_BYTES_MAX {
        return Err(Error::damaged("a chunk is longer than a chunk can be").on(entry.id));
    }
    let raw = match entry.codec {
        pack::CODEC_RAW if sealed.len() == raw_len => sealed,
        pack::CODEC_RAW => return Err(Error::damaged("a raw blob has the wrong length").on(entry.id)),
        pack::CODEC_ZSTD => compress::decompress(&sealed, raw_len).map_err(|e| e.on(entry.id))?,
        pack::CODEC_DELTA => {
            return Err(Error::new(ErrorKind::Unsupported, "delta blobs are unknown to this version")
                .on(entry.id)
                .hint("use a newer icecore"));
        }
        other => {
            return Err(Error::new(ErrorKind::Unsupported, format!("blob codec {other} is unknown to this version"))
                .on(entry.id)
                .hint("use a newer icecore"));
        }
    };
    if repo.keys.chunk_id(kind, &raw) != entry.id {
        return Err(Error::damaged("a chunk's content is not what its id says").on(entry.id));
    }
    Ok(raw)
}

/// Opens a pack for reading its blobs, kept for the next blob of the same pack.
struct OpenedPack {
    info: PackInfo,
    keys: PackKeys,
    key: Key,
}

/// How many packs' keys a reader keeps.
const OPENED_PACKS_MAX: usize = 1024;

/// Reads chunks by id. Used from many threads at once.
pub struct ChunkReader<'r> {
    repo: &'r Repository,
    opened: Mutex<HashMap<PackNumber, Arc<OpenedPack>>>,
    /// The journals, and the packs themselves, were read again because of a chunk that the index did not have.
    looked_again: Mutex<bool>,
}

impl<'r> ChunkReader<'r> {
    /// A reader of this repository.
    pub fn new(repo: &'r Repository) -> Self {
        Self { repo, opened: Mutex::default(), looked_again: Mutex::default() }
    }

    /// The repository.
    pub fn repository(&self) -> &'r Repository {
        self.repo
    }

    /// Where a chunk is; `Damaged` when nothing holds it. The index is only a cache: before a chunk is given up, packs that
    /// it does not know are looked for, once.
    pub fn locate(&self, id: &ChunkId) -> Result<Location> {
        if let Some(location) = self.repo.index.get(id)? {
            return Ok(location);
        }
        // A prune that ended just before may have removed a journal entry between the listing and the reading of it, and
        // have named the entry's packs elsewhere since. Once is enough: a reader shows prune that it lives.
        let mut looked_again = self.looked_again.lock().unwrap_or_else(PoisonError::into_inner);
        if !*looked_again {
            self.repo.refresh()?;
            if self.repo.index.get(id)?.is_none() {
                // Or the entry that named its pack is lost.
                self.repo.find_packs()?;
            }
            *looked_again = true;
        }
        drop(looked_again);
        self.repo.index.get(id)?.ok_or_else(|| Error::damaged("a chunk is in no pack that is left").on(id))
    }

    /// A chunk's bytes, checked. `Damaged` names the chunk when it is missing or wrong.
    pub fn read(&self, kind: ChunkKind, id: &ChunkId) -> Result<Vec<u8>> {
        let location = self.locate(id)?;
        let error = match self.read_at(kind, &location) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Damaged | ErrorKind::Storage | ErrorKind::Cache) => error,
            read => return read,
        };
        // Another copy may be good; or prune has moved the chunk since the journals were read.
        if error.kind() == ErrorKind::NotFound || error.kind() == ErrorKind::Cache {
            self.repo.refresh()?;
        }
        for copy in self.repo.index.copies(id)?.into_iter().filter(|copy| *copy != location) {
            if let Ok(raw) = self.read_at(kind, &copy) {
                tracing::warn!(chunk = %id, "one copy can't be read ({error}); another one served");
                return Ok(raw);
            }
        }
        match error.kind() {
            ErrorKind::NotFound => Err(Error::damaged("the pack that holds a chunk is missing").on(id).because(error)),
            // A bad sector costs what stands on it, not the rest of a restore.
            ErrorKind::Storage => Err(Error::damaged("a chunk can't be read from its pack").on(id).because(error)),
            _ => Err(error),
        }
    }

    /// Whether one certain copy of a chunk can be read and is right.
    pub fn is_good(&self, kind: ChunkKind, copy: &Location) -> bool {
        self.read_at(kind, copy).is_ok()
    }

    fn read_at(&self, kind: ChunkKind, location: &Location) -> Result<Vec<u8>> {
        let pack = self.open(location.pack)?;
        let blob = &location.blob;
        if blob.kind != kind.number() {
            return Err(Error::damaged("a chunk is of another kind than the reference to it").on(blob.id));
        }
        if blob.stored_len as usize > pack::BLOB_BYTES_MAX || u64::from(blob.offset) + u64::from(blob.stored_len) > pack.info.len {
            return Err(Error::damaged("the index places a chunk outside of its pack").on(blob.id).hint("run `icecore reindex`"));
        }
        let mut sealed = vec![0; blob.stored_len as usize];
        self.repo.storage.get_range(&pack.key, u64::from(blob.offset), &mut sealed)?;
        let entry = PackEntry {
            id: blob.id,
            kind: blob.kind,
            codec: blob.codec,
            offset: blob.offset,
            stored_len: blob.stored_len,
            raw_len: blob.raw_len,
            base: None,
        };
        open_blob(self.repo, &pack.keys, &pack.info.salt, blob.number, &entry, sealed)
    }

    fn open(&self, number: PackNumber) -> Result<Arc<OpenedPack>> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pack) = opened.get(&number) {
            return Ok(pack.clone());
        }
        let info = self.repo.index.pack(number)?;
        let pack = Arc::new(OpenedPack { info, keys: self.repo.keys.pack(&info.salt)?, key: pack_key(&info.id)? });
        if opened.len() >= OPENED_PACKS_MAX {
            opened.clear();
        }
        opened.insert(number, pack.clone());
        Ok(pack)
    }
}
