//! What operators do with a bank while it is served: accounts, cards, postings, interest, business dates, terminals; and what is left of
//! it when the server is killed.

use std::path::PathBuf;
use std::process::Command;

use atm_tests::{Server, TestBank, stderr, stdout};
use bank_core::{Amount, TxnId};
use serde_json::Value;

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
        let socket = self.socket.to_str().unwrap();
        self.bank
            .serve_with(&["--admin-socket", socket, "--log-level", "debug"])
    }

    fn admin(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let socket = self.socket.to_str().unwrap();
        let done = self
            .bank
            .server_command(&[&["admin", "--admin-socket", socket], arguments].concat());
        (done.status.code(), stdout(&done), stderr(&done))
    }

    /// What a command does, as `--json` tells it.
    fn done(&self, arguments: &[&str]) -> Value {
        let (code, said, error) = self.admin(&[arguments, &["--json"]].concat());
        assert_eq!(code, Some(0), "{arguments:?}: {said}{error}");
        let reply: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(reply["done"], true);
        reply["data"].clone()
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let (code, said, error) = self.admin(arguments);
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        error
    }

    fn verify(&self, arguments: &[&str]) -> (bool, String) {
        let proof = self.bank.server_command(&[&["verify"], arguments].concat());
        (proof.status.success(), stdout(&proof))
    }

    fn pin_file(&self, pin: &str) -> String {
        let path = self.bank.write(&format!("pin-{}", pin.trim()), pin);
        path.to_str().unwrap().to_owned()
    }
}

fn amount(minor: i64) -> Amount {
    Amount::from_minor(minor).unwrap()
}

