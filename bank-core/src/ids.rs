//! The names of things: accounts, cards, terminals, transactions, and places in the journal.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use crate::limits::{MAX_CARD_BYTES, MAX_TERMINAL_ID_BYTES};
use crate::time::Timestamp;

/// A text that does not name what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidId(&'static str);

/// An account's number: 1 to `i64::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(u64);

impl AccountId {
    /// The account with that number.
    ///
    /// # Errors
    /// If the number is 0 or above `i64::MAX`, which the bank file could not hold.
    pub fn new(number: u64) -> Result<AccountId, InvalidId> {
        if number == 0 || number > i64::MAX as u64 {
            return Err(InvalidId(
                "an account number is a whole number from 1 to 9223372036854775807",
            ));
        }
        Ok(AccountId(number))
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for AccountId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<AccountId, InvalidId> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        AccountId::new(text.parse().ok().filter(|_| digits).unwrap_or(0))
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A card's number: a short text without control characters. A holder's name may serve as one.
///
/// `Display` and `Debug` mask a number of a payment card, so that logs do not hold it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CardNumber(Box<str>);

impl CardNumber {
    /// The card with that number.
    ///
    /// # Errors
    /// If the text is empty, longer than [`MAX_CARD_BYTES`], begins or ends with a space, or holds a
    /// control character.
    pub fn new(text: &str) -> Result<CardNumber, InvalidId> {
        if text.is_empty() {
            return Err(InvalidId("a card number must not be empty"));
        }
        if text.len() > MAX_CARD_BYTES {
            return Err(InvalidId("a card number has at most 64 bytes"));
        }
        if text.trim() != text || text.chars().any(char::is_control) {
            return Err(InvalidId(
                "a card number has no space around it and no control characters",
            ));
        }
        Ok(CardNumber(text.into()))
    }

    /// The whole number, for the bank file and the wire; not for logs.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CardNumber {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<CardNumber, InvalidId> {
        CardNumber::new(text)
    }
}

impl fmt::Display for CardNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // ISO/IEC 7812 numbers have 8 to 19 digits; the last four are what receipts show (PCI DSS 3.4).
        if self.0.len() >= 8 && self.0.bytes().all(|byte| byte.is_ascii_digit()) {
            write!(f, "*{}", &self.0[self.0.len() - 4..])
        } else {
            f.write_str(&self.0)
        }
    }
}

impl fmt::Debug for CardNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CardNumber({self})")
    }
}

/// A terminal's id: 1 to 8 capitals, digits or hyphens, as in field 41 of ISO 8583.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TerminalId([u8; MAX_TERMINAL_ID_BYTES]);

impl TerminalId {
    /// The terminal with that id.
    ///
    /// # Errors
    /// If the text is not 1 to 8 of `A`–`Z`, `0`–`9` and `-`.
    pub fn new(text: &str) -> Result<TerminalId, InvalidId> {
        let legal = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'-';
        if text.is_empty() || text.len() > MAX_TERMINAL_ID_BYTES || !text.bytes().all(legal) {
            return Err(InvalidId(
                "a terminal id is 1 to 8 of the characters A-Z, 0-9 and -",
            ));
        }
        let mut bytes = [0; MAX_TERMINAL_ID_BYTES];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(TerminalId(bytes))
    }

    /// The id's characters.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len());
        str::from_utf8(&self.0[..end]).expect("a terminal id is ASCII by construction")
    }
}

impl FromStr for TerminalId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<TerminalId, InvalidId> {
        TerminalId::new(text)
    }
}

impl fmt::Display for TerminalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TerminalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TerminalId({self})")
    }
}

/// A transaction's id, made by the client before it asks: a UUIDv7 (RFC 9562), so that ids grow with time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxnId(uuid::Uuid);

impl TxnId {
    /// The last instant that an id can tell, some eight thousand years from now.
    const LAST_MILLIS: i64 = (1 << 48) - 1;

    /// A new id for now.
    pub fn generate() -> TxnId {
        TxnId(uuid::Uuid::now_v7())
    }

    /// A new id for an instant, which is brought within what 48 bits can say; the rest of it is random.
    pub fn at(time: Timestamp) -> TxnId {
        let millis = time.millis().clamp(0, TxnId::LAST_MILLIS) as u64;
        let nanos = (millis % 1000) as u32 * 1_000_000;
        let time = uuid::Timestamp::from_unix(uuid::NoContext, millis / 1000, nanos);
        TxnId(uuid::Uuid::new_v7(time))
    }

    /// The id with these 16 bytes.
    ///
    /// # Errors
    /// If they are no UUIDv7.
    pub fn from_bytes(bytes: [u8; 16]) -> Result<TxnId, InvalidId> {
        let uuid = uuid::Uuid::from_bytes(bytes);
        if uuid.get_version() != Some(uuid::Version::SortRand) || uuid.get_variant() != uuid::Variant::RFC4122
        {
            return Err(InvalidId("a transaction id is a UUID of version 7 (RFC 9562)"));
        }
        Ok(TxnId(uuid))
    }

