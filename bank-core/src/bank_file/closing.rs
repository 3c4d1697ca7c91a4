//! Closed business dates: what they add up to, and where it is written down.
//!
//! A closing covers every date since the one before it. What it adds up to is computed from the journal's rows, on top of the totals
//! that the previous closing has left, so that it takes no longer as the journal grows.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::rows::read_row;
use super::schema::JOURNAL_READ;
use super::verify::CurrencyTotals;
use super::{Access, BankFileError, connect};
use crate::ids::{AccountId, Lsn, TerminalId};
use crate::limits::{CLOSING_ROWS_AT_ONCE, MAX_DIFFERENCES};
use crate::money::Currency;
use crate::row::{Kind, Outcome, Row, SystemAccount};
use crate::time::{BusinessDate, Timestamp};

/// That a business date, and every one before it, is closed: no row gets such a date any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// The last date that is closed by it.
    pub through: BusinessDate,
    /// When it was closed.
    pub time: Timestamp,
    /// The newest row then: all rows of the dates that are closed are up to here.
    pub last_lsn: Lsn,
    /// The first row of a later date, or the one after the newest: the next closing begins here.
    pub next_lsn: Lsn,
    /// Who closed it.
    pub operator: String,
}

/// What the dates that one closing has closed add up to. Sums are in minor units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayReport {
    /// The first date, the one after the previous closing's; none if there was none before.
    pub from: Option<BusinessDate>,
    /// When, by whom, and up to where.
    pub closing: Closing,
    /// Each currency's books.
    pub currencies: BTreeMap<Currency, CurrencyDay>,
    /// Each terminal's cash.
    pub terminals: BTreeMap<(TerminalId, Currency), TerminalDay>,
    /// What does not agree, the first of it.
    pub differences: Vec<String>,
    /// How much does not agree in all.
    pub difference_count: u64,
}

/// One currency's books over the dates of a closing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CurrencyDay {
    /// The trial balance before.
    pub before: CurrencyTotals,
    /// What was done, by kind.
    pub movements: BTreeMap<&'static str, Movement>,
    /// The trial balance afterwards.
    pub after: CurrencyTotals,
}

/// What rows of one kind add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Movement {
    /// How many were approved.
    pub approved: u64,
    /// How many were declined.
    pub declined: u64,
    /// What the approved ones have added to the accounts that they first name; of transfers, what the payers paid, negative.
    pub sum: i128,
}

/// One terminal's cash over the dates of a closing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TerminalDay {
    /// What customers put in.
    pub deposits: Movement,
    /// What customers took out, negative.
    pub withdrawals: Movement,
    /// What was undone.
    pub reversals: Movement,
    /// What came in less what went out since the terminal became known.
    pub cash: i128,
}

/// What a row of `closing_totals` is about: an account of the bank, or all customers together.
type TotalKey = (&'static str, Currency, Option<TerminalId>);

/// Totals as of a closing.
type ClosingTotals = BTreeMap<TotalKey, i128>;

/// What all customers together are called among the bank's own accounts.
const CUSTOMERS: &str = "customers";

/// A report, and the totals that the next one begins with.
pub(crate) struct Computed {
    pub(crate) report: DayReport,
    pub(super) totals: ClosingTotals,
}

/// A closing with the totals that are written down with it.
pub(crate) struct ClosingWithTotals {
    closing: Closing,
    totals: ClosingTotals,
}

impl Computed {
    /// What is to be written down.
    pub(crate) fn to_closing(&self) -> ClosingWithTotals {
        ClosingWithTotals {
            closing: self.report.closing.clone(),
            totals: self.totals.clone(),
        }
    }
}

impl DayReport {
    /// Whether everything agrees.
    pub fn agrees(&self) -> bool {
        self.difference_count == 0
    }

    fn difference(&mut self, difference: String) {
        self.difference_count += 1;
        if self.differences.len() < MAX_DIFFERENCES {
            self.differences.push(difference);
        }
    }
}

/// The newest date that is closed.
pub(super) fn read_closed_through(connection: &Connection) -> Result<Option<BusinessDate>, BankFileError> {
    let days: Option<i32> = connection
        .query_row("SELECT max(through) FROM closings", [], |row| row.get(0))
        .map_err(BankFileError::sqlite("reading the closed dates"))?;
    Ok(days.map(BusinessDate::from_days))
}

pub(super) fn insert_closing(connection: &Connection, closed: &ClosingWithTotals) -> rusqlite::Result<()> {
    let Closing {
        through,
        time,
        last_lsn,
        next_lsn,
        operator,
    } = &closed.closing;
    connection
        .prepare_cached(
            "INSERT INTO closings (through, time, last_lsn, next_lsn, operator) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            through.days(),
            time.millis(),
            last_lsn.get() as i64,
            next_lsn.get() as i64,
            operator,
        ])?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO closing_totals (through, account, currency, terminal, balance) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for ((account, currency, terminal), total) in &closed.totals {
        let terminal = terminal.as_ref().map_or("", TerminalId::as_str);
        insert.execute(params![
            through.days(),
            account,
            currency.code(),
            terminal,
            total.to_string()
        ])?;
    }
    Ok(())
}

