//! A bank and its clients on a made-up clock, so that a race is not hoped for but made: who goes on next is chosen by a
//! seed. The bank can be told to be wrong in one way.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::by_lsn::{Opening, contradictions};
use super::history::{Answer, Ask, Books, Call, Sent};
use super::search::{self, Found};
use super::snapshots::{Snapshot, wrong_sum};

const ACCOUNTS: u64 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// A transaction reads the balance at one time, and writes what it has made of it at another.
    LostUpdate,
    /// Balances are read from a copy that is brought up to date now and then.
    StaleBalance,
    /// The same, with the newest row in the answer.
    StaleBalanceFreshRow,
    /// The answer goes out before what it tells of is done.
    EarlyAnswer,
    /// The payee is paid some time after the payer has paid.
    TornTransfer,
    /// A transaction is done again when it is asked for again.
    DoneTwice,
    /// A withdrawal is approved whatever there is.
    NoLimit,
}

const FAULTS: [Fault; 7] = [
    Fault::LostUpdate,
    Fault::StaleBalance,
    Fault::StaleBalanceFreshRow,
    Fault::EarlyAnswer,
    Fault::TornTransfer,
    Fault::DoneTwice,
    Fault::NoLimit,
];

/// A call between being asked and being answered.
enum Stage {
    Asked,
    /// Half done: the books as they were found.
    Found(Books),
    Done(u64, Answer),
}

struct Simulation {
    fault: Fault,
    random: StdRng,
    now: u64,
    books: Books,
    /// Each account's newest row.
    rows: BTreeMap<u64, u64>,
    last_row: u64,
    cash: i64,
    /// The books and rows as they were some time ago.
    copy: (Books, BTreeMap<u64, u64>),
    /// What is still to be done of calls that have their answer.
    owed: Vec<(u64, i64)>,
    /// Calls whose clients have hung up.
    lost: Vec<(Sent, Stage)>,
    calls: Vec<Call>,
    snapshots: Vec<Snapshot>,
}

fn opening() -> Opening {
    Opening {
        books: Books((1..=ACCOUNTS).map(|account| (account, 1000)).collect()),
        rows: (1..=ACCOUNTS).map(|account| (account, account)).collect(),
    }
}

impl Simulation {
    /// So many clients make so many calls each; then all balances are read.
    fn run(fault: Fault, seed: u64, clients: usize, calls: usize) -> Simulation {
        let Opening { books, rows } = opening();
        let mut bank = Simulation {
            fault,
            random: StdRng::seed_from_u64(seed),
            now: 0,
            copy: (books.clone(), rows.clone()),
            books,
            rows,
            last_row: ACCOUNTS,
            cash: 0,
            owed: Vec::new(),
            lost: Vec::new(),
            calls: Vec::new(),
            snapshots: Vec::new(),
        };
        let mut open: Vec<Option<(Sent, Stage)>> = (0..clients).map(|_| None).collect();
        let mut left = vec![calls; clients];
        while left.iter().any(|left| *left > 0) || open.iter().any(Option::is_some) {
            bank.now += 1;
            let client = bank.random.random_range(0..clients);
            open[client] = match open[client].take() {
                None if left[client] == 0 => None,
                None => {
                    left[client] -= 1;
                    Some((bank.ask(client), Stage::Asked))
                }
                Some(call) if bank.random.random_bool(0.02) => {
                    bank.lost.push(call);
                    None
                }
                Some((sent, stage)) => bank.go_on(sent, stage, false).map(|stage| (sent, stage)),
            };
            bank.meanwhile();
        }
        for (sent, mut stage) in std::mem::take(&mut bank.lost) {
            bank.now += 1;
            if bank.fault == Fault::DoneTwice {
                stage = Stage::Asked;
            }
            while let Some(next) = bank.go_on(sent, stage, true) {
                stage = next;
            }
        }
        bank.pay();
        for account in 1..=ACCOUNTS {
            let sent = bank.sent(clients, account, Ask::Balance);
            let (row, balance) = (bank.rows[&account], bank.books.balance(account));
            bank.now += 1;
            bank.calls
                .push(sent.answered(bank.now, row, Answer::Balance(balance)));
        }
        bank
    }

    fn ask(&mut self, client: usize) -> Sent {
        let amount = self.random.random_range(1..700);
        let ask = match self.random.random_range(0..4) {
            0 => Ask::Balance,
            1 => Ask::Deposit(amount),
            2 => Ask::Withdraw(amount),
            _ => Ask::Transfer {
                to: self.random.random_range(1..=ACCOUNTS),
                amount,
            },
        };
        self.sent(client, 1 + client as u64 % ACCOUNTS, ask)
    }

