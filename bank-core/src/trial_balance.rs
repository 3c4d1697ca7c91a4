//! Whether the books of an open bank balance, without stopping it.
//!
//! Customers' balances are added up by walking over the accounts in memory while transactions go on, which gives no
//! snapshot: some accounts are seen before a transfer, others after it. But each account tells the newest row that it
//! includes. So the rows since the walk began are read from the journal, and what accounts and the bank's own totals already
//! had of them is taken off again. What is left is exact, as of the row that was the newest when the walk began.
//!
//! It finds balances that do not add up, whatever changed them. [`crate::bank_file::verify`] finds much more, and reads the
//! whole journal for it.

use std::collections::{BTreeMap, HashMap};

use crate::bank::Bank;
use crate::bank_file::BankFileError;
use crate::durable::JournalError;
use crate::ids::{AccountId, Lsn, TerminalId};
use crate::money::{Currency, Money};
use crate::row::{Contra, Outcome, Row, SystemAccount};

/// All accounts of a bank added up, by currency, as of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialBalance {
    /// The row, which is durable.
    pub lsn: Lsn,
    /// The sums.
    pub currencies: BTreeMap<Currency, Sums>,
}

/// The two sides of a currency, in minor units. They sum to zero if the books balance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// All customers' accounts.
    pub customers: i128,
    /// All of the bank's own.
    pub bank: i128,
}

impl TrialBalance {
    /// By how many minor units each currency is out; none if the books balance.
    pub fn differences(&self) -> impl Iterator<Item = (Currency, i128)> {
        self.currencies
            .iter()
            .map(|(&currency, sums)| (currency, sums.customers + sums.bank))
            .filter(|&(_, difference)| difference != 0)
    }
}

/// Why there is no trial balance.
#[derive(Debug, thiserror::Error)]
pub enum TrialBalanceError {
    /// The journal has ended.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal's rows could not be read.
    #[error(transparent)]
    BankFile(#[from] BankFileError),
}

/// What the walk saw.
struct Walk {
    sums: BTreeMap<Currency, Sums>,
    /// The newest row of each account that has one of after the walk's beginning.
    newer: HashMap<AccountId, Lsn>,
}

impl Bank {
    /// Adds up all accounts while transactions go on. It blocks: for some 50 nanoseconds an account, for the disk, and for reading
    /// the rows that were made meanwhile. Nothing is locked but one account at a time.
    ///
    /// # Errors
    /// [`TrialBalanceError`].
    pub fn trial_balance(&self) -> Result<TrialBalance, TrialBalanceError> {
        self.add_up(|| self.ledger.account_ids())
    }

    fn add_up<A: IntoIterator<Item = AccountId>>(
        &self,
        accounts: impl FnOnce() -> A,
    ) -> Result<TrialBalance, TrialBalanceError> {
        let lsn = self.journal().appended_lsn();
        // Only now: an account that was opened up to that row is among them then.
        let Walk { mut sums, newer } = self.walk(lsn, accounts());
        // The bank's totals are as of a commit that has begun, so that one has begun which has all these rows.
        self.journal().durable(lsn).wait()?;
        let books_lsn = {
            let books = self.books.lock();
            for (ledger, total) in &books.totals {
                sums.entry(ledger.currency).or_default().bank += total;
            }
            books.lsn
        };
        let newest = newer.values().copied().fold(books_lsn, Lsn::max);
        self.journal().durable(newest).wait()?;
        self.readers.rows_between(
            lsn,
            newest,
            |id| self.account(id).map(|account| account.currency()),
            |row| take_off(row, &newer, books_lsn, &mut sums),
        )?;
        Ok(TrialBalance {
            lsn,
            currencies: sums,
        })
    }

    /// Every account that was there when row `lsn` was the newest is seen with that row, since a row and its effect on an
    /// account are made under the account's lock.
    fn walk(&self, lsn: Lsn, accounts: impl IntoIterator<Item = AccountId>) -> Walk {
        let mut walk = Walk {
            sums: BTreeMap::new(),
            newer: HashMap::new(),
        };
        for account in accounts.into_iter().filter_map(|id| self.account(id)) {
            let balance = account.balance();
            walk.sums.entry(balance.currency).or_default().customers += i128::from(balance.balance.minor());
            if balance.lsn > lsn {
                walk.newer.insert(account.id(), balance.lsn);
            }
        }
        walk
    }

