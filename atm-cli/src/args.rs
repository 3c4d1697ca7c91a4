//! The command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bank_core::limits::TRANSACTION_DEADLINE;
use bank_core::terminal::TerminalSecretError;
use bank_core::{AccountId, CardNumber, Currency, TerminalId, TerminalSecret, TxnId};
use clap::{Parser, Subcommand};

use crate::client::ClientConfig;
use crate::dispenser::{CassetteError, Cassettes};
use crate::manual::Manual;
use crate::terminal::TerminalConfig;
use crate::tls::{Privacy, Tls, TlsError, TlsFiles};

/// An ATM terminal: a menu for people and, with a command, one answer for a script.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
#[command(
    after_help = "Exit codes:\n  0  approved, or done\n  1  failed: this attempt did nothing\n  2  wrong usage: this attempt did \
nothing\n  3  declined by the bank, and nothing happened\n  4  the login was refused\n  5  in doubt: no answer came in \
time, so it may have happened or not; repeat it with --txn-id to learn what became of it\n  6  the server cannot be reached: this attempt did nothing"
)]
pub struct Args {
    /// Which bank, and as whom.
    #[command(flatten)]
    pub bank: BankArgs,
    /// The terminal of the menu.
    #[command(flatten)]
    pub menu: MenuArgs,
    /// What to do; without a command, the menu is opened.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Which bank, and as whom.
#[derive(Debug, clap::Args)]
pub struct BankArgs {
    /// The bank's address
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:5100",
        env = "ATM_SERVER",
        global = true
    )]
    pub server: String,
    /// This terminal's id: 1 to 8 of A-Z, 0-9 and - [default: ATM-1 for the menu, CLI for a command]
    #[arg(long, value_name = "ID", env = "ATM_TERMINAL", global = true)]
    pub terminal: Option<TerminalId>,
    /// How many seconds a request is tried before it is given up, or said to be in doubt [default: 30]
    #[arg(long, value_name = "S", global = true, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub deadline: Option<u16>,
    /// A file whose first line is this terminal's secret: 64 hexadecimal digits
    #[arg(long, value_name = "F", env = "ATM_TERMINAL_SECRET_FILE", global = true)]
    pub terminal_secret_file: Option<PathBuf>,
    /// How to speak TLS.
    #[command(flatten)]
    pub tls: TlsArgs,
}

/// How to speak TLS.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// The authority that vouches for the bank, in PEM: speak TLS 1.3, and with nobody else
    #[arg(long, value_name = "FILE", env = "ATM_TLS_CA", global = true)]
    pub tls_ca: Option<PathBuf>,
    /// This terminal's certificate, in PEM
    #[arg(long, value_name = "FILE", env = "ATM_TERMINAL_TLS_CERT", global = true)]
    pub tls_cert: Option<PathBuf>,
    /// The key of this terminal's certificate, in PEM, for its owner alone to read
    #[arg(long, value_name = "FILE", env = "ATM_TERMINAL_TLS_KEY", global = true)]
    pub tls_key: Option<PathBuf>,
    /// The name that the bank's certificate must have [default: the host in --server]
    #[arg(long, value_name = "NAME", global = true)]
    pub tls_server_name: Option<String>,
    /// Speak to a server on the network without TLS, so that everybody on the way can read PINs and change amounts
    #[arg(long, global = true)]
    pub dangerously_let_the_network_read_pins: bool,
}