/// The report of the closing that has closed `date`, or of the newest one, read from a bank file, whether or not it is being served.
/// It is computed anew and compared with what was written down. `None`: no such date is closed.
///
/// # Errors
/// [`BankFileError`].
pub fn read_day_report(path: &Path, date: Option<BusinessDate>) -> Result<Option<DayReport>, BankFileError> {
    let mut connection = connect(path, Access::ReadOnly)?;
    let snapshot = connection
        .transaction()
        .map_err(BankFileError::sqlite("taking a snapshot"))?;
    report_of(&snapshot, date)
}

/// The same on a connection whose file does not change meanwhile as far as it is read.
pub(super) fn report_of(
    connection: &Connection,
    date: Option<BusinessDate>,
) -> Result<Option<DayReport>, BankFileError> {
    let Some(closing) = read_closing(connection, date)? else {
        return Ok(None);
    };
    let stored = read_totals(connection, closing.through)?;
    let mut computed = compute(connection, closing)?;
    for key in stored
        .keys()
        .chain(computed.totals.keys().filter(|key| !stored.contains_key(*key)))
    {
        let (was, is) = (stored.get(key), computed.totals.get(key));
        if was.unwrap_or(&0) != is.unwrap_or(&0) {
            let (account, currency, terminal) = key;
            let at = terminal
                .map(|terminal| format!(" at {terminal}"))
                .unwrap_or_default();
            computed.report.difference(format!(
                "{account} in {currency}{at} had {} minor units when the dates were closed, and the rows add up to {} now",
                was.unwrap_or(&0),
                is.unwrap_or(&0)
            ));
        }
    }
    Ok(Some(computed.report))
}

/// Adds up the dates since the previous closing, up to that of `closing`, whose `next_lsn` is found out.
pub(super) fn compute(connection: &Connection, closing: Closing) -> Result<Computed, BankFileError> {
    let before = previous_closing(connection, closing.through)?;
    let mut totals = match &before {
        Some(before) => read_totals(connection, before.through)?,
        None => ClosingTotals::new(),
    };
    let mut report = DayReport {
        from: before.as_ref().map(|before| before.through.next()),
        currencies: BTreeMap::new(),
        terminals: BTreeMap::new(),
        differences: Vec::new(),
        difference_count: 0,
        closing: Closing {
            next_lsn: closing.last_lsn.next(),
            ..closing
        },
    };
    for (&key, &total) in &totals {
        add(
            &mut report.currencies.entry(key.1).or_default().before,
            key.0,
            total,
        );
    }
    let first = before.as_ref().map_or(Lsn::new(1), |before| before.next_lsn);
    let mut balances: HashMap<AccountId, i128, foldhash::fast::RandomState> = HashMap::default();
    let last = report.closing.last_lsn;
    each_row(connection, first, last, |row| {
        let moved = balances_moved(connection, &row, &mut balances, &mut report)?;
        let date = row.moment.date;
        if date > report.closing.through {
            report.closing.next_lsn = report.closing.next_lsn.min(row.lsn);
        } else if before.as_ref().is_none_or(|before| date > before.through) {
            add_row(&row, moved, &mut totals, &mut report);
        }
        Ok(())
    })?;
    for (&key, &total) in &totals {
        add(
            &mut report.currencies.entry(key.1).or_default().after,
            key.0,
            total,
        );
        if let ("cash", currency, Some(terminal)) = key {
            // The bank's side is negative where the terminal has cash.
            report.terminals.entry((terminal, currency)).or_default().cash = -total;
        }
    }
    let unbalanced: Vec<_> = report
        .currencies
        .iter()
        .map(|(&currency, day)| (currency, day.after.sum()))
        .filter(|&(_, sum)| sum != 0)
        .collect();
    for (currency, sum) in unbalanced {
        report.difference(format!(
            "all accounts in {currency} add up to {sum} minor units instead of 0"
        ));
    }
    Ok(Computed { report, totals })
}

