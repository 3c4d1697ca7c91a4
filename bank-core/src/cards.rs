//! The cards in use: what logging in changes of them, in memory while anybody needs it.

use std::sync::{Arc, Weak};

use dashmap::DashMap;

use crate::card::CardState;
use crate::ids::CardNumber;
use crate::journal::UpdateNumber;
use crate::limits::DEAD_CARD_ENTRIES;
use crate::shared_cell::SharedCell;
use crate::sync::Mutex;

/// What is kept of a card while it is in use.
#[derive(Clone)]
pub(crate) struct LiveCard {
    /// What logging in changes.
    pub(crate) state: CardState,
    /// Tries that are counted and not judged yet.
    pub(crate) pending: u8,
    /// The update that blocked the card, the newest since this cell was made. An operator who unblocks it leaves this as it
    /// is: the sessions from before stay ended.
    pub(crate) blocked: Option<UpdateNumber>,
    /// The PIN's hash if it was made since this cell was: the file may not have it yet.
    pub(crate) changed_pin: Option<Arc<PinHash>>,
    /// How often the customer changed it since: tells whether a PIN that was judged is still the card's. A new hash of the
    /// same PIN is no such change.
    pub(crate) pin_version: u32,
}

/// A PIN's hash, and the pepper that it was made with.
pub(crate) struct PinHash {
    pub(crate) hash: String,
    pub(crate) pepper_id: u32,
}

impl LiveCard {
    /// A card as the file has it.
    pub(crate) const fn new(state: CardState) -> LiveCard {
        LiveCard {
            state,
            pending: 0,
            blocked: None,
            changed_pin: None,
            pin_version: 0,
        }
    }
}

/// A card in use, `None` until it was read from the bank file. Whoever finds none reads the file *after* it has
/// the cell, so that what it reads is no older than the last update of an earlier cell: an update holds its
/// cell until it is durable.
pub(crate) type CardCell = SharedCell<Option<LiveCard>>;

/// The one live cell of each card that is in use. A bank may have millions of cards; here are only those with
/// a session, a login or an update under way.
#[derive(Default)]
pub(crate) struct Cards {
    cells: DashMap<CardNumber, Weak<CardCell>>,
    sweep_at: Mutex<usize>,
}

impl Cards {
    /// The card's cell: the live one, or a new one.
    pub(crate) fn cell(&self, number: &CardNumber) -> Arc<CardCell> {
        if let Some(cell) = self.cells.get(number).and_then(|cell| cell.upgrade()) {
            return cell;
        }
        self.sweep();
        let mut entry = self.cells.entry(number.clone()).or_default();
        entry.upgrade().unwrap_or_else(|| {
            let cell = Arc::default();
            *entry = Arc::downgrade(&cell);
            cell
        })
    }

    /// Drops the entries of cells that are no more, once there may be as many of them as live ones.
    fn sweep(&self) {
        let mut sweep_at = self.sweep_at.lock();
        if self.cells.len() >= (*sweep_at).max(DEAD_CARD_ENTRIES) {
            self.cells.retain(|_, cell| cell.strong_count() > 0);
            *sweep_at = 2 * self.cells.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &impl ToString) -> CardNumber {
        CardNumber::new(&text.to_string()).unwrap()
    }

    #[test]
    fn a_card_in_use_has_one_cell() {
        let cards = Cards::default();
        let (first, second) = (cards.cell(&number(&"Ken")), cards.cell(&number(&"Ken")));
        assert!(Arc::ptr_eq(&first, &second));
        first.write(|live| {
            *live = Some(LiveCard::new(CardState::FRESH));
        });
        drop((first, second));
        assert!(
            cards.cell(&number(&"Ken")).read(Option::is_none),
            "a new user reads the file again"
        );
    }

    #[test]
    fn cards_out_of_use_are_forgotten() {
        let cards = Cards::default();
        let kept = cards.cell(&number(&"kept"));
        for card in 0..10 * DEAD_CARD_ENTRIES {
            cards.cell(&number(&card));
        }
        assert!(
            cards.cells.len() <= DEAD_CARD_ENTRIES + 1,
            "{}",
            cards.cells.len()
        );
        assert!(Arc::ptr_eq(&kept, &cards.cell(&number(&"kept"))));
    }
}
