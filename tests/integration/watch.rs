//! What the server shows to those who watch it: metrics, its health, and the operator's page, in a real browser.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use atm_tests::{Server, TestBank, stderr};
use bank_core::limits::{MAX_HTTP_HEAD_BYTES, WATCH_CONNECTIONS};
use bank_core::{Amount, CardNumber};
use serde_json::Value;

struct Watched {
    server: Server,
    /// `http://ADDR/`.
    url: String,
}

impl Watched {
    fn serve(bank: &TestBank) -> Watched {
        let mut server = bank.serve_with(&["--metrics-listen", "127.0.0.1:0"]);
        let line = server.next_line();
        let url = line
            .strip_prefix("metrics on ")
            .expect("it says where")
            .to_owned();
        Watched { server, url }
    }

    fn address(&self) -> &str {
        self.url.trim_start_matches("http://").trim_end_matches('/')
    }

    fn say(&self, head: &str) -> String {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        // Whoever is refused before he has said all cannot write.
        let _ = stream.write_all(head.as_bytes());
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    /// The status line and headers, and the body.
    fn get(&self, path: &str) -> (String, String) {
        let answer = self.say(&format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n",
            self.address()
        ));
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("{path}: {answer}"));
        (head.to_owned(), body.to_owned())
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.get("/status.json").1).unwrap()
    }

    /// The metric of that name and those labels.
    fn metric(&self, name: &str) -> Option<f64> {
        let told = self.get("/metrics").1;
        told.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Deposits, which wait for the disk, until the status is as it is wanted.
    fn work_until(&self, enough: impl Fn(&Value) -> bool) -> Value {
        let mut client = self.server.login("Ken", "2468");
        loop {
            deposit(&mut client);
            let status = self.status();
            if enough(&status) {
                return status;
            }
        }
    }
}

fn deposit(client: &mut atm_cli::connection::Connection) {
    let (id, amount) = (
        bank_core::TxnId::at(bank_core::Moment::now().time),
        Amount::from_minor(100).unwrap(),
    );
    client.deposit(id, amount).unwrap();
}

fn bank() -> TestBank {
    TestBank::load("Ken,2468,100.00\nMia,1357,5.00\n")
}

