//! The bank beside PostgreSQL and Redis, small; with whichever of them this machine has.

use std::fs;
use std::process::{Command, Output};

use atm_tests::{program, stderr, stdout};
use serde_json::Value;

fn peers() -> Command {
    let mut peers = Command::new(program("atm-stress"));
    peers.args(["peers", "--rounds", "1", "--seconds", "0.1"]);
    peers.args(["--accounts", "50", "--connections", "8"]);
    peers
}

fn run(mut command: Command) -> Output {
    command.output().unwrap()
}

#[test]
fn the_same_work_is_measured_and_everything_is_gone_afterwards() {
    let place = tempfile::tempdir().unwrap();
    let (files, figures) = (place.path().join("files"), place.path().join("figures.json"));
    fs::create_dir(&files).unwrap();
    // A server that runs as nobody must get through to its own directory.
    for directory in [place.path(), &files] {
        fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    }
    let mut command = peers();
    command.env("TMPDIR", &files).arg("--json").arg(&figures);
    let run = run(command);
    assert_eq!(fs::read_dir(&files).unwrap().count(), 0, "something is left");
    let left_out = stderr(&run).matches(" is not measured, for want of ").count();
    if left_out == 2 {
        assert_eq!(run.status.code(), Some(1));
        eprintln!("skipped: this machine has neither PostgreSQL nor Redis");
        return;
    }
    assert!(run.status.success(), "{}", stderr(&run));
    let checked = "requests are in its history, and its balances agree";
    assert_eq!(
        stdout(&run).matches(checked).count(),
        2 - left_out,
        "{}",
        stdout(&run)
    );
    let figures: Value = serde_json::from_str(&fs::read_to_string(&figures).unwrap()).unwrap();
    let rows = figures["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2 * (4 - left_out));
    for row in rows.iter().filter(|row| row["name"] != "bank") {
        assert!(row["bank_ratio"]["median"].as_f64().unwrap() > 0.0, "{row}");
    }
}

#[test]
fn what_is_missing_is_named_with_its_package() {
    for require in [None, Some("--require")] {
        let mut command = peers();
        command.env("PATH", "/nowhere").args(require);
        let run = run(command);
        assert_eq!(run.status.code(), Some(1));
        let said = stderr(&run);
        for word in [
            "PostgreSQL",
            "Redis",
            "redis-benchmark",
            "apt-get install",
            "redis-server",
        ] {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert_eq!(stdout(&run), "");
    }
}
