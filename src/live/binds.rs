//! Which bind mounts may be captured: folders of this host below a root that the operator allows, after symlinks. Otherwise
//! whoever may write a Compose file could have `/etc` kept, and later put back.

use std::fs;
use std::path::{Path, PathBuf};

use super::values::shown;
use crate::error::{Error, ErrorKind, IoContext, Result};

/// The real path of the folder `source`, if it lies below one of `roots`, themselves included.
pub fn allowed(source: &str, roots: &[PathBuf]) -> Result<PathBuf> {
    let refuse = |why: &str| Error::new(ErrorKind::Usage, why).on(shown(source));
    if roots.is_empty() {
        return Err(refuse("no bind mounts are allowed").hint("allow folders with bind_roots = [...] below [volumes] in the configuration"));
    }
    if !source.starts_with('/') || source.split('/').any(|part| part == "..") {
        return Err(refuse("not an absolute path without `..`"));
    }
    let real = Path::new(source).canonicalize().context(ErrorKind::Source, "cannot find out the real path", shown(source))?;
    // A root that is not there allows nothing.
    let is_below = roots.iter().filter_map(|root| root.canonicalize().ok()).any(|root| root.parent().is_some() && real.starts_with(&root));
    if !is_below {
        let error = refuse("the folder lies outside of the allowed roots");
        let leads = if real == Path::new(source) { String::new() } else { format!("it leads to {}; ", shown(&real.to_string_lossy())) };
        return Err(error.hint(format!("{leads}bind_roots below [volumes] in the configuration says what is allowed")));
    }
    match fs::symlink_metadata(&real).context(ErrorKind::Source, "cannot look at", shown(source))?.is_dir() {
        true => Ok(real),
        false => Err(refuse("not a folder; only folders are captured")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_folders_below_an_allowed_root_pass_whatever_links_lead_there() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        for folder in ["srv/app/data", "srv-other", "etc"] {
            fs::create_dir_all(base.join(folder)).unwrap();
        }
        fs::write(base.join("srv/file"), b"").unwrap();
        symlink(base.join("etc"), base.join("srv/evil")).unwrap();
        symlink(base.join("srv"), base.join("alias")).unwrap();
        let roots = [base.join("srv")];
        let at = |path: &str| base.join(path).display().to_string();
        for path in ["srv", "srv/app", "srv/app/data/", "alias/app"] {
            let real = allowed(&at(path), &roots).unwrap();
            assert!(real.starts_with(base.join("srv")), "{path}");
        }
        for (path, word) in [
            ("srv-other", "outside"),
            ("etc", "outside"),
            ("srv/evil", "outside"),
            ("srv/app/../../etc", "`..`"),
            ("srv/app/..", "`..`"),
            ("srv/file", "not a folder"),
            ("srv/none", "real path"),
        ] {
            let error = allowed(&at(path), &roots).unwrap_err();
            assert!(error.to_string().contains(word), "{path}: {error}");
        }
        assert!(allowed("srv/app", &roots).is_err() && allowed("", &roots).is_err());
        assert!(allowed(&at("srv/evil"), &roots).unwrap_err().advice().unwrap().contains("leads to"));
        assert!(allowed(&at("srv"), &[]).unwrap_err().to_string().contains("no bind mounts are allowed"));
        assert!(allowed(&at("srv"), &[base.join("missing")]).is_err());
        assert!(allowed(&at("srv"), &[PathBuf::from("/")]).is_err(), "everything is not a root");
        assert!(allowed(&at("srv/app"), &[base.join("alias")]).is_ok(), "a root may be a link itself");
    }
}