#[test]
fn metrics_count_what_was_done() {
    let bank = bank();
    let watched = Watched::serve(&bank);
    let mut ken = watched.server.login("Ken", "2468");
    (0..3).for_each(|_| deposit(&mut ken));
    let (id, much) = (
        bank_core::TxnId::at(bank_core::Moment::now().time),
        Amount::from_minor(1_000_000).unwrap(),
    );
    ken.withdraw(id, much).unwrap();
    let mia = CardNumber::new("Mia").unwrap();
    assert!(watched.server.client().login(&mia, "0000").is_err());
    let metric = |name: &str| {
        watched
            .metric(name)
            .unwrap_or_else(|| panic!("{name}: {}", watched.get("/metrics").1))
    };
    for (name, value) in [
        (
            r#"atm_requests_total{kind="deposit",outcome="done",code="none"}"#,
            3.0,
        ),
        (
            r#"atm_requests_total{kind="withdraw",outcome="declined",code="insufficient_funds"}"#,
            1.0,
        ),
        (
            r#"atm_requests_total{kind="withdraw",outcome="done",code="none"}"#,
            0.0,
        ),
        (
            r#"atm_requests_total{kind="login",outcome="done",code="none"}"#,
            1.0,
        ),
        (
            r#"atm_requests_total{kind="login",outcome="error",code="login_refused"}"#,
            1.0,
        ),
        (r#"atm_logins_refused_total{reason="login_refused"}"#, 1.0),
        (r#"atm_request_duration_seconds_count{kind="deposit"}"#, 3.0),
        (
            r#"atm_request_duration_seconds_bucket{le="+Inf",kind="withdraw"}"#,
            1.0,
        ),
        ("atm_commit_rows_sum", 4.0),
        ("atm_connections_total", 2.0),
        ("atm_journal_appended_lsn", 6.0),
        ("atm_journal_durable_lsn", 6.0),
        ("atm_journal_lag_rows", 0.0),
        ("atm_accounts", 2.0),
        ("atm_ready", 1.0),
    ] {
        assert_eq!(metric(name), value, "{name}");
    }
    let commits = metric("atm_commit_duration_seconds_count");
    assert!(commits >= 4.0 && metric("atm_commit_sync_seconds_count") == commits);
    assert!(metric("atm_commit_sync_seconds_sum") <= metric("atm_commit_duration_seconds_sum"));
    // A machine that is busy serves no watcher before it has noticed that a client hung up.
    while metric("atm_sessions") != 1.0 {}
    let (head, told) = watched.get("/metrics");
    assert!(
        head.contains("content-type: application/openmetrics-text"),
        "{head}"
    );
    assert!(told.ends_with("\n# EOF\n"));
    for line in told.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("atm_") || name.starts_with("process_"), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    assert!(watched.server.stop().0.success());
}

#[test]
fn it_shows_itself_to_who_may_look_and_nothing_of_customers() {
    let bank = bank();
    let watched = Watched::serve(&bank);
    watched.work_until(|status| status["books"]["state"] == "balanced");
    let address = watched.address().to_owned();
    for (path, media_type) in [
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/icon.svg", "image/svg+xml"),
        ("/status.json", "application/json"),
        ("/healthz", "text/plain"),
        ("/readyz", "text/plain"),
    ] {
        let (head, body) = watched.get(path);
        assert!(
            head.starts_with("HTTP/1.1 200 ") && !body.is_empty(),
            "{path}: {head}"
        );
        assert!(
            head.contains(&format!("content-type: {media_type}")),
            "{path}: {head}"
        );
        assert!(
            head.contains("content-security-policy: default-src 'self';"),
            "{path}: {head}"
        );
        for secret in ["Ken", "Mia", "2468", "100.00"] {
            assert!(!body.contains(secret), "{path} tells {secret}");
        }
        assert!(!body.contains("https://"), "{path} leads elsewhere");
    }
    let looked = watched.say(&format!("HEAD / HTTP/1.1\r\nHost: {address}\r\n\r\n"));
    assert!(
        looked.starts_with("HTTP/1.1 200 ") && looked.ends_with("\r\n\r\n"),
        "{looked}"
    );
    for (head, status) in [
        ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(), "421"),
        (format!("POST / HTTP/1.1\r\nHost: {address}\r\n\r\n"), "405"),
        (
            format!("GET /etc/passwd HTTP/1.1\r\nHost: {address}\r\n\r\n"),
            "404",
        ),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "421"),
        ("ATMB\r\n\r\n".to_owned(), "400"),
        (
            format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(MAX_HTTP_HEAD_BYTES)),
            "431",
        ),
    ] {
        let answer = watched.say(&head);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{head:.60}: {answer}"
        );
    }
    let silent: Vec<_> = (0..WATCH_CONNECTIONS)
        .map(|_| TcpStream::connect(&address).unwrap())
        .collect();
    assert!(
        watched.say("").starts_with("HTTP/1.1 503 "),
        "there are as many as may watch"
    );
    drop(silent);
    assert!(watched.server.stop().0.success());
}

#[test]
fn the_page_is_for_this_machine_unless_the_operator_says_otherwise() {
    let bank = bank();
    let refused = bank.server_command(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--metrics-listen",
        "0.0.0.0:0",
    ]);
    let said = stderr(&refused);
    assert!(
        !refused.status.success() && said.contains("--let-the-network-watch"),
        "{said}"
    );
}

/// Adds five cents to a balance that nobody paid.
fn tamper(bank: &TestBank) {
    let file = rusqlite::Connection::open(bank.path()).unwrap();
    let changed = file.execute(
        "UPDATE accounts SET balance = balance + 5 WHERE account = (SELECT max(account) FROM accounts)",
        [],
    );
    assert_eq!(changed.unwrap(), 1);
}

