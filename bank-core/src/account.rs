//! An account: plain state, and the one way in which it changes.

use crate::ids::{AccountId, Lsn, TxnId};
use crate::interest::Period;
use crate::money::{Currency, Money};
use crate::recent_ids::RecentIds;
use crate::time::{BusinessDate, Moment, Timestamp};

/// What may happen on an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccountStatus {
    /// Everything within its limits.
    Open,
    /// Nothing, until an operator unfreezes it.
    Frozen,
    /// Nothing any more.
    Closed,
}

impl AccountStatus {
    /// Every status.
    pub const ALL: [AccountStatus; 3] = [AccountStatus::Open, AccountStatus::Frozen, AccountStatus::Closed];

    /// The name that people and the bank file know it by.
    pub const fn name(self) -> &'static str {
        match self {
            AccountStatus::Open => "open",
            AccountStatus::Frozen => "frozen",
            AccountStatus::Closed => "closed",
        }
    }

    /// The status with that name.
    pub fn from_name(name: &str) -> Option<AccountStatus> {
        AccountStatus::ALL
            .into_iter()
            .find(|status| status.name() == name)
    }
}

/// A customer's account. It knows no lock: a [`crate::SharedCell`] around it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its number.
    pub id: AccountId,
    /// The currency of every sum below.
    pub currency: Currency,
    /// Whether transactions are allowed.
    pub status: AccountStatus,
    /// What the bank owes the customer; negative when overdrawn.
    pub balance: Money,
    /// How far below zero a customer's transaction may take the balance; zero or more.
    pub overdraft_limit: Money,
    /// The most that may be withdrawn in cash on one business date; `None` is no limit.
    pub daily_limit: Option<Money>,
    /// What was withdrawn in cash on [`Account::business_date`].
    pub withdrawn: Money,
    /// The business date of the newest row.
    pub business_date: BusinessDate,
    /// The instant of the newest row.
    pub last_time: Timestamp,
    /// The newest row that changed or declined to change the account: what a reader of it depends on.
    pub last_lsn: Lsn,
    /// The newest month for which interest was posted.
    pub interest_period: Option<Period>,
    /// The ids of the newest transactions that name this account first.
    pub recent_ids: RecentIds,
}

impl Account {
    /// A new account, empty, on which nothing has happened yet.
    pub fn new(id: AccountId, currency: Currency) -> Account {
        Account {
            id,
            currency,
            status: AccountStatus::Open,
            balance: Money::ZERO,
            overdraft_limit: Money::ZERO,
            daily_limit: None,
            withdrawn: Money::ZERO,
            business_date: BusinessDate::default(),
            last_time: Timestamp::default(),
            last_lsn: Lsn::ZERO,
            interest_period: None,
            recent_ids: RecentIds::default(),
        }
    }

    /// A copy that remembers no ids.
    pub(crate) fn without_recent_ids(&self) -> Account {
        Account {
            recent_ids: RecentIds::default(),
            ..*self
        }
    }

    /// What has been withdrawn in cash on `date`.
    pub fn withdrawn_on(&self, date: BusinessDate) -> Money {
        if date > self.business_date {
            Money::ZERO
        } else {
            self.withdrawn
        }
    }

    /// Copies what a journal row says of this account. It decides nothing, so it serves a live transaction
    /// and the replay of an old one alike.
    pub fn apply(&mut self, change: &AccountChange) {
        debug_assert!(change.lsn > self.last_lsn, "rows are applied in order");
        if let Some(id) = change.txn_id {
            self.recent_ids.keep(id, change.lsn);
        }
        self.interest_period = self.interest_period.max(change.interest);
        self.withdrawn = change.withdrawn_after(self.business_date, self.withdrawn);
        self.business_date = change.moment.date;
        self.balance = change.balance;
        self.last_time = change.moment.time;
        self.last_lsn = change.lsn;
    }
}

/// What one or several consecutive journal rows make of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountChange {
    /// The newest of the rows.
    pub lsn: Lsn,
    /// When the newest row was made.
    pub moment: Moment,
    /// The balance after it.
    pub balance: Money,
    /// What the rows on the newest row's date withdrew in cash; negative if more was given back.
    pub withdrawn: Money,
    /// The greatest transaction id that has its outcome in one of the rows.
    pub txn_id: Option<TxnId>,
    /// The newest month for which the rows posted interest.
    pub interest: Option<Period>,
}

impl AccountChange {
    /// This change followed by a newer one, as one.
    pub fn then(self, newer: AccountChange) -> AccountChange {
        AccountChange {
            withdrawn: newer.withdrawn_after(self.moment.date, self.withdrawn),
            txn_id: newer.txn_id.max(self.txn_id),
            interest: newer.interest.max(self.interest),
            ..newer
        }
    }

    /// What has been withdrawn on this change's date, given what had been on `date` before.
    fn withdrawn_after(&self, date: BusinessDate, withdrawn: Money) -> Money {
        if self.moment.date > date {
            return self.withdrawn;
        }
        // The rules keep a day's withdrawals within an i64, and what is given back of them was among them.
        Money::from_minor(withdrawn.minor().saturating_add(self.withdrawn.minor()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(lsn: u64, day: i32, balance: i64, withdrawn: i64) -> AccountChange {
        AccountChange {
            lsn: Lsn::new(lsn),
            moment: Moment {
                time: Timestamp::from_millis(lsn as i64),
                date: BusinessDate::from_days(day),
            },
            balance: Money::from_minor(balance),
            withdrawn: Money::from_minor(withdrawn),
            txn_id: None,
            interest: Period::from_number(202_600 + lsn as u32).ok(),
        }
    }

    #[test]
    fn changes_one_by_one_equal_the_changes_as_one() {
        let changes = [
            change(1, 5, 100, 0),
            change(2, 5, 90, 10),
            change(4, 6, 85, 5),
            change(7, 6, 65, 20),
            change(9, 7, 70, 0),
        ];
        for split in 1..changes.len() {
            let mut stepwise = Account::new(AccountId::new(1).unwrap(), Currency::USD);
            let mut merged = stepwise.clone();
            changes.iter().for_each(|change| stepwise.apply(change));
            for part in [&changes[..split], &changes[split..]] {
                merged.apply(&part.iter().copied().reduce(AccountChange::then).unwrap());
            }
            assert_eq!(stepwise, merged, "split at {split}");
        }
    }

    #[test]
    fn a_new_business_date_begins_with_nothing_withdrawn() {
        let mut account = Account::new(AccountId::new(1).unwrap(), Currency::USD);
        account.apply(&change(1, 5, 0, 30));
        assert_eq!(account.withdrawn_on(BusinessDate::from_days(5)).minor(), 30);
        assert_eq!(account.withdrawn_on(BusinessDate::from_days(6)).minor(), 0);
        account.apply(&change(2, 6, 0, 0));
        assert_eq!(account.withdrawn.minor(), 0);
    }
}
