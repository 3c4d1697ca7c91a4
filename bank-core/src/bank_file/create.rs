//! Making a bank file, or adding to one: all or nothing, whatever happens in the middle.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::chain::{ChainEnd, insert_commit, read_chain_end};
use super::closing::read_closed_through;
use super::open::{connect_alone, make_durable, read_cut_over};
use super::peppers::prove_peppers;
use super::rows::{
    INSERT_ROW, Totals, add_to_totals, card_status_name, insert_account, insert_row, read_last_lsn,
    write_checkpoint,
};
use super::{Access, BankFileError, BankLock, beside, connect, real_path, schema};
use crate::account::Account;
use crate::card::CardState;
use crate::chain::Chain;
use crate::files::sync_directory_of;
use crate::ids::{AccountId, CardId, CardNumber, Lsn};
use crate::money::{Currency, Money};
use crate::pin::{Peppers, PinProfile};
use crate::row::Row;
use crate::time::Moment;
use crate::transaction::Posting;

/// An account to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAccount {
    /// Its number.
    pub id: AccountId,
    /// Its currency.
    pub currency: Currency,
    /// The balance that it opens with: zero or more.
    pub balance: Money,
    /// See [`Account::overdraft_limit`].
    pub overdraft_limit: Money,
    /// See [`Account::daily_limit`].
    pub daily_limit: Option<Money>,
}

impl NewAccount {
    /// The account as it is before its opening, and the row that opens it, complete but for its Lsn.
    pub(crate) fn open(&self, moment: Moment) -> (Account, Row) {
        let account = Account {
            overdraft_limit: self.overdraft_limit,
            daily_limit: self.daily_limit,
            ..Account::new(self.id, self.currency)
        };
        let opening = Posting::Opening { amount: self.balance };
        let row = opening
            .row(&account, None, moment)
            .expect("an empty account can hold what an account can hold");
        (account, row)
    }
}

/// A card to be issued.
#[derive(Clone)]
pub struct NewCard {
    /// Its number.
    pub number: CardNumber,
    /// Whom it is issued to.
    pub holder: String,
    /// The account that it opens.
    pub account: AccountId,
    /// The PIN's hash, as a PHC string.
    pub pin_hash: String,
    /// The pepper that the hash was made with.
    pub pepper_id: u32,
}

/// How a new bank keeps its cards' PINs.
#[derive(Clone, Copy, Debug)]
pub struct CardSecurity<'a> {
    /// What PIN hashes cost.
    pub profile: PinProfile,
    /// What they are made with.
    pub peppers: &'a Peppers,
}

/// Makes a bank file of these accounts and cards. Whatever happens, `path` then is what it was before or the
/// whole new bank. The cards are best in the order of their numbers. `written` is told how many accounts and
/// cards have been written so far.
///
/// # Errors
/// [`BankFileError::Exists`] if there is a bank already and `replace` is false; [`BankFileError::InUse`] if it
/// is being served; otherwise what SQLite or the disk said.
pub fn create_bank(
    path: &Path,
    replace: bool,
    security: &CardSecurity<'_>,
    moment: Moment,
    accounts: &[NewAccount],
    cards: &[NewCard],
    written: &dyn Fn(u64),
) -> Result<(), BankFileError> {
    let path = &real_path(path)?;
    let _lock = BankLock::take(path)?;
    if path.exists() && !replace {
        return Err(BankFileError::Exists(path.to_owned()));
    }
    if let Err(error @ (BankFileError::Foreign(_) | BankFileError::Exposed(_))) =
        connect(path, Access::ReadOnly)
    {
        // Whatever it is, it is not what was meant to be replaced; or it is, and somebody must look at it first.
        return Err(error);
    }
    let new = beside(path, "loading");
    // What a load that was killed left behind.
    remove_if_there(&new)?;
    let made =
        write_new(&new, security, moment, accounts, cards, written).and_then(|()| put_in_place(&new, path));
    if made.is_err() {
        // It holds every PIN's hash. That it cannot be removed is less than what went wrong before.
        let _ = remove_if_there(&new);
    }
    made
}

