//! BLAKE3, in the three forms that the format uses. The only door to the hash crate.

/// Plain BLAKE3 over several pieces, as if they were one.
pub fn hash(pieces: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for piece in pieces {
        hasher.update(piece);
    }
    *hasher.finalize().as_bytes()
}

/// Keyed BLAKE3 over several pieces, as if they were one.
pub fn keyed(key: &[u8; 32], pieces: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for piece in pieces {
        hasher.update(piece);
    }
    *hasher.finalize().as_bytes()
}

/// Keyed BLAKE3 of `input`, extended to as many bytes as `out` has.
pub fn keyed_stream(key: &[u8; 32], input: &[u8], out: &mut [u8]) {
    blake3::Hasher::new_keyed(key).update(input).finalize_xof().fill(out);
}

/// BLAKE3's key derivation: `context` is a constant of the format, `material` the secret.
pub fn derive(context: &str, material: &[u8]) -> [u8; 32] {
    blake3::derive_key(context, material)
}
