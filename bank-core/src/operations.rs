//! What operators do with an open bank. Each command leaves an entry among the bank's [`Action`]s, in the same commit as what it
//! changes, and repeated under the same request id it is not done twice.
//!
//! All of it blocks until it is durable. One command is carried out at a time; customers are served meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::account::{Account, AccountStatus};
use crate::action::{Action, Instruction};
use crate::bank::{Bank, KnownTerminal, card_update};
use crate::bank_file::{BankFileError, Closing, DayReport, NewAccount, NewCard};
use crate::card::{Card, CardState};
use crate::cards::{CardCell, LiveCard};
use crate::durable::JournalError;
use crate::ids::{AccountId, CardId, CardNumber, Lsn, TerminalId};
use crate::interest::{Period, Rate};
use crate::journal::{AccountTerms, Appended, Checkpointed, Ordered, Slot, Update};
use crate::limits::{INTEREST_ROWS_AT_ONCE, MAX_HOLDER_BYTES, MAX_TERMINALS};
use crate::money::{Currency, Money};
use crate::pin::{Pin, PinError};
use crate::row::{Row, SystemAccount};
use crate::sync::atomic::Ordering;
use crate::terminal::{SecretHash, Terminal};
use crate::time::{BusinessDate, CutOver, Moment};
use crate::transaction::{NotPosted, Posting};

/// A command that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Performed {
    /// Its entry.
    pub action: Action,
    /// The row that it posted, if it posts one.
    pub row: Option<Row>,
    /// Whether that was before, under the same request id: nothing was done now.
    pub before: bool,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// The journal has ended, so nothing may be changed. What was begun may have been done or not.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The bank file could not be read.
    #[error(transparent)]
    BankFile(#[from] BankFileError),
    /// A PIN could not be hashed.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The request id is that of another command.
    #[error("this request id is that of another command, \"{0}\": make a new one")]
    OtherRequest(String),
    /// There is no such account.
    #[error("there is no account {0}")]
    NoSuchAccount(AccountId),
    /// There is one already.
    #[error("there is an account {0} already")]
    AccountExists(AccountId),
    /// Every number is taken.
    #[error("there is no account number left")]
    NoNumberLeft,
    /// There is no such card.
    #[error("there is no card {0}")]
    NoSuchCard(CardNumber),
    /// There is one already.
    #[error("there is a card {0} already")]
    CardExists(CardNumber),
    /// The account is not as it would have to be.
    #[error("account {account} is {}: {why}", status.name())]
    WrongStatus {
        /// Which account.
        account: AccountId,
        /// What it is.
        status: AccountStatus,
        /// Why that is in the way.
        why: &'static str,
    },
    /// Only an empty account is closed.
    #[error("account {account} has {balance}: pay it out or adjust it to zero first")]
    NotEmpty {
        /// Which account.
        account: AccountId,
        /// Its balance and currency.
        balance: String,
    },
    /// The sum is of no use here.
    #[error("an adjustment adds or takes something, and less than an account can hold")]
    InvalidAmount,
    /// The rules are against it.
    #[error("nothing was posted on account {account}: {why}")]
    NotPosted {
        /// On which account.
        account: AccountId,
        /// Which rule.
        why: NotPosted,
    },
    /// A month in the future: later runs for the months between would post nothing.
    #[error("{period} has not begun: the business date is {today}")]
    FuturePeriod {
        /// Which month.
        period: Period,
        /// The business date.
        today: BusinessDate,
    },
    /// What is no holder's name.
    #[error("a holder's name is 1 to {MAX_HOLDER_BYTES} bytes without control characters")]
    InvalidHolder,
    /// A limit or an opening balance below zero.
    #[error("a balance to open with and a limit are not below zero")]
    BelowZero,
    /// Interest for that month was posted at another rate.
    #[error(
        "interest for {period} has been ordered as {before}: accounts that have not had it yet can only have the same"
    )]
    OtherRate {
        /// Which month.
        period: Period,
        /// What was ordered.
        before: String,
    },
    /// A PIN that is guessed first.
    #[error("this PIN is too easy to guess: choose another")]
    WeakPin,
    /// A business date that is not over.
    #[error("{date} is not over: the business date is {today}, until {cut_over} UTC")]
    DateNotOver {
        /// Which date.
        date: BusinessDate,
        /// The business date.
        today: BusinessDate,
        /// When it ends.
        cut_over: CutOver,
    },
    /// Another operator has just closed a date: it is looked at once more.
    #[error("another operator has closed a date meanwhile")]
    ClosedMeanwhile,
    /// There is no such terminal.
    #[error("there is no terminal {0}")]
    NoSuchTerminal(TerminalId),
    /// The terminal has something to prove itself with.
    #[error("terminal {0} has a secret or a certificate already: --replace gives it a new secret")]
    TerminalExists(TerminalId),
    /// The terminal has been retired before.
    #[error("terminal {0} is retired already")]
    Retired(TerminalId),
    /// There are as many terminals as a bank may have.
    #[error("the bank has {MAX_TERMINALS} terminals and takes no more")]
    TooManyTerminals,
}

/// What an account that is to be opened is like.
#[derive(Clone, Debug)]
pub struct AccountTermsWanted {
    /// Its number; if none, the one after the greatest.
    pub id: Option<AccountId>,
    /// Its currency.
    pub currency: Currency,
    /// The balance that it opens with: zero or more.
    pub balance: Money,
    /// See [`Account::overdraft_limit`]: zero or more.
    pub overdraft_limit: Money,
    /// See [`Account::daily_limit`]: zero or more.
    pub daily_limit: Option<Money>,
}

/// Limits that are to be set; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewLimits {
    /// See [`Account::overdraft_limit`]: zero or more.
    pub overdraft: Option<Money>,
    /// See [`Account::daily_limit`]: zero or more, or no limit.
    pub daily: Option<Option<Money>>,
}

