//! The journal's store: group commits, account checkpoints and WAL checkpoints.
//!
//! An *account checkpoint* brings the `accounts` table up to date with the journal, a slice of accounts at a
//! time, inside commits that are made anyway. A *WAL checkpoint* copies SQLite's log into the database: the
//! bulk from a second connection while commits go on, the rest briefly between two commits, so that the log
//! starts over from its beginning and does not grow.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode, params};

use super::chain::{insert_action, insert_commit};
use super::closing::insert_closing;
use super::create::insert_card;
use super::rows::{
    Dirty, INSERT_ROW, Totals, add_to_totals, card_status_name, insert_account, insert_row, write_checkpoint,
};
use super::{Access, BankFileError, OpenedBank, connect};
use crate::account::AccountChange;
use crate::chain::{Chain, Head};
use crate::ids::{AccountId, ActionId, Lsn, TxnId};
use crate::interest::Period;
use crate::journal::{AccountTerms, Batch, Checkpointed, Store, Update};
use crate::limits::{
    ACCOUNT_CHECKPOINT_ROWS, ACCOUNT_CHECKPOINT_SLICE, BANK_FILE_BUSY_RETRIES, BANK_FILE_BUSY_WAIT,
    WAL_CHECKPOINT_BYTES, WAL_RESTART_WAIT, WRITER_CACHE_BYTES,
};
use crate::money::Money;
use crate::row::Kind;
use crate::sync::Mutex;
use crate::time::Timestamp;

/// When checkpoints are made.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointPolicy {
    /// Journal rows between two account checkpoints.
    pub account_checkpoint_rows: u64,
    /// Accounts written with one commit.
    pub account_checkpoint_slice: usize,
    /// Bytes of the write-ahead log from which it is copied.
    pub wal_checkpoint_bytes: u64,
}

impl Default for CheckpointPolicy {
    /// What [`crate::limits`] says.
    fn default() -> CheckpointPolicy {
        CheckpointPolicy {
            account_checkpoint_rows: ACCOUNT_CHECKPOINT_ROWS,
            account_checkpoint_slice: ACCOUNT_CHECKPOINT_SLICE,
            wal_checkpoint_bytes: WAL_CHECKPOINT_BYTES,
        }
    }
}

/// Writes a bank file that [`super::open_bank`] opened.
#[derive(Debug)]
pub(crate) struct BankFileWriter {
    connection: Connection,
    /// Up to here every row is reflected in the `accounts` and `system_accounts` tables.
    checkpoint_lsn: Lsn,
    books: Arc<Mutex<Books>>,
    /// Accounts that changed since the account checkpoint that is under way, or since the last one.
    dirty: Dirty,
    flush: Option<Flush>,
    chain: Chain,
    last_action: Option<ActionId>,
    wal: WalCheckpoints,
    policy: CheckpointPolicy,
    /// Who waits for a checkpoint.
    /// Up to which row it is wanted stands beside it.
    asked_for_checkpoint: Vec<(Lsn, Sender<Checkpointed>)>,
    /// What the last `COMMIT` took, which writes the log and syncs it.
    sync_time: Duration,
}

/// The bank's own accounts as of a row. They are as of the commit that is under way, so whoever reads them waits until the
/// row is durable.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) lsn: Lsn,
    pub(crate) totals: Totals,
}

/// An account checkpoint under way.
#[derive(Debug)]
struct Flush {
    /// What is still to be written, the lowest account last.
    left: Vec<(AccountId, AccountChange)>,
    /// The newest row when it began: the new mark, once all is written.
    lsn: Lsn,
    /// The bank's own totals as of that row.
    totals: Totals,
}

