//! Names of things: chunks, packs, snapshots, sessions, repositories. All print as lower-case hexadecimal.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The length of the id in bytes.
            pub const LEN: usize = $len;

            /// The id's bytes.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// An id from exactly as many bytes as it has.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The first ten hexadecimal digits, for people.
            pub fn short(&self) -> String {
                let mut text = self.to_string();
                text.truncate(10);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                let bad = || Error::new(ErrorKind::Usage, concat!("not the id of a ", $what)).on(text.escape_debug());
                if text.len() != 2 * $len || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
                    return Err(bad());
                }
                let mut bytes = [0; $len];
                for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                    let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
                    *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
                }
                Ok(Self(bytes))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                Self::from_slice(d.bytes()?).ok_or_else(|| minicbor::decode::Error::message(concat!("wrong length for the id of a ", $what)))
            }
        }
    };
}

id!(
    /// A chunk's name: keyed BLAKE3 of its plaintext (32 bytes). All zero stands for a hole and names no chunk.
    ChunkId, 32, "chunk"
);
id!(
    /// A pack's name: BLAKE3 over its header, sealed footer and scrub table (32 bytes).
    PackId, 32, "pack"
);
id!(
    /// A snapshot's name: keyed BLAKE3 of its record (32 bytes).
    SnapshotId, 32, "snapshot"
);
id!(
    /// One writer's journal; 16 random bytes.
    SessionId, 16, "session"
);
id!(
    /// A repository; 16 random bytes chosen by `init`.
    RepositoryId, 16, "repository"
);

impl ChunkId {
    /// The id that stands for a hole in a list of chunks.
    pub const HOLE: Self = Self([0; 32]);

    /// Whether this stands for a hole.
    pub fn is_hole(&self) -> bool {
        *self == Self::HOLE
    }
}
