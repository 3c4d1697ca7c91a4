//! The verdict: what the bank file holds, beside what clients and terminals were told.
//!
//! The rows are read with SQL of its own and not through the bank's code, so that a mistake there is no excuse here.

use std::collections::HashMap;
use std::path::Path;

use atm_cli::connection::{Fate, Outcome, StatementLine};
use bank_core::bank_file::{self, Proof};
use bank_core::protocol::Receipt;
use bank_core::{AccountId, Lsn, TerminalId, TxnId};
use rusqlite::{Connection, OpenFlags};

use super::wire::{Asked, Told, Want};

const DEPOSIT: i64 = 1;
const WITHDRAWAL: i64 = 2;
const TRANSFER: i64 = 3;
const REVERSAL: i64 = 5;
const FENCE: i64 = 7;
const GIVEN_UP: i64 = 11;

/// A row, as far as it matters here.
#[derive(Clone, Debug)]
struct HostRow {
    lsn: u64,
    kind: i64,
    outcome: i64,
    contra: i64,
    terminal: String,
    amount: i64,
    balance: i64,
}

/// The journal by account and transaction id.
pub(super) struct Host {
    outcomes: HashMap<(u64, TxnId), HostRow>,
    reversals: HashMap<(u64, TxnId), HostRow>,
    proof: Proof,
    /// What is wrong with the journal itself.
    problems: Vec<String>,
    /// How many rows there are.
    pub(super) rows: u64,
}

impl Host {
    /// Reads a bank file that nobody serves.
    pub(super) fn read(path: &Path) -> Host {
        let proof = bank_file::verify(path).expect("the bank file can be read");
        let mut problems = proof.problems.clone();
        // A killed server leaves a log, which SQLite must be able to write to even for reading it.
        let file = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
            .expect("the bank file can be opened");
        let mut select = file
            .prepare(
                "SELECT lsn, kind, outcome, contra, coalesce(terminal, ''), amount, balance, account, txn_id
                 FROM journal ORDER BY lsn",
            )
            .expect("the journal has these columns");
        let mut found = select.query([]).expect("the journal can be read");
        let (mut outcomes, mut reversals, mut rows) = (HashMap::new(), HashMap::new(), 0);
        while let Some(columns) = found.next().expect("the journal can be read") {
            let read = |index| columns.get::<_, i64>(index).expect("an integer");
            let row = HostRow {
                lsn: read(0) as u64,
                kind: read(1),
                outcome: read(2),
                contra: read(3),
                terminal: columns.get(4).expect("a text"),
                amount: read(5),
                balance: read(6),
            };
            rows += 1;
            let Some(bytes) = columns.get::<_, Option<[u8; 16]>>(8).expect("16 bytes") else {
                continue;
            };
            let id = TxnId::from_bytes(bytes).expect("a UUID of version 7");
            let rows = if row.kind == REVERSAL {
                &mut reversals
            } else {
                &mut outcomes
            };
            let lsn = row.lsn;
            if let Some(first) = rows.insert((read(7) as u64, id), row) {
                problems.push(format!("APPLIED TWICE: {id} in rows {} and {lsn}", first.lsn));
            }
        }
        Host {
            outcomes,
            reversals,
            proof,
            problems,
            rows,
        }
    }

    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// How many fences, reversals and advices there are.
    pub(super) fn settlements(&self) -> (u64, u64, u64) {
        let of = |kind| self.outcomes.values().filter(|row| row.kind == kind).count() as u64;
        (of(FENCE), self.reversals.len() as u64, of(6))
    }

    /// What came into a terminal less what went out, in minor units.
    pub(super) fn cash(&self, terminal: TerminalId) -> i128 {
        let totals = &self.proof.terminal_cash;
        totals
            .iter()
            .filter(|((id, _), _)| *id == terminal)
            .map(|(_, total)| total)
            .sum()
    }

