//! The `config` object: what the repository is and what a program must know to use it. Written once by `init`, in the
//! clear, authenticated with a key so that nobody without one can weaken it.
//!
//! ```text
//! 4 magic "ICEC", 4 length of the body (u32), CBOR body, 32 MAC (keyed BLAKE3 of all before), 32 BLAKE3 of all before
//! ```

use minicbor::{Decode, Encode};

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{RepositoryId, hash};
use crate::seal::{Keys, Suite};

const MAGIC: &[u8; 4] = b"ICEC";
/// No config is longer.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// The format that this program writes and the newest that it reads.
pub(super) const FORMAT: u32 = 1;

/// What somebody wants to do with a repository; features are required per operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Look at snapshots and restore them.
    Read,
    /// Add snapshots.
    Write,
    /// Delete.
    Prune,
    /// Check.
    Verify,
}

/// The repository's constants (CBOR map).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Config {
    /// Format number; another one is refused.
    #[n(0)]
    pub format: u32,
    /// The repository's id.
    #[n(1)]
    pub repository: RepositoryId,
    /// When it was made.
    #[n(2)]
    pub created: Timestamp,
    /// How objects are sealed.
    #[n(3)]
    pub suite: u8,
    /// Features that a program must know to read. Version 1 of the format has none.
    #[n(4)]
    pub read_features: Vec<String>,
    /// Features that a program must know to write.
    #[n(5)]
    pub write_features: Vec<String>,
    /// Features that a program must know to delete.
    #[n(6)]
    pub prune_features: Vec<String>,
    /// Features that a program must know to verify.
    #[n(7)]
    pub verify_features: Vec<String>,
    /// `init` saw the second put of one key fail, so that put-if-absent can be relied on.
    #[n(8)]
    pub put_if_absent: bool,
    /// A pack of file contents is published when it reaches this many bytes.
    #[n(9)]
    pub data_pack_bytes: u32,
    /// Likewise a pack of trees and lists.
    #[n(10)]
    pub tree_pack_bytes: u32,
}

impl Config {
    /// The config object's bytes.
    pub fn encode(&self, keys: &Keys) -> Result<Vec<u8>> {
        let body = minicbor::to_vec(self).map_err(|e| Error::damaged("cannot encode the config").because(e.to_string()))?;
        let mut object = MAGIC.to_vec();
        object.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
        object.extend_from_slice(&body);
        object.extend_from_slice(&keys.config_mac(&object));
        let check = hash::hash(&[&object]);
        object.extend_from_slice(&check);
        Ok(object)
    }

    /// Reads a config object. Its MAC can only be checked later, with the keys ([`Config::authenticate`]).
    pub fn decode(object: &[u8]) -> Result<Self> {
        let broken = |why: &str| {
            Error::damaged(format!("the repository's config is damaged ({why})"))
                .on("config")
                .hint("restore the file `config` from a copy of the repository")
        };
        let (checked, check) = object.split_at_checked(object.len().wrapping_sub(32)).ok_or_else(|| broken("too short"))?;
        if checked.get(..4) != Some(MAGIC) {
            return Err(broken("not an icecore config"));
        }
        if hash::hash(&[checked]) != check {
            return Err(broken("its checksum is wrong"));
        }
        let len = checked.get(4..8).and_then(|len| len.try_into().ok()).map(u32::from_le_bytes).ok_or_else(|| broken("too short"))?;
        let body = checked
            .get(8..checked.len().saturating_sub(32))
            .filter(|body| body.len() as u64 == u64::from(len))
            .ok_or_else(|| broken("its length is wrong"))?;
        // The format number comes first and alone: a newer config may have another shape.
        let format = format_of(body).map_err(|e| broken(&e.to_string()))?;
        if format != FORMAT {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the repository has format {format}, this version knows format {FORMAT}"),
            )
            .on("config")
            .hint("use a newer icecore"));
        }
        let config: Self = minicbor::decode(body).map_err(|e| broken(&e.to_string()))?;
        Suite::from_number(config.suite)?;
        Ok(config)
    }

    /// Checks the MAC of the object that this config was decoded from.
    pub fn authenticate(object: &[u8], keys: &Keys) -> Result<()> {
        let end = object.len().saturating_sub(64);
        if keys.config_mac(&object[..end]) != object[end..][..32] {
            return Err(Error::damaged("the repository's config was changed by somebody without the key").on("config"));
        }
        Ok(())
    }

    /// Refuses an operation that needs a feature which this program does not know.
    pub fn require(&self, operation: Operation) -> Result<()> {
        let needed = match operation {
            Operation::Read => &self.read_features,
            Operation::Write => &self.write_features,
            Operation::Prune => &self.prune_features,
            Operation::Verify => &self.verify_features,
        };
        match needed.first() {
            None => Ok(()),
            Some(feature) => {
                let what = format!("the repository needs the feature `{}` to {}", feature.escape_debug(), operation.verb());
                Err(Error::new(ErrorKind::Unsupported, what).hint("use a newer icecore"))
            }
        }
    }

    /// How objects are sealed.
    pub fn suite(&self) -> Result<Suite> {
        Suite::from_number(self.suite)
    }
}

impl Operation {
    fn verb(self) -> &'static str {
        match self {
            Self::Read => "be read",
            Self::Write => "be written",
            Self::Prune => "be pruned",
            Self::Verify => "be verified",
        }
    }
}

fn format_of(body: &[u8]) -> std::result::Result<u32, minicbor::decode::Error> {
    let mut decoder = minicbor::Decoder::new(body);
    decoder.map()?;
    match decoder.u32()? {
        0 => decoder.u32(),
        _ => Err(minicbor::decode::Error::message("the format number is missing")),
    }
}
