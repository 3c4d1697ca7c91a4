//! What people see on screens of 80 and of 40 columns: every line fits, and sums end under each other.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use atm_tests::{TestBank, atm_cli, program, stderr, stdout};
use bank_core::protocol::{
    Greeting, NOTICE_ID, Reply, ReplyBody, Request, RequestBody, VERSION, decode, encode, split,
};

use crate::menu::on_a_screen;

const ACCOUNTS: &str = "holder,pin,account,balance\n\
    Ken,2468,1,100.00\n\
    Bartholomew Featherstonehaugh,1357,2,92233720368547000.00\n";

fn width(line: &str) -> usize {
    line.chars().count()
}

/// That no line is wider than the screen, and that each receipt, statement and table has its sums under each other.
fn assert_laid_out(text: &str, columns: usize) {
    for line in text.lines() {
        assert!(
            width(line) <= columns,
            "{} columns: {line:?}\n{text}",
            width(line)
        );
    }
    let (mut receipts, mut statements, mut tables) = (0, 0, 0);
    let lines: Vec<_> = text.lines().collect();
    let is_rule = |line: &&str| line.starts_with("==") || line.starts_with("--");
    for pair in lines.windows(2) {
        assert!(!pair.iter().all(is_rule), "a rule is broken: {text}");
    }
    for (n, line) in lines.iter().enumerate() {
        if line.ends_with("APPROVED") || line.ends_with("DECLINED") {
            receipts += 1;
            let end = lines[n..]
                .iter()
                .position(|line| line.starts_with("==="))
                .unwrap();
            let sums: Vec<_> = lines[n..n + end]
                .iter()
                .filter(|line| line.ends_with(" USD"))
                .collect();
            assert_eq!(sums.len(), 2, "{text}");
            assert!(sums.iter().all(|sum| width(sum) == 40), "{sums:?}");
        }
        // Under a heading, every sum ends where the heading ends.
        for heading in ["Amount", "Balance", "Sum"] {
            let Some(at) = line
                .find(heading)
                .filter(|_| line.starts_with("Date") || line.ends_with("Sum"))
            else {
                continue;
            };
            if heading == "Sum" {
                tables += 1;
            } else {
                statements += 1;
            }
            let rows = lines[n + 1..]
                .iter()
                .take_while(|line| line.contains('.') && !line.ends_with('.'));
            let mut count = 0;
            for row in rows {
                count += 1;
                let end = at + heading.len();
                let sum = row
                    .get(..end)
                    .unwrap_or_default()
                    .rsplit(' ')
                    .next()
                    .unwrap_or_default();
                let cents = sum.rsplit_once('.').map_or("", |(_, cents)| cents);
                assert_eq!(cents.len(), 2, "{heading}: {row:?} of\n{text}");
                assert!(
                    row[end..].is_empty() || row[end..].starts_with(' '),
                    "{row:?} of\n{text}"
                );
            }
            assert!(count > 0, "{text}");
        }
    }
    assert!(
        receipts >= 4 && statements >= 1 && tables >= 2,
        "{receipts} {statements} {tables}\n{text}"
    );
}

