//! A history: what each client asked, when, and what it was told, when. And the bank as it is meant, one call after
//! the other, which is all that a history is compared with; it shares no code with the bank's own rules.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bank_core::protocol::ErrorCode;

/// What is asked, in minor units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Balance,
    Deposit(i64),
    Withdraw(i64),
    Transfer { to: u64, amount: i64 },
}

/// What is told, in minor units. An amount is what approval adds to the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Balance(i64),
    Approved { amount: i64, balance: i64 },
    Declined { code: u16, amount: i64, balance: i64 },
}

/// A call on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) client: usize,
    /// The account that the client's card opens.
    pub(super) account: u64,
    pub(super) ask: Ask,
    /// Before the request was sent, in nanoseconds of the one clock that all clients have.
    pub(super) asked: u64,
}

/// A call with its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) sent: Sent,
    /// After the answer was read, on the same clock.
    pub(super) answered: u64,
    /// Whether the answer was lost, so that only asking again under the same id brought it: `answered` is when that
    /// was. Until then it may have been carried out or not.
    pub(super) in_doubt: bool,
    /// The newest journal row that the answer depends on; of a transaction, its own.
    pub(super) lsn: u64,
    pub(super) answer: Answer,
}

impl Sent {
    /// The answer was read at that time.
    pub(super) fn answered(self, answered: u64, lsn: u64, answer: Answer) -> Call {
        Call {
            sent: self,
            answered,
            in_doubt: false,
            lsn,
            answer,
        }
    }
}

impl Call {
    /// The payee and the sum, if the call has paid somebody.
    pub(super) fn paid(&self) -> Option<(u64, i64)> {
        match (self.sent.ask, self.answer) {
            (Ask::Transfer { to, amount }, Answer::Approved { .. }) => Some((to, amount)),
            _ => None,
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sent {
            client,
            account,
            ask,
            asked,
        } = self.sent;
        write!(
            f,
            "[{} to {}] client {client}, ",
            seconds(asked),
            seconds(self.answered)
        )?;
        match ask {
            Ask::Balance => write!(f, "balance of account {account}")?,
            Ask::Deposit(amount) => write!(f, "deposit of {amount} on account {account}")?,
            Ask::Withdraw(amount) => write!(f, "withdrawal of {amount} from account {account}")?,
            Ask::Transfer { to, amount } => write!(f, "transfer of {amount} from account {account} to {to}")?,
        }
        write!(f, ": {}, row {}", self.answer, self.lsn)?;
        if self.in_doubt {
            f.write_str(" (told only when asked again)")?;
        }
        Ok(())
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Answer::Balance(balance) => write!(f, "balance {balance}"),
            Answer::Approved { amount, balance } => write!(f, "approved {amount:+}, balance {balance}"),
            Answer::Declined {
                code,
                amount,
                balance,
            } => {
                let name = ErrorCode::from_number(code).map_or("unknown code", ErrorCode::name);
                write!(f, "declined {amount:+} ({name}), balance {balance}")
            }
        }
    }
}

/// A time of a history, for people.
pub(super) fn seconds(nanoseconds: u64) -> String {
    format!("{:.6} s", Duration::from_nanos(nanoseconds).as_secs_f64())
}

/// The bank, one call after the other: the balance of each of its accounts, which have neither overdraft nor limit, as
/// `atm-server generate` makes them. A payee that it does not have is somebody else's affair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Books(pub(super) BTreeMap<u64, i64>);

impl Books {
    pub(super) fn balance(&self, account: u64) -> i64 {
        self.0.get(&account).copied().unwrap_or(0)
    }

    pub(super) fn total(&self) -> i64 {
        self.0.values().sum()
    }

    /// Carries a call out.
    pub(super) fn ask(&mut self, account: u64, ask: Ask) -> Answer {
        let balance = self.balance(account);
        let decline = |code: ErrorCode, amount| Answer::Declined {
            code: code.number(),
            amount,
            balance,
        };
        let amount = match ask {
            Ask::Balance => return Answer::Balance(balance),
            Ask::Deposit(amount) => amount,
            Ask::Withdraw(amount) => -amount,
            Ask::Transfer { to, amount } if to == account => return decline(ErrorCode::SameAccount, -amount),
            Ask::Transfer { amount, .. } => -amount,
        };
        if balance + amount < 0 {
            return decline(ErrorCode::InsufficientFunds, amount);
        }
        self.add(account, amount);
        if let Ask::Transfer { to, amount } = ask {
            self.add(to, amount);
        }
        Answer::Approved {
            amount,
            balance: balance + amount,
        }
    }

    pub(super) fn add(&mut self, account: u64, amount: i64) {
        if let Some(balance) = self.0.get_mut(&account) {
            *balance += amount;
        }
    }
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let balances: Vec<_> = self
            .0
            .iter()
            .map(|(account, balance)| format!("{balance} in account {account}"))
            .collect();
        f.write_str(&balances.join(", "))
    }
}
