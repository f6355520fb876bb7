//! Reads chunks and packs back. Nothing is returned that does not match its id.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Repository;
use super::base::BaseCache;
use super::encode::{Encoded, Encoding};
use crate::error::{Error, ErrorKind, Result};
use crate::index::{BlobEntry, Location, PackInfo, PackNumber};
use crate::model::{ChunkId, PackId};
use crate::pack::{self, BlobAad, Footer, HEADER_BYTES, Header, PackEntry, TRAILER_BYTES};
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

/// Gives the plaintext of a delta's base.
pub(crate) type BaseOf<'a> = &'a dyn Fn(&ChunkId) -> Result<Arc<Vec<u8>>>;

/// Opens one blob: decrypts, decompresses, compares with its id. `base` is asked for the base of a delta only.
pub(crate) fn open_blob(
    repo: &Repository,
    keys: &PackKeys,
    salt: &[u8; 32],
    number: u32,
    entry: &PackEntry,
    sealed: Vec<u8>,
    base: BaseOf<'_>,
) -> Result<Vec<u8>> {
    decode(repo, entry, unseal(repo, keys, salt, number, entry, sealed)?, base)
}

/// Decrypts a blob; what comes out was sealed under this name, place and encoding.
fn unseal(repo: &Repository, keys: &PackKeys, salt: &[u8; 32], number: u32, entry: &PackEntry, mut sealed: Vec<u8>) -> Result<Vec<u8>> {
    let kind = ChunkKind::from_number(entry.kind)?;
    let aad = BlobAad::new(&repo.config.repository, salt, number, entry);
    let body_len = keys.blob(kind).open(number, aad.as_bytes(), &mut sealed).map_err(|e| e.on(entry.id))?.len();
    sealed.truncate(body_len);
    Ok(sealed)
}

/// Decodes an unsealed blob and compares the chunk with its id.
fn decode(repo: &Repository, entry: &PackEntry, body: Vec<u8>, base: BaseOf<'_>) -> Result<Vec<u8>> {
    let raw_len = entry.raw_len as usize;
    if raw_len > crate::chunk::CHUNK_BYTES_MAX {
        return Err(Error::damaged("a chunk is longer than a chunk can be").on(entry.id));
    }
    let raw = match entry.codec {
        pack::CODEC_RAW if body.len() == raw_len => body,
        pack::CODEC_RAW => return Err(Error::damaged("a raw blob has the wrong length").on(entry.id)),
        pack::CODEC_ZSTD => compress::decompress(&body, raw_len).map_err(|e| e.on(entry.id))?,
        pack::CODEC_DELTA => {
            let id = entry.base.ok_or_else(|| Error::damaged("a delta names no base").on(entry.id))?;
            compress::undelta(&body, &base(&id)?, raw_len).map_err(|e| e.on(entry.id))?
        }
        other => {
            return Err(Error::new(ErrorKind::Unsupported, format!("blob codec {other} is unknown to this version"))
                .on(entry.id)
                .hint("use a newer icecore"));
        }
    };
    if repo.keys.chunk_id(ChunkKind::from_number(entry.kind)?, &raw) != entry.id {
        return Err(Error::damaged("a chunk's content is not what its id says").on(entry.id));
    }
    Ok(raw)
}

fn entry_of(location: &Location) -> PackEntry {
    let BlobEntry { id, offset, stored_len, raw_len, number: _, kind, codec, base } = location.blob;
    PackEntry { id, kind, codec, offset, stored_len, raw_len, base }
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
    bases: BaseCache,
    /// The journals, and the packs themselves, were read again because of a chunk that the index did not have.
    looked_again: Mutex<bool>,
}

