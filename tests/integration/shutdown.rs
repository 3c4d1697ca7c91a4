//! Ending in order.

use std::process::{Command, Stdio};

use atm_cli::connection::ConnectionError;
use atm_tests::{TestBank, program};
use bank_core::protocol::ErrorCode;
use bank_core::{Amount, TxnId};
use rustix::process::Signal;

#[test]
fn a_signal_ends_the_server_in_order() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let bank = TestBank::generate(2);
        let server = bank.serve();
        let mut client = server.login("1", "0001");
        client
            .deposit(TxnId::generate(), Amount::from_minor(500).unwrap())
            .unwrap();
        server.signal(signal);
        let (status, log) = server.wait();
        assert!(status.success() && log.contains("closed in order"), "{log}");
        // An idle client is told; asked again it is nobody's fault.
        match client.balance() {
            Err(error @ ConnectionError::Refused { .. }) => {
                assert_eq!(error.code(), Some(ErrorCode::ShuttingDown));
            }
            other => panic!("{other:?}"),
        }
        bank.assert_verifies();
        // The accounts table is up to date and nothing but the bank lies there.
        let file = rusqlite::Connection::open(bank.path()).unwrap();
        let balance: i64 = file
            .query_row("SELECT balance FROM accounts WHERE account = 1", [], |row| {
                row.get(0)
            })
            .unwrap();
        let checkpoint: i64 = file
            .query_row("SELECT checkpoint_lsn FROM bank", [], |row| row.get(0))
            .unwrap();
        assert_eq!((balance, checkpoint), (100_500, 3));
    }
}

#[test]
fn an_ended_server_leaves_one_file_with_everything_in_it() {
    let bank = TestBank::generate(1);
    assert!(bank.serve().stop().0.success());
    let mut names: Vec<_> = std::fs::read_dir(bank.directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["bank.db", "bank.db.lock", "bank.db.pepper"]);
}

#[test]
fn a_second_server_on_the_same_bank_is_kept_out() {
    let bank = TestBank::generate(1);
    let server = bank.serve();
    for arguments in [
        &["serve", "--listen", "127.0.0.1:0"][..],
        &["generate", "--accounts", "2", "--replace"],
    ] {
        let second = bank.server_command(arguments);
        assert_eq!(second.status.code(), Some(1));
        assert!(
            atm_tests::stderr(&second).contains("in use by another atm-server"),
            "{}",
            atm_tests::stderr(&second)
        );
    }
    // Reading is free for all.
    bank.assert_verifies();
    assert!(
        bank.server_command(&["statement", "--account", "1"])
            .status
            .success()
    );
    server.kill();
    assert!(
        bank.serve().stop().0.success(),
        "a lock does not outlive its process"
    );
}

#[test]
fn the_end_of_input_is_no_wish_to_stop_and_enter_on_a_terminal_is() {
    // `script` gives the server a terminal of its own.
    let bank = TestBank::generate(1);
    let server = bank.serve();
    assert!(
        server.login("1", "0001").balance().is_ok(),
        "its input has ended from the start"
    );
    drop(server);
    let serve = format!("{} serve --listen 127.0.0.1:0", program("atm-server").display());
    let mut terminal = Command::new("script")
        .args(["--quiet", "--return", "--command", &serve, "/dev/null"])
        .env("ATM_BANK", bank.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program script (Debian's bsdutils) is there");
    let mut stdout = std::io::BufReader::new(terminal.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("Press Enter") {
        line.clear();
        assert!(
            std::io::BufRead::read_line(&mut stdout, &mut line).unwrap() > 0,
            "the server ended too early"
        );
    }
    std::io::Write::write_all(&mut terminal.stdin.take().unwrap(), b"\n").unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut rest).unwrap();
    assert!(terminal.wait().unwrap().success(), "{rest}");
    assert!(rest.contains("closed in order"), "{rest}");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let bank = TestBank::generate(1);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let failed = bank.server_command(&["serve", "--listen", &address]);
    assert_eq!(failed.status.code(), Some(1));
    let error = atm_tests::stderr(&failed);
    assert!(
        error.contains(&format!("cannot listen on {address}")) && error.contains("--listen"),
        "{error}"
    );
}

#[test]
fn a_bank_has_one_lock_whatever_it_is_called() {
    let bank = TestBank::generate(1);
    let link = bank.directory().join("link.db");
    std::os::unix::fs::symlink(bank.path(), &link).unwrap();
    let server = bank.serve();
    let pepper = bank.directory().join("bank.db.pepper");
    let (link, pepper) = (link.to_str().unwrap(), pepper.to_str().unwrap());
    let second = bank.server_command(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--bank",
        link,
        "--pepper",
        pepper,
    ]);
    assert_eq!(second.status.code(), Some(1));
    assert!(
        atm_tests::stderr(&second).contains("in use by another atm-server"),
        "{}",
        atm_tests::stderr(&second)
    );
    assert!(server.stop().0.success());
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let bank = TestBank::generate(1);
    let mut command = Command::new("sh");
    let serve = "exec \"$0\" serve --listen 127.0.0.1:0 2>/dev/full";
    command
        .args(["-c", serve])
        .arg(program("atm-server"))
        .env("ATM_BANK", bank.path());
    let server = atm_tests::Server::start(command);
    assert!(server.login("1", "0001").balance().is_ok());
    assert!(server.stop().0.success());
}

#[test]
fn a_verdict_that_nobody_reads_is_a_verdict() {
    let bank = TestBank::generate(1);
    rusqlite::Connection::open(bank.path())
        .unwrap()
        .execute_batch("UPDATE accounts SET balance = 1")
        .unwrap();
    let verify = "\"$0\" verify >/dev/full";
    let verified = Command::new("sh")
        .args(["-c", verify])
        .arg(program("atm-server"))
        .env("ATM_BANK", bank.path())
        .status()
        .unwrap();
    assert_eq!(verified.code(), Some(1));
}