#[test]
fn an_account_lives_from_its_opening_to_its_closing_while_the_bank_is_served() {
    let site = Site::new();
    let server = site.serve();
    let opened = site.done(&[
        "open-account",
        "--balance",
        "40",
        "--daily",
        "30.00",
        "--reason",
        "a new customer",
    ]);
    assert_eq!(
        (&opened["account"], &opened["balance"]),
        (&1003.into(), &"40.00".into())
    );
    let pin = site.pin_file("4711\n");
    site.done(&["add-card", "Zoe", "--account", "1003", "--pin-file", &pin]);
    let mut zoe = server.login("Zoe", "4711");
    assert!(matches!(
        zoe.withdraw(TxnId::generate(), amount(3001)),
        Ok(atm_cli::connection::Outcome::Declined { code: 3, .. })
    ));
    zoe.withdraw(TxnId::generate(), amount(1000)).unwrap();
    site.done(&["limits", "1003", "--daily", "none", "--overdraft", "12.50"]);
    zoe.withdraw(TxnId::generate(), amount(4250)).unwrap();
    assert!(
        site.refused(&["close", "1003"])
            .contains("account 1003 has -12.50 USD: pay it out")
    );
    site.done(&["freeze", "1003"]);
    assert!(matches!(
        zoe.deposit(TxnId::generate(), amount(1)),
        Ok(atm_cli::connection::Outcome::Declined { code: 2, .. })
    ));
    assert!(
        site.refused(&["freeze", "1003"])
            .contains("account 1003 is frozen")
    );
    site.done(&["unfreeze", "1003"]);
    let adjusted = site.done(&[
        "adjust",
        "1003",
        "12.50",
        "--against",
        "suspense",
        "--reason",
        "a gift",
    ]);
    assert_eq!(
        (&adjusted["amount"], &adjusted["balance"]),
        (&"12.50".into(), &"0.00".into())
    );
    site.done(&["close", "1003"]);
    let listed = site.done(&["accounts", "--filter", "closed"]);
    assert_eq!(
        (&listed["count"], &listed["accounts"][0]["account"]),
        (&1.into(), &1003.into())
    );
    let (_, table, _) = site.admin(&["accounts", "--filter", "ZO"]);
    assert!(table.contains("closed") && table.contains("Zoe"), "{table}");
    let statement = site.done(&["statement", "1003"]);
    let kinds: Vec<_> = statement["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds.last(), Some(&"adjustment"));
    server.kill();
    let server = site.serve();
    assert_eq!(
        site.done(&["accounts", "--filter", "1003"])["accounts"][0]["status"],
        "closed"
    );
    let actions = site.done(&["actions"]);
    let commands: Vec<_> = actions
        .as_array()
        .unwrap()
        .iter()
        .map(|action| action["command"].as_str().unwrap())
        .collect();
    assert_eq!(
        commands,
        [
            "close",
            "adjust",
            "unfreeze",
            "freeze",
            "limits",
            "add-card",
            "open-account"
        ]
    );
    assert_eq!(actions[1]["reason"], "a gift");
    let user = Command::new("id").arg("-un").output().unwrap();
    assert_eq!(
        actions[0]["operator"].as_str(),
        Some(stdout(&user).trim()),
        "the peer's user"
    );
    assert!(site.verify(&[]).0);
    let pin = site.pin_file("852014");
    site.done(&["reset-pin", "Zoe", "--pin-file", &pin, "--reason", "forgotten"]);
    let (status, log) = server.stop();
    assert!(status.success());
    assert!(log.contains("reset-pin"), "{log}");
    for secret in ["852014", "Zoe"] {
        assert!(!log.contains(secret), "{secret} is in the log: {log}");
    }
}

#[test]
fn a_posting_is_done_once_under_its_request_id_and_its_receipt_proves_history() {
    let site = Site::new();
    let server = site.serve();
    let id = TxnId::generate().to_string();
    let posting = [
        "adjust",
        "1001",
        "-7.25",
        "--request-id",
        &id,
        "--operator",
        "Ann",
    ];
    let first = site.done(&posting);
    assert_eq!(first["before"], false);
    server.kill();
    let server = site.serve();
    let again = site.done(&posting);
    assert_eq!(again["before"], true);
    for same in ["lsn", "balance", "head", "action"] {
        assert_eq!(first[same], again[same], "{same}");
    }
    let (_, said, _) = site.admin(&posting);
    assert!(said.contains("done before under this request id"), "{said}");
    assert!(
        site.refused(&["adjust", "1001", "-7.26", "--request-id", &id])
            .contains("this request id is that of another command")
    );
    for (wrong, why) in [
        (&["adjust", "1001", "0"][..], "adds or takes something"),
        (&["adjust", "1001", "1.234"], "1.234"),
        (&["adjust", "1009", "1"], "there is no account 1009"),
        (
            &["open-account", "--account", "1001"],
            "there is an account 1001 already",
        ),
        (&["open-account", "--currency", "XXY"], "XXY"),
        (&["limits", "1001"], "name --overdraft, --daily or both"),
        (
            &["reset-pin", "Nobody", "--pin-file", &site.pin_file("4711")],
            "there is no card Nobody",
        ),
        (
            &["reset-pin", "Ken", "--pin-file", &site.pin_file("1234")],
            "too easy to guess",
        ),
        (
            &["reset-pin", "Ken", "--pin-file", &site.pin_file("12")],
            "4 to 12 digits",
        ),
        (
            &[
                "add-card",
                "Ken",
                "--account",
                "1001",
                "--pin-file",
                &site.pin_file("4711"),
            ],
            "there is a card Ken already",
        ),
        (&["close-day", "--date", "9999-01-01"], "is not over"),
        (
            &["interest", "--rate", "1%", "--period", "9999-01"],
            "has not begun",
        ),
        (
            &["adjust", "1001", "1", "--reason", "two\nlines"],
            "without control characters",
        ),
    ] {
        let told = site.refused(wrong);
        assert!(told.contains(why), "{wrong:?}: {told}");
    }
    assert_eq!(
        site.done(&["actions"]).as_array().unwrap().len(),
        1,
        "what is refused leaves nothing"
    );
    assert!(server.stop().0.success());
    let record = format!("{}:{}", first["lsn"], first["head"].as_str().unwrap());
    let (whole, told) = site.verify(&["--receipt", &record]);
    assert!(
        whole && told.contains("and all before it are what they were"),
        "{told}"
    );
    let file = rusqlite::Connection::open(site.bank.path()).unwrap();
    file.execute_batch("UPDATE actions SET operator = 'nobody'")
        .unwrap();
    let (whole, told) = site.verify(&[]);
    assert!(!whole && told.contains("the hash chain breaks"), "{told}");
}

#[test]
fn interest_is_posted_once_for_a_month_whoever_is_killed() {
    let site = Site::new();
    let server = site.serve();
    let today = site.done(&["cut-over"])["business_date"]
        .as_str()
        .unwrap()
        .to_owned();
    let interest = [
        "interest",
        "--rate",
        "2%",
        "--period",
        &today[..7],
        "--reason",
        "as promised",
    ];
    let posted = site.done(&interest);
    assert_eq!(
        (&posted["accounts"], &posted["sums"]["USD"]),
        (&2.into(), &"2.10".into())
    );
    server.kill();
    let server = site.serve();
    let posted = site.done(&interest);
    assert_eq!(
        (&posted["accounts"], &posted["had_before"]),
        (&0.into(), &2.into())
    );
    assert_eq!(
        server.login("Ken", "2468").balance().unwrap().balance.minor(),
        10_200
    );
    let (whole, told) = site.verify(&[]);
    assert!(whole && told.contains("interest -2.10"), "{told}");
}

#[test]
fn a_date_is_closed_once_and_reports_the_same_with_and_without_a_server() {
    let site = Site::new();
    let server = site.serve();
    let (code, said, _) = site.admin(&["close-day", "--reason", "the evening"]);
    assert_eq!(code, Some(0));
    assert!(said.contains("Everything agrees."), "{said}");
    let through = site.done(&["close-day"])["through"].as_str().unwrap().to_owned();
    // A cut-over in the past of the day has the date of tomorrow begin.
    site.done(&["cut-over", "00:01"]);
    server
        .login("Ken", "2468")
        .deposit(TxnId::generate(), amount(500))
        .unwrap();
    let closed = site.done(&["close-day"]);
    assert_ne!(closed["through"], through.as_str());
    assert_eq!(closed["currencies"]["USD"]["after"]["customers"], "105.00");
    server.kill();
    let offline = site.bank.server_command(&["day-report", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&stdout(&offline)).unwrap(), closed);
    let first = site.bank.server_command(&["day-report", "--date", &through]);
    assert!(
        stdout(&first).contains(&format!("up to {through}")),
        "{}",
        stdout(&first)
    );
    let open = site.bank.server_command(&["day-report", "--date", "9998-01-01"]);
    assert_eq!(open.status.code(), Some(1));
    assert!(
        stderr(&open).contains("9998-01-01 is not closed"),
        "{}",
        stderr(&open)
    );
}

#[test]
fn a_terminal_is_added_and_retired_while_the_bank_is_served() {
    let site = Site::new();
    let server = site.serve();
    let secret = site.bank.directory().join("secret");
    let path = secret.to_str().unwrap();
    site.done(&["add-terminal", "ATM-7", "--secret-file", path]);
    assert!(secret.exists());
    let other = site.bank.directory().join("other");
    let told = site.refused(&["add-terminal", "ATM-7", "--secret-file", other.to_str().unwrap()]);
    assert!(told.contains("--replace") && !other.exists(), "{told}");
    let balance = |server: &Server| {
        Command::new(atm_tests::program("atm-cli"))
            .args(["--server", server.address(), "--terminal", "ATM-7"])
            .args([
                "--terminal-secret-file",
                path,
                "--deadline",
                "5",
                "balance",
                "--card",
                "Ken",
            ])
            .args(["--pin-file", &site.pin_file("2468")])
            .output()
            .unwrap()
    };
    let asked = balance(&server);
    assert!(asked.status.success(), "{}", stderr(&asked));
    site.done(&["retire-terminal", "ATM-7"]);
    let asked = balance(&server);
    assert!(stderr(&asked).contains("refused"), "{}", stderr(&asked));
    server.kill();
    let server = site.serve();
    assert!(!balance(&server).status.success(), "also after a crash");
    let (code, said, _) = site.admin(&["checkpoint"]);
    assert!(code == Some(0) && said.contains("up to date as of row"), "{said}");
}

/// The chain as somebody else computes it, from the description in `data/README.md` alone.
#[test]
fn anybody_can_compute_the_chain_with_sqlite_and_python() {
    let site = Site::new();
    let server = site.serve();
    let mut ken = server.login("Ken", "2468");
    for _ in 0..5 {
        ken.deposit(TxnId::generate(), amount(100)).unwrap();
    }
    ken.transfer(TxnId::generate(), "1002".parse().unwrap(), amount(50))
        .unwrap();
    ken.withdraw(TxnId::generate(), amount(9_999_999)).unwrap();
    site.done(&["freeze", "1002", "--reason", "a test"]);
    site.done(&["adjust", "1001", "3"]);
    let month = site.done(&["cut-over"])["business_date"].as_str().unwrap()[..7].to_owned();
    site.done(&["interest", "--rate", "1%", "--period", &month]);
    drop(ken);
    assert!(server.stop().0.success());
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/chain.py");
    let run = |expected: bool| {
        let run = Command::new("python3")
            .arg(program)
            .arg(site.bank.path())
            .output()
            .unwrap();
        assert_eq!(run.status.success(), expected, "{}{}", stdout(&run), stderr(&run));
        stdout(&run)
    };
    let (_, proof) = site.verify(&[]);
    assert!(proof.contains(run(true).trim()), "{proof}");
    let file = rusqlite::Connection::open(site.bank.path()).unwrap();
    file.execute_batch("UPDATE journal SET card_id = NULL WHERE kind = 1")
        .unwrap();
    assert!(run(false).contains("differs"));
}
