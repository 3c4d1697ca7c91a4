//! The journal row: both sides of one transaction, approved or declined.

use crate::account::AccountChange;
use crate::ids::{AccountId, ActionId, CardId, Lsn, TerminalId, TxnId};
use crate::interest::Period;
use crate::money::{Currency, Money};
use crate::time::{BusinessDate, Moment};
use crate::transaction::Decline;

/// What a row records. The numbers are stored in the journal: they are only added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A customer put cash into a terminal.
    Deposit = 1,
    /// A customer took cash from a terminal.
    Withdrawal = 2,
    /// A customer paid another.
    Transfer = 3,
    /// The balance with which an account was loaded.
    Opening = 4,
    /// An approved transaction undone. It bears the original's id.
    Reversal = 5,
    /// A customer put cash into a terminal while the bank was away, and the terminal told of it later.
    Advice = 6,
    /// A terminal gave up a transaction that the bank had not seen, so that no late copy of it is done.
    Fence = 7,
    /// What the bank pays for a balance, or takes for an overdrawn one.
    Interest = 8,
    /// What an operator has put right by hand.
    Adjustment = 9,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Kind; 9] = [
        Kind::Deposit,
        Kind::Withdrawal,
        Kind::Transfer,
        Kind::Opening,
        Kind::Reversal,
        Kind::Advice,
        Kind::Fence,
        Kind::Interest,
        Kind::Adjustment,
    ];

    /// The number under which the journal stores it.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The kind with that number.
    pub fn from_number(number: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// The name that scripts and the bank file know it by.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Deposit => "deposit",
            Kind::Withdrawal => "withdrawal",
            Kind::Transfer => "transfer",
            Kind::Opening => "opening",
            Kind::Reversal => "reversal",
            Kind::Advice => "advice",
            Kind::Fence => "fence",
            Kind::Interest => "interest",
            Kind::Adjustment => "adjustment",
        }
    }
}

/// What became of a transaction. Both are durable and final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was done.
    Approved,
    /// A business rule forbade it, and nothing changed.
    Declined(Decline),
}

impl Outcome {
    /// The number under which the journal stores it: 0, or that of the reason.
    pub const fn number(self) -> u8 {
        match self {
            Outcome::Approved => 0,
            Outcome::Declined(decline) => decline.number(),
        }
    }

    /// The outcome with that number.
    pub fn from_number(number: u8) -> Option<Outcome> {
        if number == 0 {
            return Some(Outcome::Approved);
        }
        Decline::from_number(number).map(Outcome::Declined)
    }
}

/// The bank's own side of a posting. There is one for each currency and, for cash, for each terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SystemAccount {
    /// The notes and coins in a terminal; negative, since the bank has them and owes them to nobody.
    Cash = -1,
    /// What was brought in when accounts were loaded.
    Opening = -2,
    /// The interest that the bank has paid, negative, less what it was paid.
    Interest = -3,
    /// What operators have put right.
    Adjustment = -4,
    /// What nobody knows yet where it belongs.
    Suspense = -5,
}

impl SystemAccount {
    /// Every system account, in the order of their numbers.
    pub const ALL: [SystemAccount; 5] = [
        SystemAccount::Cash,
        SystemAccount::Opening,
        SystemAccount::Interest,
        SystemAccount::Adjustment,
        SystemAccount::Suspense,
    ];

    /// The negative number that stands in the journal's `contra` column.
    pub const fn number(self) -> i64 {
        self as i64
    }

    /// The name that people and the bank file know it by.
    pub const fn name(self) -> &'static str {
        match self {
            SystemAccount::Cash => "cash",
            SystemAccount::Opening => "opening",
            SystemAccount::Interest => "interest",
            SystemAccount::Adjustment => "adjustment",
            SystemAccount::Suspense => "suspense",
        }
    }
}

/// The side opposite the account that a row first names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Contra {
    /// A customer, by a transfer.
    Account(AccountId),
    /// The bank itself.
    System(SystemAccount),
}

impl Contra {
    /// The number in the journal's `contra` column: positive for a customer, negative for the bank.
    pub const fn number(self) -> i64 {
        match self {
            Contra::Account(account) => account.get() as i64,
            Contra::System(system) => system.number(),
        }
    }

    /// The contra with that number.
    pub fn from_number(number: i64) -> Option<Contra> {
        if let Ok(number) = u64::try_from(number) {
            return AccountId::new(number).ok().map(Contra::Account);
        }
        SystemAccount::ALL
            .into_iter()
            .find(|system| system.number() == number)
            .map(Contra::System)
    }
}

/// What an approved transfer made of the payee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContraSide {
    /// The payee's balance after the row.
    pub balance: Money,
    /// The payee's previous row.
    pub prev_lsn: Lsn,
}

/// The row that a reversal undoes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Original {
    /// Its place.
    pub lsn: Lsn,
    /// Its business date: a withdrawal undone on the same date gives back the day's allowance, too.
    pub date: BusinessDate,
}

