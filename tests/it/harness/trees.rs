//! Small trees with everything that a volume can hold, and changes to them. All from seeds: the same seed, the same bytes.

use icecore::source::scripted::{ScriptedSource, Tree};

/// A random generator whose numbers follow from its seed alone (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Bytes that do not compress.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

/// Bytes that do not compress.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    Random(seed).bytes(len)
}

/// Every kind of entry, content of every kind: inline, one chunk, several chunks, sparse, linked, compressible.
pub(crate) fn varied(seed: u64) -> ScriptedSource {
    ScriptedSource::build(|tree| {
        tree.file("data/big", noise(seed, 150_000))
            .file("data/text", b"the same words again and again, ".repeat(900))
            .file("data/deep/er/small", b"some hundred bytes ".repeat(6))
            .file("data/deep/er/medium", noise(seed + 1, 3_000))
            .file("empty file", b"")
            .dir("empty")
            .symlink("data/link", "../data/big")
            .fifo("pipe")
            .socket("socket")
            .char_device("null", 1, 3)
            .sparse_file("sparse", 300_000, &[(100_000, &noise(seed + 2, 9_000)), (299_999, b"x")])
            .file("linked/one", noise(seed + 3, 2_000))
            .hard_link("linked/one", "linked/two")
            .hard_link("linked/one", "data/three")
            .set_mode("data/big", 0o4755)
            .set_owner("data/deep", 100, 200)
            .set_xattr("data/text", "user.small", "value")
            .set_xattr("empty", "user.large", noise(seed + 4, 5_000))
            .set_xattr("data", "user.large", noise(seed + 5, 3_000));
    })
}

/// Changes of every kind to such a tree.
pub(crate) fn change(tree: &mut Tree, seed: u64) {
    tree.write("data/big", 70_000, noise(seed, 5_000))
        .append("data/text", b"and more")
        .file(format!("new/{seed}"), noise(seed + 1, 20_000))
        .file("data/deep/er/medium", noise(seed + 2, 3_100))
        .set_mode("linked/one", 0o600)
        .set_xattr("empty", "user.large", noise(seed + 3, 5_000));
}

/// A tree of two small files, for tests that walk every byte of a repository.
pub(crate) fn tiny(seed: u64) -> ScriptedSource {
    ScriptedSource::build(|tree| {
        tree.file("inline", b"a few bytes").file("dir/chunk", noise(seed, 700)).symlink("link", "inline").hard_link("inline", "again");
    })
}
