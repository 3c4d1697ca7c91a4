//! What many accounts cost.

use atm_tests::stress::opening;

#[test]
fn an_account_costs_less_than_300_bytes() {
    let opening = opening::measure(100_000);
    assert!(opening.bytes_per_account < 300, "{opening}");
    assert!(
        opening.bytes_per_account > 50,
        "less is too good to be true: {opening}"
    );
}
