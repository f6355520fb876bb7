//! bollard's models to ours. What an engine leaves out gets the value that is safe to assume.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use ::bollard::models::{ContainerInspectResponse, ContainerSummary, ImageInspect, MountPoint, Network, SystemInfo, Volume};

use crate::clock::Timestamp;
use crate::docker::{ContainerDetail, ContainerInfo, EngineInfo, ImageInfo, MountInfo, NetworkInfo, Subnet, VolumeInfo};

pub(super) fn engine_info(address: &str, api_version: String, info: SystemInfo) -> EngineInfo {
    // Each option is a list like `name=seccomp,profile=default`.
    let options = info.security_options.unwrap_or_default();
    let has = |name: &str| options.iter().any(|option| option.split(',').any(|part| part.strip_prefix("name=").unwrap_or(part) == name));
    EngineInfo {
        address: address.to_owned(),
        version: info.server_version.unwrap_or_default(),
        api_version,
        root_dir: info.docker_root_dir.unwrap_or_default(),
        id: info.id.unwrap_or_default(),
        host_name: info.name.unwrap_or_default(),
        operating_system: info.operating_system.unwrap_or_default(),
        rootless: has("rootless"),
        userns_remap: has("userns"),
    }
}

pub(super) fn volume_info(volume: Volume) -> VolumeInfo {
    VolumeInfo {
        name: volume.name,
        driver: volume.driver,
        mountpoint: volume.mountpoint,
        scope: volume.scope.map(|scope| scope.to_string()).unwrap_or_default(),
        labels: sorted(volume.labels),
        options: sorted(volume.options),
        created: volume.created_at.as_deref().and_then(moment),
    }
}

pub(super) fn container_info(container: ContainerSummary) -> ContainerInfo {
    let names = container.names.unwrap_or_default();
    // A link gives a container more names, of the form `/other/alias`.
    let own = names.iter().map(|name| name.trim_start_matches('/')).find(|name| !name.contains('/'));
    let id = container.id.unwrap_or_default();
    ContainerInfo {
        name: own.map_or_else(|| id.clone(), str::to_owned),
        id,
        image: container.image.unwrap_or_default(),
        state: container.state.map(|state| state.to_string()).unwrap_or_default(),
        labels: sorted(container.labels.unwrap_or_default()),
        mounts: container.mounts.unwrap_or_default().into_iter().map(mount_info).collect(),
    }
}

pub(super) fn container_detail(container: ContainerInspectResponse) -> ContainerDetail {
    let state = container.state.unwrap_or_default();
    let config = container.config.unwrap_or_default();
    let running = state.running.unwrap_or_default();
    let health = state.health.and_then(|health| health.status).map(|status| status.to_string());
    let host = container.host_config.unwrap_or_default();
    let policy = host.restart_policy.and_then(|policy| policy.name);
    let networks = container.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let state_name = state.status.map(|status| status.to_string()).unwrap_or_default();
    let started_at = state.started_at.unwrap_or_default();
    ContainerDetail {
        id: container.id.unwrap_or_default(),
        name: container.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        image: config.image.unwrap_or_default(),
        image_id: container.image.unwrap_or_default(),
        running,
        paused: state.paused.unwrap_or_default(),
        pid: state.pid.unwrap_or_default(),
        // A container that never ran has the code 0, too.
        exit_code: state.exit_code.filter(|_| !running && state_name != "created" && !is_zero_time(&started_at)),
        state: state_name,
        started_at,
        health: health.filter(|status| !status.is_empty() && status != "none"),
        env: env(config.env),
        labels: sorted(config.labels.unwrap_or_default()),
        mounts: container.mounts.unwrap_or_default().into_iter().map(mount_info).collect(),
        // A negative number means for ever.
        stop_timeout: config.stop_timeout.map(|seconds| u64::try_from(seconds).map_or(Duration::MAX, Duration::from_secs)),
        restart_policy: policy.map(|policy| policy.to_string()).unwrap_or_default(),
        auto_remove: host.auto_remove.unwrap_or_default(),
        networks: networks.into_keys().collect::<std::collections::BTreeSet<_>>().into_iter().collect(),
        user: config.user.unwrap_or_default(),
        working_dir: config.working_dir.unwrap_or_default(),
        host_name: config.hostname.unwrap_or_default(),
    }
}

/// Go's zero time stands for "never".
fn is_zero_time(text: &str) -> bool {
    text.starts_with("0001-")
}

pub(super) fn image_info(image: ImageInspect) -> ImageInfo {
    let config = image.config.unwrap_or_default();
    ImageInfo {
        id: image.id.unwrap_or_default(),
        repo_tags: image.repo_tags.unwrap_or_default(),
        repo_digests: image.repo_digests.unwrap_or_default(),
        architecture: image.architecture.unwrap_or_default(),
        os: image.os.unwrap_or_default(),
        env: env(config.env),
        labels: sorted(config.labels.unwrap_or_default()),
    }
}

