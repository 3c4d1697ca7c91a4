//! A session: who is logged in at a terminal, and what a request does.

use std::net::IpAddr;
use std::sync::Arc;

use bank_core::journal::Slot;
use bank_core::limits::MAX_STATEMENT_LINES;
use bank_core::protocol::{CashTotal, ErrorCode, NOTICE_ID, Reply, ReplyBody, Request, RequestBody};
use bank_core::{
    AccountId, Amount, Bank, CardNumber, Fate, JournalError, Login, LoginError, Lsn, Moment, Order, Pin,
    Posted, Repeat, Row, SettlingError, TerminalId, Transaction, TxnId,
};

use crate::blocking_work::{BlockingWork, NotChecked};
use crate::metrics::Answered;
use crate::replies::Replies;
use crate::sessions::Presence;
use crate::to_wire;

/// A request as the session understands it: checked, and owning what it needs. PINs are zeroized when dropped.
pub(crate) enum Command {
    Ping,
    Login {
        card: Option<(CardNumber, Pin)>,
    },
    Logout,
    Balance,
    Transact {
        txn_id: TxnId,
        transaction: Transaction,
    },
    Statement {
        lines: u16,
    },
    ChangePin {
        old: Option<Pin>,
        new: Pin,
    },
    Settle {
        account: AccountId,
        txn_id: TxnId,
        how: Settling,
    },
    Totals,
    Refused {
        code: ErrorCode,
        message: String,
    },
}

/// What a terminal does about an earlier transaction of its own.
#[derive(Clone, Copy)]
pub(crate) enum Settling {
    Resolve,
    Reverse,
    Advise(Amount),
}

impl Command {
    /// Takes a request for what it means. What it cannot mean becomes a command that answers so.
    pub(crate) fn new(request: &Request<'_>) -> Command {
        let refused = |code, message: &str| Command::Refused {
            code,
            message: message.into(),
        };
        if request.id == NOTICE_ID {
            return refused(ErrorCode::InvalidRequest, "A request's id is not 0.");
        }
        match request.body {
            RequestBody::Ping => Command::Ping,
            // What is no card number or no PIN is not told apart from a wrong one.
            RequestBody::Login { card, pin } => Command::Login {
                card: CardNumber::new(card).ok().zip(Pin::new(pin.0.as_bytes()).ok()),
            },
            RequestBody::Logout => Command::Logout,
            RequestBody::Balance => Command::Balance,
            RequestBody::Deposit { txn_id, amount } => {
                Command::transact(txn_id, amount, |amount| Transaction::Deposit { amount })
            }
            RequestBody::Withdraw { txn_id, amount } => {
                Command::transact(txn_id, amount, |amount| Transaction::Withdraw { amount })
            }
            RequestBody::Transfer { txn_id, to, amount } => match AccountId::new(to) {
                Ok(to) => Command::transact(txn_id, amount, |amount| Transaction::Transfer { to, amount }),
                Err(error) => refused(ErrorCode::InvalidRequest, &format!("To transfer, {error}.")),
            },
            RequestBody::Statement { lines } => Command::Statement {
                lines: lines.min(MAX_STATEMENT_LINES),
            },
            RequestBody::ChangePin { old, new } => match Pin::new(new.0.as_bytes()) {
                Ok(new) => Command::ChangePin {
                    old: Pin::new(old.0.as_bytes()).ok(),
                    new,
                },
                Err(error) => refused(
                    ErrorCode::InvalidPin,
                    &format!("The new PIN is refused: {error}."),
                ),
            },
            RequestBody::Reverse { account, txn_id } => {
                Command::settle(account, txn_id, Some(Settling::Reverse))
            }
            RequestBody::Resolve { account, txn_id } => {
                Command::settle(account, txn_id, Some(Settling::Resolve))
            }
            RequestBody::Advice {
                account,
                txn_id,
                amount,
            } => Command::settle(account, txn_id, Amount::from_minor(amount).map(Settling::Advise)),
            RequestBody::Totals => Command::Totals,
        }
    }

    fn transact(txn_id: [u8; 16], amount: i64, transaction: impl FnOnce(Amount) -> Transaction) -> Command {
        match (TxnId::from_bytes(txn_id), Amount::from_minor(amount)) {
            (Err(_), _) => Command::invalid_txn_id(),
            (_, None) => Command::invalid_amount(),
            (Ok(txn_id), Some(amount)) => Command::Transact {
                txn_id,
                transaction: transaction(amount),
            },
        }
    }

