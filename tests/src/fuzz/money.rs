//! Sums of money and lists of cassettes, as people write them.

use atm_cli::dispenser::Cassettes;
use bank_core::limits::MAX_NOTES_PER_DISPENSE;
use bank_core::{Amount, Currency};

/// Currencies with 2, 0, 3 and 4 decimals.
const CURRENCIES: [&str; 4] = ["USD", "JPY", "KWD", "CLF"];

/// A sum that is read is zero or more, and is read again from what is written of it.
pub fn sums(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // What begins with a code of a currency is read in that one, too.
    let own = text.get(..3).and_then(|code| Currency::from_code(code).ok());
    let others = CURRENCIES.map(|code| Currency::from_code(code).expect("a currency of ISO 4217"));
    for currency in own.into_iter().chain(others) {
        let sum = text.strip_prefix(currency.code()).unwrap_or(&text);
        match currency.parse(sum) {
            Ok(money) => {
                assert!(money.minor() >= 0, "{money:?}");
                assert_eq!(currency.parse(&currency.format(money)), Ok(money));
                let amount = currency.parse_amount(sum).ok();
                assert_eq!(amount, Amount::from_minor(money.minor()));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// Cassettes that are read are read again from what is written of them, and pay out just what they should. After a space
/// follows the sum that they are to pay out.
pub fn cassettes(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (list, sum) = text.split_once(' ').unwrap_or((&text, "100"));
    let Ok(cassettes) = Cassettes::parse(list, Currency::USD) else {
        return;
    };
    assert_eq!(
        Cassettes::parse(&cassettes.to_string(), Currency::USD).as_ref(),
        Ok(&cassettes)
    );
    let Ok(amount) = Currency::USD.parse_amount(sum) else {
        return;
    };
    match cassettes.mix(amount) {
        Ok(notes) => {
            assert_eq!(cassettes.value_of(&notes), amount.money());
            assert!(notes.number() <= MAX_NOTES_PER_DISPENSE);
            let mut rest = cassettes.clone();
            rest.take(&notes).expect("only notes on hand are paid out");
            rest.put(&notes).expect("what was taken out has room");
            assert_eq!(rest, cassettes);
        }
        Err(nearest) => {
            assert!(nearest.below.is_none_or(|below| below < amount), "{nearest:?}");
            assert!(nearest.above.is_none_or(|above| above > amount), "{nearest:?}");
            for payable in nearest.below.into_iter().chain(nearest.above) {
                assert!(cassettes.mix(payable).is_ok(), "{payable:?}");
            }
        }
    }
}
