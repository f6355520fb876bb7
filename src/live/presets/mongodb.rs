//! MongoDB: `mongodump --archive`, all databases as one archive. With the oplog of a replica set it is of one moment; a server
//! that stands alone has none, and its collections are each of their own.

use super::Application;
use super::plan::{Input, Plan, Scratch, Step, Tool, Variant, args};
use super::secret::{Secret, Source};
use super::stream::{Ends, Trailer, Verdict};
use crate::docker::ContainerDetail;

/// The variant whose restore replays the oplog.
const WITH_OPLOG: &str = "oplog";

const TERMINATOR: &[u8; 4] = b"\xff\xff\xff\xff";

/// The archive's last document names a collection: no longer than this, in bytes.
const LAST_DOCUMENT_BYTES_MAX: usize = 4096;

/// The field that says that a collection is complete: a boolean, its name, true.
const COLLECTION_ENDS: &[u8] = b"\x08EOF\0\x01";

/// See [`super::Preset::dump`].
pub(super) fn dump(container: &ContainerDetail) -> Plan {
    let config = config(container);
    let plain = |more: &[&str]| {
        // A file for the program, but a pipe in truth: the password is in no list of arguments and on no disk.
        let config = if config.is_some() { &["--config=/dev/stdin"][..] } else { &[] };
        args(&[&["--archive"][..], more, config].concat())
    };
    let mut step = Step::tool("dump all databases", Vec::new()).dumps();
    step.variants = vec![
        Variant { name: WITH_OPLOG, args: plain(&["--oplog"]), warning: None },
        Variant {
            name: "",
            args: plain(&[]),
            warning: Some("the server has no oplog, so the collections of this dump are not of the same moment"),
        },
    ];
    step.input = config.map_or(Input::Nothing, Input::Secret);
    plan(&["mongodump"], vec![step])
}

/// See [`super::Preset::restore`].
pub(super) fn restore(container: &ContainerDetail, variant: &str, token: &str) -> Plan {
    let mut more = args(&["--archive", "--drop", "--stopOnError"]);
    if variant == WITH_OPLOG {
        more.push("--oplogReplay".into());
    }
    let load = |more| Step::tool("load the dump", more).reads_dump(false);
    let Some(config) = config(container) else { return plan(&["mongorestore"], vec![load(more)]) };
    // Stdin is taken, so the password has to be in a file for a while.
    let scratch = Scratch::new(container.env_value("TMPDIR"), token);
    let file = scratch.file("mongo.yaml");
    more.push(format!("--config={file}"));
    let write = Step::system("write the configuration", "dd", vec![format!("of={file}")]).reads(config);
    plan(&["mongorestore"], vec![scratch.make(), write, load(more), scratch.remove()])
}

fn plan(names: &'static [&'static str], steps: Vec<Step>) -> Plan {
    Plan {
        application: Application::MongoDb,
        tool: Tool { names, version: &["--version"], users: &[None] },
        env: Vec::new(),
        steps,
        trailer: Trailer::MongoArchive,
    }
}

/// The connection with the root user that the image was told to make; none where it makes none.
fn config(container: &ContainerDetail) -> Option<Secret> {
    let password = Source::of_env(container, &["MONGO_INITDB_ROOT_PASSWORD", "MONGODB_ROOT_PASSWORD"])?;
    let user = Source::of_env(container, &["MONGO_INITDB_ROOT_USERNAME", "MONGODB_ROOT_USER"]);
    Some(Secret { parts: vec![user.unwrap_or_else(|| Source::Value("root".into())), password], form: yaml })
}

fn yaml(parts: &[String]) -> String {
    let [user, password] = parts else { return String::new() };
    let (user, password) = (percent(user), percent(password));
    // Directly, or the driver would look for the other members under names that this container may not know.
    format!("uri: \"mongodb://{user}:{password}@localhost/?authSource=admin&directConnection=true\"\n")
}

/// A user's name or password as a URL has it.
fn percent(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Whether `ends` are those of a whole dump: an archive ends with the document that ends its last collection.
pub(super) fn judge(ends: &Ends<'_>) -> Verdict {
    let incomplete = || Err("it does not end with the end of a collection".to_owned());
    let Some(archive) = ends.tail.strip_suffix(TERMINATOR) else { return incomplete() };
    let documents = archive.len().saturating_sub(LAST_DOCUMENT_BYTES_MAX)..archive.len();
    let ends_collection = |start: usize| {
        let document = archive.get(start..).unwrap_or_default();
        document.first_chunk().is_some_and(|length| u32::from_le_bytes(*length) as usize == document.len())
            && document.windows(COLLECTION_ENDS.len()).any(|field| field == COLLECTION_ENDS)
    };
    if documents.into_iter().any(ends_collection) { Ok(0) } else { incomplete() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_with_any_character_stays_one_value() {
        let parts = ["root".to_owned(), "a\"b\n: @/%ä".to_owned()];
        assert_eq!(
            yaml(&parts),
            "uri: \"mongodb://root:a%22b%0A%3A%20%40%2F%25%C3%A4@localhost/?authSource=admin&directConnection=true\"\n"
        );
    }
}
