//! TIME as people write it: RFC 3339, a local date and time, a time of day, `yesterday 14:00`, or an age. Reads text
//! only: what "now" and the local time zone are comes in as a parameter.

use jiff::civil::{Date, DateTime, Time};
use jiff::{Span, Zoned};

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};

/// Which snapshot of a source `--at` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// The newest.
    Latest,
    /// The newest that is not later than this.
    Moment(Timestamp),
}

/// How long ago. Days are kept apart from seconds: a day of the calendar has 23 to 25 hours where clocks change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Age {
    days: i64,
    seconds: i64,
}

impl Age {
    /// The age in seconds, a day counted as 24 hours.
    pub(super) fn seconds(self) -> u64 {
        u64::try_from(self.days * 86_400 + self.seconds).unwrap_or(0)
    }
}

/// Reads the value of `--at`: a TIME, or `latest`.
pub(super) fn parse_at(text: &str, now: &Zoned) -> Result<At> {
    if text.trim() == "latest" { Ok(At::Latest) } else { parse_time(text, now).map(At::Moment) }
}

/// Reads a TIME. One given to the second (or to a fraction of it) stands for the end of that second (fraction), so that
/// a time copied from a listing, which shows no nanoseconds, includes the snapshot it was copied from.
pub(super) fn parse_time(text: &str, now: &Zoned) -> Result<Timestamp> {
    let trimmed = text.trim();
    let found = absolute(trimmed)
        .or_else(|| local(trimmed, now))
        .or_else(|| of_day(trimmed, now))
        .or_else(|| parse_age(trimmed).ok().and_then(|age| before(now, age)));
    found.ok_or_else(|| {
        Error::new(ErrorKind::Usage, "not a time").on(text.escape_debug()).hint(
            "write 2026-11-20T14:03:07Z, \"2026-11-20 14:03\", 14:03, \"yesterday 14:00\", an age such as 90m or \"3 days ago\", or latest",
        )
    })
}

/// Reads an age: numbers with units (`90m`, `2h30m`, `3 days`, `1 week 2 days ago`).
pub(super) fn parse_age(text: &str) -> Result<Age> {
    read_age(text).ok_or_else(|| {
        Error::new(ErrorKind::Usage, "not an age").on(text.escape_debug()).hint("write 90m, 2h30m, 3d, \"2 weeks\"; units are s m h d w")
    })
}

/// RFC 3339, with its offset.
fn absolute(text: &str) -> Option<Timestamp> {
    // Only the extended form: the parser would take others that nobody means, such as 20261120T140307Z.
    let begins_with_date = text.get(..10)?.parse::<Date>().is_ok() && text.as_bytes().get(4) == Some(&b'-');
    let moment = text.parse::<jiff::Timestamp>().ok().filter(|_| begins_with_date)?;
    let clock = text.get(11..)?;
    let fraction = clock.find(['.', ',']).map(|dot| clock[dot + 1..].bytes().take_while(u8::is_ascii_digit).count());
    let to_the_second = clock.as_bytes().get(5) == Some(&b':');
    let rest_nanos = match fraction {
        Some(digits) => 10i64.checked_pow(9 - u32::try_from(digits).ok()?.min(9))? - 1,
        None if to_the_second => 999_999_999,
        None => 0,
    };
    Some(timestamp(moment.checked_add(jiff::SignedDuration::from_nanos(rest_nanos)).ok()?))
}

/// `2026-11-20 14:03[:07]` in the local time zone.
fn local(text: &str, now: &Zoned) -> Option<Timestamp> {
    let (date, clock) = text.split_once([' ', 'T', 't'])?;
    let date = date.parse::<Date>().ok().filter(|_| date.len() == 10)?;
    let clock = Clock::read(clock.trim_start())?;
    clock.on(date, now)
}

/// `14:03[:07]`, the last time that it was so, and `yesterday 14:03[:07]`.
fn of_day(text: &str, now: &Zoned) -> Option<Timestamp> {
    if let Some(clock) = text.strip_prefix("yesterday").filter(|rest| rest.starts_with(' ')) {
        return Clock::read(clock.trim_start())?.on(now.date().yesterday().ok()?, now);
    }
    let clock = Clock::read(text)?;
    let today = now.date().to_datetime(clock.time).to_zoned(now.time_zone().clone()).ok()?;
    if today.timestamp() <= now.timestamp() { clock.on(now.date(), now) } else { clock.on(now.date().yesterday().ok()?, now) }
}

/// A time of day and whether its seconds were given.
struct Clock {
    time: Time,
    with_seconds: bool,
}

