//! What the journal holds, for an operator: an account's statement, the rows of a date, a terminal or an id, and all
//! that there is of an id in dispute.
//!
//! All of it is read in one snapshot, also while the bank is served, and handed on row by row: of a long statement only the places of its rows
//! are held in memory. An account's rows are found along its chain. For all others there is no index, and the journal is
//! read from its beginning, at some million rows a second, and a few hundred thousand of those that are wanted.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, ToSql, named_params, params};

use super::reader::{StatementLine, follow_chain};
use super::rows::{read_account, read_last_lsn, read_row};
use super::schema::{ACCOUNT_COLUMNS, JOURNAL_READ};
use super::terminals::read_terminals;
use super::{Access, BankFileError, connect};
use crate::account::Account;
use crate::ids::{AccountId, CardId, CardNumber, Lsn, TerminalId, TxnId};
use crate::money::{Currency, Money};
use crate::row::{Kind, Row};
use crate::terminal::Terminal;
use crate::time::BusinessDate;

/// A bank file as it was at one moment.
#[derive(Debug)]
pub struct BankSnapshot {
    connection: Connection,
    last_lsn: Lsn,
}

/// The business dates from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// The first; `None` for the bank's first.
    pub from: Option<BusinessDate>,
    /// The last; `None` for the newest.
    pub to: Option<BusinessDate>,
}

/// Which rows of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// Each of them.
    All,
    /// Those of a terminal.
    Terminal(TerminalId),
    /// Those under a transaction id.
    Transaction(TxnId),
}

/// A card that opens an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub card: CardNumber,
    /// Whom it was issued to.
    pub name: String,
}

/// An account's statement, without its rows.
#[derive(Debug)]
pub struct AccountStatement {
    /// The account as of the snapshot.
    pub account: Account,
    /// The cards that open it.
    pub holders: Vec<Holder>,
    /// Its balance before the first of the statement's rows.
    pub opening: Money,
    /// Its balance after the last of them.
    pub closing: Money,
    /// The rows, the newest first.
    rows: Vec<Lsn>,
}

/// All that the journal has under one transaction id.
#[derive(Debug)]
pub struct Dispute {
    /// The newest row that was looked at.
    pub last_lsn: Lsn,
    /// One for each account that first named the id; none if the id never reached the journal.
    pub matters: Vec<Matter>,
}

/// What became of a transaction id on the account that it first named.
#[derive(Debug)]
pub struct Matter {
    /// The id's one outcome.
    pub outcome: Row,
    /// Its reversal, which may have been declined.
    pub reversal: Option<Row>,
    /// The terminal that the outcome was asked for from, if the bank still knows it.
    pub terminal: Option<Terminal>,
    /// The card with which it was asked for; none if the terminal acted for itself, or it was before cards were written down.
    pub card: Option<Holder>,
    /// The accounts whose chains the outcome is in: that which it first names, and the payee of an approved transfer.
    pub sides: Vec<DisputedSide>,
}

/// One account that a disputed row belongs to.
#[derive(Debug)]
pub struct DisputedSide {
    /// The account.
    pub account: AccountId,
    /// The cards that open it.
    pub holders: Vec<Holder>,
    /// The disputed row as the account sees it.
    pub line: StatementLine,
    /// The account's row before it.
    pub before: Option<StatementLine>,
    /// The account's row after it.
    pub after: Option<StatementLine>,
}

impl Period {
    /// All of time.
    pub const ALWAYS: Period = Period { from: None, to: None };

    fn is_over_before(&self, date: BusinessDate) -> bool {
        self.to.is_some_and(|to| to < date)
    }

    fn begins_after(&self, date: BusinessDate) -> bool {
        self.from.is_some_and(|from| date < from)
    }
}

impl BankSnapshot {
    /// Takes a snapshot of a bank file. While it lives, the log of a bank that is being served does not start over.
    ///
    /// # Errors
    /// [`BankFileError`].
    pub fn take(path: &Path) -> Result<BankSnapshot, BankFileError> {
        let connection = connect(path, Access::ReadOnly)?;
        connection
            .execute_batch("BEGIN")
            .map_err(BankFileError::sqlite("taking a snapshot"))?;
        let last_lsn = read_last_lsn(&connection)?;
        Ok(BankSnapshot { connection, last_lsn })
    }

    /// An account's rows of a period, at most the newest `lines` of them. `None` if there is no such account.
    ///
    /// # Errors
    /// [`BankFileError`].
    pub fn account(
        &self,
        id: AccountId,
        period: &Period,
        lines: Option<usize>,
    ) -> Result<Option<AccountStatement>, BankFileError> {
        let Some(account) = self.newest_account(id)? else {
            return Ok(None);
        };
        let (mut opening, mut closing) = (Money::ZERO, None);
        let mut rows = Vec::new();
        // An account's business dates never decrease, so that the period is one piece of its chain.
        follow_chain(&self.connection, id, account.currency, account.last_lsn, |line| {
            let StatementLine { row, side } = line;
            if period.is_over_before(row.moment.date) {
                return true;
            }
            closing.get_or_insert(side.balance);
            if period.begins_after(row.moment.date) || lines == Some(rows.len()) {
                opening = side.balance;
                return false;
            }
            rows.push(row.lsn);
            true
        })?;
        Ok(Some(AccountStatement {
            account,
            holders: self.holders(id)?,
            opening,
            closing: closing.unwrap_or(opening),
            rows,
        }))
    }

