//! What growth costs: the commands that measure it, small, so that they do not rot.

use std::process::Command;
use std::time::Duration;

use atm_tests::stress::load::{self, Load, Mix, Payees, Work};
use atm_tests::{TestBank, program, stderr, stdout};
use serde_json::Value;

/// Runs `atm-stress scale`, and gives what it printed and its figures.
fn scale(arguments: &[&str]) -> (String, Value) {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("figures.json");
    let run = Command::new(program("atm-stress"))
        .arg("scale")
        .args(arguments)
        .arg("--json")
        .arg(&file)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}{}", stdout(&run), stderr(&run));
    let figures = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    (stdout(&run), figures)
}

/// That a spread's least value is above zero and its values are in order.
fn assert_spread(spread: &Value) {
    let [min, median, max] = ["min", "median", "max"].map(|name| spread[name].as_f64().unwrap());
    assert!(0.0 < min && min <= median && median <= max, "{spread}");
}

#[test]
fn many_accounts_beside_few() {
    let (text, figures) = scale(&[
        "accounts",
        "--accounts",
        "2000",
        "--few",
        "20",
        "--checkpoints",
        "0",
        "--rounds",
        "2",
        "--seconds",
        "0.1",
        "--connections",
        "8",
    ]);
    assert!(text.contains("2000 accounts \u{f7} 20 accounts: "), "{text}");
    assert_eq!(figures["figures"]["rounds"], 2);
    assert_spread(&figures["figures"]["ratio"]);
    assert_spread(&figures["figures"]["beside_per_second"]);
}

/// Else a bank of millions of accounts would be measured on those of a few sessions.
#[test]
fn transfers_can_reach_all_accounts() {
    let bank = TestBank::generate(50);
    let server = bank.serve();
    let transfers = Load {
        mix: Mix::only(Work::Transfer),
        payees: Payees::All,
        pipeline: 16,
        ..Load::new(4, 50, Duration::from_millis(200))
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let made = runtime
        .block_on(load::make(server.address(), &transfers))
        .unwrap();
    assert_eq!(made.not_conserved, []);
    let paid: i64 = rusqlite::Connection::open(bank.path())
        .unwrap()
        .query_row(
            "SELECT count(DISTINCT contra) FROM journal WHERE kind = 3 AND outcome = 0",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert!(
        paid > 25,
        "only {paid} of 50 accounts, in {} transfers",
        made.answers
    );
}

#[test]
fn a_long_journal_beside_a_new_one() {
    let (text, figures) = scale(&[
        "journal",
        "--rows",
        "3000",
        "--accounts",
        "500",
        "--rounds",
        "1",
        "--seconds",
        "0.1",
        "--connections",
        "8",
    ]);
    assert!(text.contains("journal rows \u{f7} new journal: "), "{text}");
    let rows = ["rows_before", "beside_rows_after", "rows_after"].map(|name| figures[name].as_u64().unwrap());
    assert!(
        3000 <= rows[0] && rows[0] + 500 < rows[2] && 500 < rows[1],
        "{figures}"
    );
    assert_spread(&figures["figures"]["ratio"]);
}

#[test]
fn logins_beside_bare_pin_checks() {
    let (text, figures) = scale(&[
        "logins",
        "--connections",
        "4",
        "--logins",
        "1",
        "--askers",
        "2",
        "--seconds",
        "0.1",
        "--rounds",
        "1",
    ]);
    assert!(text.contains("logins \u{f7} PIN checks of all cores: "), "{text}");
    assert_spread(&figures["ratio"]);
    assert_spread(&figures["p99_ratio"]);
}

#[test]
fn an_account_and_an_idle_session_cost_little() {
    let (text, figures) = scale(&["memory", "--accounts", "100000", "--sessions", "300"]);
    let account = figures["bytes_per_account"].as_u64().unwrap();
    assert!(account < 300, "{text}");
    assert!(account > 50, "less is too good to be true: {text}");
    // The fewer they are, the more each bears of what is there once.
    let session = figures["bytes_per_session"].as_u64().unwrap();
    assert!((1000..100_000).contains(&session), "{text}");
}

#[test]
fn more_sessions_than_files_are_explained() {
    let run = Command::new("sh")
        .args([
            "-c",
            "ulimit -n 200 && exec \"$0\" scale memory --accounts 1 --sessions 300",
        ])
        .arg(program("atm-stress"))
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(1));
    assert!(stderr(&run).contains("--sessions 72 at most"), "{}", stderr(&run));
}

#[test]
fn opening_after_a_kill_beside_reading_the_rows() {
    let (text, figures) = scale(&["recovery", "--rows", "3000", "--accounts", "500", "--rounds", "2"]);
    assert!(
        text.contains("opening after kill -9 \u{f7} reading the rows: "),
        "{text}"
    );
    assert!(
        figures["log_bytes"].as_u64().unwrap() > 100_000,
        "it was not killed: {figures}"
    );
    assert_spread(&figures["ratio"]);
}

#[test]
fn the_chain_beside_commits_without_it() {
    let (text, figures) = scale(&["chain", "--rounds", "1", "--seconds", "0.05"]);
    assert!(text.contains("with \u{f7} without"), "{text}");
    let commits = figures["commits"].as_array().unwrap();
    assert_eq!(commits.len(), 3);
    for commit in commits {
        assert_spread(&commit["ratio"]);
    }
}

#[test]
fn the_latest_answers_beside_an_echo_server() {
    let (text, figures) = scale(&[
        "tail",
        "--accounts",
        "500",
        "--connections",
        "4",
        "--rounds",
        "2",
        "--seconds",
        "0.2",
        "--checkpoints",
        "0",
    ]);
    assert!(text.contains("p99.9 of the bank \u{f7} of echo"), "{text}");
    assert_eq!(figures["rounds"], 2);
    for spread in ["p999_us", "echo_p999_us", "ratio"] {
        assert_spread(&figures[spread]);
    }
    let number = |name: &str| figures[name].as_f64().unwrap();
    assert_eq!(number("per_second"), number("greatest_per_second") * 0.5);
}
