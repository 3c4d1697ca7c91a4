//! The stress harness: load on a server, what it took, and whether the money is all there.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

mod arrivals;
pub mod attack;
pub mod bench;
pub mod check;
mod commit_loop;
pub mod echo;
pub mod fuzz;
pub mod load;
pub mod peers;
mod plot;
mod recorder;
mod rounds;
pub mod run;
pub mod scale;
pub mod torture;

/// What goes wrong is told, whatever thread it went wrong on.
type Failure = Box<dyn Error + Send + Sync>;

/// Measures, and writes the figures to a file if one is named.
fn with_figures(
    json: Option<&Path>,
    measure: impl FnOnce() -> Result<Value, Failure>,
) -> Result<(), Box<dyn Error>> {
    // Minutes of measuring should not end with a file that cannot be written.
    let named = |path: &Path, error| format!("{}: {error}", path.display());
    let file = match json {
        Some(path) => Some((path, File::create(path).map_err(|error| named(path, error))?)),
        None => None,
    };
    let figures = measure().map_err(|failure| failure as Box<dyn Error>)?;
    if let Some((path, mut file)) = file {
        writeln!(file, "{figures}").map_err(|error| named(path, error))?;
    }
    Ok(())
}

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
