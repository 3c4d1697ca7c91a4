//! Loading and generating, as an operator does it.

use atm_tests::{TestBank, stderr, stdout};

const SAMPLE: &str = include_str!("../../data/accounts.csv");

#[test]
fn the_sample_bank_loads_and_its_customers_log_in() {
    let bank = TestBank::load(SAMPLE);
    bank.assert_verifies();
    let server = bank.serve();
    for row in SAMPLE.lines().skip(1) {
        let fields: Vec<_> = row.split(',').collect();
        server.login(fields[1], fields[2]).balance().unwrap();
    }
    let (mut ken, mut jill) = (server.login("Ken", "2468"), server.login("Jill", "1357"));
    assert_eq!(
        ken.balance().unwrap(),
        jill.balance().unwrap(),
        "Ken and Jill have one account"
    );
}

#[test]
fn the_standard_profile_is_the_default_of_load_and_it_works() {
    let bank = TestBank::nowhere();
    let list = bank.write("list.csv", "Ken,2468,100\n");
    assert!(
        bank.server_command(&["load", list.to_str().unwrap()])
            .status
            .success()
    );
    let file = rusqlite::Connection::open(bank.path()).unwrap();
    let hash: String = file
        .query_row("SELECT pin_hash FROM cards", [], |row| row.get(0))
        .unwrap();
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    bank.serve().login("Ken", "2468");
}

#[test]
fn one_bad_row_and_nothing_is_written() {
    let bank = TestBank::nowhere();
    let list = bank.write(
        "list.csv",
        b"holder,pin,balance\nKen,2468,100\nJill,13,5\n\xff,1111,1\nKen,1111,1\n",
    );
    for arguments in [&[][..], &["--dry-run"]] {
        let loaded = bank.server_command(&[&["load", list.to_str().unwrap()], arguments].concat());
        assert_eq!(loaded.status.code(), Some(1));
        let errors = stderr(&loaded);
        for part in [
            "list.csv:3: a PIN has 4 to 12 digits",
            "list.csv:4: the holder is not UTF-8",
            "list.csv:5: card \"Ken\" is in line 2 already",
            "3 bad rows; nothing was loaded",
        ] {
            assert!(errors.contains(part), "{errors}");
        }
        assert_eq!(
            std::fs::read_dir(bank.directory()).unwrap().count(),
            1,
            "only the list is there"
        );
    }
}

#[test]
fn a_dry_run_writes_nothing() {
    let bank = TestBank::nowhere();
    let list = bank.write("list.csv", SAMPLE);
    let checked = bank.server_command(&["load", list.to_str().unwrap(), "--dry-run"]);
    assert!(checked.status.success());
    assert!(
        stdout(&checked).contains("7 accounts, 8 cards; nothing was written"),
        "{}",
        stdout(&checked)
    );
    assert_eq!(std::fs::read_dir(bank.directory()).unwrap().count(), 1);
}

#[test]
fn pins_that_are_guessed_first_are_told_of_by_their_lines_and_loaded() {
    let bank = TestBank::nowhere();
    let list: String = (1..=14)
        .map(|n| format!("C{n},{},1\n", if n % 7 == 0 { "2468" } else { "1987" }))
        .collect();
    let path = bank.write("list.csv", format!("holder,pin,balance\n{list}"));
    let load = |list: &std::path::Path, arguments: &[&str]| {
        let loaded = bank.server_command(&[&["load", list.to_str().unwrap()], arguments].concat());
        assert!(loaded.status.success(), "{}", stderr(&loaded));
        stderr(&loaded)
    };
    for arguments in [&["--dry-run"][..], &["--pin-profile", "fast"]] {
        let warning = load(&path, arguments);
        assert!(
            warning.contains("list.csv: PINs that are too easy to guess in lines 2, 3, 4, 5, 6, 7, 9, 10, 11, 12 and 2 more"),
            "{warning}"
        );
        for told in ["1987", "year", "19"] {
            assert!(!warning.contains(told), "{warning}");
        }
    }
    bank.serve().login("C1", "1987");
    let good = bank.write("good.csv", "Ken,2468,100\n");
    assert_eq!(load(&good, &["--append"]), "");
}

