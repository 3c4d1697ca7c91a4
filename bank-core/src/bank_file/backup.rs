//! Copies of a bank file: taken while it is served, and put in the place of a bank.
//!
//! A copy is one read snapshot: SQLite's online backup reads inside a read transaction, so that it need not begin again when
//! the server commits, and the server commits as ever; only its write-ahead log cannot start over meanwhile. A copy
//! is one whole file without a log, for its owner alone, durable before it has its name, and its books have been proven. The
//! pepper file is no part of it.
//!
//! A bank in whose place a copy is put is never deleted, and what it has and the copy has not is told before anything is done.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::create::{log_of, put_in_place, remove_if_there, remove_logs};
use super::open::make_durable;
use super::peppers::check_peppers;
use super::rows::read_last_lsn;
use super::schema::{self, JOURNAL_COLUMNS};
use super::verify::verify;
use super::{Access, BankFileError, BankLock, beside, connect, real_path};
use crate::files::{sync_directory_of, write_beside};
use crate::ids::Lsn;
use crate::limits::BACKUP_STEP_PAGES;
use crate::pin::Peppers;
use crate::time::Timestamp;

/// Why a bank was not backed up or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// One of the files, or the disk under it.
    #[error(transparent)]
    File(#[from] BankFileError),
    /// The disk did not take the copy's name.
    #[error("making the copy's name durable: {0}")]
    Name(#[from] io::Error),
    /// The copy is to be, or is, the bank.
    #[error("{} is the bank itself, and no copy of it", .0.display())]
    SameFile(PathBuf),
    /// There is something where the copy is to be.
    #[error("{} exists: give the copy another name, or --replace an older copy", .0.display())]
    Exists(PathBuf),
    /// No file can be there.
    #[error("{} is a directory: name the file in it that is to hold the copy", .0.display())]
    Directory(PathBuf),
    /// What would be replaced has a lock or a log: it is no copy, but a bank that somebody serves or has served.
    #[error(
        "{} is not to be replaced by a copy: {} lies beside it, so it is a bank of its own; give the copy another name", path.display(),
        sign.display()
    )]
    Bank {
        /// What would be replaced.
        path: PathBuf,
        /// What lies beside it.
        sign: PathBuf,
    },
    /// The copy's books do not balance.
    #[error(
        "the books of {} do not balance, so nothing was done ({problems} problems; the first: {first}); \"atm-server verify\" tells more",
        path.display()
    )]
    Unbalanced {
        /// The bank or the copy.
        path: PathBuf,
        /// How much is wrong.
        problems: u64,
        /// What is wrong first of all.
        first: String,
    },
    /// The pepper file is not the one that the copy's PINs were hashed with.
    #[error(
        "{0}: it was tried with the copy, which needs the keys of its time. Put the pepper file of that time in its place, or name it \
         with --pepper; with no pepper file there the books are restored all the same, but nobody can log in"
    )]
    Pepper(BankFileError),
    /// The bank has what the copy has not.
    #[error(
        "the bank {} has {newer}: none of it is in the copy. --lose-newer puts the copy in its place all the same, and keeps the bank \
         of now beside it",
        bank.display()
    )]
    WouldLose {
        /// The bank.
        bank: PathBuf,
        /// What the copy has not.
        newer: Box<Newer>,
    },
    /// What the bank has and the copy has not is not known.
    #[error(
        "{source}. So nobody can tell what it has and the copy has not: --lose-newer puts the copy in its place all the same, and keeps \
         it, as it is, beside it"
    )]
    Unreadable {
        /// Why.
        source: Box<BankFileError>,
    },
}

/// A copy of a bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The newest row in it.
    pub lsn: Lsn,
    /// When that row was decided; `None` if there is no row.
    pub time: Option<Timestamp>,
    /// How many accounts it has.
    pub accounts: u64,
    /// How long the file is.
    pub bytes: u64,
}

/// What long work does, for showing how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many of so many pages are copied.
    Copying(u64, u64),
    /// The copy's books are being added up.
    Verifying,
}

