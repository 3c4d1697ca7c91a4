//! The bank: accounts that many threads use at once, over a journal that makes what they do durable.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use dashmap::DashSet;

use crate::bank_file::{
    BankFileError, BankFileWriter, BankLock, Books, CheckpointPolicy, Readers, StatementLine, open_bank,
};
use crate::card::{Card, CardState, CardStatus};
use crate::cards::{CardCell, Cards, LiveCard, PinHash};
use crate::chain::Head;
use crate::durable::JournalError;
use crate::ids::{AccountId, CardId, CardNumber, Lsn, TerminalId, TxnId};
use crate::journal::{Journal, Slot, Update, UpdateNumber};
use crate::ledger::{AccountHandle, Balance, Ledger, Posted, Searched};
use crate::limits::MAX_TERMINALS;
use crate::pin::{Peppers, Pin, PinError, PinProfile, PinThreads};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU16, Ordering};
use crate::terminal::{SecretHash, Terminal};
use crate::time::{CutOver, Moment, Timestamp};
use crate::transaction::Order;

/// What lets a terminal in.
#[derive(Clone, Copy)]
pub(crate) struct KnownTerminal {
    pub(crate) secret_hash: Option<SecretHash>,
    /// Since when it is to come in no more.
    pub(crate) retired: Option<Timestamp>,
    /// When it was first seen.
    pub(crate) since: Timestamp,
    /// What registered it since the bank was opened.
    pub(crate) registered: UpdateNumber,
}

/// An open bank. All its methods take `&self`, and any number of threads may call them at once.
///
/// Nothing that it gives may be shown to a client before the journal says that it is durable: a [`crate::Row`] by its
/// Lsn, a [`Balance`] by the Lsn in it. Methods that wait for that themselves say so.
pub struct Bank {
    pub(crate) ledger: Ledger,
    /// The bank's own accounts.
    pub(crate) books: Arc<Mutex<Books>>,
    pub(crate) cards: Cards,
    /// The greatest number of a card. It is locked for as long as an operator's command takes, of which there is one at a time;
    /// no customer ever waits for it.
    pub(crate) operating: Mutex<Option<CardId>>,
    /// Minutes after midnight at which the next business date begins.
    pub(crate) cut_over: AtomicU16,
    pub(crate) terminals: Mutex<HashMap<TerminalId, KnownTerminal>>,
    pub(crate) readers: Readers,
    /// The originals that a terminal is settling: one request at a time for each.
    pub(crate) settling: DashSet<(AccountId, TxnId)>,
    peppers: Peppers,
    pub(crate) pin_threads: PinThreads,
    /// What new PINs' hashes cost.
    pin_profile: PinProfile,
    /// The hash of some PIN, compared with where a card's is not to be compared with.
    decoy: PinHash,
    /// Whether a customer may choose a PIN that is guessed first.
    pub(crate) allow_weak_pins: bool,
    /// Dropped last, when nothing touches the file any more.
    _lock: BankLock,
}

/// A customer who has shown a card and its PIN.
#[derive(Clone)]
pub struct Login {
    /// The card.
    pub card: CardNumber,
    /// Its number in the bank file.
    pub card_id: CardId,
    /// Whom it was issued to.
    pub holder: String,
    /// The account that it opens.
    pub account: AccountHandle,
    cell: Arc<CardCell>,
    /// What made it durable that the PIN was right.
    accepted: UpdateNumber,
}

impl Login {
    /// Whether the card has been blocked since, even if it was unblocked again: a thief's session does not come back.
    pub fn blocked(&self) -> Option<UpdateNumber> {
        self.cell
            .read(|live| live.as_ref().and_then(|live| live.blocked))
            .filter(|&blocked| blocked > self.accepted)
    }
}

