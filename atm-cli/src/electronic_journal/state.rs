//! What the records of a terminal's journal add up to: a pure function of the records, used live and in replay alike.

use std::collections::BTreeMap;

use bank_core::limits::MAX_NOTES_PER_DISPENSE;
use bank_core::{AccountId, Amount, Lsn, Money, TerminalId, TxnId};

use super::record::{Answer, Record, Settlement, What};
use crate::dispenser::{CassetteError, Cassettes, Notes};

/// A transaction that is not settled, with all that it takes to settle it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTransaction {
    /// Its id.
    pub id: TxnId,
    /// The customer's account.
    pub account: AccountId,
    /// What was asked for. Of an advice under an id of its own: what was asked for with the original.
    pub what: What,
    /// How much. Of an advice: how much is to be credited.
    pub amount: Amount,
    /// The notes that a withdrawal is paid with; otherwise of no cassette.
    pub notes: Notes,
    /// How far it has come.
    pub stage: Stage,
    /// The advice under another id that credits this transaction's money, unless it was in vain.
    pub credited_by: Option<TxnId>,
}

/// How far a transaction has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The bank is being asked; what it says is not known.
    Asked,
    /// The bank has answered.
    Answered {
        /// What it said.
        outcome: Answer,
        /// In which row of its journal.
        lsn: Lsn,
    },
    /// Notes are moving; after a power cut nobody knows how many have left.
    Dispensing {
        /// What was in the cassettes before.
        before: Notes,
    },
    /// The customer has all notes.
    Dispensed,
    /// A supervisor has found which notes have left.
    Decided {
        /// These.
        dispensed: Notes,
    },
    /// A deposit's money was given back.
    Returned,
    /// The bank is told to credit the amount.
    Advised {
        /// The transaction whose money it is; the same as the id if the advice is under the deposit's own.
        original: TxnId,
    },
}

impl Stage {
    const fn name(&self) -> &'static str {
        match self {
            Stage::Asked => "asked for",
            Stage::Answered {
                outcome: Answer::Approved,
                ..
            } => "approved",
            Stage::Answered { .. } => "declined",
            Stage::Dispensing { .. } => "being dispensed",
            Stage::Dispensed => "dispensed",
            Stage::Decided { .. } => "decided by a supervisor",
            Stage::Returned => "returned",
            Stage::Advised { .. } => "advised",
        }
    }
}

/// How many, and how much together. What was counted before a close and is taken back after it counts below zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: i64,
    /// How much; it stops at the largest sum that [`Money`] can hold.
    pub sum: Money,
}

impl Tally {
    fn add(&mut self, count: i64, sum: Money) {
        self.count += count;
        self.sum = Money::from_minor(self.sum.minor().saturating_add(sum.minor()));
    }
}

/// What the terminal has counted since the last close.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinceClose {
    /// Deposits kept less notes dispensed.
    pub net_cash: Money,
    /// Deposits whose money was taken and not given back.
    pub deposits: Tally,
    /// Withdrawals, by the notes that left, or that must be taken to have left.
    pub withdrawals: Tally,
    /// Transfers that were done.
    pub transfers: Tally,
}

/// A close of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// 1, 2, 3 …
    pub number: u32,
    /// The cash that came in less what went out, as the bank counted it.
    pub host_total: Money,
    /// The same as the terminal counted it.
    pub terminal_total: Money,
}

/// Why a record cannot follow the records before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Inconsistent {
    /// The first record is another, or a later one is the first again.
    #[error("a terminal journal is opened by its first record, and only by that")]
    Opening,
    /// The id is not above all before it.
    #[error("transaction {id} is not newer than {last}: make ids from the latest one on")]
    NotNewer {
        /// The id.
        id: TxnId,
        /// The greatest before it.
        last: TxnId,
    },
    /// Nothing is open under the id.
    #[error("nothing is open under {0}")]
    NotOpen(TxnId),
    /// The transaction has not come to this step, or is past it.
    #[error("\"{step}\" cannot follow for {id}, a {what:?} that is {stage}")]
    OutOfTurn {
        /// The transaction.
        id: TxnId,
        /// What it is.
        what: What,
        /// How far it has come.
        stage: &'static str,
        /// What was to follow.
        step: &'static str,
    },
    /// How many notes of an earlier dispense have left is not known.
    #[error("the dispense of {0} was cut short: a supervisor must decide first which notes have left")]
    Undecided(TxnId),
    /// A declined deposit's money is still to be given back.
    #[error("the money of deposit {0} is still to be given back: see to that first")]
    Unreturned(TxnId),
    /// The record says other than what is known.
    #[error("\"{step}\" says {said} where it must be {known}")]
    Contradiction {
        /// Which record.
        step: &'static str,
        /// What it says.
        said: String,
        /// What is known.
        known: String,
    },
    /// More money than can be counted.
    #[error("the terminal cannot count so much money")]
    TooMuch,
    /// The notes do not fit the cassettes.
    #[error(transparent)]
    Cassettes(#[from] CassetteError),
}

