//! TLS: who is taken for the bank and for a terminal, what those who are not are told, and that nothing recorded or
//! changed on the way is of any use.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use atm_cli::connection::{Connection, ConnectionError, Outcome};
use atm_cli::tls::{Privacy, Tls, TlsFiles};
use atm_server::certificates::{Authority, CertifiedFiles};
use atm_tests::{Server, TestBank, atm_cli, stderr, stdout};
use bank_core::limits::REPLY_DEADLINE;
use bank_core::protocol::ErrorCode;
use bank_core::{Amount, BusinessDate, CardNumber, Moment, TerminalId, TerminalSecret, TxnId};

const SAMPLE: &str = "Ken,2468,100.00\n";

/// A bank, and authorities in its directory.
struct Site {
    bank: TestBank,
}

impl Site {
    fn new() -> Site {
        Site {
            bank: TestBank::load(SAMPLE),
        }
    }

    /// The authority of that name, as it is so many days from now.
    fn authority(&self, name: &str, days: i32) -> Authority {
        let today = BusinessDate::from_days(Moment::now().date.days() + days);
        Authority::open_or_create(&self.bank.directory().join(name), today)
            .unwrap()
            .0
    }

    fn ca(&self, name: &str) -> PathBuf {
        self.bank.directory().join(name).join("ca.pem")
    }

    /// Certificates of the bank's own authority for its server and for ATM-1.
    fn certify(&self) -> (CertifiedFiles, CertifiedFiles) {
        let authority = self.authority("bank", 0);
        let server = authority.certify_server(&["127.0.0.1".into()], 30, true).unwrap();
        let terminal = authority.certify_terminal(id("ATM-1"), 30, true).unwrap();
        (server, terminal)
    }

    /// A certificate and its key for whom nobody vouches.
    fn self_signed(&self) -> CertifiedFiles {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let files = CertifiedFiles {
            certificate: self.bank.write("self.pem", made.cert.pem()),
            key: self.bank.write("self.key", made.signing_key.serialize_pem()),
        };
        std::fs::set_permissions(&files.key, PermissionsExt::from_mode(0o600)).unwrap();
        files
    }

    fn serve(&self, server: &CertifiedFiles, more: &[&str]) -> Server {
        let (cert, key) = (text(&server.certificate), text(&server.key));
        self.bank
            .serve_with(&[&["--tls-cert", cert, "--tls-key", key], more].concat())
    }
}