/// Why somebody is not logged in, or a PIN not changed.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The card is unknown or blocked, or the PIN is wrong. Which of these is not told.
    #[error("the card and PIN were not accepted")]
    Refused,
    /// The new PIN is among those that are guessed first. Nothing else was looked at.
    #[error("the new PIN is too easy to guess")]
    WeakPin,
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
        let terminals: HashMap<_, _> = std::mem::take(&mut opened.terminals)
            .into_iter()
            .map(|terminal| {
                let known = KnownTerminal {
                    secret_hash: terminal.secret_hash,
                    retired: terminal.retired,
                    since: terminal.registered,
                    registered: UpdateNumber::default(),
                };
                (terminal.id, known)
            })
            .collect();
        let (last_lsn, last_action) = (opened.last_lsn, opened.chain.last_action);
        let (last_card, cut_over, closed) = (opened.last_card, opened.cut_over, opened.closed_through);
        let pin_profile = opened.pin_profile;
        let decoy = decoy(&peppers, pin_profile)?;
        let readers = Readers::new(&opened.path);
        let (writer, lock) = BankFileWriter::new(opened, policy)?;
        let books = writer.books();
        Ok(Bank {
            ledger: Ledger::new(accounts, Journal::start(writer, last_lsn, last_action), closed),
            books,
            cards: Cards::default(),
            operating: Mutex::new(last_card),
            cut_over: AtomicU16::new(cut_over.minutes()),
            terminals: Mutex::new(terminals),
            readers,
            settling: DashSet::new(),
            peppers,
            pin_threads: PinThreads::start()?,
            pin_profile,
            decoy,
            allow_weak_pins: false,
            _lock: lock,
        })
    }

    /// The same bank, in which customers may, or may not, choose a PIN that is guessed first. At first they may not.
    #[must_use]
    pub fn allowing_weak_pins(self, allow_weak_pins: bool) -> Bank {
        Bank {
            allow_weak_pins,
            ..self
        }
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
        let peppers = Peppers::read_or_create(&path.with_extension("pepper")).unwrap();
        let decoy = decoy(&peppers, PinProfile::Fast).unwrap();
        Bank {
            ledger: Ledger::new(accounts, Journal::start(store, Lsn::ZERO, None), None),
            books: Arc::new(Mutex::new(Books {
                lsn: Lsn::ZERO,
                totals: Default::default(),
            })),
            cards: Cards::default(),
            operating: Mutex::new(None),
            cut_over: AtomicU16::new(0),
            terminals: Mutex::default(),
            settling: DashSet::new(),
            readers: Readers::new(path),
            peppers,
            pin_threads: PinThreads::start().unwrap(),
            pin_profile: PinProfile::Fast,
            decoy,
            allow_weak_pins: false,
            _lock: BankLock::take(path).unwrap(),
        }
    }

    /// The journal: for slots, and for waiting until what it holds is durable.
    pub fn journal(&self) -> &Journal {
        self.ledger.journal()
    }

    /// The present, with the business date that it falls on by the bank's cut-over.
    pub fn now(&self) -> Moment {
        self.cut_over().moment_at(Moment::now().time)
    }

    /// When the next business date begins.
    pub fn cut_over(&self) -> CutOver {
        CutOver::from_minutes(self.cut_over.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// The head of the hash chain as of the commit that a durable row is in, if it is at hand.
    pub fn head_at_hand(&self, lsn: Lsn) -> Option<Head> {
        self.journal().head_at(lsn)
    }

    /// The same, read from the bank file: it blocks.
    ///
    /// # Errors
    /// [`BankFileError`], also if no commit has the row.
    pub fn head_at(&self, lsn: Lsn) -> Result<Head, BankFileError> {
        self.readers
            .head_at(lsn)?
            .ok_or_else(|| BankFileError::damaged(format!("no commit has journal row {lsn}")))
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
    /// looked at. An unknown or blocked card costs the same work as a wrong PIN: a write, a hash, a write, and a wait for
    /// the disk.
    ///
    /// A right PIN whose hash was made with an older pepper or at another cost gets a new one.
    ///
    /// # Errors
    /// [`LoginError::Refused`] for whatever is the customer's part, else what failed.
    pub fn login(&self, number: &CardNumber, pin: &Pin) -> Result<Login, LoginError> {
        let PinAccepted {
            card, cell, update, ..
        } = self.check_pin(number, pin)?;
        let account = self.account(card.account).ok_or_else(|| BankFileError::Damaged {
            what: format!(
                "card {number} opens account {}, which does not exist",
                card.account
            ),
        })?;
        Ok(Login {
            card: card.number,
            card_id: card.id,
            holder: card.holder,
            account,
            cell,
            accepted: update,
        })
    }

    /// Gives a card a new PIN, if `old` is the PIN so far: a wrong one counts as a try, as at a login, and what is no PIN at
    /// all (`None`) does not. It blocks as
    /// [`Bank::login`] does, and returns when the new PIN is durable. From then on no login with the old one
    /// succeeds, not even one that had begun before.
    ///
    /// # Errors
    /// [`LoginError::WeakPin`] if the bank forbids the new PIN, before `old` is looked at; [`LoginError::Refused`] if `old`
    /// is wrong, or the PIN was changed or the card blocked meanwhile; else what failed.
    pub fn change_pin<'a>(
        &self,
        login: &Login,
        old: impl Into<Option<&'a Pin>>,
        new: &Pin,
    ) -> Result<(), LoginError> {
        if !self.allow_weak_pins && new.is_weak() {
            return Err(LoginError::WeakPin);
        }
        let old = old.into().ok_or(LoginError::Refused)?;
        let PinAccepted {
            card,
            cell,
            pin_version,
            ..
        } = self.check_pin(&login.card, old)?;
        let pin = self.pin_threads.run(|| self.hash(new))?;
        let slot = self.journal().reserve_blocking()?;
        let update = cell.write(|live| {
            // Others may have changed it meanwhile, or have guessed until the card was blocked.
            let live = live
                .as_mut()
                .filter(|live| live.pin_version == pin_version && live.state.status == CardStatus::Active)?;
            live.pin_version += 1;
            Some(self.set_pin(slot, live, &card.number, pin, &cell))
        });
        self.journal()
            .update_durable(update.ok_or(LoginError::Refused)?)
            .wait()?;
        Ok(())
    }

    /// One path for every card. Whether it is unknown, blocked, or its PIN wrong makes no difference to what is waited for,
    /// lest the time of the answer should tell: something is written, a hash is compared, something is written, and the
    /// second of these is waited for. (The wrong PIN that blocks a card writes its new status, too.)
    fn check_pin(&self, number: &CardNumber, pin: &Pin) -> Result<PinAccepted, LoginError> {
        let slot = self.journal().reserve_blocking()?;
        let cell = self.cards.cell(number);
        let card = self.readers.card(number)?;
        let counted = cell.write(|live| {
            let counted = card
                .as_ref()
                .and_then(|card| count_try(live.get_or_insert(LiveCard::new(card.state)), card));
            let update = match &counted {
                Some(counted) => card_update(number, counted.state, &cell),
                None => Update::StrayLogin,
            };
            self.journal().append_update(slot, update);
            counted
        });
        let known = card.zip(counted);
        let compared = known.as_ref().map_or(&self.decoy, |(_, counted)| &*counted.pin);
        let judged = self.judge(pin, compared);
        // One is held while the other is waited for. There are many times more of them than PINs that are checked at once.
        let slots = (
            self.journal().reserve_blocking()?,
            self.journal().reserve_blocking()?,
        );
        let (accepted, update, blocks) = match &known {
            Some((_, counted)) => cell.write(|live| {
                let live = live.as_mut().expect("the try was counted in it");
                let blocked = live.blocked;
                let (accepted, update) = self.settle_try(slots, live, number, &cell, counted, &judged);
                (accepted, update, live.blocked != blocked)
            }),
            None => {
                let update = self.journal().append_update(slots.0, Update::RefusedLogin);
                (false, update, false)
            }
        };
        // This update is after that of the counted try, so both are durable then.
        self.journal().update_durable(update).wait()?;
        judged?;
        if let Some((card, _)) = &known
            && blocks
        {
            tracing::info!(account = %card.account, "wrong PINs have blocked a card");
        }
        match known.filter(|_| accepted) {
            Some((card, counted)) => Ok(PinAccepted {
                card,
                cell,
                pin_version: counted.pin_version,
                update,
            }),
            None => Err(LoginError::Refused),
        }
    }

    /// Says of a counted try what came of it. Gives whether the PIN is accepted, and the update after which that may be
    /// told.
    fn settle_try(
        &self,
        slots: (Slot, Slot),
        live: &mut LiveCard,
        number: &CardNumber,
        cell: &Arc<CardCell>,
        counted: &CountedTry,
        judged: &Result<Judged, PinError>,
    ) -> (bool, UpdateNumber) {
        let before = live.state;
        live.pending -= 1;
        // A right PIN that was changed while it was being judged is right no more; a wrong one stays wrong.
        let changed = live.pin_version != counted.pin_version;
        live.state = match judged {
            Ok(Judged::Right { .. }) if !changed => before.after_right_pin(live.pending),
            Ok(Judged::Wrong) => before.after_wrong_pin(live.pending),
            Ok(Judged::Right { .. }) | Err(_) => before.take_back_try(),
        };
        // As it is, the card was written when the try was counted.
        let card_written = (live.state != before).then(|| {
            self.journal()
                .append_update(slots.0, card_update(number, live.state, cell))
        });
        let blocked = live.state.status == CardStatus::Blocked;
        if blocked && before.status != CardStatus::Blocked {
            live.blocked = card_written;
        }
        match (judged, card_written) {
            (Ok(Judged::Right { upgraded }), Some(written)) if !changed && !blocked => {
                let upgraded = upgraded.clone();
                let upgrade = upgraded.map(|upgraded| self.set_pin(slots.1, live, number, upgraded, cell));
                (true, upgrade.unwrap_or(written))
            }
            (Err(_), Some(written)) => (false, written),
            _ => (false, self.journal().append_update(slots.1, Update::RefusedLogin)),
        }
    }

    /// Gives a card a new hash, of a new PIN or of the same one.
    fn set_pin(
        &self,
        slot: Slot,
        live: &mut LiveCard,
        number: &CardNumber,
        pin: Arc<PinHash>,
        cell: &Arc<CardCell>,
    ) -> UpdateNumber {
        live.changed_pin = Some(Arc::clone(&pin));
        let update = Update::Pin {
            number: number.clone(),
            pin,
            _cell: Arc::clone(cell),
        };
        self.journal().append_update(slot, update)
    }

    /// Compares a PIN with a hash. If it is right and the hash outdated, the new hash is made here too, on the threads that
    /// give way.
    fn judge(&self, pin: &Pin, with: &PinHash) -> Result<Judged, PinError> {
        let PinHash { hash, pepper_id } = with;
        let upgrade = || {
            let outdated = self.peppers.is_outdated(hash, *pepper_id, self.pin_profile)?;
            outdated.then(|| self.hash(pin)).transpose()
        };
        let compare = || {
            let right = self.peppers.verify(pin, hash, *pepper_id)?;
            Ok(right.then(upgrade))
        };
        Ok(match self.pin_threads.run(compare)? {
            None => Judged::Wrong,
            Some(upgrade) => Judged::Right {
                upgraded: upgrade.unwrap_or_else(|error: PinError| {
                    tracing::warn!(%error, "a card keeps its PIN's old hash, since no new one could be made");
                    None
                }),
            },
        })
    }

    /// A PIN's hash as it is made today. It keeps a core busy, so it is for the PIN threads.
    pub(crate) fn hash(&self, pin: &Pin) -> Result<Arc<PinHash>, PinError> {
        Ok(Arc::new(PinHash {
            hash: self.peppers.hash(pin, self.pin_profile)?,
            pepper_id: self.peppers.newest(),
        }))
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
    /// A terminal that was given a secret comes in no more without it, and one that has shown a certificate not with any
    /// secret that it had.
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
        // Whether or not there is a hash to compare it with, lest the time should tell. (Of two hashes it tells nobody anything how
        // long it takes to compare them.)
        let shown = match proof {
            TerminalProof::Secret(secret) => Some(SecretHash::of(secret)),
            TerminalProof::None | TerminalProof::Certificate => None,
        };
        // Locked until the terminal is registered, lest of two hellos under one id each should find it unknown. Nothing is
        // waited for meanwhile: the update has its slot.
        let mut terminals = self.terminals.lock();
        let known = terminals.get(&id).copied();
        if known.is_some_and(|known| known.retired.is_some()) {
            return Err(TerminalError::Refused);
        }
        let secret_hash = match (known, proof) {
            (Some(known), TerminalProof::Certificate) if known.secret_hash == Some(SecretHash::OF_NONE) => {
                return Ok(known.registered);
            }
            (_, TerminalProof::Certificate) => Some(SecretHash::OF_NONE),
            (Some(known), TerminalProof::Secret(_)) if known.secret_hash == shown => {
                return Ok(known.registered);
            }
            (Some(known), TerminalProof::None) if known.secret_hash.is_none() && registration == BySelf => {
                return Ok(known.registered);
            }
            (None, TerminalProof::None) if registration == BySelf => None,
            _ => return Err(TerminalError::Refused),
        };
        if known.is_none() && terminals.len() >= MAX_TERMINALS {
            return Err(TerminalError::TooMany);
        }
        let terminal = Terminal {
            id,
            registered: now,
            secret_hash,
            retired: None,
        };
        let registered = self.journal().append_update(slot, Update::Terminal(terminal));
        let known = KnownTerminal {
            secret_hash,
            retired: None,
            since: known.map_or(now, |known| known.since),
            registered,
        };
        terminals.insert(id, known);
        drop(terminals);
        tracing::info!(terminal = %id, by_certificate = secret_hash.is_some(), "registers a terminal");
        Ok(registered)
    }

    /// Whether a terminal was retired: one that was let in just before is to leave again.
    pub fn is_retired(&self, terminal: TerminalId) -> bool {
        self.terminals
            .lock()
            .get(&terminal)
            .is_some_and(|known| known.retired.is_some())
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

/// The hash of some PIN.
fn decoy(peppers: &Peppers, profile: PinProfile) -> Result<PinHash, PinError> {
    let pin = Pin::new(b"0000").expect("four digits are a PIN");
    Ok(PinHash {
        hash: peppers.hash(&pin, profile)?,
        pepper_id: peppers.newest(),
    })
}

/// A try that is counted and not judged yet.
struct CountedTry {
    /// The card with the try.
    state: CardState,
    /// What the PIN is compared with.
    pin: Arc<PinHash>,
    /// Which of the card's PINs that is.
    pin_version: u32,
}

/// What a PIN turned out to be.
enum Judged {
    Wrong,
    Right {
        /// A new hash of it, if the card's is outdated.
        upgraded: Option<Arc<PinHash>>,
    },
}

/// A card whose PIN was right.
struct PinAccepted {
    card: Card,
    cell: Arc<CardCell>,
    /// Which of the card's PINs it was.
    pin_version: u32,
    /// What is durable of it.
    update: UpdateNumber,
}

/// Counts a try, unless the card is blocked: then its PIN is not looked at.
fn count_try(live: &mut LiveCard, card: &Card) -> Option<CountedTry> {
    live.state = live.state.count_try()?;
    live.pending += 1;
    let from_file = || {
        Arc::new(PinHash {
            hash: card.pin_hash.clone(),
            pepper_id: card.pepper_id,
        })
    };
    Some(CountedTry {
        state: live.state,
        pin: live.changed_pin.clone().unwrap_or_else(from_file),
        pin_version: live.pin_version,
    })
}

pub(crate) fn card_update(number: &CardNumber, state: CardState, cell: &Arc<CardCell>) -> Update {
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
    use crate::operations::{OperationError, Unblocked};
    use crate::row::Outcome;
    use crate::test_bank::{Site, account, amount, deposit, instruction, moment, order, post_at, post_order};
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
        let bank = site.open().allowing_weak_pins(true);
        let card: CardNumber = "1".parse().unwrap();
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

    fn pin(digits: &str) -> Pin {
        Pin::new(digits.as_bytes()).unwrap()
    }

    fn card(number: &str) -> CardNumber {
        number.parse().unwrap()
    }

    #[test]
    fn every_refused_login_is_in_the_file_before_its_answer_and_counted_once() {
        let site = Site::new();
        let bank = site.open();
        let counts = || {
            [
                site.query("SELECT refused_logins FROM bank"),
                site.query("SELECT stray_logins FROM bank"),
                site.query("SELECT tries FROM cards WHERE card = '1'"),
            ]
        };
        let session = bank.login(&card("1"), &pin("0001")).unwrap();
        assert_eq!(counts(), [0, 0, 0]);
        for (number, digits, expected) in [
            ("nobody", "0001", [1, 1, 0]),
            ("1", "9999", [2, 1, 1]),
            ("nobody", "0000", [3, 2, 1]),
            ("1", "9999", [4, 2, 2]),
            ("1", "9999", [5, 2, 3]),
            // Blocked by now: neither a wrong PIN nor the right one is looked at, nor the one that the decoy has.
            ("1", "9999", [6, 3, 3]),
            ("1", "0001", [7, 4, 3]),
            ("1", "0000", [8, 5, 3]),
        ] {
            let answer = bank.login(&card(number), &pin(digits));
            assert!(matches!(answer, Err(LoginError::Refused)), "{number}, {digits}");
            assert_eq!(counts(), expected, "{number}, {digits}");
        }
        assert!(bank.change_pin(&session, &pin("0001"), &pin("2468")).is_err());
        assert_eq!(counts(), [9, 6, 3]);
    }

    #[test]
    fn of_a_hundred_guesses_at_once_three_are_looked_at() {
        let site = Site::new();
        let bank = site.open();
        let start = std::sync::Barrier::new(100);
        std::thread::scope(|scope| {
            for guess in 0..100 {
                let (bank, start) = (&bank, &start);
                scope.spawn(move || {
                    let guess = pin(&format!("{:04}", 5000 + guess));
                    start.wait();
                    assert!(matches!(bank.login(&card("1"), &guess), Err(LoginError::Refused)));
                });
            }
        });
        assert!(bank.login(&card("1"), &pin("0001")).is_err());
        drop(bank);
        assert_eq!(
            site.query("SELECT tries FROM cards WHERE card = '1' AND status = 'blocked'"),
            3
        );
        assert_eq!(site.query("SELECT refused_logins FROM bank"), 101);
        assert_eq!(
            site.query("SELECT stray_logins FROM bank"),
            98,
            "all but three guesses were compared with the decoy"
        );
    }

    #[test]
    fn an_operator_unblocks_a_card_and_the_sessions_from_before_stay_ended() {
        let site = Site::new();
        let bank = site.open();
        let block = |bank: &Bank| {
            for _ in 0..3 {
                assert!(bank.login(&card("1"), &pin("9999")).is_err());
            }
            assert!(bank.login(&card("1"), &pin("0001")).is_err());
        };
        let unblock = |bank: &Bank, number: &str| bank.unblock_card(&instruction(), &card(number)).unwrap().0;
        assert!(matches!(
            bank.unblock_card(&instruction(), &card("nobody")),
            Err(OperationError::NoSuchCard(_))
        ));
        assert_eq!(unblock(&bank, "1"), Unblocked::WasNotBlocked);

        let first = bank.login(&card("1"), &pin("0001")).unwrap();
        block(&bank);
        assert_eq!(unblock(&bank, "1"), Unblocked::WasBlocked);
        assert_eq!(
            site.query("SELECT tries FROM cards WHERE card = '1' AND status = 'active'"),
            0,
            "it is on disk"
        );
        assert!(first.blocked().is_some());
        let second = bank.login(&card("1"), &pin("0001")).unwrap();
        assert!(second.blocked().is_none());
        block(&bank);
        assert!(second.blocked().is_some(), "blocked again");
        drop((first, second, bank));

        let bank = site.open();
        assert!(bank.login(&card("1"), &pin("0001")).is_err());
        assert_eq!(unblock(&bank, "1"), Unblocked::WasBlocked, "with nobody using it");
        for _ in 0..2 {
            assert!(bank.login(&card("1"), &pin("9999")).is_err());
        }
        assert_eq!(unblock(&bank, "1"), Unblocked::WasNotBlocked);
        assert_eq!(site.query("SELECT tries FROM cards WHERE card = '1'"), 0);
        drop(bank);
        site.open().login(&card("1"), &pin("0001")).unwrap();
    }

    #[test]
    fn each_unblocking_among_guesses_at_once_gives_three_tries_and_no_more() {
        const GUESSES: i64 = 8 * 25;
        const UNBLOCKED: i64 = 10;
        let site = Site::new();
        let bank = site.open();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..25).for_each(|_| assert!(bank.login(&card("1"), &pin("9999")).is_err())));
            }
            scope.spawn(|| {
                (0..UNBLOCKED).for_each(|_| _ = bank.unblock_card(&instruction(), &card("1")).unwrap());
            });
        });
        let looked_at = GUESSES - site.query("SELECT stray_logins FROM bank");
        assert!(
            (3..=3 * (UNBLOCKED + 1)).contains(&looked_at),
            "{looked_at} guesses were looked at"
        );
        // Whatever the races left, it is the same in memory and in the file, and a count that holds.
        let tries = site.query("SELECT tries FROM cards WHERE card = '1'");
        let blocked = site.query("SELECT status = 'blocked' FROM cards WHERE card = '1'") == 1;
        assert_eq!(blocked, tries == 3);
        for _ in tries..3 {
            assert!(bank.login(&card("1"), &pin("9999")).is_err());
        }
        let (found, _) = bank.unblock_card(&instruction(), &card("1")).unwrap();
        assert_eq!(found, Unblocked::WasBlocked);
        bank.login(&card("1"), &pin("0001")).unwrap();
    }

    #[test]
    fn a_pin_that_is_guessed_first_is_refused_before_the_old_one_is_looked_at() {
        let site = Site::new();
        let bank = site.open();
        let session = bank.login(&card("1"), &pin("0001")).unwrap();
        for old in ["0001", "9999"] {
            let answer = bank.change_pin(&session, &pin(old), &pin("1984"));
            assert!(matches!(answer, Err(LoginError::WeakPin)));
        }
        assert_eq!(site.query("SELECT tries FROM cards WHERE card = '1'"), 0);
        assert_eq!(site.query("SELECT refused_logins FROM bank"), 0);
        drop((session, bank));
        let bank = site.open().allowing_weak_pins(true);
        let session = bank.login(&card("1"), &pin("0001")).unwrap();
        bank.change_pin(&session, &pin("0001"), &pin("1984")).unwrap();
        bank.login(&card("1"), &pin("1984")).unwrap();
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
        check("ATM-8", Some(CERTIFICATE), ByOperator, true);
        check("ATM-8", Some(b"given"), BySelf, false);
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
            3,
            "that they have certificates is in the file, too"
        );
    }
}
