//! When snapshots are wanted, as a setting: the five fields of cron, a word such as `@daily`, or `every 10m`.

use std::fmt;
use std::time::Duration;

use super::values::{bad, checked, duration};
use crate::error::Result;

/// The shortest and the longest interval.
const EVERY: std::ops::RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(366 * 86_400);

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Words for whole lines of cron.
const WORDS: [(&str, &str); 6] = [
    ("@yearly", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// When snapshots are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// As it was written.
    text: String,
    /// What it means.
    pub times: Times,
}

/// The times of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// At this interval.
    Every(Duration),
    /// When the clock matches.
    Cron(Cron),
}

/// The minutes that a line of cron means: bit N of a field is set when N is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cron {
    /// 0 to 59.
    pub minutes: u64,
    /// 0 to 23.
    pub hours: u64,
    /// 1 to 31.
    pub days: u64,
    /// 1 to 12.
    pub months: u64,
    /// 0 (Sunday) to 6.
    pub weekdays: u64,
    /// Days of the month and weekdays are both restricted; then, as in cron, either of them is enough.
    pub either_day: bool,
}

impl Schedule {
    /// Reads a schedule.
    pub fn parse(text: &str) -> Result<Self> {
        let line = checked(text)?.to_ascii_lowercase();
        let times = if let Some(interval) = line.strip_prefix("every ").or_else(|| line.strip_prefix("@every ")) {
            Times::Every(duration(interval, &EVERY)?)
        } else {
            let line = WORDS.iter().find(|(word, _)| *word == line).map_or(line.as_str(), |(_, line)| line);
            let cron = cron(line).ok_or_else(|| {
                bad(text, "a schedule")
                    .hint("write five fields of cron (\"30 3 * * *\"), @hourly, @daily, @weekly, @monthly, @yearly, or every 10m")
            })?;
            Times::Cron(cron)
        };
        Ok(Self { text: checked(text)?.to_owned(), times })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn cron(line: &str) -> Option<Cron> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [minutes, hours, days, months, weekdays] = fields[..] else { return None };
    let weekday_bits = field(weekdays, 0, 7, &WEEKDAYS)?;
    Some(Cron {
        minutes: field(minutes, 0, 59, &[])?,
        hours: field(hours, 0, 23, &[])?,
        days: field(days, 1, 31, &[])?,
        months: field(months, 1, 12, &MONTHS)?,
        // Sunday is 0 and 7.
        weekdays: (weekday_bits | weekday_bits >> 7) & 0x7f,
        either_day: !days.starts_with('*') && !weekdays.starts_with('*'),
    })
}

/// One field: parts separated by commas, each `*`, a number, a name or a range, and a step if one follows after `/`.
fn field(text: &str, least: u32, most: u32, names: &[&str]) -> Option<u64> {
    text.split(',').try_fold(0, |bits, part| Some(bits | part_bits(part, least, most, names)?))
}

fn part_bits(part: &str, least: u32, most: u32, names: &[&str]) -> Option<u64> {
    let value = |text: &str| match names.iter().position(|name| *name == text) {
        Some(at) => u32::try_from(at).ok().map(|at| at + least),
        None => number(text),
    };
    let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
    let (first, last) = match range.split_once('-') {
        _ if range == "*" => (least, most),
        Some((first, last)) => (value(first)?, value(last)?),
        // As in cron: `5/10` goes on to the end.
        None => (value(range)?, if step.is_some() { most } else { value(range)? }),
    };
    let step = step.map_or(Some(1), number)?;
    if first < least || last > most || first > last || step == 0 {
        return None;
    }
    Some((first..=last).step_by(usize::try_from(step).ok()?).fold(0, |bits, at| bits | 1 << at))
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn cron_of(text: &str) -> Cron {
        let cron = match Schedule::parse(text).unwrap().times {
            Times::Cron(cron) => Some(cron),
            Times::Every(_) => None,
        };
        cron.unwrap()
    }

    #[test]
    fn lines_of_cron_are_understood() {
        let daily = cron_of("@daily");
        assert_eq!((daily.minutes, daily.hours, daily.days, daily.either_day), (1, 1, 0xffff_fffe, false));
        let line = cron_of("*/15,7 3-5 1 JAN,mar mon-fri");
        assert_eq!(line.minutes, 1 | 1 << 7 | 1 << 15 | 1 << 30 | 1 << 45);
        assert_eq!((line.hours, line.days, line.months), (0b11_1000, 0b10, 0b1010));
        assert_eq!((line.weekdays, line.either_day), (0b11_1110, true));
        assert_eq!(cron_of("0 0 * * 7").weekdays, 1, "Sunday is 0 and 7");
        assert_eq!(cron_of("50/3 0 * * *").minutes, 1 << 50 | 1 << 53 | 1 << 56 | 1 << 59);
        assert_eq!(cron_of("59 23 31 12 6").minutes, 1 << 59);
    }

    #[test]
    fn intervals_are_understood() {
        for text in ["every 10m", "@every 10m", "Every 10m"] {
            let schedule = Schedule::parse(text).unwrap();
            assert_eq!((schedule.times, schedule.to_string().as_str()), (Times::Every(Duration::from_secs(600)), text));
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in [
            "",
            "daily",
            "@dayly",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * 32 * *",
            "* * * 13 *",
            "* * * * 8",
            "5-3 * * * *",
            "*/0 * * * *",
            "a * * * *",
            "1,,2 * * * *",
            "+1 * * * *",
            "every",
            "every 1s",
            "every 5",
            "every 400d",
            "* * * foo *",
            "-1 * * * *",
            "1-2-3 * * * *",
        ] {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }
}
