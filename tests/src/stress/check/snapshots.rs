//! Snapshots of all balances, read from the bank file with SQLite while it is being served, as an analyst would.
//!
//! No request gives all balances at once, but one read transaction on the file does: the `accounts` table, each row as of
//! some journal row, and the rows since. The SQL is this module's own and none of the bank's.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, params};

use super::history::Books;

/// All balances as of one journal row.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) lsn: u64,
    pub(super) books: Books,
    /// What was deposited since the row that was named, less what was withdrawn.
    pub(super) cash: i64,
}

impl Snapshot {
    /// Reads accounts 1 to `accounts`, and the cash since row `since`, if there is one.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn take(bank: &Path, accounts: u64, since: Option<u64>) -> rusqlite::Result<Snapshot> {
        let mut file = Connection::open_with_flags(bank, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let file = file.transaction()?;
        let mut balances = BTreeMap::new();
        let mut as_of = BTreeMap::new();
        let mut select =
            file.prepare("SELECT account, balance, last_lsn FROM accounts WHERE account <= ?1")?;
        let mut found = select.query([accounts as i64])?;
        while let Some(columns) = found.next()? {
            let account: i64 = columns.get(0)?;
            balances.insert(account as u64, columns.get(1)?);
            as_of.insert(account, columns.get::<_, i64>(2)?);
        }
        let mut lsn = as_of.values().copied().max().unwrap_or(0);
        let oldest = as_of.values().copied().min().unwrap_or(0);
        let mut select = file.prepare(
            "SELECT lsn, account, balance, contra, contra_balance FROM journal
             WHERE lsn > ?1 AND outcome = 0 ORDER BY lsn",
        )?;
        let mut found = select.query([oldest])?;
        while let Some(columns) = found.next()? {
            let row: i64 = columns.get(0)?;
            let payer = (columns.get(1)?, columns.get(2)?);
            let payee = match columns.get(4)? {
                Some(balance) => Some((columns.get(3)?, balance)),
                None => None,
            };
            for (account, balance) in [payer].into_iter().chain(payee) {
                if as_of.get(&account).is_some_and(|as_of| row > *as_of) {
                    balances.insert(account as u64, balance);
                }
            }
            lsn = lsn.max(row);
        }
        let cash = file.query_row(
            "SELECT coalesce(sum(amount), 0) FROM journal
             WHERE lsn > ?1 AND outcome = 0 AND contra < 0 AND account <= ?2",
            params![since.map_or(i64::MAX, |since| since as i64), accounts as i64],
            |columns| columns.get(0),
        )?;
        Ok(Snapshot {
            lsn: lsn as u64,
            books: Books(balances),
            cash,
        })
    }
}

/// What is wrong with the sum of a snapshot's balances, if it was `total` before any of the cash. Without cash it must
/// not have changed, whatever the journal says.
pub(super) fn wrong_sum(snapshot: &Snapshot, total: i64, cash: bool) -> Option<String> {
    let cash = if cash { snapshot.cash } else { 0 };
    let (sum, expected) = (snapshot.books.total(), total + cash);
    (sum != expected).then(|| {
        format!(
            "the balances do not add up: as of row {} of the bank file they sum to {sum} and should to {expected}, \
             {total} at first and {cash:+} of cash since:\n  {}",
            snapshot.lsn, snapshot.books
        )
    })
}
