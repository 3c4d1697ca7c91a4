//! Money: whole numbers of minor units of an ISO 4217 currency, never a float.
//!
//! [`Money`] is a sum that may be negative, [`Amount`] a positive sum that somebody wants to move. Neither
//! knows its currency: an account has one, and [`Currency`] reads and writes sums as people do.

use std::fmt;
use std::num::NonZeroI64;

/// A sum in minor units (cents, yen, fils …) of a currency that the context names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(i64);

impl Money {
    /// No money.
    pub const ZERO: Money = Money(0);

    /// A sum of `minor` minor units.
    pub const fn from_minor(minor: i64) -> Money {
        Money(minor)
    }

    /// The sum in minor units.
    pub const fn minor(self) -> i64 {
        self.0
    }

    /// The sum of both, or `None` past the range of an `i64`.
    pub fn checked_add(self, other: Money) -> Option<Money> {
        self.0.checked_add(other.0).map(Money)
    }

    /// The difference of both, or `None` past the range of an `i64`.
    pub fn checked_sub(self, other: Money) -> Option<Money> {
        self.0.checked_sub(other.0).map(Money)
    }
}

/// A positive sum in minor units: what a customer deposits, withdraws or transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(NonZeroI64);

impl Amount {
    /// An amount of `minor` minor units, or `None` unless it is above zero.
    pub fn from_minor(minor: i64) -> Option<Amount> {
        NonZeroI64::new(minor).filter(|minor| minor.get() > 0).map(Amount)
    }

    /// The amount in minor units, above zero.
    pub const fn minor(self) -> i64 {
        self.0.get()
    }

    /// The amount as a sum.
    pub const fn money(self) -> Money {
        Money(self.0.get())
    }
}

/// A currency of ISO 4217 that has minor units (metals and other codes without an exponent are not money
/// that an account can hold).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency(iso_currency::Currency);

impl Currency {
    /// United States dollar: the currency of a list of accounts that names none.
    pub const USD: Currency = Currency(iso_currency::Currency::USD);

    /// The currency with the three-letter `code`, in capitals.
    ///
    /// # Errors
    /// [`MoneyError::UnknownCurrency`] if ISO 4217 has no such currency with minor units.
    pub fn from_code(code: &str) -> Result<Currency, MoneyError> {
        iso_currency::Currency::from_code(code)
            .filter(|currency| currency.exponent().is_some())
            .map(Currency)
            .ok_or_else(|| MoneyError::UnknownCurrency(code.to_owned()))
    }