fn add(totals: &mut CurrencyTotals, account: &str, sum: i128) {
    let total = match account {
        CUSTOMERS => &mut totals.customers,
        "cash" => &mut totals.cash,
        "opening" => &mut totals.opening,
        "interest" => &mut totals.interest,
        "adjustment" => &mut totals.adjustment,
        _ => &mut totals.suspense,
    };
    *total += sum;
}

fn add_row(row: &Row, moved: i128, totals: &mut ClosingTotals, report: &mut DayReport) {
    let approved = row.outcome == Outcome::Approved;
    let sum = i128::from(row.amount.minor());
    let count = |movement: &mut Movement| {
        movement.approved += u64::from(approved);
        movement.declined += u64::from(!approved);
        movement.sum += if approved { sum } else { 0 };
    };
    let day = report.currencies.entry(row.currency).or_default();
    count(day.movements.entry(row.kind.name()).or_default());
    if let (true, Some(terminal)) = (row.contra.number() == SystemAccount::Cash.number(), row.terminal) {
        let day = report.terminals.entry((terminal, row.currency)).or_default();
        match row.kind {
            Kind::Deposit | Kind::Advice => count(&mut day.deposits),
            Kind::Withdrawal => count(&mut day.withdrawals),
            Kind::Reversal => count(&mut day.reversals),
            _ => {}
        }
    }
    // One side by what rows say that they add, the other by what balances have become: so the two are zero together only if they agree.
    if let Some((ledger, change)) = row.system_change() {
        let key = (ledger.account.name(), ledger.currency, ledger.terminal);
        *totals.entry(key).or_default() += change;
    }
    if moved != 0 {
        *totals.entry((CUSTOMERS, row.currency, None)).or_default() += moved;
    }
}

/// What the customers' balances have moved by, told by the balances alone; and whether each has moved by what the row adds.
fn balances_moved(
    connection: &Connection,
    row: &Row,
    balances: &mut HashMap<AccountId, i128, foldhash::fast::RandomState>,
    report: &mut DayReport,
) -> Result<i128, BankFileError> {
    let approved = row.outcome == Outcome::Approved;
    let mut moved = 0;
    for (account, change) in row.changes() {
        let side = row.seen_from(account);
        let before = match (balances.get(&account), side) {
            (Some(before), _) => *before,
            (None, Some(side)) => balance_at(connection, account, side.prev_lsn)?,
            (None, None) => 0,
        };
        let amount = side.map_or(0, |side| i128::from(side.amount.minor()));
        let expected = before + if approved { amount } else { 0 };
        let after = i128::from(change.balance.minor());
        if expected != after {
            report.difference(format!(
                "journal row {}: account {account} should have {expected} minor units afterwards, and has {after}",
                row.lsn
            ));
        }
        moved += after - before;
        balances.insert(account, after);
    }
    Ok(moved)
}

/// An account's balance after one of its rows; zero before the first.
fn balance_at(connection: &Connection, account: AccountId, lsn: Lsn) -> Result<i128, BankFileError> {
    if lsn == Lsn::ZERO {
        return Ok(0);
    }
    connection
        .prepare_cached(
            "SELECT CASE WHEN account = ?2 THEN balance ELSE contra_balance END FROM journal WHERE lsn = ?1",
        )
        .and_then(|mut select| {
            select.query_row([lsn.get() as i64, account.get() as i64], |row| {
                row.get::<_, Option<i64>>(0)
            })
        })
        .map(|balance| balance.unwrap_or(0).into())
        .map_err(BankFileError::sqlite("reading a balance"))
}

