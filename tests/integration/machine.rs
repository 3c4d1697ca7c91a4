//! The machine: its cash, its journal, what it finds when it is started, and its supervisor.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use atm_cli::connection::Outcome;
use atm_cli::dispenser::{Cassettes, Notes};
use atm_cli::electronic_journal::{self, Answer, ElectronicJournal, Record, Settlement, What};
use atm_tests::{Server, TestBank, program, stderr, stdout};
use bank_core::{AccountId, Amount, Currency, Moment, TerminalId, TxnId};

const ATM: &str = "ATM-1";

fn amount(minor: i64) -> Amount {
    Amount::from_minor(minor).unwrap()
}

fn account() -> AccountId {
    AccountId::new(1).unwrap()
}

fn cassettes() -> Cassettes {
    Cassettes::parse("50x10,20x10", Currency::USD).unwrap()
}

fn notes(counts: [u32; 2]) -> Notes {
    Notes::new(counts.to_vec()).unwrap()
}

/// The balance of account 1 in minor units.
fn balance(server: &Server) -> i64 {
    server.login("1", "0001").balance().unwrap().balance.minor()
}

/// Begins the journal of a machine that lost its power after these records.
fn lost_its_power_after(bank: &TestBank, records: &[Record]) {
    let terminal = TerminalId::new(ATM).unwrap();
    let now = Moment::now().time;
    let path = bank.terminal_journal();
    let (mut journal, _) =
        ElectronicJournal::open(Path::new(&path), terminal, Some(&cassettes()), now).unwrap();
    journal.append(now, records).unwrap();
}

/// A withdrawal of 90.00 that the bank may have approved, and how far the machine came with it.
fn withdrawal(id: TxnId, asked: Option<&Outcome>, dispensing: bool) -> Vec<Record> {
    let mut records = vec![Record::Intent {
        id,
        account: account(),
        what: What::Withdrawal,
        amount: amount(9000),
        notes: notes([1, 2]),
    }];
    if let Some(Outcome::Approved(lsn, _)) = asked {
        let outcome = Answer::Approved;
        let lsn = *lsn;
        records.push(Record::Answered { id, outcome, lsn });
    }
    if dispensing {
        records.push(Record::Dispensing {
            id,
            before: notes([10, 10]),
            notes: notes([1, 2]),
        });
    }
    records
}

/// Has the bank pay out 90.00 at the machine.
fn approve(server: &Server, id: TxnId) -> Outcome {
    let mut connection =
        atm_cli::connection::Connection::connect(server.address(), ATM.parse().unwrap()).unwrap();
    connection.login(&"1".parse().unwrap(), "0001").unwrap();
    connection.withdraw(id, amount(9000)).unwrap()
}

fn settlement(bank: &TestBank, id: TxnId) -> Option<Settlement> {
    let (records, _) = electronic_journal::read(Path::new(&bank.terminal_journal())).unwrap();
    records.iter().find_map(|(_, record)| match record {
        Record::Settled { id: settled, how, .. } if *settled == id => Some(*how),
        _ => None,
    })
}

#[test]
fn what_was_not_paid_out_is_undone_whether_the_bank_had_done_it_or_not() {
    for (asked_the_bank, answer_came, how) in [
        (true, true, Settlement::Reversed),
        (true, false, Settlement::Reversed),
        (false, false, Settlement::Never),
    ] {
        let bank = TestBank::generate(2);
        let server = bank.serve();
        let id = TxnId::generate();
        let answer = asked_the_bank.then(|| approve(&server, id));
        lost_its_power_after(
            &bank,
            &withdrawal(id, answer.as_ref().filter(|_| answer_came), false),
        );
        let started = bank.menu(server.address(), "q\n");
        let text = stdout(&started);
        let said = match how {
            Settlement::Reversed => "was undone, since it was not paid out",
            _ => "was never done",
        };
        assert!(text.contains(said), "{text}");
        assert_eq!(settlement(&bank, id), Some(how));
        assert_eq!(balance(&server), 100_000);
        // A copy of the request that comes late does nothing.
        if !asked_the_bank {
            assert!(matches!(approve(&server, id), Outcome::Declined { code: 11, .. }));
        }
        assert!(server.stop().0.success());
        bank.assert_verifies();
    }
}

