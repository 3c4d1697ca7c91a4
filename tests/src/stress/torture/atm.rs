//! A customer and a supervisor before a real terminal, which may lose its power at any time.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use atm_cli::electronic_journal::{self, Stage};
use bank_core::{AccountId, TerminalId, TxnId};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::screen::{Gone, Screen, Victim};
use super::{ACCOUNTS, pause, pin_of};
use crate::program;

/// What is in the cassettes to begin with, and what they are filled up to: denomination in whole dollars, and notes.
const CASSETTES: [(i64, u32); 3] = [(50, 200), (20, 500), (10, 500)];

/// From a line typed to what must come of it, which may take a server's restart and a client's pauses.
const PATIENCE: Duration = Duration::from_secs(45);

const CARD: &str = "Card:";
const MENU: &str = "Menu:";
const SUPERVISOR: &str = "Supervisor:";

/// A terminal: its files outlive its process.
pub(super) struct Atm {
    pub(super) id: TerminalId,
    pub(super) directory: PathBuf,
    pub(super) victim: Victim,
}

/// What a round's customers and supervisors met.
#[derive(Default)]
pub(super) struct AtmFigures {
    /// "Trying again" on the screen: requests that were made again.
    pub(super) repeats: u64,
    /// Unfinished transactions that a restarted terminal settled.
    pub(super) settled: u64,
    /// Dispenses that a supervisor had to decide.
    pub(super) decided: u64,
    /// What customers read on receipts.
    pub(super) receipts: Vec<(TerminalId, Receipt)>,
    /// What went wrong with the terminal itself.
    pub(super) problems: Vec<String>,
}

/// What a customer can read on a receipt. Its account is not among it, but its id is its own.
#[derive(Clone, Debug)]
pub(super) struct Receipt {
    pub(super) id: TxnId,
    pub(super) approved: bool,
    pub(super) lsn: u64,
    pub(super) amount: i64,
    pub(super) balance: i64,
}

impl Atm {
    pub(super) fn new(directory: &Path, number: usize) -> Atm {
        Atm {
            id: format!("ATM-{number}").parse().expect("a terminal id"),
            directory: directory.to_owned(),
            victim: Victim::default(),
        }
    }

    fn file(&self, extension: &str) -> PathBuf {
        self.directory.join(format!("{}.{extension}", self.id))
    }

    /// Where its secret is.
    pub(super) fn secret(&self) -> PathBuf {
        self.file("secret")
    }

    /// Its electronic journal.
    pub(super) fn journal(&self) -> PathBuf {
        self.file("journal")
    }

    /// Every note that has left it: the transaction and the note's value in minor units.
    pub(super) fn notes_out(&self) -> Vec<(TxnId, i64)> {
        let tray = fs::read_to_string(self.file("tray")).unwrap_or_default();
        // A line without its end is a note that got stuck when the power went.
        let whole = tray.rfind('\n').map_or("", |last| &tray[..last]);
        whole
            .lines()
            .map(|line| {
                let (id, value) = line.split_once(' ').expect("a line is an id and a value");
                (
                    id.parse().expect("a transaction id"),
                    value.parse().expect("minor units"),
                )
            })
            .collect()
    }

    fn start(&self, server: &str) -> Screen {
        let cassettes = CASSETTES.map(|(denomination, notes)| format!("{denomination}x{notes}"));
        let mut command = Command::new(program("atm-cli"));
        command
            .args(["--server", server, "--terminal", self.id.as_str()])
            .args(["--cassettes", &cassettes.join(",")])
            .arg("--terminal-secret-file")
            .arg(self.secret())
            .arg("--journal")
            .arg(self.journal())
            .arg("--tray")
            .arg(self.file("tray"));
        Screen::start(command, &self.victim, &self.file("errors"))
    }

