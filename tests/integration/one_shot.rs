//! The one-shot commands, as a script sees them.

use atm_tests::{Server, TestBank, atm_cli, stderr, stdout};
use serde_json::Value;

const ACCOUNTS: &str = "card,holder,pin,account,currency,balance,overdraft_limit,daily_limit\n\
    ,Ken,2468,1,USD,100.00,,60.00\n\
    ,Jill,1357,1,,,,\n\
    ,Jack,8642,2,USD,0.00,5.00,\n\
    4000123412341234,Zoë,1111,3,KWD,1.500,,\n";

fn json(output: &std::process::Output) -> Value {
    let text = stdout(output);
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn ask(server: &Server, card: &str, pin: &str, arguments: &[&str]) -> (Option<i32>, Value) {
    let options = ["--card", card, "--pin-file", "-", "--json"];
    let output = server.atm_cli(&[arguments, &options].concat(), &format!("{pin}\n"));
    (output.status.code(), json(&output))
}

#[test]
fn money_moves_and_every_answer_has_its_fields() {
    let bank = TestBank::load(ACCOUNTS);
    let server = bank.serve();
    let check = |card, pin, arguments: &[&str], exit, expected: Value| {
        let (code, answer) = ask(&server, card, pin, arguments);
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&answer[key], value, "{key} of {answer}");
        }
        assert_eq!(code, Some(exit), "{answer}");
        answer
    };
    let j = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let id = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
    check(
        "Ken",
        "2468",
        &["balance"],
        0,
        j(r#"{"balance":"100.00","currency":"USD","lsn":1}"#),
    );
    let answer = check(
        "Ken",
        "2468",
        &["deposit", "20.5", "--txn-id", id],
        0,
        j(
            r#"{"outcome":"approved","code":"approved","message":"Approved.","amount":"20.50","balance":"120.50","currency":"USD","lsn":4}"#,
        ),
    );
    assert_eq!(answer["txn_id"], id);
    check(
        "Jill",
        "1357",
        &["withdraw", "60"],
        0,
        j(r#"{"outcome":"approved","amount":"-60.00","balance":"60.50"}"#),
    );
    check(
        "Jill",
        "1357",
        &["withdraw", "0.01"],
        3,
        j(r#"{"outcome":"declined","code":"daily_limit","balance":"60.50"}"#),
    );
    check(
        "Jack",
        "8642",
        &["transfer", "5.01", "--to", "1"],
        3,
        j(r#"{"outcome":"declined","code":"insufficient_funds"}"#),
    );
    check(
        "Jack",
        "8642",
        &["transfer", "5", "--to", "1"],
        0,
        j(r#"{"outcome":"approved","balance":"-5.00"}"#),
    );
    check(
        "Jack",
        "8642",
        &["transfer", "5", "--to", "2"],
        3,
        j(r#"{"code":"same_account"}"#),
    );
    check(
        "Jack",
        "8642",
        &["transfer", "5", "--to", "99"],
        3,
        j(r#"{"code":"no_such_payee"}"#),
    );
    check(
        "Ken",
        "2468",
        &["transfer", "5", "--to", "3"],
        3,
        j(r#"{"code":"other_currency"}"#),
    );
    check(
        "4000123412341234",
        "1111",
        &["deposit", "0.125"],
        0,
        j(r#"{"balance":"1.625","currency":"KWD"}"#),
    );
    check("Ken", "2468", &["balance"], 0, j(r#"{"balance":"65.50"}"#));

    let statement = check(
        "Ken",
        "2468",
        &["statement", "--lines", "3"],
        0,
        j(r#"{"balance":"65.50","currency":"USD"}"#),
    );
    let lines = statement["lines"].as_array().unwrap();
    let line = |n: usize| {
        (
            lines[n]["kind"].as_str().unwrap(),
            lines[n]["outcome"].as_str().unwrap(),
            lines[n]["amount"].as_str().unwrap(),
        )
    };
    assert_eq!(lines.len(), 3);
    assert_eq!(line(0), ("transfer", "declined", "-5.00"));
    assert_eq!(
        (line(1), &lines[1]["contra"]),
        (("transfer", "approved", "5.00"), &j(r#""2""#))
    );
    assert_eq!(
        (line(2), &lines[2]["code"]),
        (("withdrawal", "declined", "-0.01"), &j(r#""daily_limit""#))
    );
    drop(server);
    bank.assert_verifies();
}

#[test]
fn asked_again_under_its_id_a_transaction_gives_its_first_answer() {
    let bank = TestBank::load(ACCOUNTS);
    let mut server = bank.serve();
    let id = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
    let deposit = |server: &Server, amount| ask(server, "Ken", "2468", &["deposit", amount, "--txn-id", id]);
    let first = deposit(&server, "20.5");
    assert_eq!(first.0, Some(0));
    ask(&server, "Ken", "2468", &["withdraw", "1"]);
    assert_eq!(deposit(&server, "20.5"), first);
    assert_eq!(
        ask(&server, "Jill", "1357", &["deposit", "20.5", "--txn-id", id]),
        first,
        "the id is the account's, not the card's"
    );
    server.kill();
    server = bank.serve();
    assert_eq!(deposit(&server, "20.50"), first);
    let (code, answer) = deposit(&server, "20.51");
    assert_eq!((code, answer["code"].as_str()), (Some(1), Some("txn_id_reused")));
    // What was made before all that the account knows, and never asked for, is certain not to have been done.
    let stale = ["deposit", "1", "--txn-id", "017f22e2-79b0-7cc3-98c4-000000000000"];
    let (code, answer) = ask(&server, "Ken", "2468", &stale);
    assert_eq!((code, answer["code"].as_str()), (Some(1), Some("stale_id")));
    assert_eq!(ask(&server, "Ken", "2468", &["balance"]).1["balance"], "119.50");
}

#[test]
fn what_is_refused_says_so_and_changes_nothing() {
    let bank = TestBank::load(ACCOUNTS);
    let server = bank.serve();
    let refused = |card, pin, arguments: &[&str], exit, code| {
        let (found, answer) = ask(&server, card, pin, arguments);
        assert_eq!(
            (found, answer["code"].as_str()),
            (Some(exit), Some(code)),
            "{answer}"
        );
        assert!(answer.get("outcome").is_none(), "{answer}");
    };
    refused("Ken", "1111", &["balance"], 4, "login_refused");
    refused("Nobody", "2468", &["balance"], 4, "login_refused");
    refused("Ken", "not a PIN", &["balance"], 4, "login_refused");
    refused("Ken", "", &["balance"], 2, "usage");
    for amount in [
        "1e3",
        "nan",
        "20.505",
        "1,000",
        "0",
        "0.00",
        "99999999999999999999",
    ] {
        refused("Jack", "8642", &["deposit", amount], 2, "usage");
    }
    // What is refused here never gets as far as the server.
    for arguments in [
        &["deposit", "--card", "Ken", "--pin-file", "-", "--", "-5"][..],
        &[
            "deposit",
            "--card",
            "Ken",
            "--pin-file",
            "-",
            "5",
            "--txn-id",
            "f47ac10b-58cc-4372-a567-0e02b2c3d479",
        ],
        &["transfer", "--card", "Ken", "--pin-file", "-", "5", "--to", "0"],
        &[
            "--terminal",
            "lower",
            "balance",
            "--card",
            "Ken",
            "--pin-file",
            "-",
        ],
        &[
            "--terminal-secret-file",
            "/nowhere/terminal.secret",
            "balance",
            "--card",
            "Ken",
            "--pin-file",
            "-",
        ],
        &["fly"],
    ] {
        assert_eq!(
            server.atm_cli(arguments, "2468\n").status.code(),
            Some(2),
            "{arguments:?}"
        );
    }
    drop(server);
    bank.assert_verifies();
    let statement = stdout(&bank.server_command(&["statement", "--account", "2"]));
    assert!(
        statement.contains(" opening ") && statement.lines().count() == 7,
        "{statement}"
    );
}

#[test]
fn a_server_that_is_not_there_is_named() {
    // Bound and not accepted from: the port is certainly nobody else's, and closing it makes it refuse.
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let output = atm_cli(
        &address,
        &["balance", "--card", "Ken", "--pin-file", "-", "--json"],
        "2468\n",
    );
    assert_eq!(output.status.code(), Some(6));
    assert_eq!(json(&output)["code"], "unreachable");
    assert!(
        stderr(&output).contains(&format!("could not connect to {address}")),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_card_is_blocked_after_three_wrong_pins_for_good() {
    let bank = TestBank::load(ACCOUNTS);
    let server = bank.serve();
    for pin in ["1111", "2222", "3333"] {
        assert_eq!(ask(&server, "Ken", pin, &["balance"]).0, Some(4));
    }
    assert_eq!(
        ask(&server, "Ken", "2468", &["balance"]).0,
        Some(4),
        "the right PIN comes too late"
    );
    assert_eq!(
        ask(&server, "Jill", "1357", &["balance"]).0,
        Some(0),
        "the other card of the account works"
    );
    server.kill();
    let server = bank.serve();
    assert_eq!(
        ask(&server, "Ken", "2468", &["balance"]).0,
        Some(4),
        "a crash does not unblock it"
    );
}

#[test]
fn a_blocked_card_ends_its_sessions_and_a_changed_pin_does_not() {
    let bank = TestBank::load(ACCOUNTS);
    let server = bank.serve();
    let (mut first, mut second) = (server.login("Ken", "2468"), server.login("Ken", "2468"));
    let weak = first.change_pin("2468", "1234").unwrap_err();
    assert_eq!(weak.code(), Some(bank_core::protocol::ErrorCode::WeakPin));
    first.change_pin("2468", "975310").unwrap();
    assert!(second.balance().is_ok(), "who was let in by the old PIN stays");
    assert_eq!(ask(&server, "Ken", "2468", &["balance"]).0, Some(4));
    for pin in ["1111", "2222", "3333"] {
        assert_eq!(ask(&server, "Ken", pin, &["balance"]).0, Some(4));
    }
    for session in [&mut first, &mut second] {
        let ended = session.balance().unwrap_err();
        assert_eq!(ended.code(), Some(bank_core::protocol::ErrorCode::SessionEnded));
        let after = session.balance().unwrap_err();
        assert_eq!(after.code(), Some(bank_core::protocol::ErrorCode::NotLoggedIn));
    }
    assert_eq!(
        ask(&server, "Jill", "1357", &["balance"]).0,
        Some(0),
        "the joint account's other card is its own"
    );
}