impl BankFileWriter {
    pub(crate) fn new(
        opened: OpenedBank,
        policy: CheckpointPolicy,
    ) -> Result<(BankFileWriter, super::BankLock), BankFileError> {
        let connection = opened.connection;
        connection
            .pragma_update(None, "cache_size", -(WRITER_CACHE_BYTES as i64 / 1024))
            .map_err(BankFileError::sqlite("setting up the bank file"))?;
        let writer = BankFileWriter {
            wal: WalCheckpoints::start(&opened.path, &connection, policy.wal_checkpoint_bytes)?,
            policy,
            connection,
            checkpoint_lsn: opened.checkpoint_lsn,
            books: Arc::new(Mutex::new(Books {
                lsn: opened.last_lsn,
                totals: opened.totals,
            })),
            dirty: opened.dirty,
            flush: None,
            chain: Chain::after(opened.chain.head),
            last_action: opened.chain.last_action,
            asked_for_checkpoint: Vec::new(),
            sync_time: Duration::ZERO,
        };
        Ok((writer, opened.lock))
    }

    /// The bank's own accounts, for others to read.
    pub(crate) fn books(&self) -> Arc<Mutex<Books>> {
        Arc::clone(&self.books)
    }

    /// Copies the whole write-ahead log for those who have asked for a checkpoint. Commits wait for it, which is why it is not done
    /// otherwise.
    fn checkpoint_log(&mut self) -> Result<(), BankFileError> {
        let copied = unless_busy(
            self.connection
                .wal_checkpoint_v2(None::<&str>, CheckpointMode::PASSIVE),
        )
        .map_err(BankFileError::sqlite("copying the write-ahead log"))?;
        let done = Checkpointed {
            lsn: self.checkpoint_lsn,
            whole_log: copied.is_some_and(|(pages, copied)| pages == copied),
        };
        for (_, asked) in self.asked_for_checkpoint.drain(..) {
            let _ = asked.send(done);
        }
        Ok(())
    }

    fn begin_flush(&mut self) {
        let mut left: Vec<_> = std::mem::take(&mut self.dirty).into_iter().collect();
        left.sort_unstable_by_key(|&(id, _)| std::cmp::Reverse(id));
        let books = self.books.lock();
        self.flush = Some(Flush {
            left,
            lsn: books.lsn,
            totals: books.totals.clone(),
        });
    }

    /// Writes the next accounts of the checkpoint under way into the open transaction, and its mark after the
    /// last of them.
    fn write_slice(&mut self, accounts: usize) -> rusqlite::Result<()> {
        let Some(flush) = &mut self.flush else {
            return Ok(());
        };
        let slice = flush.left.split_off(flush.left.len().saturating_sub(accounts));
        let mut update = self.connection.prepare_cached(
            "UPDATE accounts SET balance = ?2, last_lsn = ?3, last_time = ?4, business_date = ?5,
                 withdrawn = CASE WHEN business_date < ?5 THEN ?6 ELSE withdrawn + ?6 END,
                 greatest_txn_id = CASE WHEN ?7 IS NULL OR ?7 < greatest_txn_id THEN greatest_txn_id ELSE ?7 END,
                 interest_period = CASE WHEN ?8 IS NULL OR ?8 < interest_period THEN interest_period ELSE ?8 END
             WHERE account = ?1 AND last_lsn < ?3",
        )?;
        for (id, change) in slice.into_iter().rev() {
            let txn_id = change.txn_id.map(TxnId::to_bytes);
            let changed = update.execute(params![
                id.get() as i64,
                change.balance.minor(),
                change.lsn.get() as i64,
                change.moment.time.millis(),
                change.moment.date.days(),
                change.withdrawn.minor(),
                txn_id.as_ref().map(|bytes| &bytes[..]),
                change.interest.map(Period::number),
            ])?;
            if changed != 1 {
                return Err(rusqlite::Error::StatementChangedRows(changed));
            }
        }
        if flush.left.is_empty() {
            write_checkpoint(&self.connection, flush.lsn, &flush.totals)?;
            self.checkpoint_lsn = flush.lsn;
            self.flush = None;
        }
        Ok(())
    }

