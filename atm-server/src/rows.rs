//! Journal rows in words, and as programs read them.

use bank_core::bank_file::StatementLine;
use bank_core::row::Contra;
use bank_core::{AccountId, ActionId, CardId, Outcome, Row};
use serde::Serialize;

/// A row as one of its accounts sees it: an object in JSON, a line in CSV, whose columns are these in their order.
#[derive(Debug, Serialize)]
pub(crate) struct RowFields {
    lsn: u64,
    time: String,
    business_date: String,
    kind: &'static str,
    outcome: &'static str,
    code: &'static str,
    account: u64,
    contra: String,
    terminal: Option<String>,
    currency: &'static str,
    amount: String,
    balance: String,
    txn_id: Option<String>,
    original_lsn: Option<u64>,
    card_id: Option<u64>,
    action: Option<u64>,
}

impl RowFields {
    /// The fields' names, in their order.
    pub(crate) const NAMES: [&str; 16] = [
        "lsn",
        "time",
        "business_date",
        "kind",
        "outcome",
        "code",
        "account",
        "contra",
        "terminal",
        "currency",
        "amount",
        "balance",
        "txn_id",
        "original_lsn",
        "card_id",
        "action",
    ];

    pub(crate) fn new(account: AccountId, StatementLine { row, side }: &StatementLine) -> RowFields {
        let (outcome, code) = match row.outcome {
            Outcome::Approved => ("approved", "approved"),
            Outcome::Declined(decline) => ("declined", decline.name()),
        };
        RowFields {
            lsn: row.lsn.get(),
            time: row.moment.time.rfc3339(),
            business_date: row.moment.date.to_string(),
            kind: row.kind.name(),
            outcome,
            code,
            account: account.get(),
            contra: contra(side.contra),
            terminal: row.terminal.map(|terminal| terminal.to_string()),
            currency: row.currency.code(),
            amount: row.currency.format(side.amount),
            balance: row.currency.format(side.balance),
            txn_id: row.txn_id.map(|id| id.to_string()),
            original_lsn: row.original.map(|original| original.lsn.get()),
            card_id: row.card.map(CardId::get),
            action: row.action.map(ActionId::get),
        }
    }
}

/// A row as the account sees it that it first names.
pub(crate) fn first_side(row: Row) -> StatementLine {
    let side = row
        .seen_from(row.account)
        .expect("a row is chained to the account that it first names");
    StatementLine { row, side }
}

/// The other side's name or number.
pub(crate) fn contra(contra: Contra) -> String {
    match contra {
        Contra::System(system) => system.name().to_owned(),
        Contra::Account(other) => other.to_string(),
    }
}

/// Where the money came from or went, in few letters: the terminal of cash, or another account.
pub(crate) fn where_to(line: &StatementLine) -> String {
    match (line.side.contra, line.row.terminal) {
        (Contra::Account(other), _) if line.side.amount.minor() < 0 => format!("to {other}"),
        (Contra::Account(other), _) => format!("from {other}"),
        (Contra::System(_), Some(terminal)) => terminal.to_string(),
        (Contra::System(system), None) => system.name().to_owned(),
    }
}

/// The amount, in parentheses if nothing was moved, and with as much room behind it if something was, so that digits stand below digits.
pub(crate) fn amount(line: &StatementLine) -> String {
    let amount = line.row.currency.format(line.side.amount);
    match line.row.outcome {
        Outcome::Approved => format!("{amount} "),
        Outcome::Declined(_) => format!("({amount})"),
    }
}

/// What a line of its own says below the row, if anything.
pub(crate) fn remark(row: &Row) -> Option<String> {
    match (row.outcome, row.original) {
        (Outcome::Declined(decline), _) => Some(format!("declined: {}", decline.name())),
        (Outcome::Approved, Some(original)) => Some(format!("undoes row {}", original.lsn)),
        (Outcome::Approved, None) => None,
    }
}