    /// Settling, of which there is none if its amount is none.
    fn settle(account: u64, txn_id: [u8; 16], how: Option<Settling>) -> Command {
        match (AccountId::new(account), TxnId::from_bytes(txn_id), how) {
            (Err(error), _, _) => Command::Refused {
                code: ErrorCode::InvalidRequest,
                message: format!("Of the original, {error}."),
            },
            (_, Err(_), _) => Command::invalid_txn_id(),
            (_, _, None) => Command::invalid_amount(),
            (Ok(account), Ok(txn_id), Some(how)) => Command::Settle { account, txn_id, how },
        }
    }

    fn invalid_txn_id() -> Command {
        Command::Refused {
            code: ErrorCode::InvalidTxnId,
            message: "The transaction id is no UUID of version 7.".into(),
        }
    }

    fn invalid_amount() -> Command {
        Command::Refused {
            code: ErrorCode::InvalidAmount,
            message: "The amount must be more than zero.".into(),
        }
    }

    /// Whether it may take so long that the replies before it should not wait for it.
    pub(crate) fn is_slow(&self) -> bool {
        matches!(
            self,
            Command::Login { .. }
                | Command::Statement { .. }
                | Command::ChangePin { .. }
                | Command::Settle { .. }
        )
    }
}

/// What one connection's requests work on.
pub(crate) struct Session {
    bank: Arc<Bank>,
    blocking: Arc<BlockingWork>,
    terminal: TerminalId,
    /// Where the terminal is.
    address: IpAddr,
    login: Option<Login>,
    /// Its place among all sessions.
    pub(crate) presence: Presence,
}

/// Where replies are gathered.
struct Answer<'a> {
    id: u32,
    out: &'a mut Replies,
    answered: &'a mut Answered,
}

impl Answer<'_> {
    /// Writes the reply, and gives the row that must be durable before it is shown.
    fn reply(self, lsn: Lsn, body: ReplyBody<'_>) -> Lsn {
        *self.answered = Answered::by(&body);
        self.out.add(&Reply {
            id: self.id,
            lsn: lsn.get(),
            body,
        });
        lsn
    }

    /// A transaction's reply.
    fn outcome(self, row: &Row) -> Lsn {
        let mut sentence = String::new();
        self.reply(row.lsn, to_wire::outcome(row, &mut sentence))
    }

    /// What became of a terminal's original. A fence's row is not told: it has a customer's balance.
    fn fate(self, fate: &Fate) -> Lsn {
        match fate {
            Fate::Outcome(row) => self.outcome(row),
            Fate::Reversed(row) => self.reply(row.lsn, ReplyBody::Reversed(to_wire::receipt(row))),
            Fate::Never(lsn) => {
                self.reply(Lsn::ZERO, ReplyBody::Never);
                *lsn
            }
        }
    }

    fn settling_error(self, error: SettlingError) -> Result<Lsn, JournalError> {
        Ok(match error {
            SettlingError::Busy => self.error(
                ErrorCode::Busy,
                "Another request settles the same transaction. Please ask again.",
            ),
            SettlingError::Ahead => self.error(ErrorCode::TxnIdAhead, AHEAD),
            SettlingError::OtherBody => self.error(ErrorCode::TxnIdReused, REUSED),
            SettlingError::Journal(error) => return Err(error),
            SettlingError::BankFile(error) => internal_error(self, &error),
        })
    }

    fn not_checked(self, why: &NotChecked) -> Lsn {
        match why {
            NotChecked::TooManyLogins => self.error(
                ErrorCode::Busy,
                "Too many PINs are being checked at once. Please try again.",
            ),
            NotChecked::TooManyFailures(wait) => {
                let seconds = wait.as_secs() + 1;
                let message = format!("Too many PINs were refused. Please try again in {seconds} seconds.");
                self.error(ErrorCode::TooManyFailures, &message)
            }
        }
    }

    fn error(self, code: ErrorCode, message: &str) -> Lsn {
        self.reply(
            Lsn::ZERO,
            ReplyBody::Error {
                code: code.number(),
                message,
            },
        )
    }
}

impl Session {
    pub(crate) fn new(
        bank: Arc<Bank>,
        blocking: Arc<BlockingWork>,
        terminal: TerminalId,
        address: IpAddr,
        presence: Presence,
    ) -> Session {
        Session {
            bank,
            blocking,
            terminal,
            address,
            login: None,
            presence,
        }
    }

