//! What an icecore that died left paused or stopped is put right before anything else, whatever the verb. Nothing of it can
//! fail the verb: one that needs the engine finds out by itself.

use super::{Context, exit, open, render};
use crate::live::still::hold::Retry;
use crate::live::still::journal::Act;
use crate::live::still::recover::{Undone, recover};

pub(super) fn undo(context: &Context) {
    // Without a place for it there is nothing left in it, and the verb says what is wrong.
    let Ok(state_dir) = open::host_state_dir(&context.globals) else { return };
    let found = recover(&state_dir, &|address| open::engine_at(Some(address)), &*context.clock, &Retry::default());
    for undone in &found.undone {
        context.warn(&line(undone));
    }
    for problem in &found.problems {
        let hint = problem.advice().map(|hint| format!("; {hint}")).unwrap_or_default();
        context.warn(&exit::printable(&format!("{problem}{hint}")));
    }
}

fn line(undone: &Undone) -> String {
    let (name, process) = (render::name(&undone.name), undone.process);
    match undone.act {
        Act::Pause => format!("the container {name} was left paused by an icecore that died (process {process}); it is thawed now"),
        Act::Stop => format!("the container {name} was left stopped by an icecore that died (process {process}); it is started now"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_undone_is_said_in_words_that_cannot_steer_a_terminal() {
        let undone = |act| Undone { name: "db\x1b[2J".into(), act, process: 17 };
        assert_eq!(
            line(&undone(Act::Pause)),
            "the container db\\u{1b}[2J was left paused by an icecore that died (process 17); it is thawed now"
        );
        assert!(line(&undone(Act::Stop)).ends_with("it is started now"));
    }
}
