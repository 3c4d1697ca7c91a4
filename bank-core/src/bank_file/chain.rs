//! The hash chain in the bank file: operators' actions, commits' heads, and where the chain goes on.

use rusqlite::{Connection, OptionalExtension, params};

use super::BankFileError;
use super::closing::each_row;
use super::rows::read_last_lsn;
use super::schema::{ACTION_COLUMNS, INSERT_COMMIT};
use crate::action::Action;
use crate::chain::{Chain, Head};
use crate::ids::{ActionId, Lsn, TxnId};
use crate::time::Timestamp;

/// Where the chain goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChainEnd {
    /// The newest head.
    pub(crate) head: Head,
    /// The newest action.
    pub(crate) last_action: Option<ActionId>,
}

impl ChainEnd {
    /// Of a bank in which nothing has happened.
    pub(super) const NONE: ChainEnd = ChainEnd {
        head: Head::FIRST,
        last_action: None,
    };
}

/// A commit that has extended the chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Commit {
    pub(super) last_lsn: Lsn,
    pub(super) last_action: u64,
    pub(super) head: Head,
}

/// Where a bank's chain ends.
pub(super) fn read_chain_end(connection: &Connection) -> Result<ChainEnd, BankFileError> {
    let newest = one_commit(
        connection,
        "SELECT last_lsn, last_action, head FROM commits ORDER BY last_lsn DESC, last_action DESC LIMIT 1",
        &[],
    )?;
    Ok(ChainEnd {
        head: newest.map_or(Head::FIRST, |commit| commit.head),
        last_action: newest.and_then(|commit| ActionId::new(commit.last_action)),
    })
}

/// The head as of the commit that a row is in. `None` if no commit has it.
pub(super) fn read_head_at(connection: &Connection, lsn: Lsn) -> Result<Option<Head>, BankFileError> {
    let commit = one_commit(
        connection,
        "SELECT last_lsn, last_action, head FROM commits WHERE last_lsn >= ?1 ORDER BY last_lsn, last_action LIMIT 1",
        &[lsn.get() as i64],
    )?;
    Ok(commit.map(|commit| commit.head))
}

fn one_commit(
    connection: &Connection,
    sql: &str,
    parameters: &[i64],
) -> Result<Option<Commit>, BankFileError> {
    connection
        .prepare_cached(sql)
        .and_then(|mut select| {
            select
                .query_row(rusqlite::params_from_iter(parameters), |columns| {
                    Ok(read_commit(columns))
                })
                .optional()
        })
        .map_err(BankFileError::sqlite("reading the hash chain"))?
        .transpose()
}

/// Reads a commit whose columns are `last_lsn, last_action, head`.
pub(super) fn read_commit(columns: &rusqlite::Row<'_>) -> Result<Commit, BankFileError> {
    let sqlite = BankFileError::sqlite("reading the hash chain");
    let last_lsn: i64 = columns.get(0).map_err(&sqlite)?;
    let last_action: i64 = columns.get(1).map_err(&sqlite)?;
    let bad = || BankFileError::damaged(format!("the commit up to row {last_lsn} has an impossible head"));
    Ok(Commit {
        last_lsn: u64::try_from(last_lsn).map(Lsn::new).map_err(|_| bad())?,
        last_action: u64::try_from(last_action).map_err(|_| bad())?,
        head: Head(columns.get(2).map_err(|_| bad())?),
    })
}

/// Writes down the head of a commit up to this row and action.
pub(super) fn insert_commit(
    connection: &Connection,
    last_lsn: Lsn,
    last_action: Option<ActionId>,
    head: Head,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(INSERT_COMMIT)?
        .execute(params![
            last_lsn.get() as i64,
            last_action.map_or(0, ActionId::get) as i64,
            &head.0[..]
        ])
        .map(drop)
}

pub(super) fn insert_action(connection: &Connection, action: &Action) -> rusqlite::Result<()> {
    connection
        .prepare_cached(&format!(
            "INSERT INTO actions ({ACTION_COLUMNS}) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9)"
        ))?
        .execute(params![
            action.id.get() as i64,
            action.time.millis(),
            action.operator,
            action.command,
            action.subject,
            action.details,
            action.reason,
            &action.request.to_bytes()[..],
            action.lsn.map(|lsn| lsn.get() as i64),
        ])
        .map(drop)
}

/// Reads an action whose columns are [`ACTION_COLUMNS`].
pub(super) fn read_action(columns: &rusqlite::Row<'_>) -> Result<Action, BankFileError> {
    let sqlite = BankFileError::sqlite("reading an operator's action");
    let number: i64 = columns.get(0).map_err(&sqlite)?;
    let bad = || BankFileError::damaged(format!("action {number} is impossible"));
    let lsn: Option<i64> = columns.get(8).map_err(&sqlite)?;
    Ok(Action {
        id: u64::try_from(number)
            .ok()
            .and_then(ActionId::new)
            .ok_or_else(bad)?,
        time: Timestamp::from_millis(columns.get(1).map_err(&sqlite)?),
        operator: columns.get(2).map_err(&sqlite)?,
        command: columns.get(3).map_err(&sqlite)?,
        subject: columns.get(4).map_err(&sqlite)?,
        details: columns.get(5).map_err(&sqlite)?,
        reason: columns.get(6).map_err(&sqlite)?,
        request: columns
            .get(7)
            .ok()
            .and_then(|bytes| TxnId::from_bytes(bytes).ok())
            .ok_or_else(bad)?,
        lsn: match lsn {
            None => None,
            Some(lsn) => Some(u64::try_from(lsn).map(Lsn::new).map_err(|_| bad())?),
        },
    })
}

/// Links every row of the journal, as of a bank that has no chain yet.
pub(super) fn link_history(connection: &Connection, chain: &mut Chain) -> Result<(), BankFileError> {
    each_row(connection, Lsn::new(1), read_last_lsn(connection)?, |row| {
        chain.add_row(&row);
        Ok(())
    })
}
