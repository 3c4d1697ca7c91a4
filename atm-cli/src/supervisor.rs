//! The supervisor's menu: the cash, what is unfinished, and the end of the day.
//!
//! It has a code of its own and no card. Whoever holds the code opens the machine; it moves no customer's money but by
//! saying what notes have really left.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bank_core::files::sync_directory_of;
use bank_core::limits::{MAX_CODE_TRIES, SUPERVISOR_CODE_DIGITS};
use bank_core::{Currency, Moment, Money, Timestamp, secret_file};
use zeroize::Zeroizing;

use crate::dispenser::Notes;
use crate::electronic_journal::{ElectronicJournalError, OpenTransaction, Settlement, Stage, What};
use crate::layout::{Column, PAPER, table};
use crate::machine::{DayEnd, Machine, MachineError, Settled, less};
use crate::paper::sum;
use crate::prompt::{NoAnswer, Prompt};
use crate::screen::{say, say_heading, say_line, say_notices, say_sorry, say_sum, say_title};

/// The code that opens the supervisor's menu. After a few wrong ones it opens nothing until the terminal is started
/// again.
pub struct SupervisorCode {
    digits: Zeroizing<String>,
    wrong: u8,
}

/// What can be wrong with a code's file.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorCodeError {
    /// The file could not be read or written.
    #[error("the supervisor's code file {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Others may read the file.
    #[error("the supervisor's code file {} may be read or written by others: run \"chmod 600\" on it", .0.display())]
    Exposed(PathBuf),
    /// The file holds no code.
    #[error("the supervisor's code file {} is damaged: its first line should be {SUPERVISOR_CODE_DIGITS} digits or more; remove it to get a new code", .0.display())]
    Damaged(PathBuf),
    /// The machine gives no randomness.
    #[error("the operating system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

impl SupervisorCode {
    /// The code in a file, which is made with a random code if there is none. Gives whether it was made.
    ///
    /// # Errors
    /// [`SupervisorCodeError`].
    pub fn read_or_create(path: &Path) -> Result<(SupervisorCode, bool), SupervisorCodeError> {
        let io = |source| SupervisorCodeError::Io {
            path: path.to_owned(),
            source,
        };
        let made = !path.try_exists().map_err(io)?;
        if made {
            let mut random = [0; SUPERVISOR_CODE_DIGITS];
            getrandom::fill(&mut random).map_err(SupervisorCodeError::Random)?;
            // 256 is no multiple of 10: some digits are a little likelier than others, which three tries cannot use.
            let digit = |byte: &u8| char::from(b'0' + byte % 10);
            let code: Zeroizing<String> = Zeroizing::new(random.iter().map(digit).collect());
            // It gets its name when it is on disk, so that a power cut leaves no half of a code.
            let new = path.with_added_extension("new");
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)
                .map_err(io)?;
            writeln!(file, "{}", *code)
                .and_then(|()| file.sync_all())
                .and_then(|()| fs::rename(&new, path))
                .and_then(|()| sync_directory_of(path))
                .map_err(io)?;
        }
        let file = File::open(path).map_err(io)?;
        if secret_file::is_exposed(&file).map_err(io)? {
            return Err(SupervisorCodeError::Exposed(path.to_owned()));
        }
        let mut text = Zeroizing::new(String::with_capacity(128));
        file.take(64).read_to_string(&mut text).map_err(io)?;
        let digits = Zeroizing::new(text.lines().next().unwrap_or_default().trim().to_owned());
        let good = digits.len() >= SUPERVISOR_CODE_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !good {
            return Err(SupervisorCodeError::Damaged(path.to_owned()));
        }
        Ok((SupervisorCode { digits, wrong: 0 }, made))
    }

    fn is_locked(&self) -> bool {
        self.wrong >= MAX_CODE_TRIES
    }

    fn accepts(&mut self, tried: &str) -> bool {
        let right = !self.is_locked() && tried == *self.digits;
        self.wrong = if right { 0 } else { self.wrong.saturating_add(1) };
        right
    }
}

/// What the menu offers, in its order.
const MENU: [(&str, Action); 7] = [
    ("Cash", Action::Cash),
    ("Put notes in", Action::Replenish),
    ("Empty the box", Action::EmptyBox),
    ("Unfinished", Action::Unfinished),
    ("Totals", Action::Totals),
    ("Close the day", Action::CloseDay),
    ("Leave", Action::Leave),
];

#[derive(Clone, Copy)]
enum Action {
    Cash,
    Replenish,
    EmptyBox,
    Unfinished,
    Totals,
    CloseDay,
    Leave,
}