    /// What a transaction has moved on its account, reversed or not.
    pub(super) fn in_force(&self, account: AccountId, id: TxnId) -> i64 {
        let key = (account.get(), id);
        let approved = |row: Option<&HostRow>| row.filter(|row| row.outcome == 0).map_or(0, |row| row.amount);
        approved(self.outcomes.get(&key)) + approved(self.reversals.get(&key))
    }

    /// Compares all that a client was told with the rows.
    pub(super) fn check(&self, asked: &Asked) -> Vec<String> {
        let Asked {
            account,
            id,
            terminal,
            want,
            told,
        } = asked;
        let mut problems = Vec::new();
        let mut problem = |what: String| problems.push(format!("account {account}, {id}, {want:?}: {what}"));
        let key = (account.get(), *id);
        let (outcome, reversal) = (self.outcomes.get(&key), self.reversals.get(&key));
        if let Some(row) = outcome {
            let (kind, amount, contra) = match *want {
                Want::Deposit(amount) => (DEPOSIT, amount, -1),
                Want::Withdraw(amount) => (WITHDRAWAL, -amount, -1),
                Want::Transfer(amount, to) => (TRANSFER, -amount, to as i64),
            };
            let is_fence = row.kind == FENCE && row.outcome == GIVEN_UP;
            let same = (row.kind, row.amount, row.contra) == (kind, amount, contra);
            if row.terminal != terminal.as_str() || !(same || is_fence) {
                problem(format!("the bank has done something else: {row:?}"));
            }
        }
        let fits = |row: Option<&HostRow>, lsn: &Lsn, code: i64, receipt: &Receipt| {
            row.is_some_and(|row| {
                row.lsn == lsn.get()
                    && row.outcome == code
                    && row.amount == receipt.amount
                    && row.balance == receipt.balance
                    && receipt.txn_id == id.to_bytes()
            })
        };
        let mut ended = false;
        for told in told {
            let holds = match told {
                Told::Outcome(Outcome::Approved(lsn, receipt)) | Told::Fate(Fate::Applied(lsn, receipt)) => {
                    fits(outcome, lsn, 0, receipt)
                }
                Told::Outcome(Outcome::Declined {
                    lsn, receipt, code, ..
                })
                | Told::Fate(Fate::Declined {
                    lsn, receipt, code, ..
                }) => fits(outcome, lsn, i64::from(*code), receipt),
                Told::Fate(Fate::Reversed(lsn, receipt)) => fits(reversal, lsn, 0, receipt),
                Told::Fate(Fate::Never) => outcome.is_some_and(|row| row.kind == FENCE),
                Told::NotDone => outcome.is_none_or(|row| row.outcome != 0) || reversal.is_some(),
                Told::InDoubt => true,
            };
            ended |= !matches!(told, Told::InDoubt);
            if !holds {
                problem(format!(
                    "WAS TOLD {told:?}, BUT THE BANK HAS {outcome:?}, REVERSED BY {reversal:?}"
                ));
            }
        }
        if !ended {
            problem("nobody could tell what became of it".to_owned());
        }
        problems
    }

    /// Compares an account's statement, as the bank gives it, with the rows.
    pub(super) fn check_statement(&self, account: AccountId, lines: &[StatementLine]) -> Vec<String> {
        let differs = |line: &&StatementLine| {
            let Some(id) = line.txn_id else { return false };
            let key = (account.get(), id);
            let rows = [self.outcomes.get(&key), self.reversals.get(&key)];
            // Of what another account has paid, the payer has the row.
            let mine = rows.into_iter().flatten().find(|row| row.lsn == line.lsn.get());
            mine.is_some_and(|row| {
                (row.amount, row.balance, row.outcome)
                    != (line.amount.minor(), line.balance.minor(), i64::from(line.outcome))
            })
        };
        lines
            .iter()
            .filter(differs)
            .map(|line| format!("the statement of account {account} has {line:?}, and the journal has not"))
            .collect()
    }
}
