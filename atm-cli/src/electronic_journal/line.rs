//! The lines of a terminal's journal: a checksum that hangs on the line before, and a record as JSON.
//!
//! The types here are the file's own; [`Record`] knows nothing of them.

use bank_core::{AccountId, Amount, Currency, Lsn, Money, TerminalId, Timestamp, TxnId};
use serde::{Deserialize, Serialize};

use super::record::{Answer, Record, Settlement, What};
use crate::dispenser::{Cassette, Cassettes, Notes};

/// What stands for the previous line's checksum in the first line.
pub(super) const BEFORE_THE_FIRST: u32 = 0;

/// The version of the format.
const VERSION: u32 = 1;

/// Eight hexadecimal digits and a space.
const CHECKSUM_BYTES: usize = 9;

/// The line of a record after a line with the checksum `previous`, and its own checksum.
pub(super) fn write(previous: u32, time: Timestamp, record: &Record) -> (Vec<u8>, u32) {
    let file_record = FileRecord {
        time: time.millis(),
        step: step(record),
    };
    let json = serde_json::to_vec(&file_record).expect("numbers and texts have a JSON form");
    let checksum = checksum_after(previous, &json);
    let mut line = checksum_text(checksum).into_bytes();
    line.extend(json);
    line.push(b'\n');
    (line, checksum)
}

/// The JSON and the checksum of a whole and unchanged line after one with the checksum `previous`.
pub(super) fn check(previous: u32, line: &[u8]) -> Option<(&[u8], u32)> {
    let (written, json) = line.strip_suffix(b"\n")?.split_at_checked(CHECKSUM_BYTES)?;
    let checksum = checksum_after(previous, json);
    // Compared as text, so that there is only one way to write a line.
    (written == checksum_text(checksum).as_bytes()).then_some((json, checksum))
}

/// Whether a last line that does not check was changed by somebody, and is not what a power cut left of a line: it is
/// a readable record with the checksum of another place, or a whole record with something after it that is no line
/// end.
pub(super) fn is_changed(previous: u32, last: &[u8]) -> bool {
    let Some((written, rest)) = last.split_at_checked(CHECKSUM_BYTES) else {
        return false;
    };
    if rest.strip_suffix(b"\n").is_some_and(|json| read(json).is_ok()) {
        return true;
    }
    let mut hasher = hasher_after(previous);
    let mut ends_a_record = |byte: &u8| {
        hasher.update(&[*byte]);
        written == checksum_text(hasher.clone().finalize()).as_bytes()
    };
    // Not with the last byte: a whole record without its line end is torn.
    rest.split_last()
        .is_some_and(|(_, json)| json.iter().any(&mut ends_a_record))
}

/// The record of a line and when it was written, or what is wrong with it.
pub(super) fn read(json: &[u8]) -> Result<(Timestamp, Record), String> {
    let FileRecord { time, step } = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    Ok((Timestamp::from_millis(time), record(step)?))
}

fn checksum_after(previous: u32, json: &[u8]) -> u32 {
    let mut hasher = hasher_after(previous);
    hasher.update(json);
    hasher.finalize()
}

fn hasher_after(previous: u32) -> crc32fast::Hasher {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&previous.to_be_bytes());
    hasher
}

fn checksum_text(checksum: u32) -> String {
    format!("{checksum:08x} ")
}