    fn write(&mut self, batch: &Batch, slice: usize) -> rusqlite::Result<Option<Head>> {
        for action in &batch.actions {
            insert_action(&self.connection, action)?;
            self.chain.add_action(action);
            self.last_action = Some(action.id);
        }
        {
            let mut insert = self.connection.prepare_cached(&INSERT_ROW)?;
            for row in &batch.rows {
                insert_row(&mut insert, row)?;
                self.chain.add_row(row);
            }
        }
        let head = self.chain.seal();
        if let Some(head) = head {
            let last_lsn = self.books.lock().lsn;
            insert_commit(&self.connection, last_lsn, self.last_action, head)?;
        }
        for update in &batch.updates {
            if let Update::Checkpoint(done) = update {
                self.asked_for_checkpoint
                    .push((self.books.lock().lsn, done.clone()));
            }
            write_update(&self.connection, update)?;
        }
        self.write_slice(slice)?;
        let mut commit = self.connection.prepare_cached("COMMIT")?;
        let began = Instant::now();
        commit.execute([])?;
        self.sync_time = began.elapsed();
        Ok(head)
    }

    fn commit_with_slice(&mut self, batch: &Batch, slice: usize) -> Result<Option<Head>, BankFileError> {
        begin(&self.connection)?;
        let mut books = self.books.lock();
        for row in &batch.rows {
            add_to_totals(&mut books.totals, row);
            books.lsn = row.lsn;
        }
        drop(books);
        // An opening is written with its account.
        for row in batch.rows.iter().filter(|row| row.kind != Kind::Opening) {
            for (id, change) in row.changes() {
                self.dirty
                    .entry(id)
                    .and_modify(|older| *older = older.then(change))
                    .or_insert(change);
            }
        }
        self.write(batch, slice)
            .map_err(BankFileError::sqlite("committing to the bank file"))
    }
}

impl Store for BankFileWriter {
    fn sync_time(&self) -> Duration {
        self.sync_time
    }

    fn commit(&mut self, batch: &Batch) -> Result<Option<Head>, BankFileError> {
        // More than a commit can make dirty, so that the checkpoint gets ahead.
        let slice = self.policy.account_checkpoint_slice.max(4 * batch.rows.len());
        self.commit_with_slice(batch, slice)
    }

    fn maintain(&mut self) -> Result<bool, BankFileError> {
        if self.flush.is_none()
            && self.books.lock().lsn.get() - self.checkpoint_lsn.get() >= self.policy.account_checkpoint_rows
        {
            tracing::debug!(accounts = self.dirty.len(), lsn = %self.books.lock().lsn, "account checkpoint begins");
            self.begin_flush();
        }
        if self.flush.is_none()
            && let Some(&(wanted, _)) = self.asked_for_checkpoint.last()
        {
            if self.checkpoint_lsn < wanted {
                self.begin_flush();
            } else {
                self.checkpoint_log()?;
            }
        }
        self.wal.maintain(&self.connection)?;
        Ok(self.flush.is_some() || !self.asked_for_checkpoint.is_empty())
    }

    fn close(&mut self) -> Result<(), BankFileError> {
        let nothing = Batch::default();
        while self.flush.is_some() {
            self.commit_with_slice(&nothing, usize::MAX)?;
        }
        if self.checkpoint_lsn < self.books.lock().lsn {
            self.begin_flush();
            self.commit_with_slice(&nothing, usize::MAX)?;
        }
        self.wal.stop()?;
        let sqlite = BankFileError::sqlite("finishing the bank file");
        match self
            .connection
            .wal_checkpoint_v2(None::<&str>, CheckpointMode::TRUNCATE)
        {
            Err(rusqlite::Error::SqliteFailure(error, _)) if error.code == ErrorCode::DatabaseBusy => {
                // Nothing is lost: the next opening copies the log.
                tracing::warn!(
                    "another program is reading the bank file: its write-ahead log stays beside it"
                );
                Ok(())
            }
            // Now the last connection that closes may remove the empty log.
            Ok(_) => self
                .connection
                .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
                .map(drop),
            Err(error) => Err(error),
        }
        .map_err(sqlite)
    }
}

