//! SHA-256 of a stream, for foreign formats that carry one. Ours use BLAKE3.

use aws_lc_rs::digest::{Context, SHA256};

/// A hash in the making.
#[derive(Clone)]
pub struct Sha256(Context);

impl Default for Sha256 {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Sha256 {
    /// Takes what comes next.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Takes the rest and gives the hash.
    pub fn finish_with(mut self, rest: &[u8]) -> [u8; 32] {
        self.0.update(rest);
        let mut hash = [0; 32];
        hash.copy_from_slice(self.0.finish().as_ref());
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_standard_s() {
        let mut hash = Sha256::default();
        hash.update(b"a");
        assert_eq!(hash.finish_with(b"bc")[..8], [0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea]);
    }
}
