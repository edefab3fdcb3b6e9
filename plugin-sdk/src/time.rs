//! Times and durations as Kubernetes writes them: RFC 3339, and `1h30m`.
//!
//! They stand in specs and statuses; reckoning is done with what the standard library has.

use std::{
    fmt,
    ops::Add,
    str::FromStr,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::Error;

/// A point in time as Kubernetes writes it, in whole seconds: `2006-01-02T15:04:05Z`.
///
/// ```
/// use plugin_sdk::prelude::*;
/// use std::time::Duration;
///
/// #[derive(Serialize, Deserialize)]
/// struct Status { last: Timestamp }
///
/// fn reconcile(backup: Object<Value, Status>, cx: &Context) -> Result<Plan> {
///     let due = backup.status().is_none_or(|status| cx.now() >= status.last.0 + Duration::from_secs(3600));
///     Ok(if due { Plan::new().status(Status { last: cx.now().into() }) } else { Plan::new() })
/// }
/// # let plan = Context::fake().run(reconcile, "{ metadata: { name: a } }").unwrap();
/// # assert_eq!(plan.status, Some(json!({ "last": "2023-11-14T22:13:20Z" })));
/// assert_eq!((Timestamp(std::time::UNIX_EPOCH) + "1h".parse().unwrap()).to_string(), "1970-01-01T01:00:00Z");
/// let read: Timestamp = "2006-01-02T15:04:05.5+01:00".parse().unwrap();
/// assert_eq!(read.to_string(), "2006-01-02T14:04:05Z");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub SystemTime);

/// A duration as Kubernetes writes it: `90s`, `1h30m`, `1.5h`, `250ms`. Days and weeks, which Go does not know, are `d` and `w`.
///
/// ```
/// use plugin_sdk::prelude::*;
/// use std::time::Duration;
///
/// #[derive(Deserialize)]
/// struct Backup { every: Interval }
///
/// fn reconcile(backup: Object<Backup>, _cx: &Context) -> Result<Plan> {
///     Ok(Plan::new().after(backup.spec.every.0))
/// }
/// # let plan = Context::fake().run(reconcile, "{ metadata: { name: a }, spec: { every: 1h30m } }").unwrap();
/// # assert_eq!(plan.after, Some(Duration::from_secs(5400)));
/// assert_eq!(Interval(Duration::from_secs(5400)).to_string(), "1h30m0s");
/// assert!("soon".parse::<Interval>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(pub Duration);

const DAY: i64 = 86_400;

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self(time)
    }
}

impl From<Duration> for Interval {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

/// So much later; a time that no clock can show is as late as this one.
impl Add<Interval> for Timestamp {
    type Output = Self;

    fn add(self, interval: Interval) -> Self {
        Self(self.0.checked_add(interval.0).unwrap_or(self.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = match self.0.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
        };
        let ((year, month, day), of_day) = (date(seconds.div_euclid(DAY)), seconds.rem_euclid(DAY));
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    /// Any RFC 3339 time; fractions of a second are dropped.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::terminal(format!("`{text}` is no time: write it as in `2006-01-02T15:04:05Z`"));
        seconds(text).and_then(at).map(Self).ok_or_else(wrong)
    }
}

/// This many seconds after, or before, the epoch.
fn at(seconds: i64) -> Option<SystemTime> {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    if seconds < 0 { epoch.checked_sub(distance) } else { epoch.checked_add(distance) }
}

fn seconds(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize, least: i64, most: i64| -> Option<i64> {
        let digits = text.get(from..to).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        digits.parse().ok().filter(|number| (least..=most).contains(number))
    };
    let sign = |at: usize, wanted: &str| text.get(at..=at).filter(|sign| wanted.contains(*sign));
    let (year, month) = (number(0, 4, 0, 9999)?, number(5, 7, 1, 12)?);
    let day = number(8, 10, 1, 31)?;
    let (hour, minute, second) = (number(11, 13, 0, 23)?, number(14, 16, 0, 59)?, number(17, 19, 0, 60)?);
    for (at, wanted) in [(4, "-"), (7, "-"), (10, "Tt "), (13, ":"), (16, ":")] {
        sign(at, wanted)?;
    }
    let days = days(year, month, day);
    if date(days) != (year, month, day) {
        return None;
    }
    let mut zone = text.get(19..)?;
    if let Some(fraction) = zone.strip_prefix('.') {
        zone = fraction.trim_start_matches(|digit: char| digit.is_ascii_digit());
        if zone.len() == fraction.len() {
            return None;
        }
    }
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let start = text.len() - zone.len();
            let offset = number(start + 1, start + 3, 0, 23)? * 3600 + number(start + 4, start + 6, 0, 59)? * 60;
            sign(start + 3, ":").filter(|_| zone.len() == 6)?;
            if sign(start, "+-")? == "-" { -offset } else { offset }
        }
    };
    Some(days * DAY + hour * 3600 + minute * 60 + second - offset)
}

/// Days since the epoch of a date in the Gregorian calendar. Years are counted from March, so that a leap day is the last
/// one; 400 of them have 146,097 days.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The other way: year, month, day.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