#[test]
fn every_screen_fits_80_and_40_columns() {
    for columns in [80, 40] {
        let bank = TestBank::load(ACCOUNTS);
        let server = bank.serve();
        let journal = bank.terminal_journal();
        // The first start makes the code.
        atm_cli(
            server.address(),
            &["--journal", &journal, "--cassettes", "50x200,20x500"],
            "q\n",
        );
        let code = std::fs::read_to_string(format!("{journal}.code")).unwrap();
        let lines = [
            "Ken",
            "1111",
            "Ken",
            "2468",
            "1",
            "2",
            "20.50",
            "2",
            "abc",
            "7.25",
            "3",
            "1000",
            "3",
            "90",
            "3",
            "35",
            "4",
            "1",
            "5",
            "4",
            "2",
            "5",
            "5",
            "6",
            "2468",
            "12",
            "12",
            "6",
            "2468",
            "1358",
            "1359",
            "7",
            "Bartholomew Featherstonehaugh",
            "1357",
            "1",
            "3",
            "40",
            "2",
            "99999999999999.99",
            "5",
            "7",
            "*",
            "12345678",
            "*",
            code.trim(),
            "1",
            "2",
            "0",
            "x",
            "1",
            "3",
            "4",
            "5",
            "6",
            "5",
            "9",
            "7",
            "q",
        ];
        let mut menu = Command::new(program("atm-cli"))
            .args(["--server", server.address(), "--journal", &journal])
            .env("COLUMNS", columns.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let input = lines.join("\n") + "\n";
        menu.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = menu.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let text = stdout(&output);
        assert!(text.contains("They agree."), "{text}");
        assert!(
            !text.contains("Featherstonehaugh\n"),
            "a card is not shown whole: {text}"
        );
        assert_laid_out(&text, columns);
    }
}

/// What was written to a screen, a line for each time that one was begun or drawn again.
fn drawn(seen: &str) -> Vec<String> {
    let mut plain = String::new();
    let mut rest = seen.chars();
    while let Some(c) = rest.next() {
        match c {
            // A control sequence ends with its letter.
            '\u{1b}' => drop(rest.find(char::is_ascii_alphabetic)),
            '\r' => plain.push('\n'),
            c => plain.push(c),
        }
    }
    plain.lines().map(str::to_owned).collect()
}

#[test]
fn a_person_chooses_with_single_keys_and_no_line_is_wider_than_the_screen() {
    for columns in [80, 40] {
        let bank = TestBank::load(ACCOUNTS);
        let server = bank.serve();
        let command = format!(
            "{} --server {} --journal {} --cassettes 50x200,20x500",
            program("atm-cli").display(),
            server.address(),
            bank.terminal_journal()
        );
        let menu = "Type a number";
        let seen = on_a_screen(
            &command,
            columns,
            &[
                // More than there is room for, taken back at once and letter by letter.
                (
                    "Card:",
                    "Bartholomew Featherstonehaugh and his wife\u{15}Bartholomew Featherstonehaughx\u{7f}\r",
                ),
                ("PIN:", "1357\r"),
                ("Good day", ""),
                // Whoever is used to it may press Enter, too; letters mean nothing.
                (menu, "x3\r"),
                ("Amount in USD:", "90\r"),
                ("APPROVED", ""),
                (menu, "2"),
                ("Amount in USD:", "1\u{1b}"),
                (menu, "5"),
                ("Balance 92233720368546910.00 USD", ""),
                (menu, "8"),
            ],
        );
        assert!(seen.contains("ended with 0"), "{seen}");
        for line in drawn(seen.split("ended with").next().unwrap()) {
            assert!(width(&line) <= columns.into(), "{line:?}");
        }
    }
}

/// A bank that greets one terminal, answers what an idle one asks, and has something to say.
fn serve_one(listener: &TcpListener, notice: &str) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut received = Vec::new();
    next_frame(&mut stream, &mut received);
    let mut frame = Vec::new();
    let welcome = Greeting::Welcome {
        version: VERSION,
        server_time: 1_645_557_742_000,
        max_request_bytes: 1024,
        max_reply_bytes: 16_384,
    };
    encode(&welcome, &mut frame);
    stream.write_all(&frame).unwrap();
    while let Some(body) = next_frame(&mut stream, &mut received) {
        let Request { id, body } = decode(&body).unwrap();
        let totals = matches!(body, RequestBody::Totals);
        let body = if totals {
            ReplyBody::Totals(Vec::new())
        } else {
            ReplyBody::Pong {
                server_time: 1_645_557_742_000,
            }
        };
        let mut frame = Vec::new();
        encode(&Reply { id, lsn: 0, body }, &mut frame);
        if totals {
            let body = ReplyBody::Notice { message: notice };
            encode(
                &Reply {
                    id: NOTICE_ID,
                    lsn: 0,
                    body,
                },
                &mut frame,
            );
        }
        stream.write_all(&frame).unwrap();
    }
}

fn next_frame(stream: &mut TcpStream, received: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some((body, used)) = split(received, 1024).unwrap() {
            let body = body.to_vec();
            received.drain(..used);
            return Some(body);
        }
        let mut chunk = [0; 1024];
        match stream.read(&mut chunk) {
            Ok(bytes @ 1..) => received.extend_from_slice(&chunk[..bytes]),
            _ => return None,
        }
    }
}

#[test]
fn a_terminal_that_waits_for_a_customer_shows_what_the_bank_says() {
    let place = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let bank = std::thread::spawn(move || {
        serve_one(
            &listener,
            "We close\u{1b}[2J at six o'clock today, and open at nine.",
        );
    });
    let command = format!(
        "timeout --foreground 30 {} --server {address} --journal {} --cassettes 20x100",
        program("atm-cli").display(),
        place.path().join("terminal.journal").display()
    );
    // A terminal that shows nothing is ended, and fails the test. Nothing is typed before it is there; and the card is asked for behind it.
    let seen = on_a_screen(
        &command,
        40,
        &[
            ("Card:", ""),
            ("NOTICE FROM THE BANK: We close\u{fffd}[2J", ""),
            ("Card:", "q\r"),
        ],
    );
    assert!(seen.contains("ended with 0"), "{seen}");
    bank.join().unwrap();
}