    /// Does what a request asks, appends the reply to `out` and says what it was. The reply may be shown once the row whose Lsn is
    /// given is durable.
    ///
    /// # Errors
    /// If the journal has ended: then nothing that is not durable yet may be answered, and the connection ends.
    pub(crate) async fn execute(
        &mut self,
        id: u32,
        command: Command,
        out: &mut Replies,
        answered: &mut Answered,
    ) -> Result<Lsn, JournalError> {
        let answer = Answer { id, out, answered };
        if let Some(blocked) = self.login.as_ref().and_then(Login::blocked) {
            self.bank.journal().update_durable(blocked).await?;
            self.leave("the card was blocked");
            return Ok(answer.error(
                ErrorCode::SessionEnded,
                "The card was blocked, which ended this session.",
            ));
        }
        match command {
            Command::Ping => Ok(answer.reply(
                Lsn::ZERO,
                ReplyBody::Pong {
                    server_time: Moment::now().time.millis(),
                },
            )),
            Command::Refused { code, message } => Ok(answer.error(code, &message)),
            Command::Login { .. } if self.login.is_some() => Ok(answer.error(
                ErrorCode::AlreadyLoggedIn,
                "Somebody is logged in already. Please log out first.",
            )),
            Command::Login { card } => self.log_in(card, answer).await,
            Command::Logout
            | Command::Balance
            | Command::Transact { .. }
            | Command::Statement { .. }
            | Command::ChangePin { .. }
                if self.login.is_none() =>
            {
                Ok(answer.error(ErrorCode::NotLoggedIn, "Please log in first."))
            }
            Command::Logout => {
                self.leave("the customer left");
                Ok(answer.reply(Lsn::ZERO, ReplyBody::LoggedOut))
            }
            Command::Balance => {
                let balance = self.account().balance();
                let currency = to_wire::currency(balance.currency);
                Ok(answer.reply(
                    balance.lsn,
                    ReplyBody::Balance {
                        balance: balance.balance.minor(),
                        currency,
                    },
                ))
            }
            Command::Transact { txn_id, transaction } => {
                // The place in the queue is waited for while nothing is locked.
                let slot = self.bank.journal().reserve().await?;
                self.transact(slot, txn_id, transaction, answer).await
            }
            Command::ChangePin { old, new } => self.change_pin(old, new, answer).await,
            Command::Statement { lines } => self.statement(lines, answer).await,
            Command::Settle { account, txn_id, how } => self.settle(account, txn_id, how, answer).await,
            Command::Totals => Ok(self.totals(answer)),
        }
    }

    fn account(&self) -> &bank_core::AccountHandle {
        &self
            .login
            .as_ref()
            .expect("requests that need a login were refused without one")
            .account
    }

    async fn transact(
        &self,
        slot: Slot,
        txn_id: TxnId,
        transaction: Transaction,
        answer: Answer<'_>,
    ) -> Result<Lsn, JournalError> {
        let order = Order {
            txn_id,
            terminal: self.terminal,
            card: self.login.as_ref().map(|login| login.card_id),
            transaction,
        };
        match self.bank.post(slot, self.account(), &order, self.bank.now()) {
            Posted::Decided(row) => Ok(answer.outcome(&row)),
            Posted::Ahead => Ok(answer.error(ErrorCode::TxnIdAhead, AHEAD)),
            posted @ (Posted::Seen(_) | Posted::PerhapsSeen(_)) => {
                let account = self.account().clone();
                let repeat = move |bank: &Bank| bank.first_outcome(&account, &order, posted);
                match self.blocking.search(repeat).await {
                    Ok(Repeat::Outcome(row)) => Ok(answer.outcome(&row)),
                    Ok(Repeat::OtherBody) => Ok(answer.error(ErrorCode::TxnIdReused, REUSED)),
                    Ok(Repeat::Stale(newest)) => {
                        let newest = newest.millis();
                        Ok(answer.reply(Lsn::ZERO, ReplyBody::StaleId { newest }))
                    }
                    Err(error) => answer.settling_error(error),
                }
            }
        }
    }

    async fn settle(
        &self,
        account: AccountId,
        txn_id: TxnId,
        how: Settling,
        answer: Answer<'_>,
    ) -> Result<Lsn, JournalError> {
        let Some(account) = self.bank.account(account) else {
            return Ok(answer.error(ErrorCode::NoSuchAccount, "There is no such account."));
        };
        let (terminal, now) = (self.terminal, self.bank.now());
        let order = Order {
            txn_id,
            terminal,
            card: None,
            transaction: match how {
                Settling::Resolve | Settling::Reverse => Transaction::GiveUp,
                Settling::Advise(amount) => Transaction::Advice { amount },
            },
        };
        // An id that is new for certain needs no search.
        let slot = self.bank.journal().reserve().await?;
        if let Posted::Decided(row) = self.bank.post(slot, &account, &order, now) {
            return Ok(match how {
                Settling::Resolve | Settling::Reverse => answer.fate(&Fate::Never(row.lsn)),
                Settling::Advise(_) => answer.outcome(&row),
            });
        }
        let search = move |bank: &Bank| match how {
            Settling::Resolve => bank.resolve(&account, txn_id, terminal, now),
            Settling::Reverse => bank.reverse(&account, txn_id, terminal, now),
            Settling::Advise(amount) => bank
                .advise(&account, txn_id, terminal, amount, now)
                .map(Fate::Outcome),
        };
        match self.blocking.search(search).await {
            Ok(fate) => Ok(answer.fate(&fate)),
            Err(error) => answer.settling_error(error),
        }
    }

