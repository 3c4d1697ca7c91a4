//! The command line.

use std::path::PathBuf;

use bank_core::{AccountId, CardNumber, TerminalId, TxnId};
use clap::{Parser, Subcommand};

/// An ATM terminal: a menu for people and, with a command, one answer for a script.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
#[command(
    after_help = "Exit codes:\n  0  approved, or done\n  1  failed, and nothing happened\n  2  wrong usage, and nothing \
happened\n  3  declined by the bank, and nothing happened\n  4  the login was refused\n  5  in doubt: the connection broke \
before the answer came, so it may have happened or not\n  6  the server cannot be reached, and nothing happened"
)]
pub struct Args {
    /// The bank's address
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:5100",
        env = "ATM_SERVER",
        global = true
    )]
    pub server: String,
    /// This terminal's id: 1 to 8 of A-Z, 0-9 and -
    #[arg(
        long,
        value_name = "ID",
        default_value = "CLI",
        env = "ATM_TERMINAL",
        global = true
    )]
    pub terminal: TerminalId,
    /// What to do; without a command, the menu is opened.
    #[command(subcommand)]
    pub command: Option<Command>,
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
    /// The transaction's id, a UUID of version 7 [default: a new one]
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