/// `Ok` if a record says what is known.
fn agree<T: PartialEq + std::fmt::Debug>(
    step: &'static str,
    said: &T,
    known: &T,
) -> Result<(), Inconsistent> {
    if said == known {
        return Ok(());
    }
    Err(Inconsistent::Contradiction {
        step,
        said: format!("{said:?}"),
        known: format!("{known:?}"),
    })
}

/// The state of a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TerminalState {
    terminal: TerminalId,
    cassettes: Cassettes,
    deposit_box: Money,
    open: BTreeMap<TxnId, OpenTransaction>,
    last_id: Option<TxnId>,
    net_cash: Money,
    since_close: SinceClose,
    last_close: Option<Close>,
}

impl TerminalState {
    /// The state after a journal's first record.
    ///
    /// # Errors
    /// [`Inconsistent::Opening`] unless it is [`Record::Opened`].
    pub fn begin(first: &Record) -> Result<TerminalState, Inconsistent> {
        let Record::Opened { terminal, cassettes } = first else {
            return Err(Inconsistent::Opening);
        };
        Ok(TerminalState {
            terminal: *terminal,
            cassettes: cassettes.clone(),
            deposit_box: Money::ZERO,
            open: BTreeMap::new(),
            last_id: None,
            net_cash: Money::ZERO,
            since_close: SinceClose::default(),
            last_close: None,
        })
    }

    /// Whose state it is.
    pub fn terminal(&self) -> TerminalId {
        self.terminal
    }

    /// The currency, and the notes on hand. Those of a dispense that was cut short are taken to have left, all of
    /// them, until a supervisor decides.
    pub fn cassettes(&self) -> &Cassettes {
        &self.cassettes
    }

    /// What is in the deposit box.
    pub fn deposit_box(&self) -> Money {
        self.deposit_box
    }

    /// What is not settled, the oldest id first.
    pub fn open(&self) -> &BTreeMap<TxnId, OpenTransaction> {
        &self.open
    }

    /// The greatest id used so far. The next one must be above it.
    pub fn last_id(&self) -> Option<TxnId> {
        self.last_id
    }

    /// Deposits kept less notes dispensed, since the journal began: what the bank's `Totals` are compared with.
    pub fn net_cash(&self) -> Money {
        self.net_cash
    }

    /// What was counted since the last close.
    pub fn since_close(&self) -> &SinceClose {
        &self.since_close
    }

    /// The last close.
    pub fn last_close(&self) -> Option<&Close> {
        self.last_close.as_ref()
    }

    /// The withdrawal whose notes are moving, or were when the power went. There is at most one.
    pub fn cut_dispense(&self) -> Option<&OpenTransaction> {
        self.open
            .values()
            .find(|open| matches!(open.stage, Stage::Dispensing { .. }))
    }

    /// Takes one more record into account.
    ///
    /// # Errors
    /// [`Inconsistent`] if it cannot follow the records so far; the state is then as it was.
    pub fn apply(&mut self, record: &Record) -> Result<(), Inconsistent> {
        let step = record.step();
        match record {
            Record::Opened { .. } => Err(Inconsistent::Opening),
            Record::Intent {
                id,
                account,
                what,
                amount,
                notes,
            } => self.intend(OpenTransaction {
                id: *id,
                account: *account,
                what: *what,
                amount: *amount,
                notes: notes.clone(),
                stage: Stage::Asked,
                credited_by: None,
            }),
            Record::Answered { id, outcome, lsn } => {
                let open = self.at_stage(*id, step, |open| open.stage == Stage::Asked)?;
                open.stage = Stage::Answered {
                    outcome: *outcome,
                    lsn: *lsn,
                };
                Ok(())
            }
            Record::Dispensing { id, before, notes } => self.dispense(*id, before, notes),
            Record::Dispensed { id } => {
                let moving = |open: &OpenTransaction| matches!(open.stage, Stage::Dispensing { .. });
                self.at_stage(*id, step, moving)?.stage = Stage::Dispensed;
                Ok(())
            }
            Record::Decided { id, dispensed } => self.decide(*id, dispensed),
            Record::Returned { id } => self.give_back(*id),
            Record::Advised {
                id,
                account,
                amount,
                original,
            } => self.advise(*id, *account, *amount, *original),
            Record::Settled { id, how, .. } => self.settle(*id, *how),
            Record::Replenished { notes } => {
                // Counting what is left is how a cut dispense is decided, so nothing is put in before.
                self.check_decided()?;
                Ok(self.cassettes.put(notes)?)
            }
            Record::Missing { notes } => {
                self.check_decided()?;
                Ok(self.cassettes.take(notes)?)
            }
            Record::Emptied { content } => {
                self.check_returned()?;
                agree(step, content, &self.deposit_box)?;
                self.deposit_box = Money::ZERO;
                Ok(())
            }
            Record::Closed {
                number,
                host_total,
                terminal_total,
            } => {
                agree(step, number, &self.last_close.map_or(1, |last| last.number + 1))?;
                agree(step, terminal_total, &self.net_cash)?;
                self.last_close = Some(Close {
                    number: *number,
                    host_total: *host_total,
                    terminal_total: *terminal_total,
                });
                self.since_close = SinceClose::default();
                Ok(())
            }
        }
    }