    fn totals(&self, answer: Answer<'_>) -> Lsn {
        let (lsn, totals) = self.bank.cash_totals(self.terminal);
        let totals = totals.into_iter().map(|(currency, cash)| CashTotal {
            currency: to_wire::currency(currency),
            cash: cash.minor(),
        });
        answer.reply(lsn, ReplyBody::Totals(totals.collect()))
    }

    async fn log_in(
        &mut self,
        card: Option<(CardNumber, Pin)>,
        answer: Answer<'_>,
    ) -> Result<Lsn, JournalError> {
        const REFUSED: &str = "The card and PIN were not accepted.";
        let Some((number, pin)) = card else {
            return Ok(answer.error(ErrorCode::LoginRefused, REFUSED));
        };
        let login = match self.blocking.login(number, pin, self.address).await {
            Ok(login) => login,
            Err(why) => return Ok(answer.not_checked(&why)),
        };
        match login {
            Ok(login) => {
                tracing::info!(account = %login.account.id(), terminal = %self.terminal, "logged in");
                let body = ReplyBody::LoggedIn {
                    account: login.account.id().get(),
                    currency: to_wire::currency(login.account.currency()),
                    holder: &login.holder,
                };
                let lsn = answer.reply(Lsn::ZERO, body);
                self.presence.log_in(login.account.id());
                self.login = Some(login);
                Ok(lsn)
            }
            Err(LoginError::Refused) => {
                tracing::info!(terminal = %self.terminal, peer = %self.address, "refused a login");
                Ok(answer.error(ErrorCode::LoginRefused, REFUSED))
            }
            Err(LoginError::Journal(error)) => Err(error),
            Err(error) => Ok(internal_error(answer, &error)),
        }
    }

    async fn change_pin(
        &mut self,
        old: Option<Pin>,
        new: Pin,
        answer: Answer<'_>,
    ) -> Result<Lsn, JournalError> {
        const REFUSED: &str = "The PIN so far is wrong, and the PIN was not changed.";
        const WEAK: &str = "The new PIN is too easy to guess, and the PIN was not changed. Please choose one that is harder to guess.";
        let login = self
            .login
            .clone()
            .expect("requests that need a login were refused without one");
        match self.blocking.change_pin(login, old, new, self.address).await {
            Err(why) => Ok(answer.not_checked(&why)),
            Ok(Ok(())) => {
                tracing::info!(account = %self.account().id(), terminal = %self.terminal, "changed a PIN");
                Ok(answer.reply(Lsn::ZERO, ReplyBody::PinChanged))
            }
            Ok(Err(LoginError::Refused)) => Ok(answer.error(ErrorCode::LoginRefused, REFUSED)),
            Ok(Err(LoginError::WeakPin)) => Ok(answer.error(ErrorCode::WeakPin, WEAK)),
            Ok(Err(LoginError::Journal(error))) => Err(error),
            Ok(Err(error)) => Ok(internal_error(answer, &error)),
        }
    }

    async fn statement(&self, lines: u16, answer: Answer<'_>) -> Result<Lsn, JournalError> {
        match self
            .blocking
            .statement(self.account().clone(), usize::from(lines))
            .await
        {
            Ok((balance, lines)) => {
                let body = ReplyBody::Statement {
                    balance: balance.balance.minor(),
                    currency: to_wire::currency(balance.currency),
                    lines: lines.iter().map(to_wire::statement_line).collect(),
                };
                Ok(answer.reply(balance.lsn, body))
            }
            Err(bank_core::bank::StatementError::Journal(error)) => Err(error),
            Err(error) => Ok(internal_error(answer, &error)),
        }
    }

    fn leave(&mut self, why: &str) {
        if let Some(login) = self.login.take() {
            self.presence.log_out();
            tracing::info!(account = %login.account.id(), terminal = %self.terminal, why, "logged out");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.leave("the connection ended");
    }
}

const AHEAD: &str =
    "The transaction id is more than five minutes ahead of the bank's clock. Nothing was done.";
const REUSED: &str = "The transaction id is that of another transaction. Nothing was done.";

fn internal_error(answer: Answer<'_>, error: &dyn std::fmt::Display) -> Lsn {
    tracing::error!(%error, "a request failed");
    answer.error(
        ErrorCode::InternalError,
        "The bank cannot do that at present. Please speak to the bank.",
    )
}
