//! What operators order of the bank itself: from a request's texts to the bank's types, and from what came of it to a reply.

use std::fmt::Display;

use bank_core::account::AccountStatus;
use bank_core::bank_file::{CardOfAccount, DayReport};
use bank_core::card::CardStatus;
use bank_core::journal::Checkpointed;
use bank_core::limits::MAX_ADMIN_LINES;
use bank_core::listing::AccountFilter;
use bank_core::operations::{AccountTermsWanted, InterestPosted, NewLimits, OperationError};
use bank_core::row::SystemAccount;
use bank_core::{
    Account, AccountId, Action, Bank, CardNumber, Currency, Instruction, JournalError, Lsn, Money, Performed,
    Pin, Row, SecretHash, TerminalId, TxnId, Unblocked,
};
use serde_json::{Value, json};

use super::table::{Align, draw};
use super::{AdminReply, AdminRequest, By, PinDigits};
use crate::rows::RowFields;
use crate::{day_report, rows};

/// A reply, or why there is none of what was asked for.
type Answer = Result<AdminReply, Failure>;

/// Why something was not done.
enum Failure {
    /// For this reason.
    Refused(String),
    /// Or was it? The journal has ended while it was on its way.
    InDoubt(JournalError),
}

impl From<String> for Failure {
    fn from(reason: String) -> Failure {
        Failure::Refused(reason)
    }
}

impl From<&str> for Failure {
    fn from(reason: &str) -> Failure {
        Failure::Refused(reason.to_owned())
    }
}

impl From<OperationError> for Failure {
    fn from(error: OperationError) -> Failure {
        match error {
            OperationError::Journal(error) => Failure::InDoubt(error),
            error => Failure::Refused(error.to_string()),
        }
    }
}

/// Carries out what concerns the bank itself. It blocks until that is durable.
///
/// # Errors
/// If the journal has ended meanwhile: then nothing may be answered.
pub(super) fn execute(bank: &Bank, request: AdminRequest, user: &str) -> Result<AdminReply, JournalError> {
    match (Operation { bank, user }).execute(request) {
        Ok(reply) => Ok(reply),
        Err(Failure::Refused(reason)) => Ok(AdminReply::refused(reason)),
        Err(Failure::InDoubt(error)) => Err(error),
    }
}

struct Operation<'a> {
    bank: &'a Bank,
    /// The user at the other end.
    user: &'a str,
}

fn text(error: impl Display) -> String {
    error.to_string()
}