impl<'r> ChunkReader<'r> {
    /// A reader of this repository.
    pub fn new(repo: &'r Repository) -> Self {
        Self { repo, opened: Mutex::default(), bases: BaseCache::default(), looked_again: Mutex::default() }
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

    /// A chunk as it is encoded, read and checked; a full copy where there is one.
    pub fn encoded(&self, kind: ChunkKind, id: &ChunkId) -> Result<Encoded> {
        let mut copies = self.repo.index.copies(id)?;
        copies.sort_by_key(|copy| copy.blob.base.is_some());
        let mut failure = None;
        for copy in copies {
            match self.encoded_at(kind, &copy) {
                Ok(encoded) => return Ok(encoded),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| Error::damaged("a chunk is in no pack that is left").on(id)))
    }

    fn encoded_at(&self, kind: ChunkKind, copy: &Location) -> Result<Encoded> {
        let pack = self.check(kind, copy)?;
        let sealed = self.sealed(&pack, copy)?;
        let entry = entry_of(copy);
        let body = unseal(self.repo, &pack.keys, &pack.info.salt, copy.blob.number, &entry, sealed)?;
        let raw = decode(self.repo, &entry, body.clone(), &|base| self.base(kind, base))?;
        let encoding = Encoding { codec: entry.codec, base: entry.base };
        Ok(Encoded { encoding, raw_len: raw.len(), body })
    }

    /// Whether one certain copy of a chunk can be read and is right.
    pub fn is_good(&self, kind: ChunkKind, copy: &Location) -> bool {
        self.read_at(kind, copy).is_ok()
    }

    /// The plaintext of a chunk that deltas are encoded against, from a full copy of it. `Damaged` names the base when none
    /// can be read.
    pub fn base(&self, kind: ChunkKind, id: &ChunkId) -> Result<Arc<Vec<u8>>> {
        if let Some(base) = self.bases.get(kind, id) {
            return Ok(base);
        }
        let mut failure = None;
        let first = self.locate(id)?;
        let copies = if first.blob.base.is_none() { vec![first] } else { Vec::new() };
        // The index is asked for further copies only where the first one does not serve.
        for attempt in 0..2 {
            let copies = if attempt == 0 { copies.clone() } else { self.repo.index.copies(id)? };
            for copy in copies.iter().filter(|copy| copy.blob.base.is_none()) {
                match self.read_at(kind, copy) {
                    Ok(raw) => {
                        let base = Arc::new(raw);
                        self.bases.keep(kind, id, &base);
                        return Ok(base);
                    }
                    Err(error) => failure = Some(error),
                }
            }
            // Prune may have moved it since the journals were read.
            if failure.as_ref().is_some_and(|error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Cache)) {
                self.repo.refresh()?;
            }
        }
        let missing = Error::damaged("the chunk that another one is encoded against has no full copy that can be read").on(id);
        Err(match failure {
            Some(error) => missing.because(error),
            None => missing,
        })
    }

    fn read_at(&self, kind: ChunkKind, location: &Location) -> Result<Vec<u8>> {
        let pack = self.check(kind, location)?;
        let sealed = self.sealed(&pack, location)?;
        self.open_in(&pack, kind, location, sealed)
    }

    fn sealed(&self, pack: &OpenedPack, location: &Location) -> Result<Vec<u8>> {
        let mut sealed = vec![0; location.blob.stored_len as usize];
        self.repo.storage.get_range(&pack.key, u64::from(location.blob.offset), &mut sealed)?;
        Ok(sealed)
    }

    /// Opens the sealed bytes of a blob that were read from `location`: decrypts and decompresses them, reads the base where
    /// there is one, and compares with the id.
    pub fn open_at(&self, kind: ChunkKind, location: &Location, sealed: Vec<u8>) -> Result<Vec<u8>> {
        let pack = self.check(kind, location)?;
        self.open_in(&pack, kind, location, sealed)
    }

    /// What the index says of a blob comes from a file on this host: checked before anything is allocated for it.
    fn check(&self, kind: ChunkKind, location: &Location) -> Result<Arc<OpenedPack>> {
        let pack = self.open(location.pack)?;
        let blob = &location.blob;
        if blob.kind != kind.number() {
            return Err(Error::damaged("a chunk is of another kind than the reference to it").on(blob.id));
        }
        if blob.stored_len as usize > pack::BLOB_BYTES_MAX || u64::from(blob.offset) + u64::from(blob.stored_len) > pack.info.len {
            return Err(Error::damaged("the index places a chunk outside of its pack").on(blob.id).hint("run `icecore reindex`"));
        }
        Ok(pack)
    }

    /// Refuses a location at which no chunk of this kind can be.
    pub(super) fn check_place(&self, kind: ChunkKind, location: &Location) -> Result<()> {
        self.check(kind, location).map(|_| ())
    }

    /// Reads bytes of a pack as they are stored.
    pub(super) fn read_range(&self, pack: PackNumber, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.repo.storage.get_range(&self.open(pack)?.key, offset, buffer)
    }

    /// Whether a base is in memory.
    pub(super) fn has_base(&self, kind: ChunkKind, id: &ChunkId) -> bool {
        self.bases.get(kind, id).is_some()
    }

    /// Keeps the checked plaintext of a full copy for the deltas against it that are opened next.
    pub(super) fn keep_base(&self, kind: ChunkKind, id: &ChunkId, raw: &Arc<Vec<u8>>) {
        self.bases.keep(kind, id, raw);
    }

    fn open_in(&self, pack: &OpenedPack, kind: ChunkKind, location: &Location, sealed: Vec<u8>) -> Result<Vec<u8>> {
        let base = |base: &ChunkId| self.base(kind, base);
        open_blob(self.repo, &pack.keys, &pack.info.salt, location.blob.number, &entry_of(location), sealed, &base)
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
