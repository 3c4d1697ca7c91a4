//! One command, one answer: for scripts.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use bank_core::limits::MAX_PIN_DIGITS;
use bank_core::money::MoneyError;
use bank_core::protocol::{ErrorCode, Receipt};
use bank_core::{Currency, Money, TerminalId, Timestamp, TxnId};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::args::{AmountArgs, OneShot};
use crate::client::{Balance, Client, ClientError, Customer, Outcome, StatementLine};
use crate::prompt;
use crate::words::{code_name, kind, other_side, plain};

/// How a command ended, as its exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Approved, or done.
    Approved = 0,
    /// Failed; nothing happened.
    Failed = 1,
    /// Wrong usage; nothing happened.
    Usage = 2,
    /// Declined by a business rule.
    Declined = 3,
    /// The card and PIN were not accepted.
    LoginRefused = 4,
    /// It may have happened or not.
    InDoubt = 5,
    /// The server cannot be reached; nothing happened.
    Unreachable = 6,
}

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> ExitCode {
        ExitCode::from(ended as u8)
    }
}

/// Why a command has no answer from the bank.
#[derive(Debug, thiserror::Error)]
enum OneShotError {
    #[error("the PIN file {0}: {1}")]
    PinFile(String, io::Error),
    #[error(transparent)]
    Amount(#[from] MoneyError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(
        "transaction {id} is in doubt: {source}. It may have been carried out or not: look at the statement before you repeat it"
    )]
    InDoubt { id: TxnId, source: ClientError },
}

impl OneShotError {
    fn ended(&self) -> Ended {
        match self {
            OneShotError::PinFile(..) | OneShotError::Amount(_) => Ended::Usage,
            OneShotError::Client(ClientError::Unreachable { .. }) => Ended::Unreachable,
            OneShotError::Client(error) if error.code() == Some(ErrorCode::LoginRefused) => {
                Ended::LoginRefused
            }
            OneShotError::Client(_) => Ended::Failed,
            OneShotError::InDoubt { .. } => Ended::InDoubt,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            OneShotError::PinFile(..) | OneShotError::Amount(_) => "usage",
            OneShotError::Client(ClientError::Unreachable { .. }) => "unreachable",
            OneShotError::Client(error) => error.code().map_or("failed", ErrorCode::name),
            OneShotError::InDoubt { .. } => "in_doubt",
        }
    }
}

/// An answer in both its forms.
struct Answer {
    ended: Ended,
    json: Value,
    text: String,
}

/// Runs one command: the answer goes to standard output, what went wrong to standard error.
pub fn run(server: &str, terminal: TerminalId, command: &OneShot) -> Ended {
    let as_json = command.card().json;
    let (ended, out) = match ask(server, terminal, command) {
        Ok(answer) => (
            answer.ended,
            if as_json {
                answer.json.to_string()
            } else {
                answer.text
            },
        ),
        Err(error) => {
            eprintln!("atm-cli: {}", plain(&error.to_string()));
            let mut json = json!({ "code": error.code(), "message": error.to_string() });
            if let OneShotError::InDoubt { id, .. } = &error {
                json["outcome"] = "in_doubt".into();
                json["txn_id"] = id.to_string().into();
            }
            (
                error.ended(),
                if as_json { json.to_string() } else { String::new() },
            )
        }
    };
    if !out.is_empty() {
        // Whoever asked is gone if this fails; the exit code still tells what happened.
        let _ = writeln!(io::stdout(), "{out}");
    }
    ended
}

fn ask(server: &str, terminal: TerminalId, command: &OneShot) -> Result<Answer, OneShotError> {
    let card = command.card();
    let pin = read_pin(&card.pin_file)
        .map_err(|error| OneShotError::PinFile(card.pin_file.display().to_string(), error))?;
    let mut client = Client::connect(server, terminal)?;
    let customer = client.login(&card.card, &pin)?;
    drop(pin);
    let answer = match command {
        OneShot::Balance(_) => Ok(balance(client.balance()?)),
        OneShot::Deposit(amount) => transact(&customer, amount, |id, sum| client.deposit(id, sum)),
        OneShot::Withdraw(amount) => transact(&customer, amount, |id, sum| client.withdraw(id, sum)),
        OneShot::Transfer(args) => transact(&customer, &args.amount, |id, sum| {
            client.transfer(id, args.to, sum)
        }),
        OneShot::Statement(args) => {
            let (balance, lines) = client.statement(args.lines)?;
            Ok(statement(balance, &lines))
        }
    };
    // The answer is there; that the goodbye is not heard changes nothing.
    let _ = client.logout();
    answer
}