    /// The three-letter code.
    pub fn code(self) -> &'static str {
        self.0.code()
    }

    /// Digits after the decimal point: 2 for the dollar, 0 for the yen, 3 for the dinar.
    pub fn exponent(self) -> u32 {
        self.0.exponent().map_or(0, u32::from)
    }

    /// Reads a sum that a person wrote: digits, then at most as many decimals as the currency has.
    ///
    /// No sign, exponent, separator of thousands or space is accepted: a program that guesses what a sum
    /// means will one day guess wrong.
    ///
    /// # Errors
    /// [`MoneyError`] says what is wrong with `text`.
    pub fn parse(self, text: &str) -> Result<Money, MoneyError> {
        let malformed = || MoneyError::Malformed {
            text: text.to_owned(),
            currency: self,
        };
        let (whole, decimals) = match text.split_once('.') {
            Some((_, "")) => return Err(malformed()),
            Some((whole, decimals)) => (whole, decimals),
            None => (text, ""),
        };
        if whole.is_empty()
            || !whole
                .bytes()
                .chain(decimals.bytes())
                .all(|byte| byte.is_ascii_digit())
        {
            return Err(malformed());
        }
        let exponent = self.exponent() as usize;
        if decimals.len() > exponent {
            return Err(MoneyError::TooPrecise {
                text: text.to_owned(),
                currency: self,
            });
        }
        whole
            .bytes()
            .chain(decimals.bytes())
            .chain(std::iter::repeat_n(b'0', exponent - decimals.len()))
            .try_fold(0i64, |sum, digit| {
                sum.checked_mul(10)?.checked_add(i64::from(digit - b'0'))
            })
            .map(Money)
            .ok_or_else(|| MoneyError::TooLarge {
                text: text.to_owned(),
            })
    }

    /// Reads a positive sum, as [`Currency::parse`] does.
    ///
    /// # Errors
    /// [`MoneyError`] says what is wrong with `text`; zero is [`MoneyError::NotPositive`].
    pub fn parse_amount(self, text: &str) -> Result<Amount, MoneyError> {
        Amount::from_minor(self.parse(text)?.minor()).ok_or(MoneyError::NotPositive)
    }

    /// The sum with all the digits of the currency and no currency sign: `120.50`, `-0.05`, `300`.
    pub fn format(self, money: Money) -> String {
        let exponent = self.exponent() as usize;
        let sign = if money.0 < 0 { "-" } else { "" };
        let digits = format!("{:0>width$}", money.0.unsigned_abs(), width = exponent + 1);
        let (whole, decimals) = digits.split_at(digits.len() - exponent);
        if decimals.is_empty() {
            format!("{sign}{whole}")
        } else {
            format!("{sign}{whole}.{decimals}")
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Why a text is no sum of money.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// ISO 4217 has no such currency, or it has no minor units.
    #[error("\"{0}\" is not a currency: use a code of ISO 4217 such as USD or EUR")]
    UnknownCurrency(String),
    /// The text is not digits with an optional decimal point.
    #[error("\"{text}\" is not a sum in {currency}: write digits only, such as {}", currency.format(Money(2050)))]
    Malformed {
        /// What was read.
        text: String,
        /// The currency it was read in.
        currency: Currency,
    },
    /// More decimals than the currency has.
    #[error("\"{text}\" has more decimals than {currency} has ({})", currency.exponent())]
    TooPrecise {
        /// What was read.
        text: String,
        /// The currency it was read in.
        currency: Currency,
    },
    /// Past the range of an `i64` of minor units.
    #[error("\"{text}\" is more money than an account can hold")]
    TooLarge {
        /// What was read.
        text: String,
    },
    /// Zero where something is to be moved.
    #[error("the amount must be more than zero")]
    NotPositive,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn currency(code: &str) -> Currency {
        Currency::from_code(code).unwrap()
    }

    #[test]
    fn sums_are_read_strictly() {
        let check = |code, text, minor: Option<i64>| {
            assert_eq!(
                currency(code).parse(text).ok().map(Money::minor),
                minor,
                "{code} {text:?}"
            );
        };
        check("USD", "20", Some(2000));
        check("USD", "20.5", Some(2050));
        check("USD", "20.50", Some(2050));
        check("USD", "0", Some(0));
        check("USD", "0.01", Some(1));
        check("JPY", "300", Some(300));
        check("KWD", "1.234", Some(1234));
        check("USD", "92233720368547758.07", Some(i64::MAX));
        for bad in [
            "",
            " ",
            "20 ",
            " 20",
            "1e3",
            "nan",
            "inf",
            "-5",
            "+5",
            "20.505",
            "1,000",
            "1_000",
            "20.",
            ".5",
            ".",
            "2.0.0",
            "$20",
            "٢٠",
            "0x10",
            "92233720368547758.08",
            "99999999999999999999999",
        ] {
            check("USD", bad, None);
        }
        check("JPY", "300.0", None);
        check("JPY", "300.", None);
    }

    #[test]
    fn an_amount_is_positive() {
        assert_eq!(Currency::USD.parse_amount("0.00"), Err(MoneyError::NotPositive));
        assert_eq!(Currency::USD.parse_amount("0.01").unwrap().minor(), 1);
        assert_eq!(Amount::from_minor(-1), None);
    }

    #[test]
    fn sums_are_written_with_all_digits_of_their_currency() {
        let check = |code, minor, text: &str| assert_eq!(currency(code).format(Money(minor)), text);
        check("USD", 12050, "120.50");
        check("USD", -5, "-0.05");
        check("USD", 0, "0.00");
        check("JPY", 300, "300");
        check("KWD", 1, "0.001");
        check("USD", i64::MIN, "-92233720368547758.08");
    }

    #[test]
    fn metals_and_unknown_codes_are_no_currency() {
        for code in ["XAU", "XXX", "usd", "US", "", "DOGE"] {
            assert!(Currency::from_code(code).is_err(), "{code}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(minor in 0i64.., code in prop::sample::select(vec!["USD", "JPY", "KWD"])) {
            let currency = currency(code);
            prop_assert_eq!(currency.parse(&currency.format(Money(minor))), Ok(Money(minor)));
        }

        #[test]
        fn reading_never_panics(text in ".*") {
            let _ = Currency::USD.parse(&text);
        }
    }
}