/// Begins a transaction. That another process holds the lock is the one failure that is tried again: nothing
/// has been written yet.
fn begin(connection: &Connection) -> Result<(), BankFileError> {
    let mut begin = connection
        .prepare_cached("BEGIN IMMEDIATE")
        .map_err(BankFileError::sqlite("beginning a commit"))?;
    for _ in 0..BANK_FILE_BUSY_RETRIES {
        match begin.execute([]) {
            Err(rusqlite::Error::SqliteFailure(error, _)) if error.code == ErrorCode::DatabaseBusy => {
                tracing::warn!(
                    waited = ?BANK_FILE_BUSY_WAIT,
                    "another program is writing to the bank file and keeps every transaction waiting"
                );
            }
            other => {
                return other
                    .map(drop)
                    .map_err(BankFileError::sqlite("beginning a commit"));
            }
        }
    }
    begin
        .execute([])
        .map(drop)
        .map_err(BankFileError::sqlite("beginning a commit"))
}

fn write_update(connection: &Connection, update: &Update) -> rusqlite::Result<()> {
    match update {
        Update::Card {
            number,
            state,
            _cell: _,
        } => connection
            .prepare_cached("UPDATE cards SET tries = ?2, status = ?3 WHERE card = ?1")?
            .execute(params![
                number.as_str(),
                state.tries,
                card_status_name(state.status)
            ]),
        Update::Pin {
            number,
            pin,
            _cell: _,
        } => connection
            .prepare_cached("UPDATE cards SET pin_hash = ?2, pepper_id = ?3 WHERE card = ?1")?
            .execute(params![number.as_str(), pin.hash, pin.pepper_id]),
        // Counted, and not merely written: SQLite does not write a row that is as it was.
        Update::RefusedLogin => connection
            .prepare_cached("UPDATE bank SET refused_logins = refused_logins + 1")?
            .execute([]),
        Update::StrayLogin => connection
            .prepare_cached("UPDATE bank SET stray_logins = stray_logins + 1")?
            .execute([]),
        Update::Terminal(terminal) => connection
            .prepare_cached(
                "INSERT INTO terminals (terminal, registered, secret_hash, retired) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET secret_hash = excluded.secret_hash, retired = excluded.retired",
            )?
            .execute(params![
                terminal.id.as_str(),
                terminal.registered.millis(),
                terminal.secret_hash.as_ref().map(|hash| &hash.0[..]),
                terminal.retired.map(Timestamp::millis),
            ]),
        Update::Account(AccountTerms {
            account,
            status,
            overdraft_limit,
            daily_limit,
        }) => connection
            .prepare_cached(
                "UPDATE accounts SET status = ?2, overdraft_limit = ?3, daily_limit = ?4 WHERE account = ?1",
            )?
            .execute(params![
                account.get() as i64,
                status.name(),
                overdraft_limit.minor(),
                daily_limit.map(Money::minor),
            ]),
        Update::NewAccount(account) => return insert_account(connection, account),
        Update::NewCard { id, card } => return insert_card(connection, Some(*id), card),
        Update::CutOver(cut_over) => connection
            .prepare_cached("UPDATE bank SET cut_over = ?1")?
            .execute([cut_over.minutes()]),
        Update::Checkpoint(_) => return Ok(()),
        Update::Closing(closing) => return insert_closing(connection, closing),
    }
    .map(drop)
}

/// Keeps SQLite's log short.
#[derive(Debug)]
struct WalCheckpoints {
    path: PathBuf,
    page_bytes: u64,
    copying: bool,
    every_bytes: u64,
    /// The log's size from which the next copy is worth while. After a copy that a reader kept from being
    /// completed it is further away, so that it is not tried at every commit.
    due_bytes: u64,
    /// Set when nothing more may touch the file.
    give_up: Arc<AtomicBool>,
    requests: Option<Sender<()>>,
    results: Receiver<rusqlite::Result<()>>,
    thread: Option<JoinHandle<()>>,
}

