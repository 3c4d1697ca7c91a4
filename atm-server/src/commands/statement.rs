//! Showing what the journal holds of an account, a terminal, a date or an id.

use std::io::{self, BufWriter, Write};

use bank_core::account::AccountStatus;
use bank_core::bank_file::{AccountStatement, BankSnapshot, Period, Select, StatementLine};
use bank_core::{AccountId, Row};

use super::{Ended, Error};
use crate::args::{StatementArgs, StatementFormat};
use crate::rows::{RowFields, amount, first_side, remark, where_to};

/// Rows that are shown where neither dates nor a number are given.
const SOME_LINES: usize = 20;

pub(super) fn statement(args: &StatementArgs) -> Result<Ended, Error> {
    let snapshot = BankSnapshot::take(&args.bank.bank)?;
    let period = Period {
        from: args.from,
        to: args.to,
    };
    let some = (period == Period::ALWAYS && args.txn_id.is_none()).then_some(SOME_LINES);
    let lines = args.lines.map_or(some, |lines| usize::try_from(lines).ok());
    let mut writer = Writer::new(args.format)?;
    if let Some(account) = args.account {
        let found = snapshot.account(account, &period, lines)?;
        let found = found.ok_or_else(|| format!("the bank has no account {account}"))?;
        writer.begin_account(&found, &period)?;
        snapshot.each_line(&found, |line| writer.line(account, &line, account_text))?;
        writer.end_account(&found)?;
    } else {
        let select = match (args.terminal, args.txn_id) {
            (Some(terminal), _) => Select::Terminal(terminal),
            (None, Some(id)) => Select::Transaction(id),
            (None, None) => Select::All,
        };
        writer.begin_journal(select, &period)?;
        snapshot.each_row(select, &period, lines, |row: Row| {
            writer.line(row.account, &first_side(row), journal_text)
        })?;
        writer.end_journal()?;
    }
    Ok(Ended::Done)
}

/// Standard output, in one of the formats.
enum Writer {
    Text {
        out: BufWriter<io::StdoutLock<'static>>,
        rows: u64,
    },
    Csv(Box<csv::Writer<io::StdoutLock<'static>>>),
    Json(BufWriter<io::StdoutLock<'static>>),
}

impl Writer {
    fn new(format: StatementFormat) -> io::Result<Writer> {
        let out = io::stdout().lock();
        Ok(match format {
            StatementFormat::Text => Writer::Text {
                out: BufWriter::new(out),
                rows: 0,
            },
            StatementFormat::Csv => {
                // Written here, since a list without rows has its columns' names, too.
                let mut out = csv::WriterBuilder::new().has_headers(false).from_writer(out);
                out.write_record(RowFields::NAMES).map_err(into_io)?;
                Writer::Csv(Box::new(out))
            }
            StatementFormat::Json => Writer::Json(BufWriter::new(out)),
        })
    }

    fn line(
        &mut self,
        account: AccountId,
        line: &StatementLine,
        text: fn(&StatementLine) -> String,
    ) -> Result<(), Error> {
        match self {
            Writer::Text { out, rows } => {
                *rows += 1;
                writeln!(out, "{}", text(line))?;
                if let Some(remark) = remark(&line.row) {
                    writeln!(out, "{:28}{remark}", "")?;
                }
            }
            Writer::Csv(out) => out.serialize(RowFields::new(account, line)).map_err(into_io)?,
            Writer::Json(out) => {
                serde_json::to_writer(&mut *out, &RowFields::new(account, line)).map_err(io::Error::from)?;
                out.write_all(b"\n")?;
            }
        }
        Ok(())
    }

    fn begin_account(&mut self, found: &AccountStatement, period: &Period) -> io::Result<()> {
        let Writer::Text { out, .. } = self else {
            return Ok(());
        };
        let account = &found.account;
        let status = match account.status {
            AccountStatus::Open => "",
            AccountStatus::Frozen => ", frozen",
            AccountStatus::Closed => ", closed",
        };
        writeln!(out, "Account {} in {}{status}", account.id, account.currency)?;
        for holder in &found.holders {
            writeln!(out, "Card {}: {}", holder.card, holder.name)?;
        }
        write_period(out, period)?;
        writeln!(
            out,
            "\n{:>7} {:<19} {:<10} {:>14} {:>14}  other side",
            "row", "time (UTC)", "kind", "amount ", "balance"
        )?;
        let opening = account.currency.format(found.opening);
        writeln!(out, "{:>53} {opening:>14}", "opening balance")
    }

    fn end_account(&mut self, found: &AccountStatement) -> io::Result<()> {
        if let Writer::Text { out, .. } = self {
            let closing = found.account.currency.format(found.closing);
            writeln!(out, "{:>53} {closing:>14}", "closing balance")?;
        }
        self.flush()
    }

    fn begin_journal(&mut self, select: Select, period: &Period) -> io::Result<()> {
        let Writer::Text { out, .. } = self else {
            return Ok(());
        };
        match select {
            Select::All => writeln!(out, "All accounts and terminals")?,
            Select::Terminal(terminal) => writeln!(out, "Terminal {terminal}")?,
            Select::Transaction(id) => writeln!(out, "Transaction {id}")?,
        }
        write_period(out, period)?;
        writeln!(
            out,
            "\n{:>7} {:<19} {:<10} {:>10} {:>14}     other side",
            "row", "time (UTC)", "kind", "account", "amount "
        )
    }

    fn end_journal(&mut self) -> io::Result<()> {
        if let Writer::Text { out, rows } = self {
            let plural = if *rows == 1 { "" } else { "s" };
            writeln!(out, "{rows} row{plural}")?;
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Writer::Text { out, .. } | Writer::Json(out) => out.flush(),
            Writer::Csv(out) => out.flush(),
        }
    }
}

/// What the stream under the CSV said: the rows themselves can always be written.
fn into_io(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

fn write_period(out: &mut impl Write, period: &Period) -> io::Result<()> {
    match (period.from, period.to) {
        (None, None) => Ok(()),
        (Some(from), Some(to)) => writeln!(out, "Business dates {from} to {to}"),
        (Some(from), None) => writeln!(out, "Business dates from {from}"),
        (None, Some(to)) => writeln!(out, "Business dates to {to}"),
    }
}

fn account_text(line: &StatementLine) -> String {
    let row = &line.row;
    format!(
        "{:>7} {:>19} {:<10} {:>14} {:>14}  {}",
        row.lsn,
        row.moment.time.to_string(),
        row.kind.name(),
        amount(line),
        row.currency.format(line.side.balance),
        where_to(line),
    )
}

fn journal_text(line: &StatementLine) -> String {
    let row = &line.row;
    format!(
        "{:>7} {:>19} {:<10} {:>10} {:>14} {} {}",
        row.lsn,
        row.moment.time.to_string(),
        row.kind.name(),
        row.account,
        amount(line),
        row.currency,
        where_to(line),
    )
}
