//! Where an engine is, as people write it.

use crate::error::{Error, ErrorKind, Result};
use crate::model::path::escape;

/// Brings an address to the form `unix://PATH` or `tcp://HOST:PORT`; refuses what can't be spoken, most of all TLS, which
/// must never silently become plain text.
pub(super) fn parse_address(text: &str, tls: bool) -> Result<String> {
    let refuse = |why: &str, hint: &str| Err(Error::new(ErrorKind::Unsupported, why).on(escape(text.as_bytes())).hint(hint));
    let on_the_host = "run icecore on the engine's own host, as root";
    if text.starts_with('/') {
        return Ok(format!("unix://{text}"));
    }
    match text.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => Ok(text.to_owned()),
        Some(("tcp" | "http", host)) if !host.is_empty() && !tls => Ok(format!("tcp://{host}")),
        Some(("tcp" | "http" | "https", host)) if !host.is_empty() => {
            refuse("this build cannot reach a container engine over TLS", on_the_host)
        }
        Some(("ssh", _)) => refuse("this build cannot reach a container engine over ssh", on_the_host),
        _ => Err(Error::new(ErrorKind::Usage, "not an address of a container engine")
            .on(escape(text.as_bytes()))
            .hint("write unix:///path/to/docker.sock or tcp://host:port")),
    }
}
