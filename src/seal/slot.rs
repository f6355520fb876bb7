//! Key slots: the repository's secrets, wrapped under a passphrase (Argon2id, RFC 9106) or a key file. Bytes to values and
//! back; the caller stores them.

use argon2::{Algorithm, Argon2, Params, Version};
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use super::encrypt::{SealKey, Suite};
use super::keys::Secrets;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{RepositoryId, hash};

/// Argon2id memory in KiB, passes and lanes of new slots: about 0.15 s on one core.
const ARGON2_NEW: (u32, u32, u32) = (64 * 1024, 3, 1);
/// More than this in a slot is refused before anything is allocated.
const ARGON2_MAX: (u32, u32, u32) = (1024 * 1024, 16, 16);
/// The shortest key file.
pub const KEY_FILE_BYTES_MIN: usize = 32;

/// What opens a slot.
pub enum Secret {
    /// A passphrase, stretched with Argon2id.
    Passphrase(Zeroizing<Vec<u8>>),
    /// The content of a key file, at least [`KEY_FILE_BYTES_MIN`] bytes, used as it is.
    KeyFile(Zeroizing<Vec<u8>>),
}

/// What a slot was made for; part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum SlotKind {
    /// Opens with a passphrase.
    #[n(0)]
    Passphrase,
    /// Opens with a key file.
    #[n(1)]
    KeyFile,
}

/// A key slot as it stands in the repository (CBOR map).
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct Slot {
    /// The repository that it belongs to.
    #[n(0)]
    pub repository: RepositoryId,
    /// What opens it.
    #[n(1)]
    pub kind: SlotKind,
    /// Who may do what with its secrets; 0: everything. Other numbers come with later versions.
    #[n(2)]
    pub role: u32,
    /// The user's words for it.
    #[n(3)]
    pub label: String,
    /// When it was made.
    #[n(4)]
    pub created: Timestamp,
    #[cbor(n(5), with = "minicbor::bytes")]
    salt: [u8; 32],
    /// Argon2id: memory in KiB, passes, lanes; zeros for a key file.
    #[n(6)]
    argon2: (u32, u32, u32),
    #[cbor(n(7), with = "minicbor::bytes")]
    wrapped: Vec<u8>,
}

impl Slot {
    /// Wraps `secrets` so that `secret` opens them.
    pub fn wrap(repository: RepositoryId, secrets: &Secrets, secret: &Secret, label: &str, created: Timestamp) -> Result<Self> {
        let (kind, argon2) = match secret {
            Secret::Passphrase(phrase) if phrase.is_empty() => {
                return Err(
                    Error::new(ErrorKind::Usage, "an empty passphrase protects nothing").hint("choose another, or `init --no-encryption`")
                );
            }
            Secret::Passphrase(_) => (SlotKind::Passphrase, ARGON2_NEW),
            Secret::KeyFile(content) if content.len() < KEY_FILE_BYTES_MIN => {
                return Err(Error::new(ErrorKind::Usage, format!("a key file needs at least {KEY_FILE_BYTES_MIN} bytes"))
                    .hint("make one with: head -c 64 /dev/urandom > FILE"));
            }
            Secret::KeyFile(_) => (SlotKind::KeyFile, (0, 0, 0)),
        };
        let mut slot =
            Self { repository, kind, role: 0, label: label.to_owned(), created, salt: super::random_array()?, argon2, wrapped: Vec::new() };
        let mut bundle = minicbor::to_vec(secrets).map_err(|e| Error::damaged("cannot encode the key bundle").because(e.to_string()))?;
        slot.wrapping_key(secret)?.seal(0, &slot.aad(), &mut bundle, 0)?;
        slot.wrapped = bundle;
        Ok(slot)
    }