pub(super) fn network_info(network: Network) -> NetworkInfo {
    let ranges = network.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
    NetworkInfo {
        id: network.id.unwrap_or_default(),
        name: network.name.unwrap_or_default(),
        driver: network.driver.unwrap_or_default(),
        scope: network.scope.unwrap_or_default(),
        internal: network.internal.unwrap_or_default(),
        attachable: network.attachable.unwrap_or_default(),
        ipv6: network.enable_ipv6.unwrap_or_default(),
        subnets: ranges
            .into_iter()
            .map(|range| Subnet { subnet: range.subnet.unwrap_or_default(), gateway: range.gateway.unwrap_or_default() })
            .collect(),
        options: sorted(network.options.unwrap_or_default()),
        labels: sorted(network.labels.unwrap_or_default()),
    }
}

/// `KEY=VALUE` texts in their order; one without `=` has no value.
fn env(texts: Option<Vec<String>>) -> Vec<(String, String)> {
    let pair = |text: String| match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (text, String::new()),
    };
    texts.unwrap_or_default().into_iter().map(pair).collect()
}

fn mount_info(mount: MountPoint) -> MountInfo {
    let is_volume = mount.typ.as_deref() == Some("volume");
    MountInfo {
        volume: mount.name.filter(|name| is_volume && !name.is_empty()),
        source: mount.source.unwrap_or_default(),
        destination: mount.destination.unwrap_or_default(),
        // Not knowing must not make a writer look like a reader.
        writable: mount.rw.unwrap_or(true),
    }
}

fn sorted(map: HashMap<String, String>) -> BTreeMap<String, String> {
    map.into_iter().collect()
}

fn moment(text: &str) -> Option<Timestamp> {
    let moment: jiff::Timestamp = text.parse().ok()?;
    let nanos = moment.as_nanosecond();
    let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).ok()?;
    Some(Timestamp::new(seconds, u32::try_from(nanos.rem_euclid(1_000_000_000)).ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn links_do_not_rename_a_container_and_unknown_mounts_can_write() {
        let summary = ContainerSummary {
            names: Some(vec!["/web/alias".into(), "/db".into()]),
            mounts: Some(vec![
                MountPoint { typ: Some("volume".into()), name: Some("v".into()), rw: Some(false), ..MountPoint::default() },
                MountPoint { typ: Some("bind".into()), name: Some("ignored".into()), ..MountPoint::default() },
            ]),
            ..ContainerSummary::default()
        };
        let container = container_info(summary);
        assert_eq!(container.name, "db");
        assert_eq!((container.mounts[0].volume.as_deref(), container.mounts[0].writable), (Some("v"), false));
        assert_eq!((container.mounts[1].volume.as_deref(), container.mounts[1].writable), (None, true));
    }

    #[test]
    fn a_container_is_read_from_old_and_new_answers() {
        let text = r#"{"Id":"ab","Name":"/db","Image":"sha256:1","State":{"Status":"exited","Running":false,"Paused":false,"Pid":0,"ExitCode":137,
            "StartedAt":"2026-11-21T03:29:17.5Z","Health":{"Status":"unhealthy"}},"Config":{"Image":"postgres:15","Env":["A=b=c","X"],
            "Labels":{"l":"m"},"StopTimeout":90,"User":"70","WorkingDir":"/w","Hostname":"h"},"HostConfig":{"RestartPolicy":{"Name":"always"}},
            "NetworkSettings":{"Networks":{"b":{},"a":{}},"Bridge":"","IPAddress":""},
            "Mounts":[{"Type":"volume","Name":"v","Source":"/s","Destination":"/d","RW":true}]}"#;
        let detail = container_detail(serde_json::from_str(text).unwrap());
        assert_eq!((detail.name.as_str(), detail.image.as_str(), detail.image_id.as_str()), ("db", "postgres:15", "sha256:1"));
        assert_eq!((detail.running, detail.exit_code, detail.health.as_deref()), (false, Some(137), Some("unhealthy")));
        assert_eq!(detail.env, [("A".to_owned(), "b=c".to_owned()), ("X".to_owned(), String::new())]);
        assert_eq!((detail.stop_timeout, detail.restart_policy.as_str()), (Some(Duration::from_secs(90)), "always"));
        assert_eq!(
            (detail.networks.as_slice(), detail.mounts[0].volume.as_deref()),
            (["a".to_owned(), "b".to_owned()].as_slice(), Some("v"))
        );

        let text = r#"{"Id":"ab","State":{"Status":"created","ExitCode":0,"StartedAt":"0001-01-01T00:00:00Z","Health":{"Status":"none"}},
            "Config":{"StopTimeout":-1,"Env":null,"Labels":null},"NetworkSettings":{},"Mounts":null,"Future":{"a":[]}}"#;
        let detail = container_detail(serde_json::from_str(text).unwrap());
        assert_eq!((detail.exit_code, detail.health.as_deref(), detail.stop_timeout), (None, None, Some(Duration::MAX)));
    }
}
