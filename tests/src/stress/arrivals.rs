//! When the requests of an open loop are due, and a timer that wakes then.
//!
//! The arrivals of a connection are a Poisson process: customers do not agree with each other, so the gaps between them are
//! exponential, and those of all connections together are again Poisson. A constant pace would spare a server the bursts that
//! it meets in life, and may fall into step with a rhythm of the server's own. A seed fixes the arrivals, so that two servers can be
//! measured under the very same ones.

use std::io;
use std::time::{Duration, Instant};

use rand::distr::Distribution;
use rand::{SeedableRng, rngs::StdRng};
use rand_distr::Exp;

/// The times at which one connection's requests are due, from its beginning on. It never ends.
pub(super) struct Arrivals {
    gaps: Exp<f64>,
    random: StdRng,
    next: Duration,
}

impl Arrivals {
    /// So many a second, in the mean.
    ///
    /// # Panics
    /// If `per_second` is not a number above 0.
    pub(super) fn new(per_second: f64, seed: u64) -> Arrivals {
        let mut arrivals = Arrivals {
            gaps: Exp::new(per_second).expect("a rate is a number above 0"),
            random: StdRng::seed_from_u64(seed),
            next: Duration::ZERO,
        };
        arrivals.advance();
        arrivals
    }

    /// When the next request is due.
    pub(super) fn next(&self) -> Duration {
        self.next
    }

    /// Goes on to the one after it.
    pub(super) fn advance(&mut self) {
        const LONGEST_GAP: f64 = 1e9;
        self.next += Duration::from_secs_f64(self.gaps.sample(&mut self.random).min(LONGEST_GAP));
    }
}

/// Wakes within microseconds of a time. The runtime's own timers wake at whole milliseconds, which is longer than most answers take.
#[cfg(target_os = "linux")]
pub(super) struct Timer {
    timer: tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>,
    set_to: Option<Instant>,
}

#[cfg(target_os = "linux")]
impl Timer {
    #[allow(unsafe_code)]
    pub(super) fn new() -> io::Result<Timer> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        use tokio::io::{Interest, unix::AsyncFd};
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        // SAFETY: an `OwnedFd` that nobody else has stays open, and the same, for as long as it lives.
        let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?;
        Ok(Timer { timer, set_to: None })
    }

    /// Waits until then; it may wake earlier. Given up and called again with the same time, it goes on waiting.
    pub(super) async fn wait_until(&mut self, time: Instant) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        if self.set_to != Some(time) {
            // Zero would switch it off.
            let wait = time
                .saturating_duration_since(Instant::now())
                .max(Duration::from_nanos(1));
            let once = Itimerspec {
                it_interval: Timespec::default(),
                it_value: Timespec {
                    tv_sec: wait.as_secs() as i64,
                    tv_nsec: wait.subsec_nanos().into(),
                },
            };
            timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
            self.set_to = Some(time);
        }
        // It need not be read: setting it again takes back that it has run out.
        self.timer.readable().await?.clear_ready();
        Ok(())
    }
}

/// Elsewhere there are only the runtime's timers, with their milliseconds.
#[cfg(not(target_os = "linux"))]
pub(super) struct Timer;

#[cfg(not(target_os = "linux"))]
impl Timer {
    pub(super) fn new() -> io::Result<Timer> {
        Ok(Timer)
    }

    pub(super) async fn wait_until(&mut self, time: Instant) -> io::Result<()> {
        tokio::time::sleep_until(time.into()).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(count: usize, seed: u64) -> Vec<Duration> {
        let mut arrivals = Arrivals::new(1000.0, seed);
        (0..count)
            .map(|_| {
                let next = arrivals.next();
                arrivals.advance();
                next
            })
            .collect()
    }

    /// For exponential gaps the deviation is the mean; a constant pace would have none.
    #[test]
    fn arrivals_are_a_poisson_process_that_a_seed_fixes() {
        let times = first(100_000, 7);
        assert_eq!(times[..100], first(100, 7));
        assert_ne!(times[..100], first(100, 8));
        let gaps: Vec<f64> = times
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_secs_f64())
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean - 0.001).abs() < 0.000_02, "mean gap {mean} s");
        assert!(
            (variance.sqrt() - mean).abs() < 0.000_02,
            "deviation {} s",
            variance.sqrt()
        );
    }

    #[tokio::test]
    async fn a_timer_wakes_not_before_its_time_even_if_it_was_given_up_meanwhile() {
        let mut timer = Timer::new().unwrap();
        let soon = Instant::now() + Duration::from_millis(5);
        tokio::select! {
            biased;
            woken = timer.wait_until(soon) => panic!("woken early: {woken:?}"),
            () = std::future::ready(()) => {}
        }
        for time in [soon, soon + Duration::from_millis(1), soon] {
            while Instant::now() < time {
                timer.wait_until(time).await.unwrap();
            }
        }
    }
}
