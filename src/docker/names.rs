//! What may stand in a URL of the engine: names of volumes, ids and names of containers, references of images. Everything
//! else is refused before a request is made.

use crate::error::{Error, ErrorKind, Result};
use crate::model::path::escape;

/// The longest volume name accepted, in bytes: the local driver makes a directory of that name.
pub const VOLUME_NAME_BYTES_MAX: usize = 255;

/// The longest id or name of a container, and the longest reference of an image, in bytes.
const REFERENCE_BYTES_MAX: usize = 1024;

/// Checks a name against Docker's rule for volumes, `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, so that it can stand in a URL and a path.
pub fn check_volume_name(name: &str) -> Result<()> {
    let bad = |why: &str| {
        Err(Error::new(ErrorKind::Usage, format!("not a legal volume name ({why})")).on(escape(name.as_bytes())).hint(
            "a volume name starts with a letter or digit, goes on with letters, digits, '_', '.' or '-', and has two or more of them",
        ))
    };
    let mut bytes = name.bytes();
    match bytes.next() {
        None => bad("it is empty"),
        Some(first) if !first.is_ascii_alphanumeric() => bad("it starts with neither a letter nor a digit"),
        Some(_) if name.len() < 2 => bad("it is only one character long"),
        Some(_) if name.len() > VOLUME_NAME_BYTES_MAX => bad("it is longer than 255 bytes"),
        Some(_) if !bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) => bad("it has a character that is not allowed"),
        Some(_) => Ok(()),
    }
}

/// Checks that `id` is an id or a name of a container by Docker's rule, `[a-zA-Z0-9][a-zA-Z0-9_.-]*`.
pub fn check_container_id(id: &str) -> Result<()> {
    let legal = id.len() <= REFERENCE_BYTES_MAX
        && id.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if legal { Ok(()) } else { Err(Error::new(ErrorKind::Usage, "not an id or name of a container").on(escape(id.as_bytes()))) }
}

/// Checks that `reference` is an image's id, `NAME[:TAG]` or `NAME@DIGEST`, without anything that a URL would read otherwise.
pub fn check_image_reference(reference: &str) -> Result<()> {
    let part = |part: &str| {
        part.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:@-".contains(&b))
    };
    if reference.len() <= REFERENCE_BYTES_MAX && reference.split('/').all(part) {
        Ok(())
    } else {
        Err(Error::new(ErrorKind::Usage, "not a reference of an image").on(escape(reference.as_bytes())))
    }
}

/// There is no volume `name`, as every implementation says it.
pub fn no_such_volume(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, "there is no such volume").on(escape(name.as_bytes())).hint("`icecore volumes` lists them")
}

/// There is no container `id`, as every implementation says it.
pub fn no_such_container(id: &str) -> Error {
    Error::new(ErrorKind::NotFound, "there is no such container").on(escape(id.as_bytes())).hint("`docker ps -a` lists them")
}

/// There is no image `reference`, as every implementation says it.
pub fn no_such_image(reference: &str) -> Error {
    Error::new(ErrorKind::NotFound, "there is no such image").on(escape(reference.as_bytes())).hint("`docker image ls` lists them")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn volume_names_follow_docker_s_rule() {
        for good in ["ab", "a_", "0.", "app_db-data.v2", &"a".repeat(255)] {
            assert!(check_volume_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "_a", ".a", "-a", "a/b", "../etc", "a b", "aä", "a\n", "a%2fb", "a?x=1", "a:b", &"a".repeat(256)] {
            assert_eq!(check_volume_name(bad).unwrap_err().kind(), ErrorKind::Usage, "{bad}");
        }
    }

    #[test]
    fn ids_of_containers_cannot_change_the_request() {
        for good in ["a", "shop-db-1", "9f86d081884c", "a.b_c"] {
            assert!(check_container_id(good).is_ok(), "{good}");
        }
        for bad in ["", "/db", "..", "a/../b", "a?x", "a#", "a b", "a%2f", "ä", &"a".repeat(1025)] {
            assert_eq!(check_container_id(bad).unwrap_err().kind(), ErrorKind::Usage, "{bad}");
        }
    }

    #[test]
    fn references_of_images_cannot_change_the_request() {
        for good in ["postgres", "postgres:15", "sha256:ab12", "host:5000/team/app@sha256:ab12", "a/b/c:d-e_f.g"] {
            assert!(check_image_reference(good).is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "a/../b", "a/./b", "a?x", "a#b", "a b", "a%2f", &"a".repeat(1025)] {
            assert_eq!(check_image_reference(bad).unwrap_err().kind(), ErrorKind::Usage, "{bad}");
        }
    }
}