impl WalCheckpoints {
    fn start(
        path: &Path,
        connection: &Connection,
        every_bytes: u64,
    ) -> Result<WalCheckpoints, BankFileError> {
        let page_bytes: i64 = connection
            .pragma_query_value(None, "page_size", |row| row.get(0))
            .map_err(BankFileError::sqlite("reading the page size"))?;
        let second = connect(path, Access::ReadWrite)?;
        let give_up = Arc::new(AtomicBool::new(false));
        let given_up = Arc::clone(&give_up);
        let (requests, requests_out) = channel();
        let (results_in, results) = channel();
        let thread = std::thread::Builder::new()
            .name("wal-checkpoint".into())
            .spawn(move || {
                for () in requests_out {
                    if given_up.load(Ordering::Acquire) {
                        return;
                    }
                    let copied = second.wal_checkpoint_v2(None::<&str>, CheckpointMode::PASSIVE);
                    if results_in.send(unless_busy(copied).map(drop)).is_err() {
                        return;
                    }
                }
            })
            .expect("the operating system gives the log's copying its thread");
        Ok(WalCheckpoints {
            path: path.to_owned(),
            page_bytes: page_bytes.unsigned_abs(),
            copying: false,
            every_bytes,
            due_bytes: every_bytes,
            give_up,
            requests: Some(requests),
            results,
            thread: Some(thread),
        })
    }

    fn maintain(&mut self, connection: &Connection) -> Result<(), BankFileError> {
        let sqlite = BankFileError::sqlite("copying the write-ahead log");
        if self.copying {
            match self.results.try_recv() {
                Ok(copied) => {
                    copied.map_err(&sqlite)?;
                    self.copying = false;
                    self.start_over(connection).map_err(&sqlite)?;
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => {
                    return Err(BankFileError::damaged(
                        "the thread that copies the write-ahead log has died",
                    ));
                }
            }
        } else if self.log_bytes(connection).map_err(&sqlite)? >= self.due_bytes
            && let Some(requests) = &self.requests
        {
            self.copying = requests.send(()).is_ok();
        }
        Ok(())
    }

    /// Copies what was committed during the bulk, and lets the log begin anew.
    fn start_over(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        connection.busy_timeout(WAL_RESTART_WAIT)?;
        let restarted = unless_busy(connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::RESTART));
        connection.busy_timeout(BANK_FILE_BUSY_WAIT)?;
        self.due_bytes = if restarted?.is_some() {
            self.every_bytes
        } else {
            let bytes = self.log_bytes(connection)?;
            tracing::debug!(bytes, path = %self.path.display(), "a reader keeps the write-ahead log from starting over");
            bytes + self.every_bytes
        };
        Ok(())
    }

    fn log_bytes(&self, connection: &Connection) -> rusqlite::Result<u64> {
        // Somebody in the way: then it is looked at again after the next commit.
        let pages = unless_busy(connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::NOOP))?
            .map_or(0, |(pages, _)| pages);
        Ok(u64::try_from(pages).unwrap_or(0) * self.page_bytes)
    }

    fn end_thread(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn stop(&mut self) -> Result<(), BankFileError> {
        self.end_thread();
        self.results
            .try_iter()
            .collect::<rusqlite::Result<()>>()
            .map_err(BankFileError::sqlite("copying the write-ahead log"))
    }
}

impl Drop for WalCheckpoints {
    /// Also after a failure the file is let go of only when nothing touches it any more.
    fn drop(&mut self) {
        self.give_up.store(true, Ordering::Release);
        self.end_thread();
    }
}

/// `None` where another connection was in the way, which is no failure of a checkpoint.
fn unless_busy<T>(result: rusqlite::Result<T>) -> rusqlite::Result<Option<T>> {
    match result {
        Err(rusqlite::Error::SqliteFailure(error, _)) if error.code == ErrorCode::DatabaseBusy => Ok(None),
        other => other.map(Some),
    }
}