    fn intend(&mut self, new: OpenTransaction) -> Result<(), Inconsistent> {
        self.check_new(new.id)?;
        match new.what {
            What::Withdrawal => {
                self.check_decided()?;
                self.cassettes.clone().take(&new.notes)?;
                agree(
                    "intent",
                    &self.cassettes.value_of(&new.notes),
                    &new.amount.money(),
                )?;
                let number = new.notes.number();
                agree("intent", &number, &number.min(MAX_NOTES_PER_DISPENSE))?;
            }
            What::Deposit => {
                agree("intent", &new.notes, &Notes::default())?;
                let deposit_box = sum(self.deposit_box, new.amount.money())?;
                self.count_cash(new.amount.minor())?;
                // Everything is checked: from here on nothing fails.
                self.deposit_box = deposit_box;
                self.since_close.deposits.add(1, new.amount.money());
            }
            What::Transfer => agree("intent", &new.notes, &Notes::default())?,
        }
        self.insert_new(new);
        Ok(())
    }

    fn dispense(&mut self, id: TxnId, before: &Notes, notes: &Notes) -> Result<(), Inconsistent> {
        const STEP: &str = "dispensing";
        let approved = |open: &OpenTransaction| {
            let yes = Answer::Approved;
            open.what == What::Withdrawal
                && matches!(open.stage, Stage::Answered { outcome, .. } if outcome == yes)
        };
        let planned = self.at_stage(id, STEP, approved)?.notes.clone();
        self.check_decided()?;
        agree(STEP, before, &self.cassettes.on_hand())?;
        agree(STEP, notes, &planned)?;
        let value = self.cassettes.value_of(notes);
        let mut cassettes = self.cassettes.clone();
        cassettes.take(notes)?;
        self.count_cash(-value.minor())?;
        // Everything is checked: from here on nothing fails.
        self.cassettes = cassettes;
        self.since_close.withdrawals.add(1, value);
        self.at_stage(id, STEP, approved)?.stage = Stage::Dispensing {
            before: before.clone(),
        };
        Ok(())
    }

    fn decide(&mut self, id: TxnId, dispensed: &Notes) -> Result<(), Inconsistent> {
        const STEP: &str = "decided";
        let moving = |open: &OpenTransaction| matches!(open.stage, Stage::Dispensing { .. });
        let notes = self.at_stage(id, STEP, moving)?.notes.clone();
        let stayed = notes
            .without(dispensed)
            .ok_or_else(|| Inconsistent::Contradiction {
                step: STEP,
                said: format!("{dispensed:?}"),
                known: format!("at most {notes:?}"),
            })?;
        let value = self.cassettes.value_of(&stayed);
        let mut cassettes = self.cassettes.clone();
        cassettes.put(&stayed)?;
        self.count_cash(value.minor())?;
        // Everything is checked: from here on nothing fails.
        self.cassettes = cassettes;
        let undone = if dispensed.number() == 0 { -1 } else { 0 };
        self.since_close
            .withdrawals
            .add(undone, Money::from_minor(-value.minor()));
        self.at_stage(id, STEP, moving)?.stage = Stage::Decided {
            dispensed: dispensed.clone(),
        };
        Ok(())
    }

    fn give_back(&mut self, id: TxnId) -> Result<(), Inconsistent> {
        const STEP: &str = "returned";
        let not_done = |open: &OpenTransaction| {
            open.what == What::Deposit
                && open.credited_by.is_none()
                && match open.stage {
                    Stage::Asked => true,
                    Stage::Answered { outcome, .. } => outcome != Answer::Approved,
                    _ => false,
                }
        };
        let amount = self.at_stage(id, STEP, not_done)?.amount;
        let left = Money::from_minor(self.deposit_box.minor() - amount.minor());
        if left < Money::ZERO {
            return Err(Inconsistent::Contradiction {
                step: STEP,
                said: format!("{amount:?}"),
                known: format!("at most {:?}", self.deposit_box),
            });
        }
        self.count_cash(-amount.minor())?;
        // Everything is checked: from here on nothing fails.
        self.deposit_box = left;
        self.since_close
            .deposits
            .add(-1, Money::from_minor(-amount.minor()));
        self.at_stage(id, STEP, not_done)?.stage = Stage::Returned;
        Ok(())
    }

