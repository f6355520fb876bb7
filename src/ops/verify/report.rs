//! What a run looked at and found.

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Damage {
    /// The object's key.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
}

/// A path that damage breaks.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Affected {
    /// The snapshot's id.
    pub snapshot: String,
    /// Its source.
    pub source: String,
    /// The path below the snapshot's root.
    pub path: String,
    /// What is wrong.
    pub problem: String,
}

/// Packs and the bytes in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Amount {
    /// How many packs.
    pub packs: u64,
    /// Their lengths, added up.
    pub bytes: u64,
}

impl Amount {
    pub(super) fn add(&mut self, bytes: u64) {
        self.packs += 1;
        self.bytes += bytes;
    }
}

/// What was looked at and found.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct VerifyReport {
    /// `structure`, `scrub` or `deep`.
    pub depth: &'static str,
    /// Snapshots walked.
    pub snapshots: u64,
    /// Packs looked at.
    pub packs: u64,
    /// Blobs looked at.
    pub blobs: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong.
    pub damaged: Vec<Damage>,
    /// What was healed (by a later version).
    pub healed: Vec<Damage>,
    /// What that breaks; at most [`AFFECTED_KEPT_MAX`] paths by name.
    pub affected: Vec<Affected>,
    /// How many paths it breaks.
    pub affected_count: u64,
    /// Packs that this run proved at this depth.
    pub proved: Amount,
    /// Packs that earlier runs proved at this depth (without one: that were scrubbed) and this one did not read.
    pub proved_before: Amount,
    /// Packs that nobody has proved at this depth, or in which damage was found since.
    pub never_proved: Amount,
    /// When the oldest of these proofs is from (RFC 3339); none without proofs.
    pub oldest_proof: Option<String>,
    /// Likewise in seconds since 1970.
    #[serde(skip)]
    pub oldest_proof_seconds: Option<i64>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// How many broken paths a report names.
pub const AFFECTED_KEPT_MAX: usize = 10_000;

impl VerifyReport {
    /// Adds damage, once for each object.
    pub(super) fn add(&mut self, damage: Damage) {
        if !self.damaged.iter().any(|known| known.object == damage.object) {
            self.damaged.push(damage);
        }
    }
}