    /// Hands on the rows of an account's statement, the oldest first.
    ///
    /// # Errors
    /// [`BankFileError`], and what `each` says.
    pub fn each_line<E: From<BankFileError>>(
        &self,
        statement: &AccountStatement,
        mut each: impl FnMut(StatementLine) -> Result<(), E>,
    ) -> Result<(), E> {
        let Account { id, currency, .. } = statement.account;
        for lsn in statement.rows.iter().rev() {
            each(self.line(id, currency, *lsn)?)?;
        }
        Ok(())
    }

    /// Hands on the selected rows of a period, at most the newest `lines` of them, the oldest first.
    ///
    /// # Errors
    /// [`BankFileError`], and what `each` says.
    pub fn each_row<E: From<BankFileError>>(
        &self,
        select: Select,
        period: &Period,
        lines: Option<usize>,
        mut each: impl FnMut(Row) -> Result<(), E>,
    ) -> Result<(), E> {
        let sqlite = BankFileError::sqlite("reading the journal");
        let (terminal, id) = match &select {
            Select::All => (None, None),
            Select::Terminal(terminal) => (Some(terminal.as_str()), None),
            Select::Transaction(id) => (None, Some(id.to_bytes())),
        };
        let from = period.from.map_or(i64::MIN, |date| date.days().into());
        let to = period.to.map_or(i64::MAX, |date| date.days().into());
        let condition = match select {
            Select::All => "",
            Select::Terminal(_) => "AND terminal = :terminal",
            Select::Transaction(_) => "AND txn_id = :txn_id",
        };
        let condition = format!("business_date BETWEEN :from AND :to {condition}");
        let txn_id = id.as_ref().map(|bytes| &bytes[..]);
        let mut parameters: Vec<(&str, &dyn ToSql)> = vec![(":from", &from), (":to", &to)];
        if terminal.is_some() {
            parameters.push((":terminal", &terminal));
        }
        if txn_id.is_some() {
            parameters.push((":txn_id", &txn_id));
        }
        // Where the newest lines begin is found from the end, so that none of them need be kept.
        let first = match lines {
            None => 0,
            Some(lines) => {
                let newest = format!(
                    "SELECT min(lsn) FROM (SELECT lsn FROM journal WHERE {condition} ORDER BY lsn DESC LIMIT {lines})"
                );
                let first = self
                    .connection
                    .query_row(&newest, &parameters[..], |row| row.get::<_, Option<i64>>(0));
                first.map_err(&sqlite)?.unwrap_or(i64::MAX)
            }
        };
        parameters.push((":first", &first));
        let mut select = self
            .connection
            .prepare(&format!(
                "SELECT {JOURNAL_READ} FROM journal WHERE lsn >= :first AND {condition} ORDER BY lsn"
            ))
            .map_err(&sqlite)?;
        let mut found = select.query(&parameters[..]).map_err(&sqlite)?;
        while let Some(columns) = found.next().map_err(&sqlite)? {
            each(self.row(columns)?)?;
        }
        Ok(())
    }

