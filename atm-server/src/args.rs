//! The command line as it is written. [`crate::config`] checks what it means.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use bank_core::limits::{
    ADMIN_LINES, AUTHORITY_DAYS, MAX_ADMIN_LINES, MAX_NOTICE_MINUTES, MAX_SOCKET_PATH_BYTES, NOTICE_MINUTES,
};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Parser, Subcommand, ValueEnum};

use crate::log::{LogFilter, LogFormat};

/// A bank server for ATM terminals, and its operator's tools.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed (the reason is on standard error), 2 wrong usage, 3 a commit to the \
bank file failed while serving."
)]
pub struct Args {
    /// What is logged, and how.
    #[command(flatten)]
    pub log: LogArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a bank file from a list of accounts, all of it or nothing
    Load(LoadArgs),
    /// Make a bank file of test accounts 1 to N
    #[command(
        after_help = "Accounts are numbered 1 to N. Each has one card with the account's number; the card's PIN is the \
last four digits of that number, with leading zeros: card 7 has PIN 0007, card 10042 has PIN 0042."
    )]
    Generate(GenerateArgs),
    /// Serve a bank file to terminals until SIGTERM, Ctrl-C, or Enter on a terminal
    Serve(ServeArgs),
    /// Prove that the books of a bank file balance, also while it is being served
    Verify(VerifyArgs),
    /// Show journal rows by account, terminal, date or transaction id, also while the bank is being served
    #[command(
        after_help = "An account's rows are found at once. For those of a terminal, a date or an id all of the journal is read, \
some million rows a second.\n\
A row in CSV and JSON: time in UTC (RFC 3339); outcome approved or declined, code says why; amount and balance are those of account, with \
all digits of its currency; contra is the other account, or one of the bank's own. JSON is one object a line, a row each."
    )]
    Statement(StatementArgs),
    /// Tell all that the bank knows of one transaction id, also while the bank is being served
    #[command(
        after_help = "All of the journal is read, some million rows a second. It ends with 1 if the id is not in the journal."
    )]
    Dispute(DisputeArgs),
    /// Show what a closed business date adds up to, also while the bank is being served; it ends with 1 if something does not agree
    DayReport(DayReportArgs),
    /// Copy a bank file, also while it is being served, and prove the copy's books
    #[command(
        after_help = "The copy is one whole file as of one journal row. The pepper file is not in it: back that up apart, and keep \
the two apart, since together they are every PIN. Should the copying be killed, a file with .tmp at the end of its name is left, which is nobody's: \
remove it."
    )]
    Backup(BackupArgs),
    /// Put a backup in the place of a bank file; the bank must not be served
    #[command(
        after_help = "The bank that was there is never deleted: it is kept beside the new one, as FILE.before-restore-1, 2, 3 and so on, \
and can be restored from in its turn. Terminals remember what they have done since the backup: their next day's close names the difference."
    )]
    Restore(RestoreArgs),
    /// Register a terminal with a secret, without which nobody comes in under its id; the bank must not be served
    AddTerminal(AddTerminalArgs),
    /// Tell a running server what only an operator may, through its operators' socket
    Admin(AdminArgs),
    /// Make a private authority, and by it the certificates of the server and of terminals, for TLS
    Certificate(CertificateArgs),
    /// Add a new key to the pepper file, with which PINs are hashed from now on; the bank must not be served
    #[command(
        after_help = "The older keys stay in the file: a card depends on the key that its PIN was last hashed with until its \
holder's next good login, which hashes it with the newest key and at the newest cost. Back the pepper file up after each rotation, \
apart from the backups of the bank. A backup of the bank needs the keys of its time: keep the old backups of the pepper file \
for as long as those of the bank, since a key that is forgotten opens none of them. A pepper file is one bank's: if two banks \
shared it, each would forget the keys that the other needs."
    )]
    RotatePepper(RotatePepperArgs),
    /// Write what makes a shell complete this program's commands and options
    Completions {
        /// Which shell
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
    /// Write manual pages, one for each command
    Man {
        /// Where they go; it is made if there is none
        #[arg(long, value_name = "DIRECTORY")]
        dir: PathBuf,
    },
}

