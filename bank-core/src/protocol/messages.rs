//! The messages. Their fields are in the order of their bytes.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::frame::{FrameError, decode};

/// The first four bytes of the first frame: "ATMB".
pub const MAGIC: [u8; 4] = *b"ATMB";

/// The version of the protocol that this crate speaks.
pub const VERSION: u16 = 2;

/// The request id of a message that answers no request: the server says something of its own accord.
pub const NOTICE_ID: u32 = 0;

/// Bytes of a head of the journal's hash chain.
pub const HEAD_BYTES: usize = 32;

/// A text or key that nobody is to see in a log.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret<T>(pub T);

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(****)")
    }
}

/// The first frame of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello<'a> {
    /// [`MAGIC`].
    pub magic: [u8; 4],
    /// The version that the client wants to speak. Up to here a hello is the same in every version.
    pub version: u16,
    /// The terminal's id.
    #[serde(borrow)]
    pub terminal: &'a str,
    /// What proves that it is that terminal.
    #[serde(borrow)]
    pub proof: Proof<'a>,
}

/// What proves a terminal's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof<'a> {
    /// Nothing: accepted on loopback only.
    None,
    /// The secret that the terminal was given when it was registered.
    #[serde(borrow)]
    Secret(Secret<&'a [u8]>),
}

/// Why a first frame is no hello of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// It is no hello of any version.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It is a hello of a version that this side does not speak.
    #[error("version {0} of the protocol is not spoken here")]
    Version(u16),
}

impl<'a> Hello<'a> {
    /// Reads a first frame, as far as its version is known.
    ///
    /// # Errors
    /// [`HelloError::Version`] if it begins as every hello does and goes on in an unknown version.
    pub fn decode(body: &'a [u8]) -> Result<Hello<'a>, HelloError> {
        match postcard::take_from_bytes::<([u8; 4], u16)>(body) {
            Ok(((MAGIC, VERSION), _)) => Ok(decode(body)?),
            Ok(((MAGIC, version), _)) => Err(HelloError::Version(version)),
            _ => Err(HelloError::Frame(FrameError::Malformed)),
        }
    }
}

/// The first frame of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Greeting<'a> {
    /// The hello was accepted.
    Welcome {
        /// The version that is spoken from here on.
        version: u16,
        /// The server's clock: milliseconds since 1970-01-01 UTC.
        server_time: i64,
        /// Bytes of the longest request body that the server takes.
        max_request_bytes: u32,
        /// Bytes of the longest reply body that the server sends.
        max_reply_bytes: u32,
    },
    /// It was not, and the connection is closed.
    Refused {
        /// An [`super::ErrorCode`].
        code: u16,
        /// The oldest version that the server speaks.
        oldest_version: u16,
        /// The newest version that the server speaks.
        newest_version: u16,
        /// The reason, in a plain sentence.
        #[serde(borrow)]
        message: &'a str,
    },
}

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request<'a> {
    /// Chosen by the client, not [`NOTICE_ID`]; the reply repeats it.
    pub id: u32,
    /// What is asked.
    #[serde(borrow)]
    pub body: RequestBody<'a>,
}

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestBody<'a> {
    /// Are you there?
    Ping,
    /// A card and its PIN.
    Login {
        /// The card's number.
        card: &'a str,
        /// The PIN's digits.
        #[serde(borrow)]
        pin: Secret<&'a str>,
    },
    /// The customer leaves.
    Logout,
    /// The balance of the card's account.
    Balance,
    /// Cash was put in.
    Deposit {
        /// A UUIDv7 made by the client.
        txn_id: [u8; 16],
        /// Minor units, above zero.
        amount: i64,
    },
    /// Cash is wanted.
    Withdraw {
        /// A UUIDv7 made by the client.
        txn_id: [u8; 16],
        /// Minor units, above zero.
        amount: i64,
    },
    /// Another customer is to be paid.
    Transfer {
        /// A UUIDv7 made by the client.
        txn_id: [u8; 16],
        /// The payee's account.
        to: u64,
        /// Minor units, above zero.
        amount: i64,
    },
    /// An earlier transaction is to be undone.
    Reverse {
        /// The account that the original names.
        account: u64,
        /// The original's id.
        txn_id: [u8; 16],
    },
    /// What became of an earlier transaction?
    Resolve {
        /// The account that the original names.
        account: u64,
        /// The original's id.
        txn_id: [u8; 16],
    },
    /// A deposit was taken while the bank could not be reached.
    Advice {
        /// The account to be credited.
        account: u64,
        /// A UUIDv7 made by the client.
        txn_id: [u8; 16],
        /// Minor units, above zero.
        amount: i64,
    },
    /// The newest rows of the card's account.
    Statement {
        /// How many at most.
        lines: u16,
    },
    /// A new PIN for the card.
    ChangePin {
        /// The digits of the PIN so far.
        #[serde(borrow)]
        old: Secret<&'a str>,
        /// The digits of the PIN from now on.
        #[serde(borrow)]
        new: Secret<&'a str>,
    },
    /// How much cash has come into and gone out of this terminal?
    Totals,
}

