//! Small sealed objects: journal entries, index deltas, forget markers, prune's sets, proofs. One envelope for all:
//!
//! ```text
//!  0  4 magic "ICEO"      4  1 version (1)      5  1 type      6  1 suite      7  1 zero
//!  8 16 repository id    24 32 salt            56  n sealed CBOR body, nonce 0
//! ```
//!
//! The associated data is the first 56 bytes and the object's own key, so that an object under another name, of another
//! type or from another repository does not open.

use crate::error::{Error, ErrorKind, Result};
use crate::model::RepositoryId;
use crate::seal::{self, Keys};
use crate::storage::{Key, Storage};

const MAGIC: &[u8; 4] = b"ICEO";
const VERSION: u8 = 1;
const ENVELOPE_BYTES: usize = 56;
/// No sealed object is longer.
pub const OBJECT_BYTES_MAX: u64 = 64 << 20;

/// What a sealed object is; the number is part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectType {
    /// 3: an entry of a session's journal.
    Journal = 3,
    /// 4: the blobs of some packs.
    Delta = 4,
    /// 5: "this snapshot is no longer wanted".
    Forget = 5,
    /// 6: packs that prune condemned.
    Condemned = 6,
    /// 7: packs that prune deletes.
    Final = 7,
    /// 8: what was proved of packs.
    Verified = 8,
}

/// Seals `body` for the object `key`. Returns the object and its salt.
pub(super) fn seal(keys: &Keys, repository: &RepositoryId, kind: ObjectType, key: &Key, body: &[u8], salt: [u8; 32]) -> Result<Vec<u8>> {
    let len = ENVELOPE_BYTES + body.len() + seal::TAG_BYTES;
    if len as u64 > OBJECT_BYTES_MAX {
        // Nobody could read it back.
        return Err(Error::new(ErrorKind::Storage, format!("an object of {len} bytes is longer than objects can be")).on(key));
    }
    let mut object = Vec::with_capacity(len);
    object.extend_from_slice(MAGIC);
    object.extend_from_slice(&[VERSION, kind as u8, keys.suite().number(), 0]);
    object.extend_from_slice(repository.as_bytes());
    object.extend_from_slice(&salt);
    let aad = associated(&object, key);
    object.extend_from_slice(body);
    keys.object(&salt)?.seal(0, &aad, &mut object, ENVELOPE_BYTES)?;
    Ok(object)
}

/// Opens an object that was read from `key`; returns its salt and body.
pub fn open(keys: &Keys, repository: &RepositoryId, kind: ObjectType, key: &Key, object: &mut [u8]) -> Result<([u8; 32], Vec<u8>)> {
    let (envelope, sealed) =
        object.split_at_mut_checked(ENVELOPE_BYTES).ok_or_else(|| Error::damaged("the object is too short").on(key))?;
    if envelope[..4] != *MAGIC {
        return Err(Error::damaged("this is not an icecore object").on(key));
    }
    if envelope[4] != VERSION {
        return Err(Error::new(ErrorKind::Unsupported, format!("object version {} is unknown to this version", envelope[4]))
            .on(key)
            .hint("use a newer icecore"));
    }
    if envelope[5] != kind as u8 || envelope[6] != keys.suite().number() || envelope[7] != 0 || envelope[8..24] != *repository.as_bytes() {
        return Err(Error::damaged("the object is not what its name says").on(key));
    }
    let mut salt = [0; 32];
    salt.copy_from_slice(&envelope[24..56]);
    let aad = associated(envelope, key);
    let body = keys.object(&salt)?.open(0, &aad, sealed).map_err(|e| e.on(key))?;
    Ok((salt, body.to_vec()))
}

/// Seals and stores a new object.
pub fn put(storage: &dyn Storage, keys: &Keys, repository: &RepositoryId, kind: ObjectType, key: &Key, body: &[u8]) -> Result<()> {
    storage.put_new(key, &seal(keys, repository, kind, key, body, seal::random_array()?)?)
}

/// Reads and opens an object.
pub fn get(storage: &dyn Storage, keys: &Keys, repository: &RepositoryId, kind: ObjectType, key: &Key) -> Result<Vec<u8>> {
    let mut object = storage.get(key, OBJECT_BYTES_MAX)?;
    Ok(open(keys, repository, kind, key, &mut object)?.1)
}

fn associated(envelope: &[u8], key: &Key) -> Vec<u8> {
    let mut aad = envelope.to_vec();
    aad.extend_from_slice(key.as_str().as_bytes());
    aad
}