impl Operation<'_> {
    fn execute(&self, request: AdminRequest) -> Answer {
        let bank = self.bank;
        match request {
            AdminRequest::Accounts { filter, lines } => self.accounts(&filter, lines),
            AdminRequest::OpenAccount {
                account,
                currency,
                balance,
                overdraft,
                daily,
                by,
            } => {
                let currency = Currency::from_code(&currency).map_err(text)?;
                let wanted = AccountTermsWanted {
                    id: account.map(AccountId::new).transpose().map_err(text)?,
                    currency,
                    balance: currency.parse(&balance).map_err(text)?,
                    overdraft_limit: currency.parse(&overdraft).map_err(text)?,
                    daily_limit: daily.map(|sum| currency.parse(&sum)).transpose().map_err(text)?,
                };
                let performed = bank
                    .open_account(&self.instruction(&by)?, &wanted)?;
                self.posted("opened", &performed)
            }
            AdminRequest::AddCard {
                card,
                holder,
                account,
                pin,
                by,
            } => {
                let (number, pin) = (card_number(&card)?, new_pin(&pin)?);
                let id = account_id(account)?;
                let performed = bank
                    .add_card(&self.instruction(&by)?, &number, holder.trim(), id, &pin)?;
                Ok(done(
                    &performed,
                    format!("card {number} for {} opens account {account}", holder.trim()),
                    json!({ "account": account }),
                ))
            }
            AdminRequest::Freeze { account, by } => self.set_status(account, AccountStatus::Frozen, &by),
            AdminRequest::Unfreeze { account, by } => self.set_status(account, AccountStatus::Open, &by),
            AdminRequest::Close { account, by } => self.set_status(account, AccountStatus::Closed, &by),
            AdminRequest::Limits {
                account,
                overdraft,
                daily,
                by,
            } => self.limits(account, overdraft.as_deref(), daily.as_deref(), &by),
            AdminRequest::Adjust {
                account,
                amount,
                against,
                by,
            } => self.adjust(account, &amount, &against, &by),
            AdminRequest::Interest { rate, period, by } => {
                let (rate, period) = (rate.parse().map_err(text)?, period.parse().map_err(text)?);
                let posted = bank
                    .post_interest(&self.instruction(&by)?, rate, period)?;
                Ok(interest(&posted, &format!("{rate} for {period}")))
            }
            AdminRequest::UnblockCard { card, by } => {
                let (found, performed) = bank
                    .unblock_card(&self.instruction(&by)?, &card_number(&card)?)?;
                let message = match found {
                    Unblocked::WasBlocked | Unblocked::Before => {
                        format!("card {card} is unblocked, and has all its tries")
                    }
                    Unblocked::WasNotBlocked => {
                        format!("card {card} was not blocked; the tries counted so far are forgotten")
                    }
                };
                let was_blocked = match found {
                    Unblocked::WasBlocked => Some(true),
                    Unblocked::WasNotBlocked => Some(false),
                    Unblocked::Before => None,
                };
                Ok(done(&performed, message, json!({ "was_blocked": was_blocked })))
            }
            AdminRequest::ResetPin { card, pin, by } => {
                let pin = new_pin(&pin)?;
                let performed = bank
                    .reset_pin(&self.instruction(&by)?, &card_number(&card)?, &pin)?;
                let mut message = format!("card {card} has a new PIN and all its tries");
                if performed.before {
                    message += "; the PIN is that of the first time";
                }
                Ok(done(&performed, message, json!({})))
            }
            AdminRequest::AddTerminal {
                terminal,
                secret_hash,
                replace,
                by,
            } => {
                let id = TerminalId::new(&terminal).map_err(text)?;
                let hash = SecretHash::from_hex(&secret_hash)
                    .ok_or("a secret's hash is 64 hexadecimal digits")?;
                let performed = bank
                    .add_terminal(&self.instruction(&by)?, id, hash, replace)?;
                let message = format!("terminal {id} may come in with its secret");
                Ok(done(&performed, message, json!({ "terminal": terminal })))
            }
            AdminRequest::RetireTerminal { terminal, by } => {
                let id = TerminalId::new(&terminal).map_err(text)?;
                let performed = bank
                    .retire_terminal(&self.instruction(&by)?, id)?;
                let message = format!("terminal {id} comes in no more");
                Ok(done(&performed, message, json!({ "terminal": terminal })))
            }
            AdminRequest::Statement { account, lines } => self.statement(account, lines),
            AdminRequest::Actions { lines } => {
                let actions = bank.actions(lines.min(MAX_ADMIN_LINES) as usize).map_err(text)?;
                Ok(list_actions(&actions))
            }
            AdminRequest::CloseDay { date, by } => {
                let through = match date {
                    Some(date) => date.parse().map_err(text)?,
                    None => bank.now().date.previous(),
                };
                let report = bank
                    .close_day(&self.instruction(&by)?, through)?;
                Ok(closed(&report))
            }
            AdminRequest::CutOver { time: None, .. } => Ok(AdminReply::done(format!(
                "the next business date begins at {} UTC; it is {} now",
                bank.cut_over(),
                bank.now().date
            ))
            .with(json!({ "cut_over": bank.cut_over().to_string(), "business_date": bank.now().date.to_string() }))),
            AdminRequest::CutOver { time: Some(time), by } => {
                let cut_over = time.parse().map_err(text)?;
                let performed = bank
                    .set_cut_over(&self.instruction(&by)?, cut_over)?;
                let message = format!("the next business date begins at {cut_over} UTC from now on");
                Ok(done(&performed, message, json!({ "cut_over": cut_over.to_string() })))
            }
            AdminRequest::Checkpoint {} => {
                let Checkpointed { lsn, whole_log } = bank.checkpoint().map_err(Failure::InDoubt)?;
                let log = if whole_log {
                    "and the log is copied into the bank file"
                } else {
                    "but another program that reads the bank file keeps part of the log from being copied"
                };
                Ok(AdminReply::done(format!("the tables are up to date as of row {lsn}, {log}"))
                    .with(json!({ "lsn": lsn.get(), "whole_log": whole_log })))
            }
            other => Err(format!("{} is no command about the bank itself", other.name()).into()),
        }
    }

    fn instruction(&self, by: &By) -> Result<Instruction, String> {
        let request = match &by.request_id {
            Some(id) => id.parse().map_err(|_| "a request id is a UUID of version 7")?,
            None => TxnId::generate(),
        };
        let operator = by.operator.clone().unwrap_or_else(|| self.user.to_owned());
        Instruction::new(operator, by.reason.clone(), request).map_err(text)
    }

    fn account(&self, number: u64) -> Result<bank_core::AccountHandle, String> {
        self.bank
            .account(account_id(number)?)
            .ok_or_else(|| format!("there is no account {number}"))
    }

    fn set_status(&self, account: u64, status: AccountStatus, by: &By) -> Answer {
        let performed = self
            .bank
            .set_status(&self.instruction(by)?, account_id(account)?, status)?;
        let message = match status {
            AccountStatus::Open => format!("account {account} is of use again"),
            AccountStatus::Frozen => {
                format!("account {account} is frozen: nothing happens on it until it is unfrozen")
            }
            AccountStatus::Closed => format!("account {account} is closed, for ever"),
        };
        let data = json!({ "account": account, "status": status.name() });
        Ok(done(&performed, message, data))
    }

    fn limits(&self, number: u64, overdraft: Option<&str>, daily: Option<&str>, by: &By) -> Answer {
        if overdraft.is_none() && daily.is_none() {
            return Err("name --overdraft, --daily or both".into());
        }
        let currency = self.account(number)?.currency();
        let limits = NewLimits {
            overdraft: overdraft
                .map(|sum| currency.parse(sum))
                .transpose()
                .map_err(text)?,
            daily: match daily {
                None => None,
                Some("none") => Some(None),
                Some(sum) => Some(Some(currency.parse(sum).map_err(text)?)),
            },
        };
        let performed = self
            .bank
            .set_limits(&self.instruction(by)?, account_id(number)?, limits)?;
        let said = [
            overdraft.map(|sum| format!("may be overdrawn by {sum} {currency}")),
            daily.map(|sum| match sum {
                "none" => "has no daily limit".to_owned(),
                sum => format!("may withdraw {sum} {currency} a day"),
            }),
        ];
        let said: Vec<_> = said.into_iter().flatten().collect();
        let message = format!("account {number} {}", said.join(" and "));
        Ok(done(&performed, message, json!({ "account": number })))
    }

    fn adjust(&self, number: u64, amount: &str, against: &str, by: &By) -> Answer {
        let currency = self.account(number)?.currency();
        let sum = currency
            .parse(amount.strip_prefix('-').unwrap_or(amount))
            .map_err(text)?;
        let sum = if amount.starts_with('-') {
            Money::from_minor(-sum.minor())
        } else {
            sum
        };
        let against = [SystemAccount::Adjustment, SystemAccount::Suspense]
            .into_iter()
            .find(|account| account.name() == against)
            .ok_or("an adjustment is against \"adjustment\" or \"suspense\"")?;
        let performed = self
            .bank
            .adjust(&self.instruction(by)?, account_id(number)?, sum, against)?;
        self.posted("adjusted", &performed)
    }

    /// The receipt of a posting.
    fn posted(&self, what: &str, performed: &Performed) -> Answer {
        let row = performed.row.ok_or("the posting is missing")?;
        // What was done stays done, whether or not its head can be read.
        let head = self
            .bank
            .head_at_hand(row.lsn)
            .or_else(|| self.bank.head_at(row.lsn).ok())
            .map(|head| head.to_string());
        let Row {
            lsn,
            account,
            currency,
            ..
        } = row;
        let (amount, balance) = (currency.format(row.amount), currency.format(row.balance));
        let message = format!(
            "account {account} {what}: {amount} {currency}, balance {balance} {currency}\nrecord {lsn}:{}",
            head.as_deref().unwrap_or("?")
        );
        let data = json!({
            "lsn": lsn.get(), "time": row.moment.time.rfc3339(), "account": account.get(), "amount": amount,
            "balance": balance, "currency": currency.code(), "head": head,
        });
        Ok(done(performed, message, data))
    }

    fn accounts(&self, filter: &str, lines: u32) -> Answer {
        let listed = self
            .bank
            .accounts(&AccountFilter::of(filter), lines.min(MAX_ADMIN_LINES) as usize)
            .map_err(text)?;
        let data = listed.found.iter().map(|(account, cards)| {
            let sum = |sum: Money| account.currency.format(sum);
            json!({
                "account": account.id.get(), "currency": account.currency.code(), "balance": sum(account.balance),
                "status": account.status.name(), "overdraft": sum(account.overdraft_limit),
                "daily": account.daily_limit.map(sum), "lsn": account.last_lsn.get(),
                "interest_period": account.interest_period.map(|period| period.to_string()),
                "cards": cards.iter().map(|card| json!({
                    "card": card.number.to_string(), "holder": card.holder, "tries": card.state.tries,
                    "blocked": card.state.status == CardStatus::Blocked,
                })).collect::<Vec<_>>(),
            })
        });
        let data = json!({ "count": listed.count, "accounts": data.collect::<Vec<_>>() });
        let columns = [
            ("ACCOUNT", Align::Right),
            ("STATUS", Align::Left),
            ("BALANCE", Align::Right),
            ("", Align::Left),
            ("OVERDRAFT", Align::Right),
            ("DAILY", Align::Right),
            ("CARDS", Align::Left),
        ];
        let table: Vec<_> = listed
            .found
            .iter()
            .map(|(account, cards)| cells(account, cards))
            .collect();
        let message = match (listed.count, table.len()) {
            (0, _) => "no such account".to_owned(),
            (count, shown) if shown < count => {
                format!(
                    "{}\n{shown} of {count} accounts: --lines shows more, up to {MAX_ADMIN_LINES}, and --filter others",
                    draw(columns, &table)
                )
            }
            _ => draw(columns, &table),
        };
        Ok(AdminReply::done(message).with(data))
    }

    fn statement(&self, number: u64, lines: u32) -> Answer {
        let account = self.account(number)?;
        let lines = lines.min(MAX_ADMIN_LINES) as usize;
        let (balance, lines) = self.bank.statement(&account, lines).map_err(text)?;
        let data: Vec<_> = lines
            .iter()
            .rev()
            .map(|line| RowFields::new(account.id(), line))
            .collect();
        let columns = [
            ("TIME (UTC)", Align::Left),
            ("ROW", Align::Right),
            ("KIND", Align::Left),
            ("AMOUNT", Align::Right),
            ("BALANCE", Align::Right),
            ("OTHER SIDE", Align::Left),
            ("TERMINAL", Align::Left),
            ("", Align::Left),
        ];
        let table: Vec<_> = lines
            .iter()
            .rev()
            .map(|line| {
                let row = &line.row;
                [
                    row.moment.time.to_string(),
                    row.lsn.to_string(),
                    row.kind.name().to_owned(),
                    row.currency.format(line.side.amount),
                    row.currency.format(line.side.balance),
                    rows::contra(line.side.contra),
                    row.terminal
                        .map(|terminal| terminal.to_string())
                        .unwrap_or_default(),
                    rows::remark(row).unwrap_or_default(),
                ]
            })
            .collect();
        let message = format!(
            "{}\naccount {number}: balance {} {}",
            draw(columns, &table),
            balance.currency.format(balance.balance),
            balance.currency
        );
        let data = json!({
            "account": number, "balance": balance.currency.format(balance.balance), "currency": balance.currency.code(),
            "lsn": balance.lsn.get(), "rows": data,
        });
        Ok(AdminReply::done(message).with(data))
    }
}

