//! Between the bank's types and the columns of the bank file.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Statement, params};

use super::BankFileError;
use super::schema::{ACCOUNT_COLUMNS, JOURNAL_COLUMNS};
use crate::account::{Account, AccountChange, AccountStatus};
use crate::card::CardStatus;
use crate::ids::{AccountId, ActionId, CardId, Lsn, TerminalId, TxnId};
use crate::interest::Period;
use crate::money::{Currency, Money};
use crate::recent_ids::RecentIds;
use crate::row::{Contra, ContraSide, Kind, Original, Outcome, Row, SystemAccount, SystemLedger};
use crate::time::{BusinessDate, Moment, Timestamp};

/// Totals of the bank's own accounts.
pub(crate) type Totals = BTreeMap<SystemLedger, i128>;

/// Accounts that changed since their rows in the `accounts` table were written, and how.
pub(super) type Dirty = HashMap<AccountId, AccountChange, foldhash::fast::RandomState>;

/// That a column holds what this program never writes there.
fn bad(table: &'static str, key: i64, column: &'static str) -> BankFileError {
    BankFileError::damaged(format!("{table} {key} has an impossible {column}"))
}

pub(super) static INSERT_ROW: LazyLock<String> = LazyLock::new(|| {
    format!(
        "INSERT INTO journal ({JOURNAL_COLUMNS}) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18)"
    )
});

pub(super) fn insert_row(insert: &mut Statement<'_>, row: &Row) -> rusqlite::Result<()> {
    let txn_id = row.txn_id.map(TxnId::to_bytes);
    insert
        .execute(params![
            row.lsn.get() as i64,
            row.moment.time.millis(),
            row.moment.date.days(),
            row.kind.number(),
            row.outcome.number(),
            txn_id.as_ref().map(|bytes| &bytes[..]),
            row.account.get() as i64,
            row.contra.number(),
            row.terminal.as_ref().map(TerminalId::as_str),
            row.amount.minor(),
            row.balance.minor(),
            row.prev_lsn.get() as i64,
            row.contra_side.map(|side| side.balance.minor()),
            row.contra_side.map(|side| side.prev_lsn.get() as i64),
            row.original.map(|original| original.lsn.get() as i64),
            row.card.map(|card| card.get() as i64),
            row.action.map(|action| action.get() as i64),
            row.period.map(Period::number),
        ])
        .map(drop)
}

/// Reads a journal row whose columns are those of [`super::schema::JOURNAL_READ`]. `currency_of` gives the currency of
/// the account that it first names.
pub(super) fn read_row(
    columns: &rusqlite::Row<'_>,
    currency_of: impl FnOnce(AccountId) -> Option<Currency>,
) -> Result<Row, BankFileError> {
    let sqlite = BankFileError::sqlite("reading a journal row");
    let lsn: i64 = columns.get(0).map_err(&sqlite)?;
    let bad = |column| bad("journal row", lsn, column);
    let integer = |index, column| columns.get::<_, i64>(index).map_err(|_| bad(column));
    let place = |index, column| {
        u64::try_from(integer(index, column)?)
            .map(Lsn::new)
            .map_err(|_| bad(column))
    };
    let small = |index, column| u8::try_from(integer(index, column)?).map_err(|_| bad(column));

    let account = account_id(integer(6, "account")?).ok_or_else(|| bad("account"))?;
    let txn_id = txn_id(columns.get_ref(5).map_err(&sqlite)?).ok_or_else(|| bad("txn_id"))?;
    let terminal = match columns.get_ref(8).map_err(&sqlite)? {
        ValueRef::Null => None,
        value => {
            let text = value.as_str().map_err(|_| bad("terminal"))?;
            Some(TerminalId::new(text).map_err(|_| bad("terminal"))?)
        }
    };
    let contra_balance: Option<i64> = columns.get(12).map_err(&sqlite)?;
    let contra_prev: Option<i64> = columns.get(13).map_err(&sqlite)?;
    let contra_side = match (contra_balance, contra_prev) {
        (None, None) => None,
        (Some(balance), Some(prev)) => Some(ContraSide {
            balance: Money::from_minor(balance),
            prev_lsn: Lsn::new(u64::try_from(prev).map_err(|_| bad("contra_prev_lsn"))?),
        }),
        _ => return Err(bad("contra side: half of it is missing")),
    };
    let original = match columns.get::<_, Option<i64>>(14).map_err(&sqlite)? {
        None => None,
        Some(_) => Some(Original {
            lsn: place(14, "original_lsn")?,
            date: date(integer(18, "original_lsn")?).ok_or_else(|| bad("original_lsn"))?,
        }),
    };
    let optional = |index, column| match columns.get::<_, Option<i64>>(index) {
        Ok(None) => Ok(None),
        Ok(Some(number)) => u64::try_from(number).map(Some).map_err(|_| bad(column)),
        Err(_) => Err(bad(column)),
    };
    // An amount that has no negation could be no customer's, and would overflow where the contra is computed.
    let amount = Some(integer(9, "amount")?)
        .filter(|&amount| amount != i64::MIN)
        .ok_or_else(|| bad("amount"))?;
    Ok(Row {
        lsn: u64::try_from(lsn).map(Lsn::new).map_err(|_| bad("lsn"))?,
        moment: Moment {
            time: Timestamp::from_millis(integer(1, "time")?),
            date: date(integer(2, "business_date")?).ok_or_else(|| bad("business_date"))?,
        },
        kind: Kind::from_number(small(3, "kind")?).ok_or_else(|| bad("kind"))?,
        outcome: Outcome::from_number(small(4, "outcome")?).ok_or_else(|| bad("outcome"))?,
        txn_id,
        account,
        contra: Contra::from_number(integer(7, "contra")?).ok_or_else(|| bad("contra"))?,
        terminal,
        amount: Money::from_minor(amount),
        balance: Money::from_minor(integer(10, "balance")?),
        prev_lsn: place(11, "prev_lsn")?,
        contra_side,
        original,
        card: optional(15, "card_id")?.and_then(CardId::new),
        action: optional(16, "action")?.and_then(ActionId::new),
        period: optional(17, "period")?
            .map(|number| period(number).ok_or_else(|| bad("period")))
            .transpose()?,
        currency: currency_of(account).ok_or_else(|| {
            BankFileError::damaged(format!("journal row {lsn} names the unknown account {account}"))
        })?,
    })
}

