//! An operator's copies of the bank, and what he can find in its journal.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use atm_cli::connection::{Connection, Outcome};
use atm_tests::{Server, TestBank, program, stderr, stdout};
use bank_core::bank_file::{self, Progress};
use bank_core::{AccountId, Amount, TxnId};
use serde_json::Value;

fn amount(minor: i64) -> Amount {
    Amount::from_minor(minor).unwrap()
}

fn id(number: u64) -> AccountId {
    AccountId::new(number).unwrap()
}

fn done(bank: &TestBank, arguments: &[&str]) -> String {
    let done = bank.server_command(arguments);
    assert!(done.status.success(), "{arguments:?}: {}", stderr(&done));
    stdout(&done)
}

/// That a command is refused, and says all of this.
fn refused(bank: &TestBank, arguments: &[&str], parts: &[&str]) {
    let refused = bank.server_command(arguments);
    assert_eq!(
        refused.status.code(),
        Some(1),
        "{arguments:?}: {}",
        stdout(&refused)
    );
    for part in parts {
        assert!(
            stderr(&refused).contains(part),
            "{arguments:?}: {}",
            stderr(&refused)
        );
    }
}

fn json(text: &str) -> Value {
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(text).unwrap()
}

/// Copies the bank, and gives the copy's path with what was told of it.
fn backup(bank: &TestBank, name: &str) -> (String, Value) {
    let copy = bank.directory().join(name).to_str().unwrap().to_owned();
    let told = done(bank, &["backup", "--to", &copy, "--json"]);
    (copy, json(&told))
}

fn verifies(copy: &str) -> bool {
    TestBank::at(Path::new(copy).parent().unwrap())
        .server_command(&["verify", "--bank", copy])
        .status
        .success()
}

fn deposit(client: &mut Connection) -> (u64, i64) {
    match client.deposit(TxnId::generate(), amount(1)) {
        Ok(Outcome::Approved(lsn, receipt)) => (lsn.get(), receipt.balance),
        other => panic!("{other:?}"),
    }
}