/// Copies a bank to `to`, also while it is being served. Whatever happens, `to` then is what it was before or the whole copy. If
/// `prove`, a copy whose books do not balance is given up.
///
/// # Errors
/// [`BackupError`].
pub fn backup(
    bank: &Path,
    to: &Path,
    replace: bool,
    prove: bool,
    progress: &dyn Fn(Progress),
) -> Result<Copied, BackupError> {
    let source = connect(bank, Access::ReadOnly)?;
    check_target(bank, to, replace)?;
    let mut copied = None;
    write_beside(
        to,
        |new| {
            copy(&source, new, progress)?;
            if prove {
                progress(Progress::Verifying);
                check_books(new, bank)?;
            }
            copied = Some(look_at(new)?);
            Ok(())
        },
        |new| {
            let io = |error| BackupError::File(BankFileError::io(to)(error));
            File::open(new).and_then(|file| file.sync_all()).map_err(io)?;
            if replace {
                fs::rename(new, to).map_err(io)
            } else {
                // Unlike renaming, this does not replace what somebody else has put there meanwhile.
                fs::hard_link(new, to).map_err(|error| match error.kind() {
                    io::ErrorKind::AlreadyExists => BackupError::Exists(to.to_owned()),
                    _ => io(error),
                })
            }
        },
    )?;
    Ok(copied.expect("a copy that is in its place was looked at"))
}

/// That a copy may be put at `to`: nothing is there, or an older copy that is to be replaced.
fn check_target(bank: &Path, to: &Path, replace: bool) -> Result<(), BackupError> {
    // A log that lies there would be taken for the copy's.
    for sign in [beside(to, "lock"), log_of(to, "-wal"), log_of(to, "-journal")] {
        if sign.exists() && !is_same_file(bank, to) {
            let path = to.to_owned();
            return Err(BackupError::Bank { path, sign });
        }
    }
    if to.is_dir() {
        return Err(BackupError::Directory(to.to_owned()));
    }
    if is_same_file(bank, to) {
        return Err(BackupError::SameFile(to.to_owned()));
    }
    match to.symlink_metadata() {
        Ok(_) if !replace => Err(BackupError::Exists(to.to_owned())),
        // Whatever else it is, it is not what was meant to be replaced.
        Ok(_) => match connect(to, Access::ReadOnly) {
            Err(error @ (BankFileError::Foreign(_) | BankFileError::Missing(_))) => Err(error.into()),
            _ => Ok(()),
        },
        Err(_) => Ok(()),
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| path.metadata().ok().map(|about| (about.dev(), about.ino()));
    id(one).is_some_and(|one| id(other) == Some(one))
}

/// Copies one snapshot of a database into the new file `to`, which needs no log then.
fn copy(source: &Connection, to: &Path, progress: &dyn Fn(Progress)) -> Result<(), BankFileError> {
    // Made with its final rights before SQLite opens it.
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(BankFileError::io(to))?;
    let copied = (|| {
        // While this lasts, the backup reads what it sees, and never has to begin again.
        let snapshot = source.unchecked_transaction()?;
        snapshot.query_row("SELECT count(*) FROM bank", [], |_| Ok(()))?;
        let mut target = Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // Until it has its name the file is nobody's bank: it needs no protection but the one fsync at the end.
        target.pragma_update(None, "journal_mode", "OFF")?;
        target.pragma_update(None, "synchronous", "OFF")?;
        let backup = Backup::new(&snapshot, &mut target)?;
        loop {
            let step = backup.step(BACKUP_STEP_PAGES.into())?;
            let now = backup.progress();
            let pages = |count: i32| u64::from(count.unsigned_abs());
            progress(Progress::Copying(
                pages(now.pagecount - now.remaining),
                pages(now.pagecount),
            ));
            match step {
                StepResult::Done => break,
                StepResult::More => {}
                // Nobody else knows the copy, and nobody can lock a snapshot that is being read.
                _ => {
                    let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
                    return Err(rusqlite::Error::SqliteFailure(busy, None));
                }
            }
        }
        drop(backup);
        snapshot.finish()?;
        // The pages say that the database is in WAL mode; a file that is to be whole by itself must not be.
        target.pragma_update_and_check(None, "journal_mode", "DELETE", |mode| {
            if mode.get_ref(0)?.as_str()? == "delete" {
                return Ok(());
            }
            Err(rusqlite::Error::InvalidQuery)
        })?;
        target.close().map_err(|(_, error)| error)
    })();
    if copied.is_err() {
        // That they cannot be removed is less than what went wrong before.
        let _ = remove_logs(to);
    }
    copied.map_err(BankFileError::sqlite("copying the bank file"))
}

/// That the books of the copy at `copy` balance; `called` is what a person knows it as.
fn check_books(copy: &Path, called: &Path) -> Result<(), BackupError> {
    let proof = verify(copy)?;
    if proof.holds() {
        return Ok(());
    }
    Err(BackupError::Unbalanced {
        path: called.to_owned(),
        problems: proof.problem_count,
        first: proof.problems.first().cloned().unwrap_or_default(),
    })
}

/// What a copy holds, read from the copy.
fn look_at(copy: &Path) -> Result<Copied, BankFileError> {
    let connection = connect(copy, Access::ReadOnly)?;
    let lsn = read_last_lsn(&connection)?;
    let accounts: i64 = connection
        .query_row("SELECT count(*) FROM accounts", [], |row| row.get(0))
        .map_err(BankFileError::sqlite("counting the copy's accounts"))?;
    Ok(Copied {
        lsn,
        time: time_of(&connection, lsn)?,
        accounts: accounts.unsigned_abs(),
        bytes: copy.metadata().map_err(BankFileError::io(copy))?.len(),
    })
}

fn time_of(connection: &Connection, lsn: Lsn) -> Result<Option<Timestamp>, BankFileError> {
    connection
        .query_row(
            "SELECT time FROM journal WHERE lsn = ?1",
            [lsn.get() as i64],
            |row| row.get(0).map(Timestamp::from_millis),
        )
        .optional()
        .map_err(BankFileError::sqlite("reading a journal row's time"))
}

/// What a bank has that a copy has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newer {
    /// The rows that the copy has not, or has others in their places: the first and the newest, each with its time.
    pub rows: Option<[(Lsn, Timestamp); 2]>,
    /// Cards whose PIN, tries, status or account are not those of the copy.
    pub cards: u64,
    /// Terminals that the copy does not know, or knows by another secret.
    pub terminals: u64,
    /// Accounts whose status or limits are not those of the copy.
    pub accounts: u64,
    /// Operators' commands, closings of business dates among them.
    pub actions: u64,
}