    /// Serves customers until told to stop, whatever happens to the process.
    pub(super) fn serve(&self, server: &str, seed: u64, stop: &AtomicBool) -> AtmFigures {
        let mut random = StdRng::seed_from_u64(seed);
        let mut figures = AtmFigures::default();
        while !stop.load(Ordering::Acquire) {
            let mut screen = self.start(server);
            let end = self.serve_customers(&mut screen, &mut random, stop, &mut figures);
            figures.look_at(self.id, &screen);
            match end {
                Ok(()) => {}
                Err(Gone::Ended) if self.victim.was_killed() => {}
                Err(Gone::Ended) => figures.problems.push(format!(
                    "{} ended by itself: {} {}",
                    self.id,
                    fs::read_to_string(self.file("errors")).unwrap_or_default(),
                    screen.seen()
                )),
                Err(Gone::Silent(seen)) => {
                    figures
                        .problems
                        .push(format!("{} says nothing more: {seen}", self.id));
                    return figures;
                }
            }
            drop(screen);
            pause(random.random_range(Duration::ZERO..Duration::from_millis(100)));
        }
        figures
    }

    fn serve_customers(
        &self,
        screen: &mut Screen,
        random: &mut StdRng,
        stop: &AtomicBool,
        figures: &mut AtmFigures,
    ) -> Result<(), Gone> {
        screen.expect(&[CARD], PATIENCE)?;
        // A machine that cannot pay out is of little use to this test.
        if self.is_cut_short() {
            self.let_supervisor_in(screen)?;
            self.finish(screen, figures)?;
            screen.type_line("7")?;
            screen.expect(&[CARD], PATIENCE)?;
        }
        while !stop.load(Ordering::Acquire) {
            self.serve_customer(screen, random)?;
        }
        Ok(())
    }

    /// From the card's prompt to the next.
    fn serve_customer(&self, screen: &mut Screen, random: &mut StdRng) -> Result<(), Gone> {
        let account = random.random_range(1..=ACCOUNTS);
        screen.type_line(&account.to_string())?;
        screen.expect(&["PIN:"], PATIENCE)?;
        screen.type_line(&pin_of(account))?;
        for _ in 0..random.random_range(1..8) {
            if screen.expect(&[MENU, CARD], PATIENCE)? == 1 {
                return Ok(());
            }
            let wants: &[String] = &match random.random_range(0..10) {
                // A sum that the machine cannot pay.
                0 => vec!["3".into(), "25".into()],
                1..=5 => vec!["3".into(), (10 * random.random_range(1..=30)).to_string()],
                6..=7 => vec!["2".into(), format!("{}.25", random.random_range(1..200))],
                8 => vec![
                    "4".into(),
                    random.random_range(1..=ACCOUNTS).to_string(),
                    random.random_range(1..100).to_string(),
                ],
                _ => vec!["1".into()],
            };
            screen.type_line(&wants[0])?;
            for answer in &wants[1..] {
                screen.expect(&["Amount in USD:", "Account to pay:"], PATIENCE)?;
                screen.type_line(answer)?;
            }
        }
        if screen.expect(&[MENU, CARD], PATIENCE)? == 0 {
            screen.type_line("7")?;
            screen.expect(&[CARD], PATIENCE)?;
        }
        Ok(())
    }

    /// With the bank back for good: the terminal settles what it can, the supervisor decides the rest, and the day is
    /// closed. Gives what is wrong.
    pub(super) fn close_the_day(&self, server: &str, figures: &mut AtmFigures) -> Result<(), String> {
        let mut screen = self.start(server);
        let closed = self.supervise(&mut screen, figures);
        figures.look_at(self.id, &screen);
        let text = closed.map_err(|gone| match gone {
            Gone::Ended => format!("{} ended: {}", self.id, screen.seen()),
            Gone::Silent(seen) => format!("{} says nothing more: {seen}", self.id),
        })?;
        if text.contains("They agree.") {
            Ok(())
        } else {
            Err(format!(
                "{}: the bank and the terminal do not agree: {text}",
                self.id
            ))
        }
    }

    fn supervise(&self, screen: &mut Screen, figures: &mut AtmFigures) -> Result<String, Gone> {
        screen.expect(&[CARD], PATIENCE)?;
        self.let_supervisor_in(screen)?;
        self.finish(screen, figures)?;
        screen.type_line("2")?;
        for count in self.missing_notes() {
            screen.expect(&["put in:"], PATIENCE)?;
            screen.type_line(&count.to_string())?;
        }
        screen.expect(&[SUPERVISOR], PATIENCE)?;
        let start = screen.seen().len();
        screen.type_line("6")?;
        screen.expect(&[SUPERVISOR], PATIENCE)?;
        let text = screen.since(start).to_owned();
        screen.type_line("7")?;
        screen.expect(&[CARD], PATIENCE)?;
        screen.type_line("q")?;
        Ok(text)
    }

