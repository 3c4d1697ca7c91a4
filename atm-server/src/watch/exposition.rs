//! The figures as Prometheus reads them (OpenMetrics' text format).

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::{Books, Watch};
use crate::metrics::{Counts, RequestKind};

/// The media type of what [`tell`] gives.
pub(super) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Times below 2^6 microseconds are one bucket.
const LEAST_TIME_LOG: u32 = 6;

/// All figures, as of now.
pub(super) fn tell(watch: &Arc<Watch>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Figures(Arc::clone(watch))));
    let mut told = String::new();
    text::encode(&mut told, &registry).expect("a string takes whatever is written");
    told
}

struct Figures(Arc<Watch>);

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Figures")
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let watch = &self.0;
        let (journal, metrics) = (watch.bank.journal(), watch.atm.metrics());
        let mut gauge = |name, help, value: u64| {
            let mut gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            gauge.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))
        };
        let (appended, durable) = (journal.appended_lsn().get(), journal.durable_lsn().get());
        gauge(
            "process_start_time_seconds",
            "When the server was started, in seconds since 1970",
            watch.started.millis().unsigned_abs() / 1000,
        )?;
        gauge(
            "atm_ready",
            "1 if terminals are served, 0 if not",
            watch.ready().is_ok().into(),
        )?;
        gauge(
            "atm_accounts",
            "Accounts of the bank",
            watch.bank.account_count() as u64,
        )?;
        gauge(
            "atm_sessions",
            "Terminals that are connected",
            watch.atm.sessions().count() as u64,
        )?;
        gauge(
            "atm_pin_checks",
            "Logins and changes of PINs that are being looked at, or wait for it",
            watch.atm.pin_checks() as u64,
        )?;
        gauge(
            "atm_journal_queue_entries",
            "Entries that wait for the journal's thread to take them",
            journal.queued() as u64,
        )?;
        gauge("atm_journal_appended_lsn", "The journal's newest row", appended)?;
        gauge(
            "atm_journal_durable_lsn",
            "The journal's newest row that is on disk",
            durable,
        )?;
        gauge(
            "atm_journal_lag_rows",
            "Rows of the journal that are not on disk yet",
            appended.saturating_sub(durable),
        )?;
        {
            let seen = watch.seen();
            if let Some(check) = &seen.books {
                if let Ok(balance) = &check.result {
                    gauge(
                        "atm_books_checked_lsn",
                        "The row as of which all accounts were added up last",
                        balance.lsn.get(),
                    )?;
                }
                if check.state() != Books::Unknown {
                    gauge(
                        "atm_books_balanced",
                        "1 if all accounts add up to zero in each currency, 0 if not; absent if that is not known",
                        (check.state() == Books::Balanced).into(),
                    )?;
                }
            }
        }
        encoder
            .encode_descriptor("atm_build", "The server's version", None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        encoder
            .encode_descriptor(
                "atm_connections",
                "Connections that got a place",
                None,
                MetricType::Counter,
            )?
            .encode_counter::<NoLabelSet, u64, u64>(&metrics.connections(), None)?;
        let mut refused = encoder.encode_descriptor(
            "atm_connections_refused",
            "Connections that got no session, by reason",
            None,
            MetricType::Counter,
        )?;
        for (reason, count) in metrics.refusals() {
            count_one(&mut refused, &[("reason", reason)], count)?;
        }
        let mut refused = encoder.encode_descriptor("atm_logins_refused", "Logins that were refused, by reason; an unknown card, a blocked one and a wrong PIN are one reason", None, MetricType::Counter)?;
        for (reason, count) in metrics.refused_logins() {
            count_one(&mut refused, &[("reason", reason)], count)?;
        }
        let mut requests = encoder.encode_descriptor(
            "atm_requests",
            "Requests by kind, outcome (done, declined, error) and code",
            None,
            MetricType::Counter,
        )?;
        for kind in RequestKind::all() {
            for (answered, count) in metrics.answers(kind) {
                let (outcome, code) = answered.names();
                // Those of each kind that are done are there from the beginning.
                if count > 0 || outcome == "done" {
                    let labels = [("kind", kind.name()), ("outcome", outcome), ("code", code)];
                    count_one(&mut requests, &labels, count)?;
                }
            }
        }
        let help = "From a request's being read to its reply's being written, which is after its row is on disk, by kind";
        let mut latencies = encoder.encode_descriptor(
            "atm_request_duration",
            help,
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for kind in RequestKind::all() {
            let counts = metrics.latencies(|other| other == kind);
            times(&mut latencies.encode_family(&[("kind", kind.name())])?, &counts)?;
        }
        let help = "From a group of journal entries' being taken to its being on disk";
        times(
            &mut encoder.encode_descriptor(
                "atm_commit_duration",
                help,
                Some(&Unit::Seconds),
                MetricType::Histogram,
            )?,
            &metrics.look(|metrics| &metrics.commit_time),
        )?;
        let help = "The part of a commit that writes and syncs SQLite's log";
        times(
            &mut encoder.encode_descriptor(
                "atm_commit_sync",
                help,
                Some(&Unit::Seconds),
                MetricType::Histogram,
            )?,
            &metrics.look(|metrics| &metrics.sync_time),
        )?;
        let rows = metrics.look(|metrics| &metrics.commit_rows);
        let buckets = rows
            .doublings(1)
            .map(|(greatest, count)| (greatest.map_or(f64::INFINITY, |rows| rows as f64), count));
        let buckets: Vec<_> = buckets.collect();
        encoder
            .encode_descriptor(
                "atm_commit_rows",
                "Journal rows in one commit",
                None,
                MetricType::Histogram,
            )?
            .encode_histogram::<NoLabelSet>(rows.sum as f64, rows.count(), &buckets, None)
    }
}

fn count_one<const N: usize>(
    family: &mut MetricEncoder<'_>,
    labels: &[(&str, &str); N],
    count: u64,
) -> fmt::Result {
    family
        .encode_family(labels)?
        .encode_counter::<NoLabelSet, u64, u64>(&count, None)
}

/// A histogram of microseconds, in seconds. Parts of a microsecond were dropped, so what is at most 63 is less than 64.
fn times(histogram: &mut MetricEncoder<'_>, micros: &Counts) -> fmt::Result {
    let seconds = |micros: u64| micros as f64 / 1e6;
    let buckets = micros.doublings(LEAST_TIME_LOG).map(|(greatest, count)| {
        (
            greatest.map_or(f64::INFINITY, |micros| seconds(micros + 1)),
            count,
        )
    });
    let buckets: Vec<_> = buckets.collect();
    histogram.encode_histogram::<NoLabelSet>(seconds(micros.sum), micros.count(), &buckets, None)
}
