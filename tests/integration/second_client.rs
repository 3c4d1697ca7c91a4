//! A second client, in another language, written from the protocol's page alone: proof that the page suffices.

use std::process::Command;

use atm_tests::{TestBank, stderr, stdout};

const SAMPLE: &str = include_str!("../../data/accounts.csv");

/// Needs `python3`; without it, it says that it was skipped.
#[test]
fn the_page_suffices_to_write_a_client() {
    let client = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/atm_client.py");
    let bank = TestBank::load(SAMPLE);
    let server = bank.serve();
    let talk = Command::new("python3")
        .args(["-W", "error", client, server.address()])
        .output();
    let Ok(talk) = talk else {
        eprintln!("skipped: the_page_suffices_to_write_a_client needs python3");
        return;
    };
    assert!(talk.status.success(), "{}{}", stdout(&talk), stderr(&talk));
    assert!(stdout(&talk).starts_with("ok: "), "{}", stdout(&talk));
    assert!(server.stop().0.success());
    bank.assert_verifies();
}