/// What is logged, and how.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Log, on standard error")]
pub struct LogArgs {
    /// How much is logged: off, error, warn, info, debug or trace. A part of the program may have its own, as in
    /// info,bank_core::journal=debug
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "info",
        env = "ATM_LOG",
        global = true
    )]
    pub log_level: LogFilter,
    /// How a line of the log looks: text for people, or an object of JSON
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        default_value = "text",
        env = "ATM_LOG_FORMAT",
        global = true
    )]
    pub log_format: LogFormat,
}

/// Which bank.
#[derive(Debug, clap::Args)]
pub struct BankArgs {
    /// The bank file
    #[arg(long, value_name = "FILE", default_value = "data/bank.db", env = "ATM_BANK")]
    pub bank: PathBuf,
}

/// Which bank, and the key to its PINs.
#[derive(Debug, clap::Args)]
pub struct SecretBankArgs {
    /// Which bank.
    #[command(flatten)]
    pub bank: BankArgs,
    /// The pepper file, without which no PIN can be checked [default: the bank file's name with .pepper added]
    #[arg(long, value_name = "FILE", env = "ATM_PEPPER")]
    pub pepper: Option<PathBuf>,
}

/// What a PIN's hash costs.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PinProfileArg {
    /// argon2id with 19 MiB and two passes, as OWASP recommends
    Standard,
    /// As cheap as argon2id can be: for test banks only
    Fast,
}

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// Which bank.
    #[command(flatten)]
    pub bank: BankArgs,
    /// The record on a receipt, such as 1234:9f86d081884c7d65: prove that the history up to there was not rewritten since (may be repeated)
    #[arg(long, value_name = "RECORD")]
    pub receipt: Vec<bank_core::chain::ReceiptHead>,
}

/// Arguments of `day-report`.
#[derive(Debug, clap::Args)]
pub struct DayReportArgs {
    /// Which bank.
    #[command(flatten)]
    pub bank: BankArgs,
    /// The business date [default: the newest that is closed]
    #[arg(long, value_name = "DATE")]
    pub date: Option<bank_core::BusinessDate>,
    /// Answer in one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `load`.
#[derive(Debug, clap::Args)]
pub struct LoadArgs {
    /// A CSV of accounts; only the columns holder, pin and balance are required (data/README.md tells all)
    #[arg(value_name = "ACCOUNTS.csv")]
    pub list: PathBuf,
    /// Which bank.
    #[command(flatten)]
    pub bank: SecretBankArgs,
    /// What a PIN's hash costs [default: standard; with --append, as the bank has it]
    #[arg(long, value_enum, value_name = "PROFILE")]
    pub pin_profile: Option<PinProfileArg>,
    /// Check the list and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Add to an existing bank file
    #[arg(long, conflicts_with = "replace")]
    pub append: bool,
    /// Make a new bank file in the place of an existing one
    #[arg(long)]
    pub replace: bool,
}

/// Arguments of `generate`.
#[derive(Debug, clap::Args)]
pub struct GenerateArgs {
    /// How many accounts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub accounts: u64,
    /// Which bank.
    #[command(flatten)]
    pub bank: SecretBankArgs,
    /// The balance of each account
    #[arg(long, value_name = "SUM", default_value = "1000")]
    pub balance: String,
    /// The currency of each account, by ISO 4217
    #[arg(long, value_name = "CODE", default_value = "USD")]
    pub currency: String,
    /// What a PIN's hash costs
    #[arg(long, value_enum, value_name = "PROFILE", default_value = "fast")]
    pub pin_profile: PinProfileArg,
    /// Make a new bank file in the place of an existing one
    #[arg(long)]
    pub replace: bool,
}

/// Arguments of `serve`. Each of them is also a key of its configuration file, as [`crate::settings`] tells.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each option but --config and --print-config may also be given by the environment variable beside it, or by its \
name, without the dashes, in a TOML file (--config). The command line counts more than the environment, that more than the file. \
Paths are relative to the working directory, wherever they are given. --print-config writes such a file."
)]
pub struct ServeArgs {
    /// A file of settings, in TOML
    #[arg(long, value_name = "FILE", env = "ATM_CONFIG")]
    pub config: Option<PathBuf>,
    /// Check the settings, print all of them as a file for --config, with where each comes from, and end
    #[arg(long)]
    pub print_config: bool,
    /// Which bank.
    #[command(flatten)]
    pub bank: SecretBankArgs,
    /// Where to listen; port 0 takes a free one. Other addresses than loopback's need TLS
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:5100",
        env = "ATM_LISTEN",
        value_parser = address
    )]
    pub listen: SocketAddr,
    /// Connections served at once; more are told that the server is full
    #[arg(long, value_name = "N", default_value_t = bank_core::limits::DEFAULT_CONNECTIONS, env = "ATM_CONNECTIONS")]
    pub connections: usize,
    /// Threads that serve connections [default: one for each core but one, which is left to the journal]
    #[arg(long, value_name = "N", env = "ATM_WORKERS")]
    pub workers: Option<NonZeroUsize>,
    /// Let in only terminals with a secret or a certificate; otherwise an unknown one on this machine registers itself
    #[arg(long, env = "ATM_REGISTERED_TERMINALS", value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_missing_value = "true", default_value_t = false, hide_possible_values = true)]
    pub registered_terminals: bool,
    /// Let customers choose PINs that are guessed first, such as 1234, 1111 and years
    #[arg(long, env = "ATM_ALLOW_WEAK_PINS", value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_missing_value = "true", default_value_t = false, hide_possible_values = true)]
    pub allow_weak_pins: bool,
    /// Open a Unix socket for "atm-server admin", for the server's user alone
    #[arg(long, value_name = "PATH", env = "ATM_ADMIN_SOCKET", value_parser = OsStringValueParser::new().try_map(socket_path))]
    pub admin_socket: Option<PathBuf>,
    /// How to be watched.
    #[command(flatten)]
    pub watch: WatchArgs,
    /// How to speak TLS.
    #[command(flatten)]
    pub tls: TlsArgs,
}