/// What unblocking a card found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unblocked {
    /// It was blocked, and is not any more.
    WasBlocked,
    /// It was not blocked. If wrong PINs had been counted, they are forgotten.
    WasNotBlocked,
    /// The command was carried out before, and nothing was done now.
    Before,
}

/// What a run of interest has posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterestPosted {
    /// The run's entry.
    pub action: Action,
    /// How many accounts got their interest now.
    pub accounts: u64,
    /// How much in all, by currency, in minor units.
    pub sums: BTreeMap<Currency, i128>,
    /// How many had it before.
    pub before: u64,
    /// How many have none, since they are closed, or it comes to nothing.
    pub none: u64,
    /// Accounts that could not hold it, for which somebody must do something.
    pub cannot_hold: Vec<AccountId>,
}

impl Bank {
    /// Opens an account.
    ///
    /// # Errors
    /// [`OperationError`].
    pub fn open_account(
        &self,
        instruction: &Instruction,
        wanted: &AccountTermsWanted,
    ) -> Result<Performed, OperationError> {
        let sums = [
            Some(wanted.balance),
            Some(wanted.overdraft_limit),
            wanted.daily_limit,
        ];
        if sums.into_iter().flatten().any(|sum| sum < Money::ZERO) {
            return Err(OperationError::BelowZero);
        }
        let sum = |sum| wanted.currency.format(sum);
        let subject = wanted
            .id
            .map_or_else(|| "a new account".to_owned(), |id| format!("account {id}"));
        let daily = wanted.daily_limit.map_or_else(|| "none".to_owned(), sum);
        let details = format!(
            "{} with {}, overdraft limit {}, daily limit {daily}",
            wanted.currency,
            sum(wanted.balance),
            sum(wanted.overdraft_limit),
        );
        self.operate(
            instruction,
            "open-account",
            subject,
            details,
            |_, slots, action, now| {
                let id = match wanted.id {
                    Some(id) => id,
                    None => {
                        let greatest = self.ledger.account_ids().last().map_or(0, |id| id.get());
                        AccountId::new(greatest + 1).map_err(|_| OperationError::NoNumberLeft)?
                    }
                };
                let new = NewAccount {
                    id,
                    currency: wanted.currency,
                    balance: wanted.balance,
                    overdraft_limit: wanted.overdraft_limit,
                    daily_limit: wanted.daily_limit,
                };
                let (account, _) = new.open(now);
                self.ledger
                    .open_account(slots, account, now, |account, now| Ordered {
                        action,
                        row: Some(new.open(now).1),
                        updates: vec![Update::NewAccount(Box::new(account.clone()))],
                    })
                    .ok_or(OperationError::AccountExists(id))
            },
        )
    }

    /// Issues a card with a PIN for an account.
    ///
    /// # Errors
    /// [`OperationError`].
    pub fn add_card(
        &self,
        instruction: &Instruction,
        number: &CardNumber,
        holder: &str,
        account: AccountId,
        pin: &Pin,
    ) -> Result<Performed, OperationError> {
        if !(1..=MAX_HOLDER_BYTES).contains(&holder.len()) || holder.chars().any(char::is_control) {
            return Err(OperationError::InvalidHolder);
        }
        if pin.is_weak() && !self.allow_weak_pins {
            return Err(OperationError::WeakPin);
        }
        let pin = self.pin_threads.run(|| self.hash(pin))?;
        let details = format!("card {number}");
        let subject = format!("account {account}");
        let perform = |last_card: &mut Option<CardId>, slots, action, now| {
            if self.readers.card(number)?.is_some() {
                return Err(OperationError::CardExists(number.clone()));
            }
            let id = CardId::after(*last_card);
            let card = NewCard {
                number: number.clone(),
                holder: holder.to_owned(),
                account,
                pin_hash: pin.hash.clone(),
                pepper_id: pin.pepper_id,
            };
            let appended = self.change_account(slots, account, now, |account, _| {
                if account.status == AccountStatus::Closed {
                    return Err(wrong_status(account, "a card would open nothing"));
                }
                let card = Box::new(card);
                Ok(Ordered::changing(action, vec![Update::NewCard { id, card }]))
            })?;
            *last_card = Some(id);
            Ok(appended)
        };
        self.operate(instruction, "add-card", subject, details, perform)
    }

    /// Freezes an account, unfreezes it, or closes it, for ever.
    ///
    /// # Errors
    /// [`OperationError`].
    pub fn set_status(
        &self,
        instruction: &Instruction,
        account: AccountId,
        status: AccountStatus,
    ) -> Result<Performed, OperationError> {
        let command = match status {
            AccountStatus::Open => "unfreeze",
            AccountStatus::Frozen => "freeze",
            AccountStatus::Closed => "close",
        };
        self.operate_account(
            instruction,
            command,
            account,
            String::new(),
            |account, action, _| {
                use AccountStatus::{Closed, Frozen, Open};
                match (account.status, status) {
                    (Closed, _) => return Err(wrong_status(account, "what is closed stays closed")),
                    (Frozen, Frozen) => return Err(wrong_status(account, "there is nothing to do")),
                    (Open, Open) => return Err(wrong_status(account, "there is nothing to unfreeze")),
                    (_, Closed) if account.balance != Money::ZERO => {
                        let Account { id, currency, .. } = *account;
                        return Err(OperationError::NotEmpty {
                            account: id,
                            balance: format!("{} {currency}", currency.format(account.balance)),
                        });
                    }
                    _ => account.status = status,
                }
                Ok(terms_ordered(action, account))
            },
        )
    }

