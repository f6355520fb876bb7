//! etcd: `etcdctl snapshot save` into a temporary file, which is then streamed. Never to `/dev/stdout`: the program renames a
//! file over the path that it is given, and would replace the container's.

use super::Application;
use super::plan::{Plan, Scratch, Step, Tool};
use super::secret::Secret;
use super::stream::{Digest, Ends, Trailer, Verdict};
use crate::docker::ContainerDetail;

const FILE: &str = "etcd.db";

/// The SHA-256 that the server appends to the database.
pub(super) const HASH_BYTES: usize = 32;

/// The database's length is a multiple of this.
const BLOCK_BYTES: u64 = 512;

/// How a dump goes back.
pub(super) const BY_HAND: &str = "with the member stopped, `etcdutl snapshot restore etcd.db --data-dir NEW` (before 3.5 `etcdctl snapshot \
     restore`) makes a new data folder, with the member's --name, --initial-cluster and --initial-advertise-peer-urls where they are \
     set; put it in the place of the old one, for every member of the cluster from the same file";

/// See [`super::Preset::dump`].
pub(super) fn dump(container: &ContainerDetail, token: &str) -> Plan {
    let scratch = Scratch::new(container.env_value("TMPDIR"), token);
    let mut env = vec![("ETCDCTL_API", Secret::value("3"))];
    if let Some(password) = Secret::of_env(container, &["ETCD_ROOT_PASSWORD", "ETCDCTL_PASSWORD"]) {
        // It may be USER:PASSWORD.
        let user = container.env_value("ETCDCTL_USER").and_then(|user| user.split(':').next()).filter(|user| !user.is_empty());
        env.extend([("ETCDCTL_USER", Secret::value(user.unwrap_or("root"))), ("ETCDCTL_PASSWORD", password)]);
    }
    let save = vec!["snapshot".to_owned(), "save".to_owned(), scratch.file(FILE)];
    Plan {
        application: Application::Etcd,
        tool: Tool { names: &["etcdctl"], version: &["version"], users: &[None] },
        env,
        steps: vec![scratch.make(), Step::tool("save a snapshot", save), scratch.stream(FILE), scratch.remove()],
        trailer: Trailer::EtcdHash,
    }
}

/// Whether `ends` are those of a whole snapshot: it ends with the hash of all before.
pub(super) fn judge(ends: &Ends<'_>) -> Verdict {
    let Some((body, stored)) = ends.tail.split_last_chunk::<HASH_BYTES>() else { return Err("it is too short".into()) };
    if ends.len % BLOCK_BYTES != HASH_BYTES as u64 {
        return Err("it does not end with a hash".into());
    }
    match ends.digest {
        Digest::Sha256(hash) if hash.clone().finish_with(body) == *stored => Ok(0),
        _ => Err("the hash at its end is not that of its contents".into()),
    }
}