fn cells(account: &Account, cards: &[CardOfAccount]) -> [String; 7] {
    let sum = |sum: Money| account.currency.format(sum);
    let cards: Vec<_> = cards
        .iter()
        .map(|card| {
            let name = if card.holder == card.number.as_str() {
                card.holder.clone()
            } else {
                format!("{} ({})", card.holder, card.number)
            };
            match card.state.status {
                CardStatus::Blocked => format!("{name} BLOCKED"),
                CardStatus::Active => name,
            }
        })
        .collect();
    [
        account.id.to_string(),
        account.status.name().to_owned(),
        sum(account.balance),
        account.currency.code().to_owned(),
        sum(account.overdraft_limit),
        account.daily_limit.map_or("none".to_owned(), sum),
        cards.join(", "),
    ]
}

/// What was done, with the number of its entry.
fn done(performed: &Performed, message: String, mut data: Value) -> AdminReply {
    let Action { id, request, .. } = &performed.action;
    data["action"] = json!(id.get());
    data["request_id"] = json!(request.to_string());
    data["before"] = json!(performed.before);
    let message = if performed.before {
        format!("{message}\n(done before under this request id, as action {id}; nothing was done now)")
    } else {
        message
    };
    AdminReply::done(message).with(data)
}

fn interest(posted: &InterestPosted, what: &str) -> AdminReply {
    let sums: Vec<_> = posted
        .sums
        .iter()
        .map(|(currency, sum)| format!("{} {currency}", day_report::sum(*currency, *sum)))
        .collect();
    let mut message = format!(
        "interest of {what}: posted on {} accounts{}{}; {} had it before, {} have none",
        posted.accounts,
        if sums.is_empty() { "" } else { ", in all " },
        sums.join(" and "),
        posted.before,
        posted.none
    );
    if !posted.cannot_hold.is_empty() {
        let named: Vec<_> = posted
            .cannot_hold
            .iter()
            .take(10)
            .map(AccountId::to_string)
            .collect();
        message += &format!(
            "\n{} accounts could not hold it and have none: {}{}",
            posted.cannot_hold.len(),
            named.join(", "),
            if named.len() < posted.cannot_hold.len() {
                " and others"
            } else {
                ""
            }
        );
    }
    let sums: serde_json::Map<_, _> = posted
        .sums
        .iter()
        .map(|(currency, sum)| {
            (
                currency.code().to_owned(),
                json!(day_report::sum(*currency, *sum)),
            )
        })
        .collect();
    AdminReply::done(message).with(json!({
        "action": posted.action.id.get(), "request_id": posted.action.request.to_string(), "accounts": posted.accounts,
        "sums": sums, "had_before": posted.before, "none": posted.none, "cannot_hold": posted.cannot_hold.iter().map(|id| id.get()).collect::<Vec<_>>(),
    }))
}

