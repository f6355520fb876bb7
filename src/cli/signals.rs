//! SIGINT and SIGTERM: the first asks the running verb to stop at its next safe point, the second ends the process at
//! once. Both are safe: what was not committed is not listed, and what was committed stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::exit::INTERRUPTED;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::progress::Progress;

/// While a question waits for its answer nothing is under way, so one signal is enough.
static ASKING: AtomicBool = AtomicBool::new(false);

/// Starts listening.
pub(super) fn listen(progress: &Arc<Progress>) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context(ErrorKind::Usage, "cannot listen", "signals")?;
    let progress = Arc::clone(progress);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for (count, _) in signals.forever().enumerate() {
                if count > 0 || ASKING.load(Ordering::SeqCst) {
                    std::process::exit(i32::from(INTERRUPTED));
                }
                progress.request_stop();
            }
        })
        .map(drop)
        .map_err(|cause| Error::new(ErrorKind::Usage, "cannot start a thread for signals").because(cause))
}

/// Runs `ask`, during which a signal ends the process at once.
pub(super) fn while_asking<T>(ask: impl FnOnce() -> T) -> T {
    ASKING.store(true, Ordering::SeqCst);
    let answer = ask();
    ASKING.store(false, Ordering::SeqCst);
    answer
}