/// The names in the bank's directory.
fn names(bank: &TestBank) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(bank.directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Each account's balance by the rows of a file up to one of them, added up.
fn balances_at(file: &str, lsn: u64) -> BTreeMap<u64, i64> {
    let file = rusqlite::Connection::open(file).unwrap();
    let mut select = file
        .prepare(
            "SELECT account, sum(amount) FROM (
                 SELECT lsn, account, amount FROM journal WHERE outcome = 0
                 UNION ALL SELECT lsn, contra, -amount FROM journal WHERE outcome = 0 AND contra > 0)
             WHERE lsn <= ?1 GROUP BY account",
        )
        .unwrap();
    select
        .query_map([lsn as i64], |row| {
            Ok((row.get::<_, i64>(0)? as u64, row.get(1)?))
        })
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

/// One answer: the row, the account and the balance after it.
type Answer = (u64, u64, i64);

/// A customer who deposits and transfers until it is enough, and keeps what he is told.
fn post_until(server: &Server, account: u64, enough: &AtomicBool, answers: &Mutex<Vec<Answer>>) {
    let mut client = server.login(&account.to_string(), &format!("{account:04}"));
    let mut transfers = false;
    while !enough.load(Ordering::Relaxed) {
        transfers = !transfers;
        let answer = if transfers {
            client.transfer(TxnId::generate(), id(account % 10 + 1), amount(1))
        } else {
            client.deposit(TxnId::generate(), amount(3))
        };
        let Ok(Outcome::Approved(lsn, receipt)) = answer else {
            panic!("{answer:?}")
        };
        answers
            .lock()
            .unwrap()
            .push((lsn.get(), account, receipt.balance));
    }
}

/// What a copy that was taken under load must be: it verifies, and has every row that was told before it was begun, and
/// each row up to its own as it was told.
fn check_copy(copy: &str, lsn: u64, before: u64, answers: &[Answer]) {
    assert!(verifies(copy), "{copy}");
    assert!(
        lsn >= before,
        "row {before} was told before the copy of {lsn} was begun"
    );
    let file = rusqlite::Connection::open(copy).unwrap();
    let (last, mode): (i64, String) = file
        .query_row(
            "SELECT max(lsn), (SELECT journal_mode FROM pragma_journal_mode) FROM journal",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert_eq!((last as u64, mode.as_str()), (lsn, "delete"));
    let mut select = file
        .prepare("SELECT balance FROM journal WHERE lsn = ?1 AND account = ?2")
        .unwrap();
    for &(row, account, balance) in answers.iter().filter(|(row, ..)| *row <= lsn) {
        let kept: i64 = select
            .query_row([row as i64, account as i64], |row| row.get(0))
            .unwrap_or_else(|error| {
                panic!("row {row}, which was told, is not in the copy of {lsn}: {error}")
            });
        assert_eq!(kept, balance, "row {row}");
    }
}

#[test]
fn copies_that_are_taken_under_full_load_are_whole_and_can_be_restored_from() {
    let bank = TestBank::generate(10);
    let server = bank.serve_quietly();
    let (enough, answers) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let newest = || {
        answers
            .lock()
            .unwrap()
            .iter()
            .map(|answer: &Answer| answer.0)
            .max()
    };
    let copies: Vec<_> = std::thread::scope(|scope| {
        for account in 1..=4 {
            let (server, enough, answers) = (&server, &enough, &answers);
            scope.spawn(move || post_until(server, account, enough, answers));
        }
        let copies = (1..=4)
            .map(|number| {
                // Each has more to copy than the one before it, and is begun while answers come.
                let from = newest().unwrap_or(0);
                while newest().unwrap_or(0) < from + 200 {
                    std::thread::yield_now();
                }
                let before = newest().unwrap();
                let (copy, told) = backup(&bank, &format!("copy-{number}.db"));
                let after = newest().unwrap();
                (copy, told["lsn"].as_u64().unwrap(), before, after)
            })
            .collect();
        enough.store(true, Ordering::Relaxed);
        copies
    });
    let answers = answers.into_inner().unwrap();
    for (copy, lsn, before, after) in &copies {
        check_copy(copy, *lsn, *before, &answers);
        assert!(after > before, "the bank answered while it was copied");
    }
    let (copy, lsn, ..) = &copies[1];
    refused(
        &bank,
        &["restore", "--from", copy],
        &["in use by another atm-server"],
    );
    assert!(server.stop().0.success());

    let last = answers.iter().map(|answer| answer.0).max().unwrap();
    let would_lose = format!("{} journal rows (rows {} to {last}, ", last - lsn, lsn + 1);
    refused(
        &bank,
        &["restore", "--from", copy],
        &[&would_lose, "--lose-newer"],
    );
    assert_eq!(
        json(&done(&bank, &["backup", "--to", &format!("{copy}.2"), "--json"]))["lsn"],
        last
    );
    let told = json(&done(
        &bank,
        &["restore", "--from", copy, "--lose-newer", "--json"],
    ));
    let lost = &told["lost"];
    assert_eq!(
        (&told["lsn"], &lost["rows"], &lost["first_lsn"], &lost["last_lsn"]),
        (
            &(*lsn).into(),
            &(last - lsn).into(),
            &(lsn + 1).into(),
            &last.into()
        )
    );
    bank.assert_verifies();
    let expected = balances_at(copy, *lsn);
    assert_eq!(expected.len(), 10);
    let server = bank.serve();
    for (account, balance) in &expected {
        let mut client = server.login(&account.to_string(), &format!("{account:04}"));
        assert_eq!(
            client.balance().unwrap().balance.minor(),
            *balance,
            "account {account}"
        );
    }
    assert_eq!(
        deposit(&mut server.login("1", "0001")),
        (lsn + 1, expected[&1] + 1)
    );
    assert!(server.stop().0.success());

    // What was lost is not gone.
    let aside = told["set_aside"].as_str().unwrap();
    check_copy_is_kept(aside, last, &answers);
    refused(
        &bank,
        &["restore", "--from", aside],
        &["has a journal row (row ", "--lose-newer"],
    );
    done(&bank, &["restore", "--from", aside, "--lose-newer"]);
    assert_eq!(
        balances_at(bank.path().to_str().unwrap(), last),
        balances_at(aside, last)
    );
    bank.assert_verifies();
}

/// SQLite's backup begins again when somebody else has written, unless it reads in a transaction.
#[test]
fn a_copy_is_as_of_the_moment_when_it_was_begun_whatever_is_posted_meanwhile() {
    let bank = TestBank::generate(4000);
    let server = bank.serve_quietly();
    let client = RefCell::new(server.login("1", "0001"));
    let posted = Cell::new(0);
    let copy = bank.directory().join("copy.db");
    let post = |progress| match progress {
        Progress::Copying(copied, of) if copied < of && posted.get() < 2 => {
            posted.set(posted.get() + 1);
            assert_eq!(deposit(&mut client.borrow_mut()).0, 4000 + posted.get());
        }
        _ => {}
    };
    let copied = bank_file::backup(&bank.path(), &copy, false, true, &post).unwrap();
    assert_eq!((copied.lsn.get(), copied.accounts, posted.get()), (4000, 4000, 2));
}

/// The bank that was set aside has every row that was ever told.
fn check_copy_is_kept(aside: &str, last: u64, answers: &[Answer]) {
    assert!(verifies(aside));
    let file = rusqlite::Connection::open(aside).unwrap();
    for (row, account, balance) in answers {
        let kept: i64 = file
            .query_row(
                "SELECT balance FROM journal WHERE lsn = ?1 AND account = ?2",
                [*row as i64, *account as i64],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(kept, *balance);
    }
    let newest: i64 = file
        .query_row("SELECT max(lsn) FROM journal", [], |row| row.get(0))
        .unwrap();
    assert_eq!(newest as u64, last);
}

#[test]
fn a_copy_is_one_file_of_its_owner_alone_and_takes_no_place_but_an_older_copys() {
    let bank = TestBank::generate(3);
    let other = TestBank::generate(2);
    let copy = bank.directory().join("copy.db");
    let copy_name = copy.to_str().unwrap();
    let told = done(&bank, &["backup", "--to", copy_name]);
    assert!(
        told.starts_with("backed up ")
            && told.contains("as of row 3 (3 accounts, ")
            && told.contains("pepper"),
        "{told}"
    );
    assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        names(&bank)
            .iter()
            .filter(|name| name.starts_with("copy"))
            .count(),
        1,
        "{:?}",
        names(&bank)
    );
    refused(
        &bank,
        &["backup", "--to", copy_name],
        &["copy.db exists", "--replace"],
    );
    deposit(&mut bank.serve().login("1", "0001"));
    let told = done(&bank, &["backup", "--to", copy_name, "--replace", "--json"]);
    assert_eq!(
        (json(&told)["lsn"].as_u64(), json(&told)["verified"].as_bool()),
        (Some(4), Some(true))
    );
    assert!(verifies(copy_name));

    let link = bank.directory().join("link.db");
    std::os::unix::fs::symlink(bank.path(), &link).unwrap();
    let [itself, link, pepper, directory, foreign] = [
        bank.path(),
        link,
        bank.directory().join("bank.db.pepper"),
        bank.directory().to_owned(),
        other.path(),
    ]
    .map(|path| path.to_str().unwrap().to_owned());
    let before = std::fs::read(&foreign).unwrap();
    let key = std::fs::read(&pepper).unwrap();
    for (to, why) in [
        (&itself, "is the bank itself"),
        (&link, "is the bank itself"),
        (&pepper, "is no bank file"),
        (&directory, "is a directory"),
        (&foreign, "is a bank of its own"),
    ] {
        refused(&bank, &["backup", "--to", to, "--replace"], &[why]);
    }
    assert_eq!(std::fs::read(&foreign).unwrap(), before);
    assert_eq!(std::fs::read(&pepper).unwrap(), key);
    bank.assert_verifies();
    refused(
        &bank,
        &["restore", "--from", &itself],
        &["is the bank itself, and no copy of it"],
    );
}

#[test]
fn books_that_do_not_balance_are_neither_backed_up_nor_restored() {
    let bank = TestBank::generate(2);
    let (good, _) = backup(&bank, "good.db");
    let bad = bank.directory().join("bad.db").to_str().unwrap().to_owned();
    let tamper = |file: &Path| {
        let file = rusqlite::Connection::open(file).unwrap();
        file.execute("UPDATE journal SET balance = balance + 1 WHERE lsn = 2", [])
            .unwrap();
    };
    tamper(&bank.path());
    refused(
        &bank,
        &["backup", "--to", &bad],
        &["do not balance", "journal row 2", "atm-server verify"],
    );
    assert!(
        !names(&bank).iter().any(|name| name.starts_with("bad.db")),
        "{:?}",
        names(&bank)
    );
    let told = done(&bank, &["backup", "--to", &bad, "--no-verify"]);
    assert!(told.contains("books were not verified"), "{told}");
    refused(
        &bank,
        &["restore", "--from", &bad, "--lose-newer"],
        &["bad.db do not balance"],
    );

    // The bank itself is what is wrong: its second row is not that of the copy.
    refused(
        &bank,
        &["restore", "--from", &good],
        &["a journal row (row 2 of "],
    );
    done(&bank, &["restore", "--from", &good, "--lose-newer"]);
    bank.assert_verifies();
}

#[test]
fn a_change_of_a_pin_a_terminal_or_a_blocked_card_is_not_lost_unasked_either() {
    let bank = TestBank::generate(3);
    let (copy, _) = backup(&bank, "copy.db");
    let restore = ["restore", "--from", &copy];
    // Nothing has happened since, so nothing is lost.
    assert!(!done(&bank, &restore).contains("not in it any more"));

    let server = bank.serve();
    server.login("1", "0001").change_pin("0001", "8642").unwrap();
    assert!(server.client().login(&"2".parse().unwrap(), "9999").is_err());
    assert!(server.stop().0.success());
    let since = "has 2 cards that have changed since, a terminal that has changed since: none";
    refused(&bank, &restore, &[since]);
    bank.serve().login("1", "8642");
    let told = done(&bank, &[&restore[..], &["--lose-newer"]].concat());
    assert!(told.contains("not in it any more: 2 cards"), "{told}");
    bank.serve().login("1", "0001");
}

#[test]
fn another_banks_copy_is_not_taken_for_an_older_one() {
    let (bank, other) = (TestBank::generate(3), TestBank::generate(5));
    let (copy, _) = backup(&other, "copy.db");
    let pepper = other.directory().join("bank.db.pepper");
    let pepper = pepper.to_str().unwrap();
    refused(
        &bank,
        &["restore", "--from", &copy, "--lose-newer"],
        &[
            "the pepper file is not this bank's",
            "needs the keys of its time",
            "--pepper",
        ],
    );
    refused(
        &bank,
        &["restore", "--from", &copy, "--pepper", pepper],
        &["has 3 journal rows of another history (rows 1 to 3, "],
    );
    bank.assert_verifies();
    let nowhere = bank.directory().join("nowhere");
    let (nowhere, bank_path) = (nowhere.to_str().unwrap(), bank.path());
    let told = done(
        &bank,
        &["restore", "--from", &copy, "--pepper", nowhere, "--lose-newer"],
    );
    assert!(
        told.contains("There is no pepper file") && told.contains("before you serve"),
        "{told}"
    );
    refused(&bank, &["serve", "--listen", "127.0.0.1:0"], &["pepper"]);
    std::fs::copy(pepper, bank_path.with_added_extension("pepper")).unwrap();
    bank.serve().login("5", "0005");
}

#[test]
fn a_bank_that_is_lost_or_cannot_be_read_is_restored_and_what_is_left_of_it_is_kept() {
    let bank = TestBank::generate(3);
    let (copy, _) = backup(&bank, "copy.db");
    let server = bank.serve();
    deposit(&mut server.login("1", "0001"));
    server.kill();
    // A newer program's file, with a log that belongs to it.
    let clean = (
        std::fs::read(bank.path()).unwrap(),
        std::fs::read(log(&bank)).unwrap(),
    );
    assert!(!clean.1.is_empty());
    let file = rusqlite::Connection::open(bank.path()).unwrap();
    file.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    file.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .unwrap();
    file.pragma_update(None, "user_version", 99).unwrap();
    drop(file);
    refused(
        &bank,
        &["restore", "--from", &copy],
        &["newer program", "nobody can tell", "--lose-newer"],
    );
    let told = json(&done(
        &bank,
        &["restore", "--from", &copy, "--lose-newer", "--json"],
    ));
    assert_eq!(told["lost"], "unknown");
    bank.assert_verifies();
    let aside = rusqlite::Connection::open(told["set_aside"].as_str().unwrap()).unwrap();
    let kept: (i64, i64) = aside
        .query_row(
            "SELECT max(lsn), (SELECT user_version FROM pragma_user_version) FROM journal",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert_eq!(kept, (4, 99), "the log went with it");

    // Somebody has removed the bank, and left its log, which is not the copy's.
    std::fs::remove_file(bank.path()).unwrap();
    std::fs::write(log(&bank), clean.1).unwrap();
    let told = json(&done(&bank, &["restore", "--from", &copy, "--json"]));
    assert_eq!(
        (told["set_aside"].clone(), told["lsn"].as_u64()),
        (Value::Null, Some(3))
    );
    bank.assert_verifies();
    assert_eq!(deposit(&mut bank.serve().login("1", "0001")).0, 4);
    refused(
        &bank,
        &["restore", "--from", "/nowhere/copy.db"],
        &["there is no bank file"],
    );
}

fn log(bank: &TestBank) -> PathBuf {
    bank.directory().join("bank.db-wal")
}

fn start(bank: &TestBank, arguments: &[&str]) -> Child {
    Command::new(program("atm-server"))
        .args(arguments)
        .env("ATM_BANK", bank.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills a command as soon as there is a file whose name ends like that. Gives whether it was still running.
fn kill_when_there_is(bank: &TestBank, arguments: &[&str], ending: &str) -> bool {
    let mut process = start(bank, arguments);
    let was_running = loop {
        if process.try_wait().unwrap().is_some() {
            break false;
        }
        if names(bank).iter().any(|name| name.ends_with(ending)) {
            break true;
        }
        std::thread::yield_now();
    };
    process.kill().unwrap();
    !process.wait().unwrap().success() && was_running
}

#[test]
fn a_killed_backup_leaves_no_backup_and_a_killed_restore_the_bank() {
    // Enough of them that copying and proving take a while.
    let bank = TestBank::generate(3000);
    let copy = bank.directory().join("copy.db");
    let to = copy.to_str().unwrap();
    assert!(kill_when_there_is(&bank, &["backup", "--to", to], ".tmp"));
    assert!(!copy.exists());
    done(&bank, &["backup", "--to", to]);
    let whole = std::fs::read(&copy).unwrap();
    assert!(
        kill_when_there_is(&bank, &["backup", "--to", to, "--replace", "--json"], ".tmp") || verifies(to)
    );
    assert_eq!(
        std::fs::read(&copy).unwrap(),
        whole,
        "the older copy is as it was"
    );

    deposit(&mut bank.serve().login("1", "0001"));
    let restore = ["restore", "--from", to, "--lose-newer"];
    assert!(kill_when_there_is(&bank, &restore, ".restoring"));
    bank.assert_verifies();
    assert_eq!(balances_at(bank.path().to_str().unwrap(), 9999)[&1], 100_001);
    // Killed when the old bank has its second name, it may be done or not, and nothing between.
    let done_or_not = kill_when_there_is(&bank, &restore, "before-restore-1");
    bank.assert_verifies();
    let balance = balances_at(bank.path().to_str().unwrap(), 9999)[&1];
    assert!(
        balance == 100_000 || (done_or_not && balance == 100_001),
        "{balance}"
    );
    done(&bank, &restore);
    bank.assert_verifies();
    assert!(
        !names(&bank).iter().any(|name| name.contains("restoring")),
        "{:?}",
        names(&bank)
    );
    assert_eq!(deposit(&mut bank.serve().login("1", "0001")).1, 100_001);
}

/// Runs a command of the server whose files may not grow beyond half a megabyte, as on a disk that is full.
fn with_little_room(bank: &TestBank, arguments: &[&str]) -> Output {
    Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 1024; exec \"$0\" \"$@\""])
        .arg(program("atm-server"))
        .args(arguments)
        .env("ATM_BANK", bank.path())
        .output()
        .unwrap()
}

#[test]
fn a_copy_for_which_there_is_no_room_is_not_there_and_the_bank_is_as_it_was() {
    let bank = TestBank::generate(5000);
    let (copy, _) = backup(&bank, "copy.db");
    let before = names(&bank);
    let to = bank.directory().join("second.db");
    for arguments in [
        &["backup", "--to", to.to_str().unwrap()][..],
        &["backup", "--to", &copy, "--replace"],
        &["restore", "--from", &copy],
    ] {
        let failed = with_little_room(&bank, arguments);
        assert_eq!(failed.status.code(), Some(1), "{arguments:?}");
        assert!(
            stderr(&failed).contains("copying the bank file: "),
            "{}",
            stderr(&failed)
        );
        let left: Vec<_> = names(&bank)
            .into_iter()
            .filter(|name| !before.contains(name))
            .collect();
        assert!(left.iter().all(|name| name == "bank.db.lock"), "{left:?}");
    }
    assert!(verifies(&copy));
    bank.assert_verifies();
}

/// A bank with a bit of everything: what customers did, and under which ids.
struct Happenings {
    bank: TestBank,
    withdrawal: TxnId,
    declined: TxnId,
    transfer: TxnId,
    fenced: TxnId,
    advised: TxnId,
}

/// Rows 1 to 3 open accounts; 4 to 9 are a withdrawal, a declined one, a transfer, the withdrawal's reversal, a fence and an advice.
fn happenings() -> Happenings {
    let bank = TestBank::generate(3);
    let server = bank.serve();
    let mut client = server.login("1", "0001");
    let [withdrawal, declined, transfer, fenced, advised] = [(); 5].map(|()| TxnId::generate());
    client.withdraw(withdrawal, amount(2000)).unwrap();
    client.withdraw(declined, amount(99_999_999)).unwrap();
    client.transfer(transfer, id(2), amount(500)).unwrap();
    client.reverse(id(1), withdrawal).unwrap();
    client.resolve(id(1), fenced).unwrap();
    client.advice(id(3), advised, amount(4000)).unwrap();
    assert!(server.stop().0.success());
    Happenings {
        bank,
        withdrawal,
        declined,
        transfer,
        fenced,
        advised,
    }
}

/// A text with its dates and times replaced, which are not the same each time.
fn without_times(text: &str) -> String {
    let mut masked: Vec<u8> = text.bytes().collect();
    for start in 0..masked.len().saturating_sub(18) {
        let part = &text.as_bytes()[start..start + 19];
        let shape: Vec<u8> = part
            .iter()
            .map(|byte| if byte.is_ascii_digit() { b'9' } else { *byte })
            .collect();
        if shape == b"9999-99-99 99:99:99" {
            masked[start..start + 19].copy_from_slice(b"YYYY-MM-DD hh:mm:ss");
        }
    }
    String::from_utf8(masked).unwrap()
}

#[test]
fn a_statement_for_people_is_aligned_and_fits_a_screen() {
    let found = happenings();
    let text = done(&found.bank, &["statement", "--account", "1"]);
    let expected = "\
Account 1 in USD
Card 1: Customer 1

    row time (UTC)          kind              amount         balance  other side
                                      opening balance           0.00
      1 YYYY-MM-DD hh:mm:ss opening          1000.00         1000.00  opening
      4 YYYY-MM-DD hh:mm:ss withdrawal        -20.00          980.00  TEST
      5 YYYY-MM-DD hh:mm:ss withdrawal   (-999999.99)         980.00  TEST
                            declined: insufficient_funds
      6 YYYY-MM-DD hh:mm:ss transfer           -5.00          975.00  to 2
      7 YYYY-MM-DD hh:mm:ss reversal           20.00          995.00  TEST
                            undoes row 4
      8 YYYY-MM-DD hh:mm:ss fence              (0.00)         995.00  TEST
                            declined: given_up
                                      closing balance         995.00
";
    assert_eq!(without_times(&text), expected);
    let text = done(&found.bank, &["statement", "--account", "1", "--lines", "2"]);
    assert!(
        text.contains("opening balance         975.00\n      7 "),
        "{text}"
    );
    let text = done(
        &found.bank,
        &["statement", "--account", "2", "--from", "2000-01-01"],
    );
    assert!(
        text.contains("Business dates from 2000-01-01\n") && text.contains("  from 1\n"),
        "{text}"
    );
    let text = done(&found.bank, &["statement", "--terminal", "TEST", "--lines", "4"]);
    let expected = "\
Terminal TEST

    row time (UTC)          kind          account        amount      other side
      6 YYYY-MM-DD hh:mm:ss transfer            1         -5.00  USD to 2
      7 YYYY-MM-DD hh:mm:ss reversal            1         20.00  USD TEST
                            undoes row 4
      8 YYYY-MM-DD hh:mm:ss fence               1         (0.00) USD TEST
                            declined: given_up
      9 YYYY-MM-DD hh:mm:ss advice              3         40.00  USD TEST
4 rows
";
    assert_eq!(without_times(&text), expected);
}

#[test]
fn rows_are_selected_by_account_terminal_date_and_id() {
    let found = happenings();
    let bank = &found.bank;
    let file = rusqlite::Connection::open(bank.path()).unwrap();
    // Days of their own: the accounts are opened on the first, a transfer and what follows is of the third.
    let base: i64 = 20_000;
    file.execute_batch(&format!(
        "UPDATE journal SET business_date = {base} + CASE WHEN lsn <= 3 THEN 0 WHEN lsn <= 5 THEN 1 ELSE 2 END;
         UPDATE accounts SET business_date = 0;"
    ))
    .unwrap();
    drop(file);
    let [first, second, third] = ["2024-10-04", "2024-10-05", "2024-10-06"];
    let withdrawal = found.withdrawal.to_string();
    let check = |arguments: &[&str], rows: &[u64]| {
        let shown = done(bank, &[&["statement", "--format", "json"], arguments].concat());
        let lines: Vec<Value> = shown
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let shown: Vec<_> = lines.iter().map(|line| line["lsn"].as_u64().unwrap()).collect();
        assert_eq!(shown, rows, "{arguments:?}");
    };
    check(&["--account", "1"], &[1, 4, 5, 6, 7, 8]);
    check(&["--account", "2"], &[2, 6]);
    check(&["--account", "1", "--from", second], &[4, 5, 6, 7, 8]);
    check(&["--account", "1", "--to", second], &[1, 4, 5]);
    check(&["--account", "1", "--from", second, "--to", second], &[4, 5]);
    check(&["--account", "1", "--to", second, "--lines", "1"], &[5]);
    check(&["--terminal", "TEST"], &[4, 5, 6, 7, 8, 9]);
    check(&["--terminal", "TEST", "--to", second], &[4, 5]);
    check(&["--terminal", "NONE"], &[]);
    check(&["--from", third], &[6, 7, 8, 9]);
    check(&["--from", first, "--to", first], &[1, 2, 3]);
    check(&["--from", first, "--lines", "3"], &[7, 8, 9]);
    check(&["--from", first, "--lines", "0"], &[]);
    check(&["--txn-id", &withdrawal], &[4, 7]);
    let usage = |arguments: &[&str]| {
        let refused = bank.server_command(&[&["statement"], arguments].concat());
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
    };
    usage(&[]);
    usage(&["--account", "1", "--terminal", "TEST"]);
    usage(&["--from", "yesterday"]);
    // Not as before: what is of the second day begins and ends with the balances of then.
    let text = done(
        bank,
        &["statement", "--account", "1", "--from", second, "--to", second],
    );
    assert!(
        text.contains("Business dates 2024-10-05 to 2024-10-05\n")
            && text.contains("opening balance        1000.00\n")
            && text.contains("closing balance         980.00\n"),
        "{text}"
    );
}

#[test]
fn a_statement_for_programs_has_the_same_fields_in_csv_and_json() {
    let found = happenings();
    let transfer = found.transfer.to_string();
    let csv = done(&found.bank, &["statement", "--account", "2", "--format", "csv"]);
    let lines: Vec<_> = csv.lines().collect();
    assert_eq!(lines.len(), 3, "{csv}");
    assert_eq!(
        lines[0],
        "lsn,time,business_date,kind,outcome,code,account,contra,terminal,currency,amount,balance,txn_id,original_lsn,card_id,action"
    );
    let date = &lines[2][2..12];
    assert!(
        lines[2].starts_with(&format!("6,{date}T"))
            && lines[2].ends_with(&format!(
                "Z,{date},transfer,approved,approved,2,1,TEST,USD,5.00,1005.00,{transfer},,1,"
            )),
        "{csv}"
    );
    let json = done(&found.bank, &["statement", "--account", "1", "--format", "json"]);
    let first = json.lines().next().unwrap();
    let places: Vec<_> = lines[0]
        .split(',')
        .map(|name| first.find(&format!("\"{name}\":")))
        .collect();
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{first}"
    );
    assert_eq!(first.matches("\":").count(), places.len());
    let none = done(
        &found.bank,
        &["statement", "--terminal", "NONE", "--format", "csv"],
    );
    assert_eq!(none.trim_end(), lines[0]);
    let rows: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for (row, field, value) in [
        (0, "contra", Value::from("opening")),
        (0, "terminal", Value::Null),
        (0, "txn_id", Value::Null),
        (2, "outcome", "declined".into()),
        (2, "code", "insufficient_funds".into()),
        (2, "amount", "-999999.99".into()),
        (2, "balance", "980.00".into()),
        (3, "contra", "2".into()),
        (4, "original_lsn", 4.into()),
    ] {
        assert_eq!(rows[row][field], value, "{json}");
    }
}

#[test]
fn a_dispute_is_told_with_all_that_belongs_to_it() {
    let found = happenings();
    let tell = |txn_id: TxnId| {
        let text = done(&found.bank, &["dispute", "--txn-id", &txn_id.to_string()]);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        let words = without_times(&text.split_whitespace().collect::<Vec<_>>().join(" "));
        (text, words)
    };
    let (text, words) = tell(found.withdrawal);
    assert!(
        words.contains(
            "The withdrawal of 20.00 USD from account 1 at terminal TEST was approved at YYYY-MM-DD hh:mm:ss UTC (row 4) and \
             reversed at YYYY-MM-DD hh:mm:ss UTC (row 7) by terminal TEST: the money is where it was."
        ),
        "{text}"
    );
    for part in [
        "Its reversal: row 7",
        "registered itself",
        "card 1: Customer 1",
        "  row 1  ",
        "> row 4  ",
        "  row 5  ",
        "balance after  980.00 USD",
    ] {
        assert!(text.contains(part), "{part:?}: {text}");
    }
    for (txn_id, sentence) in [
        (
            found.declined,
            "was declined at YYYY-MM-DD hh:mm:ss UTC (row 5): \"Insufficient funds.\" No money was moved.",
        ),
        (
            found.transfer,
            "The transfer of 5.00 USD from account 1 to account 2 at terminal TEST was approved at YYYY-MM-DD hh:mm:ss UTC (row 6), and \
             stands.",
        ),
        (
            found.fenced,
            "terminal TEST gave this transaction on account 1 up before the bank had seen it (row 8): no money was moved",
        ),
        (
            found.advised,
            "The advice of terminal TEST that it holds 40.00 USD for account 3, which the bank had not credited, was approved",
        ),
    ] {
        let (text, words) = tell(txn_id);
        assert!(words.contains(sentence), "{text}");
    }

    let transfer = found.transfer.to_string();
    let told = json(&done(
        &found.bank,
        &["dispute", "--txn-id", &transfer, "--format", "json"],
    ));
    let matter = &told["matters"][0];
    assert_eq!(matter["row"]["lsn"], 6, "{told}");
    let sides = matter["sides"].as_array().unwrap();
    let lsns = |side: &Value| ["before", "row", "after"].map(|place| side[place]["lsn"].as_u64());
    assert_eq!(lsns(&sides[0]), [Some(5), Some(6), Some(7)], "{told}");
    assert_eq!(lsns(&sides[1]), [Some(2), Some(6), None], "{told}");
    assert_eq!(sides[1]["row"]["amount"], "5.00");
    assert_eq!(matter["terminal"]["proof"], "nothing");

    // The payee's next row may be one in which he is paid again.
    let server = found.bank.serve();
    let again = server
        .login("1", "0001")
        .transfer(TxnId::generate(), id(2), amount(1));
    assert!(
        matches!(again, Ok(Outcome::Approved(lsn, _)) if lsn.get() == 10),
        "{again:?}"
    );
    assert!(server.stop().0.success());
    let told = json(&done(
        &found.bank,
        &["dispute", "--txn-id", &transfer, "--format", "json"],
    ));
    assert_eq!(
        lsns(&told["matters"][0]["sides"][1]),
        [Some(2), Some(6), Some(10)],
        "{told}"
    );

    let unknown = TxnId::generate().to_string();
    let told = found.bank.server_command(&["dispute", "--txn-id", &unknown]);
    let words = stdout(&told).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        told.status.code() == Some(1)
            && words.contains("No account has this id in any of the 10 rows of the journal"),
        "{words}"
    );
    let told = found
        .bank
        .server_command(&["dispute", "--txn-id", &unknown, "--format", "json"]);
    assert_eq!(json(&stdout(&told))["found"], false);
}
