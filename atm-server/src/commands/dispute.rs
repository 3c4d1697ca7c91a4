//! Telling all that the bank knows of one transaction id.

use std::fmt::Write as _;

use bank_core::bank_file::{BankSnapshot, Dispute, DisputedSide, Holder, Matter, StatementLine};
use bank_core::row::Contra;
use bank_core::terminal::Terminal;
use bank_core::{Kind, Money, Outcome, Row, SecretHash, TxnId};
use serde_json::{Value, json};

use super::{Ended, Error, say};
use crate::args::{DisputeArgs, DisputeFormat};
use crate::rows::{RowFields, amount, contra, first_side};

/// Columns that a line of text may have.
const WIDTH: usize = 80;

pub(super) fn dispute(args: &DisputeArgs) -> Result<Ended, Error> {
    let found = BankSnapshot::take(&args.bank.bank)?.dispute(args.txn_id)?;
    match args.format {
        DisputeFormat::Json => say(format_args!("{}", to_json(args.txn_id, &found))),
        DisputeFormat::Text => say(format_args!("{}", to_text(args.txn_id, &found).trim_end())),
    }
    Ok(if found.matters.is_empty() {
        Ended::Failed
    } else {
        Ended::Done
    })
}

fn never_came(found: &Dispute) -> String {
    format!(
        "No account has this id in any of the {} rows of the journal: the bank has neither approved nor declined such a transaction, and moved no \
         money for it. Either the request never came, or it was turned away undecided (nobody logged in, a stale id, a server that was \
         busy or closing), of which the journal keeps nothing. What the machine did is in the terminal's own journal.",
        found.last_lsn
    )
}

/// What became of it, in a sentence or two.
fn what_became(matter: &Matter) -> String {
    let row = &matter.outcome;
    let (time, lsn, account) = (row.moment.time, row.lsn, row.account);
    let terminal = |row: &Row| {
        row.terminal.map_or_else(
            || "the bank".to_owned(),
            |terminal| format!("terminal {terminal}"),
        )
    };
    let at = terminal(row);
    if row.kind == Kind::Fence {
        return format!(
            "At {time} UTC {at} gave this transaction on account {account} up before the bank had seen it (row {lsn}): no money \
             was moved, and a late copy of the request is refused."
        );
    }
    let sum = Money::from_minor(row.amount.minor().saturating_abs());
    let sum = format!("{} {}", row.currency.format(sum), row.currency);
    let what = match (row.kind, row.contra) {
        (Kind::Deposit, _) => format!("The deposit of {sum} to account {account} at {at}"),
        (Kind::Withdrawal, _) => format!("The withdrawal of {sum} from account {account} at {at}"),
        (Kind::Transfer, Contra::Account(payee)) => {
            format!("The transfer of {sum} from account {account} to account {payee} at {at}")
        }
        (Kind::Advice, _) => {
            format!(
                "The advice of {at} that it holds {sum} for account {account}, which the bank had not credited,"
            )
        }
        (kind, _) => format!("The {} of {sum} on account {account} at {at}", kind.name()),
    };
    match (row.outcome, &matter.reversal) {
        (Outcome::Declined(why), _) => {
            format!("{what} was declined at {time} UTC (row {lsn}): \"{why}\" No money was moved.")
        }
        (Outcome::Approved, None) => format!("{what} was approved at {time} UTC (row {lsn}), and stands."),
        (Outcome::Approved, Some(reversal)) => {
            let (by, undone, undoing) = (terminal(reversal), reversal.moment.time, reversal.lsn);
            match reversal.outcome {
                Outcome::Approved => format!(
                    "{what} was approved at {time} UTC (row {lsn}) and reversed at {undone} UTC (row {undoing}) by {by}: the money is where \
                     it was."
                ),
                Outcome::Declined(why) => format!(
                    "{what} was approved at {time} UTC (row {lsn}). At {undone} UTC {by} asked for its reversal, which was declined (row \
                     {undoing}): \"{why}\" So it stands."
                ),
            }
        }
    }
}

/// By what a terminal proves that it is that one.
fn proof_of(terminal: &Terminal) -> &'static str {
    match terminal.secret_hash {
        None => "nothing",
        Some(SecretHash::OF_NONE) => "certificate",
        Some(_) => "secret",
    }
}