/// Lets a supervisor in who knows the code, until he leaves. Gives whether one was let in.
///
/// # Errors
/// [`NoAnswer::Quit`] at the end of input. [`MachineError::Journal`] if the journal cannot be written.
pub fn serve(
    machine: &mut Machine,
    code: &mut SupervisorCode,
    prompt: &mut dyn Prompt,
) -> Result<Result<bool, NoAnswer>, ElectronicJournalError> {
    match prompt.secret("Supervisor's code:") {
        Ok(tried) if code.accepts(&tried) => {}
        Ok(_) => {
            say(if code.is_locked() {
                "\nSorry, that were too many wrong codes. Start the terminal again."
            } else {
                "\nSorry, that is not the code."
            });
            return Ok(Ok(false));
        }
        Err(NoAnswer::Back) => return Ok(Ok(false)),
        Err(NoAnswer::Quit) => return Ok(Err(NoAnswer::Quit)),
    }
    prompt.clear();
    say_heading(machine.state().terminal());
    let mut supervisor = Supervisor { machine, prompt };
    loop {
        match supervisor.serve_once() {
            Ok(Asked::More) => {}
            Ok(Asked::Leave) => return Ok(Ok(true)),
            Err(Failed::Answer(NoAnswer::Back)) => {}
            Err(Failed::Answer(NoAnswer::Quit)) => return Ok(Err(NoAnswer::Quit)),
            // What the journal refuses as it cannot be is the supervisor's to mend; what the disk refuses is not.
            Err(Failed::Machine(MachineError::Journal(error @ ElectronicJournalError::Inconsistent(_)))) => {
                say_sorry(&error);
            }
            Err(Failed::Machine(MachineError::Journal(error))) => return Err(error),
            Err(Failed::Machine(error)) => say_sorry(&error),
        }
    }
}

struct Supervisor<'a> {
    machine: &'a mut Machine,
    prompt: &'a mut dyn Prompt,
}

enum Asked {
    More,
    Leave,
}

enum Failed {
    Answer(NoAnswer),
    Machine(MachineError),
}

impl From<NoAnswer> for Failed {
    fn from(answer: NoAnswer) -> Failed {
        Failed::Answer(answer)
    }
}

impl From<MachineError> for Failed {
    fn from(error: MachineError) -> Failed {
        Failed::Machine(error)
    }
}

