//! The bank: accounts that many threads use at once, over a journal that makes what they do durable.

use std::path::Path;
use std::sync::Arc;

use dashmap::{DashMap, DashSet, Entry};

use crate::bank_file::{
    BankFileError, BankFileWriter, BankLock, Books, CheckpointPolicy, Readers, StatementLine, open_bank,
};
use crate::card::{Card, CardState, CardStatus};
use crate::cards::{CardCell, Cards, LiveCard, PinHash};
use crate::durable::JournalError;
use crate::ids::{AccountId, CardNumber, TerminalId, TxnId};
use crate::journal::{Journal, Slot, Update, UpdateNumber};
use crate::ledger::{AccountHandle, Balance, Ledger, Posted, Searched};
use crate::limits::MAX_TERMINALS;
use crate::pin::{Peppers, Pin, PinError, PinProfile, PinThreads};
use crate::sync::Mutex;
use crate::terminal::{SecretHash, Terminal};
use crate::time::{Moment, Timestamp};
use crate::transaction::Order;

/// What lets a terminal in.
#[derive(Clone, Copy)]
struct KnownTerminal {
    secret_hash: Option<SecretHash>,
    /// What registered it since the bank was opened.
    registered: UpdateNumber,
}

/// An open bank. All its methods take `&self`, and any number of threads may call them at once.
///
/// Nothing that it gives may be shown to a client before the journal says that it is durable: a [`crate::Row`] by its
/// Lsn, a [`Balance`] by the Lsn in it. Methods that wait for that themselves say so.
pub struct Bank {
    pub(crate) ledger: Ledger,
    /// The bank's own accounts.
    pub(crate) books: Arc<Mutex<Books>>,
    cards: Cards,
    terminals: DashMap<TerminalId, KnownTerminal>,
    pub(crate) readers: Readers,
    /// The originals that a terminal is settling: one request at a time for each.
    pub(crate) settling: DashSet<(AccountId, TxnId)>,
    peppers: Peppers,
    pin_threads: PinThreads,
    /// What new PINs' hashes cost.
    pin_profile: PinProfile,
    /// The hash of some PIN, compared with where there is no card's hash to compare with.
    decoy_hash: String,
    /// Dropped last, when nothing touches the file any more.
    _lock: BankLock,
}

/// A customer who has shown a card and its PIN.
#[derive(Clone)]
pub struct Login {
    /// The card.
    pub card: CardNumber,
    /// Whom it was issued to.
    pub holder: String,
    /// The account that it opens.
    pub account: AccountHandle,
    cell: Arc<CardCell>,
}

impl Login {
    /// Whether the card has been blocked since.
    pub fn blocked(&self) -> Option<UpdateNumber> {
        self.cell.read(|live| live.as_ref().and_then(|live| live.blocked))
    }
}

/// Why somebody is not logged in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The card is unknown or blocked, or the PIN is wrong. Which of these is not told.
    #[error("the card and PIN were not accepted")]
    Refused,
    /// The journal has ended, so nothing may be answered.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The bank file could not be read.
    #[error(transparent)]
    BankFile(#[from] BankFileError),
    /// The PIN could not be compared, which is not the customer's fault.
    #[error(transparent)]
    Pin(#[from] PinError),
}

/// Why there is no statement.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// The journal has ended, so nothing may be answered.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The bank file could not be read.
    #[error(transparent)]
    BankFile(#[from] BankFileError),
}

/// Why a terminal is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TerminalError {
    /// It is unknown, or did not prove itself. Which of these is not told.
    #[error("it is unknown or did not prove itself")]
    Refused,
    /// There are as many terminals as a bank may have.
    #[error("the bank has {MAX_TERMINALS} terminals and takes no more")]
    TooMany,
}

/// What a terminal shows to be let in.
#[derive(Clone, Copy)]
pub enum TerminalProof<'a> {
    /// Nothing.
    None,
    /// What it says is its secret.
    Secret(&'a [u8]),
    /// A certificate that names it, of an authority that the bank trusts to name terminals. That is checked already.
    Certificate,
}

