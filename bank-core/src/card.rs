//! A card, and how its PIN tries are counted.

use crate::ids::{AccountId, CardId, CardNumber};
use crate::limits::MAX_PIN_TRIES;

/// Whether a card may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CardStatus {
    /// With the right PIN.
    Active,
    /// Not at all, until an operator unblocks it.
    Blocked,
}

/// What the bank file knows of a card. The PIN's hash is a secret's shadow and stays out of `Debug`.
#[derive(Clone)]
pub struct Card {
    /// Its number in the bank file.
    pub id: CardId,
    /// Its number.
    pub number: CardNumber,
    /// Whom it was issued to.
    pub holder: String,
    /// The account that it opens.
    pub account: AccountId,
    /// The PIN's hash, as a PHC string.
    pub pin_hash: String,
    /// The pepper that the hash was made with.
    pub pepper_id: u32,
    /// What changes with each login.
    pub state: CardState,
}

/// The part of a card that logging in changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CardState {
    /// Tries since the last good PIN, those still being checked included.
    pub tries: u8,
    /// Whether the card may be used.
    pub status: CardStatus,
}

impl CardState {
    /// A card that was never used.
    pub const FRESH: CardState = CardState {
        tries: 0,
        status: CardStatus::Active,
    };

    /// Whether no PIN is to be looked at any more.
    pub const fn is_blocked(self) -> bool {
        self.is_blocked_without(0)
    }

    /// Counts a try, before its PIN is looked at, so that guesses made at once are counted like guesses made
    /// one after another. `None` if the card is blocked: then the PIN must not be looked at.
    #[must_use]
    pub fn count_try(self) -> Option<CardState> {
        (!self.is_blocked()).then(|| CardState {
            tries: self.tries + 1,
            ..self
        })
    }

    /// After a PIN that could not be judged, for a reason that is not the customer's.
    #[must_use]
    pub fn take_back_try(self) -> CardState {
        CardState {
            tries: self.tries.saturating_sub(1),
            ..self
        }
    }

    /// After a wrong PIN: the last try blocks the card. Those that are still `pending` may yet be right, and are not
    /// held against it.
    #[must_use]
    pub fn after_wrong_pin(self, pending: u8) -> CardState {
        let status = if self.is_blocked_without(pending) {
            CardStatus::Blocked
        } else {
            self.status
        };
        CardState { status, ..self }
    }

    /// Whether it is blocked whatever those that are still `pending` turn out to be.
    pub const fn is_blocked_without(self, pending: u8) -> bool {
        matches!(self.status, CardStatus::Blocked) || self.tries.saturating_sub(pending) >= MAX_PIN_TRIES
    }

    /// Unblocked by an operator, and by nothing else: the count begins anew, with those that are still `pending`. They were
    /// counted before their PINs were looked at, and must stay so until they are judged.
    #[must_use]
    pub const fn unblocked(pending: u8) -> CardState {
        CardState {
            tries: pending,
            status: CardStatus::Active,
        }
    }

    /// After the right PIN: the count begins anew, with those that are still `pending`, unless the card was blocked
    /// meanwhile.
    #[must_use]
    pub fn after_right_pin(self, pending: u8) -> CardState {
        if matches!(self.status, CardStatus::Blocked) {
            self
        } else {
            CardState {
                tries: pending,
                ..self
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_wrong_pins_block_a_card() {
        let mut card = CardState::FRESH;
        for _ in 0..MAX_PIN_TRIES {
            card = card.count_try().expect("a try is left").after_wrong_pin(0);
        }
        assert_eq!(card.status, CardStatus::Blocked);
        assert_eq!(card.count_try(), None);
        assert_eq!(
            card.after_right_pin(0),
            card,
            "a blocked card is not unblocked by its PIN"
        );
    }

    #[test]
    fn a_right_pin_gives_all_tries_back() {
        let two_wrong = CardState {
            tries: 2,
            ..CardState::FRESH
        };
        let right = two_wrong.count_try().unwrap().after_right_pin(0);
        assert_eq!(right, CardState::FRESH);
    }

    #[test]
    fn a_pending_try_is_not_held_against_the_card() {
        // One wrong, then a wrong and a right one at once, of which the wrong one is judged first.
        let one_wrong = CardState {
            tries: 1,
            ..CardState::FRESH
        };
        let both = one_wrong.count_try().unwrap().count_try().unwrap();
        let after_wrong = both.after_wrong_pin(1);
        assert_eq!(after_wrong.status, CardStatus::Active);
        assert_eq!(after_wrong.after_right_pin(0), CardState::FRESH);
        assert_eq!(after_wrong.after_wrong_pin(0).status, CardStatus::Blocked);
    }

    #[test]
    fn unblocking_forgets_what_was_judged_and_keeps_what_is_not() {
        assert_eq!(CardState::unblocked(0), CardState::FRESH);
        // Of two tries at once none is judged when the card is unblocked: both are still two of three.
        let unblocked = CardState::unblocked(2);
        let third = unblocked.count_try().unwrap();
        assert_eq!(third.count_try(), None);
        let wrong = third.after_wrong_pin(2).after_wrong_pin(1);
        assert!(!wrong.is_blocked_without(1));
        assert_eq!(wrong.after_wrong_pin(0).status, CardStatus::Blocked);
        assert_eq!(wrong.after_right_pin(0), CardState::FRESH);
    }

    #[test]
    fn guesses_at_once_count_before_any_is_checked() {
        let three = (0..3).fold(CardState::FRESH, |card, _| card.count_try().unwrap());
        assert_eq!(
            three.count_try(),
            None,
            "a fourth is not looked at although none was judged yet"
        );
    }
}