/// The first line of a file, or of standard input for `-`.
fn read_pin(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::with_capacity(64));
    let most = (MAX_PIN_DIGITS + 2) as u64;
    if path == Path::new("-") && io::stdin().is_terminal() && io::stdout().is_terminal() {
        // Somebody sits there: asked for, and not shown.
        return prompt::for_stdin()
            .secret("PIN:")
            .map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    if path == Path::new("-") {
        io::stdin().lock().take(most).read_line(&mut line)?;
    } else {
        BufReader::with_capacity(64, File::open(path)?.take(most)).read_line(&mut line)?;
    }
    let digits = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(digits);
    if line.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "its first line is empty, and should be the PIN",
        ));
    }
    Ok(line)
}

fn transact(
    customer: &Customer,
    args: &AmountArgs,
    ask: impl FnOnce(TxnId, bank_core::Amount) -> Result<Outcome, ClientError>,
) -> Result<Answer, OneShotError> {
    let amount = customer.currency.parse_amount(&args.amount)?;
    let id = args.txn_id.unwrap_or_else(TxnId::generate);
    match ask(id, amount) {
        Ok(outcome) => Ok(outcome_answer(customer.currency, id, &outcome)),
        Err(source) if source.leaves_doubt() => Err(OneShotError::InDoubt { id, source }),
        Err(error) => Err(error.into()),
    }
}

fn balance(found: Balance) -> Answer {
    let Balance {
        balance,
        currency,
        lsn,
    } = found;
    let sum = currency.format(balance);
    Answer {
        ended: Ended::Approved,
        text: format!("{sum} {currency}"),
        json: json!({ "balance": sum, "currency": currency.code(), "lsn": lsn.get() }),
    }
}

fn outcome_answer(currency: Currency, id: TxnId, outcome: &Outcome) -> Answer {
    let sum = |minor| currency.format(Money::from_minor(minor));
    let (ended, name, code, message, lsn, receipt): (_, _, String, String, _, &Receipt) = match outcome {
        Outcome::Approved(lsn, receipt) => (
            Ended::Approved,
            "approved",
            "approved".into(),
            "Approved.".into(),
            lsn,
            receipt,
        ),
        Outcome::Declined {
            lsn,
            receipt,
            code,
            message,
        } => {
            let code =
                ErrorCode::from_number(*code).map_or_else(|| code.to_string(), |code| code.name().into());
            (Ended::Declined, "declined", code, plain(message), lsn, receipt)
        }
    };
    let (amount, balance) = (sum(receipt.amount), sum(receipt.balance));
    let time = Timestamp::from_millis(receipt.time);
    let heading = if ended == Ended::Approved {
        ""
    } else {
        "DECLINED: "
    };
    Answer {
        ended,
        text: format!(
            "{heading}{message} {amount} {currency}, balance {balance} {currency}\ntransaction {id}, row {lsn}, {time} UTC"
        ),
        json: json!({
            "outcome": name, "code": code, "message": message, "amount": amount, "balance": balance,
            "currency": currency.code(), "txn_id": id.to_string(), "lsn": lsn.get(),
        }),
    }
}

fn statement(balance: Balance, lines: &[StatementLine]) -> Answer {
    let Balance {
        balance,
        currency,
        lsn,
    } = balance;
    let sum = currency.format(balance);
    let text = lines
        .iter()
        .rev()
        .map(|line| statement_line(currency, line) + "\n")
        .collect::<String>();
    let json_lines: Vec<_> = lines
        .iter()
        .map(|line| {
            json!({
                "lsn": line.lsn.get(), "time": line.time.millis(), "kind": kind(line),
                "outcome": if line.outcome == 0 { "approved" } else { "declined" }, "code": code_name(line),
                "amount": currency.format(line.amount), "balance": currency.format(line.balance),
                "contra": other_side(line), "terminal": plain(&line.terminal),
                "txn_id": line.txn_id.map(|id| id.to_string()),
            })
        })
        .collect();
    Answer {
        ended: Ended::Approved,
        text: format!("{text}balance {sum} {currency}"),
        json: json!({ "balance": sum, "currency": currency.code(), "lsn": lsn.get(), "lines": json_lines }),
    }
}

fn statement_line(currency: Currency, line: &StatementLine) -> String {
    let declined = if line.outcome == 0 {
        String::new()
    } else {
        format!("  declined: {}", code_name(line))
    };
    let (amount, balance) = (currency.format(line.amount), currency.format(line.balance));
    let (time, kind, other) = (line.time.to_string(), kind(line), other_side(line));
    format!("{time}  {kind:<10}  {amount:>14}  {balance:>14}  {other}{declined}")
}
