//! What many snapshots of one busy file add up to. A delta holds all that changed since its base, so it grows from snapshot
//! to snapshot until a new base is stored: by how much smaller a delta must be than plain compression, and by how long
//! chunks are, that costs more or less.

use std::path::Path;

use crate::Failure;
use crate::parts::Random;
use crate::stages::{Shape, Stages};

const PAGE: usize = 8 << 10;
const FILE_BYTES_MAX: u64 = 64 << 20;
const SNAPSHOTS: usize = 100;
/// Pages that are written to between two snapshots.
const TOUCHES: usize = 150;

/// The sum for one average and one share.
pub(crate) struct History {
    pub(crate) shape: Shape,
    pub(crate) smaller: usize,
    /// Bytes stored for a page that was written to, without metadata.
    pub(crate) bytes_per_touch: f64,
    /// Of all encoded chunks, those that became a new base.
    pub(crate) bases_share: f64,
}

struct Chunk {
    at: std::ops::Range<usize>,
    base: Vec<u8>,
    touched: bool,
}

/// Takes the longest of `files` and writes to random pages of it in memory as a database does: a new log position in the
/// page's header, a few new bytes in one place, a row copied to another.
pub(crate) fn run(
    folder: &Path,
    files: &[std::path::PathBuf],
    shape: Shape,
    smaller: usize,
    level: i32,
) -> Result<Option<History>, Failure> {
    let mut lengths = Vec::new();
    for file in files {
        lengths.push((std::fs::metadata(folder.join(file))?.len(), file));
    }
    let Some((len, file)) = lengths.into_iter().max() else { return Ok(None) };
    if len < (1 << 20) {
        return Ok(None);
    }
    let mut bytes = vec![0; len.min(FILE_BYTES_MAX) as usize / PAGE * PAGE];
    std::io::Read::read_exact(&mut std::fs::File::open(folder.join(file))?, &mut bytes)?;

    let mut stages = Stages::new();
    let (mut chunks, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let len = stages.cut(&shape, &bytes[at..]);
        chunks.push(Chunk { at: at..at + len, base: bytes[at..at + len].to_vec(), touched: false });
        at += len;
    }
    let mut random = Random::new(7);
    let (mut stored, mut encoded, mut bases) = (0, 0, 0);
    for _ in 0..SNAPSHOTS {
        for _ in 0..TOUCHES {
            let page = random.below(bytes.len() / PAGE) * PAGE;
            touch(&mut bytes[page..page + PAGE], &mut random);
            let first = chunks.partition_point(|chunk| chunk.at.end <= page);
            chunks[first..].iter_mut().take_while(|chunk| chunk.at.start < page + PAGE).for_each(|chunk| chunk.touched = true);
        }
        for chunk in chunks.iter_mut().filter(|chunk| chunk.touched) {
            chunk.touched = false;
            let raw = &bytes[chunk.at.clone()];
            let plain = stages.encode(raw, level)?;
            let delta = stages.delta(raw, &chunk.base)?.unwrap_or(usize::MAX);
            encoded += 1;
            if delta.saturating_mul(smaller) < plain {
                stored += delta;
            } else {
                stored += plain;
                bases += 1;
                chunk.base.copy_from_slice(raw);
            }
        }
    }
    Ok(Some(History {
        shape,
        smaller,
        bytes_per_touch: stored as f64 / (SNAPSHOTS * TOUCHES) as f64,
        bases_share: f64::from(bases) / f64::from(encoded),
    }))
}

fn touch(page: &mut [u8], random: &mut Random) {
    page[..8].copy_from_slice(&random.next().to_le_bytes());
    let at = 24 + random.below(PAGE - 24 - 8);
    page[at..at + 8].copy_from_slice(&random.next().to_le_bytes());
    let (from, to) = (24 + random.below(PAGE - 256), 24 + random.below(PAGE - 256));
    page.copy_within(from..from + 100, to);
}