/// Hands on the rows from `first` to `last`, which must be durable, in parts: between two of them the write-ahead log of a bank that is
/// being served may start over.
pub(super) fn each_row(
    connection: &Connection,
    first: Lsn,
    last: Lsn,
    mut each: impl FnMut(Row) -> Result<(), BankFileError>,
) -> Result<(), BankFileError> {
    let sqlite = BankFileError::sqlite("reading the journal's rows");
    let mut known: HashMap<AccountId, Currency, foldhash::fast::RandomState> = HashMap::default();
    let mut currency_of = |account: AccountId| {
        if let Some(&currency) = known.get(&account) {
            return Some(currency);
        }
        let code: String = connection
            .prepare_cached("SELECT currency FROM accounts WHERE account = ?1")
            .and_then(|mut select| select.query_row([account.get() as i64], |row| row.get(0)))
            .ok()?;
        let currency = Currency::from_code(&code).ok()?;
        known.insert(account, currency);
        Some(currency)
    };
    let mut from = first.get();
    while from <= last.get() {
        let to = last.get().min(from + CLOSING_ROWS_AT_ONCE - 1);
        let mut select = connection
            .prepare_cached(&format!(
                "SELECT {JOURNAL_READ} FROM journal WHERE lsn BETWEEN ?1 AND ?2 ORDER BY lsn"
            ))
            .map_err(&sqlite)?;
        let mut found = select.query([from as i64, to as i64]).map_err(&sqlite)?;
        while let Some(columns) = found.next().map_err(&sqlite)? {
            each(read_row(columns, &mut currency_of)?)?;
        }
        from = to + 1;
    }
    Ok(())
}

/// The closing that has closed a date, or the newest.
pub(super) fn read_closing(
    connection: &Connection,
    date: Option<BusinessDate>,
) -> Result<Option<Closing>, BankFileError> {
    match date {
        Some(date) => one_closing(connection, "WHERE through >= ?1 ORDER BY through LIMIT 1", date),
        None => one_closing(
            connection,
            "WHERE through <= ?1 ORDER BY through DESC LIMIT 1",
            BusinessDate::from_days(i32::MAX),
        ),
    }
}

fn previous_closing(
    connection: &Connection,
    through: BusinessDate,
) -> Result<Option<Closing>, BankFileError> {
    one_closing(
        connection,
        "WHERE through < ?1 ORDER BY through DESC LIMIT 1",
        through,
    )
}

fn one_closing(
    connection: &Connection,
    which: &str,
    date: BusinessDate,
) -> Result<Option<Closing>, BankFileError> {
    connection
        .query_row(
            &format!("SELECT through, time, last_lsn, next_lsn, operator FROM closings {which}"),
            [date.days()],
            |row| {
                Ok(Closing {
                    through: BusinessDate::from_days(row.get(0)?),
                    time: Timestamp::from_millis(row.get(1)?),
                    last_lsn: Lsn::new(row.get::<_, i64>(2)?.unsigned_abs()),
                    next_lsn: Lsn::new(row.get::<_, i64>(3)?.unsigned_abs()),
                    operator: row.get(4)?,
                })
            },
        )
        .optional()
        .map_err(BankFileError::sqlite("reading a closed date"))
}

fn read_totals(connection: &Connection, through: BusinessDate) -> Result<ClosingTotals, BankFileError> {
    let sqlite = BankFileError::sqlite("reading the totals of a closed date");
    let mut select = connection
        .prepare("SELECT account, currency, terminal, balance FROM closing_totals WHERE through = ?1")
        .map_err(&sqlite)?;
    let mut found = select.query([through.days()]).map_err(&sqlite)?;
    let mut totals = ClosingTotals::new();
    while let Some(columns) = found.next().map_err(&sqlite)? {
        let text = |index| columns.get::<_, String>(index).map_err(&sqlite);
        let (account, currency, terminal, balance) = (text(0)?, text(1)?, text(2)?, text(3)?);
        let bad = || BankFileError::damaged(format!("the totals as of {through} have an impossible row"));
        let account = SystemAccount::ALL
            .map(SystemAccount::name)
            .into_iter()
            .chain([CUSTOMERS])
            .find(|name| *name == account)
            .ok_or_else(bad)?;
        let terminal = match terminal.as_str() {
            "" => None,
            terminal => Some(TerminalId::new(terminal).map_err(|_| bad())?),
        };
        let currency = Currency::from_code(&currency).map_err(|_| bad())?;
        totals.insert((account, currency, terminal), balance.parse().map_err(|_| bad())?);
    }
    Ok(totals)
}