    fn advise(
        &mut self,
        id: TxnId,
        account: AccountId,
        amount: Amount,
        original: TxnId,
    ) -> Result<(), Inconsistent> {
        const STEP: &str = "advised";
        let under_its_own_id = id == original;
        let owed = |open: &OpenTransaction| match (&open.stage, open.what) {
            (Stage::Asked, What::Deposit) => true,
            // The bank knows these under their ids as what they are: they are credited under another.
            (Stage::Answered { outcome, .. }, What::Deposit) => {
                *outcome != Answer::Approved && !under_its_own_id
            }
            (Stage::Advised { .. } | Stage::Decided { .. }, _) => !under_its_own_id,
            _ => false,
        };
        let open = self.at_stage(original, STEP, |open| owed(open) && open.credited_by.is_none())?;
        let (what, to, mut due) = (open.what, open.account, open.amount.money());
        if let Stage::Decided { dispensed } = open.stage.clone() {
            due = Money::from_minor(due.minor() - self.cassettes.value_of(&dispensed).minor());
        }
        agree(STEP, &account, &to)?;
        agree(STEP, &amount.money(), &due)?;
        let advised = Stage::Advised { original };
        if under_its_own_id {
            self.at_stage(original, STEP, owed)?.stage = advised;
            return Ok(());
        }
        self.check_new(id)?;
        // Everything is checked: from here on nothing fails.
        self.at_stage(original, STEP, owed)?.credited_by = Some(id);
        self.insert_new(OpenTransaction {
            id,
            account,
            what,
            amount,
            notes: Notes::default(),
            stage: advised,
            credited_by: None,
        });
        Ok(())
    }

    fn settle(&mut self, id: TxnId, how: Settlement) -> Result<(), Inconsistent> {
        self.at_stage(id, "settled", |open| may_settle(open, how))?;
        let Some(settled) = self.open.remove(&id) else {
            return Err(Inconsistent::NotOpen(id));
        };
        if settled.what == What::Transfer && how == Settlement::Done {
            self.since_close.transfers.add(1, settled.amount.money());
        }
        if let Stage::Advised { original } = settled.stage
            && let Some(original) = self.open.get_mut(&original)
        {
            // An advice that was in vain leaves the money to another.
            original.credited_by = match how {
                Settlement::Credited => Some(id),
                _ => settled.credited_by,
            };
        }
        Ok(())
    }

    /// The open transaction, if it may take the step.
    fn at_stage(
        &mut self,
        id: TxnId,
        step: &'static str,
        may: impl Fn(&OpenTransaction) -> bool,
    ) -> Result<&mut OpenTransaction, Inconsistent> {
        let open = self.open.get_mut(&id).ok_or(Inconsistent::NotOpen(id))?;
        if may(open) {
            return Ok(open);
        }
        Err(Inconsistent::OutOfTurn {
            id,
            what: open.what,
            stage: open.stage.name(),
            step,
        })
    }

    /// Ids only grow: so none is used twice, without remembering them all.
    fn check_new(&self, id: TxnId) -> Result<(), Inconsistent> {
        match self.last_id {
            Some(last) if id <= last => Err(Inconsistent::NotNewer { id, last }),
            _ => Ok(()),
        }
    }

    fn insert_new(&mut self, new: OpenTransaction) {
        self.last_id = Some(new.id);
        self.open.insert(new.id, new);
    }

    fn check_decided(&self) -> Result<(), Inconsistent> {
        match self.cut_dispense() {
            Some(cut) => Err(Inconsistent::Undecided(cut.id)),
            None => Ok(()),
        }
    }

    /// Money that is to be given back must be there to be given.
    fn check_returned(&self) -> Result<(), Inconsistent> {
        let owed = |open: &&OpenTransaction| {
            open.what == What::Deposit
                && open.credited_by.is_none()
                && matches!(open.stage, Stage::Answered { outcome, .. } if outcome != Answer::Approved)
        };
        match self.open.values().find(owed) {
            Some(open) => Err(Inconsistent::Unreturned(open.id)),
            None => Ok(()),
        }
    }

    /// Counts cash that came in, or went out if negative; both counters or none.
    fn count_cash(&mut self, minor: i64) -> Result<(), Inconsistent> {
        let change = Money::from_minor(minor);
        let net_cash = sum(self.net_cash, change)?;
        self.since_close.net_cash = sum(self.since_close.net_cash, change)?;
        self.net_cash = net_cash;
        Ok(())
    }
}