impl Clock {
    fn read(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let digits = |part: &&str| (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        let full = parts.iter().skip(1).all(|part| part.len() == 2);
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(digits) || !full {
            return None;
        }
        let number = |at: usize| parts.get(at).map_or(Some(0), |part| part.parse::<i8>().ok());
        Some(Self { time: Time::new(number(0)?, number(1)?, number(2)?, 0).ok()?, with_seconds: parts.len() == 3 })
    }

    /// This time on `date` where `now` is. Where clocks were set forward over it, the moment as far after the gap; where
    /// they were set back over it, the first of the two.
    fn on(&self, date: Date, now: &Zoned) -> Option<Timestamp> {
        let datetime: DateTime = date.to_datetime(self.time);
        let mut moment = timestamp(datetime.to_zoned(now.time_zone().clone()).ok()?.timestamp());
        if self.with_seconds {
            moment.nanos = 999_999_999;
        }
        Some(moment)
    }
}

fn before(now: &Zoned, age: Age) -> Option<Timestamp> {
    let span = Span::new().try_days(age.days).ok()?;
    let earlier = now.checked_sub(span).ok()?.timestamp();
    Some(timestamp(earlier.checked_sub(jiff::SignedDuration::from_secs(age.seconds)).ok()?))
}

fn read_age(text: &str) -> Option<Age> {
    let mut rest = text.trim();
    rest = rest.strip_suffix("ago").map_or(rest, str::trim_end);
    if rest.is_empty() {
        return None;
    }
    let mut age = Age::default();
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        // Nine digits of the largest unit stay far below what an i64 of seconds holds.
        let count: i64 = rest.get(..digits).filter(|_| (1..=9).contains(&digits))?.parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        match &rest[..letters] {
            "s" | "sec" | "secs" | "second" | "seconds" => age.seconds += count,
            "m" | "min" | "mins" | "minute" | "minutes" => age.seconds += count * 60,
            "h" | "hour" | "hours" => age.seconds += count * 3600,
            "d" | "day" | "days" => age.days += count,
            "w" | "week" | "weeks" => age.days += count * 7,
            _ => return None,
        }
        rest = rest[letters..].trim_start();
    }
    Some(age)
}