    /// What cash came into each terminal less what went out, by currency, of the first `terminals` by their ids; and the row
    /// that must be durable before it is shown.
    pub fn cash_by_terminal(&self, terminals: usize) -> (Lsn, BTreeMap<TerminalId, Vec<(Currency, Money)>>) {
        let books = self.books.lock();
        let mut cash = BTreeMap::<_, Vec<_>>::new();
        for (ledger, total) in &books.totals {
            if let (SystemAccount::Cash, Some(terminal)) = (ledger.account, ledger.terminal) {
                // The bank's side is negative where the terminal has cash.
                let minor = (-total).clamp(i64::MIN.into(), i64::MAX.into()) as i64;
                cash.entry(terminal)
                    .or_default()
                    .push((ledger.currency, Money::from_minor(minor)));
                if cash.len() > terminals {
                    cash.pop_last();
                }
            }
        }
        (books.lsn, cash)
    }
}

/// Takes off what the sums already have of a row that came after the walk had begun.
fn take_off(row: &Row, newer: &HashMap<AccountId, Lsn>, books_lsn: Lsn, sums: &mut BTreeMap<Currency, Sums>) {
    if row.outcome != Outcome::Approved {
        return;
    }
    let sums = sums.entry(row.currency).or_default();
    let amount = i128::from(row.amount.minor());
    let has_it = |id| newer.get(&id).is_some_and(|&newest| newest >= row.lsn);
    if has_it(row.account) {
        sums.customers -= amount;
    }
    match row.contra {
        Contra::Account(payee) if has_it(payee) => sums.customers += amount,
        Contra::System(_) if row.lsn <= books_lsn => sums.bank += amount,
        Contra::Account(_) | Contra::System(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TxnId;
    use crate::test_bank::{Site, amount, deposit, moment, post_at, post_order};
    use crate::transaction::{Order, Transaction};

    #[test]
    fn books_balance_to_the_row_whatever_is_done_during_the_walk() {
        let site = Site::new();
        let bank = site.open();
        deposit(&bank, 1, 250);
        let begun = bank.journal().appended_lsn();
        let sums = bank.trial_balance().unwrap().currencies;
        let mut turn = 1;
        let mut post = |number, transaction| {
            turn += 1;
            post_at(&bank, number, transaction, moment(turn));
        };
        // Before each account is looked at: from one that was seen to one that was not, the other way, and with the bank itself.
        let accounts = bank.ledger.account_ids();
        let (first, last) = (accounts[0], accounts[accounts.len() - 1]);
        let busy = accounts.iter().copied().inspect(|_| {
            let (first, last) = (first.get(), last.get());
            let to = |to| AccountId::new(to).unwrap();
            post(
                first,
                Transaction::Transfer {
                    to: to(last),
                    amount: amount(7),
                },
            );
            post(
                last,
                Transaction::Transfer {
                    to: to(first),
                    amount: amount(3),
                },
            );
            post(first, Transaction::Deposit { amount: amount(20) });
            post(last, Transaction::Withdraw { amount: amount(10) });
            post(
                last,
                Transaction::Withdraw {
                    amount: amount(1_000_000),
                },
            );
        });
        let balance = bank.add_up(|| busy).unwrap();
        assert_eq!(
            balance,
            TrialBalance {
                lsn: begun,
                currencies: sums
            }
        );
        assert_eq!(bank.journal().durable_lsn().get(), begun.get() + 50);
        assert_eq!(bank.trial_balance().unwrap().differences().count(), 0);
    }

    #[test]
    fn a_balance_that_nobody_paid_is_found() {
        let site = Site::new();
        let bank = site.open();
        deposit(&bank, 1, 250);
        let sums = bank.trial_balance().unwrap().currencies[&Currency::USD];
        assert_eq!((sums.customers, sums.bank), (10_250, -10_250));
        bank.close().unwrap();
        drop(bank);
        site.query("UPDATE accounts SET balance = balance + 5 WHERE account = 7 RETURNING balance");
        let bank = site.open();
        let differences: Vec<_> = bank.trial_balance().unwrap().differences().collect();
        assert_eq!(differences, [(Currency::USD, 5)]);
    }

    #[test]
    fn cash_is_told_of_the_first_terminals() {
        let site = Site::new();
        let bank = site.open();
        for (terminal, minor) in [("ATM-2", 300), ("ATM-1", 100), ("ATM-3", 50)] {
            let order = Order {
                txn_id: TxnId::at(moment(1).time),
                terminal: terminal.parse().unwrap(),
                card: None,
                transaction: Transaction::Deposit {
                    amount: amount(minor),
                },
            };
            post_order(&bank, 1, &order, moment(1));
        }
        let (_, cash) = bank.cash_by_terminal(2);
        let told: Vec<_> = cash
            .iter()
            .map(|(id, cash)| (id.as_str(), cash[0].1.minor()))
            .collect();
        assert_eq!(told, [("ATM-1", 100), ("ATM-2", 300)]);
    }
}
