//! The stress harness, small, so that it does not rot; and that it would notice.

use std::process::Command;

use atm_tests::{TestBank, program, stdout};

#[test]
fn a_run_tells_its_figures_and_that_the_money_is_all_there() {
    let bank = TestBank::generate(20);
    let server = bank.serve();
    let file = bank.directory().join("figures.json");
    for accounts in ["uniform", "hot"] {
        let run = Command::new(program("atm-stress"))
            .args([
                "run",
                "--server",
                server.address(),
                "--cards",
                "20",
                "--connections",
                "8",
                "--duration",
                "0.2",
            ])
            .args([
                "--pipeline",
                "4",
                "--mix",
                "deposit=2,withdraw,transfer,balance",
                "--accounts",
                accounts,
                "--json",
            ])
            .arg(&file)
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", atm_tests::stderr(&run));
        assert!(
            stdout(&run).contains("the money is all there"),
            "{}",
            stdout(&run)
        );
        let figures: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(figures["conserved"], true);
        assert!(
            figures["answers"].as_u64().unwrap() >= 32
                && figures["latency_us"]["p99"].as_f64().unwrap() > 0.0
        );
    }
    assert!(server.stop().0.success());
    bank.assert_verifies();
}

/// Money that comes from elsewhere while the load lasts is money that the load cannot account for.
#[test]
fn a_run_notices_money_that_it_did_not_move() {
    let bank = TestBank::generate(1);
    let server = bank.serve();
    let mut other = server.login("1", "0001");
    let mut run = Command::new(program("atm-stress"))
        .args([
            "run",
            "--server",
            server.address(),
            "--cards",
            "1",
            "--connections",
            "1",
            "--duration",
            "1",
        ])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let amount = bank_core::Amount::from_minor(1).unwrap();
    while run.try_wait().unwrap().is_none() {
        other.deposit(bank_core::TxnId::generate(), amount).unwrap();
    }
    let run = run.wait_with_output().unwrap();
    assert_eq!(run.status.code(), Some(1));
    assert!(
        stdout(&run).contains("MONEY IS NOT CONSERVED: account 1"),
        "{}",
        stdout(&run)
    );
}

#[test]
fn a_load_on_a_bank_that_does_not_fit_is_explained() {
    let bank = TestBank::load("Ken,2468,1\n");
    let server = bank.serve();
    let run = Command::new(program("atm-stress"))
        .args(["run", "--server", server.address()])
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(1));
    assert!(
        atm_tests::stderr(&run).contains("atm-server generate"),
        "{}",
        atm_tests::stderr(&run)
    );
}