    /// From the card's prompt to the supervisor's menu.
    fn let_supervisor_in(&self, screen: &mut Screen) -> Result<(), Gone> {
        let code = fs::read_to_string(self.file("journal.code")).expect("the terminal has made its code");
        screen.type_line("*")?;
        screen.expect(&["code:"], PATIENCE)?;
        screen.type_line(code.trim())?;
        screen.expect(&[SUPERVISOR], PATIENCE).map(drop)
    }

    /// Finishes what is unfinished, counting notes where they decide. From the supervisor's menu to the next.
    fn finish(&self, screen: &mut Screen, figures: &mut AtmFigures) -> Result<(), Gone> {
        screen.type_line("4")?;
        loop {
            match screen.expect(&["there:", "(yes/no", SUPERVISOR], PATIENCE)? {
                0 => {
                    figures.decided += 1;
                    let counts = self.count_notes();
                    screen.type_line(&counts[0].to_string())?;
                    for count in &counts[1..] {
                        screen.expect(&["there:"], PATIENCE)?;
                        screen.type_line(&count.to_string())?;
                    }
                }
                1 => screen.type_line("yes")?,
                _ => return Ok(()),
            }
        }
    }

    /// What a supervisor finds in the cassettes: what was put in less what has left through the tray.
    fn count_notes(&self) -> Vec<u32> {
        let (records, _) = electronic_journal::read(&self.journal()).expect("the journal can be read");
        let mut notes = CASSETTES.map(|(_, notes)| notes).to_vec();
        for (_, record) in &records {
            if let electronic_journal::Record::Replenished { notes: added } = record {
                for (count, added) in notes.iter_mut().zip(added.counts()) {
                    *count += added;
                }
            }
        }
        for (_, value) in self.notes_out() {
            let cassette = CASSETTES
                .iter()
                .position(|(denomination, _)| denomination * 100 == value);
            notes[cassette.expect("a note of a cassette")] -= 1;
        }
        notes
    }

    fn missing_notes(&self) -> Vec<u32> {
        self.count_notes()
            .iter()
            .zip(CASSETTES)
            .map(|(&there, (_, full))| full - there)
            .collect()
    }

    /// Checks the terminal's journal and its notes against the host's rows. Gives what is wrong.
    pub(super) fn check(&self, host: &super::check::Host) -> Vec<String> {
        let mut problems = Vec::new();
        let (records, state) = match electronic_journal::read(&self.journal()) {
            Ok(read) => read,
            Err(error) => return vec![format!("{}: {error}", self.id)],
        };
        for open in state.open().values() {
            problems.push(format!(
                "{}: {} is still open: {:?}",
                self.id, open.id, open.stage
            ));
        }
        let mut paid: HashMap<TxnId, i64> = HashMap::new();
        for (id, value) in self.notes_out() {
            *paid.entry(id).or_default() += value;
        }
        let mut cash = HashMap::new();
        let (mut returned, mut dispensing) = (Vec::new(), HashSet::new());
        let (mut transfers, mut settled) = (HashMap::new(), HashMap::new());
        let mut credits: HashMap<TxnId, Vec<(AccountId, TxnId)>> = HashMap::new();
        for (_, record) in &records {
            use electronic_journal::{Record, What};
            match record {
                Record::Intent {
                    id,
                    account,
                    what,
                    amount,
                    ..
                } if *what != What::Transfer => {
                    cash.insert(*id, (*account, *what, amount.minor()));
                }
                Record::Intent {
                    id, account, amount, ..
                } => {
                    transfers.insert(*id, (*account, amount.minor()));
                }
                Record::Settled { id, how, .. } => {
                    settled.insert(*id, *how);
                }
                Record::Dispensing { id, .. } => {
                    dispensing.insert(*id);
                }
                Record::Returned { id } => returned.push(*id),
                Record::Advised {
                    id,
                    account,
                    original,
                    ..
                } if id != original => credits.entry(*original).or_default().push((*account, *id)),
                _ => {}
            }
        }
        for id in paid.keys().filter(|id| !dispensing.contains(id)) {
            problems.push(format!(
                "{}: notes of {id} have left without a dispense in the journal",
                self.id
            ));
        }
        for (id, (account, amount)) in transfers {
            let done = settled.get(&id) == Some(&electronic_journal::Settlement::Done);
            let (expected, found) = (if done { -amount } else { 0 }, host.in_force(account, id));
            if expected != found {
                problems.push(format!(
                    "{}: {id}, a transfer of {amount} that was settled {:?}, moved {found} (minor units)",
                    self.id,
                    settled.get(&id)
                ));
            }
        }
        for (id, (account, what, amount)) in cash {
            let host_moved: i64 = host.in_force(account, id)
                + credits
                    .get(&id)
                    .into_iter()
                    .flatten()
                    .map(|&(account, id)| host.in_force(account, id))
                    .sum::<i64>();
            let moved = match what {
                electronic_journal::What::Withdrawal => -paid.get(&id).copied().unwrap_or(0),
                _ if returned.contains(&id) => 0,
                _ => amount,
            };
            if host_moved != moved {
                problems.push(format!(
                    "{}: {id}, a {what:?} of {amount}: {moved} moved here, {host_moved} at the bank (minor units)",
                    self.id
                ));
            }
        }
        let host_total = host.cash(self.id);
        if host_total != i128::from(state.net_cash().minor()) {
            problems.push(format!(
                "{}: counts {} minor units of cash, the bank {host_total}",
                self.id,
                state.net_cash().minor()
            ));
        }
        problems
    }

