//! A session: who is logged in at a terminal, and what a request does.

use std::sync::Arc;

use bank_core::journal::Slot;
use bank_core::limits::MAX_STATEMENT_LINES;
use bank_core::protocol::{ErrorCode, NOTICE_ID, Reply, ReplyBody, Request, RequestBody, encode};
use bank_core::{
    AccountId, Amount, Bank, CardNumber, JournalError, Login, LoginError, Lsn, Moment, Order, Pin,
    TerminalId, Transaction, TxnId,
};

use crate::blocking_work::{BlockingWork, TooManyLogins};
use crate::to_wire;

/// A request as the session understands it: checked, and owning what it needs. PINs are zeroized when dropped.
pub(crate) enum Command {
    Ping,
    Login { card: Option<(CardNumber, Pin)> },
    Logout,
    Balance,
    Transact { txn_id: TxnId, transaction: Transaction },
    Statement { lines: u16 },
    ChangePin { old: Option<Pin>, new: Pin },
    Refused { code: ErrorCode, message: String },
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
            RequestBody::Reverse { .. }
            | RequestBody::Resolve { .. }
            | RequestBody::Advice { .. }
            | RequestBody::Totals => refused(
                ErrorCode::NotSupported,
                &format!("{} is not supported yet.", request.body.name()),
            ),
        }
    }

    fn transact(txn_id: [u8; 16], amount: i64, transaction: impl FnOnce(Amount) -> Transaction) -> Command {
        let Ok(txn_id) = TxnId::from_bytes(txn_id) else {
            let message = "The transaction id is no UUID of version 7.".into();
            return Command::Refused {
                code: ErrorCode::InvalidTxnId,
                message,
            };
        };
        let Some(amount) = Amount::from_minor(amount) else {
            let message = "The amount must be more than zero.".into();
            return Command::Refused {
                code: ErrorCode::InvalidAmount,
                message,
            };
        };
        Command::Transact {
            txn_id,
            transaction: transaction(amount),
        }
    }

    /// Whether it may take so long that the replies before it should not wait for it.
    pub(crate) fn is_slow(&self) -> bool {
        matches!(
            self,
            Command::Login { .. } | Command::Statement { .. } | Command::ChangePin { .. }
        )
    }
}

/// What one connection's requests work on.
pub(crate) struct Session {
    bank: Arc<Bank>,
    blocking: Arc<BlockingWork>,
    terminal: TerminalId,
    login: Option<Login>,
}

/// Where replies are gathered.
struct Answer<'a> {
    id: u32,
    out: &'a mut Vec<u8>,
}

impl Answer<'_> {
    /// Writes the reply, and gives the row that must be durable before it is shown.
    fn reply(self, lsn: Lsn, body: ReplyBody<'_>) -> Lsn {
        encode(
            &Reply {
                id: self.id,
                lsn: lsn.get(),
                body,
            },
            self.out,
        );
        lsn
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
    pub(crate) fn new(bank: Arc<Bank>, blocking: Arc<BlockingWork>, terminal: TerminalId) -> Session {
        Session {
            bank,
            blocking,
            terminal,
            login: None,
        }
    }

    /// Does what a request asks and appends the reply to `out`. The reply may be shown once the row whose Lsn is
    /// given is durable.
    ///
    /// # Errors
    /// If the journal has ended: then nothing that is not durable yet may be answered, and the connection ends.
    pub(crate) async fn execute(
        &mut self,
        id: u32,
        command: Command,
        out: &mut Vec<u8>,
    ) -> Result<Lsn, JournalError> {
        let answer = Answer { id, out };
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
                Ok(self.transact(slot, txn_id, transaction, answer))
            }
            Command::ChangePin { old, new } => self.change_pin(old, new, answer).await,
            Command::Statement { lines } => self.statement(lines, answer).await,
        }
    }

    fn account(&self) -> &bank_core::AccountHandle {
        &self
            .login
            .as_ref()
            .expect("requests that need a login were refused without one")
            .account
    }

    fn transact(&self, slot: Slot, txn_id: TxnId, transaction: Transaction, answer: Answer<'_>) -> Lsn {
        let order = Order {
            txn_id,
            terminal: self.terminal,
            transaction,
        };
        let row = self.bank.post(slot, self.account(), &order, Moment::now());
        let mut sentence = String::new();
        answer.reply(row.lsn, to_wire::outcome(&row, &mut sentence))
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
        let Ok(login) = self.blocking.login(number, pin).await.map_err(|TooManyLogins| ()) else {
            return Ok(answer.error(ErrorCode::Busy, BUSY));
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
                self.login = Some(login);
                Ok(lsn)
            }
            Err(LoginError::Refused) => {
                tracing::info!(terminal = %self.terminal, "refused a login");
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
        let login = self
            .login
            .clone()
            .expect("requests that need a login were refused without one");
        let Some(old) = old else {
            return Ok(answer.error(ErrorCode::LoginRefused, REFUSED));
        };
        match self.blocking.change_pin(login, old, new).await {
            Err(TooManyLogins) => Ok(answer.error(ErrorCode::Busy, BUSY)),
            Ok(Ok(())) => {
                tracing::info!(account = %self.account().id(), terminal = %self.terminal, "changed a PIN");
                Ok(answer.reply(Lsn::ZERO, ReplyBody::PinChanged))
            }
            Ok(Err(LoginError::Refused)) => Ok(answer.error(ErrorCode::LoginRefused, REFUSED)),
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
            tracing::info!(account = %login.account.id(), terminal = %self.terminal, why, "logged out");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.leave("the connection ended");
    }
}

const BUSY: &str = "Too many PINs are being checked at once. Please try again.";

fn internal_error(answer: Answer<'_>, error: &dyn std::fmt::Display) -> Lsn {
    tracing::error!(%error, "a request failed");
    answer.error(
        ErrorCode::InternalError,
        "The bank cannot do that at present. Please speak to the bank.",
    )
}