#[derive(Serialize, Deserialize)]
struct FileRecord {
    time: i64,
    #[serde(flatten)]
    step: Step,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
enum Step {
    Opened {
        version: u32,
        terminal: String,
        currency: String,
        cassettes: Vec<(i64, u32)>,
    },
    Intent {
        id: String,
        account: u64,
        what: FileWhat,
        amount: i64,
        notes: Vec<u32>,
    },
    Answered {
        id: String,
        outcome: FileOutcome,
        code: u16,
        lsn: u64,
    },
    Dispensing {
        id: String,
        before: Vec<u32>,
        notes: Vec<u32>,
    },
    Dispensed {
        id: String,
    },
    Returned {
        id: String,
    },
    Advised {
        id: String,
        account: u64,
        amount: i64,
        #[serde(rename = "for")]
        original: String,
    },
    Settled {
        id: String,
        how: FileSettlement,
        note: String,
    },
    Decided {
        id: String,
        dispensed: Vec<u32>,
    },
    Replenished {
        notes: Vec<u32>,
    },
    Missing {
        notes: Vec<u32>,
    },
    Emptied {
        #[serde(rename = "box")]
        content: i64,
    },
    Closed {
        number: u32,
        host_total: i64,
        terminal_total: i64,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FileWhat {
    Withdrawal,
    Deposit,
    Transfer,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FileOutcome {
    Approved,
    Declined,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FileSettlement {
    Done,
    Declined,
    Reversed,
    Never,
    Credited,
    Refused,
}

/// The file's form of a record.
fn step(record: &Record) -> Step {
    let counts = |notes: &Notes| notes.counts().to_vec();
    match record {
        Record::Opened { terminal, cassettes } => Step::Opened {
            version: VERSION,
            terminal: terminal.to_string(),
            currency: cassettes.currency().to_string(),
            cassettes: cassettes
                .iter()
                .map(|cassette| (cassette.denomination.minor(), cassette.notes))
                .collect(),
        },
        Record::Intent {
            id,
            account,
            what,
            amount,
            notes,
        } => Step::Intent {
            id: id.to_string(),
            account: account.get(),
            what: match what {
                What::Withdrawal => FileWhat::Withdrawal,
                What::Deposit => FileWhat::Deposit,
                What::Transfer => FileWhat::Transfer,
            },
            amount: amount.minor(),
            notes: counts(notes),
        },
        Record::Answered { id, outcome, lsn } => {
            let (outcome, code) = match outcome {
                Answer::Approved => (FileOutcome::Approved, 0),
                Answer::Declined(code) => (FileOutcome::Declined, *code),
            };
            Step::Answered {
                id: id.to_string(),
                outcome,
                code,
                lsn: lsn.get(),
            }
        }
        Record::Dispensing { id, before, notes } => Step::Dispensing {
            id: id.to_string(),
            before: counts(before),
            notes: counts(notes),
        },
        Record::Dispensed { id } => Step::Dispensed { id: id.to_string() },
        Record::Returned { id } => Step::Returned { id: id.to_string() },
        Record::Advised {
            id,
            account,
            amount,
            original,
        } => Step::Advised {
            id: id.to_string(),
            account: account.get(),
            amount: amount.minor(),
            original: original.to_string(),
        },
        Record::Settled { id, how, note } => Step::Settled {
            id: id.to_string(),
            how: match how {
                Settlement::Done => FileSettlement::Done,
                Settlement::Declined => FileSettlement::Declined,
                Settlement::Reversed => FileSettlement::Reversed,
                Settlement::Never => FileSettlement::Never,
                Settlement::Credited => FileSettlement::Credited,
                Settlement::Refused => FileSettlement::Refused,
            },
            note: note.clone(),
        },
        Record::Decided { id, dispensed } => Step::Decided {
            id: id.to_string(),
            dispensed: counts(dispensed),
        },
        Record::Replenished { notes } => Step::Replenished { notes: counts(notes) },
        Record::Missing { notes } => Step::Missing { notes: counts(notes) },
        Record::Emptied { content } => Step::Emptied {
            content: content.minor(),
        },
        Record::Closed {
            number,
            host_total,
            terminal_total,
        } => Step::Closed {
            number: *number,
            host_total: host_total.minor(),
            terminal_total: terminal_total.minor(),
        },
    }
}

/// The record of the file's form, or what is wrong with it.
fn record(step: Step) -> Result<Record, String> {
    let id = |text: String| text.parse::<TxnId>().map_err(|error| error.to_string());
    let account = |number| AccountId::new(number).map_err(|error| error.to_string());
    let amount = |minor| Amount::from_minor(minor).ok_or_else(|| format!("{minor} is no amount"));
    let notes = |counts| Notes::new(counts).map_err(|error| error.to_string());
    Ok(match step {
        Step::Opened {
            version,
            terminal,
            currency,
            cassettes,
        } => {
            if version != VERSION {
                return Err(format!(
                    "its format has version {version}, and this program knows only {VERSION}"
                ));
            }
            Record::Opened {
                terminal: TerminalId::new(&terminal).map_err(|error| error.to_string())?,
                cassettes: read_cassettes(&currency, &cassettes)?,
            }
        }
        Step::Intent {
            id: txn_id,
            account: number,
            what,
            amount: minor,
            notes: counts,
        } => Record::Intent {
            id: id(txn_id)?,
            account: account(number)?,
            what: match what {
                FileWhat::Withdrawal => What::Withdrawal,
                FileWhat::Deposit => What::Deposit,
                FileWhat::Transfer => What::Transfer,
            },
            amount: amount(minor)?,
            notes: notes(counts)?,
        },
        Step::Answered {
            id: txn_id,
            outcome,
            code,
            lsn,
        } => Record::Answered {
            id: id(txn_id)?,
            outcome: match outcome {
                FileOutcome::Approved => Answer::Approved,
                FileOutcome::Declined => Answer::Declined(code),
            },
            lsn: Lsn::new(lsn),
        },
        Step::Dispensing {
            id: txn_id,
            before,
            notes: counts,
        } => Record::Dispensing {
            id: id(txn_id)?,
            before: notes(before)?,
            notes: notes(counts)?,
        },
        Step::Dispensed { id: txn_id } => Record::Dispensed { id: id(txn_id)? },
        Step::Returned { id: txn_id } => Record::Returned { id: id(txn_id)? },
        Step::Advised {
            id: txn_id,
            account: number,
            amount: minor,
            original,
        } => Record::Advised {
            id: id(txn_id)?,
            account: account(number)?,
            amount: amount(minor)?,
            original: id(original)?,
        },
        Step::Settled {
            id: txn_id,
            how,
            note,
        } => Record::Settled {
            id: id(txn_id)?,
            how: match how {
                FileSettlement::Done => Settlement::Done,
                FileSettlement::Declined => Settlement::Declined,
                FileSettlement::Reversed => Settlement::Reversed,
                FileSettlement::Never => Settlement::Never,
                FileSettlement::Credited => Settlement::Credited,
                FileSettlement::Refused => Settlement::Refused,
            },
            note,
        },
        Step::Decided {
            id: txn_id,
            dispensed,
        } => Record::Decided {
            id: id(txn_id)?,
            dispensed: notes(dispensed)?,
        },
        Step::Replenished { notes: counts } => Record::Replenished {
            notes: notes(counts)?,
        },
        Step::Missing { notes: counts } => Record::Missing {
            notes: notes(counts)?,
        },
        Step::Emptied { content } => Record::Emptied {
            content: Money::from_minor(content),
        },
        Step::Closed {
            number,
            host_total,
            terminal_total,
        } => Record::Closed {
            number,
            host_total: Money::from_minor(host_total),
            terminal_total: Money::from_minor(terminal_total),
        },
    })
}

/// The cassettes of a journal's first line. All counts of later lines are in their order, so it must be the right one.
fn read_cassettes(currency: &str, cassettes: &[(i64, u32)]) -> Result<Cassettes, String> {
    let currency = Currency::from_code(currency).map_err(|error| error.to_string())?;
    let written: Vec<_> = cassettes
        .iter()
        .map(|&(minor, notes)| {
            let denomination =
                Amount::from_minor(minor).ok_or_else(|| format!("{minor} is no denomination"))?;
            Ok(Cassette { denomination, notes })
        })
        .collect::<Result<_, String>>()?;
    let cassettes = Cassettes::new(currency, written.clone()).map_err(|error| error.to_string())?;
    if !cassettes.iter().eq(&written) {
        return Err("the cassettes are not in the order of their denominations".to_owned());
    }
    Ok(cassettes)
}
