//! What the server counts: requests, their outcomes and latencies, commits, refusals.
//!
//! Counting is a few additions to atomics that seldom two threads use at once: sessions are spread over shards, and whoever
//! looks adds the shards up. Nothing is locked, and nothing is asked of the clock more than twice for all requests that a
//! client sent at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bank_core::journal::Commit;
use bank_core::limits::METRIC_SHARDS;
use bank_core::protocol::{ErrorCode, ReplyBody, RequestBody};

/// What a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestKind(u8);

impl RequestKind {
    /// How many kinds there are.
    pub(crate) const COUNT: usize = 13;

    /// Their names, in the order of the protocol's forms.
    const NAMES: [&str; RequestKind::COUNT] = [
        "ping",
        "login",
        "logout",
        "balance",
        "deposit",
        "withdraw",
        "transfer",
        "reverse",
        "resolve",
        "advice",
        "statement",
        "change_pin",
        "totals",
    ];

    pub(crate) fn of(body: &RequestBody<'_>) -> RequestKind {
        RequestKind(match body {
            RequestBody::Ping => 0,
            RequestBody::Login { .. } => 1,
            RequestBody::Logout => 2,
            RequestBody::Balance => 3,
            RequestBody::Deposit { .. } => 4,
            RequestBody::Withdraw { .. } => 5,
            RequestBody::Transfer { .. } => 6,
            RequestBody::Reverse { .. } => 7,
            RequestBody::Resolve { .. } => 8,
            RequestBody::Advice { .. } => 9,
            RequestBody::Statement { .. } => 10,
            RequestBody::ChangePin { .. } => 11,
            RequestBody::Totals => 12,
        })
    }

    pub(crate) fn all() -> impl Iterator<Item = RequestKind> {
        (0..RequestKind::COUNT as u8).map(RequestKind)
    }

    pub(crate) fn from_number(number: u8) -> Option<RequestKind> {
        RequestKind::all().nth(number.into())
    }

    pub(crate) fn number(self) -> u8 {
        self.0
    }

    pub(crate) fn name(self) -> &'static str {
        RequestKind::NAMES[usize::from(self.0)]
    }

    /// Whether it is a customer's transaction: what has to be on disk, and keeps a customer waiting for nothing else.
    pub(crate) fn is_transaction(self) -> bool {
        (4..=6).contains(&self.0)
    }
}

/// What became of a request, or why a connection was refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Answered {
    /// It was done, or approved.
    #[default]
    Done,
    /// Its transaction id was stale.
    Stale,
    /// It was declined or refused, by the index of its code in [`ErrorCode::ALL`].
    Code(u8),
}

impl Answered {
    const COUNT: usize = 2 + ErrorCode::ALL.len();

    pub(crate) fn by(reply: &ReplyBody<'_>) -> Answered {
        match reply {
            ReplyBody::Declined { code, .. } | ReplyBody::Error { code, .. } => {
                let known = ErrorCode::from_number(*code).unwrap_or(ErrorCode::InternalError);
                Answered::code(known)
            }
            ReplyBody::StaleId { .. } => Answered::Stale,
            _ => Answered::Done,
        }
    }

    fn code(code: ErrorCode) -> Answered {
        let index = ErrorCode::ALL.iter().position(|&other| other == code);
        Answered::Code(index.expect("all codes are there") as u8)
    }

    fn index(self) -> usize {
        match self {
            Answered::Done => 0,
            Answered::Stale => 1,
            Answered::Code(index) => 2 + usize::from(index),
        }
    }

    fn all() -> impl Iterator<Item = Answered> {
        let codes = (0..ErrorCode::ALL.len() as u8).map(Answered::Code);
        [Answered::Done, Answered::Stale].into_iter().chain(codes)
    }

    /// The word for it, and the code's name.
    pub(crate) fn names(self) -> (&'static str, &'static str) {
        match self {
            Answered::Done => ("done", "none"),
            Answered::Stale => ("error", "stale_id"),
            Answered::Code(index) => {
                let code = ErrorCode::ALL[usize::from(index)];
                (
                    if code.number() < 100 { "declined" } else { "error" },
                    code.name(),
                )
            }
        }
    }
}