impl Supervisor<'_> {
    fn serve_once(&mut self) -> Result<Asked, Failed> {
        say_notices(&self.machine.client.listen());
        let options = MENU.map(|(name, _)| name);
        let chosen = match self.prompt.choose("Supervisor:", &options) {
            Err(NoAnswer::Back) => return Ok(Asked::Leave),
            other => other?,
        };
        match MENU[chosen].1 {
            Action::Cash => self.say_cash(),
            Action::Replenish if self.machine.state().cut_dispense().is_some() => say(
                "\nA dispense was cut short. The notes that are there now decide it: see Unfinished first.",
            ),
            Action::Replenish => {
                let notes = self.ask_counts("put in")?;
                self.machine.replenish(notes)?;
                self.say_cash();
            }
            Action::EmptyBox => {
                let content = self.machine.empty_box()?;
                say(&format!(
                    "\nTake {} out of the deposit box.",
                    sum(self.machine.currency(), content)
                ));
            }
            Action::Unfinished => self.finish()?,
            Action::Totals => {
                self.say_totals();
                let day = self.machine.count_day()?;
                self.say_comparison(&day);
            }
            Action::CloseDay => self.close_day()?,
            Action::Leave => return Ok(Asked::Leave),
        }
        Ok(Asked::More)
    }

    fn say_cash(&self) {
        let state = self.machine.state();
        let (currency, cassettes) = (self.machine.currency(), state.cassettes());
        say_title(&format!("Cash in {currency}, {} UTC", Moment::now().time));
        let (mut names, mut counts, mut sums) = (Vec::new(), Vec::new(), Vec::new());
        let mut row = |name: String, count: Option<u32>, sum: Money| {
            names.push(name);
            counts.push(count.map(|count| count.to_string()).unwrap_or_default());
            sums.push(currency.format(sum));
        };
        for cassette in cassettes.iter() {
            let denomination = cassette.denomination.money();
            let value = denomination.minor() * i64::from(cassette.notes);
            row(
                currency.format(denomination),
                Some(cassette.notes),
                Money::from_minor(value),
            );
        }
        let (value, deposits) = (cassettes.value(), state.deposit_box());
        row("Cassettes".into(), Some(cassettes.on_hand().number()), value);
        row("Deposit box".into(), None, deposits);
        let together = value.minor().saturating_add(deposits.minor());
        row("Together".into(), None, Money::from_minor(together));
        say_table(vec![
            Column::texts("Notes of", 0, names),
            Column::numbers("Number", 0, counts),
            Column::numbers("Sum", 0, sums),
        ]);
        if !state.open().is_empty() {
            say_line("Unfinished transactions", &state.open().len().to_string());
        }
        if state.cut_dispense().is_some() {
            say(
                "A dispense was cut short: the cassettes may hold more than this. Count them, see Unfinished.",
            );
        }
    }

    /// How many notes of each cassette.
    fn ask_counts(&mut self, what: &str) -> Result<Notes, Failed> {
        let currency = self.machine.currency();
        let denominations: Vec<_> = self
            .machine
            .state()
            .cassettes()
            .iter()
            .map(|cassette| sum(currency, cassette.denomination.money()))
            .collect();
        let mut counts = Vec::new();
        for denomination in denominations {
            counts.push(loop {
                let line = self.prompt.line(&format!("Notes of {denomination} {what}:"))?;
                match line.parse() {
                    Ok(count) => break count,
                    Err(_) => say("Sorry, a number of notes is digits only, such as 0 or 500."),
                }
            });
        }
        Notes::new(counts).map_err(|error| {
            let inconsistent = ElectronicJournalError::Inconsistent(error.into());
            Failed::Machine(inconsistent.into())
        })
    }

    /// Shows what is unfinished, and has the supervisor decide what nobody else can.
    fn finish(&mut self) -> Result<(), Failed> {
        if let Err(error) = self.machine.settle(say_settled) {
            match error {
                MachineError::Journal(_) => return Err(error.into()),
                _ => say_sorry(&error),
            }
        }
        let open: Vec<_> = self.machine.state().open().values().cloned().collect();
        if open.is_empty() {
            say("\nNothing is unfinished.");
            return Ok(());
        }
        for transaction in &open {
            self.say_open(transaction);
        }
        for transaction in self.machine.for_supervisor() {
            self.decide(&transaction)?;
        }
        Ok(())
    }

    fn say_open(&self, open: &OpenTransaction) {
        let (currency, cassettes) = (self.machine.currency(), self.machine.state().cassettes());
        say_title(&format!("Unfinished: {}", name_of(open.what)));
        say_line("Since", &format!("{} UTC", Timestamp::from(open.id)));
        say_line("Account", &open.account.to_string());
        say_sum("Amount", currency, open.amount.money());
        let stage = match &open.stage {
            Stage::Asked => "The bank's answer is not known.".to_owned(),
            Stage::Answered { .. } => "The bank has answered.".to_owned(),
            Stage::Dispensing { before } => format!(
                "Cut short while {} were moving. In the cassettes before: {}.",
                cassettes.describe(&open.notes),
                cassettes.describe(before)
            ),
            Stage::Dispensed => "The notes were paid out.".to_owned(),
            Stage::Decided { dispensed } => format!("Paid out: {}.", cassettes.describe(dispensed)),
            Stage::Returned => "The money was given back.".to_owned(),
            Stage::Advised { .. } => "The bank is still to credit it.".to_owned(),
        };
        say(&format!("Ref {}", open.id));
        say(&stage);
    }

    fn decide(&mut self, open: &OpenTransaction) -> Result<(), Failed> {
        if let Stage::Dispensing { .. } = open.stage {
            say("\nCount the notes that are in the cassettes now.");
            let counted = self.ask_counts("there")?;
            let finding = self.machine.judge(open, &counted)?;
            let cassettes = self.machine.state().cassettes();
            let described = |notes: &Notes| match notes.number() {
                0 => "nothing".to_owned(),
                _ => cassettes.describe(notes),
            };
            let missing = match finding.missing.number() {
                0 => String::new(),
                _ => format!(", and {} is missing", described(&finding.missing)),
            };
            say(&format!(
                "So {} was paid out{missing}.",
                described(&finding.dispensed)
            ));
            if self.ask("Is that right?", &["yes", "no"])? == "no" {
                say("Nothing was decided.");
                return Ok(());
            }
            self.machine.decide(open, finding)?;
        } else {
            let amount = sum(self.machine.currency(), open.amount.money());
            let question = format!("{amount} is still here: given back?");
            match self.ask(&question, &["yes", "no", "credit"])? {
                "yes" => self.machine.give_back(open.id, "given back by a supervisor")?,
                "credit" => self.machine.credit_declined(open)?,
                _ => return Ok(()),
            }
        }
        Ok(self.machine.settle(say_settled)?)
    }

    /// Asks until one of the answers is given, or its first letters.
    fn ask<'a>(&mut self, question: &str, answers: &[&'a str]) -> Result<&'a str, NoAnswer> {
        loop {
            let line = self.prompt.line(&format!("{question} ({})", answers.join("/")))?;
            let line = line.to_ascii_lowercase();
            let given = answers
                .iter()
                .find(|answer| !line.is_empty() && answer.starts_with(&line));
            match given {
                Some(answer) => return Ok(answer),
                None => say(&format!("Please answer {}.", answers.join(" or "))),
            }
        }
    }

    fn say_totals(&self) {
        let (currency, state) = (self.machine.currency(), self.machine.state());
        let since = state.since_close();
        say_title(&match state.last_close() {
            Some(close) => format!("Totals since close {}, in {currency}", close.number),
            None => format!("Totals since the beginning, in {currency}"),
        });
        // What came in less what went out is the net cash; a transfer moves none.
        let paid_out = less(Money::ZERO, since.withdrawals.sum);
        let rows = [
            ("Transfers", Some(since.transfers.count), since.transfers.sum),
            ("Deposits", Some(since.deposits.count), since.deposits.sum),
            ("Withdrawals", Some(since.withdrawals.count), paid_out),
            ("Net cash", None, since.net_cash),
        ];
        let count = |count: Option<i64>| count.map(|count| count.to_string()).unwrap_or_default();
        say_table(vec![
            Column::texts("", 0, rows.map(|(name, ..)| name.to_owned()).to_vec()),
            Column::numbers("Number", 0, rows.map(|row| count(row.1)).to_vec()),
            Column::numbers("Sum", 0, rows.map(|row| currency.format(row.2)).to_vec()),
        ]);
    }

    fn close_day(&mut self) -> Result<(), Failed> {
        self.say_totals();
        let end = self.machine.close_day()?;
        say_title(&format!(
            "Close {} in {}",
            end.close.number,
            self.machine.currency()
        ));
        self.say_comparison(&end);
        Ok(())
    }

    /// What the bank has counted, and this machine; and what may explain that it is not the same.
    fn say_comparison(&self, end: &DayEnd) {
        let currency = self.machine.currency();
        let (host, terminal) = end.day();
        let line = |name: &str, sum| say_line(name, &currency.format(sum));
        line("The bank", host);
        line("This machine", terminal);
        if host == terminal {
            say("They agree.");
        } else {
            line("DIFFERENCE", less(host, terminal));
            say(if host > terminal {
                "The bank counts more than this machine."
            } else {
                "This machine counts more than the bank."
            });
        }
        if end.carried_over() != Money::ZERO {
            line("From before", end.carried_over());
        }
        for open in self.machine.state().open().values() {
            line(&format!("Open {}", name_of(open.what)), open.amount.money());
        }
    }
}