static INSERT_ACCOUNT: LazyLock<String> = LazyLock::new(|| {
    format!("INSERT INTO accounts ({ACCOUNT_COLUMNS}) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,NULL,NULL)")
});

/// Writes an account on which no customer has done anything yet.
pub(super) fn insert_account(connection: &Connection, account: &Account) -> rusqlite::Result<()> {
    connection
        .prepare_cached(&INSERT_ACCOUNT)?
        .execute(params![
            account.id.get() as i64,
            account.currency.code(),
            account.status.name(),
            account.balance.minor(),
            account.overdraft_limit.minor(),
            account.daily_limit.map(Money::minor),
            account.withdrawn.minor(),
            account.business_date.days(),
            account.last_time.millis(),
            account.last_lsn.get() as i64,
        ])
        .map(drop)
}

/// Reads an account whose columns are those of [`ACCOUNT_COLUMNS`].
pub(super) fn read_account(columns: &rusqlite::Row<'_>) -> Result<Account, BankFileError> {
    let number: i64 = columns
        .get(0)
        .map_err(BankFileError::sqlite("reading an account"))?;
    let bad = |column| bad("account", number, column);
    let integer = |index, column| columns.get::<_, i64>(index).map_err(|_| bad(column));
    let text = |index: usize, column| {
        columns
            .get_ref(index)
            .ok()
            .and_then(|v| v.as_str().ok())
            .ok_or_else(|| bad(column))
    };
    let daily_limit: Option<i64> = columns.get(5).map_err(|_| bad("daily_limit"))?;
    Ok(Account {
        id: account_id(number).ok_or_else(|| bad("number"))?,
        currency: Currency::from_code(text(1, "currency")?).map_err(|_| bad("currency"))?,
        status: AccountStatus::from_name(text(2, "status")?).ok_or_else(|| bad("status"))?,
        balance: Money::from_minor(integer(3, "balance")?),
        overdraft_limit: Money::from_minor(integer(4, "overdraft_limit")?),
        daily_limit: daily_limit.map(Money::from_minor),
        withdrawn: Money::from_minor(integer(6, "withdrawn")?),
        business_date: date(integer(7, "business_date")?).ok_or_else(|| bad("business_date"))?,
        last_time: Timestamp::from_millis(integer(8, "last_time")?),
        last_lsn: u64::try_from(integer(9, "last_lsn")?)
            .map(Lsn::new)
            .map_err(|_| bad("last_lsn"))?,
        recent_ids: RecentIds::after(
            columns
                .get_ref(10)
                .ok()
                .and_then(txn_id)
                .ok_or_else(|| bad("greatest_txn_id"))?,
        ),
        interest_period: match columns.get::<_, Option<i64>>(11) {
            Ok(None) => None,
            Ok(Some(number)) => Some(period(number.unsigned_abs()).ok_or_else(|| bad("interest_period"))?),
            Err(_) => return Err(bad("interest_period")),
        },
    })
}