/// Counts of whole numbers, in places that are exact up to 7 and from there on four to each doubling.
pub(crate) struct Histogram {
    places: [AtomicU64; Histogram::PLACES],
    sum: AtomicU64,
}

/// A histogram as it was at some instant.
#[derive(Clone)]
pub(crate) struct Counts {
    places: [u64; Histogram::PLACES],
    pub(crate) sum: u64,
}

impl Histogram {
    /// What is as great as this or greater is in the last place: of microseconds, 67 seconds.
    const GREATEST_LOG: u32 = 26;
    const PLACES: usize = 4 * (Histogram::GREATEST_LOG as usize - 1) + 1;

    fn new() -> Histogram {
        Histogram {
            places: [const { AtomicU64::new(0) }; Histogram::PLACES],
            sum: AtomicU64::new(0),
        }
    }

    fn place(value: u64) -> usize {
        if value < 4 {
            return value as usize;
        }
        let log = value.ilog2();
        if log >= Histogram::GREATEST_LOG {
            return Histogram::PLACES - 1;
        }
        4 * (log as usize - 1) + (value >> (log - 2) & 3) as usize
    }

    /// The least value of a place.
    fn least(place: usize) -> u64 {
        if place < 4 {
            return place as u64;
        }
        (4 + place as u64 % 4) << (place / 4 - 1)
    }

    pub(crate) fn add(&self, value: u64, times: u64) {
        self.places[Histogram::place(value)].fetch_add(times, Ordering::Relaxed);
        self.sum.fetch_add(value * times, Ordering::Relaxed);
    }

    fn add_duration(&self, duration: Duration, times: u64) {
        self.add(
            u64::try_from(duration.as_micros()).unwrap_or(u64::MAX >> 32),
            times,
        );
    }
}

impl Counts {
    fn zero() -> Counts {
        Counts {
            places: [0; Histogram::PLACES],
            sum: 0,
        }
    }

    fn of(histogram: &Histogram) -> Counts {
        let mut counts = Counts::zero();
        counts.add(histogram);
        counts
    }

    fn add(&mut self, histogram: &Histogram) {
        for (count, place) in self.places.iter_mut().zip(&histogram.places) {
            *count += place.load(Ordering::Relaxed);
        }
        self.sum += histogram.sum.load(Ordering::Relaxed);
    }

    /// What has come since an earlier look.
    pub(crate) fn since(&self, earlier: &Counts) -> Counts {
        Counts {
            places: std::array::from_fn(|place| self.places[place] - earlier.places[place]),
            sum: self.sum - earlier.sum,
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.places.iter().sum()
    }

    /// The number that `part` (0 to 1) of all are at most, within a quarter; none if there are none.
    pub(crate) fn percentile(&self, part: f64) -> Option<u64> {
        let count = self.count();
        let wanted = ((count as f64 * part).ceil() as u64).max(1);
        let mut below = 0;
        let place = self.places.iter().position(|&here| {
            below += here;
            below >= wanted
        })?;
        // The greatest of the place, so that nothing looks better than it is.
        Some(Histogram::least(place + 1) - 1)
    }

    /// How many there are of each doubling, with the greatest number that is among them: 1, 3, 7 and so on. All greater ones
    /// are the last, without a number.
    pub(crate) fn doublings(&self, from_log: u32) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = (from_log..=Histogram::GREATEST_LOG).map(|log| Histogram::place((1 << log) - 1) + 1);
        let (mut begin, mut log) = (0, from_log);
        bounds.chain([Histogram::PLACES]).map(move |end| {
            let here = self.places[begin..end].iter().sum();
            let greatest = (end < Histogram::PLACES).then(|| (1 << log) - 1);
            (begin, log) = (end, log + 1);
            (greatest, here)
        })
    }
}

/// What the sessions of one shard have counted.
#[repr(align(128))]
struct Shard {
    answers: [[AtomicU64; Answered::COUNT]; RequestKind::COUNT],
    /// By kind, in microseconds.
    latencies: [Histogram; RequestKind::COUNT],
}