impl Newer {
    /// Whether the copy has all of it.
    pub fn is_nothing(&self) -> bool {
        self.rows.is_none() && self.cards + self.terminals + self.accounts + self.actions == 0
    }

    /// How many rows.
    pub fn row_count(&self) -> u64 {
        self.rows
            .map_or(0, |[(first, _), (last, _)]| last.get() - first.get() + 1)
    }
}

impl fmt::Display for Newer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some([(first, from), (last, to)]) = self.rows {
            parts.push(match self.row_count() {
                1 => format!("a journal row (row {first} of {from} UTC)"),
                count if first == Lsn::ZERO.next() => {
                    format!("{count} journal rows of another history (rows 1 to {last}, {from} to {to} UTC)")
                }
                count => format!("{count} journal rows (rows {first} to {last}, {from} to {to} UTC)"),
            });
        }
        for (count, one, many) in [
            (self.cards, "card", "cards"),
            (self.terminals, "terminal", "terminals"),
            (self.accounts, "account", "accounts"),
        ] {
            match count {
                0 => {}
                1 => parts.push(format!("a {one} that has changed since").replace("a account", "an account")),
                count => parts.push(format!("{count} {many} that have changed since")),
            }
        }
        match self.actions {
            0 => {}
            1 => parts.push("an operator's command".to_owned()),
            count => parts.push(format!("{count} commands of operators")),
        }
        write!(f, "{}", parts.join(", "))
    }
}

