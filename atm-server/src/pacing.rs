//! Pacing of failed logins: whoever fails often must wait before he may try again, by card and by address.
//!
//! A card has three tries, so nobody guesses its PIN here. What this bounds is all else: guesses at many cards from one
//! place, and the work and the writing that each refused login costs. It treats a card that exists, is blocked or
//! was never issued alike, so that it tells nothing about cards.
//!
//! It is the generic cell rate algorithm (ITU-T I.371): each key has an instant at which all its failures are forgiven.
//! Keys share a table of fixed size by a hash that nobody outside knows, so whatever is thrown at it, it takes the same
//! memory; where two keys meet in one place, the pace is only stricter.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bank_core::CardNumber;
use bank_core::limits::{FAILED_LOGINS_PER_ADDRESS, FAILED_LOGINS_PER_CARD, PACING_PLACES, Pace};

/// Who has failed how often.
pub(crate) struct Pacing {
    start: Instant,
    cards: Table,
    addresses: Table,
}

/// For each place the milliseconds after the start at which all failures are forgiven.
struct Table {
    hasher: RandomState,
    forgiven: Box<[AtomicU64]>,
    pace: Pace,
}

impl Pacing {
    pub(crate) fn new() -> Pacing {
        Pacing {
            start: Instant::now(),
            cards: Table::new(FAILED_LOGINS_PER_CARD),
            addresses: Table::new(FAILED_LOGINS_PER_ADDRESS),
        }
    }

    /// How long a login with that card from that address must wait: nothing, if it may be tried.
    pub(crate) fn wait(&self, card: &CardNumber, address: IpAddr) -> Duration {
        let now = self.now();
        let card = self.cards.wait(card.as_str(), now);
        card.max(self.addresses.wait(network(address), now))
    }

    /// Counts a login that was refused.
    pub(crate) fn failed(&self, card: &CardNumber, address: IpAddr) {
        let now = self.now();
        self.cards.failed(card.as_str(), now);
        self.addresses.failed(network(address), now);
    }

    fn now(&self) -> u64 {
        millis(self.start.elapsed())
    }
}

impl Table {
    fn new(pace: Pace) -> Table {
        Table {
            hasher: RandomState::new(),
            forgiven: (0..PACING_PLACES).map(|_| AtomicU64::new(0)).collect(),
            pace,
        }
    }

    fn place(&self, key: impl Hash) -> &AtomicU64 {
        let hash = self.hasher.hash_one(key);
        &self.forgiven[hash as usize % self.forgiven.len()]
    }

    fn wait(&self, key: impl Hash, now: u64) -> Duration {
        let forgiven = self.place(key).load(Ordering::Relaxed);
        // As long as there is room for one more failure.
        let room = millis(self.pace.each * (self.pace.burst - 1));
        let wait = forgiven.saturating_sub(now + room);
        Duration::new(wait / 1000, (wait % 1000) as u32 * 1_000_000)
    }

    fn failed(&self, key: impl Hash, now: u64) {
        let each = millis(self.pace.each);
        let later = |forgiven: u64| forgiven.max(now) + each;
        self.place(key)
            .update(Ordering::Relaxed, Ordering::Relaxed, later);
    }
}

/// Who is behind an address: of IPv6 its network of 64 bits, since whoever has one address there has them all.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        burst: 3,
        each: Duration::new(10, 0),
    };

    #[test]
    fn a_burst_is_free_and_then_one_failure_in_each_interval() {
        let table = Table::new(PACE);
        let wait = |now| table.wait("Ken", now).as_millis();
        for _ in 0..3 {
            assert_eq!(wait(1_000), 0);
            table.failed("Ken", 1_000);
        }
        assert_eq!(wait(1_000), 10_000);
        assert_eq!(wait(10_999), 1);
        assert_eq!(wait(11_000), 0);
        table.failed("Ken", 11_000);
        assert_eq!(wait(11_000), 10_000, "only one was forgiven");
        assert_eq!(wait(41_000), 0);
        for _ in 0..3 {
            assert_eq!(
                wait(100_000),
                0,
                "what is long ago is forgiven, and no more than that"
            );
            table.failed("Ken", 100_000);
        }
        assert_eq!(wait(100_000), 10_000);
    }

    #[test]
    fn one_who_fails_does_not_keep_others_waiting() {
        let table = Table::new(PACE);
        // There may be one among them that shares Ken's place.
        let waiting = |table: &Table| (0..100).filter(|n| !table.wait(n, 0).is_zero()).count();
        assert_eq!(waiting(&table), 0);
        for _ in 0..1000 {
            table.failed("Ken", 0);
        }
        assert!(!table.wait("Ken", 0).is_zero());
        assert!(waiting(&table) < 3);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_an_embedded_one_of_ipv4_is_that() {
        let check = |address: &str, expected: &str| {
            assert_eq!(
                network(address.parse().unwrap()),
                expected.parse::<IpAddr>().unwrap()
            );
        };
        check("192.0.2.1", "192.0.2.1");
        check("::ffff:192.0.2.1", "192.0.2.1");
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
    }
}