fn id(text: &str) -> TerminalId {
    TerminalId::new(text).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn private(ca: &Path, own: Option<&CertifiedFiles>) -> Privacy {
    let own = own.map(|own| (own.certificate.as_path(), own.key.as_path()));
    Privacy::Tls(Tls::new(TlsFiles { ca, own }, None).unwrap())
}

fn open(address: &str, privacy: &Privacy, terminal: &str) -> Result<Connection, ConnectionError> {
    Connection::open(
        address,
        privacy,
        id(terminal),
        None,
        Instant::now() + REPLY_DEADLINE,
    )
}

fn code(refused: Result<Connection, ConnectionError>) -> ErrorCode {
    refused
        .expect_err("it is refused")
        .code()
        .expect("the bank says why")
}

fn deposit(connection: &mut Connection, id: TxnId) -> Outcome {
    connection.deposit(id, Amount::from_minor(500).unwrap()).unwrap()
}

#[test]
fn a_customer_is_served_over_tls_and_the_menu_and_the_shutdown_are_as_without() {
    let site = Site::new();
    let (server, terminal) = site.certify();
    let ca = site.ca("bank");
    let served = site.serve(&server, &["--tls-client-ca", text(&ca), "--registered-terminals"]);
    let mut session = open(served.address(), &private(&ca, Some(&terminal)), "ATM-1").unwrap();
    session.login(&CardNumber::new("Ken").unwrap(), "2468").unwrap();
    assert!(matches!(
        deposit(&mut session, TxnId::generate()),
        Outcome::Approved(..)
    ));
    let mut options = vec!["--tls-ca", text(&ca), "--tls-cert", text(&terminal.certificate)];
    options.extend(["--tls-key", text(&terminal.key), "--terminal", "ATM-1"]);
    let asked = [&options[..], &["balance", "--card", "Ken", "--pin-file", "-"]].concat();
    let balance = served.atm_cli(&asked, "2468\n");
    assert_eq!(stdout(&balance), "105.00 USD\n", "{}", stderr(&balance));
    let journal = site.bank.terminal_journal();
    options.extend(["--journal", &journal, "--cassettes", "50x10"]);
    let menu = served.atm_cli(&options, "Ken\n2468\n1\n8\n");
    assert!(
        stdout(&menu).contains("105.00 USD"),
        "{}{}",
        stdout(&menu),
        stderr(&menu)
    );
    served.signal(rustix::process::Signal::TERM);
    // It is told so in place of an answer, and nothing was asked.
    let told = loop {
        if let Err(told) = session.ping() {
            break told;
        }
    };
    assert_eq!(told.code(), Some(ErrorCode::ShuttingDown), "{told}");
    assert!(served.wait().0.success());
    site.bank.assert_verifies();
}

#[test]
fn a_server_that_may_be_somebody_else_is_told_nothing_and_the_terminal_says_why() {
    let site = Site::new();
    let (good, terminal) = site.certify();
    let ca = site.ca("bank");
    let names = ["127.0.0.1".to_owned()];
    let certify = |authority: Authority, names: &[String]| authority.certify_server(names, 30, true).unwrap();
    let check = |server: &CertifiedFiles, expected: &str| {
        let served = site.serve(server, &[]);
        let asked = [
            "--tls-ca",
            text(&ca),
            "balance",
            "--card",
            "Ken",
            "--pin-file",
            "-",
        ];
        let refused = served.atm_cli(&asked, "2468\n");
        let (said, code) = (stderr(&refused), refused.status.code());
        assert!(
            said.contains(expected) && code == Some(1),
            "{expected}: {code:?}: {said}"
        );
        let log = served.stop().1;
        assert!(!log.contains("logged in") && !log.contains("registers"), "{log}");
    };
    check(
        &certify(site.authority("bank", -60), &names),
        "certificate expired on",
    );
    check(
        &certify(site.authority("bank", 60), &names),
        "compare this machine's clock",
    );
    check(
        &certify(site.authority("other", 0), &names),
        "not of the authority in --tls-ca",
    );
    check(&site.self_signed(), "self-signed");
    check(
        &certify(site.authority("bank", 0), &["bank.example".into()]),
        "is not for 127.0.0.1",
    );
    check(&terminal, "is not a server's");
    let served = site.serve(&site.certify().0, &[]);
    open(served.address(), &private(&ca, None), "ATM-5").expect("the right one is trusted");
    drop((served, good));
}

#[test]
fn a_terminals_certificate_names_it_and_one_that_is_not_good_is_refused_with_the_reason() {
    let site = Site::new();
    let (server, good) = site.certify();
    let ca = site.ca("bank");
    let certify = |authority: Authority| authority.certify_terminal(id("ATM-1"), 30, true).unwrap();
    let served = site.serve(&server, &["--tls-client-ca", text(&ca), "--registered-terminals"]);
    let check = |own: &CertifiedFiles, expected: &str| {
        let refused = open(served.address(), &private(&ca, Some(own)), "ATM-1").unwrap_err();
        let trusted = !matches!(refused, ConnectionError::NotTrusted { .. });
        assert!(
            !trusted && refused.to_string().contains(expected),
            "{expected}: {refused}"
        );
        assert!(!refused.may_pass(), "it is of no use to try again");
    };
    check(
        &certify(site.authority("other", 0)),
        "not of the bank's authority",
    );
    check(&site.self_signed(), "self-signed");
    check(&server, "it was made for another use");
    let session = open(served.address(), &private(&ca, Some(&good)), "ATM-1");
    session.expect("the right one is let in");
    // Somebody else's id, known to the bank or not, with one's own certificate or with none.
    let stolen = [("ATM-2", Some(&good)), ("ATM-1", None), ("ATM-2", None)];
    for (terminal, own) in stolen {
        let refused = open(served.address(), &private(&ca, own), terminal);
        assert_eq!(code(refused), ErrorCode::TerminalRefused, "{terminal}");
    }
    check(&certify(site.authority("bank", -60)), "has expired");
    check(&certify(site.authority("bank", 60)), "not good yet");
    let log = served.stop().1;
    assert!(log.contains("TLS failed"), "{log}");
}

#[test]
fn an_id_that_came_with_a_certificate_is_nobodys_without_it_even_after_a_restart() {
    let site = Site::new();
    let (server, terminal) = site.certify();
    let ca = site.ca("bank");
    let options = ["--tls-client-ca", text(&ca)];
    let served = site.serve(&server, &options);
    let (with, without) = (private(&ca, Some(&terminal)), private(&ca, None));
    open(served.address(), &without, "ATM-1").expect("an unknown one registers itself on this machine");
    open(served.address(), &with, "ATM-1").expect("its certificate names it");
    assert_eq!(
        code(open(served.address(), &without, "ATM-1")),
        ErrorCode::TerminalRefused
    );
    assert!(served.stop().0.success());
    let served = site.serve(&server, &options);
    assert_eq!(
        code(open(served.address(), &without, "ATM-1")),
        ErrorCode::TerminalRefused
    );
    open(served.address(), &with, "ATM-1").expect("its certificate names it");
}

#[test]
fn what_was_recorded_is_of_no_use_and_what_is_changed_on_the_way_is_noticed() {
    let site = Site::new();
    let (server, _) = site.certify();
    let ca = site.ca("bank");
    let served = site.serve(&server, &[]);
    let privacy = private(&ca, None);
    let (address, recording) = tap(served.address(), &Arc::default());
    let mut session = open(&address, &privacy, "ATM-5").unwrap();
    session.login(&CardNumber::new("Ken").unwrap(), "2468").unwrap();
    deposit(&mut session, TxnId::generate());
    session.logout().unwrap();
    drop(session);
    let recorded = recording.join().unwrap();
    assert!(
        !recorded.windows(4).any(|window| window == b"2468"),
        "the PIN went over the wire"
    );
    for _ in 0..2 {
        let mut replay = served.socket();
        // The server may hang up in the middle.
        let _ = replay.write_all(&recorded);
        let _ = replay.shutdown(Shutdown::Write);
        let _ = replay.read_to_end(&mut Vec::new());
    }

    let tamper = Arc::default();
    let (address, recording) = tap(served.address(), &tamper);
    let mut session = open(&address, &privacy, "ATM-5").unwrap();
    session.login(&CardNumber::new("Ken").unwrap(), "2468").unwrap();
    tamper.store(true, Ordering::SeqCst);
    let changed = session.deposit(TxnId::generate(), Amount::from_minor(500).unwrap());
    assert!(changed.is_err_and(|error| error.leaves_doubt()), "it was noticed");
    drop(session);
    recording.join().unwrap();

    let mut session = open(served.address(), &privacy, "ATM-5").unwrap();
    session.login(&CardNumber::new("Ken").unwrap(), "2468").unwrap();
    assert_eq!(
        session.balance().unwrap().balance.minor(),
        10_500,
        "one deposit, once"
    );
    drop(session);
    assert!(served.stop().0.success());
    site.bank.assert_verifies();
}

/// Stands on the way of one connection to `server`: keeps what the client says and, once it is to tamper, changes it.
fn tap(server: &str, tamper: &Arc<AtomicBool>) -> (String, thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut server = TcpStream::connect(server).unwrap();
    let tamper = Arc::clone(tamper);
    let recording = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let (mut answers, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        let back = thread::spawn(move || {
            let _ = std::io::copy(&mut answers, &mut to_client);
            let _ = to_client.shutdown(Shutdown::Both);
        });
        let mut recorded = Vec::new();
        let mut chunk = [0; 4096];
        while let Ok(bytes @ 1..) = client.read(&mut chunk) {
            recorded.extend_from_slice(&chunk[..bytes]);
            if tamper.load(Ordering::SeqCst) {
                chunk[bytes - 1] ^= 1;
            }
            if server.write_all(&chunk[..bytes]).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
        back.join().unwrap();
        recorded
    });
    (address, recording)
}

#[test]
fn a_certificate_puts_an_end_to_the_secret_that_a_terminal_had() {
    let site = Site::new();
    let (server, terminal) = site.certify();
    let ca = site.ca("bank");
    let secret_file = site.bank.directory().join("secret");
    let added = site
        .bank
        .server_command(&["add-terminal", "ATM-1", "--secret-file", text(&secret_file)]);
    assert!(added.status.success(), "{}", stderr(&added));
    let secret = TerminalSecret::read(&secret_file).unwrap();
    let served = site.serve(&server, &["--tls-client-ca", text(&ca)]);
    let by_secret = || {
        let deadline = Instant::now() + REPLY_DEADLINE;
        Connection::open(
            served.address(),
            &private(&ca, None),
            id("ATM-1"),
            Some(&secret),
            deadline,
        )
    };
    by_secret().expect("it is the terminal's secret");
    open(served.address(), &private(&ca, Some(&terminal)), "ATM-1").expect("its certificate names it");
    assert_eq!(
        code(by_secret()),
        ErrorCode::TerminalRefused,
        "somebody may have copied it"
    );
}

#[test]
fn a_connection_that_ended_without_a_word_is_not_asked_anything() {
    let site = Site::new();
    let (server, _) = site.certify();
    let served = site.serve(&server, &[]);
    let mut session = open(served.address(), &private(&site.ca("bank"), None), "ATM-5").unwrap();
    session.ping().unwrap();
    served.kill();
    let asked = session.login(&CardNumber::new("Ken").unwrap(), "2468");
    // So that whoever is in doubt only about what was asked may ask again.
    assert!(matches!(asked, Err(ConnectionError::NotSent(_))), "{asked:?}");
}

#[test]
fn over_the_limit_of_connections_a_client_is_told_so_by_tls_and_one_without_tls_that() {
    let site = Site::new();
    let (server, _) = site.certify();
    let served = site.serve(&server, &["--connections", "1"]);
    let privacy = private(&site.ca("bank"), None);
    let mut session = open(served.address(), &privacy, "ATM-5").unwrap();
    let silent: Vec<_> = (0..100).map(|_| served.socket()).collect();
    assert_eq!(
        code(open(served.address(), &privacy, "ATM-6")),
        ErrorCode::TooManyConnections
    );
    assert_eq!(
        code(open(served.address(), &Privacy::Loopback, "ATM-6")),
        ErrorCode::TlsRequired
    );
    session.ping().expect("one who is served is served on");
    drop((session, silent));
    while open(served.address(), &privacy, "ATM-6").is_err() {}
}

#[test]
fn whoever_speaks_tls_to_one_who_does_not_or_the_other_way_round_is_told_so() {
    let site = Site::new();
    let (server, _) = site.certify();
    let ca = site.ca("bank");
    let served = site.serve(&server, &[]);
    let plain = open(served.address(), &Privacy::Loopback, "ATM-5");
    assert_eq!(code(plain), ErrorCode::TlsRequired);
    drop(served);
    let served = site.bank.serve();
    let refused = open(served.address(), &private(&ca, None), "ATM-5").unwrap_err();
    assert!(refused.to_string().contains("does not speak TLS"), "{refused}");
}

#[test]
fn the_network_is_neither_listened_to_nor_spoken_to_without_tls() {
    let site = Site::new();
    let (server, _) = site.certify();
    let (cert, key) = (text(&server.certificate), text(&server.key));
    let frightening = "--dangerously-let-the-network-read-pins";
    let refused = site.bank.server_command(&["serve", "--listen", "0.0.0.0:0"]);
    assert!(stderr(&refused).contains("--tls-cert"), "{}", stderr(&refused));
    assert_eq!(refused.status.code(), Some(2));
    // The last --listen counts; of what it listens to, only loopback is used here.
    for options in [&["--tls-cert", cert, "--tls-key", key][..], &[frightening]] {
        let mut command = std::process::Command::new(atm_tests::program("atm-server"));
        command.args(["serve", "--listen", "0.0.0.0:0"]).args(options);
        command.env("ATM_BANK", site.bank.path());
        assert!(Server::start(command).stop().0.success(), "{options:?}");
    }
    // An address for documentation (RFC 5737): nobody is there, and nobody is asked.
    let asked = ["balance", "--card", "Ken", "--pin-file", "-"];
    let refused = atm_cli("192.0.2.1:5100", &asked, "2468\n");
    assert!(stderr(&refused).contains("--tls-ca"), "{}", stderr(&refused));
    assert_eq!(refused.status.code(), Some(1));
}

#[test]
fn keys_that_others_may_read_and_files_that_do_not_fit_are_refused() {
    let site = Site::new();
    let (server, terminal) = site.certify();
    let serve = |cert: &Path, key: &Path, more: &[&str]| {
        let options = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--tls-cert",
            text(cert),
            "--tls-key",
            text(key),
        ];
        let refused = site.bank.server_command(&[&options[..], more].concat());
        assert_eq!(refused.status.code(), Some(1));
        stderr(&refused)
    };
    let said = serve(&server.certificate, &terminal.key, &[]);
    assert!(said.contains("--tls-key"), "{said}");
    let said = serve(&server.key, &server.key, &[]);
    assert!(said.contains("no certificate"), "{said}");
    let said = serve(&server.certificate, &server.certificate, &[]);
    assert!(
        said.contains("private key") || said.contains("chmod 600"),
        "{said}"
    );
    let said = serve(
        &server.certificate,
        &server.key,
        &["--tls-client-ca", text(&server.key)],
    );
    assert!(said.contains("no certificate"), "{said}");
    for key in [&server.key, &terminal.key] {
        std::fs::set_permissions(key, PermissionsExt::from_mode(0o640)).unwrap();
    }
    let said = serve(&server.certificate, &server.key, &[]);
    assert!(said.contains("chmod 600"), "{said}");
    let ca = site.ca("bank");
    let own = Some((terminal.certificate.as_path(), terminal.key.as_path()));
    let error = Tls::new(TlsFiles { ca: &ca, own }, None).unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
}

