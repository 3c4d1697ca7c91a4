//! What the operator's page shows, as JSON.

use std::collections::BTreeMap;

use bank_core::limits::{WATCH_INTERVAL, WATCH_TERMINALS};
use bank_core::{Currency, JournalError, Moment, Money};
use serde_json::{Value, json};

use super::{Books, Sample, Watch};

/// The server's state as of now. It waits for the disk, so that it tells nothing that a crash could take back.
///
/// # Errors
/// If the journal has ended, so that nothing more may be told.
pub(super) async fn tell(watch: &Watch) -> Result<Value, JournalError> {
    let (metrics, journal) = (watch.atm.metrics(), watch.bank.journal());
    let (lsn, cash) = watch.bank.cash_by_terminal(WATCH_TERMINALS + 1);
    journal.durable(lsn).await?;
    let sessions = watch.atm.sessions().by_terminal();
    let connected: u64 = sessions.values().sum();
    let mut terminals: BTreeMap<_, _> = cash
        .into_iter()
        .map(|(terminal, cash)| (terminal, (0, cash)))
        .collect();
    for (terminal, count) in sessions {
        terminals.entry(terminal).or_default().0 = count;
    }
    let more = terminals.len() > WATCH_TERMINALS;
    let terminals = terminals.into_iter().take(WATCH_TERMINALS).map(|(terminal, (sessions, cash))| {
        json!({ "terminal": terminal.as_str(), "sessions": sessions, "cash": cash.into_iter().map(sum).collect::<Vec<_>>() })
    });
    let terminals: Vec<_> = terminals.collect();
    let ready = watch.ready();
    let (appended, durable) = (journal.appended_lsn().get(), journal.durable_lsn().get());
    let samples: Vec<_> = watch.seen().samples.iter().map(sample).collect();
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "now": Moment::now().time.millis(),
        "started": watch.started.millis(),
        "ready": ready.is_ok(),
        "why_not": ready.err(),
        "books": books(watch),
        "accounts": watch.bank.account_count(),
        "sessions": connected,
        "pin_checks": watch.atm.pin_checks(),
        "connections_refused": metrics.refusals().map(|(_, count)| count).sum::<u64>(),
        "logins_refused": metrics.refused_logins().map(|(_, count)| count).sum::<u64>(),
        "journal": {
            "appended": appended,
            "durable": durable,
            "lag": appended.saturating_sub(durable),
            "queued": journal.queued(),
        },
        "terminals": terminals,
        "more_terminals": more,
        "interval_ms": WATCH_INTERVAL.as_millis() as u64,
        "samples": samples,
    }))
}

fn sum((currency, cash): (Currency, Money)) -> String {
    format!("{} {currency}", currency.format(cash))
}

fn sample(sample: &Sample) -> Value {
    let Sample {
        time,
        requests,
        p50,
        p99,
        commits,
        rows,
        sync_p99,
    } = *sample;
    let rows_per_commit = (commits > 0).then(|| rows as f64 / commits as f64);
    json!({
        "time": time.millis(), "requests": requests, "p50_us": p50, "p99_us": p99,
        "rows_per_commit": rows_per_commit, "sync_p99_us": sync_p99,
    })
}

/// What is known of the books: a word for the light, and a sentence.
fn books(watch: &Watch) -> Value {
    let seen = watch.seen();
    let Some(check) = &seen.books else {
        return json!({ "state": "unknown", "detail": "The accounts are being added up for the first time." });
    };
    let (state, detail) = match (check.state(), &check.result) {
        (Books::Balanced, Ok(balance)) => (
            "balanced",
            format!(
                "All accounts add up to zero as of row {}, checked at {} UTC.",
                balance.lsn, check.time
            ),
        ),
        (Books::Unbalanced, Ok(balance)) => {
            let out = |(currency, difference): (Currency, i128)| match i64::try_from(difference) {
                Ok(minor) => format!("{} {currency}", currency.format(Money::from_minor(minor))),
                Err(_) => format!("{difference} minor units of {currency}"),
            };
            let out: Vec<_> = balance.differences().map(out).collect();
            (
                "unbalanced",
                format!(
                    "The accounts add up to {} instead of zero as of row {}, checked at {} UTC: run \"atm-server verify\".",
                    out.join(" and "),
                    balance.lsn,
                    check.time
                ),
            )
        }
        (_, Ok(balance)) => (
            "unknown",
            format!(
                "They balanced as of row {}, at {} UTC, and were not checked since.",
                balance.lsn, check.time
            ),
        ),
        (_, Err(error)) => ("unknown", format!("The accounts could not be added up: {error}.")),
    };
    json!({ "state": state, "detail": detail })
}
