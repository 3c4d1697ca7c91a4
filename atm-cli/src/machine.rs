//! The machine: what stands between a customer, the bank, the cash and the journal, so that money and notes agree
//! whatever breaks when.
//!
//! Every step is in the electronic journal before it is taken: the intent before the bank is asked, the notes before the
//! first of them moves. So whoever starts the machine again finds in the journal all that is unfinished, and
//! [`Machine::settle`] brings it to its end: what was asked for and not paid out is undone, notes that were taken are
//! credited. Only how many notes have left when the power went while they moved cannot be known from here: that a
//! supervisor counts, and until then the machine pays out nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use bank_core::limits::NOTE_PACE;
use bank_core::protocol::ErrorCode;
use bank_core::{AccountId, Amount, Currency, Moment, Money, TxnId};

use crate::client::{Client, ClientError};
use crate::connection::{ConnectionError, Customer, Fate, Outcome};
use crate::dispenser::{Cassettes, Notes, Unpayable};
use crate::electronic_journal::{
    Answer, Close, ElectronicJournal, ElectronicJournalError, OpenTransaction, Record, Settlement, Stage,
    TerminalState, What,
};
use crate::screen::{say, try_say};

/// A terminal with its cash, its journal and its way to the bank.
pub struct Machine {
    journal: ElectronicJournal,
    tray: Tray,
    /// The way to the bank. Customers' money is moved by the machine alone.
    pub client: Client,
}

/// Why a customer does not get what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The notes on hand do not make the amount. The bank was not asked.
    #[error("this machine cannot pay that sum with the notes it has")]
    Unpayable(Unpayable),
    /// The account is in another currency than the machine's notes. The bank was not asked.
    #[error("this machine has {0} only")]
    OtherCurrency(Currency),
    /// A supervisor must first count what an earlier dispense has left. The bank was not asked.
    #[error("this machine cannot pay out money at present: please use another one")]
    Undecided,
    /// Somebody has counted more notes than there can be.
    #[error("those are more notes than were there before ({0}): count them again")]
    MoreThanBefore(String),
    /// The bank gave no answer that ends the matter. What is open is settled when it can be.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The journal cannot be written, so nothing more may be done.
    #[error("out of service: {0}")]
    Journal(#[from] ElectronicJournalError),
    /// The notes do not move, so nothing more may be paid out.
    #[error("the dispenser has failed: {0}")]
    Dispenser(io::Error),
}

/// What became of a customer's transaction.
#[derive(Clone, Debug)]
pub struct Done {
    /// Its id.
    pub id: TxnId,
    /// What the bank said.
    pub outcome: Outcome,
    /// The notes that were paid out.
    pub notes: Option<Notes>,
}

/// An unfinished transaction that was brought to its end.
#[derive(Clone, Debug)]
pub struct Settled {
    /// What it was.
    pub transaction: OpenTransaction,
    /// How it ended.
    pub how: Settlement,
}

impl Settled {
    fn new(transaction: &OpenTransaction, how: Settlement) -> Settled {
        Settled {
            transaction: transaction.clone(),
            how,
        }
    }
}

/// What a count of the cassettes has found.
#[derive(Clone, Debug, Default)]
pub struct Finding {
    /// The notes that the customer has.
    pub dispensed: Notes,
    /// Notes that nothing explains.
    pub missing: Notes,
}

/// How the day ended.
#[derive(Clone, Debug)]
pub struct DayEnd {
    /// The close, as it is in the journal.
    pub close: Close,
    /// The last close before.
    pub before: Option<Close>,
}

impl DayEnd {
    /// What the bank and the machine have counted since the last close.
    pub fn day(&self) -> (Money, Money) {
        let (host, terminal) = self.before.map_or((Money::ZERO, Money::ZERO), |before| {
            (before.host_total, before.terminal_total)
        });
        (
            less(self.close.host_total, host),
            less(self.close.terminal_total, terminal),
        )
    }

