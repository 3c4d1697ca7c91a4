//! The operators' socket: what only an operator may do, and who is one.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use atm_cli::connection::ConnectionError;
use atm_tests::{Server, TestBank, stderr, stdout};
use bank_core::CardNumber;
use bank_core::protocol::ErrorCode;

const SAMPLE: &str = "Ken,2468,100.00\nMia,1357,5.00\n";

struct Site {
    bank: TestBank,
    socket: PathBuf,
}

impl Site {
    fn new() -> Site {
        let bank = TestBank::load(SAMPLE);
        Site {
            socket: bank.directory().join("admin"),
            bank,
        }
    }

    fn serve(&self) -> Server {
        self.bank
            .serve_with(&["--admin-socket", self.socket.to_str().unwrap()])
    }

    fn admin(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let socket = self.socket.to_str().unwrap();
        let done = self
            .bank
            .server_command(&[&["admin", "--admin-socket", socket], arguments].concat());
        (done.status.code(), stdout(&done), stderr(&done))
    }
}

fn login(server: &Server, card: &str, pin: &str) -> Result<(), ConnectionError> {
    server
        .client()
        .login(&CardNumber::new(card).unwrap(), pin)
        .map(drop)
}

#[test]
fn a_blocked_card_is_of_use_again_when_an_operator_says_so_and_not_before() {
    let site = Site::new();
    let server = site.serve();
    for _ in 0..3 {
        assert!(login(&server, "Ken", "1111").is_err());
    }
    assert!(login(&server, "Ken", "2468").is_err(), "it is blocked");
    let (status, log) = server.stop();
    assert!(status.success());
    assert_eq!(log.matches("wrong PINs have blocked a card").count(), 1, "{log}");
    let server = site.serve();
    assert!(
        login(&server, "Ken", "2468").is_err(),
        "a restart unblocks nothing"
    );
    let (code, said, _) = site.admin(&["unblock-card", "Ken"]);
    assert_eq!(
        (code, said.as_str()),
        (Some(0), "card Ken is unblocked, and has all its tries\n")
    );
    login(&server, "Ken", "2468").expect("it is of use again");
    let (code, said, _) = site.admin(&["unblock-card", "Mia", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["done"]), (Some(0), &true.into()));
    let (code, _, said) = site.admin(&["unblock-card", "Nobody"]);
    assert_eq!(
        (code, said.as_str()),
        (Some(1), "atm-server: there is no card Nobody\n")
    );
    server.kill();
    let server = site.serve();
    login(&server, "Ken", "2468").expect("what the operator was told is on disk");
}

#[test]
fn an_operator_ends_the_server_in_order_and_its_socket_is_gone() {
    let site = Site::new();
    let mut server = site.serve();
    let mut session = server.login("Ken", "2468");
    let other = TestBank::load(SAMPLE);
    let second = other.server_command(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--admin-socket",
        site.socket.to_str().unwrap(),
    ]);
    assert!(
        stderr(&second).contains("another server listens"),
        "{}",
        stderr(&second)
    );
    assert!(!server.has_ended());
    let (code, said, _) = site.admin(&["shutdown"]);
    assert!(
        code == Some(0) && said.contains("shutting down"),
        "{code:?} {said}"
    );
    let told = loop {
        if let Err(told) = session.ping() {
            break told;
        }
    };
    assert_eq!(told.code(), Some(ErrorCode::ShuttingDown), "{told}");
    let (status, log) = server.wait();
    assert!(status.success() && log.contains("closed in order"), "{log}");
    assert!(!site.socket.exists());
    let (code, _, said) = site.admin(&["shutdown"]);
    assert!(code == Some(1) && said.contains("is a server running"), "{said}");
    site.bank.assert_verifies();
}

#[test]
fn what_is_no_request_is_refused_and_disturbs_nobody() {
    let site = Site::new();
    let server = site.serve();
    let say = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(&site.socket).unwrap();
        // Whoever is not listened to any more cannot write.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        said
    };
    let long = [b'x'; 100_000];
    for garbage in [
        &b"shutdown\n"[..],
        b"{}\n",
        b"\xff\xfe\n",
        br#"{"command":"shutdown","now":true}"#,
        br#"{"command":"unblock-card","card":7}"#,
        br#"{"command":"shutdown"#,
        &long,
    ] {
        let said = say(garbage);
        assert!(said.contains("\"done\":false"), "{said}");
    }
    assert_eq!(say(b""), "");
    let silent = UnixStream::connect(&site.socket).unwrap();
    login(&server, "Ken", "2468").unwrap();
    assert_eq!(site.admin(&["unblock-card", "Ken"]).0, Some(0));
    assert!(
        server.stop().0.success(),
        "one who says nothing keeps nobody waiting"
    );
    drop(silent);
}

/// Needs the right to be somebody else, and Python.
#[test]
fn another_user_is_no_operator_even_if_the_sockets_mode_lets_him_in() {
    const NOBODY: u32 = 65534;
    let site = Site::new();
    let server = site.serve();
    std::fs::set_permissions(&site.socket, PermissionsExt::from_mode(0o666)).unwrap();
    std::fs::set_permissions(site.bank.directory(), PermissionsExt::from_mode(0o755)).unwrap();
    let script = "import socket, sys\n\
                  s = socket.socket(socket.AF_UNIX)\n\
                  s.connect(sys.argv[1])\n\
                  try:\n    s.sendall(b'{\"command\":\"shutdown\"}\\n')\n    print(s.recv(1000))\n\
                  except OSError:\n    print(b'')\n";
    let asked = Command::new("python3")
        .args(["-c", script])
        .arg(&site.socket)
        .uid(NOBODY)
        .output();
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => return eprintln!("skipped: python3 as another user: {error}"),
    };
    assert_eq!(stdout(&asked), "b''\n", "{}", stderr(&asked));
    login(&server, "Ken", "2468").expect("it serves on");
    let log = server.stop().1;
    assert!(log.contains("user 65534 is no operator"), "{log}");
}
