//! What alternating rounds gave: the least, the middle and the greatest.

use std::fmt;

use serde_json::{Value, json};

/// A figure that was taken in several rounds of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct OverRounds {
    /// The least.
    pub(super) min: f64,
    /// The one in the middle, or the mean of the two that are.
    pub(super) median: f64,
    /// The greatest.
    pub(super) max: f64,
}

impl OverRounds {
    /// Of at least one value.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> OverRounds {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        OverRounds {
            min: sorted[0],
            median: f64::midpoint(sorted[(n - 1) / 2], sorted[n / 2]),
            max: sorted[n - 1],
        }
    }

    /// Of the quotients of pairs that were measured in one round.
    pub(super) fn of_ratios<'a>(pairs: impl IntoIterator<Item = &'a (f64, f64)>) -> OverRounds {
        OverRounds::of(pairs.into_iter().map(|(of, beside)| of / beside))
    }

    pub(super) fn to_json(self) -> Value {
        json!({ "min": self.min, "median": self.median, "max": self.max })
    }
}

/// As a ratio.
impl fmt::Display for OverRounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OverRounds { min, median, max } = self;
        f.pad(&format!("{median:.2} ({min:.2}\u{2013}{max:.2})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let odd = OverRounds::of_ratios(&[(1.0, 2.0), (9.0, 10.0), (1.0, 4.0)]);
        assert_eq!(odd.to_string(), "0.50 (0.25\u{2013}0.90)");
        assert_eq!(OverRounds::of([4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(
            format!("{:<18}|", OverRounds::of([1.0])),
            "1.00 (1.00\u{2013}1.00)  |"
        );
    }
}
