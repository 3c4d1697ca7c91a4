//! The tables of the bank file. `data/README.md` explains them to people.

use rusqlite::{Connection, Transaction, params};

use super::BankFileError;
use super::chain::{insert_commit, link_history};
use super::rows::read_last_lsn;
use crate::chain::{Chain, Head};

use crate::row::{Kind, SystemAccount};
use crate::transaction::Decline;

/// "ATMB": tells `file` and us what kind of database this is.
pub(super) const APPLICATION_ID: i64 = 0x4154_4D42;

/// The version of the tables below.
pub(super) const VERSION: i64 = OLDEST_VERSION + UPGRADES.len() as i64;

/// The oldest version that is still read, and brought to [`VERSION`] when it is opened for writing.
pub(super) const OLDEST_VERSION: i64 = 2;

type Upgrade = fn(&Transaction<'_>) -> Result<(), BankFileError>;

/// Since this version there is a hash chain.
pub(super) const CHAIN_VERSION: i64 = 4;

/// What brings the tables from [`OLDEST_VERSION`] to the next version, from that to the one after it, and so on. A file that
/// was brought up to date has the same tables as a new one, so what is added here is added to [`TABLES`], too.
const UPGRADES: [Upgrade; 2] = [count_refused_logins, keep_for_years];

/// To version 3.
fn count_refused_logins(file: &Transaction<'_>) -> Result<(), BankFileError> {
    file.execute_batch(
        "ALTER TABLE bank ADD COLUMN refused_logins INTEGER NOT NULL DEFAULT 0;
         ALTER TABLE bank ADD COLUMN stray_logins INTEGER NOT NULL DEFAULT 0;",
    )
    .map_err(upgrading)
}

/// To version 4: operators' actions, the hash chain, days that are closed, cards with numbers. All rows so far are one link of the
/// chain.
fn keep_for_years(file: &Transaction<'_>) -> Result<(), BankFileError> {
    file.execute_batch(
        "ALTER TABLE bank ADD COLUMN cut_over INTEGER NOT NULL DEFAULT 0;
         ALTER TABLE accounts ADD COLUMN interest_period INTEGER;
         ALTER TABLE terminals ADD COLUMN retired INTEGER;
         ALTER TABLE journal ADD COLUMN card_id INTEGER;
         ALTER TABLE journal ADD COLUMN action INTEGER;
         ALTER TABLE journal ADD COLUMN period INTEGER;
         ALTER TABLE cards RENAME TO cards_3;
         DROP VIEW journal_text;",
    )
    .and_then(|()| file.execute_batch(CARDS))
    .and_then(|()| {
        file.execute_batch(
            "INSERT INTO cards (card, holder, account, pin_hash, pepper_id, tries, status)
                 SELECT card, holder, account, pin_hash, pepper_id, tries, status FROM cards_3 ORDER BY card;
             DROP TABLE cards_3;",
        )
    })
    .and_then(|()| file.execute_batch(SINCE_4))
    .and_then(|()| file.execute_batch(JOURNAL_TEXT))
    .and_then(|()| fill_names(file))
    .map_err(upgrading)?;
    let mut chain = Chain::after(Head::FIRST);
    link_history(file, &mut chain)?;
    let Some(head) = chain.seal() else { return Ok(()) };
    let last_lsn = read_last_lsn(file)?;
    insert_commit(file, last_lsn, None, head).map_err(upgrading)
}

fn upgrading(error: rusqlite::Error) -> BankFileError {
    BankFileError::sqlite("bringing the bank file up to date")(error)
}

/// Writes down a commit and its head.
pub(super) const INSERT_COMMIT: &str =
    "INSERT INTO commits (last_lsn, last_action, head) VALUES (?1, ?2, ?3)";

/// The columns of a journal row, in the order in which [`super::rows`] reads and writes them.
pub(super) const JOURNAL_COLUMNS: &str = "lsn, time, business_date, kind, outcome, txn_id, account, contra, terminal, \
     amount, balance, prev_lsn, contra_balance, contra_prev_lsn, original_lsn, card_id, action, period";

/// The same for reading: of a reversal's original the business date is wanted, too. Without the CASE, SQLite would begin to
/// look for an original of every row.
pub(super) const JOURNAL_READ: &str = "lsn, time, business_date, kind, outcome, txn_id, account, contra, terminal, \
     amount, balance, prev_lsn, contra_balance, contra_prev_lsn, original_lsn, card_id, action, period, \
     CASE WHEN original_lsn IS NOT NULL THEN \
     (SELECT original.business_date FROM journal AS original WHERE original.lsn = journal.original_lsn) END";

/// The columns of an account, likewise.
pub(super) const ACCOUNT_COLUMNS: &str = "account, currency, status, balance, overdraft_limit, daily_limit, withdrawn, \
     business_date, last_time, last_lsn, greatest_txn_id, interest_period";

/// The columns of an action, likewise.
pub(super) const ACTION_COLUMNS: &str =
    "action, time, operator, command, subject, details, reason, request, lsn";

const TABLES: &str = "
CREATE TABLE bank (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    created INTEGER NOT NULL,
    pin_profile TEXT NOT NULL,
    checkpoint_lsn INTEGER NOT NULL,
    refused_logins INTEGER NOT NULL DEFAULT 0,
    stray_logins INTEGER NOT NULL DEFAULT 0,
    cut_over INTEGER NOT NULL DEFAULT 0
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
    greatest_txn_id BLOB,
    interest_period INTEGER
) STRICT;
CREATE TABLE terminals (
    terminal TEXT PRIMARY KEY,
    registered INTEGER NOT NULL,
    secret_hash BLOB,
    retired INTEGER
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
    original_lsn INTEGER,
    card_id INTEGER,
    action INTEGER,
    period INTEGER
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
";

const CARDS: &str = "
CREATE TABLE cards (
    card_id INTEGER PRIMARY KEY,
    card TEXT NOT NULL UNIQUE,
    holder TEXT NOT NULL,
    account INTEGER NOT NULL REFERENCES accounts,
    pin_hash TEXT NOT NULL,
    pepper_id INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('active', 'blocked'))
) STRICT;
";

/// The tables that version 4 has brought.
const SINCE_4: &str = "
CREATE TABLE actions (
    action INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    operator TEXT NOT NULL,
    command TEXT NOT NULL,
    subject TEXT NOT NULL,
    details TEXT NOT NULL,
    reason TEXT,
    request BLOB NOT NULL UNIQUE,
    lsn INTEGER
) STRICT;
CREATE TABLE commits (
    last_lsn INTEGER NOT NULL,
    last_action INTEGER NOT NULL,
    head BLOB NOT NULL,
    PRIMARY KEY (last_lsn, last_action)
) STRICT, WITHOUT ROWID;
CREATE TABLE closings (
    through INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    last_lsn INTEGER NOT NULL,
    next_lsn INTEGER NOT NULL,
    operator TEXT NOT NULL
) STRICT;
CREATE TABLE closing_totals (
    through INTEGER NOT NULL REFERENCES closings,
    account TEXT NOT NULL,
    currency TEXT NOT NULL,
    terminal TEXT NOT NULL,
    balance TEXT NOT NULL,
    PRIMARY KEY (through, account, currency, terminal)
) STRICT, WITHOUT ROWID;
";

const JOURNAL_TEXT: &str = "
CREATE VIEW journal_text AS
SELECT journal.lsn, strftime('%Y-%m-%d %H:%M:%f', journal.time / 1000.0, 'unixepoch') AS time,
       date(business_date * 86400, 'unixepoch') AS business_date,
       kinds.name AS kind, outcomes.name AS outcome, lower(hex(txn_id)) AS txn_id,
       journal.account, coalesce(system_names.name, contra) AS contra, terminal,
       amount, balance, prev_lsn, contra_balance, contra_prev_lsn, original_lsn,
       card_id, action, period, actions.operator, actions.reason
FROM journal LEFT JOIN kinds USING (kind) LEFT JOIN outcomes USING (outcome)
     LEFT JOIN system_names ON system_names.account = contra
     LEFT JOIN actions USING (action);
";

/// Lets a connection that only reads find an older file's tables as if they were of this version.
pub(super) fn look_up_to_date(connection: &Connection, found: i64) -> rusqlite::Result<()> {
    if found >= VERSION {
        return Ok(());
    }
    // What is temporary is found before what is in the file.
    connection.execute_batch(
        "CREATE TEMP VIEW bank AS SELECT *, 0 AS cut_over FROM main.bank;
         CREATE TEMP VIEW accounts AS SELECT *, NULL AS interest_period FROM main.accounts;
         CREATE TEMP VIEW terminals AS SELECT *, NULL AS retired FROM main.terminals;
         CREATE TEMP VIEW journal AS SELECT *, NULL AS card_id, NULL AS action, NULL AS period FROM main.journal;
         CREATE TEMP VIEW cards AS SELECT row_number() OVER (ORDER BY card) AS card_id, * FROM main.cards;",
    )?;
    connection.execute_batch(&SINCE_4.replace("CREATE TABLE", "CREATE TEMP TABLE"))
}

/// Brings the tables from an older version to this one, all of it or nothing. Nobody else may write meanwhile.
pub(super) fn upgrade(connection: &mut Connection) -> Result<(), BankFileError> {
    let transaction = connection.transaction().map_err(upgrading)?;
    let found = transaction
        .pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))
        .map_err(upgrading)?;
    let behind = usize::try_from(VERSION - found).unwrap_or(0).min(UPGRADES.len());
    if behind > 0 {
        tracing::info!(
            from = found,
            to = VERSION,
            "brings the bank file to this program's version, which takes some seconds for each million rows"
        );
    }
    for upgrade in &UPGRADES[UPGRADES.len() - behind..] {
        upgrade(&transaction)?;
    }
    if behind > 0 {
        transaction
            .pragma_update(None, "user_version", VERSION)
            .map_err(upgrading)?;
    }
    transaction.commit().map_err(upgrading)
}

/// Makes the tables in an empty database.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", VERSION)?;
    for tables in [TABLES, CARDS, SINCE_4, JOURNAL_TEXT] {
        connection.execute_batch(tables)?;
    }
    fill_names(connection)
}

/// Fills the tables that give names to the journal's numbers.
fn fill_names(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("DELETE FROM kinds; DELETE FROM outcomes; DELETE FROM system_names;")?;
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
