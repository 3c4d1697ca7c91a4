//! Settings of the server: the command line, the environment, a file, and what is printed of them. That every setting can be
//! given in each of these ways is tested beside the code.

use std::process::{Command, Output, Stdio};

use atm_tests::{TestBank, program, stderr, stdout};

/// `atm-server serve` with these arguments and variables, which is to end by itself.
fn serve(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(program("atm-server"))
        .arg("serve")
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// The value that is printed for a key.
fn printed(text: &str, key: &str) -> String {
    let start = format!("{key} = ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("{key} is not set: {text}"))
        .to_owned()
}

#[test]
fn the_command_line_counts_more_than_the_environment_and_that_more_than_the_file() {
    let place = TestBank::nowhere();
    let file = place.write(
        "atm.toml",
        "connections = 1\nregistered-terminals = true\nlog-format = \"json\"\n",
    );
    let file = file.to_str().unwrap();
    let check = |arguments: &[&str], environment: &[(&str, &str)], expected: &str, from: &str| {
        let shown = serve(&[arguments, &["--print-config"]].concat(), environment);
        let text = stdout(&shown);
        assert!(shown.status.success(), "{}", stderr(&shown));
        assert_eq!(printed(&text, "connections"), expected);
        assert!(text.contains(&format!("{from})\nconnections")), "{from}: {text}");
        text
    };
    let named = ("ATM_CONFIG", file);
    let variable = ("ATM_CONNECTIONS", "2");
    check(&[], &[], "16384", "(the default");
    check(&["--config", file], &[], "1", "atm.toml\"");
    check(&[], &[named], "1", "atm.toml\"");
    check(&[], &[named, variable], "2", "ATM_CONNECTIONS");
    let option = ["--connections", "3", "--registered-terminals=false"];
    let text = check(&option, &[named, variable], "3", "command line");
    assert_eq!(printed(&text, "registered-terminals"), "false");
    assert_eq!(printed(&text, "log-format"), "\"json\"");
    // What is printed can be fed back.
    let again = place.write("again.toml", &text);
    let again = check(&["--config", again.to_str().unwrap()], &[], "3", "again.toml\"");
    assert_eq!(printed(&again, "log-format"), "\"json\"");
}

#[test]
fn a_file_is_served_by_and_one_with_a_mistake_is_refused() {
    let bank = TestBank::generate(1);
    let good = format!("bank = {:?}\nallow-weak-pins = true\n", bank.path());
    let good = bank.write("good.toml", good);
    let mut command = Command::new(program("atm-server"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--config"]);
    let server = atm_tests::Server::start({
        command.arg(&good);
        command
    });
    let mut session = server.login("1", "0001");
    session.change_pin("0001", "1111").expect("the file allows it");
    assert!(server.stop().0.success());

    let wrong = bank.write("wrong.toml", "\nlisten = \"localhost:5100\"\nnonsense = 1\n");
    let refused = serve(&["--config", wrong.to_str().unwrap()], &[]);
    assert_eq!(refused.status.code(), Some(2));
    for part in [
        "wrong.toml:2: listen: ",
        "an IP address and a port are wanted",
        "wrong.toml:3: unknown key \"nonsense\"",
    ] {
        assert!(stderr(&refused).contains(part), "{}", stderr(&refused));
    }
    let missing = serve(&["--config", "/nowhere/atm.toml"], &[]);
    assert!(missing.status.code() == Some(2) && stderr(&missing).contains("--config /nowhere/atm.toml"));
    let endless = serve(&["--config", "/dev/zero"], &[]);
    assert!(stderr(&endless).contains("too long"), "{}", stderr(&endless));
}

#[test]
fn settings_that_do_not_go_together_are_refused_wherever_they_come_from() {
    let place = TestBank::nowhere();
    let file = place.write("atm.toml", "tls-cert = \"server.pem\"\n");
    let file = file.to_str().unwrap();
    for more in [&[][..], &["--print-config"]] {
        let refused = serve(&[&["--config", file], more].concat(), &[]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(stderr(&refused).contains("--tls-key"), "{}", stderr(&refused));
        let open = serve(&[&["--listen", "0.0.0.0:1"], more].concat(), &[]);
        assert!(open.status.code() == Some(2) && stderr(&open).contains("--tls-cert"));
    }
}

#[test]
fn a_socket_that_cannot_be_is_refused_with_the_reason() {
    let bank = TestBank::generate(1);
    let long = bank.directory().join("x".repeat(100));
    let long = long.to_str().unwrap();
    let missing = bank.directory().join("missing/admin");
    let missing = missing.to_str().unwrap();
    for arguments in [
        &["serve", "--listen", "127.0.0.1:0", "--admin-socket", long][..],
        &["admin", "--admin-socket", long, "shutdown"],
    ] {
        let refused = bank.server_command(arguments);
        assert_eq!(refused.status.code(), Some(2));
        assert!(
            stderr(&refused).contains("at most 96 bytes"),
            "{}",
            stderr(&refused)
        );
    }
    let refused = bank.server_command(&["serve", "--listen", "127.0.0.1:0", "--admin-socket", missing]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("make it first"), "{}", stderr(&refused));
    // The longest that is allowed works.
    let room = 96 - bank.directory().as_os_str().len() - 1;
    let longest = bank.directory().join("x".repeat(room));
    let longest = longest.to_str().unwrap();
    let server = bank.serve_with(&["--admin-socket", longest]);
    let asked = bank.server_command(&["admin", "--admin-socket", longest, "shutdown"]);
    assert!(asked.status.success(), "{}", stderr(&asked));
    assert!(server.wait().0.success());
}
