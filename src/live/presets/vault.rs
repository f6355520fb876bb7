//! Vault and OpenBao with integrated storage: a snapshot of Raft, encrypted by the server as its data are. The keys that
//! unseal it are not in it.

use super::Application;
use super::plan::{Plan, Step, Tool, args};
use super::secret::Secret;
use super::stream::{Ends, Trailer, Verdict};
use crate::docker::ContainerDetail;

/// The compressed archive's first bytes.
const GZIP: &[u8; 2] = b"\x1f\x8b";

/// The length of a tar archive, which gzip's last four bytes tell, is a multiple of this.
const TAR_BLOCK_BYTES: u32 = 512;

/// No snapshot is smaller: a gzip header and trailer and a tar archive with four names.
const BYTES_MIN: u64 = 200;

/// See [`super::Preset::dump`].
pub(super) fn dump(container: &ContainerDetail) -> Plan {
    let arguments = args(&["operator", "raft", "snapshot", "save", "/dev/stdout"]);
    plan(container, Step::tool("save a snapshot", arguments).dumps())
}

/// See [`super::Preset::restore`].
pub(super) fn restore(container: &ContainerDetail) -> Plan {
    // A new cluster has other keys than the snapshot's: only with force does it take it.
    let arguments = args(&["operator", "raft", "snapshot", "restore", "-force", "/dev/stdin"]);
    plan(container, Step::tool("install the snapshot", arguments).reads_dump(false))
}

fn plan(container: &ContainerDetail, step: Step) -> Plan {
    // Without one, the program uses the token of a `vault login` in the container.
    let token = Secret::of_env(container, &["VAULT_TOKEN", "BAO_TOKEN", "VAULT_DEV_ROOT_TOKEN_ID"]);
    Plan {
        application: Application::Vault,
        tool: Tool { names: &["bao", "vault"], version: &["--version"], users: &[None] },
        env: token.map(|token| ("VAULT_TOKEN", token)).into_iter().collect(),
        steps: vec![step],
        trailer: Trailer::GzipTar,
    }
}

/// Whether `ends` can be those of a whole snapshot. The program itself has looked for the archive's last member before it
/// ended well; this finds what was cut off after that.
pub(super) fn judge(ends: &Ends<'_>) -> Verdict {
    if !ends.head.starts_with(GZIP) {
        return Err("it does not begin as a compressed archive".into());
    }
    let length = ends.tail.last_chunk().map_or(1, |length| u32::from_le_bytes(*length));
    if ends.len < BYTES_MIN || length == 0 || length % TAR_BLOCK_BYTES != 0 {
        return Err("it does not end as a compressed archive".into());
    }
    Ok(0)
}