    /// Sets an account's limits.
    ///
    /// # Errors
    /// [`OperationError`].
    pub fn set_limits(
        &self,
        instruction: &Instruction,
        account: AccountId,
        limits: NewLimits,
    ) -> Result<Performed, OperationError> {
        let limits_given = [limits.overdraft, limits.daily.flatten()];
        if limits_given.into_iter().flatten().any(|sum| sum < Money::ZERO) {
            return Err(OperationError::BelowZero);
        }
        let show = |name, limit: Option<String>| limit.map(|limit| format!("{name} {limit}"));
        let minor = |sum: Money| format!("{} minor units", sum.minor());
        let details: Vec<_> = [
            show("overdraft", limits.overdraft.map(minor)),
            show(
                "daily",
                limits.daily.map(|daily| daily.map_or("none".into(), minor)),
            ),
        ]
        .into_iter()
        .flatten()
        .collect();
        self.operate_account(
            instruction,
            "limits",
            account,
            details.join(", "),
            |account, action, _| {
                if account.status == AccountStatus::Closed {
                    return Err(wrong_status(account, "its limits are of no use"));
                }
                account.overdraft_limit = limits.overdraft.unwrap_or(account.overdraft_limit);
                account.daily_limit = limits.daily.unwrap_or(account.daily_limit);
                Ok(terms_ordered(action, account))
            },
        )
    }

    /// Puts something right: a posting with a receipt, that no limit stands against but what an account can hold.
    ///
    /// # Errors
    /// [`OperationError`].
    pub fn adjust(
        &self,
        instruction: &Instruction,
        account: AccountId,
        amount: Money,
        against: SystemAccount,
    ) -> Result<Performed, OperationError> {
        let is_for_this = matches!(against, SystemAccount::Adjustment | SystemAccount::Suspense);
        if amount == Money::ZERO || amount.minor() == i64::MIN || !is_for_this {
            return Err(OperationError::InvalidAmount);
        }
        let details = format!("{} minor units against {}", amount.minor(), against.name());
        self.operate_account(instruction, "adjust", account, details, |account, action, now| {
            let posting = Posting::Adjustment { amount, against };
            let row = posting
                .row(account, None, now)
                .map_err(|why| OperationError::NotPosted {
                    account: account.id,
                    why,
                })?;
            Ok(Ordered {
                action,
                row: Some(row),
                updates: vec![],
            })
        })
    }

    /// Posts interest for a month on every account that has not had it: once for each account and month, however often this is
    /// asked and whoever is killed meanwhile. An account that had interest for a later month gets none.
    ///
    /// # Errors
    /// [`OperationError`]; then it may have been posted on some accounts, and asking again posts the rest.
    pub fn post_interest(
        &self,
        instruction: &Instruction,
        rate: Rate,
        period: Period,
    ) -> Result<InterestPosted, OperationError> {
        let today = self.now().date;
        if Period::of(today).is_none_or(|month| period > month) {
            return Err(OperationError::FuturePeriod { period, today });
        }
        let details = format!("{rate} for {period}");
        if let Some(before) = self.readers.other_interest(&details, period)? {
            return Err(OperationError::OtherRate { period, before });
        }
        let run = self.operate(
            instruction,
            "interest",
            String::new(),
            details,
            |_, slots, action, _| {
                Ok(self
                    .journal()
                    .append_order(slots, Ordered::changing(action, vec![])))
            },
        )?;
        let mut posted = InterestPosted {
            action: run.action,
            accounts: 0,
            sums: BTreeMap::new(),
            before: 0,
            none: 0,
            cannot_hold: vec![],
        };
        let posting = Posting::Interest { rate, period };
        let mut newest = Lsn::ZERO;
        for id in self.ledger.account_ids() {
            let Some(account) = self.account(id) else { continue };
            let slot = self.journal().reserve_blocking()?;
            match self
                .ledger
                .post_by_action(slot, &account, &posting, posted.action.id, self.now())
            {
                Ok(row) => {
                    posted.accounts += 1;
                    *posted.sums.entry(row.currency).or_default() += i128::from(row.amount.minor());
                    newest = row.lsn;
                    // Customers' rows are not to queue behind those of a million accounts.
                    if posted.accounts.is_multiple_of(INTEREST_ROWS_AT_ONCE) {
                        self.journal().durable(newest).wait()?;
                    }
                }
                Err(NotPosted::HasHadInterest) => {
                    // A row that it had just now may not be durable yet.
                    newest = newest.max(account.balance().lsn);
                    posted.before += 1;
                }
                Err(NotPosted::Closed | NotPosted::Nothing) => posted.none += 1,
                Err(NotPosted::CannotHold) => posted.cannot_hold.push(id),
            }
        }
        self.journal().durable(newest).wait()?;
        Ok(posted)
    }

    /// Makes a card active with no tries counted: nothing else unblocks a card but a new PIN from an operator. Sessions that the
    /// block has ended stay ended.
    ///
    /// Tries that are being judged at this moment were counted before, and stay so: each was one of three then, and
    /// is one of three now.
    ///
    /// # Errors
    /// [`OperationError`]: then the card may or may not have been unblocked.
    pub fn unblock_card(
        &self,
        instruction: &Instruction,
        number: &CardNumber,
    ) -> Result<(Unblocked, Performed), OperationError> {
        let mut found = Unblocked::Before;
        let performed = self.operate_card(instruction, "unblock-card", number, |live, cell| {
            found = if live.state.is_blocked_without(live.pending) {
                Unblocked::WasBlocked
            } else {
                Unblocked::WasNotBlocked
            };
            live.state = CardState::unblocked(live.pending);
            vec![card_update(number, live.state, cell)]
        })?;
        Ok((found, performed))
    }

