//! The list of accounts that an operator loads.

use std::collections::BTreeSet;

use bank_core::bank_file::{ExistingNames, NewAccount};
use bank_core::limits::MAX_HOLDER_BYTES;
use bank_core::loading::{AccountList, ListError};
use bank_core::{AccountId, CardNumber};

/// A list is refused with reasons and their lines; or it is a bank's, and the same one when it is written again.
pub fn accounts_list(csv: &[u8]) {
    let list = match read(csv) {
        Ok(list) => list,
        Err(error) => {
            let ListError::BadRows(rows) = error else {
                panic!("no bank file was read: {error}")
            };
            let lines = csv.iter().filter(|&&byte| byte == b'\n').count() as u64 + 1;
            assert!(!rows.is_empty());
            assert!(rows.is_sorted_by_key(|row| row.line));
            for row in rows {
                assert!(
                    (1..=lines).contains(&row.line) && !row.reason.is_empty(),
                    "{row:?}"
                );
            }
            return;
        }
    };
    let numbers: BTreeSet<_> = list.accounts.iter().map(|account| account.id).collect();
    assert_eq!(numbers.len(), list.accounts.len());
    assert!(list.cards.is_sorted_by(|a, b| a.number < b.number));
    for card in &list.cards {
        assert!(numbers.contains(&card.account) && card.holder.len() <= MAX_HOLDER_BYTES);
    }
    for account in &list.accounts {
        assert!(account.balance.minor() >= 0 && account.overdraft_limit.minor() >= 0);
        assert!(list.cards.iter().any(|card| card.account == account.id));
    }
    let mut written = write(&list);
    let again = read(written.as_bytes()).expect("a list that was read is one");
    assert_eq!(again.accounts, list.accounts);
    assert_eq!(cards(&again), cards(&list));
    // Another card for each account, of which its row says nothing more.
    for account in &list.accounts {
        written.push_str(&format!("another-{0},Somebody,1234,{0},,,,\n", account.id));
    }
    let joint = read(written.as_bytes());
    let taken = list
        .cards
        .iter()
        .any(|card| card.number.as_str().starts_with("another-"));
    assert!(taken || joint.is_ok_and(|joint| joint.accounts == list.accounts));
}

fn read(csv: &[u8]) -> Result<AccountList, ListError> {
    AccountList::from_csv(csv, |_, _| Ok(ExistingNames::default()))
}

/// The cards without their PINs, which nobody is shown.
fn cards(list: &AccountList) -> Vec<(&CardNumber, &str, AccountId)> {
    list.cards
        .iter()
        .map(|card| (&card.number, card.holder.as_str(), card.account))
        .collect()
}

/// The list with all columns, every one of a card's row filled in.
fn write(list: &AccountList) -> String {
    let mut csv = "card,holder,pin,account,currency,balance,overdraft_limit,daily_limit\n".to_owned();
    for card in &list.cards {
        let account = list.accounts.iter().find(|account| account.id == card.account);
        let NewAccount {
            id,
            currency,
            balance,
            overdraft_limit,
            daily_limit,
        } = account.expect("every card has its account");
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let fields = [
            quoted(card.number.as_str()),
            quoted(&card.holder),
            "1234".to_owned(),
            id.to_string(),
            currency.to_string(),
            currency.format(*balance),
            currency.format(*overdraft_limit),
            daily_limit.map_or(String::new(), |limit| currency.format(limit)),
        ];
        csv.push_str(&fields.join(","));
        csv.push('\n');
    }
    csv
}