/// Whether a terminal that the bank does not know may register itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// It may, at its first hello: for terminals on the server's own machine.
    BySelf,
    /// Only the operator registers terminals, and each must prove itself.
    ByOperator,
}

impl Bank {
    /// Opens a bank file: recovers it, makes durable what it holds, and starts the journal. It is then locked
    /// against a second server until the bank is dropped.
    ///
    /// # Errors
    /// [`BankFileError`] says what is wrong with the file or the peppers.
    pub fn open(path: &Path, peppers: Peppers) -> Result<Bank, BankFileError> {
        Bank::open_with(path, peppers, CheckpointPolicy::default())
    }

    /// As [`Bank::open`], with checkpoints made when `policy` says.
    ///
    /// # Errors
    /// As [`Bank::open`].
    pub fn open_with(path: &Path, peppers: Peppers, policy: CheckpointPolicy) -> Result<Bank, BankFileError> {
        let mut opened = open_bank(path, &peppers)?;
        let accounts = std::mem::take(&mut opened.accounts);
        let terminals = std::mem::take(&mut opened.terminals)
            .into_iter()
            .map(|terminal| {
                let known = KnownTerminal {
                    secret_hash: terminal.secret_hash,
                    registered: UpdateNumber::default(),
                };
                (terminal.id, known)
            })
            .collect();
        let (last_lsn, pin_profile) = (opened.last_lsn, opened.pin_profile);
        let pin = Pin::new(b"0000").expect("four digits are a PIN");
        let decoy_hash = peppers
            .hash(&pin, pin_profile)
            .map_err(|error| BankFileError::Pin(Box::new(error)))?;
        let readers = Readers::new(&opened.path);
        let (writer, lock) = BankFileWriter::new(opened, policy)?;
        let books = writer.books();
        Ok(Bank {
            ledger: Ledger::new(accounts, Journal::start(writer, last_lsn)),
            books,
            cards: Cards::default(),
            terminals,
            readers,
            settling: DashSet::new(),
            peppers,
            pin_threads: PinThreads::default(),
            pin_profile,
            decoy_hash,
            _lock: lock,
        })
    }

    /// A bank of these accounts that has no bank file: its journal commits to `store`, and nobody can log in. What
    /// else a bank has in files is beside `path`.
    #[cfg(all(test, feature = "shuttle"))]
    pub(crate) fn over(
        store: impl crate::journal::Store,
        path: &Path,
        accounts: impl IntoIterator<Item = crate::Account>,
    ) -> Bank {
        let accounts = accounts
            .into_iter()
            .map(|account| (account.id, Arc::new(crate::SharedCell::new(account))))
            .collect();
        Bank {
            ledger: Ledger::new(accounts, Journal::start(store, crate::Lsn::ZERO)),
            books: Arc::new(Mutex::new(Books {
                lsn: crate::Lsn::ZERO,
                totals: Default::default(),
            })),
            cards: Cards::default(),
            terminals: DashMap::new(),
            settling: DashSet::new(),
            readers: Readers::new(path),
            peppers: Peppers::read_or_create(&path.with_extension("pepper")).unwrap(),
            pin_threads: PinThreads::default(),
            pin_profile: PinProfile::Fast,
            decoy_hash: String::new(),
            _lock: BankLock::take(path).unwrap(),
        }
    }

    /// The journal: for slots, and for waiting until what it holds is durable.
    pub fn journal(&self) -> &Journal {
        self.ledger.journal()
    }

    /// How many accounts there are.
    pub fn account_count(&self) -> usize {
        self.ledger.account_count()
    }

    /// The account with that number.
    pub fn account(&self, id: AccountId) -> Option<AccountHandle> {
        self.ledger.account(id)
    }

    /// Decides a customer's transaction unless its id is known, gives it its place in the journal and carries it out.
    /// It takes microseconds, does no I/O and cannot fail.
    ///
    /// Where the id is known, [`Bank::first_outcome`] gives the first outcome.
    pub fn post(&self, slot: Slot, account: &AccountHandle, order: &Order, now: Moment) -> Posted {
        self.ledger.post(slot, account, order, now, Searched::No)
    }

