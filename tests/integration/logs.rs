//! The log: its forms, and how much is told, also while the server runs.

use std::process::{Command, Stdio};

use atm_tests::{Server, TestBank, program, stderr, stdout};

#[test]
fn a_line_of_json_is_one_object_with_time_level_and_message() {
    let bank = TestBank::generate(1);
    let server = bank.serve_with(&["--log-format", "json"]);
    server.login("1", "0001");
    let (status, log) = server.stop();
    assert!(status.success());
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for line in &lines {
        for field in ["timestamp", "level", "message", "target"] {
            assert!(line[field].is_string(), "{field}: {line}");
        }
    }
    let login = lines.iter().find(|line| line["message"] == "logged in").unwrap();
    assert_eq!(
        (&login["account"], &login["level"]),
        (&"1".into(), &"INFO".into())
    );
}

#[test]
fn a_filter_that_is_misspelt_is_refused_instead_of_silencing_the_log() {
    let bank = TestBank::generate(1);
    for filter in ["inof", "", "info,bank=debug"] {
        let refused = bank.server_command(&["verify", "--log-level", filter]);
        assert_eq!(refused.status.code(), Some(2), "{filter}");
        assert!(
            stderr(&refused).contains("--log-level"),
            "{filter}: {}",
            stderr(&refused)
        );
    }
    let refused = Command::new(program("atm-server"))
        .arg("verify")
        .env("ATM_LOG", "debgu")
        .output()
        .unwrap();
    assert!(stderr(&refused).contains("\"debgu\" is no level"));
}

#[test]
fn an_operator_changes_how_much_is_logged_and_a_wrong_filter_changes_nothing() {
    let bank = TestBank::generate(1);
    let socket = bank.directory().join("admin");
    let socket = socket.to_str().unwrap();
    let server = bank.serve_with(&["--admin-socket", socket, "--log-level", "info"]);
    let admin = |arguments: &[&str]| {
        let done =
            bank.server_command(&[&["admin", "--admin-socket", socket, "log-level"], arguments].concat());
        (done.status.code(), stdout(&done) + &stderr(&done))
    };
    assert_eq!(admin(&[]), (Some(0), "the log level is info\n".to_owned()));
    drop(server.client());
    assert_eq!(admin(&["debug"]).0, Some(0));
    drop(server.client());
    let (code, said) = admin(&["loud"]);
    assert!(code == Some(1) && said.contains("\"loud\" is no level"), "{said}");
    let (code, said) = admin(&["--json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (code, &said["message"]),
        (Some(0), &"the log level is debug".into())
    );
    assert_eq!(admin(&["error"]).0, Some(0));
    drop(server.client());
    let (status, log) = server.stop();
    assert!(status.success());
    assert_eq!(log.matches("DEBUG connected").count(), 1, "{log}");
    assert!(
        log.ends_with("changes the log level from=\"debug\" to=error\n"),
        "{log}"
    );
}

#[test]
fn systemds_journal_gets_no_second_time_before_each_line() {
    let bank = TestBank::generate(1);
    let log = bank.write("log", "");
    // What systemd says of the stream that it reads; another stream has its times all the same.
    for (ours, times) in [("$(stat -c %d:%i \"$LOG\")", false), ("1:1", true)] {
        let serve =
            format!("export JOURNAL_STREAM={ours}; exec \"$0\" serve --listen 127.0.0.1:0 2>\"$LOG\"");
        let mut command = Command::new("sh");
        command
            .args(["-c", &serve])
            .arg(program("atm-server"))
            .env("ATM_BANK", bank.path())
            .env("LOG", &log);
        assert!(Server::start(command).stop().0.success());
        let text = std::fs::read_to_string(&log).unwrap();
        assert!(text.contains("INFO opened"), "{text}");
        assert_eq!(
            text.lines()
                .all(|line| line.starts_with(|c: char| c.is_ascii_digit())),
            times,
            "{text}"
        );
    }
    let quiet = Command::new(program("atm-server"))
        .args(["verify", "--log-level", "off"])
        .env("ATM_BANK", bank.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(quiet.status.success() && stderr(&quiet).is_empty());
}