#[test]
fn peppers_are_rotated_and_each_card_keeps_its_own_until_its_next_good_login() {
    let bank = TestBank::load("Ken,2468,100\nJill,1357,50\n");
    let rotate = |arguments: &[&str]| {
        let rotated = bank.server_command(&[&["rotate-pepper"], arguments].concat());
        assert!(rotated.status.success(), "{}", stderr(&rotated));
        stdout(&rotated)
    };
    let pepper = bank.directory().join("bank.db.pepper");
    // The file may be elsewhere, and only its name here.
    let elsewhere = bank.directory().join("key");
    std::fs::rename(&pepper, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &pepper).unwrap();

    let server = bank.serve();
    let refused = bank.server_command(&["rotate-pepper"]);
    assert!(stderr(&refused).contains("in use by another atm-server"));
    drop(server);
    let told = rotate(&["--pin-profile", "standard"]);
    assert!(
        told.contains("hashed with pepper 2 from now on, which is new"),
        "{told}"
    );
    assert!(told.contains("costs from now on: standard\n"), "{told}");
    assert!(told.contains("depend on pepper 1: 2\n"), "{told}");
    assert!(pepper.is_symlink());
    let mode = std::os::unix::fs::PermissionsExt::mode(&elsewhere.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    let more = bank.write("more.csv", "Jack,8642,1\n");
    assert!(
        bank.server_command(&["load", more.to_str().unwrap(), "--append"])
            .status
            .success()
    );
    let server = bank.serve();
    server.login("Ken", "2468");
    server.login("Jack", "8642");
    drop(server);
    assert_eq!(
        rotate(&["--forget-unused"]),
        "no pepper was forgotten: pepper 2 is the newest, and cards depend on every other\ncards that still depend on pepper 1: 1\n"
    );
    bank.serve().login("Jill", "1357");
    assert_eq!(rotate(&["--forget-unused"]), "pepper 1 was forgotten\n");
    let server = bank.serve();
    for (card, pin) in [("Ken", "2468"), ("Jill", "1357"), ("Jack", "8642")] {
        server.login(card, pin);
    }
    let file = rusqlite::Connection::open(bank.path()).unwrap();
    let costly: i64 = file
        .query_row(
            "SELECT count(*) FROM cards WHERE pin_hash LIKE '%m=19456%'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(costly, 3);
    let names: Vec<_> = std::fs::read_dir(bank.directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        names.iter().all(|name| !name.to_string_lossy().ends_with(".tmp")),
        "{names:?}"
    );
}

#[test]
fn an_existing_bank_is_only_touched_when_told_to() {
    let bank = TestBank::load("Ken,2468,100\n");
    let more = bank.write("more.csv", "Jill,1357,50\nJack,8642,1\n");
    let again = bank.write("again.csv", "Mia,1111,5\nKen,2468,100\n");
    let load = |arguments: &[&str]| {
        let loaded = bank.server_command(&[&["load", "--pin-profile", "fast"], arguments].concat());
        (loaded.status.code(), stderr(&loaded))
    };
    let (more, again) = (more.to_str().unwrap(), again.to_str().unwrap());
    let (code, error) = load(&[more]);
    assert!(
        code == Some(1) && error.contains("--append") && error.contains("--replace"),
        "{error}"
    );

    assert_eq!(load(&[more, "--append"]).0, Some(0));
    bank.assert_verifies();
    let (code, error) = load(&[again, "--append"]);
    assert!(
        code == Some(1) && error.contains("again.csv:2: the bank has a card \"Ken\" already"),
        "{error}"
    );
    let server = bank.serve();
    assert_eq!(
        server.login("Ken", "2468").balance().unwrap().balance.minor(),
        10_000
    );
    assert_eq!(
        server.login("Jill", "1357").balance().unwrap().balance.minor(),
        5_000
    );
    let (code, error) = load(&[more, "--append"]);
    assert!(code == Some(1), "{error}");
    drop(server);

    assert_eq!(load(&[again, "--replace"]).0, Some(0));
    bank.assert_verifies();
    let server = bank.serve();
    server.login("Mia", "1111");
    assert!(
        server.client().login(&"Jill".parse().unwrap(), "1357").is_err(),
        "the old bank is gone"
    );
}

#[test]
fn a_bank_can_be_added_to_and_replaced_after_a_crash() {
    let bank = TestBank::load("Ken,2468,100\n");
    let server = bank.serve();
    let amount = bank_core::Amount::from_minor(5).unwrap();
    server
        .login("Ken", "2468")
        .deposit(bank_core::TxnId::generate(), amount)
        .unwrap();
    server.kill();
    let more = bank.write("more.csv", "Jill,1357,50\n");
    let more = more.to_str().unwrap();
    assert!(bank.server_command(&["load", more, "--append"]).status.success());
    bank.assert_verifies();
    let server = bank.serve();
    assert_eq!(
        server.login("Ken", "2468").balance().unwrap().balance.minor(),
        10_005
    );
    assert_eq!(
        server.login("Jill", "1357").balance().unwrap().balance.minor(),
        5_000
    );
    server
        .login("Jill", "1357")
        .deposit(bank_core::TxnId::generate(), amount)
        .unwrap();
    server.kill();
    // The killed server's log must not be taken for the new bank's.
    assert!(bank.server_command(&["load", more, "--replace"]).status.success());
    bank.assert_verifies();
    assert_eq!(
        bank.serve()
            .login("Jill", "1357")
            .balance()
            .unwrap()
            .balance
            .minor(),
        5_000
    );
}

#[test]
fn a_generated_bank_is_as_its_help_says() {
    let bank = TestBank::nowhere();
    let arguments = [
        "generate",
        "--accounts",
        "120",
        "--currency",
        "JPY",
        "--balance",
        "5000",
    ];
    let generated = bank.server_command(&arguments);
    assert!(generated.status.success(), "{}", stderr(&generated));
    let server = bank.serve();
    let balance = server.login("120", "0120").balance().unwrap();
    assert_eq!((balance.balance.minor(), balance.currency.code()), (5000, "JPY"));
    assert_eq!(
        bank.server_command(&arguments).status.code(),
        Some(1),
        "it exists"
    );
}

#[test]
fn a_statement_is_read_from_a_bank_that_is_served_and_from_one_that_crashed() {
    let bank = TestBank::load(SAMPLE);
    let server = bank.serve();
    let mut ken = server.login("Ken", "2468");
    let amount = bank_core::Amount::from_minor(2050).unwrap();
    ken.deposit(bank_core::TxnId::generate(), amount).unwrap();
    ken.transfer(bank_core::TxnId::generate(), "1007".parse().unwrap(), amount)
        .unwrap();
    let look = |account, expected: &[&str]| {
        let shown = bank.server_command(&["statement", "--account", account]);
        let text = stdout(&shown);
        assert!(shown.status.success(), "{}", stderr(&shown));
        for part in expected {
            assert!(text.contains(part), "{text}");
        }
        text
    };
    let served = look(
        "1006",
        &[
            "opening",
            "deposit",
            "20.50",
            "transfer",
            "-20.50",
            "1007",
            "closing balance         100.00",
        ],
    );
    look(
        "1007",
        &["transfer", "20.50", "1006", "closing balance          20.50"],
    );
    server.kill();
    assert_eq!(look("1006", &[]), served);
    let missing = bank.server_command(&["statement", "--account", "5"]);
    assert!(missing.status.code() == Some(1) && stderr(&missing).contains("no account 5"));
}

#[test]
fn the_log_of_a_bank_that_somebody_removed_is_not_taken_for_the_new_ones() {
    let bank = TestBank::generate(20);
    let server = bank.serve();
    server
        .login("1", "0001")
        .deposit(
            bank_core::TxnId::generate(),
            bank_core::Amount::from_minor(5).unwrap(),
        )
        .unwrap();
    server.kill();
    std::fs::remove_file(bank.path()).unwrap();
    assert!(bank.directory().join("bank.db-wal").exists());
    assert!(
        bank.server_command(&["generate", "--accounts", "20"])
            .status
            .success()
    );
    bank.assert_verifies();
    assert_eq!(
        bank.serve().login("1", "0001").balance().unwrap().balance.minor(),
        100_000
    );
}

#[test]
fn what_is_no_bank_is_not_replaced() {
    let bank = TestBank::nowhere();
    let list = bank.write("list.csv", "Ken,2468,100\n");
    let list = list.to_str().unwrap();
    let replaced = bank.server_command(&["load", list, "--bank", list, "--replace"]);
    assert_eq!(replaced.status.code(), Some(1));
    assert!(
        stderr(&replaced).contains("is no bank file"),
        "{}",
        stderr(&replaced)
    );
    assert_eq!(std::fs::read_to_string(list).unwrap(), "Ken,2468,100\n");
}