fn sum(money: Money, more: Money) -> Result<Money, Inconsistent> {
    money.checked_add(more).ok_or(Inconsistent::TooMuch)
}

/// Whether a transaction may end so: only if then nobody has money, or lacks money, that nothing accounts for.
fn may_settle(open: &OpenTransaction, how: Settlement) -> bool {
    use Settlement::{Credited, Declined, Done, Never, Refused, Reversed};
    use What::{Deposit, Transfer, Withdrawal};

    let is_credited_elsewhere = open.credited_by.is_some();
    match (&open.stage, open.what, how) {
        (Stage::Asked, Deposit | Transfer, Done) => true,
        (Stage::Asked, Withdrawal | Transfer, Declined | Reversed | Never) => true,
        // The deposit's money is in the box, and must be somebody's.
        (Stage::Asked, Deposit, Declined | Reversed | Never) => is_credited_elsewhere,
        (Stage::Asked, _, Refused) => true,

        (Stage::Answered { outcome, .. }, what, how) => match (outcome, what, how) {
            (Answer::Approved, Deposit | Transfer, Done) => true,
            (Answer::Approved, Withdrawal | Transfer, Reversed) => true,
            (Answer::Declined(_), Withdrawal | Transfer, Declined) => true,
            (Answer::Declined(_), Deposit, Declined) => is_credited_elsewhere,
            (_, _, how) => how == Refused,
        },

        (Stage::Dispensed, _, Done) => true,
        (Stage::Decided { dispensed }, _, Done) => *dispensed == open.notes || is_credited_elsewhere,
        (Stage::Decided { dispensed }, _, Reversed) => dispensed.number() == 0 && !is_credited_elsewhere,
        (Stage::Decided { .. }, _, Refused) => true,

        (Stage::Returned, _, Declined | Reversed | Never) => true,

        (Stage::Advised { .. }, _, Credited | Refused) => true,
        (Stage::Advised { .. }, _, Declined | Reversed | Never) => is_credited_elsewhere,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use bank_core::Currency;

    use super::*;

    /// Ids of ever later transactions.
    fn id(number: u8) -> TxnId {
        let mut bytes = [0; 16];
        (bytes[5], bytes[6], bytes[8]) = (number, 0x70, 0x80);
        TxnId::from_bytes(bytes).unwrap()
    }

    fn notes(counts: &[u32]) -> Notes {
        Notes::new(counts.to_vec()).unwrap()
    }

    /// A terminal with ten notes of 50 and ten of 20.
    fn terminal() -> TerminalState {
        TerminalState::begin(&Record::Opened {
            terminal: TerminalId::new("ATM-1").unwrap(),
            cassettes: Cassettes::parse("50x10,20x10", Currency::USD).unwrap(),
        })
        .unwrap()
    }

    fn intent(number: u8, what: What, minor: i64, counts: &[u32]) -> Record {
        Record::Intent {
            id: id(number),
            account: AccountId::new(1001).unwrap(),
            what,
            amount: Amount::from_minor(minor).unwrap(),
            notes: notes(counts),
        }
    }

    /// 90.00 in a note of 50 and two of 20.
    fn withdrawal(number: u8) -> Record {
        intent(number, What::Withdrawal, 9_000, &[1, 2])
    }

    fn deposit(number: u8) -> Record {
        intent(number, What::Deposit, 7_000, &[])
    }

    fn transfer(number: u8) -> Record {
        intent(number, What::Transfer, 100, &[])
    }

    fn answered(number: u8, outcome: Answer) -> Record {
        Record::Answered {
            id: id(number),
            outcome,
            lsn: Lsn::new(7),
        }
    }

    fn approved(number: u8) -> Record {
        answered(number, Answer::Approved)
    }

    fn declined(number: u8) -> Record {
        answered(number, Answer::Declined(5))
    }

    fn dispensing(number: u8, before: &[u32]) -> Record {
        Record::Dispensing {
            id: id(number),
            before: notes(before),
            notes: notes(&[1, 2]),
        }
    }

    fn dispensed(number: u8) -> Record {
        Record::Dispensed { id: id(number) }
    }

    fn decided(number: u8, counts: &[u32]) -> Record {
        Record::Decided {
            id: id(number),
            dispensed: notes(counts),
        }
    }

    fn returned(number: u8) -> Record {
        Record::Returned { id: id(number) }
    }

    fn advised(number: u8, minor: i64, original: u8) -> Record {
        Record::Advised {
            id: id(number),
            account: AccountId::new(1001).unwrap(),
            amount: Amount::from_minor(minor).unwrap(),
            original: id(original),
        }
    }

    fn settled(number: u8, how: Settlement) -> Record {
        Record::Settled {
            id: id(number),
            how,
            note: String::new(),
        }
    }

    fn emptied(minor: i64) -> Record {
        Record::Emptied {
            content: Money::from_minor(minor),
        }
    }

    fn closed(number: u32, minor: i64) -> Record {
        Record::Closed {
            number,
            host_total: Money::from_minor(minor),
            terminal_total: Money::from_minor(minor),
        }
    }

    #[track_caller]
    fn after(records: &[Record]) -> TerminalState {
        let mut state = terminal();
        for record in records {
            state
                .apply(record)
                .unwrap_or_else(|error| panic!("{record:?}: {error}"));
        }
        state
    }

    /// A withdrawal whose notes are moving.
    fn cut() -> Vec<Record> {
        vec![withdrawal(1), approved(1), dispensing(1, &[10, 10])]
    }

    fn and(mut records: Vec<Record>, more: &[Record]) -> Vec<Record> {
        records.extend_from_slice(more);
        records
    }

    #[test]
    fn every_way_through_a_transaction_ends_with_nothing_open_and_the_cash_counted() {
        use Settlement::{Credited, Declined, Done, Never, Refused, Reversed};
        let check = |records: Vec<Record>, cassettes: &str, deposit_box: i64, net_cash: i64| {
            let state = after(&records);
            assert_eq!(state.open(), &BTreeMap::new(), "{records:?}");
            let found = (
                state.cassettes().to_string(),
                state.deposit_box().minor(),
                state.net_cash().minor(),
            );
            assert_eq!(
                found,
                (cassettes.to_owned(), deposit_box, net_cash),
                "{records:?}"
            );
            let SinceClose {
                net_cash,
                deposits,
                withdrawals,
                ..
            } = state.since_close();
            assert_eq!(
                Some(*net_cash),
                deposits.sum.checked_sub(withdrawals.sum),
                "{records:?}"
            );
        };
        let full = "50x10,20x10";
        for how in [Declined, Reversed, Never, Refused] {
            check(vec![withdrawal(1), settled(1, how)], full, 0, 0);
            check(vec![transfer(1), settled(1, how)], full, 0, 0);
        }
        check(vec![withdrawal(1), approved(1), settled(1, Reversed)], full, 0, 0);
        check(vec![withdrawal(1), declined(1), settled(1, Declined)], full, 0, 0);
        check(
            and(cut(), &[dispensed(1), settled(1, Done)]),
            "50x9,20x8",
            0,
            -9_000,
        );
        check(
            and(cut(), &[decided(1, &[1, 2]), settled(1, Done)]),
            "50x9,20x8",
            0,
            -9_000,
        );
        check(
            and(cut(), &[decided(1, &[0, 0]), settled(1, Reversed)]),
            full,
            0,
            0,
        );
        check(
            and(cut(), &[decided(1, &[0, 0]), settled(1, Refused)]),
            full,
            0,
            0,
        );
        let rest = [
            decided(1, &[1, 0]),
            advised(2, 4_000, 1),
            settled(2, Credited),
            settled(1, Done),
        ];
        check(and(cut(), &rest), "50x9,20x10", 0, -5_000);
        let again = [
            decided(1, &[1, 0]),
            advised(2, 4_000, 1),
            settled(2, Refused),
            advised(3, 4_000, 1),
            settled(1, Done),
            settled(3, Credited),
        ];
        check(and(cut(), &again), "50x9,20x10", 0, -5_000);

        check(vec![transfer(1), settled(1, Done)], full, 0, 0);
        check(vec![transfer(1), approved(1), settled(1, Done)], full, 0, 0);
        check(vec![transfer(1), approved(1), settled(1, Reversed)], full, 0, 0);

        check(vec![deposit(1), settled(1, Done)], full, 7_000, 7_000);
        check(
            vec![deposit(1), approved(1), settled(1, Done)],
            full,
            7_000,
            7_000,
        );
        check(
            vec![deposit(1), declined(1), returned(1), settled(1, Declined)],
            full,
            0,
            0,
        );
        check(vec![deposit(1), returned(1), settled(1, Never)], full, 0, 0);
        check(vec![deposit(1), returned(1), settled(1, Reversed)], full, 0, 0);
        check(
            vec![deposit(1), advised(1, 7_000, 1), settled(1, Credited)],
            full,
            7_000,
            7_000,
        );
        check(
            vec![deposit(1), declined(1), settled(1, Refused)],
            full,
            7_000,
            7_000,
        );
        let elsewhere = vec![
            deposit(1),
            advised(1, 7_000, 1),
            advised(2, 7_000, 1),
            settled(2, Credited),
            settled(1, Never),
        ];
        check(elsewhere, full, 7_000, 7_000);
        let twice_elsewhere = vec![
            deposit(1),
            declined(1),
            advised(2, 7_000, 1),
            advised(3, 7_000, 2),
            settled(3, Credited),
            settled(2, Declined),
            settled(1, Declined),
        ];
        check(twice_elsewhere, full, 7_000, 7_000);

        check(vec![deposit(1), settled(1, Done), emptied(7_000)], full, 0, 7_000);
        check(
            and(
                cut(),
                &[
                    dispensed(1),
                    settled(1, Done),
                    Record::Replenished {
                        notes: notes(&[0, 5]),
                    },
                ],
            ),
            "50x9,20x13",
            0,
            -9_000,
        );
    }

    #[test]
    fn what_cannot_follow_is_refused_and_changes_nothing() {
        use Settlement::{Credited, Declined, Done, Never, Refused, Reversed};
        let check = |records: Vec<Record>, then: Record, said: &str| {
            let before = after(&records);
            let mut state = before.clone();
            let error = match state.apply(&then) {
                Ok(()) => panic!("{then:?} follows {records:?}"),
                Err(error) => error.to_string(),
            };
            assert!(error.contains(said), "{then:?}: {error}");
            assert_eq!(state, before, "{then:?}");
        };
        let opened = Record::Opened {
            terminal: terminal().terminal(),
            cassettes: terminal().cassettes().clone(),
        };
        check(vec![], opened, "only by that");

        for record in [
            approved(1),
            dispensing(1, &[10, 10]),
            dispensed(1),
            decided(1, &[0, 0]),
            returned(1),
            advised(2, 100, 1),
            settled(1, Done),
        ] {
            check(vec![], record, "nothing is open under");
        }
        check(vec![transfer(2)], transfer(2), "not newer");
        check(vec![transfer(2), settled(2, Done)], transfer(1), "not newer");
        check(
            vec![transfer(1), settled(1, Done)],
            settled(1, Done),
            "nothing is open",
        );
        check(
            vec![],
            intent(1, What::Withdrawal, 9_000, &[]),
            "0 counts for 2 cassettes",
        );
        check(vec![], intent(1, What::Withdrawal, 9_000, &[1, 1]), "must be");
        check(
            vec![],
            intent(1, What::Withdrawal, 55_000, &[11, 0]),
            "has 10 notes",
        );
        check(vec![], intent(1, What::Deposit, 9_000, &[1, 2]), "must be");
        check(vec![], intent(1, What::Transfer, 9_000, &[1, 2]), "must be");
        check(
            vec![intent(1, What::Deposit, i64::MAX, &[])],
            deposit(2),
            "so much money",
        );
        let many = Record::Replenished {
            notes: notes(&[90, 0]),
        };
        check(
            vec![many],
            intent(1, What::Withdrawal, 205_000, &[41, 0]),
            "must be 40",
        );

        let w = || vec![withdrawal(1)];
        check(w(), dispensing(1, &[10, 10]), "that is asked for");
        check(
            and(w(), &[declined(1)]),
            dispensing(1, &[10, 10]),
            "that is declined",
        );
        check(and(w(), &[approved(1)]), approved(1), "that is approved");
        check(and(w(), &[approved(1)]), dispensing(1, &[9, 10]), "must be");
        check(and(w(), &[approved(1)]), dispensed(1), "that is approved");
        check(
            vec![intent(1, What::Withdrawal, 5_000, &[1, 0]), approved(1)],
            dispensing(1, &[10, 10]),
            "must be",
        );
        check(
            vec![transfer(1), approved(1)],
            dispensing(1, &[10, 10]),
            "a Transfer that is approved",
        );
        check(cut(), dispensing(1, &[9, 8]), "being dispensed");
        check(cut(), decided(1, &[1, 3]), "at most");
        check(cut(), decided(1, &[1]), "at most");
        check(cut(), withdrawal(2), "a supervisor must decide");
        check(
            cut(),
            Record::Replenished {
                notes: notes(&[1, 1]),
            },
            "a supervisor must decide",
        );
        let two = vec![
            withdrawal(1),
            withdrawal(2),
            approved(1),
            approved(2),
            dispensing(1, &[10, 10]),
        ];
        check(two, dispensing(2, &[9, 8]), "a supervisor must decide");

        let partly = || and(cut(), &[decided(1, &[1, 0])]);
        check(partly(), decided(1, &[1, 0]), "decided by a supervisor");
        check(partly(), dispensed(1), "decided by a supervisor");
        check(partly(), advised(2, 4_001, 1), "must be");
        check(partly(), advised(1, 4_000, 1), "cannot follow");
        check(partly(), settled(1, Done), "cannot follow");
        check(partly(), settled(1, Reversed), "cannot follow");
        check(
            and(partly(), &[advised(2, 4_000, 1)]),
            advised(3, 4_000, 1),
            "cannot follow",
        );
        check(
            and(partly(), &[advised(2, 4_000, 1), settled(2, Refused)]),
            settled(1, Done),
            "cannot follow",
        );

        let d = || vec![deposit(1)];
        check(d(), advised(1, 6_999, 1), "must be");
        check(and(d(), &[approved(1)]), returned(1), "that is approved");
        check(and(d(), &[approved(1)]), advised(2, 7_000, 1), "that is approved");
        check(and(d(), &[declined(1)]), advised(1, 7_000, 1), "that is declined");
        check(and(d(), &[advised(1, 7_000, 1)]), returned(1), "that is advised");
        check(
            and(d(), &[advised(1, 7_000, 1)]),
            advised(1, 7_000, 1),
            "that is advised",
        );
        check(
            and(d(), &[declined(1), advised(2, 7_000, 1)]),
            returned(1),
            "that is declined",
        );
        check(and(d(), &[returned(1)]), advised(2, 7_000, 1), "that is returned");
        check(and(d(), &[returned(1)]), returned(1), "that is returned");
        check(and(d(), &[emptied(7_000)]), returned(1), "at most");
        check(d(), emptied(6_999), "must be");
        check(vec![transfer(1)], returned(1), "a Transfer");

        for (records, hows) in [
            (w(), vec![Done, Credited]),
            (and(w(), &[approved(1)]), vec![Done, Declined, Never, Credited]),
            (and(w(), &[declined(1)]), vec![Done, Reversed, Never, Credited]),
            (cut(), vec![Done, Declined, Reversed, Never, Credited, Refused]),
            (
                and(cut(), &[dispensed(1)]),
                vec![Declined, Reversed, Never, Credited, Refused],
            ),
            (d(), vec![Declined, Reversed, Never, Credited]),
            (
                and(d(), &[declined(1)]),
                vec![Done, Declined, Reversed, Never, Credited],
            ),
            (and(d(), &[returned(1)]), vec![Done, Credited, Refused]),
            (
                and(d(), &[advised(1, 7_000, 1)]),
                vec![Done, Declined, Reversed, Never],
            ),
        ] {
            for how in hows {
                check(records.clone(), settled(1, how), "\"settled\" cannot follow");
            }
        }

        check(vec![], closed(2, 0), "must be 1");
        check(vec![closed(1, 0)], closed(1, 0), "must be 2");
        check(d(), closed(1, 0), "must be");
    }

    #[test]
    fn a_cut_dispense_is_taken_to_have_left_until_it_is_decided() {
        let state = after(&cut());
        assert_eq!(state.cassettes().to_string(), "50x9,20x8");
        let open = state.cut_dispense().expect("it is undecided");
        assert_eq!((open.id, &open.notes), (id(1), &notes(&[1, 2])));
        assert_eq!(
            open.stage,
            Stage::Dispensing {
                before: notes(&[10, 10])
            }
        );
        assert_eq!(after(&and(cut(), &[decided(1, &[0, 1])])).cut_dispense(), None);
        assert_eq!(after(&and(cut(), &[dispensed(1)])).cut_dispense(), None);
    }

    #[test]
    fn a_close_begins_a_new_count_and_keeps_the_total() {
        let day = [
            deposit(1),
            settled(1, Settlement::Done),
            transfer(2),
            settled(2, Settlement::Done),
            withdrawal(3),
            approved(3),
            dispensing(3, &[10, 10]),
            deposit(4),
        ];
        let tally = |count, minor| Tally {
            count,
            sum: Money::from_minor(minor),
        };
        let state = after(&day);
        assert_eq!(
            state.since_close(),
            &SinceClose {
                net_cash: Money::from_minor(5_000),
                deposits: tally(2, 14_000),
                withdrawals: tally(1, 9_000),
                transfers: tally(1, 100),
            }
        );
        assert_eq!(state.last_id(), Some(id(4)));
        let next = after(&and(
            day.to_vec(),
            &[closed(1, 5_000), returned(4), decided(3, &[0, 0])],
        ));
        assert_eq!(next.net_cash(), Money::from_minor(7_000));
        assert_eq!(next.last_close().map(|last| last.number), Some(1));
        assert_eq!(
            next.since_close(),
            &SinceClose {
                net_cash: Money::from_minor(2_000),
                deposits: tally(-1, -7_000),
                withdrawals: tally(-1, -9_000),
                transfers: tally(0, 0),
            }
        );
    }
}