/// One transaction, as it stands in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its place.
    pub lsn: Lsn,
    /// When it was decided.
    pub moment: Moment,
    /// What it records.
    pub kind: Kind,
    /// What became of it.
    pub outcome: Outcome,
    /// The client's id, of a reversal its original's; none for the bank's own postings.
    pub txn_id: Option<TxnId>,
    /// The account that it first names.
    pub account: AccountId,
    /// The other side.
    pub contra: Contra,
    /// Where it was asked for; none for the bank's own postings.
    pub terminal: Option<TerminalId>,
    /// What approval adds to `account`, and takes from the contra: negative for withdrawals and transfers.
    pub amount: Money,
    /// The account's balance after the row.
    pub balance: Money,
    /// The account's previous row.
    pub prev_lsn: Lsn,
    /// The payee's side of an approved transfer, and of its reversal.
    pub contra_side: Option<ContraSide>,
    /// What a reversal undoes.
    pub original: Option<Original>,
    /// The card with which a customer asked for it; a reversal has its original's.
    pub card: Option<CardId>,
    /// The operator's action by which it was posted.
    pub action: Option<ActionId>,
    /// For which month interest is.
    pub period: Option<Period>,
    /// The currency of both sides. It is the account's, and not stored again with each row.
    pub currency: Currency,
}

impl Row {
    /// The id of which the row is the one outcome. A reversal has its original's, which has its outcome already.
    pub fn own_id(&self) -> Option<TxnId> {
        self.txn_id.filter(|_| self.kind != Kind::Reversal)
    }

    /// What the row makes of the account that it first names.
    pub fn account_change(&self) -> AccountChange {
        AccountChange {
            lsn: self.lsn,
            moment: self.moment,
            balance: self.balance,
            withdrawn: self.withdrawn(),
            txn_id: self.own_id(),
            interest: self.interest(),
        }
    }

    /// The month for which the account has its interest by this row.
    fn interest(&self) -> Option<Period> {
        self.period.filter(|_| self.outcome == Outcome::Approved)
    }

    /// What the row adds to the cash withdrawn on its date.
    fn withdrawn(&self) -> Money {
        let cash = self.contra == Contra::System(SystemAccount::Cash) && self.outcome == Outcome::Approved;
        let counts = match (self.kind, self.original) {
            (Kind::Withdrawal, _) => cash,
            // Money given back is that of a withdrawal.
            (Kind::Reversal, Some(original)) => {
                cash && self.amount > Money::ZERO && original.date == self.moment.date
            }
            _ => false,
        };
        if counts {
            Money::from_minor(-self.amount.minor())
        } else {
            Money::ZERO
        }
    }

    /// What the row makes of a payee, if it has one.
    pub fn payee_change(&self) -> Option<(AccountId, AccountChange)> {
        let (Contra::Account(payee), Some(side)) = (self.contra, self.contra_side) else {
            return None;
        };
        let change = AccountChange {
            lsn: self.lsn,
            moment: self.moment,
            balance: side.balance,
            withdrawn: Money::ZERO,
            txn_id: None,
            interest: None,
        };
        Some((payee, change))
    }

    /// What the row makes of each account that it is chained to.
    pub fn changes(&self) -> impl Iterator<Item = (AccountId, AccountChange)> {
        [Some((self.account, self.account_change())), self.payee_change()]
            .into_iter()
            .flatten()
    }

    /// What the row adds to a system account, if it is approved and has one.
    pub fn system_change(&self) -> Option<(SystemLedger, i128)> {
        let (Contra::System(account), Outcome::Approved) = (self.contra, self.outcome) else {
            return None;
        };
        let terminal = self.terminal.filter(|_| account == SystemAccount::Cash);
        let ledger = SystemLedger {
            account,
            currency: self.currency,
            terminal,
        };
        Some((ledger, -i128::from(self.amount.minor())))
    }

    /// This row seen from `account`, or `None` if the row is not chained to it.
    pub fn seen_from(&self, account: AccountId) -> Option<Side> {
        if account == self.account {
            let Row {
                amount,
                balance,
                prev_lsn,
                contra,
                ..
            } = *self;
            return Some(Side {
                amount,
                balance,
                prev_lsn,
                contra,
            });
        }
        let ContraSide { balance, prev_lsn } = self
            .contra_side
            .filter(|_| self.contra == Contra::Account(account))?;
        let amount = Money::from_minor(-self.amount.minor());
        Some(Side {
            amount,
            balance,
            prev_lsn,
            contra: Contra::Account(self.account),
        })
    }
}

/// A row as one of its two accounts sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// What approval adds to the account.
    pub amount: Money,
    /// The account's balance after the row.
    pub balance: Money,
    /// The account's previous row.
    pub prev_lsn: Lsn,
    /// The other side.
    pub contra: Contra,
}

/// One of the bank's own accounts. Their balances are kept by the journal's thread, off the hot path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemLedger {
    /// Which of the bank's accounts.
    pub account: SystemAccount,
    /// In which currency.
    pub currency: Currency,
    /// At which terminal, for cash.
    pub terminal: Option<TerminalId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_numbers_are_kept() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_number(kind.number()), Some(kind));
        }
        for number in 0..=Decline::ALL.len() as u8 {
            assert_eq!(Outcome::from_number(number).map(Outcome::number), Some(number));
        }
        for number in [-5, -4, -3, -2, -1, 1, i64::MAX] {
            assert_eq!(Contra::from_number(number).map(Contra::number), Some(number));
        }
        for number in [0, -99, i64::MIN] {
            assert_eq!(Contra::from_number(number), None);
        }
    }
}
