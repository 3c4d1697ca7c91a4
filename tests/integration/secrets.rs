//! PINs are nowhere but in the hands of their owners.

use std::io::Write;
use std::process::{Command, Stdio};

use atm_tests::{Server, TestBank, program, stderr, stdout};
use bank_core::protocol::{Hello, MAGIC, Proof, Request, RequestBody, Secret, VERSION};
use bank_core::{CardNumber, Currency, Money, Peppers, Pin, TerminalSecret, loading::AccountList};

#[test]
fn a_pin_is_in_no_log_and_in_no_file() {
    // Digits that nothing else is likely to have.
    const PIN: &str = "918273645546";
    const WRONG: &str = "192837465546";
    let bank = TestBank::load(&format!("4000123412341234,{PIN},100.00\n"));
    std::fs::remove_file(bank.directory().join("accounts.csv")).unwrap();
    let mut command = Command::new(program("atm-server"));
    command
        .args(["serve", "--listen", "127.0.0.1:0"])
        .env("ATM_BANK", bank.path());
    let server = Server::start(command);
    let card = CardNumber::new("4000123412341234").unwrap();
    let mut client = server.client();
    assert!(client.login(&card, WRONG).is_err());
    client.login(&card, PIN).unwrap();
    client.balance().unwrap();
    assert!(client.login(&card, PIN).is_err(), "logged in already");
    let (_, log) = server.stop();
    assert!(log.contains("logged in") && log.contains("DEBUG"), "{log}");
    let holds = |bytes: &[u8], secret: &str| {
        bytes
            .windows(secret.len())
            .any(|window| window == secret.as_bytes())
    };
    for secret in [PIN, WRONG] {
        assert!(!log.contains(secret), "{log}");
        for entry in std::fs::read_dir(bank.directory()).unwrap() {
            let path = entry.unwrap().path();
            assert!(
                !holds(&std::fs::read(&path).unwrap(), secret),
                "{}",
                path.display()
            );
        }
    }
    assert!(
        !log.contains(card.as_str()),
        "a card's whole number is not logged: {log}"
    );
}