/// What was asked for, in a word.
const fn name_of(what: What) -> &'static str {
    match what {
        What::Withdrawal => "withdrawal",
        What::Deposit => "deposit",
        What::Transfer => "transfer",
    }
}

fn say_table(columns: Vec<Column>) {
    say(&table(columns, PAPER, PAPER).join("\n"));
}

/// Says what became of an unfinished transaction.
pub(crate) fn say_settled(settled: &Settled, currency: Currency) {
    let open = &settled.transaction;
    let what = match open.what {
        What::Withdrawal if settled.how == Settlement::Credited => "Of a withdrawal",
        What::Withdrawal => "A withdrawal of",
        What::Deposit => "A deposit of",
        What::Transfer => "A transfer of",
    };
    let how = match settled.how {
        Settlement::Done => "was done",
        Settlement::Declined => "was declined",
        Settlement::Reversed => "was undone, since it was not paid out",
        Settlement::Never => "was never done",
        Settlement::Credited if open.what == What::Withdrawal => "was not paid out and is credited now",
        Settlement::Credited => "is credited now",
        Settlement::Refused => "IS REFUSED BY THE BANK: see the journal",
    };
    say(&format!(
        "{what} {} of account {} {how}.",
        sum(currency, open.amount.money()),
        open.account
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_code_is_made_once_kept_and_accepted_until_too_many_were_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("code");
        let (_, made) = SupervisorCode::read_or_create(&path).unwrap();
        assert!(made);
        let digits = fs::read_to_string(&path).unwrap();
        let (mut code, made) = SupervisorCode::read_or_create(&path).unwrap();
        assert!(!made);
        for _ in 1..MAX_CODE_TRIES {
            assert!(!code.accepts("00"));
        }
        assert!(code.accepts(digits.trim()), "a right one begins the count anew");
        for _ in 0..MAX_CODE_TRIES {
            assert!(!code.accepts(""));
        }
        assert!(!code.accepts(digits.trim()));
    }

    #[test]
    fn a_file_that_holds_no_code_or_is_exposed_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("code");
        SupervisorCode::read_or_create(&path).unwrap();
        for bad in ["", "\n", "1234567\n", "1234567x\n"] {
            fs::write(&path, bad).unwrap();
            let read = SupervisorCode::read_or_create(&path);
            assert!(matches!(read, Err(SupervisorCodeError::Damaged(_))), "{bad:?}");
        }
        fs::write(&path, "12345678\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let read = SupervisorCode::read_or_create(&path);
        assert!(matches!(read, Err(SupervisorCodeError::Exposed(_))));
    }
}
