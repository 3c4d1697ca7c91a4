//! The bank file: one SQLite database that holds accounts, cards, terminals and the journal.
//!
//! Its format is described in `data/README.md`. This module knows SQL; nothing outside it does. It promises
//! that a commit that returned is on disk, that opening serves only what is on disk, and that a failure is
//! told and never papered over. It does not decide anything about money.

mod backup;
mod chain;
mod closing;
mod create;
mod links;
mod open;
mod peppers;
mod reader;
mod rows;
mod schema;
mod statements;
mod terminals;
mod verify;
mod writer;

use std::fs::TryLockError;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

pub use backup::{BackupError, Copied, Newer, Progress, Restored, backup, restore};
pub(crate) use closing::ClosingWithTotals;
pub use closing::{Closing, CurrencyDay, DayReport, Movement, TerminalDay, read_day_report};
pub use create::{
    CardSecurity, ExistingNames, NewAccount, NewCard, append_to_bank, create_bank, existing_names,
};
pub use open::read_pin_profile_of;
pub(crate) use open::{OpenedBank, open_bank};
pub use peppers::{Rotated, Rotation, rotate_pepper};
pub(crate) use reader::History;
pub(crate) use reader::Readers;
pub use reader::{CardOfAccount, StatementLine};
pub use statements::{AccountStatement, BankSnapshot, Dispute, DisputedSide, Holder, Matter, Period, Select};
pub use terminals::add_terminal;
pub use verify::{CurrencyTotals, Proof, verify, verify_with_receipts};
pub use writer::CheckpointPolicy;
pub(crate) use writer::{BankFileWriter, Books};

use crate::files::FileLock;
use crate::limits::BANK_FILE_BUSY_WAIT;

/// What can be wrong with a bank file or the disk under it.
#[derive(Debug, thiserror::Error)]
pub enum BankFileError {
    /// SQLite or the disk failed.
    #[error("{doing}: {source}")]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A file operation beside SQLite failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// On which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// There is no such file.
    #[error("there is no bank file {}: make one with \"atm-server load\" or \"atm-server generate\"", .0.display())]
    Missing(PathBuf),
    /// There is one already.
    #[error("the bank file {} exists: --append adds to it, --replace makes a new one in its place", .0.display())]
    Exists(PathBuf),
    /// The file is something else.
    #[error("{} is no bank file", .0.display())]
    Foreign(PathBuf),
    /// The file is of a version that is no longer known.
    #[error("the bank file {} has version {found}, and this program knows versions {} to {}: use the program that wrote it", path.display(), schema::OLDEST_VERSION, schema::VERSION)]
    TooOld {
        /// Which file.
        path: PathBuf,
        /// The version that it names.
        found: i64,
    },
    /// The file is of a version that is not known yet.
    #[error("the bank file {} has version {found} and was written by a newer program: this one knows versions {} to {}, so use that one", path.display(), schema::OLDEST_VERSION, schema::VERSION)]
    TooNew {
        /// Which file.
        path: PathBuf,
        /// The version that it names.
        found: i64,
    },
    /// Anybody may change the balances.
    #[error("the bank file {} may be written by others: run \"chmod o-w\" on it, after a look at who has", .0.display())]
    Exposed(PathBuf),
    /// The terminal has a secret already.
    #[error(
        "terminal {0} has a secret or a certificate already: --replace gives it a new secret, and an old secret is of no use any more; a \
         certificate still is, and ends the new secret when it is shown"
    )]
    TerminalExists(crate::ids::TerminalId),
    /// Another process has the bank.
    #[error("the bank file {} is in use by another atm-server: stop that one first", .0.display())]
    InUse(PathBuf),
    /// Another process reads the file and keeps its write-ahead log from being emptied.
    #[error("another program is reading the bank file {}: close it and start again", .0.display())]
    BeingRead(PathBuf),
    /// The peppers are not those that the bank's PINs were hashed with.
    #[error(transparent)]
    Pin(Box<crate::pin::PinError>),
    /// The contents contradict themselves.
    #[error("the bank file is damaged: {what}; \"atm-server verify\" tells more")]
    Damaged {
        /// How.
        what: String,
    },
}