/// Everything that is counted.
pub(crate) struct Metrics {
    shards: Box<[Shard]>,
    /// Connections that got a place.
    connections: AtomicU64,
    /// Connections that were told why they get no session.
    refused: [AtomicU64; Answered::COUNT],
    /// Connections on which no handshake of TLS was made.
    tls_failed: AtomicU64,
    /// Journal rows in each commit.
    pub(crate) commit_rows: Histogram,
    /// Microseconds of each commit.
    pub(crate) commit_time: Histogram,
    /// Microseconds of each commit that went to having it on disk.
    pub(crate) sync_time: Histogram,
}

/// Requests that are answered together.
#[derive(Default)]
pub(crate) struct Batch {
    began: Option<Instant>,
    kinds: [u16; RequestKind::COUNT],
    last: Option<RequestKind>,
}

impl Batch {
    /// Takes a request in; the first one begins the time of all.
    pub(crate) fn add(&mut self, kind: RequestKind) {
        self.began.get_or_insert_with(Instant::now);
        let count = &mut self.kinds[usize::from(kind.0)];
        *count = count.saturating_add(1);
        self.last = Some(kind);
    }
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let shard = |_| Shard {
            answers: [const { [const { AtomicU64::new(0) }; Answered::COUNT] }; RequestKind::COUNT],
            latencies: std::array::from_fn(|_| Histogram::new()),
        };
        Metrics {
            shards: (0..METRIC_SHARDS).map(shard).collect(),
            connections: AtomicU64::new(0),
            refused: [const { AtomicU64::new(0) }; Answered::COUNT],
            tls_failed: AtomicU64::new(0),
            commit_rows: Histogram::new(),
            commit_time: Histogram::new(),
            sync_time: Histogram::new(),
        }
    }

    fn shard(&self, session: u64) -> &Shard {
        &self.shards[session as usize % self.shards.len()]
    }

    /// Counts what became of a session's request.
    pub(crate) fn answered(&self, session: u64, kind: RequestKind, answered: Answered) {
        self.shard(session).answers[usize::from(kind.0)][answered.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts how long a session's requests took, which were answered now, and empties the batch. Gives the last of them and
    /// when they began, if there were any.
    pub(crate) fn took(&self, session: u64, batch: &mut Batch) -> Option<(RequestKind, Instant)> {
        let (last, began) = batch.last.take().zip(batch.began.take())?;
        let took = began.elapsed();
        let latencies = &self.shard(session).latencies;
        for (count, latency) in batch.kinds.iter_mut().zip(latencies) {
            if *count > 0 {
                latency.add_duration(took, u64::from(std::mem::take(count)));
            }
        }
        Some((last, began))
    }

    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self, code: ErrorCode) {
        self.refused[Answered::code(code).index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn tls_failed(&self) {
        self.tls_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn committed(&self, commit: Commit) {
        self.commit_rows.add(commit.rows as u64, 1);
        self.commit_time.add_duration(commit.took, 1);
        self.sync_time.add_duration(commit.sync, 1);
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// How many connections were refused, by the name of the reason.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let by_code = Answered::all().map(|why| {
            let refused = self.refused[why.index()].load(Ordering::Relaxed);
            (why.names().1, refused)
        });
        by_code
            .filter(|&(_, refused)| refused > 0)
            .chain([("tls_failed", self.tls_failed.load(Ordering::Relaxed))])
    }

    /// What became of the requests of a kind.
    pub(crate) fn answers(&self, kind: RequestKind) -> impl Iterator<Item = (Answered, u64)> {
        Answered::all().map(move |answered| {
            let counts = self
                .shards
                .iter()
                .map(|shard| &shard.answers[usize::from(kind.0)][answered.index()]);
            (answered, counts.map(|count| count.load(Ordering::Relaxed)).sum())
        })
    }

    /// How many logins were refused, by the name of the reason. Whether a card is unknown or blocked or the PIN wrong is one
    /// reason, and told apart nowhere.
    pub(crate) fn refused_logins(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ErrorCode::LoginRefused,
            ErrorCode::TooManyFailures,
            ErrorCode::Busy,
        ]
        .map(|code| {
            let (answered, login) = (Answered::code(code), RequestKind(1));
            let refused = self.answers(login).find(|&(other, _)| other == answered);
            (code.name(), refused.map_or(0, |(_, count)| count))
        })
        .into_iter()
    }

    /// How long requests took, of those kinds that are asked for.
    pub(crate) fn latencies(&self, wanted: impl Fn(RequestKind) -> bool) -> Counts {
        let mut counts = Counts::zero();
        for shard in &self.shards {
            for kind in RequestKind::all().filter(|&kind| wanted(kind)) {
                counts.add(&shard.latencies[usize::from(kind.0)]);
            }
        }
        counts
    }

    /// A histogram of the commits as it is now.
    pub(crate) fn look(&self, histogram: impl Fn(&Metrics) -> &Histogram) -> Counts {
        Counts::of(histogram(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_its_place() {
        let mut last = 0;
        for value in (0..5000).chain((13..70).map(|log| 1_u64.checked_shl(log).unwrap_or(u64::MAX) - 1)) {
            let place = Histogram::place(value);
            assert!(place == last || place == last + 1 || value > 4096, "{value}");
            assert!(Histogram::least(place) <= value, "{value}");
            assert!(
                place + 1 == Histogram::PLACES || value < Histogram::least(place + 1),
                "{value}"
            );
            last = place;
        }
        assert_eq!(Histogram::place(u64::MAX), Histogram::PLACES - 1);
    }

    #[test]
    fn percentiles_and_doublings_are_of_what_was_counted() {
        let histogram = Histogram::new();
        assert_eq!(Counts::of(&histogram).percentile(0.5), None);
        (1..=100).for_each(|value| histogram.add(value, 1));
        let before = Counts::of(&histogram);
        assert_eq!((before.count(), before.sum), (100, 5050));
        assert_eq!(before.percentile(0.5), Some(55));
        assert_eq!(before.percentile(0.99), Some(111));
        assert_eq!(before.percentile(0.01), Some(1));
        let doublings: Vec<_> = before.doublings(1).take(7).collect();
        let expected = [(1, 1), (3, 2), (7, 4), (15, 8), (31, 16), (63, 32), (127, 37)];
        assert_eq!(
            doublings,
            expected.map(|(greatest, count)| (Some(greatest), count))
        );
        assert_eq!(before.doublings(6).map(|(_, count)| count).sum::<u64>(), 100);
        assert_eq!(before.doublings(1).last(), Some((None, 0)));
        histogram.add(1 << 40, 3);
        let since = Counts::of(&histogram).since(&before);
        assert_eq!((since.count(), since.doublings(1).last()), (3, Some((None, 3))));
    }

    #[test]
    fn requests_are_counted_whatever_their_session() {
        let metrics = Metrics::new();
        let (deposit, login) = (RequestKind(4), RequestKind(1));
        let declined = Answered::code(ErrorCode::InsufficientFunds);
        for session in 0..100 {
            metrics.answered(session, deposit, Answered::Done);
            metrics.answered(session, deposit, declined);
            metrics.answered(session, login, Answered::code(ErrorCode::LoginRefused));
            let mut batch = Batch::default();
            assert!(metrics.took(session, &mut batch).is_none());
            batch.add(login);
            batch.add(deposit);
            batch.add(deposit);
            assert_eq!(
                metrics.took(session, &mut batch).map(|(last, _)| last),
                Some(deposit)
            );
            assert!(metrics.took(session, &mut batch).is_none(), "it is empty now");
        }
        let counted: Vec<_> = metrics.answers(deposit).filter(|&(_, count)| count > 0).collect();
        assert_eq!(counted, [(Answered::Done, 100), (declined, 100)]);
        assert_eq!(declined.names(), ("declined", "insufficient_funds"));
        assert_eq!(metrics.refused_logins().next(), Some(("login_refused", 100)));
        assert_eq!(metrics.latencies(|_| true).count(), 300);
        assert_eq!(metrics.latencies(RequestKind::is_transaction).count(), 200);
    }
}