/// A column that may be NULL; `None` if it holds what is no transaction id.
fn txn_id(value: ValueRef<'_>) -> Option<Option<TxnId>> {
    match value {
        ValueRef::Null => Some(None),
        value => TxnId::from_bytes(value.as_blob().ok()?.try_into().ok()?)
            .ok()
            .map(Some),
    }
}

/// The row up to which the `accounts` and `system_accounts` tables are complete.
pub(super) fn read_checkpoint_lsn(connection: &Connection) -> Result<Lsn, BankFileError> {
    let lsn: i64 = connection
        .query_row("SELECT checkpoint_lsn FROM bank", [], |row| row.get(0))
        .map_err(BankFileError::sqlite("reading the checkpoint's place"))?;
    u64::try_from(lsn)
        .map(Lsn::new)
        .map_err(|_| BankFileError::damaged("checkpoint_lsn is negative"))
}

/// The newest row.
pub(super) fn read_last_lsn(connection: &Connection) -> Result<Lsn, BankFileError> {
    let lsn: Option<i64> = connection
        .query_row("SELECT max(lsn) FROM journal", [], |row| row.get(0))
        .map_err(BankFileError::sqlite("finding the newest journal row"))?;
    u64::try_from(lsn.unwrap_or(0))
        .map(Lsn::new)
        .map_err(|_| BankFileError::damaged("a journal row has a negative lsn"))
}

/// The bank's own totals, as of the checkpoint.
pub(super) fn read_totals(connection: &Connection) -> Result<Totals, BankFileError> {
    let sqlite = BankFileError::sqlite("reading the bank's own accounts");
    let mut select = connection
        .prepare("SELECT account, currency, terminal, balance FROM system_accounts")
        .map_err(&sqlite)?;
    let mut found = select.query([]).map_err(&sqlite)?;
    let mut totals = Totals::new();
    while let Some(columns) = found.next().map_err(&sqlite)? {
        let number: i64 = columns.get(0).map_err(&sqlite)?;
        let text = |index| columns.get::<_, String>(index).map_err(&sqlite);
        let bad = |column| bad("system account", number, column);
        let account = SystemAccount::ALL
            .into_iter()
            .find(|account| account.number() == number)
            .ok_or_else(|| bad("number"))?;
        let terminal = match text(2)?.as_str() {
            "" => None,
            terminal => Some(TerminalId::new(terminal).map_err(|_| bad("terminal"))?),
        };
        let currency = Currency::from_code(&text(1)?).map_err(|_| bad("currency"))?;
        let balance: i128 = text(3)?.parse().map_err(|_| bad("balance"))?;
        totals.insert(
            SystemLedger {
                account,
                currency,
                terminal,
            },
            balance,
        );
    }
    Ok(totals)
}

/// Writes the bank's own totals together with the checkpoint that they belong to.
pub(super) fn write_checkpoint(connection: &Connection, lsn: Lsn, totals: &Totals) -> rusqlite::Result<()> {
    let mut upsert = connection.prepare_cached(
        "INSERT INTO system_accounts (account, currency, terminal, balance) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET balance = excluded.balance WHERE balance <> excluded.balance",
    )?;
    for (ledger, balance) in totals {
        let terminal = ledger.terminal.as_ref().map_or("", TerminalId::as_str);
        upsert.execute(params![
            ledger.account.number(),
            ledger.currency.code(),
            terminal,
            balance.to_string()
        ])?;
    }
    connection
        .prepare_cached("UPDATE bank SET checkpoint_lsn = ?1")?
        .execute([lsn.get() as i64])
        .map(drop)
}

/// Adds what a row means for the bank's own accounts.
pub(crate) fn add_to_totals(totals: &mut Totals, row: &Row) {
    if let Some((ledger, change)) = row.system_change() {
        *totals.entry(ledger).or_default() += change;
    }
}

pub(super) fn card_status_name(status: CardStatus) -> &'static str {
    match status {
        CardStatus::Active => "active",
        CardStatus::Blocked => "blocked",
    }
}

pub(super) fn card_status(name: &str) -> Option<CardStatus> {
    match name {
        "active" => Some(CardStatus::Active),
        "blocked" => Some(CardStatus::Blocked),
        _ => None,
    }
}

pub(super) fn account_id(number: i64) -> Option<AccountId> {
    AccountId::new(u64::try_from(number).ok()?).ok()
}

fn period(number: u64) -> Option<Period> {
    Period::from_number(u32::try_from(number).ok()?).ok()
}

fn date(days: i64) -> Option<BusinessDate> {
    i32::try_from(days).ok().map(BusinessDate::from_days)
}