    /// What the bank had counted more than the machine before this day began.
    pub fn carried_over(&self) -> Money {
        self.before.map_or(Money::ZERO, |before| {
            less(before.host_total, before.terminal_total)
        })
    }
}

/// What one sum has more than another.
pub(crate) fn less(sum: Money, other: Money) -> Money {
    Money::from_minor(sum.minor().saturating_sub(other.minor()))
}

impl Machine {
    /// Puts a machine together.
    pub fn new(journal: ElectronicJournal, tray: Tray, client: Client) -> Machine {
        Machine {
            journal,
            tray,
            client,
        }
    }

    /// What the machine holds, has counted and has not finished.
    pub fn state(&self) -> &TerminalState {
        self.journal.state()
    }

    /// The currency of its notes.
    pub fn currency(&self) -> Currency {
        self.state().cassettes().currency()
    }

    /// Pays out cash. If the bank has not approved it for certain, no note moves.
    ///
    /// # Errors
    /// [`MachineError`].
    pub fn withdraw(&mut self, customer: &Customer, amount: Amount) -> Result<Done, MachineError> {
        self.check_currency(customer)?;
        if self.state().cut_dispense().is_some() {
            return Err(MachineError::Undecided);
        }
        let notes = self
            .state()
            .cassettes()
            .mix(amount)
            .map_err(MachineError::Unpayable)?;
        let (id, outcome) = self.ask(customer, What::Withdrawal, amount, &notes, |client, id| {
            client.withdraw(id, amount)
        })?;
        let answered = answered(id, &outcome);
        if let Outcome::Declined { .. } = outcome {
            self.write(&[answered, settled(id, Settlement::Declined, "")])?;
            return Ok(Done {
                id,
                outcome,
                notes: None,
            });
        }
        let before = self.state().cassettes().on_hand();
        let dispensing = Record::Dispensing {
            id,
            before,
            notes: notes.clone(),
        };
        self.write(&[answered, dispensing])?;
        self.tray
            .hand_out(id, self.journal.state().cassettes(), &notes)
            .map_err(MachineError::Dispenser)?;
        self.write(&[Record::Dispensed { id }, settled(id, Settlement::Done, "")])?;
        Ok(Done {
            id,
            outcome,
            notes: Some(notes),
        })
    }

    /// Takes cash. Without an answer from the bank it is kept, and credited when the bank is back.
    ///
    /// # Errors
    /// [`MachineError`].
    pub fn deposit(&mut self, customer: &Customer, amount: Amount) -> Result<Done, MachineError> {
        self.check_currency(customer)?;
        let (id, outcome) = self.ask(
            customer,
            What::Deposit,
            amount,
            &Notes::default(),
            |client, id| client.deposit(id, amount),
        )?;
        match outcome {
            Outcome::Approved(..) => {
                self.write(&[answered(id, &outcome), settled(id, Settlement::Done, "")])?;
            }
            Outcome::Declined { .. } => {
                self.write(&[answered(id, &outcome)])?;
                self.give_back(id, "")?;
            }
        }
        Ok(Done {
            id,
            outcome,
            notes: None,
        })
    }

    /// Moves money to another account.
    ///
    /// # Errors
    /// [`MachineError`].
    pub fn transfer(
        &mut self,
        customer: &Customer,
        to: AccountId,
        amount: Amount,
    ) -> Result<Done, MachineError> {
        let (id, outcome) = self.ask(
            customer,
            What::Transfer,
            amount,
            &Notes::default(),
            |client, id| client.transfer(id, to, amount),
        )?;
        let how = match outcome {
            Outcome::Approved(..) => Settlement::Done,
            Outcome::Declined { .. } => Settlement::Declined,
        };
        self.write(&[answered(id, &outcome), settled(id, how, "")])?;
        Ok(Done {
            id,
            outcome,
            notes: None,
        })
    }

