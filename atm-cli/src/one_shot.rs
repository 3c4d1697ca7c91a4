//! One command, one answer: for scripts.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use bank_core::limits::MAX_PIN_DIGITS;
use bank_core::money::MoneyError;
use bank_core::protocol::{ErrorCode, Receipt};
use bank_core::{Amount, Currency, Money, Timestamp, TxnId};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::args::{AmountArgs, OneShot};
use crate::client::{Client, ClientConfig, ClientError};
use crate::connection::{Balance, ConnectionError, Customer, Outcome, StatementLine};
use crate::paper::seal;
use crate::prompt;
use crate::words::{code_name, hex, kind, other_side, plain};

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
        "transaction {id} is in doubt: {source}. It may have been carried out or not: repeat it with --txn-id {id} to \
         learn what became of it"
    )]
    InDoubt { id: TxnId, source: ConnectionError },
}

impl OneShotError {
    fn ended(&self) -> Ended {
        match self {
            OneShotError::PinFile(..) | OneShotError::Amount(_) => Ended::Usage,
            OneShotError::Client(ClientError::Connection(ConnectionError::Unreachable { .. })) => {
                Ended::Unreachable
            }
            OneShotError::Client(error)
                if matches!(
                    error.code(),
                    Some(ErrorCode::LoginRefused | ErrorCode::TooManyFailures)
                ) =>
            {
                Ended::LoginRefused
            }
            OneShotError::Client(_) => Ended::Failed,
            OneShotError::InDoubt { .. } => Ended::InDoubt,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            OneShotError::PinFile(..) | OneShotError::Amount(_) => "usage",
            OneShotError::Client(ClientError::Connection(ConnectionError::Unreachable { .. })) => {
                "unreachable"
            }
            OneShotError::Client(ClientError::Connection(ConnectionError::NotTrusted { .. })) => {
                "not_trusted"
            }
            OneShotError::Client(ClientError::Connection(ConnectionError::StaleId { .. })) => "stale_id",
            OneShotError::Client(ClientError::Undone { .. }) => "reversed",
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
pub fn run(config: ClientConfig, command: &OneShot) -> Ended {
    let mut client = Client::new(config);
    let answer = ask(&mut client, command);
    for notice in client.notices() {
        eprintln!("atm-cli: notice from the bank: {notice}");
    }
    let (ended, out) = match answer {
        Ok(answer) => answer.shown(command),
        Err(error) => {
            eprintln!("atm-cli: {}", plain(&error.to_string()));
            error.shown(command)
        }
    };
    if !out.is_empty() {
        // Whoever asked is gone if this fails; the exit code still tells what happened.
        let _ = writeln!(io::stdout(), "{out}");
    }
    ended
}

impl Answer {
    fn shown(self, command: &OneShot) -> (Ended, String) {
        let as_json = command.card().json;
        (
            self.ended,
            if as_json { self.json.to_string() } else { self.text },
        )
    }
}

impl OneShotError {
    /// As JSON for those who asked for it; it was told on standard error.
    fn shown(&self, command: &OneShot) -> (Ended, String) {
        let mut json = json!({ "code": self.code(), "message": self.to_string() });
        if let OneShotError::InDoubt { id, .. } = self {
            json["outcome"] = "in_doubt".into();
            json["txn_id"] = id.to_string().into();
        }
        let as_json = command.card().json;
        (
            self.ended(),
            if as_json { json.to_string() } else { String::new() },
        )
    }
}

fn ask(client: &mut Client, command: &OneShot) -> Result<Answer, OneShotError> {
    let card = command.card();
    let pin = read_pin(&card.pin_file)
        .map_err(|error| OneShotError::PinFile(card.pin_file.display().to_string(), error))?;
    // A script would rather know at once that there is no server.
    client.connect()?;
    let customer = client.login(&card.card, &pin)?;
    drop(pin);
    let answer = match command {
        OneShot::Balance(_) => Ok(balance(client.balance()?)),
        OneShot::Deposit(args) => transact(client, &customer, args, Client::deposit),
        OneShot::Withdraw(args) => transact(client, &customer, args, Client::withdraw),
        OneShot::Transfer(args) => transact(client, &customer, &args.amount, |client, id, sum| {
            client.transfer(id, args.to, sum)
        }),
        OneShot::Statement(args) => {
            let (balance, lines) = client.statement(args.lines)?;
            Ok(statement(balance, &lines))
        }
    };
    client.logout();
    answer
}

/// The first line of a file, or of standard input for `-`.
fn read_pin(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::with_capacity(64));
    let most = (MAX_PIN_DIGITS + 2) as u64;
    if path == Path::new("-") && io::stdin().is_terminal() {
        // Somebody sits there: asked for, and not shown.
        return if io::stdout().is_terminal() {
            let asked = prompt::for_stdin().secret("PIN:");
            asked.map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))
        } else {
            prompt::secret_beside_output("PIN:")
        };
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
    client: &mut Client,
    customer: &Customer,
    args: &AmountArgs,
    ask: impl Fn(&mut Client, TxnId, Amount) -> Result<Outcome, ClientError>,
) -> Result<Answer, OneShotError> {
    let amount = customer.currency.parse_amount(&args.amount)?;
    let mut id = args.txn_id.unwrap_or_else(|| client.new_txn_id());
    let mut outcome = ask(client, id, amount);
    if let (Err(ClientError::Connection(ConnectionError::StaleId { .. })), None) = (&outcome, args.txn_id) {
        // Nobody else knows the id, so another is as good.
        id = client.new_txn_id();
        outcome = ask(client, id, amount);
    }
    match outcome {
        Ok(outcome) => Ok(outcome_answer(customer.currency, id, &outcome)),
        Err(ClientError::InDoubt { id, source }) => Err(OneShotError::InDoubt { id, source }),
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
            "{heading}{message} {amount} {currency}, balance {balance} {currency}\ntransaction {id}, {time} UTC\nrecord and seal {}",
            seal(*lsn, receipt)
        ),
        json: json!({
            "outcome": name, "code": code, "message": message, "amount": amount, "balance": balance,
            "currency": currency.code(), "txn_id": id.to_string(), "lsn": lsn.get(),
            "head": hex(&receipt.head),
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use bank_core::TerminalId;
    use bank_core::protocol::ReplyBody;

    use super::*;
    use crate::args::CardArgs;
    use crate::fake_bank::{Act, FakeBank, SERVER_TIME, approved, logged_in};

    const ID: &str = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";

    /// The exit code and the JSON of a command that is asked of a bank that does as the script says, with little time.
    fn answer(
        command: impl FnOnce(CardArgs) -> OneShot,
        script: impl IntoIterator<Item = Vec<Act>>,
    ) -> (Ended, Value, FakeBank) {
        let directory = tempfile::tempdir().unwrap();
        let pin_file = directory.path().join("ken.pin");
        std::fs::write(&pin_file, "2468\n").unwrap();
        let command = command(card(pin_file));
        let bank = FakeBank::open(script);
        let config = ClientConfig {
            deadline: Duration::from_millis(1500),
            ..ClientConfig::new(bank.address(), TerminalId::new("CLI").unwrap())
        };
        let (ended, json) = match ask(&mut Client::new(config), &command) {
            Ok(answer) => answer.shown(&command),
            Err(error) => error.shown(&command),
        };
        (ended, serde_json::from_str(&json).unwrap(), bank)
    }

    fn card(pin_file: PathBuf) -> CardArgs {
        CardArgs {
            card: "Ken".parse().unwrap(),
            pin_file,
            json: true,
        }
    }

    fn withdrawal(txn_id: Option<&str>) -> impl FnOnce(CardArgs) -> OneShot {
        let txn_id = txn_id.map(|id| id.parse().unwrap());
        move |card| {
            OneShot::Withdraw(AmountArgs {
                card,
                txn_id,
                amount: "20".into(),
            })
        }
    }

    #[test]
    fn a_lost_answer_leaves_a_transaction_in_doubt_and_a_balance_not() {
        let lost = || [vec![Act::Answer(logged_in()), Act::HangUp]];
        let (ended, json, _) = answer(withdrawal(Some(ID)), lost());
        assert_eq!(ended, Ended::InDoubt);
        for (key, value) in [("outcome", "in_doubt"), ("code", "in_doubt"), ("txn_id", ID)] {
            assert_eq!(json[key], value, "{json}");
        }
        let message = json["message"].as_str().unwrap();
        assert!(message.contains(&format!("--txn-id {ID}")), "{message}");
        let (ended, json, _) = answer(OneShot::Balance, lost());
        assert_eq!((ended, json.get("outcome")), (Ended::Unreachable, None), "{json}");
    }

    #[test]
    fn a_script_learns_at_once_that_there_is_no_server() {
        let (ended, json, _) = answer(withdrawal(None), []);
        assert_eq!(
            (ended, json["code"].as_str()),
            (Ended::Unreachable, Some("unreachable"))
        );
    }

    #[test]
    fn a_stale_id_is_replaced_once_if_it_was_not_the_users() {
        let stale = || {
            Act::Answer(ReplyBody::StaleId {
                newest: SERVER_TIME + 5_000_000,
            })
        };
        let approved = || Act::Answer(approved(ID.parse().unwrap()));
        let logged_out = || Act::Answer(ReplyBody::LoggedOut);
        let script = || [vec![Act::Answer(logged_in()), stale(), approved(), logged_out()]];
        let (ended, json, bank) = answer(withdrawal(None), script());
        assert_eq!(
            (ended, json["outcome"].as_str()),
            (Ended::Approved, Some("approved"))
        );
        assert_eq!(
            bank.heard()[2],
            format!("Withdraw {} 2000", json["txn_id"].as_str().unwrap())
        );
        assert_ne!(bank.heard()[1], bank.heard()[2]);

        let (ended, json, bank) = answer(withdrawal(Some(ID)), script());
        assert_eq!((ended, json["code"].as_str()), (Ended::Failed, Some("stale_id")));
        assert_eq!(bank.heard()[1], format!("Withdraw {ID} 2000"));
    }

    #[test]
    fn two_stale_ids_are_one_too_many() {
        let stale = || Act::Answer(ReplyBody::StaleId { newest: SERVER_TIME });
        let (ended, json, _) = answer(
            withdrawal(None),
            [vec![
                Act::Answer(logged_in()),
                stale(),
                stale(),
                Act::Answer(ReplyBody::LoggedOut),
            ]],
        );
        assert_eq!((ended, json["code"].as_str()), (Ended::Failed, Some("stale_id")));
    }
}
