//! From the bank's types to the protocol's.

use bank_core::bank_file::StatementLine;
use bank_core::protocol::{self, ErrorCode, HEAD_BYTES, Receipt, ReplyBody};
use bank_core::{Currency, Outcome, Row, TxnId};

pub(crate) fn currency(currency: Currency) -> [u8; 3] {
    currency
        .code()
        .as_bytes()
        .try_into()
        .expect("a currency has three letters")
}

/// The receipt, without the head, which is not known until the row is durable.
pub(crate) fn receipt(row: &Row) -> Receipt {
    Receipt {
        txn_id: row.txn_id.map(TxnId::to_bytes).unwrap_or_default(),
        time: row.moment.time.millis(),
        amount: row.amount.minor(),
        balance: row.balance.minor(),
        currency: currency(row.currency),
        head: [0; HEAD_BYTES],
    }
}

/// A transaction's row as its reply. A declined one needs a place for its sentence.
pub(crate) fn outcome<'a>(row: &Row, sentence: &'a mut String) -> ReplyBody<'a> {
    let receipt = receipt(row);
    match row.outcome {
        Outcome::Approved => ReplyBody::Approved(receipt),
        Outcome::Declined(decline) => {
            *sentence = decline.to_string();
            ReplyBody::Declined {
                code: ErrorCode::from(decline).number(),
                message: sentence,
                receipt,
            }
        }
    }
}

pub(crate) fn statement_line(line: &StatementLine) -> protocol::StatementLine<'_> {
    let row = &line.row;
    protocol::StatementLine {
        lsn: row.lsn.get(),
        time: row.moment.time.millis(),
        kind: row.kind.number(),
        outcome: u16::from(row.outcome.number()),
        amount: line.side.amount.minor(),
        balance: line.side.balance.minor(),
        contra: line.side.contra.number(),
        terminal: row.terminal.as_ref().map_or("", |terminal| terminal.as_str()),
        txn_id: row.txn_id.map(TxnId::to_bytes),
    }
}
