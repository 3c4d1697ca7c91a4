//! What operators see of an open bank: its accounts with their cards, and what operators have done.

use std::collections::{HashMap, HashSet};

use crate::account::{Account, AccountStatus};
use crate::action::Action;
use crate::bank::{Bank, StatementError};
use crate::bank_file::CardOfAccount;
use crate::card::CardStatus;
use crate::ids::AccountId;
use crate::money::Money;

/// Which accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountFilter {
    /// All of them.
    All,
    /// The one with that number.
    Number(AccountId),
    /// Those with a status.
    Status(AccountStatus),
    /// Those that owe the bank something.
    Overdrawn,
    /// Those with a card that is blocked.
    Blocked,
    /// Those with a card whose number or holder has this text in it, whatever its capitals.
    Holder(String),
}

impl AccountFilter {
    /// A filter as an operator types it: a number, "open", "frozen", "closed", "overdrawn", "blocked", or a part of a holder's name or
    /// of a card's number.
    pub fn of(text: &str) -> AccountFilter {
        if let Some(status) = AccountStatus::from_name(text) {
            return AccountFilter::Status(status);
        }
        match (text, text.parse()) {
            ("", _) => AccountFilter::All,
            ("overdrawn", _) => AccountFilter::Overdrawn,
            ("blocked", _) => AccountFilter::Blocked,
            (_, Ok(number)) => AccountFilter::Number(number),
            (text, Err(_)) => AccountFilter::Holder(text.to_lowercase()),
        }
    }

    fn takes_account(&self, account: &Account) -> bool {
        match self {
            AccountFilter::Number(number) => account.id == *number,
            AccountFilter::Status(status) => account.status == *status,
            AccountFilter::Overdrawn => account.balance < Money::ZERO,
            AccountFilter::All | AccountFilter::Blocked | AccountFilter::Holder(_) => true,
        }
    }

    /// Whether it is a card that decides, and whether this one does.
    fn takes_card(&self, card: &CardOfAccount) -> Option<bool> {
        match self {
            AccountFilter::Blocked => Some(card.state.status == CardStatus::Blocked),
            AccountFilter::Holder(text) => Some(
                card.holder.to_lowercase().contains(text)
                    || card.number.as_str().to_lowercase().contains(text),
            ),
            _ => None,
        }
    }
}

/// Accounts that were found.
#[derive(Clone, Debug)]
pub struct Accounts {
    /// The first of them, by number, each with its cards.
    pub found: Vec<(Account, Vec<CardOfAccount>)>,
    /// How many there are in all.
    pub count: usize,
}

impl Bank {
    /// Lists accounts, the first `most` of them. It blocks until what it tells is durable, and reads all cards: millions of them take
    /// seconds.
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn accounts(&self, filter: &AccountFilter, most: usize) -> Result<Accounts, StatementError> {
        let by_card = match filter {
            AccountFilter::Blocked | AccountFilter::Holder(_) => {
                let mut wanted = HashSet::new();
                self.readers.each_card(|card| {
                    if filter.takes_card(&card) == Some(true) {
                        wanted.insert(card.account);
                    }
                })?;
                Some(wanted)
            }
            _ => None,
        };
        let mut count = 0;
        let mut found = Vec::new();
        for id in self.ledger.account_ids() {
            if by_card.as_ref().is_some_and(|wanted| !wanted.contains(&id)) {
                continue;
            }
            let Some(account) = self.account(id).map(|account| account.view()) else {
                continue;
            };
            if filter.takes_account(&account) {
                count += 1;
                if found.len() < most {
                    found.push((account, Vec::new()));
                }
            }
        }
        let places: HashMap<AccountId, usize> = found
            .iter()
            .enumerate()
            .map(|(place, (account, _))| (account.id, place))
            .collect();
        self.readers.each_card(|card| {
            if let Some(&place) = places.get(&card.account) {
                found[place].1.push(card);
            }
        })?;
        // Whatever was seen, terms that operators have set among it, was appended by now.
        let (newest, update) = (self.journal().appended_lsn(), self.journal().appended_update());
        self.journal().durable(newest).wait()?;
        self.journal().update_durable(update).wait()?;
        Ok(Accounts { found, count })
    }

    /// The newest commands of operators, at most `lines` of them, the newest first.
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn actions(&self, lines: usize) -> Result<Vec<Action>, StatementError> {
        Ok(self.readers.actions(lines)?)
    }
}