/// An address to listen on. A name is none: it may have several addresses, and others tomorrow.
fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| {
        "an IP address and a port are wanted, such as 127.0.0.1:5100, [::1]:5100 or, for all of this machine's addresses, 0.0.0.0:5100"
    })
}

/// The path of a Unix socket, which the operating system takes only if it is short.
fn socket_path(path: OsString) -> Result<PathBuf, String> {
    match path.len() {
        0 => Err("a path is wanted".to_owned()),
        1..=MAX_SOCKET_PATH_BYTES => Ok(path.into()),
        bytes => Err(format!(
            "a socket's path has at most {MAX_SOCKET_PATH_BYTES} bytes, and this one has {bytes}: choose a shorter one"
        )),
    }
}

/// How to be watched.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Watching")]
pub struct WatchArgs {
    /// Show a page for operators there by HTTP, and metrics for Prometheus (/metrics, /healthz, /readyz); port 0 takes a free one
    #[arg(long, value_name = "ADDR", env = "ATM_METRICS_LISTEN", value_parser = address)]
    pub metrics_listen: Option<SocketAddr>,
    /// Names by which browsers and Prometheus call that place, besides addresses and localhost, with commas between them
    #[arg(long, value_name = "NAMES", env = "ATM_METRICS_HOST")]
    pub metrics_host: Option<String>,
    /// Let everybody on the network see that page: sums and counts, and nothing of a customer, but without TLS or a password
    #[arg(long, env = "ATM_LET_THE_NETWORK_WATCH", value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_missing_value = "true", default_value_t = false, hide_possible_values = true)]
    pub let_the_network_watch: bool,
}

/// Arguments of `admin`.
#[derive(Debug, clap::Args)]
pub struct AdminArgs {
    /// The socket that the server was told to open
    #[arg(long, value_name = "PATH", env = "ATM_ADMIN_SOCKET", value_parser = OsStringValueParser::new().try_map(socket_path))]
    pub admin_socket: PathBuf,
    /// Answer in one line of JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Who orders a change of the bank [default: the name of the user who calls]
    #[arg(long, global = true, value_name = "NAME", env = "ATM_OPERATOR")]
    pub operator: Option<String>,
    /// Why, in a few words that are kept with the change
    #[arg(long, global = true, value_name = "TEXT")]
    pub reason: Option<String>,
    /// The id of a change that was ordered before, a UUID of version 7: it is not done a second time [default: a new one]
    #[arg(long, global = true, value_name = "UUID")]
    pub request_id: Option<bank_core::TxnId>,
    /// What the server is to do.
    #[command(subcommand)]
    pub command: AdminCommand,
}