impl From<crate::pin::PinError> for BankFileError {
    fn from(error: crate::pin::PinError) -> BankFileError {
        BankFileError::Pin(Box::new(error))
    }
}

impl BankFileError {
    /// For `map_err`: SQLite failed while `doing` something.
    fn sqlite(doing: &'static str) -> impl Fn(rusqlite::Error) -> BankFileError {
        move |source| BankFileError::Sqlite { doing, source }
    }

    /// For `map_err`: the operating system failed at `path`.
    fn io(path: &Path) -> impl Fn(io::Error) -> BankFileError {
        move |source| BankFileError::Io {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn damaged(what: impl Into<String>) -> BankFileError {
        BankFileError::Damaged { what: what.into() }
    }
}

/// The path of the file that belongs to a bank file and has its name with `extension` added.
pub fn beside(bank: &Path, extension: &str) -> PathBuf {
    bank.with_added_extension(extension)
}

/// The file that `path` leads to, past any symbolic links: a bank has one lock and one log, whatever it is called.
fn real_path(path: &Path) -> Result<PathBuf, BankFileError> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
        other => other.map_err(BankFileError::io(path)),
    }
}

/// The advisory lock that keeps a second server or loader from a bank file. It lies beside the file, since
/// SQLite's own locks are released whenever any descriptor of the database is closed.
#[derive(Debug)]
pub struct BankLock {
    _lock: FileLock,
}

impl BankLock {
    /// Takes the lock, or says at once that somebody has it.
    ///
    /// # Errors
    /// [`BankFileError::InUse`], or [`BankFileError::Io`] if the lock file cannot be made.
    pub fn take(bank: &Path) -> Result<BankLock, BankFileError> {
        let path = beside(bank, "lock");
        match FileLock::take(&path) {
            Ok(lock) => Ok(BankLock { _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(BankFileError::InUse(bank.to_owned())),
            Err(TryLockError::Error(error)) => Err(BankFileError::io(&path)(error)),
        }
    }
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    ReadOnly,
    ReadWrite,
}

/// Opens a connection to an existing bank file and sets it up as the module promises. Its version is this program's or an
/// older one that is still read.
fn connect(path: &Path, access: Access) -> Result<Connection, BankFileError> {
    let about = path.metadata().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => BankFileError::Missing(path.to_owned()),
        _ => BankFileError::io(path)(error),
    })?;
    if about.permissions().mode() & 0o002 != 0 {
        return Err(BankFileError::Exposed(path.to_owned()));
    }
    // A reader too is opened for writing, since SQLite must be able to read a log that a killed process left;
    // `query_only` then keeps it from changing anything.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = (|| {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BANK_FILE_BUSY_WAIT)?;
        // Closing must not write: after a failed commit nothing may, and otherwise the end is written in order.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        if access == Access::ReadWrite {
            // Somebody may have changed it while the bank was closed.
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
        }
        let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let format = (number("application_id")?, number("user_version")?);
        if access == Access::ReadOnly {
            if let (schema::APPLICATION_ID, version @ schema::OLDEST_VERSION..) = format {
                schema::look_up_to_date(&connection, version)?;
            }
            connection.pragma_update(None, "query_only", true)?;
        }
        Ok((connection, format))
    })();
    match opened {
        Ok((connection, (schema::APPLICATION_ID, schema::OLDEST_VERSION..=schema::VERSION))) => {
            Ok(connection)
        }
        Ok((_, (schema::APPLICATION_ID, found))) => {
            let path = path.to_owned();
            Err(if found > schema::VERSION {
                BankFileError::TooNew { path, found }
            } else {
                BankFileError::TooOld { path, found }
            })
        }
        Ok(_) => Err(BankFileError::Foreign(path.to_owned())),
        Err(rusqlite::Error::SqliteFailure(error, _)) if error.code == ErrorCode::NotADatabase => {
            Err(BankFileError::Foreign(path.to_owned()))
        }
        Err(error) => Err(BankFileError::sqlite("opening the bank file")(error)),
    }
}
