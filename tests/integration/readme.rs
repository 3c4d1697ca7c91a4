//! The README's commands, as written, in the order in which they stand there.

use std::path::Path;
use std::process::{Command, Stdio};

use atm_tests::{Server, program};

const README: &str = include_str!("../../README.md");

/// The lines of all blocks that are marked as shell.
fn commands() -> Vec<&'static str> {
    let blocks = README
        .split("```sh\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default());
    blocks
        .flat_map(str::lines)
        .filter(|line| !line.is_empty())
        .collect()
}

#[test]
fn every_command_works_as_written() {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("data")).unwrap();
    std::fs::copy(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/accounts.csv"),
        place.path().join("data/accounts.csv"),
    )
    .unwrap();
    let mut server: Option<Server> = None;
    let mut count = 0;
    for line in commands() {
        // What runs this test; and what fails where neither PostgreSQL nor Redis is, and is tested in peers.rs.
        if line == "cargo test --workspace" || line.ends_with("-- peers") {
            continue;
        }
        let mut shell = Command::new("sh");
        shell.current_dir(place.path()).env("ATM_LISTEN", "127.0.0.1:0");
        if line.contains("-- serve") && !line.contains("--print-config") {
            // A bank has one server.
            if let Some(before) = server.take() {
                assert!(before.stop().0.success(), "{line}");
            }
            shell.args(["-ec", &format!("exec {}", as_built(line))]);
            server = Some(Server::start(shell));
            continue;
        }
        shell.args(["-ec", &as_built(line)]);
        if let Some(server) = &server {
            shell.env("ATM_SERVER", server.address());
        }
        // The demonstration and the menu end with their input; what they can do is tested elsewhere.
        let done = shell.stdin(Stdio::null()).output().unwrap();
        assert!(
            done.status.success(),
            "{line}\n{}{}",
            atm_tests::stdout(&done),
            atm_tests::stderr(&done)
        );
        count += 1;
    }
    assert!(count >= 10, "only {count} commands were found");
}

/// The line with programs that are built already, and small numbers where the README has large ones.
fn as_built(line: &str) -> String {
    let mut line = line
        .replace("--accounts 1000000", "--accounts 1000")
        .replace("scale memory", "scale memory --sessions 10")
        .replace(
            "scale accounts",
            "scale accounts --few 10 --checkpoints 0 --rounds 1 --seconds 0.05",
        )
        .replace(
            "scale journal --rows 10000000",
            "scale journal --rows 100 --accounts 300 --rounds 1 --seconds 0.05",
        )
        .replace(
            "scale tail",
            "scale tail --accounts 300 --connections 4 --checkpoints 0 --rounds 1 --seconds 0.1",
        )
        .replace(
            "scale logins",
            "scale logins --connections 2 --logins 1 --rounds 1 --seconds 0.05",
        )
        .replace(
            "scale recovery --rows 1000000",
            "scale recovery --rows 100 --accounts 300 --rounds 1",
        )
        .replace(
            "attack slowloris",
            "attack slowloris --connections 20 --honest 2 --rounds 1 --duration 0.2",
        )
        // So few that no time tells anything: other tests use the same machine.
        .replace("scale chain", "scale chain --rounds 1 --seconds 0.02")
        .replace("attack enumeration", "attack enumeration --tries 5")
        .replace("fuzz --seconds 5", "fuzz --inputs 50")
        .replace("torture --rounds 100", "torture --rounds 1")
        .replace("torture --rounds 3", "torture --rounds 1")
        .replace(
            "check --rounds 1000 --seconds 30",
            "check --rounds 5 --seconds 1.5",
        )
        .replace("--duration 3", "--duration 0.1 --cards 100")
        .replace("--warm-up 1", "--warm-up 0.1")
        .replace("-- bench", "-- bench --rounds 1 --seconds 0.05 --accounts 300");
    for (package, name) in [
        ("atm-server", "atm-server"),
        ("atm-cli", "atm-cli"),
        ("atm-tests --bin atm-stress", "atm-stress"),
    ] {
        let path = program(name);
        line = line.replace(
            &format!("cargo run --release -p {package} --"),
            path.to_str().unwrap(),
        );
    }
    assert!(!line.contains("cargo run"), "{line}");
    line
}