    /// Brings everything unfinished to its end, but for what a supervisor must decide. What the bank refuses to settle at
    /// present keeps nothing else from being settled.
    ///
    /// # Errors
    /// If the bank cannot be reached, or the journal cannot be written: what was settled before stays settled. Otherwise
    /// the first refusal, after everything else was settled.
    pub fn settle(&mut self, mut tell: impl FnMut(&Settled, Currency)) -> Result<(), MachineError> {
        loop {
            // What is credited under an id of its own becomes open while this goes on.
            let (mut done, mut refused) = (0, None);
            let open: Vec<_> = self.state().open().keys().copied().collect();
            for id in open {
                // One may have ended with another.
                let Some(transaction) = self.state().open().get(&id).cloned() else {
                    continue;
                };
                match self.settle_one(&transaction) {
                    Ok(None) => {}
                    Ok(Some(settled)) => {
                        done += 1;
                        tell(&settled, self.currency());
                    }
                    Err(MachineError::Client(error)) => match error.code() {
                        // It will never be otherwise: people must see to it.
                        Some(ErrorCode::NoSuchAccount | ErrorCode::TxnIdReused) => {
                            self.refuse(&transaction, &error.to_string())?;
                            done += 1;
                            let how = Settlement::Refused;
                            tell(&Settled { transaction, how }, self.currency());
                        }
                        Some(_) => {
                            refused.get_or_insert(error);
                        }
                        None => return Err(error.into()),
                    },
                    Err(error) => return Err(error),
                }
            }
            if done == 0 {
                return refused.map_or(Ok(()), |error| Err(error.into()));
            }
        }
    }

    /// What waits for a supervisor: a dispense that was cut short, and money of a declined deposit that is still here.
    pub fn for_supervisor(&self) -> Vec<OpenTransaction> {
        let waits = |open: &&OpenTransaction| match open.stage {
            Stage::Dispensing { .. } => true,
            Stage::Answered {
                outcome: Answer::Declined(_),
                ..
            } => open.what == What::Deposit && open.credited_by.is_none(),
            _ => false,
        };
        self.state().open().values().filter(waits).cloned().collect()
    }

    /// What it means for a dispense that was cut short that so many notes are in the cassettes now.
    ///
    /// # Errors
    /// [`MachineError::MoreThanBefore`].
    pub fn judge(&self, cut: &OpenTransaction, counted: &Notes) -> Result<Finding, MachineError> {
        let Stage::Dispensing { before } = &cut.stage else {
            return Ok(Finding::default());
        };
        let cassettes = self.state().cassettes();
        let left = before
            .without(counted)
            .ok_or_else(|| MachineError::MoreThanBefore(cassettes.describe(before)))?;
        let dispensed = left.at_most(&cut.notes);
        let missing = left.without(&dispensed).unwrap_or_default();
        Ok(Finding { dispensed, missing })
    }

