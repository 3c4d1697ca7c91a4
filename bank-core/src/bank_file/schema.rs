//! The tables of the bank file. `data/README.md` explains them to people.

use rusqlite::{Connection, params};

use crate::row::{Kind, SystemAccount};
use crate::transaction::Decline;

/// "ATMB": tells `file` and us what kind of database this is.
pub(super) const APPLICATION_ID: i64 = 0x4154_4D42;

/// The version of the tables below.
pub(super) const VERSION: i64 = OLDEST_VERSION + UPGRADES.len() as i64;

/// The oldest version that is still read, and brought to [`VERSION`] when it is opened for writing.
pub(super) const OLDEST_VERSION: i64 = 2;

/// What brings the tables from [`OLDEST_VERSION`] to the next version, from that to the one after it, and so on. A file that
/// was brought up to date has the same tables as a new one, so what is added here is added to [`TABLES`], too.
const UPGRADES: [&str; 1] = ["
    ALTER TABLE bank ADD COLUMN refused_logins INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE bank ADD COLUMN stray_logins INTEGER NOT NULL DEFAULT 0;
"];

/// The columns of a journal row, in the order in which [`super::rows`] reads and writes them.
pub(super) const JOURNAL_COLUMNS: &str = "lsn, time, business_date, kind, outcome, txn_id, account, contra, terminal, \
     amount, balance, prev_lsn, contra_balance, contra_prev_lsn, original_lsn";

/// The same for reading: of a reversal's original the business date is wanted, too. Without the CASE, SQLite would begin to
/// look for an original of every row.
pub(super) const JOURNAL_READ: &str = "lsn, time, business_date, kind, outcome, txn_id, account, contra, terminal, \
     amount, balance, prev_lsn, contra_balance, contra_prev_lsn, original_lsn, \
     CASE WHEN original_lsn IS NOT NULL THEN \
     (SELECT original.business_date FROM journal AS original WHERE original.lsn = journal.original_lsn) END";

/// The columns of an account, likewise.
pub(super) const ACCOUNT_COLUMNS: &str = "account, currency, status, balance, overdraft_limit, daily_limit, withdrawn, \
     business_date, last_time, last_lsn, greatest_txn_id";

const TABLES: &str = "
CREATE TABLE bank (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    created INTEGER NOT NULL,
    pin_profile TEXT NOT NULL,
    checkpoint_lsn INTEGER NOT NULL,
    refused_logins INTEGER NOT NULL DEFAULT 0,
    stray_logins INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE peppers (
    pepper_id INTEGER PRIMARY KEY,
    proof TEXT NOT NULL
) STRICT;
CREATE TABLE accounts (
    account INTEGER PRIMARY KEY CHECK (account > 0),
    currency TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('open', 'frozen', 'closed')),
    balance INTEGER NOT NULL,
    overdraft_limit INTEGER NOT NULL CHECK (overdraft_limit >= 0),
    daily_limit INTEGER CHECK (daily_limit >= 0),
    withdrawn INTEGER NOT NULL CHECK (withdrawn >= 0),
    business_date INTEGER NOT NULL,
    last_time INTEGER NOT NULL,
    last_lsn INTEGER NOT NULL,
    greatest_txn_id BLOB
) STRICT;
CREATE TABLE cards (
    card TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    account INTEGER NOT NULL REFERENCES accounts,
    pin_hash TEXT NOT NULL,
    pepper_id INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('active', 'blocked'))
) STRICT, WITHOUT ROWID;
CREATE TABLE terminals (
    terminal TEXT PRIMARY KEY,
    registered INTEGER NOT NULL,
    secret_hash BLOB
) STRICT, WITHOUT ROWID;
CREATE TABLE journal (
    lsn INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    business_date INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    outcome INTEGER NOT NULL,
    txn_id BLOB,
    account INTEGER NOT NULL,
    contra INTEGER NOT NULL,
    terminal TEXT,
    amount INTEGER NOT NULL,
    balance INTEGER NOT NULL,
    prev_lsn INTEGER NOT NULL,
    contra_balance INTEGER,
    contra_prev_lsn INTEGER,
    original_lsn INTEGER
) STRICT;
CREATE TABLE system_accounts (
    account INTEGER NOT NULL,
    currency TEXT NOT NULL,
    terminal TEXT NOT NULL,
    balance TEXT NOT NULL,
    PRIMARY KEY (account, currency, terminal)
) STRICT, WITHOUT ROWID;
CREATE TABLE kinds (kind INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;
CREATE TABLE outcomes (outcome INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;
CREATE TABLE system_names (account INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;
CREATE VIEW journal_text AS
SELECT lsn, strftime('%Y-%m-%d %H:%M:%f', time / 1000.0, 'unixepoch') AS time,
       date(business_date * 86400, 'unixepoch') AS business_date,
       kinds.name AS kind, outcomes.name AS outcome, lower(hex(txn_id)) AS txn_id,
       journal.account, coalesce(system_names.name, contra) AS contra, terminal,
       amount, balance, prev_lsn, contra_balance, contra_prev_lsn, original_lsn
FROM journal LEFT JOIN kinds USING (kind) LEFT JOIN outcomes USING (outcome)
     LEFT JOIN system_names ON system_names.account = contra;
";

/// Brings the tables from an older version to this one, all of it or nothing. Nobody else may write meanwhile.
pub(super) fn upgrade(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let found = transaction.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?;
    let behind = usize::try_from(VERSION - found).unwrap_or(0).min(UPGRADES.len());
    for upgrade in &UPGRADES[UPGRADES.len() - behind..] {
        transaction.execute_batch(upgrade)?;
    }
    if behind > 0 {
        transaction.pragma_update(None, "user_version", VERSION)?;
        tracing::info!(
            from = found,
            to = VERSION,
            "brings the bank file to this program's version"
        );
    }
    transaction.commit()
}

/// Makes the tables in an empty database.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", VERSION)?;
    connection.execute_batch(TABLES)?;
    let mut insert = connection.prepare("INSERT INTO kinds VALUES (?1, ?2)")?;
    for kind in Kind::ALL {
        insert.execute(params![kind.number(), kind.name()])?;
    }
    let mut insert = connection.prepare("INSERT INTO outcomes VALUES (?1, ?2)")?;
    insert.execute(params![0, "approved"])?;
    for decline in Decline::ALL {
        insert.execute(params![decline.number(), decline.name()])?;
    }
    let mut insert = connection.prepare("INSERT INTO system_names VALUES (?1, ?2)")?;
    for system in SystemAccount::ALL {
        insert.execute(params![system.number(), system.name()])?;
    }
    Ok(())
}