    /// The secrets, when `secret` is the right one; `WrongKey` when it is not, `Damaged` when the slot can't be one.
    pub fn unwrap(&self, secret: &Secret) -> Result<Secrets> {
        let wrong = || Error::new(ErrorKind::WrongKey, "the key does not open this slot");
        match (self.kind, secret) {
            (SlotKind::Passphrase, Secret::Passphrase(_)) | (SlotKind::KeyFile, Secret::KeyFile(_)) => {}
            _ => return Err(wrong()),
        }
        if self.role != 0 {
            return Err(Error::new(ErrorKind::Unsupported, format!("key role {} is unknown to this version", self.role))
                .hint("use a newer icecore, or another key"));
        }
        let mut bundle = Zeroizing::new(self.wrapped.clone());
        let plain = self.wrapping_key(secret)?.open(0, &self.aad(), &mut bundle).map_err(|_| wrong())?;
        minicbor::decode(plain).map_err(|e| Error::damaged("a key bundle is malformed").because(e.to_string()))
    }

    fn wrapping_key(&self, secret: &Secret) -> Result<SealKey> {
        let key = match secret {
            Secret::KeyFile(content) => Zeroizing::new(hash::keyed(&hash::derive("icecore v1 key file", content), &[&self.salt])),
            Secret::Passphrase(phrase) => {
                let (memory, passes, lanes) = self.argon2;
                if memory > ARGON2_MAX.0 || passes > ARGON2_MAX.1 || lanes > ARGON2_MAX.2 {
                    return Err(Error::damaged("a key slot asks for more work than any honest one"));
                }
                let params = Params::new(memory, passes, lanes, Some(32))
                    .map_err(|e| Error::damaged("a key slot's Argon2 parameters are impossible").because(e.to_string()))?;
                let mut key = Zeroizing::new([0; 32]);
                Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                    .hash_password_into(phrase, &self.salt, &mut *key)
                    .map_err(|e| Error::damaged("Argon2 failed").because(e.to_string()))?;
                key
            }
        };
        SealKey::new(Suite::Aes256Gcm, &key)
    }

    /// Everything that must not be changed without the key. The label may not either: it tells slots apart when one is removed.
    fn aad(&self) -> Vec<u8> {
        let mut aad = b"icecore key slot v1".to_vec();
        aad.extend_from_slice(self.repository.as_bytes());
        aad.push(match self.kind {
            SlotKind::Passphrase => 0,
            SlotKind::KeyFile => 1,
        });
        for number in [self.role, self.argon2.0, self.argon2.1, self.argon2.2] {
            aad.extend_from_slice(&number.to_le_bytes());
        }
        aad.extend_from_slice(&self.created.seconds.to_le_bytes());
        aad.extend_from_slice(&self.created.nanos.to_le_bytes());
        aad.extend_from_slice(self.label.as_bytes());
        aad
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::seal::Keys;

    fn phrase(text: &str) -> Secret {
        Secret::Passphrase(Zeroizing::new(text.as_bytes().to_vec()))
    }

    #[test]
    fn a_slot_opens_with_its_secret_only() {
        let keys = Keys::generate(Suite::Aes256Gcm).unwrap();
        let repository = RepositoryId([1; 16]);
        let slot = Slot::wrap(repository, keys.secrets(), &phrase("open sesame"), "mine", Timestamp::new(1, 2)).unwrap();
        let again: Slot = minicbor::decode(&minicbor::to_vec(&slot).unwrap()).unwrap();
        let back = Keys::new(again.unwrap(&phrase("open sesame")).unwrap(), Suite::Aes256Gcm);
        assert_eq!(back.gear(), keys.gear());
        assert_eq!(again.unwrap(&phrase("open sesam")).err().unwrap().kind(), ErrorKind::WrongKey);
        let mut moved = again.clone();
        moved.repository = RepositoryId([2; 16]);
        assert!(moved.unwrap(&phrase("open sesame")).is_err());
        let mut greedy = again;
        greedy.argon2.0 = u32::MAX;
        assert_eq!(greedy.unwrap(&phrase("open sesame")).err().unwrap().kind(), ErrorKind::Damaged);
    }

    #[test]
    fn key_files_must_be_long_enough() {
        let keys = Keys::generate(Suite::Aes256Gcm).unwrap();
        let file = |len| Secret::KeyFile(Zeroizing::new(vec![9; len]));
        let wrap = |len| Slot::wrap(RepositoryId([1; 16]), keys.secrets(), &file(len), "", Timestamp::default());
        assert!(wrap(31).is_err());
        assert!(wrap(32).unwrap().unwrap(&file(32)).is_ok());
        assert!(wrap(32).unwrap().unwrap(&file(33)).is_err());
    }
}