/// Why what the command line says of the bank cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum BankArgsError {
    /// The secret's file is not fit for use.
    #[error(transparent)]
    Secret(#[from] TerminalSecretError),
    /// What TLS needs is not fit for use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Options that make no sense without each other, or with each other.
    #[error("{0}")]
    Options(&'static str),
}

impl TlsArgs {
    fn privacy(&self) -> Result<Privacy, BankArgsError> {
        let TlsArgs {
            tls_ca,
            tls_cert,
            tls_key,
            tls_server_name,
            dangerously_let_the_network_read_pins: dangerously,
        } = self;
        let own = match (tls_cert, tls_key) {
            (Some(cert), Some(key)) => Some((cert.as_path(), key.as_path())),
            (None, None) => None,
            _ => {
                return Err(BankArgsError::Options(
                    "--tls-cert and --tls-key belong together: give both or neither",
                ));
            }
        };
        let Some(ca) = tls_ca else {
            return if own.is_some() || tls_server_name.is_some() {
                Err(BankArgsError::Options(
                    "without --tls-ca no TLS is spoken: give it, or leave all of --tls-... out",
                ))
            } else if *dangerously {
                Ok(Privacy::Nothing)
            } else {
                Ok(Privacy::Loopback)
            };
        };
        if *dangerously {
            return Err(BankArgsError::Options(
                "with --tls-ca the network reads nothing: leave --dangerously-... out",
            ));
        }
        let files = TlsFiles { ca, own };
        Ok(Privacy::Tls(Tls::new(files, tls_server_name.as_deref())?))
    }
}

/// The terminal of the menu: an ATM with notes and a journal.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Options of the menu")]
pub struct MenuArgs {
    /// The terminal's electronic journal [default: data/<terminal's id>.journal]
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// What is in the cassettes of a new machine, denominations and numbers of notes, such as 50x200,20x500,10x500:
    /// begins the journal if there is none
    #[arg(long, value_name = "LIST")]
    pub cassettes: Option<String>,
    /// The currency of the notes, by ISO 4217 [default: USD]
    #[arg(long, value_name = "CODE")]
    pub currency: Option<String>,
    /// The supervisor's code, which is made if there is none [default: the journal's name with .code added]
    #[arg(long, value_name = "FILE")]
    pub supervisor_code_file: Option<PathBuf>,
    /// Write down each note that is paid out, as it leaves: its transaction and its value in minor units
    #[arg(long, value_name = "FILE")]
    pub tray: Option<PathBuf>,
}

impl MenuArgs {
    /// Whether any of them is given, which is of no use to a command.
    pub fn is_given(&self) -> bool {
        let MenuArgs {
            journal,
            cassettes,
            currency,
            supervisor_code_file,
            tray,
        } = self;
        [journal, supervisor_code_file, tray]
            .iter()
            .any(|path| path.is_some())
            || [cassettes, currency].iter().any(|text| text.is_some())
    }

    /// The terminal that they describe.
    ///
    /// # Errors
    /// If the currency or the cassettes are none.
    pub fn config(self, client: ClientConfig) -> Result<TerminalConfig, CassetteError> {
        let currency = self.currency.as_deref().unwrap_or("USD");
        let currency = Currency::from_code(currency)?;
        let journal = self
            .journal
            .unwrap_or_else(|| Path::new("data").join(format!("{}.journal", client.terminal)));
        Ok(TerminalConfig {
            cassettes: self
                .cassettes
                .map(|cassettes| Cassettes::parse(&cassettes, currency))
                .transpose()?,
            supervisor_code: self
                .supervisor_code_file
                .unwrap_or_else(|| journal.with_added_extension("code")),
            journal,
            tray: self.tray,
            client,
            posted: None,
        })
    }
}

impl BankArgs {
    /// What a client is to know of it; `terminal` is its id unless another was given.
    ///
    /// # Errors
    /// [`BankArgsError`] if a file is not fit for use, or options contradict each other.
    pub fn config(&self, terminal: &str) -> Result<ClientConfig, BankArgsError> {
        let terminal = self
            .terminal
            .unwrap_or_else(|| TerminalId::new(terminal).expect("a default is a terminal's id"));
        let deadline = self
            .deadline
            .map_or(TRANSACTION_DEADLINE, |seconds| Duration::new(seconds.into(), 0));
        let secret = self.terminal_secret_file.as_deref().map(TerminalSecret::read);
        Ok(ClientConfig {
            privacy: self.tls.privacy()?,
            secret: secret.transpose()?,
            deadline,
            ..ClientConfig::new(&self.server, terminal)
        })
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// One question to the bank.
    #[command(flatten)]
    OneShot(OneShot),
    /// Try it all: a sample bank, a server and this terminal, in one process that leaves nothing behind
    #[cfg(feature = "demo")]
    Demo,
    /// What makes the program known to a shell and to `man`.
    #[command(flatten)]
    Manual(Manual),
}

/// A question to the bank with one answer.
#[derive(Debug, Subcommand)]
pub enum OneShot {
    /// Show the balance
    Balance(CardArgs),
    /// Deposit an amount
    Deposit(AmountArgs),
    /// Withdraw an amount
    Withdraw(AmountArgs),
    /// Transfer an amount to another account
    Transfer(TransferArgs),
    /// Show the newest transactions
    Statement(StatementArgs),
}

/// Whose account, and how to answer.
#[derive(Debug, clap::Args)]
pub struct CardArgs {
    /// The card's number, or the holder's name if that serves as one
    #[arg(long, value_name = "C")]
    pub card: CardNumber,
    /// A file whose first line is the PIN; - reads it from standard input
    #[arg(long, value_name = "F")]
    pub pin_file: PathBuf,
    /// Answer in one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// How much.
#[derive(Debug, clap::Args)]
pub struct AmountArgs {
    /// Whose account.
    #[command(flatten)]
    pub card: CardArgs,
    /// The transaction's id, a UUID of version 7: under one id it is done once at most [default: a new one]
    #[arg(long, value_name = "ID")]
    pub txn_id: Option<TxnId>,
    /// How much, in the account's currency, such as 20 or 20.50
    pub amount: String,
}

/// How much, and to whom.
#[derive(Debug, clap::Args)]
pub struct TransferArgs {
    /// How much.
    #[command(flatten)]
    pub amount: AmountArgs,
    /// The account to be paid
    #[arg(long, value_name = "ACCOUNT")]
    pub to: AccountId,
}

/// How long a statement.
#[derive(Debug, clap::Args)]
pub struct StatementArgs {
    /// Whose account.
    #[command(flatten)]
    pub card: CardArgs,
    /// How many lines at most
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub lines: u16,
}

impl OneShot {
    /// Whose account, and how to answer.
    pub fn card(&self) -> &CardArgs {
        match self {
            OneShot::Balance(card) => card,
            OneShot::Deposit(args) | OneShot::Withdraw(args) => &args.card,
            OneShot::Transfer(args) => &args.amount.card,
            OneShot::Statement(args) => &args.card,
        }
    }
}
