//! Hides secrets in volume options before they are shown or stored in clear. Errs on the side of hiding: what is hidden here
//! is only for people to read, nothing is ever recreated from it.

/// What stands in the place of a secret.
pub const MASK: &str = "***";

/// Words that make a key secret wherever they occur in it, in lower case.
const SECRET_WORDS: [&str; 6] = ["passw", "passphrase", "secret", "token", "key", "credential"];

/// The options with the values of secrets replaced by [`MASK`], sorted by name: whole values of options whose name looks
/// secret, and within any value the secret parts of a mount's comma-separated list and of a URL (`//user:secret@host`).
pub fn mask_options<'a>(options: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<(String, String)> {
    let mut masked: Vec<_> = options.into_iter().map(|(name, value)| (name.to_owned(), mask_option(name, value))).collect();
    masked.sort();
    masked
}

fn mask_option(name: &str, value: &str) -> String {
    if is_secret(name) {
        return MASK.to_owned();
    }
    mount_options(value).into_iter().map(mask_mount_option).collect::<Vec<_>>().join(",")
}

/// One `key=value` or flag of a mount's option list.
fn mask_mount_option(part: &str) -> String {
    match part.split_once('=') {
        Some((key, _)) if is_secret(key) => format!("{key}={MASK}"),
        // mount.cifs takes `user=name%password`, too.
        Some((key, value)) if key.trim().to_ascii_lowercase().starts_with("user") && value.contains('%') => {
            let name = value.split('%').next().unwrap_or_default();
            format!("{key}={name}%{MASK}")
        }
        _ => mask_url(part),
    }
}

/// Hides the password in `//user:password@`. The last `@` ends it: a password may hold one that nobody escaped.
fn mask_url(part: &str) -> String {
    let Some(start) = part.find("//").map(|at| at + 2) else { return part.to_owned() };
    let rest = &part[start..];
    match rest.find(':').zip(rest.rfind('@')) {
        Some((colon, at)) if colon < at => format!("{}{}:{MASK}{}", &part[..start], &rest[..colon], &rest[at..]),
        _ => part.to_owned(),
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.trim().to_ascii_lowercase();
    key == "pass" || key == "pwd" || SECRET_WORDS.iter().any(|word| key.contains(word))
}

/// Splits a mount's option list at its commas, but not at doubled ones (how mount.cifs writes a comma in a password) and not
/// within double quotes: otherwise the tail of a password would pass for an option of its own.
fn mount_options(value: &str) -> Vec<&str> {
    let bytes = value.as_bytes();
    let (mut parts, mut start, mut at, mut quoted) = (Vec::new(), 0, 0, false);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => quoted = !quoted,
            b',' if !quoted && bytes.get(at + 1) == Some(&b',') => at += 1,
            b',' if !quoted => {
                parts.push(&value[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    parts.push(&value[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_and_the_rest_is_not() {
        for (name, value, expected) in [
            ("type", "nfs", "nfs"),
            ("device", ":/exports/data", ":/exports/data"),
            ("device", "//server/share", "//server/share"),
            ("o", "addr=10.0.0.2,rw,nfsvers=4", "addr=10.0.0.2,rw,nfsvers=4"),
            ("o", "username=u,password=p,rw", "username=u,password=***,rw"),
            ("o", "USERNAME=u,PassWord=p=q", "USERNAME=u,PassWord=***"),
            ("o", "pass=p,password2=q,passwd=r, pwd=s", "pass=***,password2=***,passwd=***, pwd=***"),
            ("o", "password=a,,b,rw", "password=***,rw"),
            ("o", "password=\"a,b\",rw", "password=***,rw"),
            ("o", "password=\"a,b", "password=***"),
            ("o", "user=dom/u%p,ro", "user=dom/u%***,ro"),
            ("o", "credentials=/root/.smb", "credentials=***"),
            ("o", "s3_secret=x,api_token=y,AccessKeyId=z", "s3_secret=***,api_token=***,AccessKeyId=***"),
            ("o", "password", "password"),
            ("o", "", ""),
            ("device", "https://u:p@q@host/dav", "https://u:***@host/dav"),
            ("device", "http://host:8080/dav", "http://host:8080/dav"),
            ("API-Key", "abc,def", "***"),
            ("sshfs.password", "p", "***"),
            ("o", "naïve=ü,password=ß", "naïve=ü,password=***"),
        ] {
            assert_eq!(mask_options([(name, value)]), [(name.to_owned(), expected.to_owned())]);
        }
    }

    #[test]
    fn options_come_out_sorted() {
        let names: Vec<_> = mask_options([("type", "x"), ("device", "y"), ("o", "z")]).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["device", "o", "type"]);
    }
}