    /// Writes down what a count has found, which decides the dispense.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub fn decide(&mut self, cut: &OpenTransaction, finding: Finding) -> Result<(), MachineError> {
        let Finding { dispensed, missing } = finding;
        let mut records = vec![Record::Decided {
            id: cut.id,
            dispensed,
        }];
        if missing.number() > 0 {
            records.push(Record::Missing { notes: missing });
        }
        self.write(&records)
    }

    /// Gives back the money of a deposit that the bank has declined; `note` says who did, if it was not the machine.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub fn give_back(&mut self, id: TxnId, note: &str) -> Result<(), MachineError> {
        let returned = Record::Returned { id };
        // Nothing is given back that could not be written down.
        let checked = self.state().clone().apply(&returned);
        checked.map_err(ElectronicJournalError::from)?;
        say("\nPlease take your money back.");
        self.write(&[returned, settled(id, Settlement::Declined, note)])
    }

    /// Credits the money of a deposit that the bank has declined, since it cannot be given back.
    ///
    /// # Errors
    /// If the bank cannot be reached or refuses, or the journal cannot be written.
    pub fn credit_declined(&mut self, declined: &OpenTransaction) -> Result<(), MachineError> {
        self.advise_under_new_id(declined, declined.amount).map(drop)
    }

    /// Fills the cassettes up.
    ///
    /// # Errors
    /// If they cannot take so much, or a cut dispense must be decided first.
    pub fn replenish(&mut self, notes: Notes) -> Result<(), MachineError> {
        self.write(&[Record::Replenished { notes }])
    }

    /// Empties the deposit box.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub fn empty_box(&mut self) -> Result<Money, MachineError> {
        let content = self.state().deposit_box();
        self.write(&[Record::Emptied { content }])?;
        Ok(content)
    }

    /// What came into the machine less what went out, as the bank counts it.
    ///
    /// # Errors
    /// If the bank does not say.
    pub fn host_total(&mut self) -> Result<Money, MachineError> {
        let currency = self.currency();
        let (_, totals) = self.client.totals()?;
        let total = totals.into_iter().find(|&(found, _)| found == currency);
        Ok(total.map_or(Money::ZERO, |(_, sum)| sum))
    }

    /// Settles what can be settled, compares the bank's total with the machine's, and begins a new day.
    ///
    /// # Errors
    /// If the bank does not answer, or the journal cannot be written.
    pub fn close_day(&mut self) -> Result<DayEnd, MachineError> {
        match self.settle(|_, _| ()) {
            // What the bank refuses to settle is told with the close.
            Ok(()) | Err(MachineError::Client(_)) => {}
            Err(error) => return Err(error),
        }
        let end = self.count_day()?;
        let Close {
            number,
            host_total,
            terminal_total,
        } = end.close;
        self.write(&[Record::Closed {
            number,
            host_total,
            terminal_total,
        }])?;
        Ok(end)
    }

    /// What a close would find now.
    ///
    /// # Errors
    /// If the bank does not answer.
    pub fn count_day(&mut self) -> Result<DayEnd, MachineError> {
        let host_total = self.host_total()?;
        let before = self.state().last_close().copied();
        let close = Close {
            number: before.map_or(1, |last| last.number + 1),
            host_total,
            terminal_total: self.state().net_cash(),
        };
        Ok(DayEnd { close, before })
    }

    /// Whether the machine has a customer's currency.
    ///
    /// # Errors
    /// [`MachineError::OtherCurrency`].
    pub fn check_currency(&self, customer: &Customer) -> Result<(), MachineError> {
        let currency = self.currency();
        if customer.currency == currency {
            Ok(())
        } else {
            Err(MachineError::OtherCurrency(currency))
        }
    }

    /// Writes the intent and asks the bank, once more under a new id if the first was too old.
    fn ask(
        &mut self,
        customer: &Customer,
        what: What,
        amount: Amount,
        notes: &Notes,
        mut ask: impl FnMut(&mut Client, TxnId) -> Result<Outcome, ClientError>,
    ) -> Result<(TxnId, Outcome), MachineError> {
        let mut first = true;
        loop {
            let id = self.client.new_txn_id();
            self.write(&[Record::Intent {
                id,
                account: customer.account,
                what,
                amount,
                notes: notes.clone(),
            }])?;
            match ask(&mut self.client, id) {
                Ok(outcome) => return Ok((id, outcome)),
                // A deposit's money is taken already, and is credited under whatever id.
                Err(ClientError::Connection(ConnectionError::StaleId { .. }))
                    if first && what != What::Deposit =>
                {
                    self.write(&[settled(id, Settlement::Never, "its id was too old")])?;
                    first = false;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Brings one transaction a step further. Gives what ended with that, if anything did.
    fn settle_one(&mut self, open: &OpenTransaction) -> Result<Option<Settled>, MachineError> {
        let OpenTransaction {
            id, account, amount, ..
        } = *open;
        let how = match (&open.stage, open.what) {
            // A supervisor's business, see `for_supervisor`.
            (Stage::Dispensing { .. }, _) => return Ok(None),
            (
                Stage::Answered {
                    outcome: Answer::Declined(_),
                    ..
                },
                What::Deposit,
            ) if open.credited_by.is_none() => return Ok(None),

            (Stage::Asked, What::Transfer) => match self.client.resolve(account, id)? {
                Fate::Applied(..) => Settlement::Done,
                Fate::Declined { .. } => Settlement::Declined,
                Fate::Reversed(..) => Settlement::Reversed,
                Fate::Never => Settlement::Never,
            },
            (Stage::Asked, What::Withdrawal) => self.reverse(account, id)?,
            (
                Stage::Answered {
                    outcome: Answer::Approved,
                    ..
                },
                What::Withdrawal,
            ) => self.reverse(account, id)?,
            (Stage::Asked, What::Deposit) => {
                self.write(&[Record::Advised {
                    id,
                    account,
                    amount,
                    original: id,
                }])?;
                return self.advise_open(id);
            }
            (Stage::Answered { outcome, .. }, _) => match outcome {
                Answer::Approved => Settlement::Done,
                Answer::Declined(_) => Settlement::Declined,
            },
            (Stage::Dispensed, _) => Settlement::Done,
            (Stage::Returned, _) => Settlement::Declined,
            (Stage::Decided { dispensed }, _) => {
                if *dispensed == open.notes || self.is_credited(open) {
                    Settlement::Done
                } else if dispensed.number() == 0 {
                    self.reverse(account, id)?
                } else {
                    return self.credit_rest(open, dispensed);
                }
            }
            (Stage::Advised { .. }, _) => return self.advise(open),
        };
        self.write(&[settled(id, how, "")])?;
        Ok(Some(Settled::new(open, how)))
    }

    /// Whether the advice of what a transaction owes has been credited.
    fn is_credited(&self, open: &OpenTransaction) -> bool {
        open.credited_by
            .is_some_and(|advice| !self.state().open().contains_key(&advice))
    }

    fn reverse(&mut self, account: AccountId, id: TxnId) -> Result<Settlement, MachineError> {
        Ok(match self.client.reverse(account, id)? {
            Fate::Reversed(..) => Settlement::Reversed,
            Fate::Never => Settlement::Never,
            Fate::Declined { code, .. } if code == ErrorCode::CannotReverse.number() => Settlement::Refused,
            Fate::Declined { .. } => Settlement::Declined,
            Fate::Applied(..) => Settlement::Refused,
        })
    }

    /// Has the notes credited that did not leave.
    fn credit_rest(
        &mut self,
        open: &OpenTransaction,
        dispensed: &Notes,
    ) -> Result<Option<Settled>, MachineError> {
        let paid = self.state().cassettes().value_of(dispensed);
        match Amount::from_minor(less(open.amount.money(), paid).minor()) {
            Some(rest) if open.credited_by.is_none() => self.advise_under_new_id(open, rest),
            // The advice is open itself.
            _ => Ok(None),
        }
    }

    /// Writes down that money of a transaction is to be credited under an id of its own, and has it credited.
    fn advise_under_new_id(
        &mut self,
        open: &OpenTransaction,
        amount: Amount,
    ) -> Result<Option<Settled>, MachineError> {
        // An id is made by the bank's clock, which must be known.
        self.client.connect()?;
        let id = self.client.new_txn_id();
        self.write(&[Record::Advised {
            id,
            account: open.account,
            amount,
            original: open.id,
        }])?;
        self.advise_open(id)
    }

    fn advise_open(&mut self, id: TxnId) -> Result<Option<Settled>, MachineError> {
        match self.state().open().get(&id).cloned() {
            Some(advice) => self.advise(&advice),
            None => Ok(None),
        }
    }

    /// Tells the bank of money that is to be credited.
    fn advise(&mut self, open: &OpenTransaction) -> Result<Option<Settled>, MachineError> {
        let OpenTransaction {
            id, account, amount, ..
        } = *open;
        if let Some(advice) = open.credited_by {
            // Its deposit was declined: the money is credited by another advice, and this one ends with that.
            if self.state().open().contains_key(&advice) {
                return Ok(None);
            }
            self.write(&[settled(id, Settlement::Declined, "")])?;
            return Ok(Some(Settled::new(open, Settlement::Declined)));
        }
        let under_its_own_id = open.stage == (Stage::Advised { original: id });
        let advised = match self.client.advice(account, id, amount) {
            // Somebody has used the deposit's id for something else, so the deposit was not done under it.
            Err(error) if under_its_own_id && error.code() == Some(ErrorCode::TxnIdReused) => {
                return self.advise_under_new_id(open, amount);
            }
            other => other?,
        };
        let (how, note) = match advised {
            Outcome::Approved(..) => (Settlement::Credited, String::new()),
            // The deposit had arrived and was declined, but the money is here.
            Outcome::Declined { .. } if under_its_own_id => {
                return self.advise_under_new_id(open, amount);
            }
            Outcome::Declined { message, .. } => (Settlement::Refused, message),
        };
        if how == Settlement::Refused {
            self.refuse(open, &note)?;
        } else {
            self.write(&[settled(id, how, &note)])?;
        }
        Ok(Some(Settled::new(open, how)))
    }

    /// Writes down that the bank will not do what it should. What cannot be credited under an id of its own cannot be
    /// credited at all.
    fn refuse(&mut self, open: &OpenTransaction, note: &str) -> Result<(), MachineError> {
        let mut records = vec![settled(open.id, Settlement::Refused, note)];
        if let Stage::Advised { original } = open.stage
            && original != open.id
            && self.state().open().contains_key(&original)
        {
            records.push(settled(original, Settlement::Refused, note));
        }
        self.write(&records)
    }

    fn write(&mut self, records: &[Record]) -> Result<(), MachineError> {
        Ok(self.journal.append(Moment::now().time, records)?)
    }
}

fn answered(id: TxnId, outcome: &Outcome) -> Record {
    let (lsn, outcome) = match outcome {
        Outcome::Approved(lsn, _) => (*lsn, Answer::Approved),
        Outcome::Declined { lsn, code, .. } => (*lsn, Answer::Declined(*code)),
    };
    Record::Answered { id, outcome, lsn }
}

fn settled(id: TxnId, how: Settlement, note: &str) -> Record {
    Record::Settled {
        id,
        how,
        note: note.to_owned(),
    }
}

/// Where notes come out. Its screen is the customer's: there a note is handed out by saying so. A file may stand in
/// for the hands that take them, so that somebody who doubts can count.
pub struct Tray {
    notes: Option<File>,
}

impl Tray {
    /// A tray; each note that leaves it is also written to `notes`, as a line of the transaction's id and the note's
    /// value in minor units.
    ///
    /// A line that was only begun when the power went is cut off: that note got stuck.
    ///
    /// # Errors
    /// If the file cannot be read or opened for appending.
    pub fn new(notes: Option<&Path>) -> io::Result<Tray> {
        let open = |path: &Path| -> io::Result<File> {
            let mut options = OpenOptions::new();
            let mut file = options.read(true).append(true).create(true).open(path)?;
            let mut written = Vec::new();
            file.read_to_end(&mut written)?;
            let whole = written
                .iter()
                .rposition(|&byte| byte == b'\n')
                .map_or(0, |last| last + 1);
            file.set_len(whole as u64)?;
            Ok(file)
        };
        Ok(Tray {
            notes: notes.map(open).transpose()?,
        })
    }

    fn hand_out(&mut self, id: TxnId, cassettes: &Cassettes, notes: &Notes) -> io::Result<()> {
        try_say(&format!("\nPlease take your cash: {}", cassettes.describe(notes)))?;
        let Some(file) = &mut self.notes else {
            return Ok(());
        };
        for (cassette, &count) in cassettes.iter().zip(notes.counts()) {
            for _ in 0..count {
                file.write_all(format!("{id} {}\n", cassette.denomination.minor()).as_bytes())?;
                pause(NOTE_PACE);
            }
        }
        Ok(())
    }
}

/// One note comes after the other: here the clock is all there is to wait for.
#[allow(clippy::disallowed_methods)]
fn pause(pause: Duration) {
    std::thread::sleep(pause);
}