#[test]
fn what_the_bank_refuses_for_ever_is_said_once_and_keeps_nothing_else_open() {
    let bank = TestBank::nowhere();
    let full = ["generate", "--accounts", "1", "--balance", "92233720368547758.00"];
    assert!(bank.server_command(&full).status.success());
    let server = bank.serve();
    let intent = |id, number, what| Record::Intent {
        id,
        account: AccountId::new(number).unwrap(),
        what,
        amount: amount(5000),
        notes: match what {
            What::Withdrawal => notes([1, 0]),
            _ => Notes::default(),
        },
    };
    // A deposit that the account cannot hold, one for an account that is not there, and a withdrawal behind them.
    let [too_much, unknown, withdrawal] = [(); 3].map(|()| TxnId::generate());
    lost_its_power_after(
        &bank,
        &[
            intent(too_much, 1, What::Deposit),
            intent(unknown, 999, What::Deposit),
            intent(withdrawal, 1, What::Withdrawal),
        ],
    );
    let text = stdout(&bank.menu(server.address(), "q\n"));
    assert_eq!(text.matches("IS REFUSED BY THE BANK").count(), 2, "{text}");
    assert_eq!(settlement(&bank, too_much), Some(Settlement::Refused));
    assert_eq!(settlement(&bank, unknown), Some(Settlement::Refused));
    assert_eq!(settlement(&bank, withdrawal), Some(Settlement::Never));
    let (_, state) = electronic_journal::read(Path::new(&bank.terminal_journal())).unwrap();
    assert!(state.open().is_empty());
    // The money is in the box, and the bank does not know of it: every close says so.
    let text = supervise(&bank, &server, "6\n6\n7\nq\n");
    assert!(squeezed(&text).contains("DIFFERENCE -100.00"), "{text}");
    assert!(text.contains("They agree."), "{text}");
    assert!(squeezed(&text).contains("From before -100.00"), "{text}");
}

/// The lines with one space where there were several: what stands under what is tested elsewhere.
fn squeezed(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n")
}