fn to_text(id: TxnId, found: &Dispute) -> String {
    let mut text = format!("Transaction {id}\n");
    if found.matters.is_empty() {
        let _ = writeln!(text, "\n{}", textwrap::fill(&never_came(found), WIDTH));
    }
    for matter in &found.matters {
        let _ = writeln!(text, "\n{}", textwrap::fill(&what_became(matter), WIDTH));
        describe_row(&mut text, "The transaction", &matter.outcome);
        if let Some(Holder { card, name }) = &matter.card {
            let _ = writeln!(text, "  {:<14} {card}: {name}", "card used");
        }
        if let Some(reversal) = &matter.reversal {
            describe_row(&mut text, "Its reversal", reversal);
        }
        if let Some(id) = matter.outcome.terminal {
            let known = matter.terminal.as_ref().map_or_else(
                || "not known to the bank any more".to_owned(),
                |terminal| match proof_of(terminal) {
                    "nothing" => format!("known since {} UTC, registered itself", terminal.registered),
                    proof => format!("known since {} UTC, by its {proof}", terminal.registered),
                },
            );
            let _ = writeln!(text, "\nTerminal {id}\n  {known}");
        }
        matter
            .sides
            .iter()
            .for_each(|side| describe_side(&mut text, side));
    }
    text
}

fn describe_row(text: &mut String, what: &str, row: &Row) {
    let line = first_side(*row);
    let sum = |money| format!("{} {}", row.currency.format(money), row.currency);
    let (outcome, why) = match row.outcome {
        Outcome::Approved => ("approved", String::new()),
        Outcome::Declined(why) => ("declined", format!(" ({})", why.name())),
    };
    let _ = writeln!(text, "\n{what}: row {}", row.lsn);
    let mut fact = |name, fact: String| {
        let _ = writeln!(text, "  {name:<14} {fact}");
    };
    fact("kind", row.kind.name().to_owned());
    fact("outcome", format!("{outcome}{why}"));
    fact("time", format!("{} UTC", row.moment.time));
    fact("business date", row.moment.date.to_string());
    fact("account", row.account.to_string());
    fact("other side", contra(row.contra));
    fact("amount", format!("{} {}", amount(&line).trim_end(), row.currency));
    fact("balance after", sum(row.balance));
    if let Some(payee) = row.contra_side {
        fact("other's after", sum(payee.balance));
    }
    if let Some(terminal) = row.terminal {
        fact("terminal", terminal.to_string());
    }
}

fn describe_side(text: &mut String, side: &DisputedSide) {
    let _ = writeln!(text, "\nAccount {}", side.account);
    for Holder { card, name } in &side.holders {
        let _ = writeln!(text, "  card {card}: {name}");
    }
    for (line, mark) in [(&side.before, ' '), (&Some(side.line), '>'), (&side.after, ' ')] {
        if let Some(line) = line {
            let row = &line.row;
            let _ = writeln!(
                text,
                "{mark} row {:<7} {:>19} {:<10} {:>14} {:>14}",
                row.lsn,
                row.moment.time.to_string(),
                row.kind.name(),
                amount(line),
                row.currency.format(line.side.balance),
            );
        }
    }
}

fn to_json(id: TxnId, found: &Dispute) -> Value {
    let summary = if found.matters.is_empty() {
        Some(never_came(found))
    } else {
        None
    };
    let row = |row: &Row| json!(RowFields::new(row.account, &first_side(*row)));
    let matters: Vec<_> = found
        .matters
        .iter()
        .map(|matter| {
            let sides: Vec<_> = matter.sides.iter().map(side_to_json).collect();
            json!({
                "summary": what_became(matter), "row": row(&matter.outcome), "reversal": matter.reversal.as_ref().map(row),
                "terminal": matter.terminal.as_ref().map(|terminal| json!({
                    "id": terminal.id.as_str(), "registered": terminal.registered.rfc3339(), "proof": proof_of(terminal),
                })),
                "card": matter.card.as_ref().map(card_to_json), "sides": sides,
            })
        })
        .collect();
    json!({
        "txn_id": id.to_string(), "found": !found.matters.is_empty(), "message": summary, "last_lsn": found.last_lsn.get(),
        "matters": matters,
    })
}

fn card_to_json(holder: &Holder) -> Value {
    json!({ "card": holder.card.to_string(), "holder": holder.name })
}

fn side_to_json(side: &DisputedSide) -> Value {
    let line = |line: &StatementLine| json!(RowFields::new(side.account, line));
    let holders: Vec<_> = side.holders.iter().map(card_to_json).collect();
    json!({
        "account": side.account.get(), "cards": holders, "before": side.before.as_ref().map(line),
        "row": line(&side.line), "after": side.after.as_ref().map(line),
    })
}
