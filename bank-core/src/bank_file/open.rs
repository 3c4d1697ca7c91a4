//! Opening: recover, make durable what a killed process left, load, replay.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::wal::CheckpointMode;

use super::chain::{ChainEnd, read_chain_end};
use super::closing::read_closed_through;
use super::peppers::prove_peppers;
use super::rows::{
    Dirty, Totals, add_to_totals, read_account, read_checkpoint_lsn, read_last_lsn, read_row, read_totals,
};
use super::schema::{self, ACCOUNT_COLUMNS, JOURNAL_READ};
use super::terminals::read_terminals;
use super::{Access, BankFileError, BankLock, connect, real_path};
use crate::account::{Account, AccountChange};
use crate::ids::{AccountId, CardId, Lsn};
use crate::ledger::Accounts;
use crate::pin::{Peppers, PinProfile};
use crate::row::Row;
use crate::shared_cell::SharedCell;
use crate::terminal::Terminal;
use crate::time::{BusinessDate, CutOver};

/// A bank file that is ready to be served.
pub(crate) struct OpenedBank {
    pub(crate) lock: BankLock,
    pub(crate) path: PathBuf,
    pub(super) connection: Connection,
    pub(crate) accounts: Accounts,
    pub(crate) last_lsn: Lsn,
    pub(super) checkpoint_lsn: Lsn,
    pub(super) totals: Totals,
    /// What the journal says and the `accounts` table does not say yet.
    pub(super) dirty: Dirty,
    pub(crate) pin_profile: PinProfile,
    pub(crate) terminals: Vec<Terminal>,
    /// Where the hash chain goes on.
    pub(crate) chain: ChainEnd,
    /// The greatest number of a card.
    pub(crate) last_card: Option<CardId>,
    pub(crate) cut_over: CutOver,
    /// The newest business date that is closed.
    pub(crate) closed_through: Option<BusinessDate>,
}

/// Locks the bank file, makes all that it holds durable, and brings every account up to the newest row.
pub(crate) fn open_bank(path: &Path, peppers: &Peppers) -> Result<OpenedBank, BankFileError> {
    let (path, lock, connection) = connect_alone(path)?;
    if prove_peppers(&connection, peppers)? {
        tracing::warn!(
            pepper = peppers.newest(),
            "a rotation that was cut short is finished: PINs are hashed with a new pepper, so back up the pepper file"
        );
    }
    let accounts = load_accounts(&connection)?;
    let mut opened = OpenedBank {
        lock,
        path,
        accounts,
        last_lsn: read_last_lsn(&connection)?,
        checkpoint_lsn: read_checkpoint_lsn(&connection)?,
        totals: read_totals(&connection)?,
        dirty: Dirty::default(),
        pin_profile: read_pin_profile(&connection)?,
        terminals: read_terminals(&connection)?,
        chain: read_chain_end(&connection)?,
        last_card: read_last_card(&connection)?,
        cut_over: read_cut_over(&connection)?,
        closed_through: read_closed_through(&connection)?,
        connection,
    };
    opened.replay()?;
    Ok(opened)
}

/// Locks a bank file, makes all that it holds durable, and brings its tables to this program's version. Gives its real path.
pub(super) fn connect_alone(path: &Path) -> Result<(PathBuf, BankLock, Connection), BankFileError> {
    let path = real_path(path)?;
    let lock = BankLock::take(&path)?;
    let mut connection = connect(&path, Access::ReadWrite)?;
    make_durable(&connection, &path)?;
    schema::upgrade(&mut connection)?;
    Ok((path, lock, connection))
}

/// Rows that a killed process wrote but did not sync are in SQLite's log and readable, yet a power cut could
/// still take them: copying the log into the database syncs both, and emptying it proves that all was copied.
pub(super) fn make_durable(connection: &Connection, path: &Path) -> Result<(), BankFileError> {
    match connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::TRUNCATE) {
        Ok(_) => Ok(()),
        Err(rusqlite::Error::SqliteFailure(error, _)) if error.code == rusqlite::ErrorCode::DatabaseBusy => {
            Err(BankFileError::BeingRead(path.to_owned()))
        }
        Err(error) => Err(BankFileError::sqlite("making the bank file durable")(error)),
    }
}

fn load_accounts(connection: &Connection) -> Result<Accounts, BankFileError> {
    let sqlite = BankFileError::sqlite("loading the accounts");
    let count: i64 = connection
        .query_row("SELECT count(*) FROM accounts", [], |row| row.get(0))
        .map_err(&sqlite)?;
    let accounts = Accounts::with_capacity_and_hasher(
        usize::try_from(count).unwrap_or(0),
        foldhash::fast::RandomState::default(),
    );
    let mut select = connection
        .prepare(&format!("SELECT {ACCOUNT_COLUMNS} FROM accounts"))
        .map_err(&sqlite)?;
    let mut found = select.query([]).map_err(&sqlite)?;
    while let Some(columns) = found.next().map_err(&sqlite)? {
        let account = read_account(columns)?;
        accounts.insert(account.id, Arc::new(SharedCell::new(account)));
    }
    Ok(accounts)
}

