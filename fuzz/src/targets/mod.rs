//! What the fuzz targets run: one function per parser. Each takes any bytes, never panics on them, and returns whether the
//! parser accepted them; what a parser accepts must come back the same when it is written and read again.
//!
//! The libFuzzer targets and the test that mutates the seeds both use these functions. Where the format has a checksum the
//! functions compute it anew, or no mutation would ever get behind it.

mod packs;
mod records;
mod store;
mod text;

/// A target.
pub type Target = fn(&[u8]) -> bool;

/// Every target by name. The seeds of each are in `fuzz/seeds/NAME`.
pub const TARGETS: &[(&str, Target)] = &[
    ("config", records::config),
    ("delta", records::delta),
    ("envelope", records::envelope),
    ("journal", records::journal),
    ("key", text::key),
    ("node", records::node),
    ("pack", packs::pack),
    ("pack_header", packs::header),
    ("pack_index", packs::index),
    ("pack_trailer", packs::trailer),
    ("settings", text::settings),
    ("slot", records::slot),
    ("snapshot", records::snapshot),
    ("snapshot_name", text::snapshot_name),
    ("source", text::source),
    ("stat_record", records::stat_record),
    ("store", store::store),
    ("time", text::time),
    ("tree_path", text::tree_path),
    ("undelta", packs::undelta),
    ("verified", records::verified),
    ("xattrs", records::xattrs),
];

/// Runs the target called `name`.
///
/// # Panics
/// When there is no such target, or the target finds something wrong.
pub fn run(name: &str, input: &[u8]) -> bool {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of this name");
    target(input)
}

pub use store::{END, PLACE};

/// The repository that all inputs belong to.
pub const REPOSITORY: icecore::model::RepositoryId = icecore::model::RepositoryId([7; 16]);
