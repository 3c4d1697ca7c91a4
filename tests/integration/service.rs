//! The server as a service of systemd: what it tells its manager, and the unit.

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use atm_cli::connection::Connection;
use atm_tests::{Server, TestBank, program, stderr, stdout};
use bank_core::TerminalId;
use bank_core::limits::{REPLY_DEADLINE, SHUTDOWN_GRACE};

const UNIT: &str = include_str!("../../data/systemd/atm-server.service");
const SETTINGS: &str = include_str!("../../data/systemd/atm-server.toml");

/// A service manager's socket.
struct Manager {
    socket: UnixDatagram,
    bank: TestBank,
}

impl Manager {
    fn new() -> Manager {
        let bank = TestBank::generate(2);
        let socket = UnixDatagram::bind(bank.directory().join("notify")).unwrap();
        // What never comes fails the test, not the machine.
        socket.set_read_timeout(Some(REPLY_DEADLINE)).unwrap();
        Manager { socket, bank }
    }

    fn serve(&self, listen: &str) -> Command {
        let mut command = Command::new(program("atm-server"));
        command
            .args(["serve", "--listen", listen])
            .env("ATM_BANK", self.bank.path())
            .env("NOTIFY_SOCKET", self.bank.directory().join("notify"));
        command
    }

    fn news(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).expect("the server tells something");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    fn assert_nothing_was_told(&self) {
        self.socket.set_nonblocking(true).unwrap();
        let error = self.socket.recv(&mut [0; 64]).expect_err("nothing is told");
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        self.socket.set_nonblocking(false).unwrap();
    }
}

#[test]
fn the_manager_is_told_when_terminals_can_connect_and_when_the_end_begins() {
    let manager = Manager::new();
    let server = Server::start(manager.serve("127.0.0.1:0"));
    let ready = manager.news();
    let lines: Vec<_> = ready.lines().collect();
    assert_eq!(lines[0], "READY=1");
    let address = lines[1]
        .strip_prefix("STATUS=serving 2 accounts on ")
        .expect("a status with the address");
    let mut client = Connection::connect(address, TerminalId::new("TEST").unwrap()).unwrap();
    client.ping().unwrap();
    manager.assert_nothing_was_told();
    let (status, log) = server.stop();
    assert!(status.success(), "{log}");
    let stopping = manager.news();
    assert!(
        stopping.starts_with("STOPPING=1\nSTATUS=shutting down (SIGTERM)"),
        "{stopping}"
    );
    manager.assert_nothing_was_told();
}

#[test]
fn a_server_that_cannot_serve_is_never_said_to_be_ready() {
    let manager = Manager::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let run = |arguments: &[&str]| -> Output {
        manager
            .serve(&taken.local_addr().unwrap().to_string())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    assert_eq!(run(&[]).status.code(), Some(1));
    assert_eq!(run(&["--bank", "missing.db"]).status.code(), Some(1));
    assert_eq!(run(&["--connections", "0"]).status.code(), Some(2));
    let nowhere = ["--listen", "127.0.0.1:0", "--admin-socket", "missing/admin"];
    assert_eq!(run(&nowhere[2..]).status.code(), Some(1));
    manager.assert_nothing_was_told();
}

#[test]
fn a_manager_that_is_not_there_keeps_nobody_from_being_served() {
    let manager = Manager::new();
    let mut command = manager.serve("127.0.0.1:0");
    command.env("NOTIFY_SOCKET", "/nowhere/notify");
    let server = Server::start(command);
    server.login("1", "0001").balance().unwrap();
    let (status, log) = server.stop();
    assert!(
        status.success() && log.contains("the service manager could not be told"),
        "{log}"
    );
}

/// The value of a key of the unit.
fn unit(key: &str) -> &str {
    let value = UNIT
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("the unit has no {key}"))
}

#[test]
fn the_units_times_and_exit_codes_are_the_servers() {
    let stop: u64 = unit("TimeoutStopSec").trim_end_matches('s').parse().unwrap();
    assert!(
        stop >= 3 * SHUTDOWN_GRACE.as_secs(),
        "after the grace period the bank file is finished"
    );
    assert_eq!(unit("Type"), "notify");
    assert_eq!(unit("Restart"), "on-failure");
    assert_eq!(unit("RestartPreventExitStatus"), "2");
}

#[test]
fn the_services_settings_are_taken_with_and_without_the_lines_that_are_commented_out() {
    let place = TestBank::nowhere();
    let with_tls: String = SETTINGS
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(setting) if setting.contains(" = ") => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert!(with_tls.contains("\ntls-key = "), "{with_tls}");
    for (text, listen) in [(SETTINGS, "127.0.0.1:5100"), (&with_tls, "0.0.0.0:5100")] {
        let file = place.write("atm-server.toml", text);
        let shown = place.server_command(&["serve", "--config", file.to_str().unwrap(), "--print-config"]);
        assert!(shown.status.success(), "{}", stderr(&shown));
        assert!(
            stdout(&shown).contains(&format!("\nlisten = \"{listen}\"\n")),
            "{}",
            stdout(&shown)
        );
    }
}

/// Needs systemd's programs, though not that it runs.
#[test]
fn systemd_takes_the_unit_and_finds_little_exposed() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("atm-server.service");
    let built = program("atm-server");
    std::fs::write(
        &path,
        UNIT.replace("/usr/local/bin/atm-server", built.to_str().unwrap()),
    )
    .unwrap();
    let analyze =
        |arguments: &[&str], path: &Path| Command::new("systemd-analyze").args(arguments).arg(path).output();
    let verified = match analyze(&["verify", "--man=no"], &path) {
        Ok(verified) => verified,
        Err(error) => return eprintln!("skipped: systemd-analyze: {error}"),
    };
    assert!(
        verified.status.success() && stderr(&verified).is_empty(),
        "{}",
        stderr(&verified)
    );
    // In tenths of ten: what is left is that it has a network, local sockets, and the right to change priorities.
    let security = ["security", "--offline=true", "--threshold=15", "--no-pager"];
    let security = analyze(&security, &path).unwrap();
    assert!(security.status.success(), "{}", stdout(&security));
}
