//! What `verify` finds.

use std::process::Output;

use atm_tests::{TestBank, stdout};
use bank_core::{AccountId, Amount, TxnId};
use rusqlite::Connection;

/// A bank with every kind of row: openings (1 to 3), deposit, withdrawal, transfer, two declines (7 and 8), a fence, an
/// advice, and the reversals of a withdrawal and of a transfer. Left as after a crash, so that the accounts table lags
/// behind, or closed in order.
fn bank_with_history(in_order: bool) -> TestBank {
    let bank = TestBank::generate(3);
    let server = bank.serve();
    let mut client = server.login("1", "0001");
    let amount = |minor| Amount::from_minor(minor).unwrap();
    client.deposit(TxnId::generate(), amount(500)).unwrap();
    client.withdraw(TxnId::generate(), amount(200)).unwrap();
    client
        .transfer(TxnId::generate(), AccountId::new(2).unwrap(), amount(300))
        .unwrap();
    client.withdraw(TxnId::generate(), amount(99_999_999)).unwrap();
    client
        .transfer(TxnId::generate(), AccountId::new(9).unwrap(), amount(1))
        .unwrap();
    let account = AccountId::new(1).unwrap();
    client.resolve(account, TxnId::generate()).unwrap();
    client.advice(account, TxnId::generate(), amount(50)).unwrap();
    let [withdrawal, transfer] = [(); 2].map(|()| TxnId::generate());
    client.withdraw(withdrawal, amount(70)).unwrap();
    client
        .transfer(transfer, AccountId::new(3).unwrap(), amount(20))
        .unwrap();
    for original in [withdrawal, transfer] {
        client.reverse(account, original).unwrap();
    }
    if in_order {
        drop(server.stop());
    } else {
        server.kill();
    }
    bank
}

fn verify_after(bank: &TestBank, tampering: &str) -> Output {
    let file = Connection::open(bank.path()).unwrap();
    file.execute_batch(&format!("PRAGMA foreign_keys = OFF; {tampering}"))
        .unwrap_or_else(|error| panic!("{tampering}: {error}"));
    drop(file);
    bank.server_command(&["verify"])
}

#[test]
fn an_untouched_bank_verifies_whether_it_was_closed_or_killed() {
    for in_order in [true, false] {
        let bank = bank_with_history(in_order);
        let verified = bank.server_command(&["verify"]);
        let proof = stdout(&verified);
        assert!(verified.status.success() && proof.lines().count() == 1, "{proof}");
        assert!(proof.contains("3 accounts, 3 cards, 14 journal rows"), "{proof}");
        assert!(
            proof.contains("USD: customers 3003.50 + cash -3.50 + opening -3000.00 = 0"),
            "{proof}"
        );
    }
}