impl fmt::Display for Interval {
    /// As Go does: `1h30m0s`, `1.5s`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        if seconds == 0 && nanos != 0 {
            let (whole, rest, width, unit) = match nanos {
                1_000_000.. => (nanos / 1_000_000, nanos % 1_000_000, 6, "ms"),
                1_000.. => (nanos / 1_000, nanos % 1_000, 3, "µs"),
                _ => (nanos, 0, 0, "ns"),
            };
            return write!(f, "{}{unit}", fraction(whole.into(), rest, width));
        }
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if seconds >= 60 {
            write!(f, "{minutes}m")?;
        }
        write!(f, "{}s", fraction(seconds % 60, nanos, 9))
    }
}

/// `1.5` without the zeros behind.
fn fraction(whole: u64, rest: u32, width: usize) -> String {
    if rest == 0 {
        return whole.to_string();
    }
    format!("{whole}.{rest:0width$}").trim_end_matches('0').to_owned()
}

impl FromStr for Interval {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::terminal(format!("`{text}` is no duration: write it as in `30s`, `1h30m` or `250ms`"));
        nanos(text).map(|nanos| Self(Duration::from_nanos(nanos))).ok_or_else(wrong)
    }
}

fn nanos(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let (mut rest, mut total) = (text, 0_u64);
    while !rest.is_empty() || text.is_empty() {
        let (number, behind) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, behind) = behind.split_at(behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len()));
        total = total.checked_add(product(number, scale(unit)?)?)?;
        rest = behind;
    }
    Some(total)
}

fn scale(unit: &str) -> Option<u64> {
    let seconds = match unit {
        "ns" => return Some(1),
        "us" | "µs" | "μs" => return Some(1_000),
        "ms" => return Some(1_000_000),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    Some(seconds * 1_000_000_000)
}

/// A decimal number times a scale, exactly.
fn product(number: &str, scale: u64) -> Option<u64> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u64>().ok() };
    let tens = 10_u64.checked_pow(u32::try_from(part.len()).ok()?)?;
    let part = u64::try_from(u128::from(digits(part)?) * u128::from(scale) / u128::from(tens)).ok()?;
    digits(whole)?.checked_mul(scale)?.checked_add(part)
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

fn parsed<'de, T: FromStr<Err = Error>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Option<i64> {
        let since = |time: Timestamp| match time.0.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_secs()).unwrap(),
            Err(before) => -i64::try_from(before.duration().as_secs()).unwrap(),
        };
        text.parse().ok().map(since)
    }

    #[test]
    fn times_are_read_and_written_back() {
        // date -u -d 2006-01-02T15:04:05Z +%s
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59Z", -1),
            ("2006-01-02T15:04:05Z", 1_136_214_245),
            ("2000-02-29T23:59:59Z", 951_868_799),
            ("2024-12-31T00:00:00Z", 1_735_603_200),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
            ("0000-03-01T00:00:00Z", -62_162_035_200),
        ] {
            assert_eq!(time(text), Some(seconds), "{text}");
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), text);
        }
        assert_eq!(time("2006-01-02t16:34:05.123456789+01:30"), Some(1_136_214_245));
        assert_eq!(time("2006-01-02 10:04:05-05:00"), Some(1_136_214_245));
    }

    #[test]
    fn what_is_no_time_is_refused_with_an_example() {
        for text in [
            "",
            "2006-01-02",
            "2006-02-30T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2006-13-02T15:04:05Z",
            "2006-01-02T24:00:00Z",
            "2006-01-02T15:04:05",
            "2006-01-02T15:04:05.Z",
            "2006-01-02T15:04:05+0100",
            "2006-01-02T15:04:05+01:000",
            "+006-01-02T15:04:05Z",
            "2006-01-02T15:04:é5Z",
        ] {
            assert_eq!(time(text), None, "{text}");
        }
        let error = "soon".parse::<Timestamp>().unwrap_err();
        assert_eq!(error.to_string(), "`soon` is no time: write it as in `2006-01-02T15:04:05Z`");
    }

    #[test]
    fn durations_are_read_as_go_reads_them_and_written_as_go_writes_them() {
        for (text, millis, written) in [
            ("0", 0, "0s"),
            ("90s", 90_000, "1m30s"),
            ("1h30m", 5_400_000, "1h30m0s"),
            ("1.5h", 5_400_000, "1h30m0s"),
            ("250ms", 250, "250ms"),
            ("1.5s", 1_500, "1.5s"),
            ("1m.5s", 60_500, "1m0.5s"),
            ("2d", 172_800_000, "48h0m0s"),
            ("1w", 604_800_000, "168h0m0s"),
        ] {
            let interval: Interval = text.parse().unwrap();
            assert_eq!((interval.0.as_millis(), interval.to_string()), (millis, written.to_owned()), "{text}");
        }
        assert_eq!("1500ns".parse::<Interval>().unwrap().to_string(), "1.5µs");
        for text in ["", "1", "h", ".", ".s", "1h 30m", "-1s", "1y", "1.2.3s", "99999999999w"] {
            assert!(text.parse::<Interval>().is_err(), "{text}");
        }
    }
}
