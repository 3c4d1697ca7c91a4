//! Watching the server: what its operators, and programs of theirs, may see of it by HTTP.
//!
//! `http` answers requests, `exposition` is for Prometheus, `status` for the operator's page, which is three files beside
//! this one. None of it says anything of a customer: no account, holder, card or balance, only sums and counts.
//!
//! The server looks at the counters once a second and remembers the last minutes, so that whoever opens the page sees them at
//! once; and every so often it adds up all accounts.

mod exposition;
pub(crate) mod http;
mod status;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bank_core::limits::{BOOKS_CHECK_INTERVAL, BOOKS_CHECK_REST, WATCH_INTERVAL, WATCH_SAMPLES};
use bank_core::trial_balance::{TrialBalance, TrialBalanceError};
use bank_core::{Bank, Moment, Timestamp};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::atm_handler::AtmHandler;
use crate::metrics::{Counts, RequestKind};

/// Where the server may be watched, and by which names.
#[derive(Debug)]
pub struct WatchListener {
    /// Where requests come in.
    pub listener: TcpListener,
    /// The names, besides addresses and `localhost`, by which browsers and Prometheus call this server. Whoever uses another
    /// one was led here by a stranger's web page.
    pub hosts: Vec<String>,
}

/// What there is to be seen of a running server.
pub(crate) struct Watch {
    bank: Arc<Bank>,
    atm: Arc<AtmHandler>,
    started: Timestamp,
    /// Cancelled when the server begins to end.
    stopping: CancellationToken,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    samples: VecDeque<Sample>,
    books: Option<BooksCheck>,
}

/// One second of the server's life.
#[derive(Clone, Copy)]
struct Sample {
    /// When it ended.
    time: Timestamp,
    requests: u64,
    /// Microseconds of customers' transactions.
    p50: Option<u64>,
    p99: Option<u64>,
    commits: u64,
    /// Journal rows of them.
    rows: u64,
    /// Microseconds of having a commit on disk.
    sync_p99: Option<u64>,
}

/// What adding up the accounts gave.
struct BooksCheck {
    /// When that was.
    time: Timestamp,
    /// When the next one should be there. After that it says nothing of the present.
    good_until: Instant,
    result: Result<TrialBalance, TrialBalanceError>,
}

/// What is known of the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Books {
    Balanced,
    Unbalanced,
    Unknown,
}

/// The counters at some instant.
struct Look {
    requests: u64,
    latencies: Counts,
    rows: Counts,
    sync: Counts,
}

impl Watch {
    pub(crate) fn new(bank: Arc<Bank>, atm: Arc<AtmHandler>, stopping: CancellationToken) -> Watch {
        Watch {
            bank,
            atm,
            started: Moment::now().time,
            stopping,
            seen: Mutex::default(),
        }
    }

    /// Whether terminals are served.
    ///
    /// # Errors
    /// Why they are not.
    fn ready(&self) -> Result<(), String> {
        if self.stopping.is_cancelled() {
            return Err("the server is shutting down".to_owned());
        }
        self.bank
            .journal()
            .check_open()
            .map_err(|error| error.to_string())
    }

    /// Looks at the counters once in each interval, for ever.
    pub(crate) async fn remember(&self) {
        let mut ticks = interval(WATCH_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before = self.look();
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let now = self.look();
            let sample = now.since(&before);
            let mut seen = self.seen();
            if seen.samples.len() == WATCH_SAMPLES {
                seen.samples.pop_front();
            }
            seen.samples.push_back(sample);
            before = now;
        }
    }

    fn look(&self) -> Look {
        let metrics = self.atm.metrics();
        let latencies = metrics.latencies(RequestKind::is_transaction);
        Look {
            requests: metrics.latencies(|_| true).count(),
            latencies,
            rows: metrics.look(|metrics| &metrics.commit_rows),
            sync: metrics.look(|metrics| &metrics.sync_time),
        }
    }

    /// Adds up all accounts from time to time, for ever; at most a twentieth of the time, however large the bank.
    pub(crate) async fn check_books(&self) {
        loop {
            let begun = Instant::now();
            let bank = Arc::clone(&self.bank);
            let Ok(result) = spawn_blocking(move || bank.trial_balance()).await else {
                return;
            };
            let took = begun.elapsed();
            let rest = BOOKS_CHECK_INTERVAL.max(took * BOOKS_CHECK_REST);
            self.keep(result, rest + 2 * took + BOOKS_CHECK_INTERVAL);
            sleep(rest).await;
        }
    }

    fn keep(&self, result: Result<TrialBalance, TrialBalanceError>, good_for: Duration) {
        match &result {
            Ok(balance) => {
                for (currency, difference) in balance.differences() {
                    tracing::error!(%currency, difference, lsn = %balance.lsn, "the books do not balance");
                }
            }
            Err(error) => tracing::warn!(%error, "the books could not be added up"),
        }
        self.seen().books = Some(BooksCheck {
            time: Moment::now().time,
            good_until: Instant::now() + good_for,
            result,
        });
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Nothing that is done with it can leave it half done.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BooksCheck {
    fn state(&self) -> Books {
        match &self.result {
            Ok(balance) if balance.differences().next().is_some() => Books::Unbalanced,
            Ok(_) if Instant::now() < self.good_until => Books::Balanced,
            Ok(_) | Err(_) => Books::Unknown,
        }
    }
}

impl Look {
    fn since(&self, before: &Look) -> Sample {
        let latencies = self.latencies.since(&before.latencies);
        let rows = self.rows.since(&before.rows);
        Sample {
            time: Moment::now().time,
            requests: self.requests - before.requests,
            p50: latencies.percentile(0.5),
            p99: latencies.percentile(0.99),
            commits: rows.count(),
            rows: rows.sum,
            sync_p99: self.sync.since(&before.sync).percentile(0.99),
        }
    }
}
