//! Where time comes from, so that tests can set it. Nothing else in the library asks the operating system for the time.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment in UTC: seconds since 1970 (negative before) and nanoseconds 0..999 999 999 after that second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Whole seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, always positive.
    pub nanos: u32,
}

impl Timestamp {
    /// A moment from seconds and nanoseconds; nanoseconds beyond one second are cut to 999 999 999.
    pub fn new(seconds: i64, nanos: u32) -> Self {
        Self { seconds, nanos: nanos.min(999_999_999) }
    }

    /// This moment less `duration`, not before the representable minimum.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        let total = i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanos);
        let total = total - i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX / 4);
        let seconds = i64::try_from(total.div_euclid(1_000_000_000)).unwrap_or(i64::MIN);
        Self { seconds, nanos: u32::try_from(total.rem_euclid(1_000_000_000)).unwrap_or(0) }
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, to the millisecond, or the raw seconds when the year does not fit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::new(self.seconds, i32::try_from(self.nanos).unwrap_or(0)) {
            Ok(moment) => write!(f, "{moment:.3}"),
            Err(_) => write!(f, "{}s", self.seconds),
        }
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self::new(i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_nanos()),
            Err(before) => Self::default().minus(before.duration()),
        }
    }
}

/// Time as the library sees it.
pub trait Clock: Send + Sync {
    /// The wall clock. It may jump; nothing is ever deleted because of it alone.
    fn now(&self) -> Timestamp;
    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The operating system's clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that stands still until it is told to move, for tests.
#[derive(Debug, Default)]
pub struct ManualClock {
    milliseconds: AtomicU64,
}

impl ManualClock {
    /// A clock that reads `seconds` after 1970.
    pub fn at(seconds: u64) -> Self {
        Self { milliseconds: AtomicU64::new(seconds * 1000) }
    }

    /// Moves the clock to `seconds` after 1970, forwards or backwards.
    pub fn set(&self, seconds: u64) {
        self.milliseconds.store(seconds * 1000, Ordering::SeqCst);
    }

    /// Moves the clock forwards.
    pub fn advance(&self, by: Duration) {
        self.milliseconds.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        let milliseconds = self.milliseconds.load(Ordering::SeqCst);
        let nanos = u32::try_from(milliseconds % 1000).unwrap_or(0) * 1_000_000;
        Timestamp::new(i64::try_from(milliseconds / 1000).unwrap_or(i64::MAX), nanos)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.milliseconds.load(Ordering::SeqCst))
    }
}