/// What a bank's PIN hashes cost.
///
/// # Errors
/// [`BankFileError`].
pub fn read_pin_profile_of(path: &Path) -> Result<PinProfile, BankFileError> {
    read_pin_profile(&connect(path, Access::ReadOnly)?)
}

fn read_pin_profile(connection: &Connection) -> Result<PinProfile, BankFileError> {
    let name: String = connection
        .query_row("SELECT pin_profile FROM bank", [], |row| row.get(0))
        .map_err(BankFileError::sqlite("reading the bank's settings"))?;
    PinProfile::from_name(&name)
        .ok_or_else(|| BankFileError::damaged(format!("unknown PIN profile \"{name}\"")))
}

fn read_last_card(connection: &Connection) -> Result<Option<CardId>, BankFileError> {
    let last: Option<i64> = connection
        .query_row("SELECT max(card_id) FROM cards", [], |row| row.get(0))
        .map_err(BankFileError::sqlite("finding the newest card"))?;
    Ok(last.and_then(|number| CardId::new(number.unsigned_abs())))
}

pub(super) fn read_cut_over(connection: &Connection) -> Result<CutOver, BankFileError> {
    let minutes: i64 = connection
        .query_row("SELECT cut_over FROM bank", [], |row| row.get(0))
        .map_err(BankFileError::sqlite("reading the bank's settings"))?;
    u16::try_from(minutes)
        .ok()
        .and_then(|minutes| CutOver::from_minutes(minutes).ok())
        .ok_or_else(|| BankFileError::damaged(format!("an impossible cut-over, {minutes}")))
}

impl OpenedBank {
    /// Copies the outcomes of the rows since the checkpoint into the accounts that do not have them yet.
    fn replay(&mut self) -> Result<(), BankFileError> {
        let sqlite = BankFileError::sqlite("replaying the journal");
        let mut select = self
            .connection
            .prepare(&format!(
                "SELECT {JOURNAL_READ} FROM journal WHERE lsn > ?1 ORDER BY lsn"
            ))
            .map_err(&sqlite)?;
        let mut found = select
            .query([self.checkpoint_lsn.get() as i64])
            .map_err(&sqlite)?;
        let mut expected = self.checkpoint_lsn;
        while let Some(columns) = found.next().map_err(&sqlite)? {
            let mut account = None;
            let row = read_row(columns, |id| {
                let cell = account.insert(Arc::clone(&*self.accounts.get(&id)?));
                Some(cell.read(|account| account.currency))
            })?;
            expected = expected.next();
            if row.lsn != expected {
                return Err(BankFileError::damaged(format!(
                    "journal row {expected} is missing"
                )));
            }
            add_to_totals(&mut self.totals, &row);
            for (id, change) in row.changes() {
                let prev_lsn = row.seen_from(id).map_or(Lsn::ZERO, |side| side.prev_lsn);
                let cell = match &account {
                    Some(cell) if id == row.account => Arc::clone(cell),
                    _ => self.payee(id, &row)?,
                };
                if apply(&cell, id, prev_lsn, &change)? {
                    self.dirty
                        .entry(id)
                        .and_modify(|older| *older = older.then(change))
                        .or_insert(change);
                }
            }
        }
        for id in self.dirty.keys() {
            if let Some(cell) = self.accounts.get(id).map(|cell| Arc::clone(&*cell)) {
                cell.write(|account| account.recent_ids.close());
            }
        }
        if expected != self.last_lsn {
            return Err(BankFileError::damaged(format!(
                "the checkpoint is at row {expected}, the journal ends at row {}",
                self.last_lsn
            )));
        }
        Ok(())
    }

    fn payee(&self, id: AccountId, row: &Row) -> Result<Arc<SharedCell<Account>>, BankFileError> {
        let cell = self.accounts.get(&id).ok_or_else(|| {
            BankFileError::damaged(format!("journal row {} pays the unknown account {id}", row.lsn))
        })?;
        Ok(Arc::clone(&*cell))
    }
}

/// Applies a change unless the account has it already. Gives whether it did.
fn apply(
    cell: &SharedCell<Account>,
    id: AccountId,
    prev_lsn: Lsn,
    change: &AccountChange,
) -> Result<bool, BankFileError> {
    cell.write(|account| {
        if change.lsn <= account.last_lsn {
            return Ok(false);
        }
        if prev_lsn != account.last_lsn {
            return Err(BankFileError::damaged(format!(
                "journal row {} follows row {prev_lsn} of account {id}, whose newest row is {}",
                change.lsn, account.last_lsn
            )));
        }
        account.apply(change);
        Ok(true)
    })
}
