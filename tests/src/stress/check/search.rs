//! Small histories, decided by search: is there an order of the calls, in which each takes effect at one instant between
//! being asked and being answered, and every answer is what the bank would say in that order?
//!
//! The search is stateright's [`LinearizabilityTester`], which sees calls, answers and their order in time, and no Lsn. A
//! call whose answer the client lost is given to it as one that was never answered: it may take effect at any time after
//! it was asked, or never.
//!
//! Twice: each account by itself, and then all accounts as one object, if nothing was wrong with one. Linearizability is local, which means that a
//! history of several objects is linearizable if each object's part is, but that holds for calls on one object. A transfer
//! is a call on two. In an account's own history it is a debit with its answer for the payer and, if it was approved,
//! a credit of which nobody was told for the payee; that names the account whose answers contradict each other, but would
//! let a transfer pass that reached its payee earlier or later than it left its payer. All accounts as one object would
//! not. That they are linearizable implies the same of each; but what is wrong with one is found sooner and read
//! more easily in its own history.
//!
//! The search tries orders one after the other and may need more of them than there is time for; it then stops, and
//! says so.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

use super::history::{Answer, Ask, Books, Call};

/// Calls that a search tries to put next before it gives up: a second or two.
const MOST_STEPS: u64 = 200_000;

/// What a search has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// An order that explains every answer.
    Order,
    /// That there is none.
    NoOrder,
    /// Nothing in the steps that it had.
    Nothing,
}

/// Whether an account's part of a history is linearizable.
pub(super) fn of_account(opening: &Books, account: u64, calls: &[Call]) -> Found {
    let balance = opening.balance(account);
    let mut events = Vec::new();
    for call in calls {
        if call.sent.account == account {
            events.push((call, Step::Asks(account, call.sent.ask), Some(call.answer)));
        }
        let Some((_, amount)) = call.paid().filter(|(payee, _)| *payee == account) else {
            continue;
        };
        events.push((call, Step::Receives(account, amount), None));
    }
    search(Books(BTreeMap::from([(account, balance)])), &events)
}

/// Whether a history is linearizable with all accounts as one object.
pub(super) fn of_all(opening: &Books, calls: &[Call]) -> Found {
    let events: Vec<_> = calls
        .iter()
        .map(|call| {
            (
                call,
                Step::Asks(call.sent.account, call.sent.ask),
                Some(call.answer),
            )
        })
        .collect();
    search(opening.clone(), &events)
}

/// What a call does to the accounts that are looked at.
#[derive(Clone, Copy, Debug)]
enum Step {
    Asks(u64, Ask),
    Receives(u64, i64),
}

/// The bank as the search tries it.
#[derive(Clone)]
struct Trial {
    books: Books,
    /// Shared by all that descend from one search.
    steps_left: Rc<Cell<u64>>,
}

impl SequentialSpec for Trial {
    type Op = Step;
    type Ret = Option<Answer>;

    fn invoke(&mut self, step: &Step) -> Option<Answer> {
        match *step {
            Step::Asks(account, ask) => Some(self.books.ask(account, ask)),
            Step::Receives(account, amount) => {
                self.books.add(account, amount);
                None
            }
        }
    }

    fn is_valid_step(&mut self, step: &Step, told: &Option<Answer>) -> bool {
        let left = self.steps_left.get();
        self.steps_left.set(left.saturating_sub(1));
        left > 0 && self.invoke(step) == *told
    }
}

fn search(books: Books, events: &[(&Call, Step, Option<Answer>)]) -> Found {
    let steps_left = Rc::new(Cell::new(MOST_STEPS));
    let mut tester = LinearizabilityTester::new(Trial {
        books,
        steps_left: Rc::clone(&steps_left),
    });
    // The tester wants threads, each with one call at a time. Only the order in time matters, so a call is given to
    // any thread that is free; one that is never answered is never done with.
    let mut times: Vec<(u64, bool, usize)> = Vec::new();
    for (n, (call, ..)) in events.iter().enumerate() {
        times.push((call.sent.asked, false, n));
        if !call.in_doubt {
            times.push((call.answered, true, n));
        }
    }
    // At one and the same time asking comes first: such calls overlap.
    times.sort_unstable();
    let mut free: Vec<usize> = Vec::new();
    let mut threads = 0;
    let mut thread_of = vec![0; events.len()];
    for (_, answered, n) in times {
        let (_, step, told) = events[n];
        let accepted = if answered {
            free.push(thread_of[n]);
            tester.on_return(thread_of[n], told)
        } else {
            thread_of[n] = free.pop().unwrap_or_else(|| {
                threads += 1;
                threads
            });
            tester.on_invoke(thread_of[n], step)
        };
        accepted.expect("a thread has one call at a time");
    }
    match (tester.is_consistent(), steps_left.get()) {
        (true, _) => Found::Order,
        (false, 0) => Found::Nothing,
        (false, _) => Found::NoOrder,
    }
}
