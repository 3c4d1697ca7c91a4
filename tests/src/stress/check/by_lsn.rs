//! Large histories, decided exactly by Lsn order, in the time that sorting takes.
//!
//! Every answer names a journal row: a transaction's its own, a balance's the newest row of its account. What a bank
//! promises with that is more than linearizability, for the order in which its calls take effect is told: that of the
//! rows. So there is nothing to be searched. Three things are looked at:
//!
//! 1. Replayed in the order of their rows, every transaction is answered as the model of the bank answers it, and no two
//!    have one row.
//! 2. Every balance is that of the model after the row that it names, which is a row of its account.
//! 3. That order is also one in time. Transactions have their places. A balance has a choice: it may stand
//!    anywhere from the row that it names up to the next row of its account. Taken as early as what had been
//!    answered before it was asked allows, it must still stand before that next row; and a transaction must stand after
//!    all that was answered before it was asked.
//!
//! If this holds, the order is a witness: every call stands in it, no answer contradicts it, and no call stands before one that was
//! answered before it was asked; balances between the same two rows stand in the order in which they were asked. If it does not hold there is no
//! such order with these Lsns. The first two are plain; for the third, taking every balance as early as possible leaves
//! the most room to all others, so if one has no place then, it never has one. The decision is therefore complete for
//! answers together with their Lsns. All accounts are one object here, and a transfer one call.
//!
//! What was asked and never answered must have been settled before: the clients ask again under the same id until they
//! are told.

use std::collections::BTreeMap;

use super::history::{Answer, Ask, Books, Call};
use super::snapshots::Snapshot;

/// What all accounts were when a history began, and the newest row at that time.
#[derive(Clone, Debug, Default)]
pub(super) struct Opening {
    pub(super) books: Books,
    /// Of each account.
    pub(super) rows: BTreeMap<u64, u64>,
}

impl Opening {
    /// Takes note of a balance. Of two the later one counts.
    pub(super) fn learn(&mut self, call: &Call) {
        if let Answer::Balance(balance) = call.answer {
            self.books.0.insert(call.sent.account, balance);
            self.rows.insert(call.sent.account, call.lsn);
        }
    }

    /// Of accounts 1 to `accounts` alone.
    pub(super) fn first(&self, accounts: u64) -> Opening {
        let mut opening = self.clone();
        opening.books.0.retain(|account, _| *account <= accounts);
        opening.rows.retain(|account, _| *account <= accounts);
        opening
    }

    fn newest(&self) -> u64 {
        self.rows.values().copied().max().unwrap_or(0)
    }
}

/// An account's rows with the balance after each.
type Versions = BTreeMap<u64, Vec<(u64, i64)>>;

/// Gives every contradiction in a history, in words; none if it is linearizable, and if the snapshots are what the
/// history makes of the balances.
pub(super) fn contradictions(opening: &Opening, calls: &[Call], snapshots: &[Snapshot]) -> Vec<String> {
    let mut found = Vec::new();
    let versions = replay(opening, calls, snapshots, &mut found);
    in_time(opening, calls, &versions, &mut found);
    found
}

/// Replays the transactions in the order of their rows.
fn replay(opening: &Opening, calls: &[Call], snapshots: &[Snapshot], found: &mut Vec<String>) -> Versions {
    let mut transactions: Vec<&Call> = calls
        .iter()
        .filter(|call| call.sent.ask != Ask::Balance)
        .collect();
    transactions.sort_unstable_by_key(|call| call.lsn);
    let mut snapshots: Vec<_> = snapshots.iter().collect();
    snapshots.sort_unstable_by_key(|snapshot| snapshot.lsn);
    let mut snapshots = snapshots.into_iter().peekable();
    let mut compare_until = |lsn: u64, books: &Books, found: &mut Vec<String>| {
        while let Some(snapshot) = snapshots.next_if(|snapshot| snapshot.lsn < lsn) {
            if let Some((account, balance)) = differing(&snapshot.books, books) {
                found.push(format!(
                    "the snapshot of the bank file as of row {} has {} in account {account}; the answers make it {balance}",
                    snapshot.lsn,
                    snapshot.books.balance(account),
                ));
            }
        }
    };
    let mut books = opening.books.clone();
    let mut versions: Versions = books
        .0
        .iter()
        .map(|(&account, &balance)| {
            (
                account,
                vec![(opening.rows.get(&account).copied().unwrap_or(0), balance)],
            )
        })
        .collect();
    let mut last: Option<&Call> = None;
    for call in transactions {
        if let Some(twin) = last.filter(|last| last.lsn == call.lsn) {
            found.push(format!("two transactions have one row:\n  {twin}\n  {call}"));
        }
        last = Some(call);
        compare_until(call.lsn, &books, found);
        let account = call.sent.account;
        let before = books.balance(account);
        let expected = books.ask(account, call.sent.ask);
        if expected != call.answer {
            found.push(format!(
                "by the rows before it the account had {before}, so the answer should have been \"{expected}\":\n  {call}"
            ));
            // One contradiction is to be told once: from here on the bank is believed.
            believe(&mut books, call, expected);
        }
        let payee = call.paid().map(|(payee, _)| payee);
        for account in [account].into_iter().chain(payee) {
            if let Some(versions) = versions.get_mut(&account) {
                versions.push((call.lsn, books.balance(account)));
            }
        }
    }
    compare_until(u64::MAX, &books, found);
    versions
}

