//! Instants and business dates, as numbers that the caller brings: the rules know no clock.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// An instant: milliseconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The instant that many milliseconds after 1970 began.
    pub const fn from_millis(millis: i64) -> Timestamp {
        Timestamp(millis)
    }

    /// Milliseconds since 1970 began.
    pub const fn millis(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{}", time.strftime("%Y-%m-%d %H:%M:%S")),
            Err(_) => write!(f, "{} ms after 1970", self.0),
        }
    }
}

/// The bank's day that a transaction belongs to: days since 1970-01-01.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BusinessDate(i32);

impl BusinessDate {
    /// The date that many days after 1970-01-01.
    pub const fn from_days(days: i32) -> BusinessDate {
        BusinessDate(days)
    }

    /// Days since 1970-01-01.
    pub const fn days(self) -> i32 {
        self.0
    }
}

impl fmt::Display for BusinessDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;
        match jiff::Timestamp::from_millisecond(i64::from(self.0) * DAY_MILLIS) {
            Ok(time) => write!(f, "{}", time.strftime("%Y-%m-%d")),
            Err(_) => write!(f, "day {}", self.0),
        }
    }
}

/// When something is asked of the bank: the instant and the business date that it falls on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The instant.
    pub time: Timestamp,
    /// The business date.
    pub date: BusinessDate,
}

impl Moment {
    /// The present, by the machine's clock; the business date is the date in UTC.
    pub fn now() -> Moment {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment::at(Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)))
    }

    /// An instant, with the business date that UTC gives it.
    pub fn at(time: Timestamp) -> Moment {
        const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;
        let days = i32::try_from(time.0.div_euclid(DAY_MILLIS)).unwrap_or(i32::MAX);
        Moment {
            time,
            date: BusinessDate(days),
        }
    }

    /// This moment, or as much later as it takes not to be before `time` and `date`.
    pub fn not_before(self, time: Timestamp, date: BusinessDate) -> Moment {
        Moment {
            time: self.time.max(time),
            date: self.date.max(date),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_falls_on_its_date_in_utc() {
        let check = |millis, date: &str| {
            assert_eq!(Moment::at(Timestamp(millis)).date.to_string(), date);
        };
        check(0, "1970-01-01");
        check(-1, "1969-12-31");
        check(1_795_305_599_999, "2026-11-21");
        check(1_795_305_600_000, "2026-11-22");
    }

    #[test]
    fn an_instant_is_written_for_people() {
        assert_eq!(Timestamp(1_645_557_742_000).to_string(), "2022-02-22 19:22:22");
        assert_eq!(
            Timestamp(i64::MAX).to_string(),
            "9223372036854775807 ms after 1970"
        );
    }
}
