//! SEAM: immutable named objects. Every byte of a repository goes through [`Storage`].
//!
//! The contract, which `conformance` checks on every implementation and wrapper:
//!
//! 1. When `put_new` returns `Ok`, the object survives a crash of the process and of the machine.
//! 2. No reader ever sees a part of an object.
//! 3. A `put_new` of a key that exists fails with `AlreadyExists` and changes nothing; of several at once, one wins.
//! 4. A `list`, `size` or `get` that starts after a put (delete) returned sees it (its absence).
//! 5. Errors name the operation and the key. What is not there is `NotFound`, all other failures are `Storage`.
//!    After a failed `put_new` the object may exist whole or not at all; a put that failed is never repeated on the same
//!    file handle.
//! 6. An object is bounded and fits in memory; a read of more than the caller allows fails before it allocates.
//! 7. A hold (`hold`) lasts until it is dropped or its process ends, however it ends; `held` sees it from any process.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
#[cfg(any(test, feature = "testing"))]
pub mod fault;
pub mod local;
#[cfg(any(test, feature = "testing"))]
pub mod memory;

/// An object's name: components of `a-z 0-9 - .`, joined by `/`, no component empty or starting with `.`.
/// At most 200 bytes, so it fits any store and can lead nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Key {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let legal = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        };
        if text.len() > 200 || !text.split('/').all(legal) {
            return Err(Error::new(ErrorKind::Usage, "not a legal object name").on(text.escape_debug()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// An object found by a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub key: Key,
    /// Its length in bytes.
    pub len: u64,
}

/// Proof that this process lives; see rule 7. Dropping it lets go.
pub trait Hold: Send + Sync {}

/// A place for immutable named objects.
pub trait Storage: Send + Sync {
    /// Stores a new object, durably.
    fn put_new(&self, key: &Key, bytes: &[u8]) -> Result<()>;
    /// Reads a whole object of at most `len_max` bytes.
    fn get(&self, key: &Key, len_max: u64) -> Result<Vec<u8>>;
    /// Reads exactly `buffer.len()` bytes from `offset`; an object that ends before is `Damaged`.
    fn get_range(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<()>;
    /// Likewise, of bytes that nobody is likely to want again soon: what the system did not keep in memory before, it does not
    /// keep there because of this read.
    fn read_once(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<()>;
    /// The object's length, none when it isn't there.
    fn size(&self, key: &Key) -> Result<Option<u64>>;
    /// All objects whose key starts with the component path `prefix` (such as `packs` or `log/0123`), sorted by key.
    /// What is not a legal key (temporary files, foreign files) is not listed.
    fn list(&self, prefix: &str) -> Result<Vec<Listed>>;
    /// Removes an object durably enough that it does not come back after a later put was acknowledged. `Ok` when it was
    /// not there.
    fn delete(&self, key: &Key) -> Result<()>;
    /// Makes an object that is there durable, as if this process had put it: whoever found it in a listing can't know that
    /// the put of another process, which may have died, got to that. `NotFound` when it is not there.
    fn settle(&self, key: &Key) -> Result<()>;
    /// Takes the hold `key` for this process. `Busy` when another process (or this one) has it.
    /// While it lasts, and when its process was killed until somebody deletes it, it is listed as an object without bytes.
    fn hold(&self, key: &Key) -> Result<Box<dyn Hold>>;
    /// Whether some process has the hold `key` now.
    fn held(&self, key: &Key) -> Result<bool>;
    /// Removes what interrupted puts of dead processes left behind; called when a writer starts.
    fn sweep_leftovers(&self) -> Result<()>;
    /// The place in words, for messages.
    fn describe(&self) -> String;
}