fn closed(report: &DayReport) -> AdminReply {
    AdminReply::done(day_report::to_text(report)).with(day_report::to_json(report))
}

fn list_actions(actions: &[Action]) -> AdminReply {
    let columns = [
        ("ACTION", Align::Right),
        ("TIME (UTC)", Align::Left),
        ("OPERATOR", Align::Left),
        ("COMMAND", Align::Left),
        ("SUBJECT", Align::Left),
        ("ROW", Align::Right),
        ("DETAILS", Align::Left),
        ("REASON", Align::Left),
    ];
    let table: Vec<_> = actions
        .iter()
        .map(|action| {
            [
                action.id.to_string(),
                action.time.to_string(),
                action.operator.clone(),
                action.command.clone(),
                action.subject.clone(),
                action.lsn.map_or(String::new(), |lsn| lsn.to_string()),
                action.details.clone(),
                action.reason.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let data = actions.iter().map(|action| {
        json!({
            "action": action.id.get(), "time": action.time.rfc3339(), "operator": action.operator,
            "command": action.command, "subject": action.subject, "details": action.details,
            "reason": action.reason, "request_id": action.request.to_string(), "lsn": action.lsn.map(Lsn::get),
        })
    });
    let data = data.collect();
    let message = if actions.is_empty() {
        "no operator has changed anything yet".to_owned()
    } else {
        draw(columns, &table)
    };
    AdminReply::done(message).with(data)
}

fn account_id(number: u64) -> Result<AccountId, String> {
    AccountId::new(number).map_err(text)
}

fn card_number(text_: &str) -> Result<CardNumber, String> {
    CardNumber::new(text_).map_err(text)
}

/// A PIN that an operator gives. The bank refuses it if it is easy to guess, unless it allows such PINs.
fn new_pin(digits: &PinDigits) -> Result<Pin, String> {
    Pin::new(digits.0.as_bytes()).map_err(text)
}