/// A bank that was put in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What the bank is now.
    pub copied: Copied,
    /// What the bank that was there had and this one has not; `None` if that is not known, because it could not be read.
    pub lost: Option<Newer>,
    /// Where the bank that was there is now, if there was one.
    pub set_aside: Option<PathBuf>,
}

/// Puts a copy in the place of a bank that nobody serves, if the copy's books balance and, when there are any, the peppers
/// fit it. Whatever happens, `bank` then is what it was before or the whole copy. Unless the caller is ready to `lose_newer`,
/// a bank that has anything which the copy has not stays.
///
/// # Errors
/// [`BackupError`].
pub fn restore(
    from: &Path,
    bank: &Path,
    peppers: Option<&Peppers>,
    lose_newer: bool,
    progress: &dyn Fn(Progress),
) -> Result<Restored, BackupError> {
    let bank = &real_path(bank)?;
    let source = connect(from, Access::ReadOnly)?;
    if is_same_file(from, bank) {
        return Err(BackupError::SameFile(from.to_owned()));
    }
    let _lock = BankLock::take(bank)?;
    let new = beside(bank, "restoring");
    let remove_new = || remove_if_there(&new).and_then(|()| remove_logs(&new));
    // What a restoring that was killed has left.
    remove_new()?;
    let restored = (|| {
        copy(&source, &new, progress)?;
        progress(Progress::Verifying);
        check_books(&new, from)?;
        prepare(&new, peppers)?;
        let copied = look_at(&new)?;
        let (lost, set_aside) = match what_is_there(bank, &new)? {
            Found::Nothing => (None, None),
            Found::Bank(newer) if lose_newer || newer.is_nothing() => {
                (Some(newer), Some(set_aside(bank, Log::IsCopied)?))
            }
            Found::Bank(newer) => {
                return Err(BackupError::WouldLose {
                    bank: bank.clone(),
                    newer: Box::new(newer),
                });
            }
            Found::Unreadable(_) if lose_newer => (None, Some(set_aside(bank, Log::Belongs)?)),
            Found::Unreadable(source) => return Err(BackupError::Unreadable { source }),
        };
        put_in_place(&new, bank)?;
        Ok(Restored {
            copied,
            lost,
            set_aside,
        })
    })();
    if restored.is_err() {
        // It holds every PIN's hash. That it cannot be removed is less than what went wrong before.
        let _ = remove_new();
    }
    restored
}

