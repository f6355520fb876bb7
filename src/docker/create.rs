//! Creates a volume that did not exist, and knows it.

use super::{Engine, NewVolume, VolumeInfo, check_volume_name};
use crate::error::{Error, ErrorKind, Result};

/// Creates the volume `new` and returns it as the engine then describes it.
///
/// Engines report success for a name that is taken and hand out the old volume. So the name is looked up before
/// (`AlreadyExists`), and what is there afterwards is compared with what was asked for: when somebody else was faster, that
/// volume is left alone and this is `AlreadyExists`, too. On any other error after the request was sent, a volume of that
/// name may exist; it is not removed, since nothing proves whose it is.
pub fn create_volume(engine: &dyn Engine, new: &NewVolume) -> Result<VolumeInfo> {
    check_volume_name(&new.name)?;
    match engine.volume(&new.name) {
        Ok(_) => return Err(exists(&new.name)),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    engine.put_volume(new)?;
    let made = engine.volume(&new.name).map_err(|error| error.hint("the volume may have been created; `docker volume inspect` tells"))?;
    if made.driver != new.driver || made.labels != new.labels || made.options != new.options {
        return Err(exists(&new.name));
    }
    Ok(made)
}

fn exists(name: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, "there is a volume of that name already").on(name).hint("choose another name, or remove it first")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::docker::fake::FakeEngine;
    use std::collections::BTreeMap;

    fn new(name: &str) -> NewVolume {
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        NewVolume { name: name.into(), driver: "local".into(), labels, ..NewVolume::default() }
    }

    #[test]
    fn a_new_volume_has_what_was_asked_for() {
        let engine = FakeEngine::new();
        let made = create_volume(&engine, &new("fresh")).unwrap();
        assert_eq!((made.driver.as_str(), made.labels.get("a").map(String::as_str)), ("local", Some("b")));
        assert_eq!(engine.calls(), ["volume fresh", "put_volume fresh", "volume fresh"]);
    }

    #[test]
    fn an_existing_volume_is_refused_before_anything_is_asked_for() {
        let engine = FakeEngine::new();
        engine.add_volume(VolumeInfo { name: "old".into(), ..VolumeInfo::default() });
        assert_eq!(create_volume(&engine, &new("old")).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(engine.calls(), ["volume old"]);
    }

    #[test]
    fn a_volume_that_appears_between_question_and_request_is_nobody_s_to_take_over() {
        let engine = FakeEngine::new();
        engine
            .before_call(2, |state| state.add_volume(VolumeInfo { name: "raced".into(), driver: "local".into(), ..VolumeInfo::default() }));
        assert_eq!(create_volume(&engine, &new("raced")).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert!(!engine.calls().iter().any(|call| call.starts_with("remove_volume")));
    }

    #[test]
    fn each_failing_call_fails_the_creation_and_an_illegal_name_makes_none() {
        for call in 1..=3 {
            let engine = FakeEngine::new();
            engine.fail_at(call, ErrorKind::Docker);
            assert_eq!(create_volume(&engine, &new("fresh")).unwrap_err().kind(), ErrorKind::Docker, "call {call}");
            assert_eq!(engine.calls().len(), call);
        }
        let engine = FakeEngine::new();
        assert_eq!(create_volume(&engine, &new("../x")).unwrap_err().kind(), ErrorKind::Usage);
        assert!(engine.calls().is_empty());
    }
}
