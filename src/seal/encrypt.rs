//! Authenticated encryption with associated data, in place: AES-256-GCM, or a keyed checksum in repositories without
//! encryption, so that both have the same layout and every read is checked.
//!
//! A key is used for one object only (a pack, a journal entry), derived from that object's random salt; the nonce is a
//! counter within the object. So no pair of key and nonce ever repeats.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::error::{Error, ErrorKind, Result};
use crate::model::hash;

/// What sealing adds to the plaintext, in bytes.
pub const TAG_BYTES: usize = 16;

/// How bytes are sealed; the number is part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// 0: in the clear, with the first 16 bytes of a keyed BLAKE3 as the tag. Detects damage; hides nothing.
    Checksum,
    /// 1: AES-256-GCM (NIST SP 800-38D) with a 96-bit counter nonce.
    Aes256Gcm,
}

impl Suite {
    /// The suite's number in the format.
    pub fn number(self) -> u8 {
        match self {
            Self::Checksum => 0,
            Self::Aes256Gcm => 1,
        }
    }

    /// The suite of a number; `Unsupported` when this program does not know it.
    pub fn from_number(number: u8) -> Result<Self> {
        match number {
            0 => Ok(Self::Checksum),
            1 => Ok(Self::Aes256Gcm),
            other => Err(Error::new(ErrorKind::Unsupported, format!("encryption suite {other} is unknown to this version"))
                .hint("use a newer icecore")),
        }
    }

    /// The name that people read.
    pub fn name(self) -> &'static str {
        match self {
            Self::Checksum => "none",
            Self::Aes256Gcm => "aes-256-gcm",
        }
    }
}

/// A key for one object.
pub struct SealKey(Inner);

enum Inner {
    Checksum([u8; 32]),
    Aes(Box<LessSafeKey>),
}

impl SealKey {
    /// A key of `suite`.
    pub fn new(suite: Suite, key: &[u8; 32]) -> Result<Self> {
        Ok(Self(match suite {
            Suite::Checksum => Inner::Checksum(*key),
            Suite::Aes256Gcm => {
                let key =
                    UnboundKey::new(&AES_256_GCM, key).map_err(|_| Error::new(ErrorKind::Unsupported, "AES-256-GCM is not available"))?;
                Inner::Aes(Box::new(LessSafeKey::new(key)))
            }
        }))
    }

    /// Seals `buffer[start..]` in place and appends the tag.
    pub fn seal(&self, nonce: u32, aad: &[u8], buffer: &mut Vec<u8>, start: usize) -> Result<()> {
        let tag: [u8; TAG_BYTES] = match &self.0 {
            Inner::Checksum(key) => checksum(key, nonce, aad, &buffer[start..]),
            Inner::Aes(key) => key
                .seal_in_place_separate_tag(counter(nonce), Aad::from(aad), &mut buffer[start..])
                .map_err(|_| Error::damaged("sealing failed"))?
                .as_ref()
                .try_into()
                .map_err(|_| Error::damaged("a tag of the wrong length"))?,
        };
        buffer.extend_from_slice(&tag);
        Ok(())
    }

    /// Whether sealed bytes open; they stay as they are. `scratch` is room to work in.
    pub fn check(&self, nonce: u32, aad: &[u8], sealed: &[u8], scratch: &mut Vec<u8>) -> Result<()> {
        let wrong = || Error::damaged("sealed bytes do not open: they are damaged, misplaced or forged");
        let (body, tag) = sealed.split_at(sealed.len().checked_sub(TAG_BYTES).ok_or_else(wrong)?);
        match &self.0 {
            Inner::Checksum(key) if checksum(key, nonce, aad, body) == *tag => Ok(()),
            Inner::Checksum(_) => Err(wrong()),
            Inner::Aes(key) => {
                scratch.resize(body.len(), 0);
                key.open_separate_gather(counter(nonce), Aad::from(aad), body, tag, scratch).map_err(|_| wrong())
            }
        }
    }

    /// Opens sealed bytes in place and returns the plaintext. Any other key, nonce, associated data or bit is `Damaged`.
    pub fn open<'a>(&self, nonce: u32, aad: &[u8], sealed: &'a mut [u8]) -> Result<&'a mut [u8]> {
        let wrong = || Error::damaged("sealed bytes do not open: they are damaged, misplaced or forged");
        let len = sealed.len().checked_sub(TAG_BYTES).ok_or_else(wrong)?;
        match &self.0 {
            Inner::Checksum(key) => {
                let (plain, tag) = sealed.split_at_mut(len);
                if checksum(key, nonce, aad, plain) != tag[..] {
                    return Err(wrong());
                }
                Ok(plain)
            }
            Inner::Aes(key) => key.open_in_place(counter(nonce), Aad::from(aad), sealed).map_err(|_| wrong()),
        }
    }
}

fn counter(nonce: u32) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&nonce.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn checksum(key: &[u8; 32], nonce: u32, aad: &[u8], plain: &[u8]) -> [u8; TAG_BYTES] {
    let aad_len = (aad.len() as u64).to_le_bytes();
    let digest = hash::keyed(key, &[&nonce.to_le_bytes(), &aad_len, aad, plain]);
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&digest[..TAG_BYTES]);
    tag
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_and_nothing_else_does() {
        for suite in [Suite::Checksum, Suite::Aes256Gcm] {
            let key = SealKey::new(suite, &[7; 32]).unwrap();
            let mut sealed = b"--".to_vec();
            sealed.extend_from_slice(b"hello");
            key.seal(5, b"aad", &mut sealed, 2).unwrap();
            assert_eq!(sealed.len(), 2 + 5 + TAG_BYTES);
            let body = sealed.split_off(2);
            assert_eq!(key.open(5, b"aad", &mut body.clone()).unwrap(), b"hello");
            let mut scratch = Vec::new();
            assert!(key.check(5, b"aad", &body, &mut scratch).is_ok() && key.check(6, b"aad", &body, &mut scratch).is_err());
            assert!(
                key.check(5, b"aad", &body[..body.len() - 1], &mut scratch).is_err()
                    && key.check(5, b"aad", &[0; 3], &mut scratch).is_err()
            );
            assert!(key.open(6, b"aad", &mut body.clone()).is_err());
            assert!(key.open(5, b"aae", &mut body.clone()).is_err());
            assert!(SealKey::new(suite, &[8; 32]).unwrap().open(5, b"aad", &mut body.clone()).is_err());
            for i in 0..body.len() {
                let mut flipped = body.clone();
                flipped[i] ^= 1;
                assert!(key.open(5, b"aad", &mut flipped).is_err(), "{suite:?} byte {i}");
            }
            assert!(key.open(5, b"aad", &mut [0; 3]).is_err());
        }
    }
}
