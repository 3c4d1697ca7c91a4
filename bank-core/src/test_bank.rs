//! A small bank for the tests of this crate.

use std::path::PathBuf;

use crate::action::Instruction;
use crate::bank::Bank;
use crate::bank_file::{self, CardSecurity, CheckpointPolicy};
use crate::ids::{AccountId, TxnId};
use crate::ledger::{AccountHandle, Posted};
use crate::loading::AccountList;
use crate::money::{Amount, Currency, Money};
use crate::pin::{Peppers, PinProfile};
use crate::row::Row;
use crate::time::{Moment, Timestamp};
use crate::transaction::{Order, Transaction};

/// A bank of ten accounts with 10.00 each, whose pepper outlives it.
pub(crate) struct Site {
    directory: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new() -> Site {
        let site = Site {
            directory: tempfile::tempdir().unwrap(),
        };
        let list = AccountList::generate(10, Currency::USD, Money::from_minor(1000));
        let (accounts, cards) = list
            .hash_pins(&site.peppers(), PinProfile::Fast, &|_| ())
            .unwrap();
        let security = CardSecurity {
            profile: PinProfile::Fast,
            peppers: &site.peppers(),
        };
        bank_file::create_bank(
            &site.path(),
            false,
            &security,
            moment(0),
            &accounts,
            &cards,
            &|_| (),
        )
        .unwrap();
        site
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("bank.db")
    }

    pub(crate) fn peppers(&self) -> Peppers {
        Peppers::read_or_create(&self.pepper_path()).unwrap()
    }

    pub(crate) fn pepper_path(&self) -> PathBuf {
        self.directory.path().join("pepper")
    }

    pub(crate) fn open(&self) -> Bank {
        Bank::open(&self.path(), self.peppers()).unwrap()
    }

    pub(crate) fn open_with(&self, policy: CheckpointPolicy) -> Bank {
        Bank::open_with(&self.path(), self.peppers(), policy).unwrap()
    }

    pub(crate) fn query(&self, sql: &str) -> i64 {
        rusqlite::Connection::open(self.path())
            .unwrap()
            .query_row(sql, [], |row| row.get(0))
            .unwrap()
    }
}

pub(crate) fn moment(seconds: i64) -> Moment {
    Moment::at(Timestamp::from_millis(1_795_219_200_000 + seconds * 1000))
}

pub(crate) fn account(bank: &Bank, number: u64) -> AccountHandle {
    bank.account(AccountId::new(number).unwrap()).unwrap()
}

/// An order at the terminal ATM-1, with an id of its time.
pub(crate) fn order(transaction: Transaction, now: Moment) -> Order {
    Order {
        txn_id: TxnId::at(now.time),
        terminal: "ATM-1".parse().unwrap(),
        card: None,
        transaction,
    }
}

/// Posts an order and waits, if it is decided, until it is durable.
pub(crate) fn post_order(bank: &Bank, number: u64, order: &Order, now: Moment) -> Posted {
    let slot = bank.journal().reserve_blocking().unwrap();
    let posted = bank.post(slot, &account(bank, number), order, now);
    if let Posted::Decided(row) = posted {
        bank.journal().durable(row.lsn).wait().unwrap();
    }
    posted
}

pub(crate) fn post_at(bank: &Bank, number: u64, transaction: Transaction, now: Moment) -> Row {
    match post_order(bank, number, &order(transaction, now), now) {
        Posted::Decided(row) => row,
        other => panic!("a new id is decided: {other:?}"),
    }
}

/// A new command of an operator.
pub(crate) fn instruction() -> Instruction {
    Instruction::new("op".into(), Some("for the test".into()), TxnId::generate()).unwrap()
}

pub(crate) fn amount(minor: i64) -> Amount {
    Amount::from_minor(minor).unwrap()
}

pub(crate) fn deposit(bank: &Bank, number: u64, minor: i64) -> Row {
    post_at(
        bank,
        number,
        Transaction::Deposit {
            amount: amount(minor),
        },
        moment(1),
    )
}