impl RequestBody<'_> {
    /// The message's name in `docs/PROTOCOL.md`.
    pub const fn name(&self) -> &'static str {
        match self {
            RequestBody::Ping => "Ping",
            RequestBody::Login { .. } => "Login",
            RequestBody::Logout => "Logout",
            RequestBody::Balance => "Balance",
            RequestBody::Deposit { .. } => "Deposit",
            RequestBody::Withdraw { .. } => "Withdraw",
            RequestBody::Transfer { .. } => "Transfer",
            RequestBody::Reverse { .. } => "Reverse",
            RequestBody::Resolve { .. } => "Resolve",
            RequestBody::Advice { .. } => "Advice",
            RequestBody::Statement { .. } => "Statement",
            RequestBody::ChangePin { .. } => "ChangePin",
            RequestBody::Totals => "Totals",
        }
    }
}

/// What the server answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply<'a> {
    /// The request's id, or [`NOTICE_ID`].
    pub id: u32,
    /// The newest journal row that the reply depends on, durable by now; 0 if it depends on none.
    pub lsn: u64,
    /// The answer.
    #[serde(borrow)]
    pub body: ReplyBody<'a>,
}

/// What the server answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplyBody<'a> {
    /// To `Ping`: yes.
    Pong {
        /// The server's clock: milliseconds since 1970-01-01 UTC.
        server_time: i64,
    },
    /// To `Login`: the card and PIN were accepted.
    LoggedIn {
        /// The account that the card opens.
        account: u64,
        /// The account's currency: three ASCII letters of ISO 4217.
        currency: [u8; 3],
        /// Whom the card was issued to.
        holder: &'a str,
    },
    /// To `Logout`.
    LoggedOut,
    /// To `Balance`.
    Balance {
        /// Minor units.
        balance: i64,
        /// The account's currency.
        currency: [u8; 3],
    },
    /// To a transaction: it was done.
    Approved(Receipt),
    /// To a transaction: a business rule forbids it, for ever under this id.
    Declined {
        /// An [`super::ErrorCode`] below 100.
        code: u16,
        /// The reason, in a plain sentence.
        #[serde(borrow)]
        message: &'a str,
        /// The receipt of what was not done.
        receipt: Receipt,
    },
    /// To `Statement`.
    Statement {
        /// Minor units: the balance that the lines lead to.
        balance: i64,
        /// The account's currency.
        currency: [u8; 3],
        /// The newest first.
        #[serde(borrow)]
        lines: Vec<StatementLine<'a>>,
    },
    /// To `ChangePin`.
    PinChanged,
    /// Nothing was done.
    Error {
        /// An [`super::ErrorCode`] from 100 on.
        code: u16,
        /// The reason, in a plain sentence.
        #[serde(borrow)]
        message: &'a str,
    },
    /// To `Reverse`, and to `Resolve` after it: the original was done, and then undone. The receipt is that of the
    /// undoing.
    Reversed(Receipt),
    /// To `Reverse` and `Resolve`: this terminal's original was never done, nor will be.
    Never,
    /// To a transaction: nothing was done, nor will be, under an id as old as this. A new one will do.
    StaleId {
        /// The instant of the newest id that the account has forgotten: milliseconds since 1970-01-01 UTC. A new id
        /// must be later.
        newest: i64,
    },
    /// To `Totals`, one for each currency in which this terminal has moved cash.
    Totals(Vec<CashTotal>),
    /// To nothing, under [`NOTICE_ID`]: the bank has something to say to whoever stands before the terminal.
    Notice {
        /// One line, to be shown as it is.
        message: &'a str,
    },
}

/// What a terminal's cash account adds up to in one currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CashTotal {
    /// Three ASCII letters of ISO 4217.
    pub currency: [u8; 3],
    /// Minor units: what was put in less what was taken out since the terminal became known.
    pub cash: i64,
}

/// What a customer is told of a transaction. The reply that holds it names its journal row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The transaction's id.
    pub txn_id: [u8; 16],
    /// When it was decided: milliseconds since 1970-01-01 UTC.
    pub time: i64,
    /// Minor units: what approval adds to the account; negative for withdrawals and transfers.
    pub amount: i64,
    /// Minor units: the account's balance afterwards.
    pub balance: i64,
    /// The account's currency.
    pub currency: [u8; 3],
    /// The head of the journal's hash chain as of the commit that made the row durable. It stands at the end of every message that
    /// has a receipt, since it is known only when all else has been written.
    pub head: [u8; HEAD_BYTES],
}

/// One line of a statement: a journal row seen from the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementLine<'a> {
    /// The journal row.
    pub lsn: u64,
    /// When it was decided: milliseconds since 1970-01-01 UTC.
    pub time: i64,
    /// 1 deposit, 2 withdrawal, 3 transfer, 4 opening, 5 reversal, 6 advice, 7 fence, 8 interest, 9 adjustment; others may be
    /// added.
    pub kind: u8,
    /// 0 if approved, else the [`super::ErrorCode`] of the decline.
    pub outcome: u16,
    /// Minor units: what it added to the account, or would have added.
    pub amount: i64,
    /// Minor units: the account's balance afterwards.
    pub balance: i64,
    /// The other side: an account's number, or negative for one of the bank's own accounts.
    pub contra: i64,
    /// The terminal; empty if there was none.
    pub terminal: &'a str,
    /// The transaction's id, if it had one.
    pub txn_id: Option<[u8; 16]>,
}
