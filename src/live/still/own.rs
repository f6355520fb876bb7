//! Which containers must never be held still: the one that this process runs in, and those that the work itself needs.

use std::collections::BTreeSet;

/// The length of a container's id.
const ID_LEN: usize = 64;

/// How much of its id a container has as its host name, unless it was given one.
const SHORT_ID_LEN: usize = 12;

/// Files that an engine mounts into each of its containers, out of a folder that carries the container's id.
const ENGINE_S_FILES: [&str; 3] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

/// Containers that are left alone, with the reason.
#[derive(Debug, Clone, Default)]
pub struct Untouchable {
    own: BTreeSet<String>,
    host_name: String,
    others: Vec<(String, String)>,
}

impl Untouchable {
    /// The container that this process runs in, if it does, as far as the kernel shows it.
    pub fn own() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let mut own = of_cgroup(&read("/proc/self/cgroup"));
        own.extend(of_mounts(&read("/proc/self/mountinfo")));
        let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { own, host_name, others: Vec::new() }
    }

    /// Adds a container, by its id; `why` completes "it is ...": "the server of the repository".
    pub fn forbid(&mut self, id: impl Into<String>, why: impl Into<String>) {
        self.others.push((id.into(), why.into()));
    }

    /// What the container `id` is that it must be left alone; none when it need not be.
    pub fn why(&self, id: &str) -> Option<&str> {
        let named = self.host_name.len() >= SHORT_ID_LEN && is_hex(&self.host_name) && id.starts_with(&self.host_name);
        if named || self.own.contains(id) {
            return Some("the container that icecore runs in");
        }
        self.others.iter().find(|(other, _)| other == id).map(|(_, why)| why.as_str())
    }
}

/// Ids in the names of the control groups that this process is in.
fn of_cgroup(text: &str) -> BTreeSet<String> {
    ids(text.lines().filter_map(|line| line.splitn(3, ':').nth(2)))
}

/// Ids in the sources of the engine's own files. Only theirs: on the engine's host, mounts of all containers are in the list.
fn of_mounts(text: &str) -> BTreeSet<String> {
    let source = |line: &'_ str| {
        let mut fields = line.split(' ').skip(3);
        let (root, mount_point) = (fields.next()?, fields.next()?);
        ENGINE_S_FILES.contains(&mount_point).then(|| root.to_owned())
    };
    let sources: Vec<String> = text.lines().filter_map(source).collect();
    ids(sources.iter().map(String::as_str))
}

fn ids<'a>(texts: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let words = texts.flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric()));
    words.filter(|word| word.len() == ID_LEN && is_hex(word)).map(str::to_owned).collect()
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const A: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const B: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

    #[test]
    fn a_container_is_found_by_its_control_group() {
        for text in [
            format!("12:pids:/docker/{A}\n0::/system.slice/containerd.service\n"),
            format!("0::/system.slice/docker-{A}.scope\n"),
            format!("0::/machine.slice/libpod-{A}.scope/container\n"),
        ] {
            assert_eq!(of_cgroup(&text), BTreeSet::from([A.to_owned()]), "{text}");
        }
        assert!(of_cgroup("0::/user.slice/user-0.slice/session-1.scope\n0::/\n").is_empty());
    }

    #[test]
    fn a_container_is_found_by_the_engine_s_files_and_the_host_is_in_none() {
        let inside = format!(
            "590 570 0:50 / /dev/shm rw - tmpfs shm rw\n\
             700 569 8:1 /var/lib/docker/containers/{A}/hostname /etc/hostname rw,relatime - ext4 /dev/sda1 rw\n"
        );
        assert_eq!(of_mounts(&inside), BTreeSet::from([A.to_owned()]));
        let host =
            format!("99 25 0:50 / /var/lib/docker/containers/{B}/mounts/shm rw - tmpfs shm rw\n25 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
        assert!(of_mounts(&host).is_empty());
    }

    #[test]
    fn only_a_host_name_made_from_the_id_says_who_we_are() {
        let own = |name: &str| Untouchable { host_name: name.into(), ..Untouchable::default() };
        assert!(own("0123456789ab").why(A).is_some());
        assert!(own("0123456789ab").why(B).is_none());
        for other in ["", "0123456789a", "web", "0123456789xyz"] {
            assert!(own(other).why(A).is_none(), "{other}");
        }
    }

    #[test]
    fn what_the_caller_forbids_has_its_reason() {
        let mut untouchable = Untouchable::own();
        assert_eq!(untouchable.why(A), None);
        untouchable.forbid(A, "the server of the repository");
        assert_eq!(untouchable.why(A), Some("the server of the repository"));
        assert_eq!(untouchable.why(B), None);
    }
}
