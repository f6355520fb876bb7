//! Progress on standard error while a verb runs: bars on a terminal, a plain line every ten seconds elsewhere. A thread of
//! its own looks at the counters; the verb knows nothing of it.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::render;
use crate::progress::Progress;

/// How often a bar is drawn: often enough to look alive, rarely enough to cost nothing.
const REDRAW: Duration = Duration::from_millis(200);
/// How often a plain line is written; `ICECORE_PROGRESS_SECONDS` says otherwise.
const LINE_SECONDS: f64 = 10.0;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mode {
    /// Not at all.
    Off,
    /// A bar that is drawn over and over.
    Bar,
    /// A plain line, each time that this much time went by.
    Lines(Duration),
}

impl Mode {
    /// Nothing when it is unwanted, a bar on a terminal, lines elsewhere. `seconds` is what `ICECORE_PROGRESS_SECONDS` says.
    pub(super) fn choose(unwanted: bool, seconds: Option<&str>) -> Self {
        if unwanted {
            return Self::Off;
        }
        if std::io::stderr().is_terminal() {
            return Self::Bar;
        }
        let wanted = seconds.and_then(|text| text.parse::<f64>().ok()).filter(|s| s.is_finite() && (0.01..=86_400.0).contains(s));
        Self::Lines(Duration::from_secs_f64(wanted.unwrap_or(LINE_SECONDS)))
    }
}

/// Shows progress until it is dropped.
pub(super) struct Bars {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Bars {
    /// Starts showing the counters of `progress`; `what` names the verb.
    pub(super) fn start(progress: &Arc<Progress>, mode: Mode, what: &str) -> Self {
        let every = match mode {
            Mode::Off => return Self { stop: None, thread: None },
            Mode::Bar => REDRAW,
            Mode::Lines(every) => every,
        };
        let (stop, stopped) = channel();
        let progress = Arc::clone(progress);
        let what = what.to_owned();
        let show = move || {
            let bar = (mode == Mode::Bar).then(|| new_bar(&what));
            let start = Instant::now();
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let counts = Counts::read(&progress);
                match &bar {
                    Some(bar) => draw(bar, &counts, start.elapsed()),
                    // Nobody may read standard error any more; that is no reason to fail.
                    None => drop(writeln!(std::io::stderr(), "icecore: {what}: {}", counts.line(start.elapsed()))),
                }
            }
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
        };
        // Without a thread there is no progress to see, and the verb goes on.
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(show).ok();
        Self { stop: Some(stop), thread }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    bytes: u64,
    bytes_total: u64,
    files: u64,
    files_total: u64,
    stored: u64,
    warnings: u64,
}

impl Counts {
    fn read(progress: &Progress) -> Self {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (bytes, files) = (get(&progress.bytes_done), get(&progress.files_done));
        Self {
            bytes,
            bytes_total: expected(get(&progress.bytes_total), bytes),
            files,
            files_total: expected(get(&progress.files_total), files),
            stored: get(&progress.bytes_stored),
            warnings: progress.warnings_count(),
        }
    }

    /// Seconds that are left, when the total is known and enough was done to tell.
    fn seconds_left(&self, elapsed: Duration) -> Option<f64> {
        let (done, total) = if self.bytes_total > 0 { (self.bytes, self.bytes_total) } else { (self.files, self.files_total) };
        if done == 0 || total < done || elapsed < Duration::from_secs(1) {
            return None;
        }
        Some(elapsed.as_secs_f64() * (total - done) as f64 / done as f64)
    }

    /// How many bytes stand in the source for one that was added to the repository.
    fn ratio(&self) -> Option<f64> {
        (self.stored > 0).then(|| self.bytes as f64 / self.stored as f64)
    }