    /// Checks a card and its PIN. It blocks: for reading the card, for the PIN's hash (tens of milliseconds of
    /// one core by the standard profile) and until the counted try is durable, so it belongs on a thread that
    /// may wait.
    ///
    /// The try is counted before the hash is computed, so a fourth guess at once with three others is not
    /// looked at. An unknown or blocked card costs the same work as a wrong PIN.
    ///
    /// # Errors
    /// [`LoginError::Refused`] for whatever is the customer's part, else what failed.
    pub fn login(&self, number: &CardNumber, pin: &Pin) -> Result<Login, LoginError> {
        let PinAccepted { card, cell, .. } = self.check_pin(number, pin)?;
        let account = self.account(card.account).ok_or_else(|| BankFileError::Damaged {
            what: format!(
                "card {number} opens account {}, which does not exist",
                card.account
            ),
        })?;
        Ok(Login {
            card: card.number,
            holder: card.holder,
            account,
            cell,
        })
    }

    /// Gives a card a new PIN, if `old` is the PIN so far: a wrong one counts as a try, as at a login. It blocks as
    /// [`Bank::login`] does, and returns when the new PIN is durable. From then on no login with the old one
    /// succeeds, not even one that had begun before.
    ///
    /// # Errors
    /// [`LoginError::Refused`] if `old` is wrong or the PIN was changed meanwhile, else what failed.
    pub fn change_pin(&self, login: &Login, old: &Pin, new: &Pin) -> Result<(), LoginError> {
        let PinAccepted {
            card,
            cell,
            pin_version,
        } = self.check_pin(&login.card, old)?;
        let hash = self
            .pin_threads
            .run(|| self.peppers.hash(new, self.pin_profile))?;
        let pin = Arc::new(PinHash {
            hash,
            pepper_id: self.peppers.newest(),
        });
        let slot = self.journal().reserve_blocking()?;
        let update = cell.write(|live| {
            let live = live.as_mut().filter(|live| live.pin_version == pin_version)?;
            live.pin_version += 1;
            live.changed_pin = Some(Arc::clone(&pin));
            let update = Update::Pin {
                number: card.number,
                pin,
                _cell: Arc::clone(&cell),
            };
            Some(self.journal().append_update(slot, update))
        });
        self.journal()
            .update_durable(update.ok_or(LoginError::Refused)?)
            .wait()?;
        Ok(())
    }

    fn check_pin(&self, number: &CardNumber, pin: &Pin) -> Result<PinAccepted, LoginError> {
        let slot = self.journal().reserve_blocking()?;
        let cell = self.cards.cell(number);
        let Some(card) = self.readers.card(number)? else {
            return self.refuse(pin);
        };
        let counted = cell.write(|live| {
            let live = live.get_or_insert(LiveCard::new(card.state));
            live.state = live.state.count_try()?;
            live.pending += 1;
            self.journal()
                .append_update(slot, card_update(number, live.state, &cell));
            Some((live.pin_version, live.changed_pin.clone()))
        });
        let Some((pin_version, changed_pin)) = counted else {
            return self.refuse(pin);
        };
        let judged = match &changed_pin {
            Some(changed) => self.judge(pin, &changed.hash, changed.pepper_id),
            None => self.judge(pin, &card.pin_hash, card.pepper_id),
        };
        let slot = self.journal().reserve_blocking()?;
        let (accepted, update) = cell.write(|live| {
            let live = live.as_mut().expect("the try was counted in it");
            live.pending -= 1;
            // A PIN that was changed while it was being judged is neither right nor wrong.
            let changed = live.pin_version != pin_version;
            live.state = match judged {
                Ok(true) if !changed => live.state.after_right_pin(live.pending),
                Ok(false) => live.state.after_wrong_pin(live.pending),
                Ok(true) | Err(_) => live.state.take_back_try(),
            };
            let blocked = live.state.status == CardStatus::Blocked;
            let update = self
                .journal()
                .append_update(slot, card_update(number, live.state, &cell));
            if blocked {
                live.blocked.get_or_insert(update);
            }
            (matches!(judged, Ok(true)) && !changed && !blocked, update)
        });
        // This update is after that of the counted try, so both are durable then.
        self.journal().update_durable(update).wait()?;
        judged?;
        if accepted {
            Ok(PinAccepted {
                card,
                cell,
                pin_version,
            })
        } else {
            Err(LoginError::Refused)
        }
    }

