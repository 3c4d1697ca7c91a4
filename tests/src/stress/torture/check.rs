//! The verdict: what the bank file holds, beside what clients and terminals were told.
//!
//! The rows are read with SQL of its own and not through the bank's code, so that a mistake there is no excuse here.

use std::collections::HashMap;
use std::path::Path;

use atm_cli::connection::{Fate, Outcome};
use bank_core::bank_file::{self, Proof};
use bank_core::protocol;
use bank_core::{AccountId, Lsn, TerminalId, TxnId};
use rusqlite::{Connection, OpenFlags};

use super::ACCOUNTS;
use super::atm::Receipt;
use super::wire::{Asked, STATEMENT_LINES, Statement, Told, Want};

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

/// A row as one of its accounts sees it: lsn, kind, outcome, amount, balance, id.
type Line = (u64, i64, i64, i64, i64, Option<TxnId>);

/// The journal by account and transaction id.
pub(super) struct Host {
    outcomes: HashMap<(u64, TxnId), HostRow>,
    reversals: HashMap<(u64, TxnId), HostRow>,
    /// Each account's rows, the newest first.
    lines: HashMap<u64, Vec<Line>>,
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
                "SELECT lsn, kind, outcome, contra, coalesce(terminal, ''), amount, balance, account, txn_id,
                     contra_balance
                 FROM journal ORDER BY lsn DESC",
            )
            .expect("the journal has these columns");
        let mut found = select.query([]).expect("the journal can be read");
        let (mut outcomes, mut reversals, mut rows) = (HashMap::new(), HashMap::new(), 0);
        let mut lines: HashMap<u64, Vec<Line>> = HashMap::new();
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
            let bytes: Option<[u8; 16]> = columns.get(8).expect("16 bytes");
            let id = bytes.map(|bytes| TxnId::from_bytes(bytes).expect("a UUID of version 7"));
            let mut see = |account: u64, amount, balance| {
                let line = (row.lsn, row.kind, row.outcome, amount, balance, id);
                lines.entry(account).or_default().push(line);
            };
            see(read(7) as u64, row.amount, row.balance);
            if let Some(balance) = columns.get::<_, Option<i64>>(9).expect("an integer") {
                see(row.contra as u64, -row.amount, balance);
            }
            let Some(id) = id else { continue };
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
            lines,
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
            reversed,
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
        let fits = |row: Option<&HostRow>, lsn: &Lsn, code: i64, receipt: &protocol::Receipt| {
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
                Told::NotDone => outcome.is_none_or(|row| row.kind == FENCE),
                Told::Undone => reversal.is_some_and(|row| row.outcome == 0),
                Told::InDoubt => true,
            };
            ended |= !matches!(told, Told::InDoubt);
            if !holds {
                problem(format!(
                    "WAS TOLD {told:?}, BUT THE BANK HAS {outcome:?}, REVERSED BY {reversal:?}"
                ));
            }
        }
        if reversal.is_some() && !reversed {
            problem("was reversed, and nobody asked for that".to_owned());
        }
        if !ended {
            problem("nobody could tell what became of it".to_owned());
        }
        problems
    }

    /// Compares a receipt that a terminal has printed with the rows.
    pub(super) fn check_receipt(&self, terminal: TerminalId, receipt: &Receipt) -> Option<String> {
        let Receipt {
            id,
            approved,
            lsn,
            amount,
            balance,
        } = *receipt;
        // A receipt does not tell its account, but no two have one id.
        let row = (1..=ACCOUNTS).find_map(|account| self.outcomes.get(&(account, id)));
        let holds = row.is_some_and(|row| {
            (row.lsn, row.outcome == 0, row.amount, row.balance) == (lsn, approved, amount, balance)
                && row.terminal == terminal.as_str()
        });
        (!holds).then(|| format!("{terminal} PRINTED {receipt:?}, BUT THE BANK HAS {row:?}"))
    }

    /// Compares an account's statement, as the bank gave it when row `newest` was the account's newest, with the rows.
    pub(super) fn check_statement(&self, statement: &Statement) -> Option<String> {
        let Statement {
            account,
            newest,
            lines,
        } = statement;
        let told = lines.iter().map(|line| {
            let (amount, balance) = (line.amount.minor(), line.balance.minor());
            (
                line.lsn.get(),
                i64::from(line.kind),
                i64::from(line.outcome),
                amount,
                balance,
                line.txn_id,
            )
        });
        let rows = self.lines.get(&account.get()).into_iter().flatten();
        let rows = rows
            .filter(|row| row.0 <= newest.get())
            .take(STATEMENT_LINES.into());
        let differs = told.ne(rows.copied());
        differs.then(|| {
            format!("the statement of account {account} as of row {newest} is not what the journal has")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TestBank;
    use bank_core::Amount;

    /// A bank with one deposit and one reversed withdrawal, what was told of them, and the rows.
    fn history() -> (Host, Vec<Asked>, Statement) {
        let bank = TestBank::generate(ACCOUNTS);
        let server = bank.serve();
        let mut connection = server.login("1", "0001");
        let (account, terminal) = (AccountId::new(1).unwrap(), "TEST".parse().unwrap());
        let asked = |want, told: Told, reversed| Asked {
            account,
            id: TxnId::generate(),
            terminal,
            want,
            told: vec![told],
            reversed,
        };
        let amount = Amount::from_minor(500).unwrap();
        let mut deposit = asked(Want::Deposit(500), Told::InDoubt, false);
        deposit.told = vec![Told::Outcome(connection.deposit(deposit.id, amount).unwrap())];
        let mut withdrawal = asked(Want::Withdraw(500), Told::InDoubt, true);
        connection.withdraw(withdrawal.id, amount).unwrap();
        let fate = connection.reverse(account, withdrawal.id).unwrap();
        withdrawal.told = vec![Told::Fate(fate)];
        let mut given_up = asked(Want::Deposit(1), Told::InDoubt, false);
        given_up.told = vec![Told::Fate(connection.resolve(account, given_up.id).unwrap())];
        let never_asked = asked(Want::Deposit(7), Told::NotDone, false);
        let (balance, lines) = connection.statement(STATEMENT_LINES).unwrap();
        let statement = Statement {
            account,
            newest: balance.lsn,
            lines,
        };
        server.kill();
        let host = Host::read(&bank.path());
        (host, vec![deposit, withdrawal, given_up, never_asked], statement)
    }

    /// Each claim is made of a true history, and broken in one place.
    #[test]
    fn what_is_true_passes_and_what_is_not_is_found() {
        let (host, asked, statement) = history();
        assert!(host.problems().is_empty());
        let holds = |asked: &Asked| host.check(asked).is_empty();
        assert!(asked.iter().all(holds));
        assert_eq!(host.check_statement(&statement), None);
        let [deposit, withdrawal, given_up, _] = &asked[..] else {
            panic!("four were asked for");
        };
        let broken = |asked: &Asked, change: &dyn Fn(&mut Asked)| {
            let mut asked = asked.clone();
            change(&mut asked);
            assert!(!holds(&asked), "{asked:?}");
        };
        broken(deposit, &|asked| asked.id = TxnId::generate());
        broken(deposit, &|asked| asked.want = Want::Deposit(501));
        broken(deposit, &|asked| asked.want = Want::Withdraw(500));
        broken(deposit, &|asked| asked.terminal = "OTHER".parse().unwrap());
        broken(deposit, &|asked| asked.told = vec![Told::NotDone]);
        broken(deposit, &|asked| asked.told = vec![Told::Undone]);
        broken(deposit, &|asked| asked.told = vec![Told::InDoubt]);
        broken(deposit, &|asked| asked.told.push(Told::Fate(Fate::Never)));
        broken(deposit, &|asked| {
            if let Told::Outcome(Outcome::Approved(_, receipt)) = &mut asked.told[0] {
                receipt.balance += 1;
            }
        });
        broken(deposit, &|asked| {
            if let Told::Outcome(Outcome::Approved(lsn, _)) = &mut asked.told[0] {
                *lsn = lsn.next();
            }
        });
        broken(withdrawal, &|asked| asked.reversed = false);
        broken(withdrawal, &|asked| asked.told = vec![Told::Fate(Fate::Never)]);
        broken(given_up, &|asked| asked.told = vec![Told::Undone]);
        let mut missing = statement.clone();
        missing.lines.remove(1);
        assert!(host.check_statement(&missing).is_some());
        let mut changed = statement;
        changed.lines[0].txn_id = None;
        assert!(host.check_statement(&changed).is_some());
    }

    #[test]
    fn a_receipt_that_the_bank_does_not_have_is_found() {
        let (host, asked, _) = history();
        let Told::Outcome(Outcome::Approved(lsn, told)) = &asked[0].told[0] else {
            panic!("the deposit was approved");
        };
        let printed = Receipt {
            id: asked[0].id,
            approved: true,
            lsn: lsn.get(),
            amount: told.amount,
            balance: told.balance,
        };
        let terminal = asked[0].terminal;
        assert_eq!(host.check_receipt(terminal, &printed), None);
        for wrong in [
            Receipt {
                approved: false,
                ..printed.clone()
            },
            Receipt {
                amount: 1,
                ..printed.clone()
            },
            Receipt {
                lsn: 1,
                ..printed.clone()
            },
            Receipt {
                id: TxnId::generate(),
                ..printed.clone()
            },
        ] {
            assert!(host.check_receipt(terminal, &wrong).is_some(), "{wrong:?}");
        }
    }
}