#[test]
fn certificates_are_made_once_and_replaced_only_on_purpose() {
    let bank = TestBank::nowhere();
    let directory = bank.directory().join("tls");
    let make = |arguments: &[&str]| {
        bank.server_command(&[&["certificate", "--dir", text(&directory)], arguments].concat())
    };
    let astray = make(&["--server", "bank.example", "--replace"]);
    assert!(
        stderr(&astray).contains("nothing to replace"),
        "{}",
        stderr(&astray)
    );
    let impossible = make(&["--server", "bank.example:5100"]);
    assert!(
        !impossible.status.success() && !directory.exists(),
        "nothing is begun that cannot be ended"
    );
    let made = make(&["--server", "bank.example", "--terminal", "ATM-1"]);
    let said = stdout(&made);
    assert!(
        made.status.success() && said.contains("Keep it offline"),
        "{said}{}",
        stderr(&made)
    );
    let before = std::fs::read(directory.join("ATM-1.pem")).unwrap();
    let again = make(&["--terminal", "ATM-1"]);
    assert!(
        !again.status.success() && stderr(&again).contains("--replace"),
        "{}",
        stderr(&again)
    );
    assert_eq!(std::fs::read(directory.join("ATM-1.pem")).unwrap(), before);
    assert!(make(&["--terminal", "ATM-1", "--replace"]).status.success());
    assert_ne!(std::fs::read(directory.join("ATM-1.pem")).unwrap(), before);
    for key in ["ca.key", "server.key", "ATM-1.key"] {
        let mode = std::fs::metadata(directory.join(key))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    // What is no secret has the mode that the operator's umask leaves it.
    let program = atm_tests::program("atm-server");
    for (mask, mode) in [("022", 0o644), ("077", 0o600)] {
        let place = bank.directory().join(mask);
        let line = format!(
            "umask {mask}; exec {} certificate --dir {}",
            text(&program),
            text(&place)
        );
        let made = std::process::Command::new("sh").args(["-c", &line]).output();
        assert!(made.unwrap().status.success());
        let made = std::fs::metadata(place.join("ca.pem"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(made & 0o777, mode, "umask {mask}");
    }
    for (wrong, part) in [
        (&["--server", "no name"][..], "neither a host's name"),
        (&["--terminal", "A-"], "hyphen"),
        (&[], "say what it is to certify"),
    ] {
        let refused = make(&[wrong, &["--replace"]].concat());
        assert!(stderr(&refused).contains(part), "{}", stderr(&refused));
    }
    std::fs::copy(bank.directory().join("022/ca.pem"), directory.join("ca.pem")).unwrap();
    let mixed = make(&["--terminal", "ATM-2"]);
    assert!(
        stderr(&mixed).contains("restore the two together"),
        "{}",
        stderr(&mixed)
    );
    std::fs::remove_file(directory.join("ca.pem")).unwrap();
    let halved = make(&["--terminal", "ATM-2"]);
    assert!(stderr(&halved).contains("restore it"), "{}", stderr(&halved));
}