/// What an operator may ask of a running server.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// List accounts with their cards
    Accounts {
        /// Which: a number, "open", "frozen", "closed", "overdrawn", "blocked" (a card of it), or a part of a holder's name
        #[arg(long, value_name = "TEXT", default_value = "")]
        filter: String,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = ADMIN_LINES, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_ADMIN_LINES)))]
        lines: u32,
    },
    /// Open an account
    OpenAccount {
        /// Its currency, by ISO 4217
        #[arg(long, value_name = "CODE", default_value = "USD")]
        currency: String,
        /// What it opens with
        #[arg(long, value_name = "SUM", default_value = "0")]
        balance: String,
        /// How far it may be overdrawn
        #[arg(long, value_name = "SUM", default_value = "0")]
        overdraft: String,
        /// The most that may be withdrawn in cash in a day [default: no limit]
        #[arg(long, value_name = "SUM")]
        daily: Option<String>,
        /// Its number [default: the one after the greatest]
        #[arg(long, value_name = "N")]
        account: Option<bank_core::AccountId>,
    },
    /// Issue a card for an account
    AddCard {
        /// The card's number; the holder's name may serve as one
        #[arg(value_name = "CARD")]
        card: String,
        /// The account that it opens
        #[arg(long, value_name = "N")]
        account: bank_core::AccountId,
        /// Whom it is issued to [default: the card's number, if that is a name]
        #[arg(long, value_name = "NAME")]
        holder: Option<String>,
        /// A file whose first line is its PIN, which must not be easy to guess
        #[arg(long, value_name = "FILE")]
        pin_file: PathBuf,
    },
    /// Let nothing happen on an account, until it is unfrozen
    Freeze {
        /// The account
        #[arg(value_name = "ACCOUNT")]
        account: bank_core::AccountId,
    },
    /// Make a frozen account of use again
    Unfreeze {
        /// The account
        #[arg(value_name = "ACCOUNT")]
        account: bank_core::AccountId,
    },
    /// Close an account for ever; it must be empty
    Close {
        /// The account
        #[arg(value_name = "ACCOUNT")]
        account: bank_core::AccountId,
    },
    /// Set an account's limits; what is not named stays as it is
    Limits {
        /// The account
        #[arg(value_name = "ACCOUNT")]
        account: bank_core::AccountId,
        /// How far it may be overdrawn
        #[arg(long, value_name = "SUM")]
        overdraft: Option<String>,
        /// The most that may be withdrawn in cash in a day, or "none"
        #[arg(long, value_name = "SUM")]
        daily: Option<String>,
    },
    /// Put something right on an account: a posting with a receipt, against which no limit stands
    Adjust {
        /// The account
        #[arg(value_name = "ACCOUNT")]
        account: bank_core::AccountId,
        /// What is added, or with a minus before it taken
        #[arg(value_name = "SUM", allow_negative_numbers = true)]
        amount: String,
        /// Which of the bank's own accounts has the other side
        #[arg(long, value_name = "ACCOUNT", default_value = "adjustment", value_parser = ["adjustment", "suspense"])]
        against: String,
    },
    /// Post interest for a month on every account, once, however often it is asked for
    #[command(
        after_help = "The interest is the rate times the balance at that moment, rounded to the nearest minor unit and half of one to \
the even neighbour; on an overdrawn account it is taken. Closed accounts have none. An account that has had interest for that month, or a later one, \
gets none."
    )]
    Interest {
        /// What part of the balance, for the whole month, such as 2% or 0.125%
        #[arg(long, value_name = "RATE")]
        rate: bank_core::Rate,
        /// The month, such as 2026-11
        #[arg(long, value_name = "MONTH")]
        period: bank_core::Period,
    },
    /// Give a card a new PIN and all its tries; it also unblocks the card
    ResetPin {
        /// The card's number
        #[arg(value_name = "CARD")]
        card: String,
        /// A file whose first line is the new PIN, which must not be easy to guess
        #[arg(long, value_name = "FILE")]
        pin_file: PathBuf,
    },
    /// Register a terminal with a secret, or give one a new secret
    AddTerminal {
        /// The terminal's id: 1 to 8 of A-Z, 0-9 and -
        #[arg(value_name = "ID")]
        terminal: bank_core::TerminalId,
        /// The new file for the secret; take it to the terminal and nowhere else
        #[arg(long, value_name = "FILE")]
        secret_file: PathBuf,
        /// Give a terminal that has a secret a new one
        #[arg(long)]
        replace: bool,
    },
    /// Let a terminal come in no more, and end its sessions
    RetireTerminal {
        /// The terminal's id
        #[arg(value_name = "ID")]
        terminal: bank_core::TerminalId,
    },
    /// Show an account's newest rows
    Statement {
        /// The account
        #[arg(value_name = "ACCOUNT")]
        account: bank_core::AccountId,
        /// How many rows at most
        #[arg(long, value_name = "N", default_value_t = ADMIN_LINES, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_ADMIN_LINES)))]
        lines: u32,
    },
    /// Show the newest commands by which operators have changed the bank
    Actions {
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = ADMIN_LINES, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_ADMIN_LINES)))]
        lines: u32,
    },
    /// Close the business dates up to one that is over, and show what they add up to; again, it shows the same
    CloseDay {
        /// The last date to be closed [default: the one before the present one]
        #[arg(long, value_name = "DATE")]
        date: Option<bank_core::BusinessDate>,
    },
    /// Tell when the next business date begins, or set that
    CutOver {
        /// The time of day from now on, in UTC, such as 22:00
        #[arg(value_name = "HH:MM")]
        time: Option<bank_core::CutOver>,
    },
    /// Bring the tables of accounts up to date and copy SQLite's log, which happens now and then by itself, too
    Checkpoint,
    /// Make a card that three wrong PINs have blocked of use again
    UnblockCard {
        /// The card's number, or the holder's name if that serves as one
        #[arg(value_name = "CARD")]
        card: String,
    },
    /// List who is connected
    Sessions,
    /// End a session, or all of a terminal: what is under way is finished and answered first. The terminal may come back
    Disconnect {
        /// The session's number, as "sessions" tells it
        #[arg(
            value_name = "SESSION",
            required_unless_present = "terminal",
            conflicts_with = "terminal"
        )]
        session: Option<u64>,
        /// The terminal whose sessions are to end
        #[arg(long, value_name = "ID")]
        terminal: Option<bank_core::TerminalId>,
    },
    /// Show a line on every terminal, and on those that connect while it stands
    Broadcast {
        /// The line, which takes the place of one that stands
        #[arg(value_name = "TEXT", required_unless_present = "clear")]
        text: Option<String>,
        /// For how long it stands
        #[arg(
            long = "for",
            value_name = "MINUTES",
            default_value_t = NOTICE_MINUTES,
            value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_NOTICE_MINUTES))
        )]
        minutes: u16,
        /// Show the line that stands to no more terminals
        #[arg(long, conflicts_with_all = ["text", "minutes"])]
        clear: bool,
    },
    /// Tell how much is logged, or change it until the server ends
    LogLevel {
        /// What is to be logged from now on, as for --log-level
        #[arg(value_name = "FILTER")]
        filter: Option<String>,
    },
    /// End in order: what is under way is finished first
    Shutdown,
}

