//! What a customer takes home: the receipt and the mini-statement.

use bank_core::protocol::Receipt;
use bank_core::{AccountId, CardNumber, Currency, Lsn, Money, TerminalId, Timestamp, TxnId};

use crate::connection::{Outcome, StatementLine};
use crate::layout::{Column, PAPER, edges, rule, table};
use crate::words::{hex, kind_for_people, masked, other_side, plain};

/// Whose name stands above everything.
pub(crate) const BANK: &str = "ATM BANK";

/// Hexadecimal digits of the head of the bank's hash chain that a receipt shows: 128 bits, which nobody can hit by trying.
const SEAL_DIGITS: usize = 32;

/// What a receipt tells.
pub(crate) struct Slip<'a> {
    pub(crate) terminal: TerminalId,
    pub(crate) card: &'a CardNumber,
    pub(crate) account: AccountId,
    pub(crate) currency: Currency,
    /// What was asked for, in a word.
    pub(crate) what: &'a str,
    /// Of a transfer, to whom.
    pub(crate) payee: Option<AccountId>,
    pub(crate) id: TxnId,
    pub(crate) outcome: &'a Outcome,
}

/// A sum with its currency.
pub(crate) fn sum(currency: Currency, money: Money) -> String {
    format!("{} {currency}", currency.format(money))
}

/// What `atm-server verify --receipt` takes: the row, and the head of the bank's hash chain as of its commit.
pub(crate) fn seal(lsn: Lsn, receipt: &Receipt) -> String {
    format!("{lsn}:{}", hex(&receipt.head))
}

/// A receipt, [`PAPER`] columns wide wherever it is printed.
pub(crate) fn receipt(slip: &Slip<'_>) -> String {
    let (decision, sum_of, reason, lsn, receipt) = match slip.outcome {
        Outcome::Approved(lsn, receipt) => ("APPROVED", "Amount", None, lsn, receipt),
        Outcome::Declined {
            lsn,
            receipt,
            message,
            ..
        } => ("DECLINED", "Asked for", Some(plain(message)), lsn, receipt),
    };
    let line = |name: &str, value: &str| edges(name, value, PAPER);
    let money = |minor| sum(slip.currency, Money::from_minor(minor));
    let time = Timestamp::from_millis(receipt.time).to_string();
    let (date, clock) = time.split_once(' ').unwrap_or((&time, ""));
    let mut lines = vec![
        rule("=", PAPER),
        line(BANK, &format!("Terminal {}", slip.terminal)),
        line(date, &format!("{clock} UTC")),
        rule("-", PAPER),
        line(slip.what, decision),
    ];
    if let Some(reason) = reason {
        lines.push(textwrap::fill(&reason, PAPER));
    }
    lines.push(line("Card", &masked(slip.card)));
    lines.push(line("Account", &slip.account.to_string()));
    if let Some(payee) = slip.payee {
        lines.push(line("To account", &payee.to_string()));
    }
    lines.extend([
        line(sum_of, &money(receipt.amount)),
        line("Balance", &money(receipt.balance)),
        rule("-", PAPER),
        format!("Ref {}", slip.id),
        "Record and seal, by which to prove it:".to_owned(),
    ]);
    let row = format!("{lsn}:");
    let seal = hex(&receipt.head[..SEAL_DIGITS / 2]);
    // A long number is broken behind the colon and nowhere else, so that it can be copied.
    if row.len() + seal.len() <= PAPER {
        lines.push(row + &seal);
    } else {
        lines.extend([row, seal]);
    }
    lines.push(rule("=", PAPER));
    lines.join("\n")
}

