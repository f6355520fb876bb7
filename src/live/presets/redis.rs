//! Redis, Valkey and KeyDB: an RDB file of one moment, streamed as to a replica. The server forks for it, as for its own
//! snapshots.

use super::Application;
use super::plan::{Placement, Plan, Step, Tool, args};
use super::secret::Secret;
use super::stream::{Digest, Ends, Trailer, Verdict};
use crate::docker::ContainerDetail;

/// A server that streams without knowing the length marks the end with 40 random hexadecimal digits, and `redis-cli --rdb -`
/// lets them through.
const END_MARK_BYTES: usize = 40;

/// The opcode that ends an RDB file, before its checksum.
const EOF_OPCODE: u8 = 0xff;

/// The checksum's bytes; all zero when the server was told to make none.
const CHECKSUM_BYTES: usize = 8;

/// See [`super::Preset::dump`].
pub(super) fn dump(container: &ContainerDetail) -> Plan {
    let mut arguments = args(&["--rdb", "-"]);
    let is_port = |port: &&str| !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    let port = ["REDIS_PORT_NUMBER", "VALKEY_PORT_NUMBER"].iter().find_map(|name| container.env_value(name).filter(is_port));
    if let Some(port) = port {
        arguments.extend(["-p".to_owned(), port.to_owned()]);
    }
    let password = Secret::of_env(container, &["REDISCLI_AUTH", "REDIS_PASSWORD", "VALKEY_PASSWORD"]);
    Plan {
        application: Application::Redis,
        tool: Tool { names: &["valkey-cli", "redis-cli", "keydb-cli"], version: &["--version"], users: &[None] },
        env: password.map(|password| ("REDISCLI_AUTH", password)).into_iter().collect(),
        steps: vec![Step::tool("take an RDB file", arguments).dumps()],
        trailer: Trailer::Rdb,
    }
}

/// See [`super::Preset::restore`].
pub(super) fn placement() -> Placement {
    Placement {
        file: "dump.rdb".into(),
        remove: args(&["appendonlydir", "appendonly.aof"]),
        notes: "with `appendonly yes` the server ignores the RDB file: start it once with `appendonly no`, then \
                CONFIG SET appendonly yes and wait until INFO says aof_rewrite_in_progress:0",
    }
}

/// Whether `ends` are those of a whole RDB file, and how many bytes after it are the mark.
pub(super) fn judge(ends: &Ends<'_>) -> Verdict {
    if !ends.head.starts_with(b"REDIS") && !ends.head.starts_with(b"VALKEY") {
        return Err("it does not begin as an RDB file".into());
    }
    let fits = |accept: fn(u64, u64) -> bool, mark: usize| -> bool {
        let Some((file, marked)) = ends.tail.split_at_checked(ends.tail.len().saturating_sub(mark)) else { return false };
        let is_mark = marked.len() == mark && marked.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let Some((body, stored)) = file.split_last_chunk::<CHECKSUM_BYTES>() else { return false };
        is_mark && body.ends_with(&[EOF_OPCODE]) && accept(u64::from_le_bytes(*stored), crc(ends.digest, body))
    };
    let good: fn(u64, u64) -> bool = |stored, computed| stored == computed;
    let none: fn(u64, u64) -> bool = |stored, _| stored == 0;
    // A checksum that fits decides; only a server without checksums is believed on less.
    [(good, 0), (good, END_MARK_BYTES), (none, 0), (none, END_MARK_BYTES)]
        .into_iter()
        .find(|(accept, mark)| fits(*accept, *mark))
        .map(|(_, mark)| mark)
        .ok_or_else(|| "it does not end as an RDB file, or its checksum is wrong".into())
}

fn crc(digest: &Digest, body: &[u8]) -> u64 {
    match digest {
        Digest::Crc64(crc) => crc64(*crc, body),
        _ => crc64(0, body),
    }
}

/// The Jones polynomial, bits reversed.
const POLYNOMIAL: u64 = 0x95ac_9329_ac4b_c9b5;

const TABLE: [u64; 256] = table();

const fn table() -> [u64; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// The checksum of RDB files, carried on from `crc`.
pub(super) fn crc64(crc: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(crc, |crc, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_redis_s() {
        assert_eq!(crc64(0, b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        assert_eq!(crc64(crc64(0, b"1234"), b"56789"), 0xe9c6_d914_c4b8_d9ca);
    }
}
