//! Bank files that older programs wrote: they are read as they are, and brought up to date when they are opened for writing.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use atm_tests::{TestBank, stderr, stdout};
use rusqlite::Connection;

/// A copy of a fixture, with the modes that git does not keep.
fn fixture(name: &str) -> TestBank {
    let bank = TestBank::nowhere();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    for file in ["bank.db", "bank.db.pepper"] {
        let to = bank.directory().join(file);
        std::fs::copy(from.join(file), &to).unwrap();
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    bank
}

fn version(bank: &TestBank) -> i64 {
    let file = Connection::open(bank.path()).unwrap();
    file.pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap()
}

/// Every table's columns, in their order.
fn columns(bank: &TestBank) -> Vec<String> {
    let file = Connection::open(bank.path()).unwrap();
    let mut select = file
        .prepare(
            "SELECT concat_ws(' ', t.name, c.name, c.type, c.\"notnull\", c.dflt_value, c.pk)
             FROM pragma_table_list AS t, pragma_table_info(t.name) AS c WHERE t.schema = 'main' ORDER BY t.name, c.cid",
        )
        .unwrap();
    let found = select.query_map([], |row| row.get(0)).unwrap();
    found.collect::<Result<_, _>>().unwrap()
}

/// The version that this program writes.
const NEWEST: i64 = 4;

/// The older versions of which there is a fixture, and what account 1 has in each.
const OLDER: [(i64, &str, &str); 2] = [(2, "bank-v2", "1210.00"), (3, "bank-v3", "1210.00")];

#[test]
fn a_bank_of_every_older_version_is_read_as_it_is_and_served_as_the_newest() {
    for (number, name, balance) in OLDER {
        let bank = fixture(name);
        bank.assert_verifies();
        let statement = bank.server_command(&["statement", "--account", "1"]);
        assert!(stdout(&statement).contains(balance), "{}", stdout(&statement));
        assert_eq!(version(&bank), number, "who only reads changes nothing");

        let server = bank.serve();
        let mut first = server.login("1", "0001");
        assert_eq!(first.balance().unwrap().balance.minor(), 121_000);
        first
            .deposit(
                bank_core::TxnId::generate(),
                bank_core::Amount::from_minor(5).unwrap(),
            )
            .unwrap();
        for _ in 0..2 {
            assert!(server.client().login(&"3".parse().unwrap(), "9999").is_err());
        }
        assert!(
            server.client().login(&"3".parse().unwrap(), "0003").is_err(),
            "the wrong PIN that the old program counted still counts"
        );
        bank.assert_verifies();
        server.kill();
        assert_eq!(version(&bank), NEWEST);
        let file = Connection::open(bank.path()).unwrap();
        let refused: i64 = file
            .query_row("SELECT refused_logins FROM bank", [], |row| row.get(0))
            .unwrap();
        assert!(refused >= 3);
        drop(file);
        assert_eq!(columns(&bank), columns(&TestBank::generate(1)));
        assert_eq!(words(&bank), words(&TestBank::generate(1)));
        let proof = stdout(&bank.server_command(&["verify"]));
        assert!(proof.contains("; head "), "its history is in the chain: {proof}");
        bank.serve().login("2", "0002");
    }
}

/// What the tables of names hold, and what views say.
fn words(bank: &TestBank) -> Vec<String> {
    let file = Connection::open(bank.path()).unwrap();
    let mut select = file
        .prepare(
            "SELECT 'kind ' || kind || name FROM kinds UNION ALL SELECT 'outcome ' || outcome || name FROM outcomes
             UNION ALL SELECT 'system ' || account || name FROM system_names
             UNION ALL SELECT sql FROM sqlite_schema WHERE type = 'view'",
        )
        .unwrap();
    let found = select.query_map([], |row| row.get(0)).unwrap();
    found.collect::<Result<_, _>>().unwrap()
}

#[test]
fn whatever_writes_to_an_old_bank_brings_it_up_to_date() {
    for (_, name, _) in OLDER {
        let bank = fixture(name);
        let secret = bank.directory().join("secret");
        let added =
            bank.server_command(&["add-terminal", "ATM-9", "--secret-file", secret.to_str().unwrap()]);
        assert!(added.status.success(), "{}", stderr(&added));
        assert_eq!(version(&bank), NEWEST);

        let bank = fixture(name);
        let list = bank.write("list.csv", "Ken,2468,100\n");
        let loaded = bank.server_command(&["load", list.to_str().unwrap(), "--append"]);
        assert!(loaded.status.success(), "{}", stderr(&loaded));
        assert_eq!(version(&bank), NEWEST);
        bank.assert_verifies();
        bank.serve().login("Ken", "2468");
    }
}

#[test]
fn an_old_bank_is_backed_up_as_it_is_and_restored_as_a_new_one() {
    let bank = fixture("bank-v2");
    let copy = bank.directory().join("copy");
    let copy = copy.to_str().unwrap();
    let done = |arguments: &[&str]| {
        let done = bank.server_command(arguments);
        assert!(done.status.success(), "{arguments:?}: {}", stderr(&done));
    };
    done(&["backup", "--to", copy]);
    assert_eq!(version(&bank), 2);
    done(&["restore", "--from", copy]);
    assert_eq!(version(&bank), NEWEST);
    assert_eq!(columns(&bank), columns(&TestBank::generate(1)));
    bank.assert_verifies();
    bank.serve().login("2", "0002");
}

#[test]
fn a_bank_that_others_may_write_to_is_refused_by_every_command() {
    let bank = TestBank::generate(2);
    let list = bank.write("list.csv", "Ken,2468,100\n");
    let secret = bank.directory().join("secret");
    let (list, secret) = (list.to_str().unwrap(), secret.to_str().unwrap());
    let [copy, good_copy] = ["copy", "good-copy"].map(|name| bank.directory().join(name));
    let (copy, good_copy) = (copy.to_str().unwrap(), good_copy.to_str().unwrap());
    assert!(
        bank.server_command(&["backup", "--to", good_copy])
            .status
            .success()
    );
    let commands = [
        &["verify"][..],
        &["statement", "--account", "1"],
        &["serve", "--listen", "127.0.0.1:0"],
        &["load", list, "--append"],
        &["load", list, "--replace"],
        &["generate", "--accounts", "1", "--replace"],
        &["add-terminal", "ATM-9", "--secret-file", secret],
        &["rotate-pepper"],
        &["dispute", "--txn-id", "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"],
        &["backup", "--to", copy],
        &["restore", "--from", good_copy, "--lose-newer"],
    ];
    std::fs::set_permissions(bank.path(), std::fs::Permissions::from_mode(0o602)).unwrap();
    for command in commands {
        let refused = bank.server_command(command);
        assert_eq!(refused.status.code(), Some(1), "{command:?}");
        assert!(
            stderr(&refused).contains("chmod o-w"),
            "{command:?}: {}",
            stderr(&refused)
        );
    }
    std::fs::set_permissions(bank.path(), std::fs::Permissions::from_mode(0o664)).unwrap();
    bank.assert_verifies();
}
