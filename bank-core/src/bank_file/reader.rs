//! Reading the bank file while it is served: cards at login, customers' statements, and what became of an id.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension};

use super::chain::{read_action, read_head_at};
use super::closing::{Closing, Computed, DayReport, compute, read_closing, report_of};
use super::rows::{account_id, card_status, read_row};
use super::schema::{ACTION_COLUMNS, JOURNAL_READ};
use super::{Access, BankFileError, connect};
use crate::action::Action;
use crate::card::{Card, CardState};
use crate::chain::Head;
use crate::ids::{AccountId, CardId, CardNumber, Lsn, TxnId};
use crate::interest::Period;
use crate::limits::{MAX_ID_AHEAD, READER_CONNECTIONS};
use crate::money::Currency;
use crate::row::{Kind, Row, Side};
use crate::sync::{Condvar, Mutex};
use crate::time::{BusinessDate, Timestamp};

/// One line of an account's statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatementLine {
    /// The journal row.
    pub row: Row,
    /// The row as the account sees it.
    pub side: Side,
}

/// A card, without what proves its PIN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardOfAccount {
    /// Its number.
    pub number: CardNumber,
    /// Whom it was issued to.
    pub holder: String,
    /// The account that it opens.
    pub account: AccountId,
    /// Its tries and status.
    pub state: CardState,
}

/// What the journal holds under one transaction id.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct History {
    /// The id's one outcome.
    pub(crate) outcome: Option<Row>,
    /// The outcome's reversal.
    pub(crate) reversal: Option<Row>,
}

/// A bounded number of connections that read; who finds none free waits.
#[derive(Debug)]
pub(crate) struct Readers {
    path: PathBuf,
    state: Mutex<ReaderState>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct ReaderState {
    idle: Vec<Connection>,
    open: usize,
}

impl Readers {
    pub(crate) fn new(path: &Path) -> Readers {
        Readers {
            path: path.to_owned(),
            state: Mutex::default(),
            returned: Condvar::new(),
        }
    }

    /// The card with that number, as of the newest commit.
    pub(crate) fn card(&self, number: &CardNumber) -> Result<Option<Card>, BankFileError> {
        self.with(|connection| read_card(connection, number))
    }

    /// The rows of an account from `newest` back, at most `lines` of them, newest first.
    pub(crate) fn statement(
        &self,
        account: AccountId,
        currency: Currency,
        newest: Lsn,
        lines: usize,
    ) -> Result<Vec<StatementLine>, BankFileError> {
        self.with(|connection| walk_chain(connection, account, currency, newest, lines))
    }

    /// What the journal says of an id: rows of the account from `newest` back, as far as they can be its.
    pub(crate) fn history(
        &self,
        account: AccountId,
        currency: Currency,
        newest: Lsn,
        txn_id: TxnId,
    ) -> Result<History, BankFileError> {
        // No row is earlier than its id says, but for what a client's clock may be ahead.
        let earliest = Timestamp::from(txn_id).millis() - MAX_ID_AHEAD.as_millis() as i64;
        let mut history = History::default();
        self.with(|connection| {
            follow_chain(connection, account, currency, newest, |line| {
                let row = line.row;
                if row.txn_id == Some(txn_id) && row.account == account {
                    if row.kind == Kind::Reversal {
                        history.reversal = Some(row);
                    } else {
                        history.outcome = Some(row);
                    }
                }
                history.outcome.is_none() && row.moment.time.millis() >= earliest
            })
        })?;
        Ok(history)
    }

    /// The head of the hash chain as of the commit that a durable row is in.
    pub(crate) fn head_at(&self, lsn: Lsn) -> Result<Option<Head>, BankFileError> {
        self.with(|connection| read_head_at(connection, lsn))
    }