    /// The answer to a card that is unknown or blocked, after the work of a PIN check.
    fn refuse(&self, pin: &Pin) -> Result<PinAccepted, LoginError> {
        self.judge(pin, &self.decoy_hash, self.peppers.newest())?;
        Err(LoginError::Refused)
    }

    fn judge(&self, pin: &Pin, hash: &str, pepper_id: u32) -> Result<bool, PinError> {
        self.pin_threads.run(|| self.peppers.verify(pin, hash, pepper_id))
    }

    /// The account's newest rows, at most `lines` of them, newest first, and the balance that they lead to. It
    /// blocks until they are durable and read.
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn statement(
        &self,
        account: &AccountHandle,
        lines: usize,
    ) -> Result<(Balance, Vec<StatementLine>), StatementError> {
        let balance = account.balance();
        self.journal().durable(balance.lsn).wait()?;
        let lines = self
            .readers
            .statement(account.id(), balance.currency, balance.lsn, lines)?;
        Ok((balance, lines))
    }

    /// Lets a terminal in, if it is known and proves itself, has a certificate, or may register itself. What makes it
    /// known, which is given, must be durable before it is answered.
    ///
    /// A terminal that has shown a certificate or was given a secret comes in no more without either.
    ///
    /// # Errors
    /// [`TerminalError`].
    pub fn admit_terminal(
        &self,
        slot: Slot,
        id: TerminalId,
        proof: TerminalProof<'_>,
        registration: Registration,
        now: Timestamp,
    ) -> Result<UpdateNumber, TerminalError> {
        use Registration::BySelf;
        let full = self.terminals.len() >= MAX_TERMINALS;
        // Held until the terminal is registered, lest of two hellos under one id each should find it unknown. Nothing is
        // waited for meanwhile: the update has its slot.
        let entry = self.terminals.entry(id);
        let known = match &entry {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(_) => None,
        };
        let secret_hash = match (known, proof) {
            (None, TerminalProof::None) if registration == BySelf => None,
            (
                None
                | Some(KnownTerminal {
                    secret_hash: None, ..
                }),
                TerminalProof::Certificate,
            ) => Some(SecretHash::OF_NONE),
            (Some(known), TerminalProof::Certificate) => return Ok(known.registered),
            // Of two hashes it tells nobody anything how long it takes to compare them.
            (Some(known), TerminalProof::Secret(secret))
                if known.secret_hash == Some(SecretHash::of(secret)) =>
            {
                return Ok(known.registered);
            }
            (Some(known), TerminalProof::None) if known.secret_hash.is_none() && registration == BySelf => {
                return Ok(known.registered);
            }
            _ => return Err(TerminalError::Refused),
        };
        if known.is_none() && full {
            return Err(TerminalError::TooMany);
        }
        let terminal = Terminal {
            id,
            registered: now,
            secret_hash,
        };
        let registered = self.journal().append_update(slot, Update::Terminal(terminal));
        entry.insert(KnownTerminal {
            secret_hash,
            registered,
        });
        tracing::info!(terminal = %id, by_certificate = secret_hash.is_some(), "registers a terminal");
        Ok(registered)
    }

    /// Ends the bank in order: commits what was posted, brings the `accounts` table up to date and empties the
    /// write-ahead log.
    ///
    /// # Errors
    /// If a commit failed, now or before. Then the file is as the failed commit left it.
    pub fn close(&self) -> Result<(), JournalError> {
        self.readers.close();
        self.journal().close()
    }
}