/// Runs the supervisor's menu with these lines. Gives what was shown.
fn supervise(bank: &TestBank, server: &Server, lines: &str) -> String {
    // The first start makes the code.
    bank.menu(server.address(), "q\n");
    let code = std::fs::read_to_string(bank.terminal_journal() + ".code").unwrap();
    let output = bank.menu(server.address(), &format!("*\n{code}{lines}"));
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

#[test]
fn a_dispense_that_was_cut_short_is_decided_by_counting_the_notes() {
    // What is in the cassettes of 50 and 20 afterwards, what the account has, and how much the machine has paid out.
    for (counted, left, paid) in [
        ([9, 8], 91_000, 9000),
        ([10, 10], 100_000, 0),
        ([9, 10], 95_000, 5000),
    ] {
        let bank = TestBank::generate(2);
        let server = bank.serve();
        let id = TxnId::generate();
        let answer = approve(&server, id);
        lost_its_power_after(&bank, &withdrawal(id, Some(&answer), true));
        // Until then nothing is paid out, but all else goes on.
        let text = stdout(&bank.menu(server.address(), "1\n0001\n3\n20\n2\n30\n3\n20\n8\n"));
        assert_eq!(
            text.matches("cannot pay out money at present").count(),
            2,
            "{text}"
        );
        assert!(text.contains("APPROVED"), "{text}");
        let [fifties, twenties] = counted;
        let text = supervise(
            &bank,
            &server,
            &format!("4\n{fifties}\n{twenties}\nyes\n1\n6\n7\n1\n0001\n3\n20\n8\n"),
        );
        assert!(
            text.contains("Cut short while 1 x 50, 2 x 20 were moving"),
            "{text}"
        );
        assert!(text.contains("They agree."), "{text}");
        assert!(text.contains("Please take your cash: 1 x 20"), "{text}");
        assert_eq!(balance(&server), left + 3000 - 2000, "{counted:?}");
        let (_, state) = electronic_journal::read(Path::new(&bank.terminal_journal())).unwrap();
        assert!(state.open().is_empty());
        assert_eq!(state.net_cash().minor(), 3000 - 2000 - paid);
        assert!(server.stop().0.success());
        bank.assert_verifies();
    }
}

#[test]
fn a_count_that_cannot_be_is_refused_and_asked_for_again() {
    let bank = TestBank::generate(2);
    let server = bank.serve();
    let id = TxnId::generate();
    let answer = approve(&server, id);
    lost_its_power_after(&bank, &withdrawal(id, Some(&answer), true));
    // More notes than there were; a slip that is taken back; and one note fewer than the whole dispense would have left.
    let text = supervise(
        &bank,
        &server,
        "4\n11\n10\n4\n8\n7\nno\n4\nx\n9\n7\nyes\n1\n7\nq\n",
    );
    assert!(
        text.contains("those are more notes than were there before (10 x 50, 10 x 20): count them again"),
        "{text}"
    );
    assert!(text.contains("Nothing was decided."), "{text}");
    assert!(
        text.contains("So 1 x 50, 2 x 20 was paid out, and 1 x 50, 1 x 20 is missing."),
        "{text}"
    );
    assert!(text.contains("a number of notes is digits only"), "{text}");
    assert!(
        text.contains("So 1 x 50, 2 x 20 was paid out, and 1 x 20 is missing."),
        "{text}"
    );
    assert!(squeezed(&text).contains("20.00 7 140.00"), "{text}");
    assert_eq!(settlement(&bank, id), Some(Settlement::Done));
    assert_eq!(balance(&server), 91_000);
}

#[test]
fn a_sum_that_the_notes_cannot_make_is_refused_before_the_bank_is_asked() {
    let bank = TestBank::generate(1);
    let server = bank.serve();
    let journal = bank.terminal_journal();
    let run = |input: &str| {
        let options = ["--journal", &journal, "--cassettes", "50x2,20x2"];
        stdout(&server.atm_cli(&options, input))
    };
    let text = run("1\n0001\n3\n60\n3\n20.50\n3\n5\n3\n9999\n3\n90\n8\n");
    for nearest in [
        "It can pay 50.00 USD or 70.00 USD.",
        "It can pay 20.00 USD or 40.00 USD.",
        "It can pay 20.00 USD.",
        "It can pay 140.00 USD.",
    ] {
        assert!(text.contains(nearest), "{nearest}: {text}");
    }
    assert!(text.contains("Please take your cash: 1 x 50, 2 x 20"), "{text}");
    // The notes are gone for good; what the option says is for a new machine.
    assert!(run("1\n0001\n3\n100\n3\n50\n3\n10\n8\n").contains("It has no notes left."));
    let (_, lines) = server.login("1", "0001").statement(10).unwrap();
    assert_eq!(lines.len(), 3, "the opening and what could be paid: {lines:?}");
    drop(server);
    bank.assert_verifies();
}

/// The menu of a machine with little patience, driven line by line.
struct Menu {
    process: std::process::Child,
    keys: std::process::ChildStdin,
    screen: BufReader<std::process::ChildStdout>,
    seen: String,
}

impl Menu {
    fn start(bank: &TestBank, server: &str) -> Menu {
        let mut process = Command::new(program("atm-cli"))
            .args([
                "--server",
                server,
                "--journal",
                &bank.terminal_journal(),
                "--deadline",
                "3",
                "--cassettes",
                "50x200,20x500,10x500",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Menu {
            keys: process.stdin.take().unwrap(),
            screen: BufReader::new(process.stdout.take().unwrap()),
            process,
            seen: String::new(),
        }
    }

    fn type_in(&mut self, lines: &str) {
        self.keys.write_all(lines.as_bytes()).unwrap();
    }

    fn wait_for(&mut self, text: &str) {
        let from = self.seen.len();
        while !self.seen[from..].contains(text) {
            let read = self.screen.read_line(&mut self.seen).unwrap();
            assert!(read > 0, "{text:?} never came:\n{}", self.seen);
        }
    }
}

impl Drop for Menu {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn money_that_was_taken_while_the_bank_was_away_is_credited_when_it_is_back() {
    let bank = TestBank::generate(1);
    let server = bank.serve();
    let address = server.address().to_owned();
    let mut menu = Menu::start(&bank, &address);
    menu.type_in("1\n0001\n");
    menu.wait_for("Quit");
    server.kill();
    menu.type_in("2\n30\n");
    menu.wait_for("YOUR MONEY IS KEPT: 30.00 USD");
    menu.type_in("3\n20\n");
    menu.wait_for("NO MONEY IS PAID OUT");
    // Power goes, too.
    drop(menu);
    let mut command = Command::new(program("atm-server"));
    command
        .args(["serve", "--listen", &address])
        .env("ATM_BANK", bank.path());
    let server = Server::start(command);
    let mut menu = Menu::start(&bank, &address);
    menu.wait_for("A deposit of 30.00 USD of account 1 is credited now.");
    menu.wait_for("A withdrawal of 20.00 USD of account 1 was never done.");
    menu.type_in("1\n0001\n1\n");
    menu.wait_for("Your balance is 1030.00 USD.");
    drop(menu);
    let (_, lines) = server.login("1", "0001").statement(10).unwrap();
    assert_eq!(
        lines.iter().map(|line| line.kind).collect::<Vec<_>>(),
        [7, 6, 4],
        "a fence, an advice, the opening"
    );
    drop(server);
    bank.assert_verifies();
}

#[test]
fn a_deposit_that_the_bank_declines_is_given_back() {
    let bank = TestBank::generate(1);
    rusqlite::Connection::open(bank.path())
        .unwrap()
        .execute_batch("UPDATE accounts SET status = 'frozen'")
        .unwrap();
    let server = bank.serve();
    let text = stdout(&bank.menu(server.address(), "1\n0001\n2\n30\n8\n"));
    assert!(text.contains("Please take your money back."), "{text}");
    assert!(text.contains("This account is frozen."), "{text}");
    let (_, state) = electronic_journal::read(Path::new(&bank.terminal_journal())).unwrap();
    assert_eq!((state.deposit_box().minor(), state.net_cash().minor()), (0, 0));
    // The power goes before it is given back: then a supervisor sees to it.
    let id = TxnId::generate();
    let outcome = server.login("1", "0001").deposit(id, amount(500)).unwrap();
    let Outcome::Declined { lsn, code, .. } = outcome else {
        panic!("the account is frozen");
    };
    let what = What::Deposit;
    lost_its_power_after(
        &bank,
        &[
            Record::Intent {
                id,
                account: account(),
                what,
                amount: amount(500),
                notes: Notes::default(),
            },
            Record::Answered {
                id,
                outcome: Answer::Declined(code),
                lsn,
            },
        ],
    );
    let text = supervise(&bank, &server, "3\n4\nno\n4\nyes\n4\n3\n7\nq\n");
    assert!(text.contains("is still to be given back"), "{text}");
    assert!(text.contains("Take 0.00 USD out of the deposit box."), "{text}");
    assert!(text.contains("5.00 USD is still here: given back?"), "{text}");
    assert!(text.contains("Nothing is unfinished."), "{text}");
    assert_eq!(settlement(&bank, id), Some(Settlement::Declined));
}

#[test]
fn money_of_a_deposit_that_was_declined_unheard_is_credited_all_the_same() {
    let bank = TestBank::generate(1);
    let file = || rusqlite::Connection::open(bank.path()).unwrap();
    file()
        .execute_batch("UPDATE accounts SET status = 'frozen'")
        .unwrap();
    let server = bank.serve();
    let id = TxnId::generate();
    let mut connection =
        atm_cli::connection::Connection::connect(server.address(), ATM.parse().unwrap()).unwrap();
    connection.login(&"1".parse().unwrap(), "0001").unwrap();
    connection.deposit(id, amount(500)).unwrap();
    let what = What::Deposit;
    let intent = Record::Intent {
        id,
        account: account(),
        what,
        amount: amount(500),
        notes: Notes::default(),
    };
    lost_its_power_after(&bank, &[intent]);
    let text = stdout(&bank.menu(server.address(), "q\n"));
    assert!(
        text.contains("A deposit of 5.00 USD of account 1 is credited now."),
        "{text}"
    );
    let (_, state) = electronic_journal::read(Path::new(&bank.terminal_journal())).unwrap();
    assert!(state.open().is_empty(), "{:?}", state.open());
    assert_eq!(balance(&server), 100_500);
    drop(server);
    bank.assert_verifies();
}

#[test]
fn a_supervisor_needs_the_code_and_sees_to_cash_and_days() {
    let bank = TestBank::generate(1);
    let server = bank.serve();
    let wrong = stdout(&bank.menu(server.address(), "*\n1234\n*\n\n*\n5\nq\n"));
    assert_eq!(wrong.matches("that is not the code").count(), 2, "{wrong}");
    assert!(wrong.contains("too many wrong codes"), "{wrong}");
    let text = supervise(
        &bank,
        &server,
        "1\n2\n0\n0\n9999999\n7\n1\n0001\n2\n12.50\n3\n30\n7\nq\n",
    );
    assert!(squeezed(&text).contains("50.00 200 10000.00"), "{text}");
    assert!(text.contains("a cassette holds at most 10000 notes"), "{text}");
    let text = supervise(&bank, &server, "2\n1\n2\n3\n3\n5\n6\n5\n7\nq\n");
    assert!(
        squeezed(&text).contains("20.00 501 10020.00"),
        "one was paid out: {text}"
    );
    assert!(text.contains("Take 12.50 USD out of the deposit box."), "{text}");
    for line in [
        "Deposits 1 12.50",
        "Withdrawals 1 -30.00",
        "Net cash -17.50",
        "Close 1",
        "The bank -17.50",
        "This machine -17.50",
        "They agree.",
        "since close 1",
        "Withdrawals 0 0.00",
    ] {
        assert!(squeezed(&text).contains(line), "{line}: {text}");
    }
    // Somebody moves cash at the bank under this machine's id.
    let forged = server.atm_cli(
        &[
            "deposit",
            "--card",
            "1",
            "--pin-file",
            "-",
            "--terminal",
            ATM,
            "0.75",
        ],
        "0001\n",
    );
    assert!(forged.status.success());
    let text = supervise(&bank, &server, "6\n7\nq\n");
    assert!(squeezed(&text).contains("DIFFERENCE 0.75"), "{text}");
    drop(server);
    bank.assert_verifies();
}

#[test]
fn a_journal_has_one_machine_and_what_somebody_changed_is_not_guessed_at() {
    let bank = TestBank::generate(1);
    let server = bank.serve();
    let menu = Menu::start(&bank, server.address());
    let mut menu = menu;
    menu.wait_for("Welcome");
    let second = bank.menu(server.address(), "q\n");
    assert_eq!(second.status.code(), Some(1));
    assert!(
        stderr(&second).contains("in use by another terminal"),
        "{}",
        stderr(&second)
    );
    drop(menu);
    let others = ["--journal", &bank.terminal_journal(), "--cassettes", "20x5"];
    let refused = server.atm_cli(&others, "q\n");
    assert!(
        stderr(&refused).contains("a machine with USD 50x200,20x500,10x500"),
        "{}",
        stderr(&refused)
    );
    let useless = server.atm_cli(
        &["--journal", "x", "balance", "--card", "1", "--pin-file", "-"],
        "0001\n",
    );
    assert_eq!(useless.status.code(), Some(2), "{}", stderr(&useless));
    let other = server.atm_cli(
        &["--journal", &bank.terminal_journal(), "--terminal", "ATM-2"],
        "q\n",
    );
    assert!(
        stderr(&other).contains("journal of terminal ATM-1"),
        "{}",
        stderr(&other)
    );
    // Half a record, as a power cut leaves it.
    let path = bank.terminal_journal();
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&whole[..], b"0123abcd {\"st"].concat()).unwrap();
    let torn = bank.menu(server.address(), "q\n");
    assert!(
        torn.status.success() && stdout(&torn).contains("do not count"),
        "{}",
        stdout(&torn)
    );
    let mut changed = whole.clone();
    changed[40] ^= 1;
    std::fs::write(&path, [&changed[..], &whole[..]].concat()).unwrap();
    let refused = bank.menu(server.address(), "q\n");
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("damaged in line 1"),
        "{}",
        stderr(&refused)
    );
}

#[test]
fn the_menu_leaves_nothing_open_behind() {
    let bank = TestBank::generate(2);
    let server = bank.serve();
    bank.menu(
        server.address(),
        "1\n0001\n3\n50\n2\n10.25\n4\n2\n5\n3\n9999\n4\n9\n1\n3\n1500\n8\n",
    );
    let (records, state) = electronic_journal::read(Path::new(&bank.terminal_journal())).unwrap();
    assert!(state.open().is_empty());
    let dispensed = records
        .iter()
        .filter(|(_, record)| matches!(record, Record::Dispensed { .. }))
        .count();
    assert_eq!(dispensed, 1);
    assert_eq!(state.net_cash().minor(), 1025 - 5000);
}