    /// Gives a card a new PIN and all its tries, and unblocks it.
    ///
    /// # Errors
    /// [`OperationError`]: then the card may or may not have the new PIN.
    pub fn reset_pin(
        &self,
        instruction: &Instruction,
        number: &CardNumber,
        pin: &Pin,
    ) -> Result<Performed, OperationError> {
        if pin.is_weak() && !self.allow_weak_pins {
            return Err(OperationError::WeakPin);
        }
        let pin = self.pin_threads.run(|| self.hash(pin))?;
        self.operate_card(instruction, "reset-pin", number, |live, cell| {
            live.state = CardState::unblocked(live.pending);
            live.pin_version += 1;
            live.changed_pin = Some(Arc::clone(&pin));
            vec![
                card_update(number, live.state, cell),
                Update::Pin {
                    number: number.clone(),
                    pin: Arc::clone(&pin),
                    _cell: Arc::clone(cell),
                },
            ]
        })
    }

    /// Registers a terminal by its secret's hash, or gives one that is known a secret; one that was retired is in use again.
    ///
    /// # Errors
    /// [`OperationError`].
    pub fn add_terminal(
        &self,
        instruction: &Instruction,
        id: TerminalId,
        secret: SecretHash,
        replace: bool,
    ) -> Result<Performed, OperationError> {
        // So that the same order with another secret is another one.
        let details = format!("the secret whose hash begins with {}", &secret.to_hex()[..16]);
        self.operate_terminal(instruction, "add-terminal", id, details, |terminals, now| {
            let known = terminals.get(&id);
            if known.is_some_and(|known| known.secret_hash.is_some() && known.retired.is_none()) && !replace {
                return Err(OperationError::TerminalExists(id));
            }
            if known.is_none() && terminals.len() >= MAX_TERMINALS {
                return Err(OperationError::TooManyTerminals);
            }
            Ok(Terminal {
                id,
                registered: known.map_or(now.time, |known| known.since),
                secret_hash: Some(secret),
                retired: None,
            })
        })
    }

    /// Lets a terminal come in no more.
    ///
    /// # Errors
    /// [`OperationError`].
    pub fn retire_terminal(
        &self,
        instruction: &Instruction,
        id: TerminalId,
    ) -> Result<Performed, OperationError> {
        self.operate_terminal(
            instruction,
            "retire-terminal",
            id,
            String::new(),
            |terminals, now| {
                let known = terminals.get(&id).ok_or(OperationError::NoSuchTerminal(id))?;
                if known.retired.is_some() {
                    return Err(OperationError::Retired(id));
                }
                Ok(Terminal {
                    id,
                    registered: known.since,
                    secret_hash: known.secret_hash,
                    retired: Some(now.time),
                })
            },
        )
    }

    /// Sets the time of day at which the next business date begins.
    ///
    /// # Errors
    /// [`OperationError`].
    pub fn set_cut_over(
        &self,
        instruction: &Instruction,
        cut_over: CutOver,
    ) -> Result<Performed, OperationError> {
        let details = format!("{cut_over} UTC");
        self.operate(
            instruction,
            "cut-over",
            String::new(),
            details,
            |_, slots, action, _| {
                let ordered = Ordered::changing(action, vec![Update::CutOver(cut_over)]);
                let appended = self.journal().append_order(slots, ordered);
                self.cut_over.store(cut_over.minutes(), Ordering::Relaxed);
                Ok(appended)
            },
        )
    }

