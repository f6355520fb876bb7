//! Finds and reads the configuration file, with a bound on its size and a look at who may write it.

use std::fs::{File, Metadata};
use std::io::{ErrorKind as IoKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::{open, render};
use super::{Settings, parse};
use crate::error::{Error, ErrorKind, IoContext, Result};

/// No configuration file is longer; a file that is was named by mistake.
pub(super) const CONFIG_BYTES_MAX: u64 = 64 << 10;

/// The file that is used when none is named; none for a user without a home.
pub(super) fn default_file() -> Option<PathBuf> {
    open::default_folder("/etc/icecore", "XDG_CONFIG_HOME", ".config").ok().map(|folder| folder.join("icecore.toml"))
}

/// Whether the default file is there. Where the user may not even look (a service that kept the home folder of root), there
/// is none for them, and every command failing over it would help nobody; one that is there and cannot be read is an error.
pub(super) fn exists(path: &Path) -> bool {
    match std::fs::metadata(path) {
        Ok(_) => true,
        Err(cause) => {
            if !matches!(cause.kind(), IoKind::NotFound | IoKind::NotADirectory) {
                tracing::warn!("cannot look for the configuration file {}: {cause}", render::path(path));
            }
            false
        }
    }
}

pub(super) fn load(path: &Path) -> Result<Settings> {
    let cannot = "cannot read the configuration file";
    let file = File::open(path).context(ErrorKind::Usage, cannot, render::path(path))?;
    // Of the open file, so that it cannot be another one than the one that is read.
    let facts = file.metadata().context(ErrorKind::Usage, cannot, render::path(path))?;
    let mut bytes = Vec::new();
    file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes).context(ErrorKind::Usage, cannot, render::path(path))?;
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        return Err(
            Error::new(ErrorKind::Usage, format!("the configuration file has more than {CONFIG_BYTES_MAX} bytes")).on(render::path(path))
        );
    }
    let text = String::from_utf8(bytes)
        .map_err(|cause| Error::new(ErrorKind::Usage, "the configuration file is not UTF-8").on(render::path(path)).because(cause))?;
    let settings = parse(path, &text)?;
    if settings.secret.password_command.is_some() {
        check_author(path, &facts)?;
    }
    Ok(settings)
}

/// Refuses a file that somebody else can write: the command in it runs as this user, who may be root.
fn check_author(path: &Path, facts: &Metadata) -> Result<()> {
    let me = rustix::process::geteuid().as_raw();
    let refuse = |why: String, hint: &str| Err(Error::new(ErrorKind::Usage, why).on(render::path(path)).hint(hint));
    if facts.uid() != 0 && facts.uid() != me {
        return refuse(
            format!("the configuration file names a password_command and belongs to another user (uid {})", facts.uid()),
            "it would run that user's command; make the file your own with chown",
        );
    }
    if facts.mode() & 0o022 != 0 {
        return refuse(
            format!("the configuration file names a password_command and others can write it (mode {:03o})", facts.mode() & 0o777),
            "it would run whatever they put there; take that away with: chmod go-w FILE",
        );
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::super::tests::file;
    use super::*;

    #[test]
    fn what_is_no_configuration_is_refused_before_it_is_read_whole() {
        let (_dir, path) = file("");
        let kind = || load(&path).unwrap_err().to_string();
        std::fs::write(&path, vec![b'\n'; CONFIG_BYTES_MAX as usize]).unwrap();
        assert!(load(&path).is_ok());
        std::fs::write(&path, vec![b'\n'; CONFIG_BYTES_MAX as usize + 1]).unwrap();
        assert!(kind().contains("more than 65536 bytes"));
        assert!(load(Path::new("/dev/zero")).is_err());
        std::fs::write(&path, b"repository = '\xff'").unwrap();
        assert!(kind().contains("not UTF-8"));
        std::fs::write(&path, format!("repository = {}", "[".repeat(60_000))).unwrap();
        assert!(kind().contains("not TOML"), "nesting has an end");
    }

    #[test]
    fn a_command_is_taken_only_from_a_file_that_nobody_else_can_write() {
        let (_dir, path) = file("password_command = 'pass icecore'");
        let with = |mode| {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            load(&path).map(|settings| settings.secret.password_command)
        };
        for mode in [0o600, 0o644, 0o700] {
            assert_eq!(with(mode).unwrap().as_deref(), Some("pass icecore"), "{mode:o}");
        }
        for mode in [0o620, 0o602, 0o666] {
            let error = with(mode).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.to_string().contains(&format!("{mode:o}")), "{error}");
            assert!(error.advice().unwrap().contains("chmod"));
        }
        // Only root can give a file away, and then it is another user's.
        if std::os::unix::fs::chown(&path, Some(12_345), None).is_ok() && rustix::process::geteuid().is_root() {
            assert!(with(0o600).unwrap_err().to_string().contains("uid 12345"));
            std::os::unix::fs::chown(&path, Some(0), None).unwrap();
        }
        std::fs::write(&path, "password_file = '/p'").unwrap();
        assert_eq!(with(0o666).unwrap(), None, "a file without a command may be everybody's");
    }
}