fn timestamp(moment: jiff::Timestamp) -> Timestamp {
    let nanos = moment.as_nanosecond();
    let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).unwrap_or(i64::MAX);
    Timestamp::new(seconds, u32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or(0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn berlin(text: &str) -> Zoned {
        format!("{text}[Europe/Berlin]").parse().unwrap()
    }

    fn utc(text: &str) -> i64 {
        text.parse::<jiff::Timestamp>().unwrap().as_second()
    }

    fn seconds(text: &str, now: &Zoned) -> Option<i64> {
        parse_time(text, now).ok().map(|t| t.seconds)
    }

    #[test]
    fn every_spelling_of_a_time_is_read() {
        let now = berlin("2026-11-20T16:30:15");
        for (text, expected) in [
            ("2026-11-20T14:03:07Z", "2026-11-20T14:03:07Z"),
            ("2026-11-20t14:03:07z", "2026-11-20T14:03:07Z"),
            ("2026-11-20 14:03:07Z", "2026-11-20T14:03:07Z"),
            ("2026-11-20T14:03:07.25Z", "2026-11-20T14:03:07Z"),
            ("2026-11-20T14:03:07+02:00", "2026-11-20T12:03:07Z"),
            ("2026-11-20T14:03:07-05:30", "2026-11-20T19:33:07Z"),
            ("2026-11-20 14:03", "2026-11-20T13:03:00Z"),
            ("2026-11-20T14:03", "2026-11-20T13:03:00Z"),
            ("  2026-11-20   14:03:07 ", "2026-11-20T13:03:07Z"),
            ("2026-07-20 14:03", "2026-07-20T12:03:00Z"),
            ("14:03", "2026-11-20T13:03:00Z"),
            ("9:03", "2026-11-20T08:03:00Z"),
            ("16:30", "2026-11-20T15:30:00Z"),
            ("16:31", "2026-11-19T15:31:00Z"),
            ("16:30:16", "2026-11-19T15:30:16Z"),
            ("yesterday 14:00", "2026-11-19T13:00:00Z"),
            ("yesterday 23:59:59", "2026-11-19T22:59:59Z"),
            ("90m", "2026-11-20T14:00:15Z"),
            ("2h30m", "2026-11-20T13:00:15Z"),
            ("45 s", "2026-11-20T15:29:30Z"),
            ("3 days ago", "2026-11-17T15:30:15Z"),
            ("1 day ago", "2026-11-19T15:30:15Z"),
            ("1w", "2026-11-13T15:30:15Z"),
            ("1 week 1 day 2 hours 3 minutes 4 seconds ago", "2026-11-12T13:27:11Z"),
            ("0s", "2026-11-20T15:30:15Z"),
        ] {
            assert_eq!(seconds(text, &now), Some(utc(expected)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let now = berlin("2026-11-20T16:30:15");
        for text in [
            "",
            " ",
            "now",
            "latest",
            "ago",
            "tomorrow 14:00",
            "yesterday",
            "yesterday14:00",
            "yesterday 3h",
            "2026-11-20",
            "2026-13-20 14:03",
            "2026-02-29 14:03",
            "2026-11-20 24:00",
            "2026-11-20 14:60",
            "2026-11-20 14",
            "20261120T140307Z",
            "14",
            "14:3",
            "14:03:7",
            "14:03:07:01",
            "-14:03",
            "+1:03",
            "90",
            "90x",
            "-5m",
            "1.5h",
            "m",
            "1h m",
            "10000000000s",
            "999999999w",
            "3 days agos",
            "\u{661}h",
            "é:00",
        ] {
            assert!(parse_time(text, &now).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_to_the_second_includes_the_whole_second() {
        let now = berlin("2026-11-20T16:30:15");
        for (text, nanos) in [
            ("2026-11-20T14:03:07Z", 999_999_999),
            ("2026-11-20T14:03:07.123Z", 123_999_999),
            ("2026-11-20T14:03:07.123456789Z", 123_456_789),
            ("2026-11-20 14:03:07", 999_999_999),
            ("14:03:07", 999_999_999),
            ("2026-11-20 14:03", 0),
            ("14:03", 0),
            ("yesterday 14:03", 0),
        ] {
            assert_eq!(parse_time(text, &now).unwrap().nanos, nanos, "{text}");
        }
        let taken = Timestamp::new(utc("2026-11-20T14:03:07Z"), 123_456_789);
        assert!(parse_time(&taken.to_string(), &now).unwrap() >= taken, "what a listing prints must include what it lists");
    }

    #[test]
    fn clock_changes_are_taken_as_a_calendar_takes_them() {
        // Clocks in Berlin: 2026-03-29 02:00 -> 03:00, 2026-10-25 03:00 -> 02:00.
        let spring = berlin("2026-03-29T12:00:00");
        assert_eq!(seconds("2026-03-29 02:30", &spring), Some(utc("2026-03-29T01:30:00Z")), "in the gap: 03:30 summer time");
        assert_eq!(seconds("1 day ago", &spring), Some(utc("2026-03-28T11:00:00Z")), "the same time of day");
        assert_eq!(seconds("24h", &spring), Some(utc("2026-03-28T10:00:00Z")), "24 hours are 24 hours");
        let autumn = berlin("2026-10-25T12:00:00");
        assert_eq!(seconds("02:30", &autumn), Some(utc("2026-10-25T00:30:00Z")), "in the fold: the first one");
        // Between the two 02:30 of that night, 02:30 has been already.
        let between: Zoned = "2026-10-25T02:10:00+01:00[Europe/Berlin]".parse().unwrap();
        assert_eq!(seconds("02:30", &between), Some(utc("2026-10-25T00:30:00Z")));
    }

    #[test]
    fn yesterday_of_the_first_day_of_a_year_is_last_year() {
        let now = berlin("2027-01-01T00:10:00");
        assert_eq!(seconds("00:20", &now), Some(utc("2026-12-30T23:20:00Z")));
        assert_eq!(seconds("yesterday 12:00", &now), Some(utc("2026-12-31T11:00:00Z")));
    }

    #[test]
    fn ages_are_counted_in_seconds_for_policies() {
        for (text, expected) in [("90s", 90), ("2h30m", 9000), ("1d", 86_400), ("2 weeks", 14 * 86_400), ("1d1h", 90_000)] {
            assert_eq!(parse_age(text).unwrap().seconds(), expected, "{text}");
        }
        assert!(parse_age("14:03").is_err());
    }

    #[test]
    fn latest_is_not_a_moment() {
        let now = berlin("2026-11-20T16:30:15");
        assert_eq!(parse_at(" latest ", &now).unwrap(), At::Latest);
        assert!(matches!(parse_at("14:03", &now).unwrap(), At::Moment(_)));
    }
}
