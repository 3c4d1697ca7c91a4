//! The hash chain over the journal: tamper evidence.
//!
//! Each commit that has rows or operators' actions in it extends the chain: its *head* is the hash of the head before it and of
//! all that the commit added. Whoever has kept an old head, on a receipt for instance, can tell whether what stood in the bank file
//! then still stands there: no row or action can be changed, taken out or put in without changing every head after it.
//!
//! The hash is BLAKE2b with 32 bytes (RFC 7693). `data/README.md` says which bytes go into it, so that others can compute it.

use std::fmt;
use std::str::FromStr;

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use serde::Serialize;

use crate::action::Action;
use crate::ids::{Lsn, TerminalId, TxnId};
use crate::limits::{MAX_ROW_LINK_BYTES, MIN_HEAD_DIGITS};
use crate::protocol::HEAD_BYTES;
use crate::row::Row;

/// What stands for all of the bank's history up to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head(pub [u8; HEAD_BYTES]);

impl Head {
    /// The head of a bank in which nothing has happened.
    pub const FIRST: Head = Head([0; HEAD_BYTES]);
}

impl fmt::Display for Head {
    /// Small hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The chain, as far as it goes.
#[derive(Debug)]
pub struct Chain {
    head: Head,
    /// Of the commit under way.
    hash: Option<Blake2b<U32>>,
}

/// What a commit adds to the chain. The bytes are postcard's.
#[derive(Serialize)]
enum Link<'a> {
    Action {
        action: u64,
        time: i64,
        operator: &'a str,
        command: &'a str,
        subject: &'a str,
        details: &'a str,
        reason: Option<&'a str>,
        request: [u8; 16],
    },
    Row {
        lsn: u64,
        time: i64,
        business_date: i64,
        kind: u8,
        outcome: u8,
        txn_id: Option<[u8; 16]>,
        account: u64,
        contra: i64,
        terminal: &'a str,
        amount: i64,
        balance: i64,
        prev_lsn: u64,
        contra_side: Option<(i64, u64)>,
        original_lsn: Option<u64>,
        card_id: Option<u64>,
        action: Option<u64>,
        period: Option<u32>,
        currency: &'a str,
    },
}

impl Chain {
    /// A chain that goes on from `head`.
    pub fn after(head: Head) -> Chain {
        Chain { head, hash: None }
    }

    /// Links an action. Those of a commit come before its rows.
    pub(crate) fn add_action(&mut self, action: &Action) {
        let link = Link::Action {
            action: action.id.get(),
            time: action.time.millis(),
            operator: &action.operator,
            command: &action.command,
            subject: &action.subject,
            details: &action.details,
            reason: action.reason.as_deref(),
            request: action.request.to_bytes(),
        };
        self.add(&postcard::to_allocvec(&link).expect("a link fits into a vector"));
    }

    /// Links a row.
    pub fn add_row(&mut self, row: &Row) {
        let link = Link::Row {
            lsn: row.lsn.get(),
            time: row.moment.time.millis(),
            business_date: row.moment.date.days().into(),
            kind: row.kind.number(),
            outcome: row.outcome.number(),
            txn_id: row.txn_id.map(TxnId::to_bytes),
            account: row.account.get(),
            contra: row.contra.number(),
            terminal: row.terminal.as_ref().map_or("", TerminalId::as_str),
            amount: row.amount.minor(),
            balance: row.balance.minor(),
            prev_lsn: row.prev_lsn.get(),
            contra_side: row
                .contra_side
                .map(|side| (side.balance.minor(), side.prev_lsn.get())),
            original_lsn: row.original.map(|original| original.lsn.get()),
            card_id: row.card.map(|card| card.get()),
            action: row.action.map(|action| action.get()),
            period: row.period.map(|period| period.number()),
            currency: row.currency.code(),
        };
        // Where all commits are made, so nothing is allocated.
        let mut bytes = [0; MAX_ROW_LINK_BYTES];
        let bytes = postcard::to_slice(&link, &mut bytes).expect("a row's link has a greatest length");
        self.add(bytes);
    }

    /// Adds a link's bytes to what is hashed.
    fn add(&mut self, bytes: &[u8]) {
        let head = &self.head;
        self.hash
            .get_or_insert_with(|| Blake2b::<U32>::new_with_prefix(head.0))
            .update(bytes);
    }

