//! Who may call itself a terminal.

use atm_tests::{TestBank, stderr, stdout};

const SAMPLE: &str = "Ken,2468,100.00\n";

#[test]
fn a_terminal_with_a_secret_is_let_in_with_it_and_nobody_else_is_under_its_id() {
    let bank = TestBank::load(SAMPLE);
    let path = |name: &str| bank.directory().join(name).to_str().unwrap().to_owned();
    let add = |id: &str, file: &str, more: &[&str]| {
        let file = path(file);
        bank.server_command(&[&["add-terminal", id, "--secret-file", &file], more].concat())
    };
    let added = add("ATM-7", "right", &[]);
    assert!(added.status.success(), "{}", stderr(&added));
    assert!(stdout(&added).contains("ATM-7"), "{}", stdout(&added));
    let again = add("ATM-7", "again", &[]);
    assert!(!again.status.success() && stderr(&again).contains("--replace"));
    assert!(
        !bank.directory().join("again").exists(),
        "a secret that opens nothing is not left behind"
    );
    assert!(
        !add("ATM-8", "right", &[]).status.success(),
        "no file is written over"
    );
    assert!(add("ATM-8", "other", &[]).status.success());
    let server = bank.serve();
    let served = add("ATM-9", "late", &[]);
    assert!(stderr(&served).contains("in use"), "{}", stderr(&served));
    let balance = |options: &[&str]| {
        let arguments = [&["balance", "--card", "Ken", "--pin-file", "-"], options].concat();
        server.atm_cli(&arguments, "2468\n")
    };
    let (right, other) = (path("right"), path("other"));
    let with = |secret: &str| balance(&["--terminal", "ATM-7", "--terminal-secret-file", secret]);
    assert_eq!(stdout(&with(&right)), "100.00 USD\n");
    for refused in [with(&other), balance(&["--terminal", "ATM-7"])] {
        assert_eq!(refused.status.code(), Some(1));
        assert!(
            stderr(&refused).contains("terminal is refused"),
            "{}",
            stderr(&refused)
        );
    }
    // A proof that nobody asked for is no proof.
    let needless = balance(&["--terminal", "ATM-5", "--terminal-secret-file", &right]);
    assert!(stderr(&needless).contains("terminal is refused"));
    assert!(server.stop().0.success());
    let replaced = add("ATM-7", "new", &["--replace"]);
    assert!(replaced.status.success(), "{}", stderr(&replaced));
    let server = bank.serve_with(&["--registered-terminals"]);
    let balance = |options: &[&str]| {
        let arguments = [&["balance", "--card", "Ken", "--pin-file", "-"], options].concat();
        server.atm_cli(&arguments, "2468\n").status.code()
    };
    let new = path("new");
    let cases: [(&[&str], i32); 4] = [
        (&["--terminal", "ATM-7", "--terminal-secret-file", &new], 0),
        (&["--terminal", "ATM-7", "--terminal-secret-file", &right], 1),
        (&["--terminal", "ATM-5"], 1),
        (&["--terminal", "ATM-7", "--terminal-secret-file", "/nowhere"], 2),
    ];
    for (options, code) in cases {
        assert_eq!(balance(options), Some(code), "{options:?}");
    }
    let log = server.stop().1;
    let secret = std::fs::read_to_string(path("new")).unwrap();
    assert!(!log.contains(secret.trim()));
    bank.assert_verifies();
}