/// Puts a whole bank file in the place of `path`, whose lock the caller has.
pub(super) fn put_in_place(new: &Path, path: &Path) -> Result<(), BankFileError> {
    let io = BankFileError::io(new);
    File::open(new).and_then(|file| file.sync_all()).map_err(&io)?;
    retire(path)?;
    fs::rename(new, path)
        .and_then(|()| sync_directory_of(path))
        .map_err(&io)
}

/// Empties and removes the log of the bank that is about to be replaced: SQLite would take it for the new
/// one's. Of a bank that somebody has removed, the log may still be there.
fn retire(path: &Path) -> Result<(), BankFileError> {
    if path.exists() {
        // Opened without a look at its version: another version's log is part of it no less.
        let old = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE);
        make_durable(
            &old.map_err(BankFileError::sqlite("opening the bank that is to be replaced"))?,
            path,
        )?;
    }
    remove_logs(path)?;
    sync_directory_of(path).map_err(BankFileError::io(path))
}

/// Removes what SQLite keeps beside a database: of one that is whole without it, or that nobody wants any more.
pub(super) fn remove_logs(path: &Path) -> Result<(), BankFileError> {
    ["-wal", "-shm", "-journal"]
        .into_iter()
        .try_for_each(|suffix| remove_if_there(&log_of(path, suffix)))
}

/// The file that SQLite keeps beside a database under its name with that suffix.
pub(super) fn log_of(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

pub(super) fn remove_if_there(path: &Path) -> Result<(), BankFileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(BankFileError::io(path)(error)),
        _ => Ok(()),
    }
}

fn write_new(
    path: &Path,
    security: &CardSecurity<'_>,
    moment: Moment,
    accounts: &[NewAccount],
    cards: &[NewCard],
    written: &dyn Fn(u64),
) -> Result<(), BankFileError> {
    // Made with its final rights before SQLite opens it.
    let mut options = fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600)
        .open(path)
        .map_err(BankFileError::io(path))?;
    let (pepper_id, proof) = security.peppers.proof()?;
    (|| {
        let mut connection = Connection::open(path)?;
        // Until it is renamed the file is nobody's bank: it needs no protection but the one fsync at the end.
        connection.pragma_update(None, "journal_mode", "OFF")?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        let transaction = connection.transaction()?;
        schema::create(&transaction)?;
        transaction.execute(
            "INSERT INTO bank (id, created, pin_profile, checkpoint_lsn) VALUES (1, ?1, ?2, 0)",
            params![moment.time.millis(), security.profile.name()],
        )?;
        transaction.execute(
            "INSERT INTO peppers (pepper_id, proof) VALUES (?1, ?2)",
            params![pepper_id, proof],
        )?;
        let nothing = (Lsn::ZERO, ChainEnd::NONE);
        let (last_lsn, totals) = insert(&transaction, nothing, moment, accounts, cards, written)?;
        write_checkpoint(&transaction, last_lsn, &totals)?;
        transaction.commit()?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.close().map_err(|(_, error)| error)
    })()
    .map_err(BankFileError::sqlite("writing the new bank file"))
}

/// Adds accounts and cards to a bank that is not being served, in one transaction.
///
/// # Errors
/// [`BankFileError`]; then nothing was added.
pub fn append_to_bank(
    path: &Path,
    peppers: &Peppers,
    moment: Moment,
    accounts: &[NewAccount],
    cards: &[NewCard],
    written: &dyn Fn(u64),
) -> Result<(), BankFileError> {
    let (path, _lock, mut connection) = connect_alone(path)?;
    prove_peppers(&connection, peppers)?;
    let last_lsn = read_last_lsn(&connection)?;
    let end = read_chain_end(&connection)?;
    // No row may have a date that is closed.
    let moment = read_cut_over(&connection)?.moment_at(moment.time);
    let moment = match read_closed_through(&connection)? {
        Some(closed) => moment.not_before(moment.time, closed.next()),
        None => moment,
    };
    (|| {
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        insert(&transaction, (last_lsn, end), moment, accounts, cards, written)?;
        transaction.commit()
    })()
    .map_err(BankFileError::sqlite("adding to the bank file"))?;
    make_durable(&connection, &path)
}

