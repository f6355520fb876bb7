//! Chunk bytes to stored bytes and back: compress, then encrypt; and the keys for it. No I/O.

pub mod compress;
pub mod encrypt;
pub mod keys;
pub mod probe;
pub mod sha256;
pub mod slot;

pub use encrypt::{SealKey, Suite, TAG_BYTES};
pub use keys::Keys;

use crate::error::{Error, ErrorKind, Result};

/// Fills `buffer` with random bytes of the operating system.
pub fn random(buffer: &mut [u8]) -> Result<()> {
    getrandom::fill(buffer).map_err(|e| Error::new(ErrorKind::Storage, "the system gives no random bytes").because(e.to_string()))
}

/// `N` random bytes.
pub fn random_array<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    random(&mut bytes)?;
    Ok(bytes)
}
