//! `icecore diff`

use clap::Args;
use serde::Serialize;

use super::exit::Outcome;
use super::ls::lossless;
use super::{Context, open, render};
use crate::error::Result;
use crate::ops;
use crate::ops::diff::{Change, Difference};

#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// The older snapshot
    old: String,
    /// The newer snapshot
    new: String,
}

#[derive(Serialize)]
struct Head {
    old: String,
    new: String,
}

#[derive(Serialize)]
struct ChangeFact {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    change: Change,
    old_size: Option<u64>,
    new_size: Option<u64>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Counts {
    added: u64,
    removed: u64,
    content: u64,
    metadata: u64,
    kind: u64,
}

#[derive(Serialize)]
struct Tail {
    counts: Counts,
}

pub(super) fn run(args: &DiffArgs, context: &mut Context) -> Result<Outcome> {
    let repo = open::repository(context)?;
    let all = context.snapshots(&repo)?.0;
    let old = context.selector(&all)?.snapshot(&args.old)?;
    let new = context.selector(&all)?.snapshot(&args.new)?;
    context.out.begin_list(&Head { old: old.id.to_string(), new: new.id.to_string() }, "changes")?;
    let mut counts = Counts::default();
    let out = &mut context.out;
    ops::diff::diff(&repo, &old.record, &new.record, &context.progress, &mut |difference| {
        counts.count(difference.change);
        out.item(&fact(difference), || line(difference))
    })?;
    let summary = format!(
        "{} added, {} removed, {} with other content, {} with other metadata, {} of another kind\n",
        counts.added, counts.removed, counts.content, counts.metadata, counts.kind
    );
    context.out.end_list(&Tail { counts }, || summary)?;
    Ok(Outcome::Done)
}

impl Counts {
    fn count(&mut self, change: Change) {
        *match change {
            Change::Added => &mut self.added,
            Change::Removed => &mut self.removed,
            Change::Content => &mut self.content,
            Change::Metadata => &mut self.metadata,
            Change::Kind => &mut self.kind,
        } += 1;
    }
}

fn fact(difference: &Difference) -> ChangeFact {
    let (path, path_hex) = lossless(difference.path.as_bytes());
    ChangeFact { path, path_hex, change: difference.change, old_size: difference.old_size, new_size: difference.new_size }
}

fn line(difference: &Difference) -> String {
    let sign = match difference.change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Content => 'M',
        Change::Metadata => 'm',
        Change::Kind => 'T',
    };
    let sizes = match (difference.old_size, difference.new_size) {
        (Some(old), Some(new)) if old != new => format!("  ({} -> {})", render::size(old), render::size(new)),
        (None, Some(size)) | (Some(size), None) => format!("  ({})", render::size(size)),
        _ => String::new(),
    };
    format!("{sign} {}{sizes}", difference.path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::TreePath;

    #[test]
    fn a_line_shows_how_an_entry_differs() {
        let difference = |change, old_size, new_size| Difference { path: TreePath::parse(b"a/b\n").unwrap(), change, old_size, new_size };
        for (difference, expected) in [
            (difference(Change::Added, None, Some(2048)), "+ a/b\\n  (2.0 KiB)"),
            (difference(Change::Removed, Some(1), None), "- a/b\\n  (1 B)"),
            (difference(Change::Content, Some(1024), Some(2048)), "M a/b\\n  (1.0 KiB -> 2.0 KiB)"),
            (difference(Change::Content, Some(5), Some(5)), "M a/b\\n"),
            (difference(Change::Metadata, Some(5), Some(5)), "m a/b\\n"),
            (difference(Change::Kind, None, None), "T a/b\\n"),
        ] {
            assert_eq!(line(&difference), expected);
            let mut counts = Counts::default();
            counts.count(difference.change);
            assert_eq!(counts.added + counts.removed + counts.content + counts.metadata + counts.kind, 1);
        }
    }
}