    /// Closes a business date, and every one before it that is not closed yet: no row gets such a date any more. Gives what they add
    /// up to. Of a date that is closed already nothing is done, and its closing is reported again.
    ///
    /// # Errors
    /// [`OperationError`].
    pub fn close_day(
        &self,
        instruction: &Instruction,
        through: BusinessDate,
    ) -> Result<DayReport, OperationError> {
        let today = self.now().date;
        if through >= today {
            return Err(OperationError::DateNotOver {
                date: through,
                today,
                cut_over: self.cut_over(),
            });
        }
        loop {
            if let Some(report) = self.readers.day_report(through)? {
                return Ok(report);
            }
            // Before anything is locked that other operators wait for, since a long journal takes long.
            let previous = self.readers.newest_closing()?;
            self.ledger.close_through(through);
            let last_lsn = self.journal().appended_lsn();
            self.journal().durable(last_lsn).wait()?;
            let mut computed = self.readers.compute_closing(Closing {
                through,
                time: self.now().time,
                last_lsn,
                next_lsn: last_lsn.next(),
                operator: instruction.operator().to_owned(),
            })?;
            let details = format!("through {through}");
            let perform = |_: &mut Option<CardId>, slots, action: Action, now: Moment| {
                if self.readers.newest_closing()? != previous {
                    return Err(OperationError::ClosedMeanwhile);
                }
                computed.report.closing.time = now.time;
                let ordered = Ordered::changing(action, vec![Update::Closing(computed.to_closing())]);
                Ok(self.journal().append_order(slots, ordered))
            };
            match self.operate(instruction, "close-day", String::new(), details, perform) {
                Ok(_) => return Ok(computed.report),
                Err(OperationError::ClosedMeanwhile) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Brings the tables of accounts up to date with the journal and copies SQLite's log into the database, which is done now and then
    /// without being asked, too. Commits wait while the log is copied.
    ///
    /// # Errors
    /// If the journal has ended.
    pub fn checkpoint(&self) -> Result<Checkpointed, JournalError> {
        let slot = self.journal().reserve_blocking()?;
        let (done, told) = std::sync::mpsc::channel();
        let number = self.journal().append_update(slot, Update::Checkpoint(done));
        self.journal().update_durable(number).wait()?;
        told.recv().map_err(|_| JournalError::Closed)
    }

    /// Changes one terminal, as `decide` says from those that are known.
    fn operate_terminal(
        &self,
        instruction: &Instruction,
        command: &str,
        id: TerminalId,
        details: String,
        decide: impl FnOnce(&HashMap<TerminalId, KnownTerminal>, Moment) -> Result<Terminal, OperationError>,
    ) -> Result<Performed, OperationError> {
        let subject = format!("terminal {id}");
        self.operate(instruction, command, subject, details, |_, slots, action, now| {
            let mut terminals = self.terminals.lock();
            let terminal = decide(&terminals, now)?;
            let ordered = Ordered::changing(action, vec![Update::Terminal(terminal)]);
            let appended = self.journal().append_order(slots, ordered);
            let known = KnownTerminal {
                secret_hash: terminal.secret_hash,
                retired: terminal.retired,
                since: terminal.registered,
                registered: appended.last,
            };
            terminals.insert(id, known);
            Ok(appended)
        })
    }

    /// Changes one account, as `decide` says from what it is while it is locked.
    fn operate_account(
        &self,
        instruction: &Instruction,
        command: &str,
        account: AccountId,
        details: String,
        decide: impl FnOnce(&mut Account, Action, Moment) -> Result<Ordered, OperationError>,
    ) -> Result<Performed, OperationError> {
        let subject = format!("account {account}");
        self.operate(instruction, command, subject, details, |_, slots, action, now| {
            self.change_account(slots, account, now, |account, now| decide(account, action, now))
        })
    }

    fn change_account(
        &self,
        slots: Vec<Slot>,
        account: AccountId,
        now: Moment,
        decide: impl FnOnce(&mut Account, Moment) -> Result<Ordered, OperationError>,
    ) -> Result<Appended, OperationError> {
        let account = self
            .account(account)
            .ok_or(OperationError::NoSuchAccount(account))?;
        self.ledger.order(slots, &account, now, decide)
    }

    /// Changes one card, whose updates `change` gives.
    fn operate_card(
        &self,
        instruction: &Instruction,
        command: &str,
        number: &CardNumber,
        change: impl FnOnce(&mut LiveCard, &Arc<CardCell>) -> Vec<Update>,
    ) -> Result<Performed, OperationError> {
        let find = || -> Result<Card, OperationError> {
            self.readers
                .card(number)?
                .ok_or_else(|| OperationError::NoSuchCard(number.clone()))
        };
        let subject = format!("card {}", find()?.id);
        self.operate(
            instruction,
            command,
            subject,
            String::new(),
            |_, slots, action, _| {
                // Read once more now that there is a cell, so that what is read is no older than its last update.
                let cell = self.cards.cell(number);
                let card = find()?;
                Ok(cell.write(|live| {
                    let updates = change(live.get_or_insert(LiveCard::new(card.state)), &cell);
                    self.journal()
                        .append_order(slots, Ordered::changing(action, updates))
                }))
            },
        )
    }

    /// Carries out one command, unless it was carried out before.
    fn operate(
        &self,
        instruction: &Instruction,
        command: &str,
        subject: String,
        details: String,
        perform: impl FnOnce(&mut Option<CardId>, Vec<Slot>, Action, Moment) -> Result<Appended, OperationError>,
    ) -> Result<Performed, OperationError> {
        let mut last_card = self.operating.lock();
        let now = self.now();
        let action = instruction.action(now.time, command, subject, details);
        if let Some(done) = self.readers.action(action.request)? {
            if !done.is_same_order(&action) {
                return Err(OperationError::OtherRequest(done.command));
            }
            return self.performed_before(done);
        }
        let slots = self.journal().reserve_for_order()?;
        let Appended { action, row, last } = perform(&mut last_card, slots, action, now)?;
        self.journal().update_durable(last).wait()?;
        tracing::info!(
            action = %action.id, operator = action.operator, command = action.command, subject = action.subject,
            "an operator's command was carried out"
        );
        Ok(Performed {
            action,
            row,
            before: false,
        })
    }

    fn performed_before(&self, action: Action) -> Result<Performed, OperationError> {
        let row = match action.lsn {
            Some(lsn) => Some(self.readers.row_of_any(lsn, |account| {
                self.account(account).map(|account| account.currency())
            })?),
            None => None,
        };
        Ok(Performed {
            action,
            row,
            before: true,
        })
    }
}

fn wrong_status(account: &Account, why: &'static str) -> OperationError {
    OperationError::WrongStatus {
        account: account.id,
        status: account.status,
        why,
    }
}

fn terms_ordered(action: Action, account: &Account) -> Ordered {
    let terms = AccountTerms {
        account: account.id,
        status: account.status,
        overdraft_limit: account.overdraft_limit,
        daily_limit: account.daily_limit,
    };
    Ordered::changing(action, vec![Update::Account(terms)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bank_file::{Movement, Proof, read_day_report, verify, verify_with_receipts};
    use crate::chain::ReceiptHead;
    use crate::row::{Kind, Outcome};
    use crate::test_bank::{Site, account, amount, deposit, instruction, moment, order, post_order};
    use crate::transaction::{Decline, Transaction};
    use crate::{Posted, TxnId};

    fn id(number: u64) -> AccountId {
        AccountId::new(number).unwrap()
    }

    fn usd(minor: i64) -> Money {
        Money::from_minor(minor)
    }

    fn proof(site: &Site) -> Proof {
        let proof = verify(&site.path()).unwrap();
        assert!(proof.holds(), "{:#?}", proof.problems);
        proof
    }

    fn wanted(number: Option<u64>) -> AccountTermsWanted {
        AccountTermsWanted {
            id: number.map(id),
            currency: Currency::USD,
            balance: usd(5000),
            overdraft_limit: usd(100),
            daily_limit: Some(usd(300)),
        }
    }

    fn withdraw(bank: &Bank, number: u64, minor: i64) -> Outcome {
        let order = order(
            Transaction::Withdraw {
                amount: amount(minor),
            },
            bank.now(),
        );
        match post_order(bank, number, &order, bank.now()) {
            Posted::Decided(row) => row.outcome,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_account_is_opened_and_used_while_the_bank_is_served_and_is_there_after_a_crash() {
        let site = Site::new();
        let bank = site.open();
        let opened = bank.open_account(&instruction(), &wanted(Some(77))).unwrap();
        let row = opened.row.unwrap();
        assert_eq!((row.kind, row.balance.minor()), (Kind::Opening, 5000));
        assert_eq!(
            (row.action, opened.action.lsn),
            (Some(opened.action.id), Some(row.lsn))
        );
        let next = bank
            .open_account(&instruction(), &wanted(None))
            .unwrap()
            .row
            .unwrap();
        assert_eq!(next.account, id(78));
        assert!(matches!(
            bank.open_account(&instruction(), &wanted(Some(1))),
            Err(OperationError::AccountExists(_))
        ));
        let card = CardNumber::new("new card").unwrap();
        let pin = Pin::new(b"4711").unwrap();
        bank.add_card(&instruction(), &card, "Ann", id(77), &pin).unwrap();
        assert!(matches!(
            bank.add_card(&instruction(), &card, "Ann", id(78), &pin),
            Err(OperationError::CardExists(_))
        ));
        let login = bank.login(&card, &pin).unwrap();
        assert_eq!((login.account.id(), login.holder.as_str()), (id(77), "Ann"));
        assert_eq!(withdraw(&bank, 77, 301), Outcome::Declined(Decline::DailyLimit));
        assert_eq!(withdraw(&bank, 77, 300), Outcome::Approved);
        proof(&site);
        drop((login, bank));
        let bank = site.open();
        assert_eq!(account(&bank, 77).balance().balance, usd(4700));
        bank.login(&card, &pin).unwrap();
        bank.close().unwrap();
        assert_eq!(proof(&site).actions, 3);
    }

    #[test]
    fn a_command_that_is_asked_again_is_done_once_and_another_under_its_id_is_refused() {
        let site = Site::new();
        let bank = site.open();
        let instruction = instruction();
        let first = bank
            .adjust(&instruction, id(1), usd(-250), SystemAccount::Suspense)
            .unwrap();
        assert!(!first.before);
        drop(bank);
        let bank = site.open();
        let again = bank
            .adjust(&instruction, id(1), usd(-250), SystemAccount::Suspense)
            .unwrap();
        assert!(again.before);
        assert_eq!((again.row, &again.action), (first.row, &first.action));
        for other in [
            bank.adjust(&instruction, id(1), usd(-251), SystemAccount::Suspense),
            bank.adjust(&instruction, id(2), usd(-250), SystemAccount::Suspense),
            bank.adjust(&instruction, id(1), usd(-250), SystemAccount::Adjustment),
            bank.set_status(&instruction, id(1), AccountStatus::Frozen),
        ] {
            assert!(matches!(other, Err(OperationError::OtherRequest(_))), "{other:?}");
        }
        assert_eq!(site.query("SELECT count(*) FROM actions"), 1);
        assert_eq!(proof(&site).currencies.values().next().unwrap().suspense, 250);
        assert!(matches!(
            bank.adjust(
                &self::instruction(),
                id(1),
                usd(i64::MAX),
                SystemAccount::Adjustment
            ),
            Err(OperationError::NotPosted { .. })
        ));
        for nothing in [0, i64::MIN] {
            assert!(matches!(
                bank.adjust(
                    &self::instruction(),
                    id(1),
                    usd(nothing),
                    SystemAccount::Adjustment
                ),
                Err(OperationError::InvalidAmount)
            ));
        }
    }

    #[test]
    fn an_account_is_frozen_and_closed_by_rule_and_stays_so_after_a_crash() {
        let site = Site::new();
        let bank = site.open();
        let set = |bank: &Bank, status| bank.set_status(&instruction(), id(1), status);
        set(&bank, AccountStatus::Frozen).unwrap();
        assert_eq!(withdraw(&bank, 1, 1), Outcome::Declined(Decline::AccountFrozen));
        assert!(matches!(
            set(&bank, AccountStatus::Frozen),
            Err(OperationError::WrongStatus { .. })
        ));
        drop(bank);
        let bank = site.open();
        assert_eq!(withdraw(&bank, 1, 1), Outcome::Declined(Decline::AccountFrozen));
        set(&bank, AccountStatus::Open).unwrap();
        assert_eq!(withdraw(&bank, 1, 1), Outcome::Approved);
        let rest = account(&bank, 1).balance().balance;
        assert!(matches!(
            set(&bank, AccountStatus::Closed),
            Err(OperationError::NotEmpty { .. })
        ));
        bank.adjust(
            &instruction(),
            id(1),
            usd(-rest.minor()),
            SystemAccount::Adjustment,
        )
        .unwrap();
        set(&bank, AccountStatus::Closed).unwrap();
        assert!(matches!(
            set(&bank, AccountStatus::Open),
            Err(OperationError::WrongStatus { .. })
        ));
        let limits = NewLimits {
            overdraft: Some(usd(700)),
            daily: Some(None),
        };
        assert!(matches!(
            bank.set_limits(&instruction(), id(1), limits),
            Err(OperationError::WrongStatus { .. })
        ));
        bank.set_limits(&instruction(), id(2), limits).unwrap();
        bank.close().unwrap();
        drop(bank);
        let bank = site.open();
        assert_eq!(withdraw(&bank, 1, 1), Outcome::Declined(Decline::AccountClosed));
        let second = account(&bank, 2).copy();
        assert_eq!((second.overdraft_limit, second.daily_limit), (usd(700), None));
        proof(&site);
    }

    #[test]
    fn interest_is_posted_once_however_often_it_is_asked_for_and_wherever_it_was_cut_short() {
        let site = Site::new();
        let bank = site.open();
        let month = Period::of(bank.now().date).unwrap();
        let rate: Rate = "2%".parse().unwrap();
        // A run that was killed after some accounts.
        let posting = Posting::Interest { rate, period: month };
        let action = bank
            .operate(
                &instruction(),
                "interest",
                String::new(),
                String::new(),
                |_, slots, action, _| {
                    let ordered = Ordered::changing(action, vec![]);
                    Ok(bank.journal().append_order(slots, ordered))
                },
            )
            .unwrap()
            .action;
        for number in 1..=3 {
            let slot = bank.journal().reserve_blocking().unwrap();
            let row =
                bank.ledger
                    .post_by_action(slot, &account(&bank, number), &posting, action.id, bank.now());
            bank.journal().durable(row.unwrap().lsn).wait().unwrap();
        }
        drop(bank);
        let bank = site.open();
        let accounts = bank.account_count() as u64;
        let posted = bank.post_interest(&instruction(), rate, month).unwrap();
        assert_eq!((posted.accounts, posted.before), (accounts - 3, 3));
        bank.close().unwrap();
        drop(bank);
        let bank = site.open();
        let posted = bank.post_interest(&instruction(), rate, month).unwrap();
        assert_eq!((posted.accounts, posted.before), (0, accounts));
        assert_eq!(
            site.query("SELECT count(*) FROM journal WHERE kind = 8"),
            accounts as i64
        );
        assert_eq!(
            account(&bank, 1).copy().recent_ids.len(),
            0,
            "no id of a customer's is touched"
        );
        let later = "9999-12".parse().unwrap();
        assert!(matches!(
            bank.post_interest(&instruction(), rate, later),
            Err(OperationError::FuturePeriod { .. })
        ));
        assert_ne!(proof(&site).currencies.values().next().unwrap().interest, 0);
    }

    #[test]
    fn a_new_pin_ends_the_old_one_and_the_block() {
        let site = Site::new();
        let bank = site.open();
        let (card, old, new) = (
            CardNumber::new("1").unwrap(),
            Pin::new(b"0001").unwrap(),
            Pin::new(b"8520").unwrap(),
        );
        for _ in 0..3 {
            assert!(bank.login(&card, &new).is_err());
        }
        bank.reset_pin(&instruction(), &card, &new).unwrap();
        bank.login(&card, &new).unwrap();
        drop(bank);
        let bank = site.open();
        assert!(bank.login(&card, &old).is_err());
        bank.login(&card, &new).unwrap();
    }

    #[test]
    fn a_retired_terminal_comes_in_no_more_until_it_is_added_again() {
        use crate::{Registration, TerminalProof};
        let site = Site::new();
        let bank = site.open();
        let terminal: TerminalId = "ATM-1".parse().unwrap();
        let secret = [7; 32];
        let admit = |bank: &Bank, proof| {
            let slot = bank.journal().reserve_blocking().unwrap();
            bank.admit_terminal(slot, terminal, proof, Registration::BySelf, bank.now().time)
        };
        assert!(matches!(
            bank.retire_terminal(&instruction(), terminal),
            Err(OperationError::NoSuchTerminal(_))
        ));
        admit(&bank, TerminalProof::None).unwrap();
        bank.retire_terminal(&instruction(), terminal).unwrap();
        let all = [
            TerminalProof::None,
            TerminalProof::Secret(&secret),
            TerminalProof::Certificate,
        ];
        assert!(all.iter().all(|&proof| admit(&bank, proof).is_err()));
        assert!(matches!(
            bank.retire_terminal(&instruction(), terminal),
            Err(OperationError::Retired(_))
        ));
        drop(bank);
        let bank = site.open();
        assert!(all.iter().all(|&proof| admit(&bank, proof).is_err()));
        let hash = SecretHash::of(&secret);
        bank.add_terminal(&instruction(), terminal, hash, false).unwrap();
        admit(&bank, TerminalProof::Secret(&secret)).unwrap();
        assert!(matches!(
            bank.add_terminal(&instruction(), terminal, hash, false),
            Err(OperationError::TerminalExists(_))
        ));
    }

    #[test]
    fn a_closed_date_gets_no_row_any_more_and_is_reported_the_same_again() {
        let site = Site::new();
        let bank = site.open();
        let today = bank.now().date;
        assert!(matches!(
            bank.close_day(&instruction(), today),
            Err(OperationError::DateNotOver { .. })
        ));
        // The test's deposits are of days ago; the loading may be of today.
        let row = deposit(&bank, 1, 700);
        bank.adjust(&instruction(), id(2), usd(40), SystemAccount::Suspense)
            .unwrap();
        let through = BusinessDate::from_days(today.days() - 1);
        let report = bank.close_day(&instruction(), through).unwrap();
        assert!(report.agrees(), "{:#?}", report.differences);
        assert_eq!(report.from, None);
        let late = deposit(&bank, 3, 5);
        assert!(late.moment.date > through, "{} is closed", late.moment.date);
        assert!(row.moment.date <= late.moment.date);
        let again = bank.close_day(&instruction(), through).unwrap();
        assert_eq!(again, report);
        assert_eq!(site.query("SELECT count(*) FROM closings"), 1);
        drop(bank);
        let bank = site.open();
        assert!(deposit(&bank, 4, 5).moment.date > through, "also after a crash");
        assert_eq!(
            read_day_report(&site.path(), Some(through)).unwrap(),
            Some(report)
        );
        assert_eq!(read_day_report(&site.path(), Some(today)).unwrap(), None);
        proof(&site);
    }

    #[test]
    fn a_report_adds_up_what_was_done_and_names_what_was_changed_since() {
        let site = Site::new();
        let bank = site.open();
        let through = moment(1).date;
        assert!(through < bank.now().date, "the test's moments are in the past");
        // Loaded now, the accounts would get no row of a date before: so it is their own first date that is closed.
        drop(bank);
        let file = rusqlite::Connection::open(site.path()).unwrap();
        file.execute_batch(&format!(
            "UPDATE accounts SET business_date = {0}, last_time = 0; UPDATE journal SET business_date = {0}, time = 0;
             DELETE FROM commits;",
            through.days() - 1
        ))
        .unwrap();
        let bank = site.open();
        deposit(&bank, 1, 700);
        let login = bank.now();
        assert!(login.date > through);
        bank.adjust(&instruction(), id(2), usd(40), SystemAccount::Adjustment)
            .unwrap();
        let first = bank
            .close_day(&instruction(), BusinessDate::from_days(through.days() - 1))
            .unwrap();
        assert_eq!(first.currencies.len(), 1);
        let day = first.currencies.values().next().unwrap();
        assert_eq!(day.after.customers, -day.after.opening);
        let second = bank.close_day(&instruction(), through).unwrap();
        assert_eq!(second.from, Some(through));
        let day = second.currencies.values().next().unwrap();
        assert_eq!((day.before.cash, day.after.cash), (0, -700));
        assert_eq!(
            day.movements["deposit"],
            Movement {
                approved: 1,
                declined: 0,
                sum: 700
            }
        );
        assert_eq!(day.movements.len(), 1, "the adjustment is of a later date");
        let terminal = second.terminals.values().next().unwrap();
        assert_eq!((terminal.deposits.sum, terminal.cash), (700, 700));
        assert!(first.agrees() && second.agrees());
        drop(bank);
        file.execute_batch("UPDATE journal SET amount = 70000 WHERE kind = 1")
            .unwrap();
        let changed = read_day_report(&site.path(), Some(through)).unwrap().unwrap();
        assert!(changed.difference_count >= 2, "{:#?}", changed.differences);
    }

    #[test]
    fn history_that_was_rewritten_is_told_by_the_chain_and_by_an_old_receipt() {
        let site = Site::new();
        let bank = site.open();
        let receipts: Vec<ReceiptHead> = (1..=4)
            .map(|number| {
                let row = deposit(&bank, number, 100);
                let head = bank.head_at_hand(row.lsn).unwrap();
                assert_eq!(bank.head_at(row.lsn).unwrap(), head, "the file says so, too");
                format!("{}:{head}", row.lsn).parse().unwrap()
            })
            .collect();
        bank.set_status(&instruction(), id(5), AccountStatus::Frozen)
            .unwrap();
        bank.adjust(&instruction(), id(6), usd(1), SystemAccount::Adjustment)
            .unwrap();
        bank.close().unwrap();
        let whole = verify_with_receipts(&site.path(), &receipts).unwrap();
        assert!(whole.holds(), "{:#?}", whole.problems);

        // The newest head is of a commit of actions alone as well as of one with rows.
        drop(bank);
        let bank = site.open();
        bank.set_status(&instruction(), id(5), AccountStatus::Open)
            .unwrap();
        bank.close().unwrap();
        drop(bank);
        let whole = verify(&site.path()).unwrap();
        let newest: ReceiptHead = format!("{}:{}", whole.lsn, whole.head.unwrap()).parse().unwrap();
        let of_its_row = receipts.iter().chain([&newest]).cloned().collect::<Vec<_>>();
        let again = verify_with_receipts(&site.path(), &of_its_row).unwrap();
        assert!(again.holds(), "{:#?}", again.problems);
        let wrong: ReceiptHead = format!("{}:{}", whole.lsn, crate::Head::FIRST).parse().unwrap();
        assert!(!verify_with_receipts(&site.path(), &[wrong]).unwrap().holds());

        let copy = site.path().with_file_name("copy.db");
        let problems = |change: &str| {
            std::fs::copy(site.path(), &copy).unwrap();
            let file = rusqlite::Connection::open(&copy).unwrap();
            file.execute_batch(change).unwrap();
            drop(file);
            let proof = verify_with_receipts(&copy, &receipts).unwrap();
            assert!(!proof.holds(), "{change}");
            proof.problems.join("\n")
        };
        // What the books alone do not tell.
        for change in [
            "UPDATE journal SET terminal = 'ATM-9' WHERE lsn = (SELECT max(lsn) FROM journal WHERE kind = 1)",
            "UPDATE journal SET time = time + 1 WHERE lsn = 2",
            "UPDATE actions SET operator = 'nobody' WHERE action = 1",
            "UPDATE actions SET reason = NULL WHERE action = 2",
            "UPDATE commits SET head = zeroblob(32) WHERE last_action = 1",
        ] {
            let told = problems(change);
            assert!(told.contains("the hash chain breaks"), "{change}: {told}");
        }
        assert!(problems("DELETE FROM commits WHERE last_action > 0").contains("in no commit"));
        // Whoever rewrites the chain, too, is told by the receipts.
        let told = problems(
            "UPDATE commits SET head = randomblob(32) WHERE last_lsn = (SELECT min(lsn) FROM journal WHERE kind = 1)",
        );
        assert!(told.contains("the receipt of record"), "{told}");
        let other: ReceiptHead = "99999:0123456789abcdef".parse().unwrap();
        let proof = verify_with_receipts(&site.path(), &[other]).unwrap();
        assert!(proof.problems[0].contains("in no commit"), "{:?}", proof.problems);
    }

    #[test]
    fn a_cut_over_is_kept_and_business_dates_follow_it() {
        let site = Site::new();
        let bank = site.open();
        let before = bank.now();
        let cut_over = CutOver::from_minutes(1).unwrap();
        bank.set_cut_over(&instruction(), cut_over).unwrap();
        assert_eq!(bank.now().date, before.date.next(), "nearly a day earlier");
        drop(bank);
        let bank = site.open();
        assert_eq!(bank.cut_over(), cut_over);
    }

    #[test]
    fn a_request_id_is_of_use_only_once() {
        let again = Instruction::new("op".into(), None, TxnId::generate()).unwrap();
        let site = Site::new();
        let bank = site.open();
        let card = CardNumber::new("1").unwrap();
        let (found, _) = bank.unblock_card(&again, &card).unwrap();
        assert_eq!(found, Unblocked::WasNotBlocked);
        assert_eq!(bank.unblock_card(&again, &card).unwrap().0, Unblocked::Before);
    }
}
