//! Interest: a rate, a period, and what they make of a balance.

use std::fmt;
use std::str::FromStr;

use crate::money::Money;
use crate::time::BusinessDate;

/// A month for which interest is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(u32);

/// A text or number that is no month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a period is a month, such as 2026-11")]
pub struct InvalidPeriod;

impl Period {
    /// The month as a number: the year times 100, and the month. So the bank file has it.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The month with that number.
    ///
    /// # Errors
    /// [`InvalidPeriod`].
    pub fn from_number(number: u32) -> Result<Period, InvalidPeriod> {
        let (year, month) = (number / 100, number % 100);
        if (1970..=9999).contains(&year) && (1..=12).contains(&month) {
            Ok(Period(number))
        } else {
            Err(InvalidPeriod)
        }
    }

    /// The month in which a date is.
    pub fn of(date: BusinessDate) -> Option<Period> {
        let (year, month, _) = date.to_calendar()?;
        Period::from_number(u32::try_from(year).ok()? * 100 + u32::from(month)).ok()
    }
}

impl FromStr for Period {
    type Err = InvalidPeriod;

    fn from_str(text: &str) -> Result<Period, InvalidPeriod> {
        let (year, month) = text.split_once('-').ok_or(InvalidPeriod)?;
        let number = |digits: &str, length| {
            let is_number = digits.len() == length && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits
                .parse::<u32>()
                .ok()
                .filter(|_| is_number)
                .ok_or(InvalidPeriod)
        };
        Period::from_number(number(year, 4)? * 100 + number(month, 2)?)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0 / 100, self.0 % 100)
    }
}

/// What part of a balance is paid as interest, for a whole period: from 0 to 100 percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Millionths of a percent.
    micropercent: u32,
}

/// A text that is no rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a rate is a percentage from 0.000001% to 100%, such as 2% or 0.125%, with at most six digits after the point"
)]
pub struct InvalidRate;

/// Millionths of a percent in one percent.
const PERCENT: u32 = 1_000_000;

impl Rate {
    /// The interest on a balance, rounded to the nearest minor unit, and half of one to the even neighbour. On an overdrawn
    /// account it is negative: what the customer owes.
    pub fn of(self, balance: Money) -> Money {
        let whole = i128::from(100 * PERCENT);
        let product = i128::from(balance.minor()) * i128::from(self.micropercent);
        let (quotient, rest) = (product.div_euclid(whole), product.rem_euclid(whole));
        let up = match (2 * rest).cmp(&whole) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => quotient.rem_euclid(2),
            std::cmp::Ordering::Greater => 1,
        };
        // What has no negation could not stand in a row, which has the other side, too.
        let interest = (quotient + up).clamp(-i128::from(i64::MAX), i64::MAX.into());
        Money::from_minor(interest as i64)
    }
}

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Rate, InvalidRate> {
        let number = text.strip_suffix('%').ok_or(InvalidRate)?;
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let is_number = |digits: &str, most: usize| {
            (1..=most).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !is_number(whole, 3) || !is_number(part, 6) {
            return Err(InvalidRate);
        }
        let whole: u32 = whole.parse().map_err(|_| InvalidRate)?;
        let part: u32 = format!("{part:0<6}").parse().map_err(|_| InvalidRate)?;
        let micropercent = whole * PERCENT + part;
        if (1..=100 * PERCENT).contains(&micropercent) {
            Ok(Rate { micropercent })
        } else {
            Err(InvalidRate)
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.micropercent / PERCENT, self.micropercent % PERCENT);
        let part = format!("{part:06}");
        match part.trim_end_matches('0') {
            "" => write!(f, "{whole}%"),
            part => write!(f, "{whole}.{part}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interest_is_rounded_half_to_even_on_both_sides_of_zero() {
        let check = |rate: &str, balance, interest| {
            let rate: Rate = rate.parse().unwrap();
            assert_eq!(
                rate.of(Money::from_minor(balance)).minor(),
                interest,
                "{rate} of {balance}"
            );
        };
        check("2%", 10_000, 200);
        check("2%", 25, 0);
        check("2%", 75, 2);
        check("2%", 74, 1);
        check("2%", 125, 2);
        check("2%", 126, 3);
        check("2%", -25, 0);
        check("2%", -75, -2);
        check("2%", -125, -2);
        check("2%", -126, -3);
        check("100%", i64::MAX, i64::MAX);
        check("100%", i64::MIN, -i64::MAX);
        check("0.000001%", 50_000_000, 0);
        check("0.000001%", 150_000_000, 2);
        check("0.125%", 800, 1);
    }

    #[test]
    fn rates_are_read_and_shown_exactly() {
        for (text, shown) in [
            ("2%", "2%"),
            ("0.125%", "0.125%"),
            ("100.000%", "100%"),
            ("007.50%", "7.5%"),
        ] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), shown);
        }
        for wrong in [
            "2",
            "%",
            "0%",
            "-1%",
            "100.000001%",
            "1.%",
            ".5%",
            "0.0000001%",
            "1e2%",
            "2 %",
            "1,5%",
        ] {
            assert_eq!(wrong.parse::<Rate>(), Err(InvalidRate), "{wrong}");
        }
    }

    #[test]
    fn a_period_is_a_month() {
        let period: Period = "2026-11".parse().unwrap();
        assert_eq!(
            (period.number(), period.to_string().as_str()),
            (202_611, "2026-11")
        );
        assert_eq!(
            Period::of(BusinessDate::from_days(20_779)),
            Some(period),
            "2026-11-22"
        );
        assert!(period < "2026-12".parse().unwrap() && period < "2027-01".parse().unwrap());
        for wrong in [
            "2026",
            "2026-13",
            "2026-0",
            "2026-00",
            "26-11",
            "2026-11-01",
            "x",
            "-202611",
        ] {
            assert_eq!(wrong.parse::<Period>(), Err(InvalidPeriod), "{wrong}");
        }
    }
}