#[test]
fn the_light_of_the_books_goes_red() {
    let bank = bank();
    let watched = Watched::serve(&bank);
    watched.work_until(|status| status["books"]["state"] == "balanced");
    assert_eq!(watched.metric("atm_books_balanced"), Some(1.0));
    assert!(watched.server.stop().0.success());
    tamper(&bank);
    let watched = Watched::serve(&bank);
    let status = watched.work_until(|status| status["books"]["state"] != "unknown");
    assert_eq!(status["books"]["state"], "unbalanced");
    let detail = status["books"]["detail"].as_str().unwrap();
    assert!(detail.contains("add up to 0.05 USD instead of zero"), "{detail}");
    assert_eq!(watched.metric("atm_books_balanced"), Some(0.0));
    let (_, log) = watched.server.stop();
    assert!(log.contains("the books do not balance"), "{log}");
}

/// A browser that is here, if there is one. `ATM_REQUIRE_CHROMIUM` makes it a failure that there is none.
fn chromium() -> Option<&'static str> {
    let found = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| {
            let version = Command::new(name)
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            version.is_ok_and(|status| status.success())
        });
    assert!(
        found.is_some() || std::env::var_os("ATM_REQUIRE_CHROMIUM").is_none(),
        "ATM_REQUIRE_CHROMIUM is set, and there is no chromium: apt-get install chromium"
    );
    found
}

/// The page as a browser has it after some seconds, and its picture.
fn open(browser: &str, url: &str, place: &Path, size: &str) -> String {
    let picture = place.join(format!("{size}.png"));
    let profile = place.join("profile");
    let chromium = |what: &str| {
        let done = Command::new(browser)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--virtual-time-budget=3000",
                what,
            ])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(format!("--window-size={size}"))
            .arg(url)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", stderr(&done));
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    chromium(&format!("--screenshot={}", picture.display()));
    let bytes = std::fs::read(&picture).unwrap();
    assert!(
        bytes.starts_with(b"\x89PNG") && bytes.len() > 20_000,
        "the picture has {} bytes",
        bytes.len()
    );
    chromium("--dump-dom")
}

#[test]
fn a_browser_shows_the_page_with_its_figures_and_charts() {
    let Some(browser) = chromium() else {
        return eprintln!(
            "skipped: a_browser_shows_the_page_with_its_figures_and_charts: no chromium is installed"
        );
    };
    let bank = bank();
    let watched = Watched::serve(&bank);
    watched.work_until(|status| {
        let worked = status["samples"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|sample| sample["p50_us"].is_u64());
        worked.count() >= 3 && status["books"]["state"] == "balanced"
    });
    let dom = open(browser, &watched.url, bank.directory(), "1400,1000");
    for shown in [
        "<strong role=\"status\">Serving</strong>",
        "<strong role=\"status\">The books balance</strong>",
        "<th scope=\"row\">TEST</th>",
    ] {
        assert!(dom.contains(shown), "{shown}: {dom}");
    }
    assert_eq!(dom.matches("<svg").count(), 4, "{dom}");
    // One line in each, and the second of the times.
    assert!(dom.matches("<polyline").count() >= 5, "{dom}");
    let figure = |name: &str| {
        let after = dom
            .split(&format!("<dt>{name}</dt><dd>"))
            .nth(1)
            .unwrap_or_else(|| panic!("{name}: {dom}"));
        after
            .split('<')
            .next()
            .unwrap()
            .replace(',', "")
            .parse::<u64>()
            .unwrap()
    };
    assert!(figure("Newest row on disk") > 5);
    assert_eq!((figure("Accounts"), figure("Logins refused")), (2, 0));
    assert!(!dom.contains("NaN") && !dom.contains("undefined"), "{dom}");
    assert!(watched.server.stop().0.success());

    tamper(&bank);
    let watched = Watched::serve(&bank);
    watched.work_until(|status| status["books"]["state"] != "unknown");
    let dom = open(browser, &watched.url, bank.directory(), "400,800");
    assert!(
        dom.contains("<strong role=\"status\">The books do not balance</strong>"),
        "{dom}"
    );
    assert!(dom.contains("data-state=\"bad\"") && dom.contains('✗'), "{dom}");
}