    fn line(&self, elapsed: Duration) -> String {
        let mut text = render::count(self.files, "file");
        if self.files_total > 0 {
            text.push_str(&format!(" of {}", render::grouped(self.files_total)));
        }
        text.push_str(&format!(", {}", render::size(self.bytes)));
        if self.bytes_total > 0 {
            let percent = u128::from(self.bytes) * 100 / u128::from(self.bytes_total);
            text.push_str(&format!(" of {} ({percent}%)", render::size(self.bytes_total)));
        }
        let rate = self.bytes as f64 / elapsed.as_secs_f64().max(0.001);
        text.push_str(&format!(", {}/s", render::size(rate as u64)));
        if let Some(seconds) = self.seconds_left(elapsed) {
            text.push_str(&format!(", {} left", render::duration(seconds)));
        }
        if let Some(ratio) = self.ratio() {
            text.push_str(&format!(", {} added ({ratio:.1}:1)", render::size(self.stored)));
        }
        if self.warnings > 0 {
            text.push_str(&format!(", {}", render::count(self.warnings, "warning")));
        }
        text
    }
}

/// A total that was exceeded (it is taken from the snapshot before, and the source has grown) tells nothing: 0, unknown.
fn expected(total: u64, done: u64) -> u64 {
    if done > total { 0 } else { total }
}

fn new_bar(what: &str) -> ProgressBar {
    // Hidden until it has its look: a bar draws itself as soon as anything is set.
    let bar = ProgressBar::hidden();
    bar.set_prefix(what.to_owned());
    draw(&bar, &Counts::default(), Duration::ZERO);
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar
}

fn draw(bar: &ProgressBar, counts: &Counts, elapsed: Duration) {
    let (done, total) = if counts.bytes_total > 0 { (counts.bytes, counts.bytes_total) } else { (counts.files, counts.files_total) };
    let template = if total > 0 { "{prefix} {bar:24} {wide_msg}" } else { "{spinner} {prefix} {wide_msg}" };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    if total > 0 {
        bar.set_length(total.max(done));
        bar.set_position(done);
    }
    bar.set_message(counts.line(elapsed));
    bar.tick();
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_is_known_and_nothing_else() {
        let second = Duration::from_secs(2);
        let some = Counts { bytes: 4 << 20, files: 3, ..Counts::default() };
        assert_eq!(some.line(second), "3 files, 4.0 MiB, 2.0 MiB/s");
        let all = Counts { bytes: 4 << 20, bytes_total: 16 << 20, files: 3, files_total: 9, stored: 1 << 20, warnings: 1 };
        assert_eq!(all.line(second), "3 files of 9, 4.0 MiB of 16.0 MiB (25%), 2.0 MiB/s, 6.0 s left, 1.0 MiB added (4.0:1), 1 warning");
        assert_eq!(Counts::default().line(Duration::ZERO), "0 files, 0 B, 0 B/s");
    }

    #[test]
    fn a_total_that_was_exceeded_is_not_shown() {
        let progress = Progress::new();
        Progress::add(&progress.bytes_total, 10);
        Progress::add(&progress.files_total, 2);
        Progress::add(&progress.bytes_done, 10);
        assert_eq!(Counts::read(&progress).line(Duration::from_secs(2)), "0 files of 2, 10 B of 10 B (100%), 5 B/s, 0.0 s left");
        Progress::add(&progress.bytes_done, 10);
        assert_eq!(Counts::read(&progress).line(Duration::from_secs(2)), "0 files of 2, 20 B, 10 B/s");
    }

    #[test]
    fn the_interval_can_be_set_within_reason() {
        for (seconds, expected) in
            [(None, 10.0), (Some("0.5"), 0.5), (Some("0"), 10.0), (Some("nan"), 10.0), (Some("x"), 10.0), (Some("1e300"), 10.0)]
        {
            match Mode::choose(false, seconds) {
                Mode::Lines(every) => assert_eq!(every, Duration::from_secs_f64(expected), "{seconds:?}"),
                Mode::Bar => {}
                Mode::Off => panic!("off"),
            }
        }
        assert_eq!(Mode::choose(true, Some("1")), Mode::Off);
    }

    #[test]
    fn dropping_ends_the_thread_at_once() {
        let bars = Bars::start(&Arc::new(Progress::new()), Mode::Lines(Duration::from_secs(3600)), "test");
        let start = Instant::now();
        drop(bars);
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}