    /// The 16 bytes, in the order in which ids are compared.
    pub const fn to_bytes(self) -> [u8; 16] {
        *self.0.as_bytes()
    }
}

impl FromStr for TxnId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<TxnId, InvalidId> {
        let uuid = uuid::Uuid::try_parse(text).unwrap_or(uuid::Uuid::nil());
        TxnId::from_bytes(*uuid.as_bytes())
    }
}

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TxnId({self})")
    }
}

/// A place in the journal: rows are 1, 2, 3 …, and 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// Before the first row: what an account without rows depends on.
    pub const ZERO: Lsn = Lsn(0);

    /// The place with that number.
    pub const fn new(number: u64) -> Lsn {
        Lsn(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The next place.
    pub const fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! serial_numbers {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub struct $name(NonZeroU64);

            impl $name {
                /// Number 1.
                pub const FIRST: $name = $name(NonZeroU64::MIN);

                /// The one with that number, unless that is 0.
                pub const fn new(number: u64) -> Option<$name> {
                    match NonZeroU64::new(number) {
                        Some(number) => Some($name(number)),
                        None => None,
                    }
                }

                /// The number.
                pub const fn get(self) -> u64 {
                    self.0.get()
                }

                /// The one that follows `last`, or the first.
                pub fn after(last: Option<$name>) -> $name {
                    last.map_or($name::FIRST, |last| $name(last.0.saturating_add(1)))
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    self.0.fmt(f)
                }
            }
        )*
    };
}

serial_numbers! {
    /// A card's number in the bank file: 1, 2, 3 …, by which journal rows name it.
    CardId;
    /// The number of an operator's action: 1, 2, 3 …
    ActionId;
}

/// The instant in a UUIDv7, by its author's clock.
impl From<TxnId> for Timestamp {
    fn from(id: TxnId) -> Timestamp {
        let bytes = id.to_bytes();
        let millis = bytes[..6]
            .iter()
            .fold(0i64, |millis, &byte| millis << 8 | i64::from(byte));
        Timestamp::from_millis(millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_numbers_are_plain_positive_integers() {
        assert_eq!("1001".parse(), AccountId::new(1001));
        assert_eq!("9223372036854775807".parse(), AccountId::new(i64::MAX as u64));
        for bad in [
            "",
            "0",
            "-1",
            "+1",
            " 1",
            "1.0",
            "9223372036854775808",
            "99999999999999999999",
        ] {
            assert!(bad.parse::<AccountId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn card_numbers_are_short_texts() {
        for good in ["Ken", "Mary Ann O'Neil", "4929123456781234", "Zoë"] {
            assert_eq!(CardNumber::new(good).unwrap().as_str(), good);
        }
        for bad in ["", " Ken", "Ken ", "Ken\n", "K\u{7}en", &"x".repeat(65)] {
            assert!(CardNumber::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_payment_card_is_masked_where_people_and_logs_see_it() {
        let card = CardNumber::new("4929123456781234").unwrap();
        assert_eq!(format!("{card} {card:?}"), "*1234 CardNumber(*1234)");
        assert_eq!(CardNumber::new("Ken").unwrap().to_string(), "Ken");
    }

    #[test]
    fn terminal_ids_are_field_41() {
        assert_eq!(TerminalId::new("ATM-0001").unwrap().to_string(), "ATM-0001");
        assert_eq!(TerminalId::new("A").unwrap().as_str(), "A");
        for bad in ["", "atm1", "ATM-00001", "A B", "Ä"] {
            assert!(TerminalId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn transaction_ids_are_uuids_of_version_7_only() {
        let id = TxnId::generate();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(TxnId::from_bytes(id.to_bytes()), Ok(id));
        for bad in [
            "",
            "7",
            "00000000-0000-0000-0000-000000000000",
            "f47ac10b-58cc-4372-a567-0e02b2c3d479",
        ] {
            assert!(bad.parse::<TxnId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_transaction_id_tells_when_it_was_made() {
        // The example of RFC 9562, appendix A.6: 2022-02-22 19:22:22 UTC.
        let id: TxnId = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f".parse().unwrap();
        assert_eq!(Timestamp::from(id).millis(), 1_645_557_742_000);
    }

    #[test]
    fn a_transaction_id_can_be_made_for_any_instant() {
        for (millis, told) in [
            (0, 0),
            (-1, 0),
            (1_645_557_742_001, 1_645_557_742_001),
            (i64::MAX, TxnId::LAST_MILLIS),
        ] {
            let id = TxnId::at(Timestamp::from_millis(millis));
            assert_eq!(Timestamp::from(id).millis(), told);
            assert_eq!(TxnId::from_bytes(id.to_bytes()), Ok(id));
            assert_ne!(
                id,
                TxnId::at(Timestamp::from_millis(millis)),
                "the rest is random"
            );
        }
    }
}