/// How to speak TLS. Which of them need each other, [`crate::config`] checks: clap would not see what is in a file.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// The server's certificate, in PEM: speak TLS 1.3 ("atm-server certificate" makes what is needed)
    #[arg(long, value_name = "FILE", env = "ATM_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// The key of the server's certificate, in PEM, for its owner alone to read
    #[arg(long, value_name = "FILE", env = "ATM_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// The authority whose certificates name terminals: who has one needs no secret
    #[arg(long, value_name = "FILE", env = "ATM_TLS_CLIENT_CA")]
    pub tls_client_ca: Option<PathBuf>,
    /// Listen to the network without TLS, so that everybody on the way can read PINs and change amounts
    #[arg(long, env = "ATM_DANGEROUSLY_LET_THE_NETWORK_READ_PINS", value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_missing_value = "true", default_value_t = false, hide_possible_values = true)]
    pub dangerously_let_the_network_read_pins: bool,
}

/// Arguments of `certificate`.
#[derive(Debug, clap::Args)]
pub struct CertificateArgs {
    /// Where the authority is, and the certificates go; the authority is made if there is none
    #[arg(long, value_name = "DIRECTORY", default_value = "data/tls")]
    pub dir: PathBuf,
    /// Make the server's certificate for this host name or IP address, by which terminals call it (may be repeated)
    #[arg(long, value_name = "NAME")]
    pub server: Vec<String>,
    /// Make a certificate for the terminal with this id (may be repeated)
    #[arg(long, value_name = "ID")]
    pub terminal: Vec<bank_core::TerminalId>,
    /// For how many days the server's and the terminals' certificates are good
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=i64::from(AUTHORITY_DAYS)))]
    pub days: u16,
    /// Make certificates anew that are there already
    #[arg(long)]
    pub replace: bool,
}