    fn sent(&mut self, client: usize, account: u64, ask: Ask) -> Sent {
        self.now += 1;
        Sent {
            client,
            account,
            ask,
            asked: self.now,
        }
    }

    /// Brings a call further; `None` when it has its answer.
    fn go_on(&mut self, sent: Sent, stage: Stage, in_doubt: bool) -> Option<Stage> {
        match stage {
            Stage::Asked if self.fault == Fault::LostUpdate => Some(Stage::Found(self.books.clone())),
            Stage::Asked => Some(self.carry_out(sent, self.books.clone())),
            Stage::Found(found) => Some(self.carry_out(sent, found)),
            Stage::Done(row, answer) => {
                let call = sent.answered(self.now, row, answer);
                if sent.ask != Ask::Balance || !in_doubt {
                    self.calls.push(Call { in_doubt, ..call });
                }
                None
            }
        }
    }

    /// Decides by the books as they were found, and writes what that makes of the accounts.
    fn carry_out(&mut self, sent: Sent, mut found: Books) -> Stage {
        let Sent { account, ask, .. } = sent;
        if ask == Ask::Balance {
            let (copy, copied_rows) = &self.copy;
            let (books, rows) = match self.fault {
                Fault::StaleBalance => (copy, copied_rows),
                Fault::StaleBalanceFreshRow => (copy, &self.rows),
                _ => (&self.books, &self.rows),
            };
            return Stage::Done(rows[&account], Answer::Balance(books.balance(account)));
        }
        self.last_row += 1;
        let mut answer = found.ask(account, ask);
        if let Answer::Declined { amount, balance, .. } = answer
            && self.fault == Fault::NoLimit
            && matches!(ask, Ask::Withdraw(_))
        {
            found.add(account, amount);
            let balance = balance + amount;
            answer = Answer::Approved { amount, balance };
        }
        self.rows.insert(account, self.last_row);
        if let Answer::Approved { amount, .. } = answer {
            let payee = match ask {
                Ask::Transfer { to, .. } => Some(to),
                _ => {
                    self.cash += amount;
                    None
                }
            };
            if let Some(payee) = payee {
                self.rows.insert(payee, self.last_row);
            }
            for (account, amount) in [(account, amount)]
                .into_iter()
                .chain(payee.map(|payee| (payee, -amount)))
            {
                let late = self.fault == Fault::EarlyAnswer
                    || (self.fault == Fault::TornTransfer && amount > 0 && payee.is_some());
                if late {
                    self.owed.push((account, amount));
                } else {
                    self.books.0.insert(account, found.balance(account));
                }
            }
        }
        Stage::Done(self.last_row, answer)
    }

    /// What goes on beside the clients.
    fn meanwhile(&mut self) {
        if self.random.random_bool(0.2) {
            self.pay();
            self.copy = (self.books.clone(), self.rows.clone());
        }
        if self.random.random_bool(0.1) {
            self.snapshots.push(Snapshot {
                lsn: self.last_row,
                books: self.books.clone(),
                cash: self.cash,
            });
        }
        if let Some((sent, stage)) = self.lost.pop() {
            let stage = match (stage, self.random.random_bool(0.1)) {
                (Stage::Asked, true) => self.carry_out(sent, self.books.clone()),
                (stage, _) => stage,
            };
            self.lost.push((sent, stage));
        }
    }

    fn pay(&mut self) {
        for (account, amount) in self.owed.drain(..) {
            self.books.add(account, amount);
        }
    }

    fn contradictions(&self) -> Vec<String> {
        contradictions(&opening(), &self.calls, &self.snapshots)
    }

    fn searched(&self) -> Vec<Found> {
        let books = opening().books;
        let accounts = (1..=ACCOUNTS).map(|account| search::of_account(&books, account, &self.calls));
        accounts.chain([search::of_all(&books, &self.calls)]).collect()
    }

    fn wrong_sums(&self) -> usize {
        let total = opening().books.total();
        let wrong = |snapshot| wrong_sum(snapshot, total, true).is_some();
        self.snapshots.iter().filter(|snapshot| wrong(snapshot)).count()
    }
}

#[test]
fn a_bank_that_does_one_thing_after_the_other_is_believed() {
    for seed in 0..200 {
        let bank = Simulation::run(Fault::None, seed, 4, 5);
        assert_eq!(bank.contradictions(), Vec::<String>::new(), "seed {seed}");
        assert_eq!(
            bank.searched(),
            [Found::Order; 3],
            "seed {seed}: {:#?}",
            bank.calls
        );
        assert_eq!(bank.wrong_sums(), 0, "seed {seed}");
    }
}