    /// How many bytes the notes that have left are written in: while it grows, notes are moving.
    pub(super) fn tray_bytes(&self) -> u64 {
        fs::metadata(self.file("tray")).map_or(0, |tray| tray.len())
    }

    /// Whether a dispense was cut short.
    fn is_cut_short(&self) -> bool {
        electronic_journal::read(&self.journal()).is_ok_and(|(_, state)| {
            state
                .open()
                .values()
                .any(|open| matches!(open.stage, Stage::Dispensing { .. }))
        })
    }
}

impl AtmFigures {
    fn look_at(&mut self, terminal: TerminalId, screen: &Screen) {
        self.repeats += screen.seen().matches("Trying again").count() as u64;
        let ends = [" was undone, since", " was never done", " is credited now"];
        self.settled += ends
            .iter()
            .map(|end| screen.seen().matches(end).count() as u64)
            .sum::<u64>();
        self.receipts
            .extend(receipts(screen.seen()).map(|receipt| (terminal, receipt)));
    }

    pub(super) fn add(&mut self, other: &AtmFigures) {
        self.repeats += other.repeats;
        self.settled += other.settled;
        self.decided += other.decided;
        self.receipts.extend(other.receipts.iter().cloned());
        self.problems.extend(other.problems.iter().cloned());
    }
}

/// The receipts on a screen, the whole ones.
fn receipts(screen: &str) -> impl Iterator<Item = Receipt> + '_ {
    let minor = |line: &str| -> Option<i64> {
        let sum = line.strip_suffix(" USD")?.split_whitespace().last()?;
        sum.replace('.', "").parse().ok()
    };
    let lines: Vec<_> = screen.lines().collect();
    let decided = (0..lines.len()).filter_map(move |n| {
        let approved = lines[n].ends_with(" APPROVED");
        if !approved && !lines[n].ends_with(" DECLINED") {
            return None;
        }
        let length = lines[n..].iter().position(|line| line.starts_with("==="))?;
        let line = |beginning: &str| {
            let of_receipt = &lines[n + 1..n + length];
            of_receipt.iter().find_map(|line| line.strip_prefix(beginning))
        };
        let (lsn, _) = lines[n + length - 1].split_once(':')?;
        Some(Receipt {
            id: line("Ref ")?.parse().ok()?,
            approved,
            lsn: lsn.parse().ok()?,
            amount: minor(line(if approved { "Amount " } else { "Asked for " })?)?,
            balance: minor(line("Balance ")?)?,
        })
    });
    decided.collect::<Vec<_>>().into_iter()
}
