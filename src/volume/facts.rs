//! What the engine knows of a volume, as it goes into the snapshot's record.

use crate::docker::secrets::mask_options;
use crate::docker::{EngineInfo, VolumeInfo};
use crate::model::manifest::{VolumeFacts, VolumeUser};

/// The name of the one reader that there is: the engine's folder on this host.
const HOST_READER: &str = "host";

/// The facts of `volume` for its record. With `mask` the secrets among its options are hidden; without, the record may only
/// go into an encrypted repository, and has to be masked before it is shown.
pub fn facts(info: &EngineInfo, volume: &VolumeInfo, users: Vec<VolumeUser>, mask: bool) -> VolumeFacts {
    let options = volume.options.iter();
    VolumeFacts {
        driver: volume.driver.clone(),
        options: if mask {
            mask_options(options.map(|(name, value)| (name.as_str(), value.as_str())))
        } else {
            options.map(|(name, value)| (name.clone(), value.clone())).collect()
        },
        labels: volume.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        scope: volume.scope.clone(),
        users,
        engine: info.version.clone(),
        reader: HOST_READER.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn secrets_are_in_the_facts_only_when_asked_for() {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>();
        let volume = VolumeInfo {
            name: "nas".into(),
            driver: "local".into(),
            scope: "local".into(),
            labels: map(&[("z", "1"), ("a", "2")]),
            options: map(&[("type", "cifs"), ("o", "username=u,password=p"), ("api-token", "t")]),
            ..VolumeInfo::default()
        };
        let info = EngineInfo { version: "20.10".into(), ..EngineInfo::default() };
        let pairs = |list: &[(String, String)]| list.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ");
        let masked = facts(&info, &volume, Vec::new(), true);
        assert_eq!(pairs(&masked.options), "api-token=*** o=username=u,password=*** type=cifs");
        assert_eq!(pairs(&masked.labels), "a=2 z=1");
        assert_eq!((masked.engine.as_str(), masked.reader.as_str(), masked.driver.as_str()), ("20.10", "host", "local"));
        assert_eq!(pairs(&facts(&info, &volume, Vec::new(), false).options), "api-token=t o=username=u,password=p type=cifs");
    }
}
