//! What a closed business date adds up to, for people and for programs.

use std::fmt::Write as _;

use bank_core::bank_file::{Closing, CurrencyDay, CurrencyTotals, DayReport, Movement, TerminalDay};
use bank_core::{Currency, Lsn, Money};
use serde_json::{Value, json};

use crate::admin::table::{Align, draw};

/// A sum in a currency's digits. What passes an account's bounds is told in minor units.
pub(crate) fn sum(currency: Currency, minor: i128) -> String {
    match i64::try_from(minor) {
        Ok(minor) => currency.format(Money::from_minor(minor)),
        Err(_) => format!("{minor} minor units"),
    }
}

/// The names of a trial balance's sides, and what each has.
fn sides(totals: &CurrencyTotals) -> [(&'static str, i128); 6] {
    [
        ("customers", totals.customers),
        ("cash", totals.cash),
        ("opening", totals.opening),
        ("interest", totals.interest),
        ("adjustment", totals.adjustment),
        ("suspense", totals.suspense),
    ]
}

/// The report as it is printed.
pub(crate) fn to_text(report: &DayReport) -> String {
    let Closing {
        through,
        time,
        last_lsn,
        operator,
        ..
    } = &report.closing;
    let dates = match report.from {
        Some(from) if from == *through => format!("Business date {through}"),
        Some(from) => format!("Business dates {from} to {through}"),
        None => format!("Business dates up to {through}"),
    };
    let mut text = format!("{dates}, closed at {time} UTC by {operator}, as of record {last_lsn}\n");
    for (&currency, day) in &report.currencies {
        let _ = write!(text, "\n{}\n", currency_text(currency, day));
    }
    if !report.terminals.is_empty() {
        let rows: Vec<_> = report
            .terminals
            .iter()
            .map(|(&(terminal, currency), day)| {
                let show = |movement: &Movement| sum(currency, movement.sum);
                [
                    format!("{terminal} {currency}"),
                    show(&day.deposits),
                    show(&day.withdrawals),
                    show(&day.reversals),
                    sum(currency, day.cash),
                ]
            })
            .collect();
        let columns = [
            ("TERMINAL", Align::Left),
            ("PUT IN", Align::Right),
            ("PAID OUT", Align::Right),
            ("UNDONE", Align::Right),
            ("CASH SO FAR", Align::Right),
        ];
        let _ = write!(text, "\n{}\n", draw(columns, &rows));
    }
    text += &match report.difference_count {
        0 => "\nEverything agrees.".to_owned(),
        count => {
            let named = report.differences.join("\n  ");
            format!("\n{count} DIFFERENCES, of which:\n  {named}")
        }
    };
    text
}

fn currency_text(currency: Currency, day: &CurrencyDay) -> String {
    let rows: Vec<_> = sides(&day.before)
        .into_iter()
        .zip(sides(&day.after))
        .filter(|((_, before), (_, after))| *before != 0 || *after != 0)
        .map(|((name, before), (_, after))| {
            [
                name.to_owned(),
                sum(currency, before),
                sum(currency, after - before),
                sum(currency, after),
            ]
        })
        .chain([[
            "together".to_owned(),
            sum(currency, day.before.sum()),
            sum(currency, day.after.sum() - day.before.sum()),
            sum(currency, day.after.sum()),
        ]])
        .collect();
    let columns = [
        (currency.code(), Align::Left),
        ("BEFORE", Align::Right),
        ("CHANGE", Align::Right),
        ("AFTER", Align::Right),
    ];
    let movements: Vec<_> = day
        .movements
        .iter()
        .map(|(kind, movement)| {
            [
                (*kind).to_owned(),
                movement.approved.to_string(),
                movement.declined.to_string(),
                sum(currency, movement.sum),
            ]
        })
        .collect();
    if movements.is_empty() {
        return draw(columns, &rows);
    }
    let kinds = [
        ("KIND", Align::Left),
        ("APPROVED", Align::Right),
        ("DECLINED", Align::Right),
        ("SUM", Align::Right),
    ];
    format!("{}\n\n{}", draw(columns, &rows), draw(kinds, &movements))
}

/// The report for programs.
pub(crate) fn to_json(report: &DayReport) -> Value {
    let movement = |currency: Currency, movement: &Movement| json!({ "approved": movement.approved, "declined": movement.declined, "sum": sum(currency, movement.sum) });
    let balance = |currency: Currency, totals: &CurrencyTotals| -> Value {
        sides(totals)
            .into_iter()
            .map(|(name, total)| (name.to_owned(), json!(sum(currency, total))))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let currencies: serde_json::Map<_, _> = report
        .currencies
        .iter()
        .map(|(&currency, day)| {
            let movements: serde_json::Map<_, _> = day
                .movements
                .iter()
                .map(|(kind, sums)| ((*kind).to_owned(), movement(currency, sums)))
                .collect();
            let day = json!({
                "before": balance(currency, &day.before), "movements": movements, "after": balance(currency, &day.after),
            });
            (currency.code().to_owned(), day)
        })
        .collect();
    let terminals = report.terminals.iter().map(|(&(terminal, currency), day)| {
        let TerminalDay {
            deposits,
            withdrawals,
            reversals,
            cash,
        } = day;
        json!({
            "terminal": terminal.as_str(), "currency": currency.code(), "deposits": movement(currency, deposits),
            "withdrawals": movement(currency, withdrawals), "reversals": movement(currency, reversals),
            "cash": sum(currency, *cash),
        })
    });
    json!({
        "from": report.from.map(|date| date.to_string()), "through": report.closing.through.to_string(),
        "closed": report.closing.time.rfc3339(), "operator": report.closing.operator, "lsn": Lsn::get(report.closing.last_lsn),
        "currencies": currencies, "terminals": terminals.collect::<Vec<_>>(), "agrees": report.agrees(),
        "differences": report.differences, "difference_count": report.difference_count,
    })
}