/// Brings a copy to this program's version, and tries the peppers with it.
fn prepare(new: &Path, peppers: Option<&Peppers>) -> Result<(), BackupError> {
    let mut connection = Connection::open_with_flags(new, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .map_err(BankFileError::sqlite("opening the copy"))?;
    schema::upgrade(&mut connection)?;
    drop(connection);
    match peppers {
        Some(peppers) => check_peppers(&connect(new, Access::ReadOnly)?, peppers)
            .map(drop)
            .map_err(|error| match error {
                error @ BankFileError::Pin(_) => BackupError::Pepper(error),
                other => other.into(),
            }),
        None => Ok(()),
    }
}

/// What is in the place that a copy is to have.
enum Found {
    Nothing,
    Bank(Newer),
    Unreadable(Box<BankFileError>),
}

/// Looks at the bank in whose place a copy is to be put, and makes all that it holds durable.
fn what_is_there(bank: &Path, copy: &Path) -> Result<Found, BankFileError> {
    if !bank.exists() {
        return Ok(Found::Nothing);
    }
    let newer = (|| {
        make_durable(&connect(bank, Access::ReadWrite)?, bank)?;
        // As it is: a bank that is not replaced is not brought to another version, either.
        compare(&connect(bank, Access::ReadOnly)?, copy)
    })();
    match newer {
        Ok(newer) => Ok(Found::Bank(newer)),
        // These are for somebody to see to first, and not damage.
        Err(
            error @ (BankFileError::Foreign(_) | BankFileError::Exposed(_) | BankFileError::BeingRead(_)),
        ) => Err(error),
        Err(error) => Ok(Found::Unreadable(Box::new(error))),
    }
}

/// What a bank has that a copy has not. Both show the same tables.
fn compare(bank: &Connection, copy: &Path) -> Result<Newer, BankFileError> {
    let sqlite = BankFileError::sqlite("comparing the bank with the copy");
    let no_text = || BankFileError::io(copy)(io::ErrorKind::InvalidFilename.into());
    let path = copy.to_str().ok_or_else(no_text)?;
    bank.execute("ATTACH ?1 AS copy", [path]).map_err(&sqlite)?;
    let last = read_last_lsn(bank)?;
    let first = last_common_row(bank)?.next();
    let rows = match (time_of(bank, first)?, time_of(bank, last)?) {
        (Some(from), Some(to)) => Some([(first, from), (last, to)]),
        _ => None,
    };
    let changed = |table: &str, columns: &str| -> Result<u64, BankFileError> {
        let changed = format!(
            "SELECT count(*) FROM (SELECT {columns} FROM {table} EXCEPT SELECT {columns} FROM copy.{table})"
        );
        let count = bank.query_row(&changed, [], |row| row.get::<_, i64>(0));
        count.map(i64::unsigned_abs).map_err(&sqlite)
    };
    Ok(Newer {
        rows,
        cards: changed("cards", "card, account, pin_hash, pepper_id, tries, status")?,
        terminals: changed("terminals", "terminal, secret_hash, retired")?,
        accounts: changed("accounts", "account, status, overdraft_limit, daily_limit")?,
        actions: changed("actions", "action, request")?,
    })
}

/// The newest row up to which the journals of a bank and of the copy attached to it are one history: 0 if they have nothing in
/// common. Rows are only ever added, so that where one row is the same in both, so are all before it.
fn last_common_row(bank: &Connection) -> Result<Lsn, BankFileError> {
    let sqlite = BankFileError::sqlite("comparing the journals");
    let mut is_same = bank
        .prepare(&format!(
            "SELECT {JOURNAL_COLUMNS} FROM journal WHERE lsn = ?1
             INTERSECT SELECT {JOURNAL_COLUMNS} FROM copy.journal WHERE lsn = ?1"
        ))
        .map_err(&sqlite)?;
    let last: Option<i64> = bank
        .query_row(
            "SELECT min((SELECT max(lsn) FROM main.journal), (SELECT max(lsn) FROM copy.journal))",
            [],
            |row| row.get(0),
        )
        .map_err(&sqlite)?;
    let (mut common, mut end) = (0, last.unwrap_or(0).unsigned_abs());
    // The last of them first: nearly always it decides.
    let mut row = end;
    while common < end {
        if is_same.exists([row as i64]).map_err(&sqlite)? {
            common = row;
        } else {
            end = row - 1;
        }
        row = common + (end - common).div_ceil(2);
    }
    Ok(Lsn::new(common))
}

/// Whether a bank's log is copied into it, or a part of it that cannot be copied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Log {
    IsCopied,
    Belongs,
}

/// Gives a bank a second name, under which it stays when another takes its place, and says which. At each moment it is whole
/// under one of its names.
fn set_aside(bank: &Path, log: Log) -> Result<PathBuf, BankFileError> {
    let aside = (1..)
        .map(|number: u32| beside(bank, &format!("before-restore-{number}")))
        .find(|path| !path.exists() && !log_of(path, "-wal").exists())
        .expect("there are more numbers than files");
    let io = |error| BankFileError::io(&aside)(error);
    let with_log = log == Log::Belongs && log_of(bank, "-wal").exists();
    if with_log {
        fs::hard_link(log_of(bank, "-wal"), log_of(&aside, "-wal")).map_err(io)?;
    }
    fs::hard_link(bank, &aside).map_err(io)?;
    sync_directory_of(bank).map_err(io)?;
    if log == Log::Belongs {
        // Without its log it would be another bank: better none than that, should this end here.
        fs::remove_file(bank).map_err(io)?;
    }
    Ok(aside)
}
