//! What an account remembers of the transaction ids that it has seen, so that none is done twice.
//!
//! The newest ids are kept with the rows that hold their outcomes. Of the ids that were dropped only the greatest is
//! kept: an id above it that is not kept is new *for certain*, with no index of all ids and no disk access. An id
//! at or below it that is not kept may be an old one, so the journal must be searched before anything is said of it.

use std::collections::VecDeque;

use crate::ids::{Lsn, TxnId};
use crate::limits::RECENT_IDS;
use crate::time::Timestamp;

/// The recent ids of one account. Empty it takes 32 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecentIds {
    /// The greatest id that was dropped.
    forgotten: Option<TxnId>,
    /// The ids that are kept, in their own order. As ids grow with time, new ones come at or near the end.
    #[expect(
        clippy::box_collection,
        reason = "most accounts are idle, and an empty VecDeque takes 32 bytes"
    )]
    kept: Option<Box<VecDeque<(TxnId, Lsn)>>>,
}

/// What an account knows of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It was never used on this account.
    Never,
    /// Its outcome is in this row.
    At(Lsn),
    /// It may be one of those that were dropped, of which the given one is the greatest.
    Perhaps(TxnId),
}

impl RecentIds {
    /// No ids but what is known of dropped ones.
    pub fn after(forgotten: Option<TxnId>) -> RecentIds {
        RecentIds {
            forgotten,
            kept: None,
        }
    }

    /// What is known of an id.
    pub fn look_up(&self, id: TxnId) -> Seen {
        let kept = self.kept.as_deref().and_then(|kept| {
            let at = place(kept, id).ok()?;
            Some(kept[at].1)
        });
        match (kept, self.forgotten) {
            (Some(lsn), _) => Seen::At(lsn),
            (None, Some(forgotten)) if id <= forgotten => Seen::Perhaps(forgotten),
            (None, _) => Seen::Never,
        }
    }

    /// Keeps an id whose outcome is in row `lsn`, and drops the least one if there are more than [`RECENT_IDS`].
    pub fn keep(&mut self, id: TxnId, lsn: Lsn) {
        let kept = self.kept.get_or_insert_default();
        if let Err(at) = place(kept, id) {
            kept.insert(at, (id, lsn));
        }
        if kept.len() > RECENT_IDS
            && let Some((dropped, _)) = kept.pop_front()
        {
            self.forgotten = self.forgotten.max(Some(dropped));
        }
    }

    /// Takes for forgotten every unused id up to the greatest that is kept: whoever was told so before a crash, of an id
    /// between them, must not be contradicted after it.
    pub fn close(&mut self) {
        let greatest = self.kept.as_ref().and_then(|kept| kept.back());
        self.forgotten = self.forgotten.max(greatest.map(|&(id, _)| id));
    }

    /// How many ids are kept.
    pub fn len(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.len())
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The instant of the least id that is kept.
    pub fn oldest(&self) -> Option<Timestamp> {
        let (id, _) = self.kept.as_ref()?.front()?;
        Some((*id).into())
    }

    /// Drops the ids of before an instant, and frees the memory that they took if none is left.
    pub fn drop_before(&mut self, time: Timestamp) {
        let Some(kept) = &mut self.kept else { return };
        while let Some((id, _)) = kept.pop_front_if(|&mut (id, _)| Timestamp::from(id) < time) {
            self.forgotten = self.forgotten.max(Some(id));
        }
        if kept.is_empty() {
            self.kept = None;
        }
    }
}

/// Where an id is, or where it would be. Nearly every one is new, and its place is the end: that is looked at first, and
/// saves going through memory that nobody has touched for long.
fn place(kept: &VecDeque<(TxnId, Lsn)>, id: TxnId) -> Result<usize, usize> {
    match kept.back() {
        Some(&(greatest, _)) if id <= greatest => kept.binary_search_by_key(&id, |&(kept, _)| kept),
        _ => Err(kept.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Ids in their order, with room between neighbours.
    fn id(number: u32) -> TxnId {
        let mut bytes = TxnId::generate().to_bytes();
        bytes[..6].copy_from_slice(&(u64::from(number) << 16).to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&[0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        TxnId::from_bytes(bytes).unwrap()
    }

    #[test]
    fn an_id_that_was_dropped_is_never_taken_for_a_new_one() {
        let mut ids = RecentIds::default();
        assert_eq!(ids.look_up(id(7)), Seen::Never);
        for number in 0..RECENT_IDS as u32 + 10 {
            ids.keep(id(number), Lsn::new(u64::from(number) + 1));
        }
        assert_eq!(ids.len(), RECENT_IDS);
        assert_eq!(ids.look_up(id(9)), Seen::Perhaps(id(9)));
        assert_eq!(ids.look_up(id(10)), Seen::At(Lsn::new(11)));
        let greatest = id(RECENT_IDS as u32 + 9);
        ids.close();
        assert_eq!(ids.look_up(id(10)), Seen::At(Lsn::new(11)));
        ids.drop_before(Timestamp::from(id(12)));
        assert_eq!(ids.look_up(id(11)), Seen::Perhaps(greatest));
        assert_eq!(ids.look_up(id(12)), Seen::At(Lsn::new(13)));
        assert_eq!(ids.oldest(), Some(id(12).into()));
        ids.drop_before(Timestamp::from_millis(i64::MAX));
        assert_eq!(ids.look_up(id(10)), Seen::Perhaps(greatest));
        assert_eq!(ids.look_up(greatest), Seen::Perhaps(greatest));
        assert_eq!(ids.look_up(id(RECENT_IDS as u32 + 10)), Seen::Never);
        assert!(ids.is_empty());
    }

    proptest! {
        /// Whatever comes in whatever order: an id that was used is never said to be new, one that is kept has its row,
        /// and after what was dropped everything unused is new.
        #[test]
        fn they_agree_with_a_memory_that_forgets_nothing(
            used in proptest::collection::vec(0u32..500, 0..200),
            drop_after in proptest::option::of(0usize..200),
            asked in proptest::collection::vec(0u32..500, 50),
        ) {
            let (mut ids, mut all) = (RecentIds::default(), BTreeMap::new());
            let mut forgotten = None;
            for (n, &number) in used.iter().enumerate() {
                if ids.look_up(id(number)) == Seen::Never {
                    prop_assert!(!all.contains_key(&number));
                    let lsn = Lsn::new(n as u64 + 1);
                    ids.keep(id(number), lsn);
                    all.insert(number, lsn);
                }
                if drop_after == Some(n) {
                    ids.close();
                    ids.drop_before(Timestamp::from_millis(i64::MAX));
                    forgotten = all.keys().next_back().copied();
                }
            }
            for number in asked {
                let expected = match (all.get(&number), forgotten) {
                    (_, Some(forgotten)) if number <= forgotten => Seen::Perhaps(id(forgotten)),
                    (Some(&lsn), _) => Seen::At(lsn),
                    (None, _) => Seen::Never,
                };
                prop_assert_eq!(ids.look_up(id(number)), expected);
            }
        }
    }
}
