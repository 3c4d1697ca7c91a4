//! Terminals in the bank file: read when it is opened, and given their secrets while it is closed.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};

use super::BankFileError;
use super::open::{connect_alone, make_durable};
use crate::ids::TerminalId;
use crate::terminal::{SecretHash, Terminal};
use crate::time::Timestamp;

pub(super) fn read_terminals(connection: &Connection) -> Result<Vec<Terminal>, BankFileError> {
    let sqlite = BankFileError::sqlite("reading the terminals");
    let mut select = connection
        .prepare("SELECT terminal, registered, secret_hash, retired FROM terminals")
        .map_err(&sqlite)?;
    let mut found = select.query([]).map_err(&sqlite)?;
    let mut terminals = Vec::new();
    while let Some(columns) = found.next().map_err(&sqlite)? {
        let name: String = columns.get(0).map_err(&sqlite)?;
        let bad = || BankFileError::damaged(format!("impossible terminal \"{name}\""));
        terminals.push(Terminal {
            id: TerminalId::new(&name).map_err(|_| bad())?,
            registered: Timestamp::from_millis(columns.get(1).map_err(&sqlite)?),
            secret_hash: match columns.get_ref(2).map_err(&sqlite)? {
                ValueRef::Null => None,
                value => Some(SecretHash(
                    value
                        .as_blob()
                        .ok()
                        .and_then(|hash| hash.try_into().ok())
                        .ok_or_else(bad)?,
                )),
            },
            retired: columns
                .get::<_, Option<i64>>(3)
                .map_err(&sqlite)?
                .map(Timestamp::from_millis),
        });
    }
    Ok(terminals)
}

/// Registers a terminal with its secret's hash in a bank that nobody serves. One that registered itself before is given
/// the secret; one that has a secret gets the new one only if it is to `replace` the old.
///
/// # Errors
/// [`BankFileError`], [`BankFileError::TerminalExists`] among them.
pub fn add_terminal(
    path: &Path,
    id: TerminalId,
    secret: SecretHash,
    now: Timestamp,
    replace: bool,
) -> Result<(), BankFileError> {
    let (path, _lock, mut connection) = connect_alone(path)?;
    let sqlite = BankFileError::sqlite("registering a terminal");
    let transaction = connection.transaction().map_err(&sqlite)?;
    let has_secret = transaction
        .query_row(
            "SELECT secret_hash IS NOT NULL AND retired IS NULL FROM terminals WHERE terminal = ?1",
            [id.as_str()],
            |row| row.get(0),
        )
        .optional()
        .map_err(&sqlite)?
        .unwrap_or(false);
    if has_secret && !replace {
        return Err(BankFileError::TerminalExists(id));
    }
    transaction
        .execute(
            "INSERT INTO terminals (terminal, registered, secret_hash) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET secret_hash = excluded.secret_hash, retired = NULL",
            params![id.as_str(), now.millis(), &secret.0[..]],
        )
        .map_err(&sqlite)?;
    transaction.commit().map_err(&sqlite)?;
    make_durable(&connection, &path)
}