#[test]
fn one_changed_number_is_found_wherever_it_is() {
    let mut tamperings: Vec<String> = Vec::new();
    for lsn in 1..=14 {
        tamperings.push(format!(
            "UPDATE journal SET balance = balance + 1 WHERE lsn = {lsn}"
        ));
        tamperings.push(format!(
            "UPDATE journal SET prev_lsn = prev_lsn + 1 WHERE lsn = {lsn}"
        ));
        tamperings.push(format!(
            "UPDATE journal SET account = account % 3 + 1 WHERE lsn = {lsn}"
        ));
        tamperings.push(format!("DELETE FROM journal WHERE lsn = {lsn}"));
        tamperings.push(format!(
            "UPDATE journal SET original_lsn = coalesce(original_lsn, {lsn}) - 1 WHERE lsn = {lsn}"
        ));
        for column in ["txn_id", "terminal"] {
            // An opening has neither; all others have both.
            tamperings.push(format!(
                "UPDATE journal SET {column} = CASE WHEN {column} IS NULL
                 THEN (SELECT {column} FROM journal WHERE lsn = 5) END WHERE lsn = {lsn}"
            ));
        }
    }
    // An approved amount. That of a decline changes nothing, and only a hash over the rows could tell.
    for lsn in (1..=6).chain(10..=14) {
        tamperings.push(format!(
            "UPDATE journal SET amount = amount + 1 WHERE lsn = {lsn}"
        ));
        tamperings.push(format!("UPDATE journal SET amount = -amount WHERE lsn = {lsn}"));
        tamperings.push(format!("UPDATE journal SET outcome = 4 WHERE lsn = {lsn}"));
    }
    tamperings.extend(
        [
            "UPDATE journal SET outcome = 0 WHERE lsn = 7",
            "UPDATE journal SET outcome = 99 WHERE lsn = 7",
            "UPDATE journal SET kind = 1 WHERE lsn = 5",
            "UPDATE journal SET amount = 1 WHERE lsn = 9",
            "UPDATE journal SET outcome = 4 WHERE lsn = 9",
            "UPDATE journal SET outcome = 11 WHERE lsn = 8",
            "UPDATE journal SET outcome = 12 WHERE lsn = 7",
            "UPDATE journal SET kind = 7 WHERE lsn = 8",
            "UPDATE journal SET kind = 2 WHERE lsn = 13",
            "UPDATE journal SET original_lsn = NULL WHERE lsn = 13",
            "UPDATE journal SET original_lsn = 5 WHERE lsn = 13",
            "UPDATE journal SET terminal = 'ATM-9' WHERE lsn = 13",
            "UPDATE journal SET txn_id = (SELECT txn_id FROM journal WHERE lsn = 5) WHERE lsn = 7",
            "UPDATE journal SET txn_id = (SELECT txn_id FROM journal WHERE lsn = 5) WHERE lsn = 13",
            "UPDATE journal SET txn_id = x'ffffffffffff70008000000000000000' WHERE lsn = 4",
            "UPDATE accounts SET greatest_txn_id = x'ffffffffffff70008000000000000000' WHERE account = 1",
            "UPDATE accounts SET greatest_txn_id = x'00' WHERE account = 2",
            "UPDATE journal SET contra = -2 WHERE lsn = 4",
            "UPDATE journal SET contra = 3 WHERE lsn = 6",
            "UPDATE journal SET contra_balance = contra_balance - 1 WHERE lsn = 6",
            "UPDATE journal SET contra_balance = NULL WHERE lsn = 6",
            "UPDATE journal SET time = 0 WHERE lsn = 5",
            "UPDATE journal SET business_date = 0 WHERE lsn = 5",
            "UPDATE accounts SET balance = balance - 1 WHERE account = 1",
            "UPDATE accounts SET withdrawn = withdrawn + 1 WHERE account = 1",
            "UPDATE accounts SET last_lsn = 99 WHERE account = 2",
            "UPDATE accounts SET currency = 'EUR' WHERE account = 1",
            "UPDATE accounts SET currency = 'gold' WHERE account = 1",
            "DELETE FROM accounts WHERE account = 2",
            "UPDATE system_accounts SET balance = '-1'",
            "DELETE FROM system_accounts",
            "UPDATE bank SET checkpoint_lsn = 99",
            "UPDATE cards SET account = 9 WHERE card = '1'",
        ]
        .map(str::to_owned),
    );
    for in_order in [true, false] {
        let bank = bank_with_history(in_order);
        let clean = std::fs::read(bank.path()).unwrap();
        let log = bank.directory().join("bank.db-wal");
        let clean_log = std::fs::read(&log).ok();
        // That the newest row of a crashed bank is missing, nothing inside the file can tell: it might never have
        // been written. Closed in order, the checkpoint names it.
        let undetectable = (!in_order).then_some("DELETE FROM journal WHERE lsn = 14");
        for tampering in tamperings
            .iter()
            .filter(|tampering| undetectable != Some(tampering))
        {
            let verified = verify_after(&bank, tampering);
            let report = stdout(&verified);
            assert_eq!(
                verified.status.code(),
                Some(1),
                "{tampering} (closed in order: {in_order}): {report}"
            );
            assert!(
                report.contains("the books do not balance"),
                "{tampering}: {report}"
            );
            for leftover in ["bank.db-wal", "bank.db-shm"] {
                let _ = std::fs::remove_file(bank.directory().join(leftover));
            }
            std::fs::write(bank.path(), &clean).unwrap();
            if let Some(clean_log) = &clean_log {
                std::fs::write(&log, clean_log).unwrap();
            }
        }
        bank.assert_verifies();
    }
}

#[test]
fn what_is_no_bank_is_said_to_be_none() {
    let bank = TestBank::nowhere();
    let check = |part: &str| {
        let verified = bank.server_command(&["verify"]);
        assert_eq!(verified.status.code(), Some(1));
        assert!(
            atm_tests::stderr(&verified).contains(part),
            "{}",
            atm_tests::stderr(&verified)
        );
    };
    check("there is no bank file");
    bank.write("bank.db", "holder,pin,balance\n".repeat(100));
    check("is no bank file");
    bank.write("bank.db", "");
    check("is no bank file");
    std::fs::remove_file(bank.path()).unwrap();
    let generated = bank.server_command(&["generate", "--accounts", "1"]);
    assert!(generated.status.success());
    let set_version = |version| {
        let file = Connection::open(bank.path()).unwrap();
        file.pragma_update(None, "user_version", version).unwrap();
    };
    set_version(7);
    check("has version 7 and was written by a newer program: this one knows versions 2 to 4");
    set_version(1);
    check("has version 1, and this program knows versions 2 to 4: use the program that wrote it");
}
