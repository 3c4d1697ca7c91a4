//! The menu, as a person at a terminal and as a pipe sees it.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use atm_tests::{TestBank, program, stdout};

const SAMPLE: &str = include_str!("../../data/accounts.csv");

/// That `text` holds the parts, one after the other.
fn assert_in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else {
            panic!("{part:?} does not come, or not here:\n{text}")
        };
        rest = after;
    }
}

#[test]
fn a_pipe_can_do_all_that_a_person_can() {
    let bank = TestBank::load(SAMPLE);
    let server = bank.serve();
    let lines = [
        "Ken", "1111", // a wrong PIN
        "Ken", "2468", "1", "2", "20.50", "3", "1000", "3", "abc", "0",
        "40", // balance, deposit, withdrawals
        "9", "", "4", "x", "1007", "5", "5", // no choice, transfer, statement
        "6", "2468", "12", "12", "6", "2468", "4321", "4321", "6", "2468", "1357", "1358", "6", "1111",
        "1357", "1357", "6", "2468", "975310", "975310", "7", // log out
        "Jack", "8642", "1", "7", "Ken", "975310", "1", "8",
    ];
    let output = bank.menu(server.address(), &(lines.join("\n") + "\n"));
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert_in_order(
        &text,
        &[
            "Welcome to the bank!",
            "The card and PIN were not accepted.",
            "Good day, Ken!",
            "Your balance is 100.00 USD.",
            "Deposit                         APPROVED",
            "20.50 USD",
            "Balance",
            "120.50 USD",
            "DECLINED",
            "Insufficient funds.",
            "-1000.00 USD",
            "120.50 USD",
            "\"abc\" is not a sum in USD",
            "must be more than zero",
            "APPROVED",
            "-40.00 USD",
            "80.50 USD",
            "Please choose 1 to 8.",
            "Please choose 1 to 8.",
            "an account number is a whole number",
            "Transfer                        APPROVED",
            "To account                          1007",
            "-5.00 USD",
            "75.50 USD",
            "opening",
            "deposit",
            "-1000.00 x",
            "withdrawal",
            "transfer",
            "1007",
            "x: declined",
            "Balance 75.50 USD",
            "a PIN has 4 to 12 digits",
            "Please choose one that is harder to guess.",
            "The two new PINs differ",
            "was not changed",
            "Your PIN has been changed.",
            "Goodbye!",
            "Good day, Jack!",
            "Your balance is 5.00 USD.",
            "Good day, Ken!",
            "75.50 USD",
            "Goodbye!",
        ],
    );
    assert!(!text.contains("2468") && !text.contains("975310"), "{text}");
    // The receipt's id is the statement's.
    let id = text.lines().find_map(|line| line.strip_prefix("Ref ")).unwrap();
    let statement = server.atm_cli(
        &["statement", "--card", "Ken", "--pin-file", "-", "--json"],
        "975310\n",
    );
    assert!(stdout(&statement).contains(id), "{id}");
}

#[test]
fn the_end_of_input_ends_the_terminal_wherever_it_comes() {
    let bank = TestBank::load(SAMPLE);
    let server = bank.serve();
    for input in [
        "",
        "Ken",
        "Ken\n",
        "Ken\n2468\n",
        "Ken\n2468\n2\n",
        "Ken\n2468\n4\n1007\n",
        "q\n",
    ] {
        let output = bank.menu(server.address(), input);
        assert_eq!(output.status.code(), Some(0), "{input:?}: {}", stdout(&output));
    }
    assert!(server.stop().0.success());
    bank.assert_verifies();
}

