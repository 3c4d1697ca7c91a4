//! PINs are nowhere but in the hands of their owners.

use atm_tests::TestBank;
use bank_core::protocol::{Hello, MAGIC, Proof, Request, RequestBody, Secret, VERSION};
use bank_core::{CardNumber, Currency, Money, Peppers, Pin, TerminalSecret, loading::AccountList};

#[test]
fn a_pin_is_in_no_log_and_in_no_file() {
    // Digits that nothing else is likely to have.
    const PIN: &str = "918273645546";
    const WRONG: &str = "192837465546";
    let bank = TestBank::load(&format!("4000123412341234,{PIN},100.00\n"));
    std::fs::remove_file(bank.directory().join("accounts.csv")).unwrap();
    let mut command = std::process::Command::new(atm_tests::program("atm-server"));
    command
        .args(["serve", "--listen", "127.0.0.1:0"])
        .env("ATM_BANK", bank.path());
    let server = atm_tests::Server::start(command);
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

#[test]
fn another_banks_pepper_is_noticed_before_it_blocks_every_card() {
    let (bank, other) = (TestBank::generate(1), TestBank::generate(1));
    let pepper = other.directory().join("bank.db.pepper");
    let served = bank.server_command(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--pepper",
        pepper.to_str().unwrap(),
    ]);
    assert_eq!(served.status.code(), Some(1));
    assert!(
        atm_tests::stderr(&served).contains("not this bank's"),
        "{}",
        atm_tests::stderr(&served)
    );
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
