//! The stress harness: load on a server, what it took, and whether the money is all there.

use std::time::Duration;

mod arrivals;
pub mod bench;
pub mod check;
mod commit_loop;
pub mod echo;
pub mod load;
pub mod peers;
mod plot;
mod recorder;
mod rounds;
pub mod run;
pub mod scale;
pub mod torture;

/// Reads a command line's seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|&duration| duration <= Duration::from_hours(24 * 365))
        .ok_or_else(|| "not a number of seconds from 0 to a year's".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_a_positive_number() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["", "x", "-1", "nan", "1e99"] {
            assert!(seconds(bad).is_err(), "{bad:?}");
        }
    }
}
