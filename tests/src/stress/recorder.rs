//! Where the connections of a load put what they measure, and from where it is looked at while they work.
//!
//! There is one place a worker thread, so that two connections do not write to the same memory at the same time, and so that the
//! histogram that is written to stays in the processor's cache. (One a connection would be 200 KiB each.) Whoever looks
//! exchanges a place's histograms for empty ones, and adds them up while the threads go on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

/// What was measured in some stretch of time.
#[derive(Debug)]
pub(super) struct Recorded {
    /// From the intended time of a request to its answer, in nanoseconds; of those that count.
    pub latency: Histogram<u64>,
    /// From the intended time of a request to its sending, in nanoseconds; of those that count, in an open loop.
    pub lateness: Histogram<u64>,
    /// Answers in the warm-up.
    pub uncounted: u64,
}

impl Recorded {
    pub(super) fn new() -> Recorded {
        Recorded {
            latency: new_histogram(),
            lateness: new_histogram(),
            uncounted: 0,
        }
    }

    pub(super) fn add(&mut self, other: &Recorded) {
        const ONE_RANGE: &str = "all histograms have one range";
        self.latency.add(&other.latency).expect(ONE_RANGE);
        self.lateness.add(&other.lateness).expect(ONE_RANGE);
        self.uncounted += other.uncounted;
    }

    pub(super) fn clear(&mut self) {
        self.latency.reset();
        self.lateness.reset();
        self.uncounted = 0;
    }

    /// All answers.
    pub(super) fn answers(&self) -> u64 {
        self.latency.len() + self.uncounted
    }
}

/// From a nanosecond to a minute, to three digits; what is longer counts as a minute.
fn new_histogram() -> Histogram<u64> {
    const LONGEST: Duration = Duration::from_mins(1);
    Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, 3).expect("a minute in nanoseconds is a range")
}

/// One thread's place. Aligned so that no two share a cache line.
#[repr(align(128))]
struct Place(Mutex<Recorded>);

/// See the module.
pub(super) struct Recorder(Vec<Place>);

impl Recorder {
    pub(super) fn new() -> Recorder {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Recorder((0..threads).map(|_| Place(Mutex::new(Recorded::new()))).collect())
    }

    /// Records in this thread's place.
    pub(super) fn record(&self, record: impl FnOnce(&mut Recorded)) {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed);
        }
        let place = &self.0[THREAD.with(|thread| *thread) % self.0.len()];
        record(&mut place.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Moves what was recorded since the last time into `sum`. `spare` is for the exchange, and is empty before and after.
    pub(super) fn take(&self, sum: &mut Recorded, spare: &mut Recorded) {
        for place in &self.0 {
            std::mem::swap(
                &mut *place.0.lock().unwrap_or_else(PoisonError::into_inner),
                spare,
            );
            sum.add(spare);
            spare.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_record_is_taken_once_and_whole() {
        let recorder = Recorder::new();
        let (mut sum, mut spare) = (Recorded::new(), Recorded::new());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for latency in 0..10_000 {
                        recorder.record(|place| place.latency.saturating_record(latency));
                    }
                });
            }
            for _ in 0..10 {
                recorder.take(&mut sum, &mut spare);
            }
        });
        recorder.take(&mut sum, &mut spare);
        assert_eq!((sum.answers(), spare.answers()), (40_000, 0));
        recorder.take(&mut sum, &mut spare);
        assert_eq!(sum.answers(), 40_000);
    }
}
