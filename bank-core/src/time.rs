//! Instants and business dates, as numbers that the caller brings: the rules know no clock.

use std::fmt;
use std::str::FromStr;
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

    /// The instant for programs: `2022-02-22T19:22:22.000Z` (RFC 3339), always with milliseconds.
    pub fn rfc3339(self) -> String {
        jiff::Timestamp::from_millisecond(self.0).map_or_else(
            |_| self.to_string(),
            |time| time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        )
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

    /// The date before.
    pub const fn previous(self) -> BusinessDate {
        BusinessDate(self.0.saturating_sub(1))
    }

    /// The next date.
    pub const fn next(self) -> BusinessDate {
        BusinessDate(self.0.saturating_add(1))
    }

    /// Year, month and day, within the years that a calendar here has.
    pub fn to_calendar(self) -> Option<(i16, u8, u8)> {
        let date = jiff::Timestamp::from_millisecond(i64::from(self.0) * DAY_MILLIS)
            .ok()?
            .to_zoned(jiff::tz::TimeZone::UTC)
            .date();
        Some((
            date.year(),
            date.month().unsigned_abs(),
            date.day().unsigned_abs(),
        ))
    }
}

/// A text that is no date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a date is written as 2026-11-22")]
pub struct InvalidDate;

impl FromStr for BusinessDate {
    type Err = InvalidDate;

    fn from_str(text: &str) -> Result<BusinessDate, InvalidDate> {
        let is_plain = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let date: jiff::civil::Date = text.parse().map_err(|_| InvalidDate)?;
        if !is_plain {
            return Err(InvalidDate);
        }
        let since = date - jiff::civil::date(1970, 1, 1);
        Ok(BusinessDate(since.get_days()))
    }
}

/// The time of day, in UTC, at which the next business date begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CutOver {
    minutes: u16,
}

/// A text or number that is no time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time of day is written as 22:00, from 00:00 to 23:59")]
pub struct InvalidCutOver;

impl CutOver {
    /// So many minutes after midnight.
    ///
    /// # Errors
    /// If that is the next day.
    pub const fn from_minutes(minutes: u16) -> Result<CutOver, InvalidCutOver> {
        if minutes < DAY_MINUTES {
            Ok(CutOver { minutes })
        } else {
            Err(InvalidCutOver)
        }
    }

    /// Minutes after midnight.
    pub const fn minutes(self) -> u16 {
        self.minutes
    }

    /// An instant, with the business date that it falls on: the calendar's, until the cut-over, and then the next. (Midnight is the
    /// cut-over at which a date begins as the calendar's does.)
    pub fn moment_at(self, time: Timestamp) -> Moment {
        let early = (DAY_MINUTES - self.minutes) % DAY_MINUTES;
        let shifted = time
            .0
            .saturating_add(i64::from(early) * (DAY_MILLIS / i64::from(DAY_MINUTES)));
        Moment {
            time,
            ..Moment::at(Timestamp(shifted))
        }
    }
}

impl FromStr for CutOver {
    type Err = InvalidCutOver;

    fn from_str(text: &str) -> Result<CutOver, InvalidCutOver> {
        let (hours, minutes) = text.split_once(':').ok_or(InvalidCutOver)?;
        let number = |digits: &str, below: u16| {
            let is_number = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
            match digits.parse::<u16>() {
                Ok(number) if is_number && number < below => Ok(number),
                _ => Err(InvalidCutOver),
            }
        };
        CutOver::from_minutes(number(hours, 24)? * 60 + number(minutes, 60)?)
    }
}

impl fmt::Display for CutOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.minutes / 60, self.minutes % 60)
    }
}

const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;
const DAY_MINUTES: u16 = 24 * 60;

impl fmt::Display for BusinessDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
    fn a_date_is_read_as_it_is_written() {
        for days in [-719_528, -1, 0, 20_779, 2_932_895] {
            let date = BusinessDate(days);
            assert_eq!(date.to_string().parse(), Ok(date));
        }
    }

    #[test]
    fn an_instant_is_written_for_programs() {
        assert_eq!(Timestamp(1_645_557_742_009).rfc3339(), "2022-02-22T19:22:22.009Z");
    }

    #[test]
    fn a_date_ends_at_the_cut_over() {
        let check = |cut_over: &str, millis, date: &str| {
            let cut_over: CutOver = cut_over.parse().unwrap();
            let moment = cut_over.moment_at(Timestamp(millis));
            assert_eq!(
                (moment.time, moment.date),
                (Timestamp(millis), date.parse().unwrap())
            );
        };
        let midnight = 1_795_305_600_000;
        check("00:00", midnight - 1, "2026-11-21");
        check("00:00", midnight, "2026-11-22");
        check("22:00", midnight - 2 * 3_600_000 - 1, "2026-11-21");
        check("22:00", midnight - 2 * 3_600_000, "2026-11-22");
        check("22:00", midnight, "2026-11-22");
        check("06:30", midnight + 6 * 3_600_000, "2026-11-22");
        check("06:30", midnight + 7 * 3_600_000, "2026-11-23");
        for wrong in ["24:00", "1:00", "01:60", "0100", "", "+1:00"] {
            assert_eq!(wrong.parse::<CutOver>(), Err(InvalidCutOver), "{wrong}");
        }
        for wrong in ["2026-02-29", "2026-1-1", "20261122", "2026-11-22T00:00", ""] {
            assert_eq!(wrong.parse::<BusinessDate>(), Err(InvalidDate), "{wrong}");
        }
        assert_eq!(
            "2026-11-22".parse::<BusinessDate>().unwrap().to_string(),
            "2026-11-22"
        );
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