/// A customer and a supervisor at a terminal with a secret, and a script: what they say is in no log, journal, tray, bank file, or
/// anything that other users of the machine can see of the processes.
#[test]
fn nothing_secret_is_left_by_a_day_at_a_terminal() {
    const PINS: [&str; 3] = ["918273645546", "192837465546", "564738291546"];
    let [pin, wrong, new] = PINS;
    let bank = TestBank::load(&format!("Ken,{pin},100.00\n"));
    let path = |name: &str| bank.directory().join(name).to_str().unwrap().to_owned();
    std::fs::remove_file(path("accounts.csv")).unwrap();
    let added = bank.server_command(&["add-terminal", "ATM-1", "--secret-file", &path("secret")]);
    assert!(added.status.success(), "{}", stderr(&added));
    let mut command = Command::new(program("atm-server"));
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--registered-terminals"])
        .env("ATM_BANK", bank.path())
        .env("ATM_LOG", "trace");
    let server = Server::start(command);

    let mut shown = stdout(&added) + &stderr(&added);
    let (secret_file, journal, tray) = (path("secret"), bank.terminal_journal(), path("tray"));
    let terminal = ["--terminal", "ATM-1", "--terminal-secret-file", &secret_file];
    let machine = [
        "--journal",
        &journal,
        "--cassettes",
        "50x200,20x500",
        "--tray",
        &tray,
    ];
    let mut seen_from_outside = Vec::new();
    let mut run = |arguments: &[&str], input: &str| {
        let mut process = Command::new(program("atm-cli"))
            .args(["--server", server.address()])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It waits for the end of its input, so it is there to be looked at.
        let mut stdin = process.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        for what in ["cmdline", "environ"] {
            // What is hidden from this user is hidden from others.
            let seen = std::fs::read(format!("/proc/{}/{what}", process.id()));
            seen_from_outside.extend(seen.unwrap_or_default());
        }
        drop(stdin);
        let output = process.wait_with_output().unwrap();
        shown += &(stdout(&output) + &stderr(&output));
        stdout(&output)
    };
    let menu = [&terminal[..], &machine].concat();
    let lines = format!(
        "Ken\n{wrong}\nKen\n{pin}\n1\n2\n20\n3\n40\n5\n6\n{wrong}\n{new}\n{new}\n6\n{pin}\n{new}\n{new}\n7\nq\n"
    );
    let text = run(&menu, &lines);
    assert!(
        text.contains("Your PIN has been changed.") && text.contains("-40.00 USD"),
        "{text}"
    );
    let code = std::fs::read_to_string(format!("{journal}.code")).unwrap();
    let text = run(
        &[&terminal[..], &["--journal", &journal]].concat(),
        &format!("*\n00000000\n*\n{code}1\n5\n6\n7\nq\n"),
    );
    assert!(
        text.contains("that is not the code") && text.contains("day"),
        "{text}"
    );
    let card = ["--card", "Ken", "--pin-file", "-"];
    for (command, more) in [
        ("balance", &[][..]),
        ("deposit", &["5"]),
        ("statement", &["--json"]),
        ("withdraw", &["9999"]),
    ] {
        run(
            &[&[command][..], &terminal, &card, more].concat(),
            &format!("{new}\n"),
        );
    }
    run(
        &[&["balance"][..], &terminal, &card].concat(),
        &format!("{wrong}\n"),
    );
    for what in ["cmdline", "environ"] {
        seen_from_outside.extend(std::fs::read(format!("/proc/{}/{what}", server.pid())).unwrap());
    }

    let line = |name: &str| std::fs::read_to_string(path(name)).unwrap().trim().to_owned();
    let pepper = line("bank.db.pepper")
        .split_whitespace()
        .last()
        .unwrap()
        .to_owned();
    let secret = line("secret");
    assert!(
        pepper.len() >= 32 && secret.len() == 64,
        "{} {}",
        pepper.len(),
        secret.len()
    );
    let as_bytes = |hex: &str| -> Vec<u8> {
        let byte = |n| u8::from_str_radix(&hex[n..n + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(byte).collect()
    };
    let mut secrets: Vec<(Vec<u8>, &str)> = PINS.map(|pin| (pin.into(), "")).to_vec();
    secrets.push((code.trim().into(), "terminal.journal.code"));
    for (hex, file) in [(&pepper, "bank.db.pepper"), (&secret, "secret")] {
        secrets.push((as_bytes(hex), file));
        secrets.push((hex.clone().into(), file));
    }
    let nowhere_in = |name: &str, bytes: &[u8]| {
        for (secret, own_file) in &secrets {
            let holds = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(
                !holds || name == *own_file,
                "{name} holds a secret that belongs {own_file:?}"
            );
        }
    };
    let files = || {
        let mut names: Vec<String> = std::fs::read_dir(bank.directory())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        for name in &names {
            nowhere_in(name, &std::fs::read(path(name)).unwrap());
        }
        names
    };
    let while_served = files();
    for name in ["bank.db", "bank.db-wal", "terminal.journal", "tray"] {
        assert!(while_served.iter().any(|found| found == name), "{while_served:?}");
    }
    nowhere_in("what is shown", shown.as_bytes());
    nowhere_in(
        "the processes' command lines and environments",
        &seen_from_outside,
    );
    let log = server.stop().1;
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "{log}");
    nowhere_in("the log", log.as_bytes());
    files();
}

#[test]
fn another_banks_pepper_is_noticed_before_it_blocks_every_card() {
    let (bank, other) = (TestBank::generate(1), TestBank::generate(1));
    let pepper = other.directory().join("bank.db.pepper");
    let served = |arguments: &[&str], variable: &str| {
        Command::new(program("atm-server"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .env("ATM_BANK", bank.path())
            .env(variable, &pepper)
            .output()
            .unwrap()
    };
    for served in [
        served(&["--pepper", pepper.to_str().unwrap()], "UNUSED"),
        served(&[], "ATM_PEPPER"),
    ] {
        assert_eq!(served.status.code(), Some(1));
        assert!(stderr(&served).contains("not this bank's"), "{}", stderr(&served));
    }
}

#[test]
fn whatever_holds_a_secret_shows_it_to_nobody() {
    const PIN: &str = "918273645546";
    let place = tempfile::tempdir().unwrap();
    let (pepper, key) = (place.path().join("pepper"), place.path().join("key"));
    let peppers = Peppers::read_or_create(&pepper).unwrap();
    let terminal_secret = TerminalSecret::create(&key).unwrap();
    let digits = |path| {
        let text = std::fs::read_to_string(path).unwrap();
        text.split_whitespace().last().unwrap().to_owned()
    };
    let mut list = AccountList::generate(1, Currency::USD, Money::ZERO);
    list.cards[0].pin = Pin::new(PIN.as_bytes()).unwrap();
    let request = |body| Request { id: 7, body };
    let hello = |proof| Hello {
        magic: MAGIC,
        version: VERSION,
        terminal: "ATM-1",
        proof,
    };
    let login = RequestBody::Login {
        card: "Ken",
        pin: Secret(PIN),
    };
    let change = RequestBody::ChangePin {
        old: Secret(PIN),
        new: Secret(PIN),
    };
    let proof = Proof::Secret(Secret(terminal_secret.as_bytes()));
    let bytes = format!("{:?}", terminal_secret.as_bytes());
    for shown in [
        format!("{:?}", Pin::new(PIN.as_bytes()).unwrap()),
        format!("{:?}", Pin::new(&PIN.as_bytes()[..3])),
        format!("{list:?}"),
        format!("{peppers:?}"),
        format!("{terminal_secret:?}"),
        format!("{login:?} {:?}", request(login)),
        format!("{change:?} {:?}", request(change)),
        format!("{proof:?} {:?}", hello(proof)),
    ] {
        for secret in [
            PIN,
            &digits(&pepper),
            &digits(&key),
            bytes.trim_matches(['[', ']']),
        ] {
            assert!(!shown.contains(secret), "{shown}");
        }
        // Nor as a list of bytes.
        assert!(!shown.contains("57, 49, 56"), "{shown}");
    }
}