/// The two ways to decide know nothing of each other. What an order of rows explains, the search must be able to explain,
/// too; the other way round it need not, since rows tell more than answers.
#[test]
fn every_broken_bank_is_found_by_search_and_by_lsn() {
    for fault in FAULTS {
        let (mut by_search, mut by_lsn, mut by_sum) = (0, 0, 0);
        for seed in 0..40 {
            let bank = Simulation::run(fault, seed, 4, 5);
            let refused = bank.searched().contains(&Found::NoOrder);
            let contradicts = !contradictions(&opening(), &bank.calls, &[]).is_empty();
            assert!(
                contradicts || !refused,
                "{fault:?}, seed {seed}: only the search found it: {:#?}",
                bank.calls
            );
            by_search += usize::from(refused);
            by_lsn += usize::from(contradicts);
            by_sum += usize::from(bank.wrong_sums() > 0);
        }
        eprintln!(
            "{fault:?}: of 40 histories {by_search} refused by search, {by_lsn} by Lsn, {by_sum} by a sum"
        );
        assert!(
            by_search > 0 && by_lsn >= by_search,
            "{fault:?}: {by_search}, {by_lsn}"
        );
        let moves_too_little_or_too_much = matches!(
            fault,
            Fault::LostUpdate | Fault::EarlyAnswer | Fault::TornTransfer
        );
        assert_eq!(by_sum > 0, moves_too_little_or_too_much, "{fault:?}: {by_sum}");
    }
}

/// A true history, and the same with one thing changed.
#[test]
fn one_changed_answer_is_enough() {
    let bank = Simulation::run(Fault::None, 7, 8, 40);
    assert!(bank.contradictions().is_empty());
    let end = bank.now + 1;
    let newest_row = |account| bank.rows[&account];
    let refused = |change: &dyn Fn(&mut Vec<Call>)| {
        let mut calls = bank.calls.clone();
        change(&mut calls);
        let refused = !contradictions(&opening(), &calls, &[]).is_empty();
        assert!(refused, "{change:p}");
    };
    for (n, call) in bank.calls.iter().enumerate() {
        for by in [-1, 1] {
            refused(&|calls| match &mut calls[n].answer {
                Answer::Balance(balance)
                | Answer::Approved { balance, .. }
                | Answer::Declined { balance, .. } => *balance += by,
            });
        }
        refused(&|calls| calls[n].lsn += 1_000_000);
        let is_balance = call.sent.ask == Ask::Balance;
        if !is_balance {
            refused(&|calls| calls[n].lsn = 1);
        }
        if matches!(call.answer, Answer::Approved { .. }) {
            refused(&|calls| {
                calls.remove(n);
            });
        }
        // As if it had been asked only after all others were answered.
        if !is_balance || call.lsn < newest_row(call.sent.account) {
            refused(&|calls| {
                calls[n].sent.asked = end;
                calls[n].answered = end;
            });
        }
        // As if it had been answered before anything was asked, which may be true of the very first.
        if call.lsn > ACCOUNTS + u64::from(!is_balance) {
            refused(&|calls| {
                calls[n].sent.asked = 0;
                calls[n].answered = 0;
            });
        }
    }
    let mut moves: Vec<usize> = (0..bank.calls.len()).collect();
    moves.retain(|&n| matches!(bank.calls[n].answer, Answer::Approved { .. }));
    moves.sort_by_key(|&n| (bank.calls[n].sent.account, bank.calls[n].lsn));
    for pair in moves.windows(2) {
        let (one, other) = (pair[0], pair[1]);
        refused(&|calls| {
            (calls[one].lsn, calls[other].lsn) = (calls[other].lsn, calls[one].lsn);
        });
    }
}

/// A search that has too much to try says so, and neither believes nor accuses.
#[test]
fn a_search_without_end_is_given_up() {
    let sent = |account, ask| Sent {
        client: 1,
        account,
        ask,
        asked: 1,
    };
    let books = Books((1..=11).map(|account| (account, 0)).collect());
    let mut calls: Vec<Call> = (1..=10)
        .map(|account| {
            let (amount, balance) = (5, 5);
            sent(account, Ask::Deposit(5)).answered(9, account, Answer::Approved { amount, balance })
        })
        .collect();
    assert_eq!(search::of_all(&books, &calls), Found::Order);
    calls.push(sent(11, Ask::Balance).answered(9, 0, Answer::Balance(1)));
    assert_eq!(search::of_account(&books, 11, &calls), Found::NoOrder);
    assert_eq!(search::of_all(&books, &calls), Found::Nothing);
}