/// Arguments of `add-terminal`.
#[derive(Debug, clap::Args)]
pub struct AddTerminalArgs {
    /// The terminal's id: 1 to 8 of A-Z, 0-9 and -
    #[arg(value_name = "ID")]
    pub terminal: bank_core::TerminalId,
    /// Which bank.
    #[command(flatten)]
    pub bank: BankArgs,
    /// The new file for the secret; take it to the terminal and nowhere else
    #[arg(long, value_name = "FILE")]
    pub secret_file: PathBuf,
    /// Give a terminal that has a secret a new one
    #[arg(long)]
    pub replace: bool,
}

/// Arguments of `rotate-pepper`.
#[derive(Debug, clap::Args)]
pub struct RotatePepperArgs {
    /// Which bank.
    #[command(flatten)]
    pub bank: SecretBankArgs,
    /// What a PIN's hash costs from now on [default: as the bank has it]
    #[arg(long, value_enum, value_name = "PROFILE")]
    pub pin_profile: Option<PinProfileArg>,
    /// Add no key, but remove the older ones on which no card depends any more
    #[arg(long)]
    pub forget_unused: bool,
}

/// Arguments of `statement`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").args(["account", "terminal", "txn_id", "from", "to"]).multiple(true).required(true)))]
pub struct StatementArgs {
    /// Which bank.
    #[command(flatten)]
    pub bank: BankArgs,
    /// The rows of the account with this number
    #[arg(long, value_name = "N", conflicts_with_all = ["terminal", "txn_id"])]
    pub account: Option<bank_core::AccountId>,
    /// The rows of this terminal
    #[arg(long, value_name = "ID", conflicts_with = "txn_id")]
    pub terminal: Option<bank_core::TerminalId>,
    /// The rows under this transaction id
    #[arg(long, value_name = "UUID")]
    pub txn_id: Option<bank_core::TxnId>,
    /// From this business date on, such as 2026-11-22
    #[arg(long, value_name = "DATE")]
    pub from: Option<bank_core::BusinessDate>,
    /// Up to this business date, itself included
    #[arg(long, value_name = "DATE")]
    pub to: Option<bank_core::BusinessDate>,
    /// At most so many rows, the newest [default: 20 without dates, all with them]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32))]
    pub lines: Option<u32>,
    /// How the rows are written
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub format: StatementFormat,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StatementFormat {
    /// For people
    Text,
    /// A first line with the columns' names, then a line for each row
    Csv,
    /// An object for each row, on a line of its own
    Json,
}

/// Arguments of `dispute`.
#[derive(Debug, clap::Args)]
pub struct DisputeArgs {
    /// Which bank.
    #[command(flatten)]
    pub bank: BankArgs,
    /// The transaction's id, as it is on the receipt and in the terminal's journal
    #[arg(long, value_name = "UUID")]
    pub txn_id: bank_core::TxnId,
    /// How it is told
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub format: DisputeFormat,
}

/// How a dispute is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DisputeFormat {
    /// For people
    Text,
    /// One line of JSON
    Json,
}

/// Arguments of `backup`.
#[derive(Debug, clap::Args)]
pub struct BackupArgs {
    /// Which bank.
    #[command(flatten)]
    pub bank: BankArgs,
    /// The copy; it becomes a file of the owner alone, and is there whole or not at all
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    /// Put the copy in the place of an older one
    #[arg(long)]
    pub replace: bool,
    /// Do not prove the copy's books: quicker, and a bank whose books do not balance is copied, too
    #[arg(long)]
    pub no_verify: bool,
    /// Answer in one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `restore`.
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// The copy that is to be the bank; it stays as it is
    #[arg(long, value_name = "COPY")]
    pub from: PathBuf,
    /// Which bank.
    #[command(flatten)]
    pub bank: SecretBankArgs,
    /// Restore although the bank has rows, PINs or terminals that the copy has not
    #[arg(long)]
    pub lose_newer: bool,
    /// Answer in one line of JSON
    #[arg(long)]
    pub json: bool,
}
