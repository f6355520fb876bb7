//! How many snapshots to keep, as a setting: `last=10,daily=14,within=2d,min=3`.

use std::fmt;
use std::time::Duration;

use super::values::{bad, checked, duration, show_duration};
use crate::error::{Error, ErrorKind, Result};

/// No rule keeps more snapshots than this.
const COUNT_MAX: u32 = 1_000_000;
/// No rule keeps longer than this.
const WITHIN_MAX: Duration = Duration::from_secs(100 * 366 * 86_400);

/// The rules that count, in the order in which they are written.
const COUNTED: [&str; 8] = ["last", "minutely", "hourly", "daily", "weekly", "monthly", "yearly", "min"];

/// Rules of retention. What is none is not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keep {
    /// The newest N; then of each of the last N minutes, hours, days, weeks, months, years the newest; then the least number
    /// that stays whatever the other rules say.
    counts: [Option<u32>; COUNTED.len()],
    within: Option<Duration>,
}

impl Keep {
    /// Reads rules separated by commas. At least one is needed: no rules would be a typo, not a wish.
    pub fn parse(text: &str) -> Result<Self> {
        let mut keep = Self::default();
        for rule in checked(text)?.split(',').map(str::trim) {
            let (name, value) = rule.split_once('=').ok_or_else(|| bad(text, "rules such as last=10,daily=14"))?;
            let (name, value) = (name.trim(), value.trim());
            let twice = || Error::new(ErrorKind::Usage, "this rule stands there twice").on(super::values::shown(rule));
            if name == "within" {
                let within = duration(value, &(Duration::from_secs(1)..=WITHIN_MAX))?;
                if keep.within.replace(within).is_some() {
                    return Err(twice());
                }
                continue;
            }
            let Some(at) = COUNTED.iter().position(|known| *known == name) else {
                let error = bad(rule, &format!("a rule: they are {}, within", COUNTED.join(", ")));
                let meant = super::nearest::nearest(name, COUNTED.into_iter().chain(["within"]));
                return Err(meant.map_or(bad(rule, "a rule"), |meant| error.hint(format!("did you mean `{meant}`?"))));
            };
            let digits = (1..=9).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_digit());
            let count: Option<u32> = value.parse().ok().filter(|count| digits && (1..=COUNT_MAX).contains(count));
            let count = count.ok_or_else(|| bad(rule, &format!("a number from 1 to {COUNT_MAX}")))?;
            if keep.counts[at].replace(count).is_some() {
                return Err(twice());
            }
        }
        Ok(keep)
    }

    /// What a counting rule (`last`, `minutely`, ..., `yearly`, `min`) asks for.
    pub fn count(&self, rule: &str) -> Option<u32> {
        COUNTED.iter().position(|known| *known == rule).and_then(|at| self.counts[at])
    }

    /// All younger than this.
    pub fn within(&self) -> Option<Duration> {
        self.within
    }

    /// These rules, none of them less than `least` asks for.
    #[must_use]
    pub fn at_least(&self, least: &Self) -> Self {
        let mut raised = self.clone();
        for (own, least) in raised.counts.iter_mut().zip(least.counts) {
            *own = (*own).max(least);
        }
        raised.within = raised.within.max(least.within);
        raised
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = COUNTED.iter().zip(self.counts).filter_map(|(name, count)| count.map(|count| format!("{name}={count}")));
        let within = self.within.map(|within| format!("within={}", show_duration(within)));
        f.write_str(&counts.chain(within).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_written() {
        let text = "last=10,minutely=1,hourly=24,daily=14,weekly=8,monthly=12,yearly=5,min=3,within=2d";
        let keep = Keep::parse(text).unwrap();
        assert_eq!(keep.to_string(), text);
        assert_eq!((keep.count("hourly"), keep.count("min"), keep.count("x")), (Some(24), Some(3), None));
        assert_eq!(keep.within(), Some(Duration::from_secs(2 * 86_400)));
        assert_eq!(Keep::parse(" daily = 7 , last=1 ").unwrap().to_string(), "last=1,daily=7");
    }

    #[test]
    fn rules_that_are_no_rules_are_refused() {
        for text in [
            "",
            ",",
            "last",
            "last=",
            "last=0",
            "last=-1",
            "last=+1",
            "last=1000001",
            "last=99999999999",
            "last=1,last=2",
            "within=1d,within=2d",
            "within=5",
            "forever=1",
            "last=1;daily=2",
        ] {
            assert_eq!(Keep::parse(text).unwrap_err().kind(), ErrorKind::Usage, "{text}");
        }
        assert_eq!(Keep::parse("dayly=3").unwrap_err().advice(), Some("did you mean `daily`?"));
    }

    #[test]
    fn a_least_retention_raises_only_what_is_lower() {
        let keep = Keep::parse("last=1,weekly=9").unwrap();
        let least = Keep::parse("last=3,daily=7,weekly=2,within=1d").unwrap();
        assert_eq!(keep.at_least(&least).to_string(), "last=3,daily=7,weekly=9,within=1d");
        assert_eq!(keep.at_least(&Keep::default()), keep);
    }
}