    /// The head with all that was added since the last one: `None` if nothing was.
    pub fn seal(&mut self) -> Option<Head> {
        let hash = self.hash.take()?;
        self.head = Head(hash.finalize().into());
        Some(self.head)
    }
}

/// What a receipt tells of the chain: a row, and the beginning of the head as of its commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptHead {
    /// The row.
    pub lsn: Lsn,
    /// Small hexadecimal digits, the head's first.
    digits: String,
}

impl ReceiptHead {
    /// Whether it is the beginning of this head.
    pub fn is_of(&self, head: &Head) -> bool {
        head.to_string().starts_with(&self.digits)
    }
}

/// What a receipt does not have on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a receipt's record is a row's number, a colon, and at least {MIN_HEAD_DIGITS} hexadecimal digits of the head, such as 1234:9f86d081884c7d65"
)]
pub struct NoReceiptHead;

impl FromStr for ReceiptHead {
    type Err = NoReceiptHead;

    /// Spaces between the digits are left out: a receipt may group them.
    fn from_str(text: &str) -> Result<ReceiptHead, NoReceiptHead> {
        let (lsn, digits) = text.split_once(':').ok_or(NoReceiptHead)?;
        let digits: String = digits
            .chars()
            .filter(|char| !char.is_whitespace())
            .map(|char| char.to_ascii_lowercase())
            .collect();
        let in_bounds = (MIN_HEAD_DIGITS..=2 * HEAD_BYTES).contains(&digits.len());
        if !in_bounds || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NoReceiptHead);
        }
        let lsn = lsn.trim().parse().map(Lsn::new).map_err(|_| NoReceiptHead)?;
        Ok(ReceiptHead { lsn, digits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{AccountId, ActionId, CardId};
    use crate::interest::Period;
    use crate::money::{Currency, Money};
    use crate::row::{Contra, ContraSide, Kind, Original, Outcome};
    use crate::time::{BusinessDate, Moment, Timestamp};
    use crate::transaction::Decline;

    #[test]
    fn the_longest_row_fits_its_link() {
        let most = Lsn::new(u64::MAX);
        let row = Row {
            lsn: most,
            moment: Moment {
                time: Timestamp::from_millis(i64::MIN),
                date: BusinessDate::from_days(i32::MIN),
            },
            kind: Kind::Adjustment,
            outcome: Outcome::Declined(Decline::CannotReverse),
            txn_id: Some(TxnId::generate()),
            account: AccountId::new(i64::MAX as u64).unwrap(),
            contra: Contra::Account(AccountId::new(i64::MAX as u64).unwrap()),
            terminal: Some(TerminalId::new("ATM-9999").unwrap()),
            amount: Money::from_minor(i64::MIN),
            balance: Money::from_minor(i64::MIN),
            prev_lsn: most,
            contra_side: Some(ContraSide {
                balance: Money::from_minor(i64::MIN),
                prev_lsn: most,
            }),
            original: Some(Original {
                lsn: most,
                date: BusinessDate::from_days(i32::MIN),
            }),
            card: CardId::new(u64::MAX),
            action: ActionId::new(u64::MAX),
            period: Period::from_number(999_912).ok(),
            currency: Currency::USD,
        };
        let mut chain = Chain::after(Head::FIRST);
        chain.add_row(&row);
        assert_ne!(chain.seal(), None);
        assert_eq!(chain.seal(), None, "nothing was added since");
    }

    #[test]
    fn a_receipts_head_is_read_as_it_is_printed_or_shortened() {
        let head = Head([0xab; HEAD_BYTES]);
        let whole: ReceiptHead = format!("17:{head}").parse().unwrap();
        assert_eq!(whole.lsn, Lsn::new(17));
        assert!(whole.is_of(&head) && !whole.is_of(&Head::FIRST));
        let short: ReceiptHead = " 17 : ABAB abab abababab ".parse().unwrap();
        assert!(short.is_of(&head));
        for wrong in [
            "17",
            "17:ab",
            "x:abababababababab",
            "17:abababababababax",
            ":",
            "",
            "-1:abababababababab",
        ] {
            assert_eq!(wrong.parse::<ReceiptHead>(), Err(NoReceiptHead), "{wrong:?}");
        }
        assert_eq!(format!("17:{head}0").parse::<ReceiptHead>(), Err(NoReceiptHead));
    }
}
