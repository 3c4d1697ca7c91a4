//! A disk that fails under a running server.

use std::process::Command;

use atm_cli::connection::{Connection, ConnectionError, Outcome};
use atm_tests::{Server, TestBank, program};
use bank_core::{Amount, TxnId};

/// Deposits until the server falls silent. Gives the newest balance that was acknowledged.
fn deposit_until_silence(mut client: Connection) -> i64 {
    let mut acknowledged = 0;
    loop {
        match client.deposit(TxnId::generate(), Amount::from_minor(1).unwrap()) {
            Ok(Outcome::Approved(_, receipt)) => acknowledged = receipt.balance,
            Ok(declined) => panic!("{declined:?}"),
            Err(ConnectionError::Lost(_)) => return acknowledged,
            Err(other) => panic!("a failed commit is answered by silence, not by {other:?}"),
        }
    }
}

/// The server poisons itself, exits, and the next one serves what is on disk.
fn check(bank: &TestBank, server: Server, make_room: impl FnOnce()) {
    let acknowledged = deposit_until_silence(server.login("1", "0001"));
    assert!(acknowledged > 100_000, "some deposits went through");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(3), "{log}");
    assert!(
        log.contains("the journal is poisoned") && !log.contains("closed in order"),
        "{log}"
    );
    make_room();
    bank.assert_verifies();
    let server = bank.serve();
    let balance = server.login("1", "0001").balance().unwrap().balance.minor();
    // The one deposit in flight may have been made durable by the next opening, or not.
    assert!(
        (acknowledged..=acknowledged + 1).contains(&balance),
        "{acknowledged} acknowledged, {balance} found"
    );
    assert!(server.stop().0.success());
    bank.assert_verifies();
}

#[test]
fn a_file_that_may_not_grow_poisons_the_journal() {
    let bank = TestBank::generate(1);
    // The shell sets the limit in blocks of 512 bytes, and ignores the signal that would come with it.
    let limit = 512;
    let serve = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" serve --listen 127.0.0.1:0");
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(serve)
        .arg(program("atm-server"))
        .env("ATM_BANK", bank.path());
    check(&bank, Server::start(command), || ());
}

/// Needs the right to mount; without it, it says that it was skipped.
#[test]
fn a_full_disk_poisons_the_journal() {
    let place = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=768k", "tmpfs"])
        .arg(place.path())
        .output();
    if !mounted.is_ok_and(|mounted| mounted.status.success()) {
        eprintln!("skipped: a_full_disk_poisons_the_journal needs the right to mount a tmpfs");
        return;
    }
    let unmount = Unmount(place);
    let bank = TestBank::at(unmount.0.path());
    assert!(
        bank.server_command(&["generate", "--accounts", "1"])
            .status
            .success()
    );
    // What the opening after the failure needs: room to copy the log.
    let ballast = bank.write("ballast", vec![0; 200 * 1024]);
    let server = bank.serve();
    check(&bank, server, || std::fs::remove_file(ballast).unwrap());
}

struct Unmount(tempfile::TempDir);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}