    /// What the journal has under a transaction id, on whatever account.
    ///
    /// # Errors
    /// [`BankFileError`].
    pub fn dispute(&self, txn_id: TxnId) -> Result<Dispute, BankFileError> {
        let mut rows = Vec::new();
        self.each_row(Select::Transaction(txn_id), &Period::ALWAYS, None, |row| {
            rows.push(row);
            Ok::<_, BankFileError>(())
        })?;
        let (reversals, outcomes): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row: &Row| row.kind == Kind::Reversal);
        let terminals = read_terminals(&self.connection)?;
        let matters = outcomes.into_iter().map(|outcome| {
            Ok(Matter {
                outcome,
                reversal: reversals
                    .iter()
                    .copied()
                    .find(|reversal| reversal.account == outcome.account),
                terminal: terminals
                    .iter()
                    .copied()
                    .find(|terminal| Some(terminal.id) == outcome.terminal),
                card: outcome.card.map(|card| self.card(card)).transpose()?.flatten(),
                sides: outcome
                    .changes()
                    .map(|(account, _)| self.disputed_side(account, &outcome))
                    .collect::<Result<_, _>>()?,
            })
        });
        Ok(Dispute {
            last_lsn: self.last_lsn,
            matters: matters.collect::<Result<_, BankFileError>>()?,
        })
    }

    fn disputed_side(&self, account: AccountId, row: &Row) -> Result<DisputedSide, BankFileError> {
        let after = self
            .connection
            .query_row(
                "SELECT lsn FROM journal WHERE lsn > :lsn
                 AND (account = :account OR (contra = :account AND contra_prev_lsn IS NOT NULL)) ORDER BY lsn LIMIT 1",
                named_params! { ":lsn": row.lsn.get() as i64, ":account": account.get() as i64 },
                |found| found.get::<_, i64>(0),
            )
            .optional()
            .map_err(BankFileError::sqlite("looking for an account's next row"))?;
        let line = self.line(account, row.currency, row.lsn)?;
        let neighbour = |lsn: Lsn| {
            (lsn > Lsn::ZERO)
                .then(|| self.line(account, row.currency, lsn))
                .transpose()
        };
        Ok(DisputedSide {
            account,
            holders: self.holders(account)?,
            line,
            before: neighbour(line.side.prev_lsn)?,
            after: neighbour(after.map_or(Lsn::ZERO, |lsn| Lsn::new(lsn.unsigned_abs())))?,
        })
    }

    /// One row of an account's chain.
    fn line(&self, account: AccountId, currency: Currency, lsn: Lsn) -> Result<StatementLine, BankFileError> {
        let mut found = None;
        follow_chain(&self.connection, account, currency, lsn, |line| {
            found = Some(line);
            false
        })?;
        found.ok_or_else(|| BankFileError::damaged(format!("account {account} has no row {lsn}")))
    }

    fn row(&self, columns: &rusqlite::Row<'_>) -> Result<Row, BankFileError> {
        let number: i64 = columns
            .get("account")
            .map_err(BankFileError::sqlite("reading a journal row"))?;
        let currency: Option<String> = self
            .connection
            .prepare_cached("SELECT currency FROM accounts WHERE account = ?1")
            .and_then(|mut select| select.query_row([number], |row| row.get(0)).optional())
            .map_err(BankFileError::sqlite("reading an account's currency"))?;
        read_row(columns, |_| Currency::from_code(&currency?).ok())
    }

    /// The card with that number in the bank file.
    fn card(&self, id: CardId) -> Result<Option<Holder>, BankFileError> {
        let sqlite = BankFileError::sqlite("reading a card");
        let found: Option<(String, String)> = self
            .connection
            .query_row(
                "SELECT card, holder FROM cards WHERE card_id = ?1",
                [id.get() as i64],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()
            .map_err(&sqlite)?;
        let Some((card, name)) = found else {
            return Ok(None);
        };
        let card =
            CardNumber::new(&card).map_err(|_| BankFileError::damaged(format!("card {id} is impossible")))?;
        Ok(Some(Holder { card, name }))
    }

    /// The cards that open an account.
    fn holders(&self, account: AccountId) -> Result<Vec<Holder>, BankFileError> {
        let sqlite = BankFileError::sqlite("reading an account's cards");
        let mut select = self
            .connection
            .prepare_cached("SELECT card, holder FROM cards WHERE account = ?1 ORDER BY card")
            .map_err(&sqlite)?;
        let mut found = select.query([account.get() as i64]).map_err(&sqlite)?;
        let mut holders = Vec::new();
        while let Some(columns) = found.next().map_err(&sqlite)? {
            let card: String = columns.get(0).map_err(&sqlite)?;
            holders.push(Holder {
                card: CardNumber::new(&card).map_err(|_| {
                    BankFileError::damaged(format!("account {account} has an impossible card"))
                })?,
                name: columns.get(1).map_err(&sqlite)?,
            });
        }
        Ok(holders)
    }

    /// An account as of its newest row.
    fn newest_account(&self, account: AccountId) -> Result<Option<Account>, BankFileError> {
        let Some(mut found) = self.stored_account(account)? else {
            return Ok(None);
        };
        let sqlite = BankFileError::sqlite("looking for an account's newest rows");
        // The `accounts` table may lag behind the journal: look among the rows since for newer ones of this account.
        let mut select = self
            .connection
            .prepare(&format!(
                "SELECT {JOURNAL_READ} FROM journal
                 WHERE lsn > ?1 AND (account = ?2 OR (contra = ?2 AND contra_prev_lsn IS NOT NULL)) ORDER BY lsn"
            ))
            .map_err(&sqlite)?;
        let mut newer = select
            .query(params![found.last_lsn.get() as i64, account.get() as i64])
            .map_err(&sqlite)?;
        while let Some(columns) = newer.next().map_err(&sqlite)? {
            let row = read_row(columns, |_| Some(found.currency))?;
            row.changes()
                .filter(|&(id, _)| id == account)
                .for_each(|(_, change)| found.apply(&change));
        }
        Ok(Some(found))
    }

    fn stored_account(&self, account: AccountId) -> Result<Option<Account>, BankFileError> {
        self.connection
            .query_row(
                &format!("SELECT {ACCOUNT_COLUMNS} FROM accounts WHERE account = ?1"),
                [account.get() as i64],
                |columns| Ok(read_account(columns)),
            )
            .optional()
            .map_err(BankFileError::sqlite("reading an account"))?
            .transpose()
    }
}