/// Inserts the accounts with an opening row each, as one commit of the hash chain, and the cards: after the newest row and the end of
/// the chain so far. Gives the newest row and what the rows mean for the bank's own accounts.
fn insert(
    connection: &Connection,
    (mut lsn, end): (Lsn, ChainEnd),
    moment: Moment,
    accounts: &[NewAccount],
    cards: &[NewCard],
    written: &dyn Fn(u64),
) -> rusqlite::Result<(Lsn, Totals)> {
    let mut totals = Totals::new();
    let mut chain = Chain::after(end.head);
    let mut insert_row_statement = connection.prepare(&INSERT_ROW)?;
    let mut count = 0;
    let mut count_one = || {
        count += 1;
        written(count);
    };
    for new in accounts {
        lsn = lsn.next();
        let (mut account, row) = new.open(moment);
        let row = Row { lsn, ..row };
        account.apply(&row.account_change());
        add_to_totals(&mut totals, &row);
        chain.add_row(&row);
        insert_account(connection, &account)?;
        insert_row(&mut insert_row_statement, &row)?;
        count_one();
    }
    if let Some(head) = chain.seal() {
        insert_commit(connection, lsn, end.last_action, head)?;
    }
    for card in cards {
        insert_card(connection, None, card)?;
        count_one();
    }
    Ok((lsn, totals))
}

/// Inserts a card that nobody has used, under the next number if none is given.
pub(super) fn insert_card(
    connection: &Connection,
    id: Option<CardId>,
    card: &NewCard,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO cards (card_id, card, holder, account, pin_hash, pepper_id, tries, status)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            id.map(|id| id.get() as i64),
            card.number.as_str(),
            card.holder,
            card.account.get() as i64,
            card.pin_hash,
            card.pepper_id,
            CardState::FRESH.tries,
            card_status_name(CardState::FRESH.status),
        ])
        .map(drop)
}

/// Which of these accounts and cards a bank has already, and its highest account number.
#[derive(Debug, Default)]
pub struct ExistingNames {
    /// Accounts that exist.
    pub accounts: HashSet<AccountId>,
    /// Cards that exist.
    pub cards: HashSet<CardNumber>,
    /// The highest account number in use, 0 if there is none.
    pub highest_account: u64,
}

/// Looks up which of these accounts and cards a bank has already.
///
/// # Errors
/// [`BankFileError`].
pub fn existing_names<'a>(
    path: &Path,
    accounts: impl Iterator<Item = AccountId>,
    cards: impl Iterator<Item = &'a CardNumber>,
) -> Result<ExistingNames, BankFileError> {
    let connection = connect(path, Access::ReadOnly)?;
    (|| {
        let mut account_exists = connection.prepare("SELECT 1 FROM accounts WHERE account = ?1")?;
        let mut card_exists = connection.prepare("SELECT 1 FROM cards WHERE card = ?1")?;
        let highest: Option<i64> =
            connection.query_row("SELECT max(account) FROM accounts", [], |row| row.get(0))?;
        let mut names = ExistingNames {
            highest_account: highest.unwrap_or(0).unsigned_abs(),
            ..Default::default()
        };
        for account in accounts {
            if account_exists
                .query_row([account.get() as i64], |_| Ok(()))
                .optional()?
                .is_some()
            {
                names.accounts.insert(account);
            }
        }
        for card in cards {
            if card_exists
                .query_row([card.as_str()], |_| Ok(()))
                .optional()?
                .is_some()
            {
                names.cards.insert(card.clone());
            }
        }
        Ok(names)
    })()
    .map_err(BankFileError::sqlite("looking up accounts and cards"))
}