/// A mini-statement for a screen so wide: the newest line last, as on paper.
pub(crate) fn statement(
    account: AccountId,
    currency: Currency,
    balance: Money,
    lines: &[StatementLine],
    width: usize,
) -> String {
    let any_declined = lines.iter().any(|line| line.outcome != 0);
    let cells = |cell: &dyn Fn(&StatementLine) -> String| lines.iter().rev().map(cell).collect::<Vec<_>>();
    let part =
        |line: &StatementLine, from, to| line.time.to_string().get(from..to).unwrap_or_default().to_owned();
    let amount = |line: &StatementLine| {
        let mark = match (line.outcome, any_declined) {
            (0, false) => "",
            (0, true) => "  ",
            _ => " x",
        };
        currency.format(line.amount) + mark
    };
    let columns = vec![
        Column::texts("Date", 1, cells(&|line| part(line, 0, 10))),
        Column::texts("Time", 2, cells(&|line| part(line, 11, 16))),
        Column::texts("What", 0, cells(&|line| kind_for_people(line))),
        Column::numbers(
            if any_declined { "Amount  " } else { "Amount" },
            0,
            cells(&amount),
        ),
        Column::numbers("Balance", 3, cells(&|line| currency.format(line.balance))),
        Column::texts("From or to", 4, cells(&|line| other_side(line))),
    ];
    let table = table(columns, 0, width);
    let longest = table.iter().map(|line| textwrap::core::display_width(line)).max();
    let width = longest.unwrap_or(0).max(PAPER).min(width);
    let mut text = vec![
        rule("=", width),
        edges(
            &format!("{BANK}  Statement in {currency}"),
            &format!("account {account}"),
            width,
        ),
        rule("-", width),
    ];
    text.extend(table);
    text.push(rule("-", width));
    if any_declined {
        text.push("x: declined, and nothing moved".to_owned());
    }
    text.push(format!("Balance {}", sum(currency, balance)));
    text.push(rule("=", width));
    text.join("\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slip(lsn: u64, amount: i64, card: &str) -> String {
        let receipt = Receipt {
            txn_id: [0; 16],
            time: 1_645_557_742_000,
            amount,
            balance: i64::MIN,
            currency: *b"USD",
            head: std::array::from_fn(|n| n as u8 + 0xa0),
        };
        receipt_of(
            &Outcome::Declined {
                lsn: Lsn::new(lsn),
                receipt,
                code: 4,
                message: "A reason\u{1b} that goes on for longer than any paper is wide, and on.".into(),
            },
            card,
        )
    }

    fn receipt_of(outcome: &Outcome, card: &str) -> String {
        receipt(&Slip {
            terminal: "ATM-0001".parse().unwrap(),
            card: &card.parse().unwrap(),
            account: AccountId::new(u64::MAX >> 1).unwrap(),
            currency: Currency::USD,
            what: "Transfer",
            payee: AccountId::new(1007).ok(),
            id: "017f22e2-79b0-7cc3-98c4-dc0c0c07398f".parse().unwrap(),
            outcome,
        })
    }

    #[test]
    fn a_receipt_tells_all_that_a_customer_needs() {
        let approved = Outcome::Approved(
            Lsn::new(1234),
            Receipt {
                txn_id: [0; 16],
                time: 1_645_557_742_000,
                amount: -9000,
                balance: 3050,
                currency: *b"USD",
                head: [0xab; 32],
            },
        );
        let expected = "\
========================================
ATM BANK               Terminal ATM-0001
2022-02-22                  19:22:22 UTC
----------------------------------------
Transfer                        APPROVED
Card                            ****1234
Account              9223372036854775807
To account                          1007
Amount                        -90.00 USD
Balance                        30.50 USD
----------------------------------------
Ref 017f22e2-79b0-7cc3-98c4-dc0c0c07398f
Record and seal, by which to prove it:
1234:abababababababababababababababab
========================================";
        assert_eq!(receipt_of(&approved, "4929123456781234"), expected);
    }

    #[test]
    fn a_card_shows_its_end_and_never_most_of_it() {
        for (card, shown) in [
            ("4929123456781234", "****1234"),
            ("Ken", "****n"),
            ("7", "****"),
            ("Zoë", "****ë"),
        ] {
            assert_eq!(masked(&card.parse().unwrap()), shown);
        }
    }

    proptest! {
        #[test]
        fn a_receipt_is_never_wider_than_its_paper(lsn: u64, amount: i64) {
            let text = slip(lsn, amount, "A customer with a rather long name");
            for line in text.lines() {
                prop_assert!(textwrap::core::display_width(line) <= PAPER, "{line}");
            }
            // What verify takes is whole, or broken behind its colon.
            let joined = text.replace(&format!("{lsn}:\n"), &format!("{lsn}:"));
            prop_assert!(joined.contains(&format!("\n{lsn}:a0a1a2a3a4a5a6a7a8a9aaabacadaeaf\n")), "{text}");
        }

        #[test]
        fn a_statement_is_never_wider_than_its_screen(amounts: Vec<i64>, width in 40usize..130) {
            let line = |&amount: &i64| StatementLine {
                lsn: Lsn::new(7),
                time: Timestamp::from_millis(1_645_557_742_000),
                kind: 2,
                outcome: u16::from(amount % 2 == 0),
                amount: Money::from_minor(amount),
                balance: Money::from_minor(i64::MIN),
                contra: 1007,
                terminal: String::new(),
                txn_id: None,
            };
            let lines: Vec<_> = amounts.iter().map(line).collect();
            let account = AccountId::new(1001).unwrap();
            let text = statement(account, Currency::USD, Money::from_minor(i64::MIN), &lines, width);
            for line in text.lines() {
                prop_assert!(textwrap::core::display_width(line) <= width, "{line}");
            }
            for &amount in &amounts {
                prop_assert!(text.contains(&Currency::USD.format(Money::from_minor(amount))), "{amount}: {text}");
            }
        }
    }
}