/// A card whose PIN was right.
struct PinAccepted {
    card: Card,
    cell: Arc<CardCell>,
    /// Which of the card's PINs it was.
    pin_version: u32,
}

fn card_update(number: &CardNumber, state: CardState, cell: &Arc<CardCell>) -> Update {
    Update::Card {
        number: number.clone(),
        state,
        _cell: Arc::clone(cell),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Account;
    use crate::bank_file;
    use crate::row::Outcome;
    use crate::test_bank::{Site, account, amount, deposit, moment, order, post_at, post_order};
    use crate::time::BusinessDate;
    use crate::transaction::{Decline, Transaction};

    #[test]
    fn replay_gives_the_accounts_that_were_served() {
        let site = Site::new();
        let bank = site.open();
        for round in 0..40u64 {
            let transaction = match round % 4 {
                0 => Transaction::Deposit { amount: amount(700) },
                1 => Transaction::Withdraw { amount: amount(900) },
                2 => Transaction::Transfer {
                    to: AccountId::new(round % 10 + 1).unwrap(),
                    amount: amount(300),
                },
                _ => Transaction::Transfer {
                    to: AccountId::new(99).unwrap(),
                    amount: amount(300),
                },
            };
            post_at(
                &bank,
                round * 7 % 10 + 1,
                transaction,
                moment(round as i64 * 40_000),
            );
        }
        let snapshot =
            |bank: &Bank| -> Vec<Account> { (1..=10).map(|number| account(bank, number).copy()).collect() };
        // A restart takes for forgotten what lies between the ids that it knows.
        let closed = |mut accounts: Vec<Account>| {
            accounts.iter_mut().for_each(|account| account.recent_ids.close());
            accounts
        };
        let served = closed(snapshot(&bank));
        drop(bank); // As in a crash: nothing is checkpointed.
        assert_eq!(
            site.query("SELECT max(last_lsn) FROM accounts"),
            10,
            "only the openings are in the table"
        );
        let replayed = site.open();
        assert_eq!(snapshot(&replayed), served);
        replayed.close().unwrap();
        drop(replayed);
        assert_eq!(site.query("SELECT checkpoint_lsn FROM bank"), 50);
        // Of the ids the table has only the greatest, which is all that is known when they have been dropped.
        let dropped = |mut account: Account| {
            account.recent_ids.drop_before(Timestamp::from_millis(i64::MAX));
            account
        };
        assert_eq!(
            snapshot(&site.open()),
            served.into_iter().map(dropped).collect::<Vec<_>>(),
            "and so does the table after an orderly end"
        );
    }

    #[test]
    fn account_checkpoints_go_on_in_slices_while_the_bank_is_served() {
        let site = Site::new();
        let policy = CheckpointPolicy {
            account_checkpoint_rows: 20,
            account_checkpoint_slice: 3,
            ..CheckpointPolicy::default()
        };
        let bank = site.open_with(policy);
        for round in 0..100 {
            deposit(&bank, round % 10 + 1, 1);
        }
        // The slices of a checkpoint that is under way are written although nothing is posted any more.
        let (first, last) = (
            bank.journal().durable_lsn().get() as i64 - 20,
            bank.journal().durable_lsn().get() as i64,
        );
        loop {
            let checkpoint = site.query("SELECT checkpoint_lsn FROM bank");
            if checkpoint >= first {
                assert!(checkpoint <= last);
                break;
            }
            std::thread::yield_now();
        }
        drop(bank);
        assert!(bank_file::verify(&site.path()).unwrap().holds());
        assert_eq!(account(&site.open(), 1).balance().balance.minor(), 1010);
    }

    #[test]
    fn the_write_ahead_log_starts_over_and_stays_short() {
        let site = Site::new();
        let policy = CheckpointPolicy {
            wal_checkpoint_bytes: 64 * 1024,
            ..CheckpointPolicy::default()
        };
        let bank = site.open_with(policy);
        for round in 0..1000 {
            deposit(&bank, round % 10 + 1, 1);
        }
        let log = std::fs::metadata(site.path().with_extension("db-wal"))
            .unwrap()
            .len();
        // A thousand commits write at least a page each, 4 MiB in all.
        assert!(log < 1024 * 1024, "the log has {log} bytes");
    }

    #[test]
    fn a_reader_that_holds_the_log_delays_nothing_and_is_no_failure() {
        let site = Site::new();
        let policy = CheckpointPolicy {
            wal_checkpoint_bytes: 64 * 1024,
            ..CheckpointPolicy::default()
        };
        let bank = site.open_with(policy);
        deposit(&bank, 1, 1);
        let reader = rusqlite::Connection::open(site.path()).unwrap();
        reader
            .execute_batch("BEGIN; SELECT count(*) FROM journal")
            .unwrap();
        for _ in 0..200 {
            deposit(&bank, 1, 1);
        }
        drop(reader);
        deposit(&bank, 1, 1);
        bank.close().unwrap();
        drop(bank);
        assert_eq!(account(&site.open(), 1).balance().balance.minor(), 1202);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_set_back_an_account() {
        let site = Site::new();
        let bank = site.open();
        let late = post_at(
            &bank,
            1,
            Transaction::Deposit { amount: amount(1) },
            moment(100_000),
        );
        drop(bank);
        let bank = site.open();
        // The server's clock was set back by days. Ids are still later than those before: the account, which has seen how
        // late it is, takes them.
        let next = order(Transaction::Deposit { amount: amount(1) }, moment(100_001));
        let Posted::Decided(early) = post_order(&bank, 1, &next, moment(-900_000)) else {
            panic!("a clock that was wrong shuts no account");
        };
        assert_eq!(early.moment, late.moment);
        let to = Transaction::Transfer {
            to: AccountId::new(1).unwrap(),
            amount: amount(1),
        };
        assert_eq!(
            post_at(&bank, 2, to, moment(0)).moment,
            late.moment,
            "nor by way of another account"
        );
        drop(bank);
        assert!(bank_file::verify(&site.path()).unwrap().holds());
    }

    #[test]
    fn a_days_withdrawals_are_remembered_across_a_restart_and_forgotten_the_next_day() {
        let site = Site::new();
        rusqlite::Connection::open(site.path())
            .unwrap()
            .execute_batch("UPDATE accounts SET daily_limit = 500")
            .unwrap();
        let withdraw = |bank: &Bank, minor, now| {
            post_at(
                bank,
                1,
                Transaction::Withdraw {
                    amount: amount(minor),
                },
                now,
            )
            .outcome
        };
        let bank = site.open();
        assert_eq!(withdraw(&bank, 300, moment(1)), Outcome::Approved);
        drop(bank);
        let bank = site.open();
        assert_eq!(
            withdraw(&bank, 201, moment(2)),
            Outcome::Declined(Decline::DailyLimit)
        );
        bank.close().unwrap();
        drop(bank);
        let bank = site.open();
        assert_eq!(
            withdraw(&bank, 201, moment(3)),
            Outcome::Declined(Decline::DailyLimit)
        );
        let tomorrow = Moment {
            date: BusinessDate::from_days(moment(3).date.days() + 1),
            ..moment(86_400)
        };
        assert_eq!(withdraw(&bank, 500, tomorrow), Outcome::Approved);
        assert_eq!(
            withdraw(&bank, 1, moment(4)),
            Outcome::Declined(Decline::DailyLimit),
            "the date does not go back"
        );
    }

    #[test]
    fn a_fortune_moved_in_and_out_in_a_day_harms_nothing() {
        let site = Site::new();
        let bank = site.open_with(CheckpointPolicy {
            account_checkpoint_rows: 1,
            ..CheckpointPolicy::default()
        });
        let all = amount(i64::MAX - 1000);
        let put_in = || order(Transaction::Deposit { amount: all }, moment(1));
        let take_out = || order(Transaction::Withdraw { amount: all }, moment(1));
        let mut done = Vec::new();
        for (order, outcome) in [
            (put_in(), Outcome::Approved),
            (take_out(), Outcome::Approved),
            (put_in(), Outcome::Approved),
            // More in a day than can be counted.
            (take_out(), Outcome::Declined(Decline::DailyLimit)),
        ] {
            let Posted::Decided(row) = post_order(&bank, 1, &order, moment(1)) else {
                panic!("a new id is decided");
            };
            assert_eq!(row.outcome, outcome);
            done.push(order);
        }
        // What was taken out, and what was put in, is undone: a day's withdrawals never go below nothing.
        for original in [&done[0], &done[1], &done[2]] {
            bank.reverse(&account(&bank, 1), original.txn_id, original.terminal, moment(1))
                .unwrap();
        }
        assert_eq!(account(&bank, 1).balance().balance.minor(), 1000);
        assert_eq!(account(&bank, 1).copy().withdrawn.minor(), 0);
        bank.close().unwrap();
        drop(bank);
        let proof = bank_file::verify(&site.path()).unwrap();
        assert!(proof.holds(), "{:?}", proof.problems);
    }

    #[test]
    fn a_login_that_failed_for_our_own_reasons_is_not_held_against_the_card() {
        let site = Site::new();
        rusqlite::Connection::open(site.path())
            .unwrap()
            .execute_batch("UPDATE cards SET pepper_id = 9")
            .unwrap();
        let bank = site.open();
        for _ in 0..5 {
            let login = bank.login(&"1".parse().unwrap(), &Pin::new(b"0001").unwrap());
            assert!(matches!(login, Err(LoginError::Pin(PinError::MissingPepper(9)))));
        }
        drop(bank);
        assert_eq!(site.query("SELECT tries FROM cards WHERE card = '1'"), 0);
    }

    #[test]
    fn a_session_knows_when_its_card_was_blocked() {
        let site = Site::new();
        let bank = site.open();
        let card: CardNumber = "1".parse().unwrap();
        let session = bank.login(&card, &Pin::new(b"0001").unwrap()).unwrap();
        for _ in 0..3 {
            assert!(session.blocked().is_none());
            assert!(bank.login(&card, &Pin::new(b"9999").unwrap()).is_err());
        }
        assert!(session.blocked().is_some());
    }

    #[test]
    fn a_changed_pin_is_the_only_one_from_then_on() {
        let site = Site::new();
        let card: CardNumber = "1".parse().unwrap();
        let pin = |digits: &str| Pin::new(digits.as_bytes()).unwrap();
        let bank = site.open();
        let session = bank.login(&card, &pin("0001")).unwrap();
        assert!(matches!(
            bank.change_pin(&session, &pin("1111"), &pin("2468")),
            Err(LoginError::Refused)
        ));
        bank.change_pin(&session, &pin("0001"), &pin("246813579024"))
            .unwrap();
        assert!(matches!(
            bank.login(&card, &pin("0001")),
            Err(LoginError::Refused)
        ));
        drop((session, bank)); // As in a crash.
        let bank = site.open();
        assert!(matches!(
            bank.login(&card, &pin("0001")),
            Err(LoginError::Refused)
        ));
        let session = bank.login(&card, &pin("246813579024")).unwrap();
        for _ in 0..3 {
            assert!(session.blocked().is_none());
            assert!(bank.change_pin(&session, &pin("0001"), &pin("1357")).is_err());
        }
        assert!(
            session.blocked().is_some(),
            "guessing the old PIN counts as at a login"
        );
        assert!(
            bank.change_pin(&session, &pin("246813579024"), &pin("1357"))
                .is_err()
        );
    }

    #[test]
    fn of_two_changes_at_once_from_the_same_pin_one_wins() {
        let site = Site::new();
        let bank = site.open();
        let card: CardNumber = "1".parse().unwrap();
        let pin = |digits: &str| Pin::new(digits.as_bytes()).unwrap();
        for round in 0..20 {
            let (was, new) = (
                format!("{round:04}"),
                [format!("{:04}", round + 1), format!("{:04}", round + 5001)],
            );
            if round == 0 {
                let session = bank.login(&card, &pin("0001")).unwrap();
                bank.change_pin(&session, &pin("0001"), &pin(&was)).unwrap();
            }
            let session = bank.login(&card, &pin(&was)).unwrap();
            let won: Vec<bool> = std::thread::scope(|scope| {
                let changes = new.each_ref().map(|new| {
                    let (bank, session, was, new) = (&bank, &session, pin(&was), pin(new));
                    scope.spawn(move || bank.change_pin(session, &was, &new).is_ok())
                });
                changes.map(|change| change.join().unwrap()).to_vec()
            });
            assert_eq!(won.iter().filter(|&&won| won).count(), 1, "round {round}");
            let winner = if won[0] { &new[0] } else { &new[1] };
            let session = bank.login(&card, &pin(winner)).unwrap();
            if winner != &new[0] {
                bank.change_pin(&session, &pin(winner), &pin(&new[0])).unwrap();
            }
        }
    }

    #[test]
    fn a_terminal_gets_in_by_what_it_was_given_and_no_other_way() {
        const CERTIFICATE: &[u8] = b"a certificate";
        use Registration::{ByOperator, BySelf};
        let site = Site::new();
        let (given, other) = (SecretHash::of(b"given"), &b"other"[..]);
        let add = |secret, replace| {
            let id = "ATM-8".parse().unwrap();
            bank_file::add_terminal(&site.path(), id, secret, moment(1).time, replace)
        };
        add(given, false).unwrap();
        assert!(matches!(
            add(SecretHash::of(other), false),
            Err(BankFileError::TerminalExists(_))
        ));
        add(SecretHash::of(other), true).unwrap();
        add(given, true).unwrap();
        let bank = site.open();
        let check = |id: &str, secret: Option<&[u8]>, registration, admitted| {
            let proof = match secret {
                None => TerminalProof::None,
                Some(CERTIFICATE) => TerminalProof::Certificate,
                Some(secret) => TerminalProof::Secret(secret),
            };
            let slot = bank.journal().reserve_blocking().unwrap();
            let found = bank.admit_terminal(slot, id.parse().unwrap(), proof, registration, moment(5).time);
            assert_eq!(found.is_ok(), admitted, "{id}, {secret:?}, {registration:?}");
            if let Ok(registered) = found {
                bank.journal().update_durable(registered).wait().unwrap();
            }
        };
        check("ATM-7", None, ByOperator, false);
        check("ATM-7", Some(b"given"), BySelf, false);
        check("ATM-7", None, BySelf, true);
        check("ATM-7", None, BySelf, true);
        check("ATM-7", None, ByOperator, false);
        check("ATM-7", Some(b"given"), BySelf, false);
        check("ATM-8", None, BySelf, false);
        check("ATM-8", Some(other), BySelf, false);
        check("ATM-8", Some(b"given"), ByOperator, true);
        // A certificate lets in whom it names, and from then on nothing less does.
        check("ATM-8", Some(CERTIFICATE), ByOperator, true);
        check("ATM-8", Some(b"given"), ByOperator, true);
        check("ATM-9", Some(CERTIFICATE), ByOperator, true);
        check("ATM-9", None, BySelf, false);
        check("ATM-9", Some(&SecretHash::OF_NONE.0), BySelf, false);
        check("ATM-6", None, BySelf, true);
        check("ATM-6", Some(CERTIFICATE), BySelf, true);
        check("ATM-6", None, BySelf, false);
        drop(bank);
        assert_eq!(
            site.query("SELECT registered FROM terminals WHERE terminal = 'ATM-7'"),
            moment(5).time.millis()
        );
        assert_eq!(site.query("SELECT count(*) FROM terminals"), 4);
        assert_eq!(
            site.query("SELECT count(*) FROM terminals WHERE secret_hash = zeroblob(32)"),
            2,
            "that they have certificates is in the file, too"
        );
    }
}