    /// The action that was ordered under that id.
    pub(crate) fn action(&self, request: TxnId) -> Result<Option<Action>, BankFileError> {
        self.with(|connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {ACTION_COLUMNS} FROM actions WHERE request = ?1"
                ))
                .and_then(|mut select| {
                    select
                        .query_row([&request.to_bytes()[..]], |columns| Ok(read_action(columns)))
                        .optional()
                })
                .map_err(BankFileError::sqlite("looking for an operator's action"))?
                .transpose()
        })
    }

    /// One row of the journal, of whichever account.
    pub(crate) fn row_of_any(
        &self,
        lsn: Lsn,
        currency_of: impl FnOnce(AccountId) -> Option<Currency>,
    ) -> Result<Row, BankFileError> {
        self.with(|connection| {
            connection
                .prepare_cached(&format!("SELECT {JOURNAL_READ} FROM journal WHERE lsn = ?1"))
                .and_then(|mut select| {
                    select.query_row([lsn.get() as i64], |columns| Ok(read_row(columns, currency_of)))
                })
                .map_err(BankFileError::sqlite("reading a journal row"))?
        })
    }

    /// Shows every card, in the order of their numbers.
    pub(crate) fn each_card(&self, mut show: impl FnMut(CardOfAccount)) -> Result<(), BankFileError> {
        let sqlite = BankFileError::sqlite("reading the cards");
        self.with(|connection| {
            let mut select = connection
                .prepare_cached("SELECT card, holder, account, tries, status FROM cards ORDER BY card_id")
                .map_err(&sqlite)?;
            let mut found = select.query([]).map_err(&sqlite)?;
            while let Some(columns) = found.next().map_err(&sqlite)? {
                let number: String = columns.get(0).map_err(&sqlite)?;
                let status: String = columns.get(4).map_err(&sqlite)?;
                let bad = |what| BankFileError::damaged(format!("a card has an impossible {what}"));
                show(CardOfAccount {
                    number: CardNumber::new(&number).map_err(|_| bad("number"))?,
                    holder: columns.get(1).map_err(&sqlite)?,
                    account: account_id(columns.get(2).map_err(&sqlite)?).ok_or_else(|| bad("account"))?,
                    state: CardState {
                        tries: columns.get(3).map_err(|_| bad("number of tries"))?,
                        status: card_status(&status).ok_or_else(|| bad("status"))?,
                    },
                });
            }
            Ok(())
        })
    }

    /// The newest commands of operators, the newest first.
    pub(crate) fn actions(&self, lines: usize) -> Result<Vec<Action>, BankFileError> {
        let sqlite = BankFileError::sqlite("reading operators' actions");
        self.with(|connection| {
            let mut select = connection
                .prepare_cached(&format!(
                    "SELECT {ACTION_COLUMNS} FROM actions ORDER BY action DESC LIMIT ?1"
                ))
                .map_err(&sqlite)?;
            let mut found = select.query([lines as i64]).map_err(&sqlite)?;
            let mut actions = Vec::new();
            while let Some(columns) = found.next().map_err(&sqlite)? {
                actions.push(read_action(columns)?);
            }
            Ok(actions)
        })
    }

    /// What was ordered of interest for a month, if that was something else.
    pub(crate) fn other_interest(
        &self,
        details: &str,
        period: Period,
    ) -> Result<Option<String>, BankFileError> {
        self.with(|connection| {
            connection
                .query_row(
                    "SELECT details FROM actions WHERE command = 'interest' AND details LIKE '% for ' || ?2 AND details <> ?1",
                    [details, &period.to_string()],
                    |row| row.get(0),
                )
                .optional()
                .map_err(BankFileError::sqlite("looking for an operator's action"))
        })
    }

    /// The newest closing.
    pub(crate) fn newest_closing(&self) -> Result<Option<Closing>, BankFileError> {
        self.with(|connection| read_closing(connection, None))
    }

    /// The report of the closing that has closed a date.
    pub(crate) fn day_report(&self, date: BusinessDate) -> Result<Option<DayReport>, BankFileError> {
        self.with(|connection| report_of(connection, Some(date)))
    }

    /// Adds up the dates up to that of `closing`. All rows up to its newest must be durable.
    pub(crate) fn compute_closing(&self, closing: Closing) -> Result<Computed, BankFileError> {
        self.with(|connection| compute(connection, closing))
    }

    /// Shows the journal's rows after `after` up to `newest`, in their order.
    pub(crate) fn rows_between(
        &self,
        after: Lsn,
        newest: Lsn,
        currency_of: impl Fn(AccountId) -> Option<Currency>,
        mut show: impl FnMut(&Row),
    ) -> Result<(), BankFileError> {
        let sqlite = BankFileError::sqlite("reading the journal");
        self.with(|connection| {
            let mut select = connection
                .prepare_cached(&format!(
                    "SELECT {JOURNAL_READ} FROM journal WHERE lsn > ?1 AND lsn <= ?2 ORDER BY lsn"
                ))
                .map_err(&sqlite)?;
            let mut found = select
                .query([after.get() as i64, newest.get() as i64])
                .map_err(&sqlite)?;
            while let Some(columns) = found.next().map_err(&sqlite)? {
                show(&read_row(columns, &currency_of)?);
            }
            Ok(())
        })
    }

    /// Ends all connections that are idle: for closing the bank.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.open -= state.idle.len();
        state.idle.clear();
    }

    fn with<R>(
        &self,
        read: impl FnOnce(&Connection) -> Result<R, BankFileError>,
    ) -> Result<R, BankFileError> {
        let connection = self.take()?;
        let result = read(&connection);
        self.state.lock().idle.push(connection);
        self.returned.notify_one();
        result
    }

    fn take(&self) -> Result<Connection, BankFileError> {
        let mut state = self.state.lock();
        loop {
            if let Some(connection) = state.idle.pop() {
                return Ok(connection);
            }
            if state.open < READER_CONNECTIONS {
                state.open += 1;
                break;
            }
            self.returned.wait(&mut state);
        }
        drop(state);
        connect(&self.path, Access::ReadOnly).inspect_err(|_| {
            self.state.lock().open -= 1;
            self.returned.notify_one();
        })
    }
}

