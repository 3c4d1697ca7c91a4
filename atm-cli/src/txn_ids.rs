//! Transaction ids: each is later than all before it, whatever the clock does.
//!
//! The bank forgets a transaction's id only when it has seen many later ones, and refuses an id that is ahead of its own
//! clock. So an id is made for what the server's clock shows, as far as is known (else this machine's), but always after the
//! last id.

use std::time::Instant;

use bank_core::{Moment, Timestamp, TxnId};

use crate::connection::ServerTime;

/// Makes a terminal's transaction ids.
#[derive(Debug, Default)]
pub struct TxnIds {
    last: Option<Timestamp>,
    server_time: Option<ServerTime>,
}

impl TxnIds {
    /// Ids later than the last that the terminal has made, if it has made any.
    pub fn after(last: Option<TxnId>) -> TxnIds {
        TxnIds {
            last: last.map(Timestamp::from),
            server_time: None,
        }
    }

    /// Hears what the server's clock shows. A later word replaces an earlier one.
    pub fn hear(&mut self, server_time: ServerTime) {
        self.server_time = Some(server_time);
    }

    /// Makes no more ids of that instant or before it.
    pub fn skip_to(&mut self, newest: Timestamp) {
        self.last = self.last.max(Some(newest));
    }

    /// A new id.
    pub fn make(&mut self) -> TxnId {
        self.make_at(Moment::now().time, Instant::now())
    }

    fn make_at(&mut self, clock: Timestamp, now: Instant) -> TxnId {
        let server = self.server_time.map(|ServerTime { time, heard }| {
            let since = now.saturating_duration_since(heard).as_millis();
            later(time, i64::try_from(since).unwrap_or(i64::MAX))
        });
        let next = self.last.map(|last| later(last, 1));
        // A clock that is ahead of the server's would make ids that it refuses.
        let time = server.unwrap_or(clock);
        let time = next.map_or(time, |next| next.max(time));
        self.last = Some(time);
        TxnId::at(time)
    }
}

fn later(time: Timestamp, millis: i64) -> Timestamp {
    Timestamp::from_millis(time.millis().saturating_add(millis))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What an id made at that instant of the clock tells, in milliseconds.
    fn made(ids: &mut TxnIds, clock: i64, now: Instant) -> i64 {
        Timestamp::from(ids.make_at(Timestamp::from_millis(clock), now)).millis()
    }

    #[test]
    fn ids_increase_although_the_clock_stands_still_or_goes_back() {
        let (mut ids, now) = (TxnIds::default(), Instant::now());
        let mut last = ids.make_at(Timestamp::from_millis(1000), now);
        for clock in [1000, 1000, 999, 0, -5, 1003, 2000, 1] {
            let next = ids.make_at(Timestamp::from_millis(clock), now);
            assert!(next > last, "{next} is not later than {last}");
            last = next;
        }
        assert_eq!(Timestamp::from(last).millis(), 2001);
    }

    #[test]
    fn ids_follow_the_servers_clock_and_not_this_machines() {
        let (mut ids, heard) = (TxnIds::default(), Instant::now());
        let hear = |ids: &mut TxnIds, time| {
            let time = Timestamp::from_millis(time);
            ids.hear(ServerTime { time, heard });
        };
        hear(&mut ids, 5000);
        assert_eq!(made(&mut ids, 1000, heard), 5000);
        assert_eq!(made(&mut ids, 1000, heard + Duration::from_millis(70)), 5070);
        assert_eq!(made(&mut ids, 900_000, heard), 5071, "the clock is ahead");
        hear(&mut ids, 200);
        assert_eq!(made(&mut ids, 100, heard), 5072, "the server's clock went back");
    }

    #[test]
    fn ids_are_later_than_the_last_one_and_than_what_is_forgotten() {
        let last = TxnId::at(Timestamp::from_millis(7000));
        let (mut ids, now) = (TxnIds::after(Some(last)), Instant::now());
        assert_eq!(made(&mut ids, 1000, now), 7001);
        ids.skip_to(Timestamp::from_millis(8000));
        assert_eq!(made(&mut ids, 1000, now), 8001);
        ids.skip_to(Timestamp::from_millis(3));
        assert_eq!(made(&mut ids, 1000, now), 8002);
    }
}