/// Makes of the books what an unexpected answer says.
fn believe(books: &mut Books, call: &Call, expected: Answer) {
    let paid = match (call.sent.ask, expected) {
        (Ask::Transfer { to, amount }, Answer::Approved { .. }) => Some((to, amount)),
        _ => None,
    };
    if let Some((payee, amount)) = paid {
        books.add(payee, -amount);
    }
    if let Some((payee, amount)) = call.paid() {
        books.add(payee, amount);
    }
    if let Answer::Approved { balance, .. } | Answer::Declined { balance, .. } = call.answer {
        books.0.insert(call.sent.account, balance);
    }
}

/// An account in which the two differ, with what the second has.
fn differing(one: &Books, other: &Books) -> Option<(u64, i64)> {
    let balances = other.0.iter().map(|(&account, &balance)| (account, balance));
    balances
        .into_iter()
        .find(|&(account, balance)| one.balance(account) != balance)
}

/// Gives every call its place among the rows, in the order in which they were asked.
fn in_time(opening: &Opening, calls: &[Call], versions: &Versions, found: &mut Vec<String>) {
    let mut by_asked: Vec<usize> = (0..calls.len()).collect();
    by_asked.sort_unstable_by_key(|&n| calls[n].sent.asked);
    let mut by_answered: Vec<usize> = (0..calls.len()).collect();
    by_answered.sort_unstable_by_key(|&n| calls[n].answered);
    let mut by_answered = by_answered.into_iter().peekable();
    let mut places = vec![0; calls.len()];
    // The furthest place of the calls that had been answered, and which call that is.
    let mut furthest: (u64, Option<usize>) = (opening.newest(), None);
    for n in by_asked {
        let call = &calls[n];
        // Whatever was answered before was also asked before, so it has its place already.
        while let Some(done) = by_answered.next_if(|&done| calls[done].answered < call.sent.asked) {
            if places[done] > furthest.0 {
                furthest = (places[done], Some(done));
            }
        }
        let before = || match furthest.1 {
            Some(done) => format!(
                "and this had been answered before that was asked:\n  {}",
                calls[done]
            ),
            None => format!("and row {} was there when all began", furthest.0),
        };
        places[n] = call.lsn;
        if call.sent.ask != Ask::Balance {
            if call.lsn <= furthest.0 {
                found.push(format!("its row is too old:\n  {call}\n{}", before()));
            }
            continue;
        }
        let versions = versions.get(&call.sent.account).map_or(&[][..], Vec::as_slice);
        let next = versions.partition_point(|&(lsn, _)| lsn <= call.lsn);
        match versions[..next].last() {
            Some(&(lsn, balance)) if lsn == call.lsn => {
                if call.answer != Answer::Balance(balance) {
                    found.push(format!("after its row the account had {balance}:\n  {call}"));
                }
            }
            _ => found.push(format!("its row is none of that account's:\n  {call}")),
        }
        let place = furthest.0.max(call.lsn);
        match versions.get(next) {
            Some(&(newer, balance)) if newer <= place => found.push(format!(
                "the balance is out of date:\n  {call}\nrow {newer} had made it {balance}, {}",
                before()
            )),
            _ => places[n] = place,
        }
    }
}