fn read_card(connection: &Connection, number: &CardNumber) -> Result<Option<Card>, BankFileError> {
    let sqlite = BankFileError::sqlite("reading a card");
    let mut select = connection
        .prepare_cached(
            "SELECT holder, account, pin_hash, pepper_id, tries, status, card_id FROM cards WHERE card = ?1",
        )
        .map_err(&sqlite)?;
    let mut found = select.query([number.as_str()]).map_err(&sqlite)?;
    let Some(columns) = found.next().map_err(&sqlite)? else {
        return Ok(None);
    };
    let bad = |column| BankFileError::damaged(format!("card {number} has an impossible {column}"));
    let status: String = columns.get(5).map_err(&sqlite)?;
    let id: i64 = columns.get(6).map_err(&sqlite)?;
    Ok(Some(Card {
        id: CardId::new(id.unsigned_abs()).ok_or_else(|| bad("card_id"))?,
        number: number.clone(),
        holder: columns.get(0).map_err(&sqlite)?,
        account: account_id(columns.get(1).map_err(&sqlite)?).ok_or_else(|| bad("account"))?,
        pin_hash: columns.get(2).map_err(&sqlite)?,
        pepper_id: columns.get(3).map_err(|_| bad("pepper_id"))?,
        state: CardState {
            tries: columns.get(4).map_err(|_| bad("number of tries"))?,
            status: card_status(&status).ok_or_else(|| bad("status"))?,
        },
    }))
}

/// Follows an account's chain of rows back from `newest`.
fn walk_chain(
    connection: &Connection,
    account: AccountId,
    currency: Currency,
    newest: Lsn,
    lines: usize,
) -> Result<Vec<StatementLine>, BankFileError> {
    let mut statement = Vec::new();
    if lines > 0 {
        follow_chain(connection, account, currency, newest, |line| {
            statement.push(line);
            statement.len() < lines
        })?;
    }
    Ok(statement)
}

/// Shows an account's rows from `newest` back, until `go_on` has seen enough.
pub(super) fn follow_chain(
    connection: &Connection,
    account: AccountId,
    currency: Currency,
    newest: Lsn,
    mut go_on: impl FnMut(StatementLine) -> bool,
) -> Result<(), BankFileError> {
    let sqlite = BankFileError::sqlite("following an account's rows");
    let mut select = connection
        .prepare_cached(&format!("SELECT {JOURNAL_READ} FROM journal WHERE lsn = ?1"))
        .map_err(&sqlite)?;
    let mut lsn = newest;
    while lsn > Lsn::ZERO {
        let broken = || BankFileError::damaged(format!("the chain of account {account} breaks at row {lsn}"));
        let mut found = select.query([lsn.get() as i64]).map_err(&sqlite)?;
        let columns = found.next().map_err(&sqlite)?.ok_or_else(broken)?;
        let row = read_row(columns, |_| Some(currency))?;
        let side = row.seen_from(account).ok_or_else(broken)?;
        if side.prev_lsn >= lsn {
            return Err(broken());
        }
        if !go_on(StatementLine { row, side }) {
            break;
        }
        lsn = side.prev_lsn;
    }
    Ok(())
}