#[test]
fn a_server_that_is_away_is_waited_for_and_found_again() {
    let bank = TestBank::load(SAMPLE);
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let serve = || {
        let mut command = Command::new(program("atm-server"));
        command
            .args(["serve", "--listen", &address])
            .env("ATM_BANK", bank.path());
        atm_tests::Server::start(command)
    };
    let mut terminal = Command::new(program("atm-cli"))
        .args(["--server", &address, "--journal", &bank.terminal_journal()])
        .args(["--cassettes", "20x100"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = terminal.stdin.take().unwrap();
    let mut output = BufReader::new(terminal.stdout.take().unwrap());
    let mut seen = String::new();
    let mut wait_for = |part: &str| {
        let from = seen.len();
        while !seen[from..].contains(part) {
            assert!(
                output.read_line(&mut seen).unwrap() > 0,
                "{part:?} never came:\n{seen}"
            );
        }
    };
    wait_for(&format!("could not connect to {address}"));
    wait_for("Trying again");
    let server = serve();
    input.write_all(b"Ken\n2468\n1\n").unwrap();
    wait_for("Your balance is 100.00 USD.");
    // Nothing but a pause is seen of a server that is away for a while: the customer is still logged in.
    server.kill();
    input.write_all(b"2\n7\n").unwrap();
    wait_for("Trying again");
    let server = serve();
    wait_for("APPROVED");
    input.write_all(b"1\n").unwrap();
    wait_for("Your balance is 107.00 USD.");
    drop(input);
    assert!(terminal.wait().unwrap().success());
    assert!(server.stop().0.success());
}

/// Runs the terminal on a screen of its own, feeds it keys whenever a text has appeared, and gives all that it wrote.
pub(crate) fn on_a_screen(command: &str, columns: u16, keys: &[(&str, &str)]) -> String {
    let shell = format!("stty cols {columns} rows 40; {command}; echo ended with $?; stty -a");
    let mut screen = Command::new("script")
        .args(["--quiet", "--return", "--command", &shell, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program script (Debian's bsdutils) is there");
    let mut input = screen.stdin.take().unwrap();
    let mut output = screen.stdout.take().unwrap();
    let (mut seen, mut from) = (Vec::new(), 0);
    let mut chunk = [0; 4096];
    for (text, key) in keys {
        loop {
            if let Some(at) = seen[from..]
                .windows(text.len())
                .position(|window| window == text.as_bytes())
            {
                from += at + text.len();
                break;
            }
            let bytes = output.read(&mut chunk).unwrap();
            assert!(
                bytes > 0,
                "{text:?} never came:\n{}",
                String::from_utf8_lossy(&seen)
            );
            seen.extend_from_slice(&chunk[..bytes]);
        }
        input.write_all(key.as_bytes()).unwrap();
    }
    output.read_to_end(&mut seen).unwrap();
    screen.wait().unwrap();
    String::from_utf8_lossy(&seen).into_owned()
}

#[test]
fn on_a_screen_the_pin_is_hidden_and_ctrl_c_restores_the_terminal() {
    let bank = TestBank::load(SAMPLE);
    let server = bank.serve();
    let command = format!(
        "{} --server {} --journal {} --cassettes 20x100",
        program("atm-cli").display(),
        server.address(),
        bank.terminal_journal()
    );
    let seen = on_a_screen(
        &command,
        80,
        &[
            ("Card:", "Ken\r"),
            ("PIN:", "2468\r"),
            // One key is enough.
            ("Type a number", "1"),
            // Between two prompts Ctrl-C would end the program like any other.
            ("100.00 USD", ""),
            ("Type a number", "\u{3}"),
        ],
    );
    assert_in_order(
        &seen,
        &[
            "Good day, Ken!",
            "Your balance is 100.00 USD.",
            "ended with 0",
            " echo ",
        ],
    );
    assert!(!seen.contains("2468"), "{seen}");
    for keys in [
        &[("Card:", "\u{3}")][..],
        &[("Card:", "Ken\r"), ("PIN:", "24\u{3}")],
    ] {
        let seen = on_a_screen(&command, 40, keys);
        assert_in_order(&seen, &["ended with 0", "icanon", " echo "]);
    }
}

#[test]
fn a_pin_that_a_script_would_pipe_is_asked_for_on_a_screen_and_not_shown() {
    let bank = TestBank::load(SAMPLE);
    let server = bank.serve();
    let command = format!(
        "{} --server {} balance --card Ken --pin-file -",
        program("atm-cli").display(),
        server.address()
    );
    let seen = on_a_screen(&command, 80, &[("PIN:", "2468\r")]);
    assert_in_order(&seen, &["100.00 USD", "ended with 0"]);
    assert!(!seen.contains("2468"), "{seen}");
}

/// The demonstration, with its temporary directory in `place`.
fn demonstrate(place: &std::path::Path) -> std::process::Child {
    let mut demo = Command::new(program("atm-cli"));
    demo.arg("demo")
        .env("TMPDIR", place)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn the_demonstration_works_in_one_command_and_leaves_nothing_behind() {
    let place = tempfile::tempdir().unwrap();
    let mut demo = demonstrate(place.path());
    demo.stdin
        .take()
        .unwrap()
        .write_all(b"Tricia\n3690\n3\n300\n7\nKen\n2468\n3\n90\n8\n")
        .unwrap();
    let output = demo.wait_with_output().unwrap();
    let text = stdout(&output);
    assert!(output.status.success(), "{text}");
    assert_in_order(
        &text,
        &[
            "Tricia   3690",
            "supervisor's code",
            "Welcome to the bank!",
            "Good day, Tricia!",
            "this machine has USD only",
            "Good day, Ken!",
            "Please take your cash: 1 x 50, 2 x 20",
            "APPROVED",
            "10.00 USD",
            "Goodbye!",
        ],
    );
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn a_demonstration_that_is_hung_up_leaves_nothing_behind() {
    use rustix::process::{Pid, Signal, kill_process};
    for signal in [Signal::HUP, Signal::TERM, Signal::INT] {
        let place = tempfile::tempdir().unwrap();
        let mut demo = demonstrate(place.path());
        let mut output = BufReader::new(demo.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("Welcome") {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0);
        }
        kill_process(Pid::from_raw(demo.id() as i32).unwrap(), signal).unwrap();
        demo.wait().unwrap();
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_name_cannot_drive_the_terminal() {
    let bank = TestBank::load("holder,pin,balance\nKen,2468,1\n");
    rusqlite::Connection::open(bank.path())
        .unwrap()
        .execute_batch("UPDATE cards SET holder = 'K' || char(27) || '[2J' || char(7) || 'n'")
        .unwrap();
    let server = bank.serve();
    let text = stdout(&bank.menu(server.address(), "Ken\n2468\n8\n"));
    assert!(text.contains("Good day, K\u{fffd}[2J\u{fffd}n!"), "{text:?}");
}
