//! The dispenser: a terminal's cassettes, and which notes make an amount.
//!
//! Pure arithmetic. Whether notes really move, and what is written down before and after, is the business of
//! others. All notes of a terminal are of one currency.

use std::fmt;

use bank_core::limits::{MAX_CASSETTE_NOTES, MAX_CASSETTES, MAX_DENOMINATION_UNITS, MAX_NOTES_PER_DISPENSE};
use bank_core::money::MoneyError;
use bank_core::{Amount, Currency, Money};

/// One cassette.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cassette {
    /// What each of its notes is worth.
    pub denomination: Amount,
    /// How many are in it, at most [`MAX_CASSETTE_NOTES`].
    pub notes: u32,
}

/// The cassettes of a terminal, the highest denomination first, and no denomination twice.
///
/// `Display` writes what [`Cassettes::parse`] reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cassettes {
    currency: Currency,
    cassettes: Vec<Cassette>,
}

/// Why cassettes are not as they should be, or notes do not fit them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CassetteError {
    /// The text is not `denomination x notes`.
    #[error("\"{0}\" is no cassette: write the denomination, an x and the number of notes, such as 50x200")]
    Malformed(String),
    /// The denomination is no sum.
    #[error(transparent)]
    Money(#[from] MoneyError),
    /// There must be a cassette.
    #[error("a terminal has at least one cassette: write such as 50x200,20x500")]
    None,
    /// More cassettes than a terminal has.
    #[error("a terminal has at most {MAX_CASSETTES} cassettes, and these are {0}")]
    TooMany(usize),
    /// Two cassettes of one denomination.
    #[error("there are two cassettes of {0}: add up their notes")]
    Duplicate(String),
    /// Denominations that no terminal has side by side.
    #[error("the denominations are too far apart for one terminal: leave out the smallest or the largest")]
    TooFarApart,
    /// More money than can be counted.
    #[error("the denominations are so large that full cassettes would hold more money than can be counted")]
    TooValuable,
    /// More notes than a cassette holds.
    #[error("a cassette holds at most {MAX_CASSETTE_NOTES} notes, and here are {0}")]
    Overfull(u64),
    /// More notes are to be taken than there are.
    #[error("the cassette of {denomination} has {on_hand} notes, not {wanted}: count it")]
    NotEnough {
        /// The cassette.
        denomination: String,
        /// How many it has.
        on_hand: u32,
        /// How many are to be taken.
        wanted: u32,
    },
    /// Counts for other cassettes than these.
    #[error("there are {found} counts for {cassettes} cassettes: give one for each, the highest first")]
    Misaligned {
        /// Counts.
        found: usize,
        /// Cassettes.
        cassettes: usize,
    },
}

/// How many notes of each cassette, in the order of the terminal's cassettes. The default is of no cassette at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes(Vec<u32>);

impl Notes {
    /// These counts.
    ///
    /// # Errors
    /// If they are more than a terminal's cassettes, or one is more than a cassette holds.
    pub fn new(counts: Vec<u32>) -> Result<Notes, CassetteError> {
        if counts.len() > MAX_CASSETTES {
            return Err(CassetteError::TooMany(counts.len()));
        }
        match counts.iter().find(|&&count| count > MAX_CASSETTE_NOTES) {
            Some(&count) => Err(CassetteError::Overfull(count.into())),
            None => Ok(Notes(counts)),
        }
    }

    /// The count of each cassette.
    pub fn counts(&self) -> &[u32] {
        &self.0
    }

    /// All notes together.
    pub fn number(&self) -> u32 {
        self.0.iter().sum()
    }

    /// Of each cassette these notes, but no more than the others.
    pub fn at_most(&self, others: &Notes) -> Notes {
        let pairs = self.0.iter().zip(&others.0);
        Notes(pairs.map(|(&these, &others)| these.min(others)).collect())
    }

    /// These notes without the others, or `None` if the others are not among them.
    pub fn without(&self, others: &Notes) -> Option<Notes> {
        if self.0.len() != others.0.len() {
            return None;
        }
        let pairs = self.0.iter().zip(&others.0);
        pairs
            .map(|(&these, &others)| these.checked_sub(others))
            .collect::<Option<_>>()
            .map(Notes)
    }
}

/// An amount that cannot be paid, and the nearest that can: less, and more. `None` where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpayable {
    /// The largest payable amount that is smaller.
    pub below: Option<Amount>,
    /// The smallest payable amount that is larger.
    pub above: Option<Amount>,
}

impl Cassettes {
    /// These cassettes, in whatever order they come.
    ///
    /// # Errors
    /// [`CassetteError`] says which bound they pass.
    pub fn new(currency: Currency, mut cassettes: Vec<Cassette>) -> Result<Cassettes, CassetteError> {
        if cassettes.is_empty() {
            return Err(CassetteError::None);
        }
        if cassettes.len() > MAX_CASSETTES {
            return Err(CassetteError::TooMany(cassettes.len()));
        }
        cassettes.sort_by_key(|cassette| std::cmp::Reverse(cassette.denomination));
        for pair in cassettes.windows(2) {
            if pair[0].denomination == pair[1].denomination {
                return Err(CassetteError::Duplicate(denomination_text(
                    currency,
                    pair[0].denomination,
                )));
            }
        }
        if let Some(overfull) = cassettes
            .iter()
            .find(|cassette| cassette.notes > MAX_CASSETTE_NOTES)
        {
            return Err(CassetteError::Overfull(overfull.notes.into()));
        }
        // Checked for full cassettes, so that no sum of notes that fit them can ever overflow.
        cassettes
            .iter()
            .try_fold(0i64, |sum, cassette| {
                let full = cassette
                    .denomination
                    .minor()
                    .checked_mul(MAX_CASSETTE_NOTES.into())?;
                sum.checked_add(full)
            })
            .ok_or(CassetteError::TooValuable)?;
        let cassettes = Cassettes { currency, cassettes };
        if cassettes.units(cassettes.cassettes[0]) > MAX_DENOMINATION_UNITS {
            return Err(CassetteError::TooFarApart);
        }
        Ok(cassettes)
    }

    /// Reads cassettes as people write them: `50x200,20x500,10x500`, denominations in major units.
    ///
    /// # Errors
    /// [`CassetteError`] says what is wrong with `text`.
    pub fn parse(text: &str, currency: Currency) -> Result<Cassettes, CassetteError> {
        if text.is_empty() {
            return Err(CassetteError::None);
        }
        let cassette = |part: &str| {
            let malformed = || CassetteError::Malformed(part.to_owned());
            let (denomination, notes) = part.split_once('x').ok_or_else(malformed)?;
            if notes.is_empty() || !notes.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(malformed());
            }
            Ok(Cassette {
                denomination: currency.parse_amount(denomination)?,
                notes: notes.parse().map_err(|_| CassetteError::Overfull(u64::MAX))?,
            })
        };
        let cassettes: Result<_, CassetteError> = text.split(',').map(cassette).collect();
        Cassettes::new(currency, cassettes?)
    }

    /// The currency of all notes.
    pub fn currency(&self) -> Currency {
        self.currency
    }

    /// Whether these are cassettes of the same notes, however many are in them.
    pub fn has_denominations_of(&self, others: &Cassettes) -> bool {
        let denominations = |cassettes: &Cassettes| -> Vec<_> {
            cassettes.iter().map(|cassette| cassette.denomination).collect()
        };
        self.currency == others.currency && denominations(self) == denominations(others)
    }

    /// The cassettes, the highest denomination first.
    pub fn iter(&self) -> std::slice::Iter<'_, Cassette> {
        self.cassettes.iter()
    }

    /// All notes on hand.
    pub fn on_hand(&self) -> Notes {
        Notes(self.iter().map(|cassette| cassette.notes).collect())
    }

    /// No notes: a count of 0 for each cassette.
    pub fn no_notes(&self) -> Notes {
        Notes(vec![0; self.cassettes.len()])
    }

    /// What all notes on hand are worth.
    pub fn value(&self) -> Money {
        self.value_of(&self.on_hand())
    }

    /// What `notes` of these cassettes are worth.
    ///
    /// # Panics
    /// If they are counts for other cassettes: [`Cassettes::check`] tells.
    pub fn value_of(&self, notes: &Notes) -> Money {
        self.check(notes).expect("the notes are of these cassettes");
        let pairs = self.iter().zip(&notes.0);
        Money::from_minor(
            pairs
                .map(|(cassette, &count)| cassette.denomination.minor() * i64::from(count))
                .sum(),
        )
    }

    /// `notes` of these cassettes for people: `2 x 50, 1 x 20`.
    ///
    /// # Panics
    /// If they are counts for other cassettes: [`Cassettes::check`] tells.
    pub fn describe(&self, notes: &Notes) -> String {
        self.check(notes).expect("the notes are of these cassettes");
        let parts: Vec<_> = self
            .iter()
            .zip(&notes.0)
            .filter(|(_, count)| **count > 0)
            .map(|(cassette, count)| format!("{count} x {}", self.text_of(*cassette)))
            .collect();
        if parts.is_empty() {
            return "no notes".to_owned();
        }
        parts.join(", ")
    }

    /// Whether `notes` are counts for these cassettes.
    ///
    /// # Errors
    /// [`CassetteError::Misaligned`].
    pub fn check(&self, notes: &Notes) -> Result<(), CassetteError> {
        if notes.0.len() == self.cassettes.len() {
            Ok(())
        } else {
            Err(CassetteError::Misaligned {
                found: notes.0.len(),
                cassettes: self.cassettes.len(),
            })
        }
    }

    /// Takes notes out; all or none.
    ///
    /// # Errors
    /// [`CassetteError::NotEnough`] or [`CassetteError::Misaligned`].
    pub fn take(&mut self, notes: &Notes) -> Result<(), CassetteError> {
        self.check(notes)?;
        for (cassette, &wanted) in self.iter().zip(&notes.0) {
            if cassette.notes < wanted {
                return Err(CassetteError::NotEnough {
                    denomination: self.text_of(*cassette),
                    on_hand: cassette.notes,
                    wanted,
                });
            }
        }
        // Everything is checked: from here on nothing fails.
        for (cassette, wanted) in self.cassettes.iter_mut().zip(&notes.0) {
            cassette.notes -= wanted;
        }
        Ok(())
    }

    /// Puts notes in; all or none.
    ///
    /// # Errors
    /// [`CassetteError::Overfull`] or [`CassetteError::Misaligned`].
    pub fn put(&mut self, notes: &Notes) -> Result<(), CassetteError> {
        self.check(notes)?;
        for (cassette, &added) in self.iter().zip(&notes.0) {
            let sum = u64::from(cassette.notes) + u64::from(added);
            if sum > MAX_CASSETTE_NOTES.into() {
                return Err(CassetteError::Overfull(sum));
            }
        }
        // Everything is checked: from here on nothing fails.
        for (cassette, added) in self.cassettes.iter_mut().zip(&notes.0) {
            cassette.notes += added;
        }
        Ok(())
    }

    /// The notes that make exactly `amount`, at most [`MAX_NOTES_PER_DISPENSE`] of those on hand.
    ///
    /// They are the fewest that do. Of several mixes of so few notes, it is the one that takes from the fuller
    /// cassettes: each note counts as many points as there are cassettes with more notes than its own, and the least
    /// sum of points wins. If that is even, it is the one with more notes of the highest denomination in which they
    /// differ.
    ///
    /// # Errors
    /// [`Unpayable`] with the nearest amounts for which there are such notes.
    pub fn mix(&self, amount: Amount) -> Result<Notes, Unpayable> {
        let unit = self.unit();
        let payable = PayableSums::of(self);
        let wanted = usize::try_from(amount.minor() / unit).unwrap_or(usize::MAX);
        if amount.minor() % unit == 0
            && let Some(notes) = payable.mix(wanted)
        {
            return Ok(notes);
        }
        let amount_of = |units: usize| Amount::from_minor(units as i64 * unit);
        let (below, above) = payable.nearest(wanted);
        Err(Unpayable {
            below: below.and_then(amount_of),
            above: above.and_then(amount_of),
        })
    }

    /// The largest sum that divides all denominations, in minor units: every payable amount is a multiple of it.
    fn unit(&self) -> i64 {
        let mut divisor = 0;
        for cassette in self.iter() {
            let mut other = cassette.denomination.minor();
            while other != 0 {
                (divisor, other) = (other, divisor % other);
            }
        }
        divisor
    }

    /// What a note of the cassette is worth in units of [`Cassettes::unit`].
    fn units(&self, cassette: Cassette) -> usize {
        usize::try_from(cassette.denomination.minor() / self.unit()).unwrap_or(usize::MAX)
    }

    fn text_of(&self, cassette: Cassette) -> String {
        denomination_text(self.currency, cassette.denomination)
    }
}

impl fmt::Display for Cassettes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, cassette) in self.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{}x{}", self.text_of(*cassette), cassette.notes)?;
        }
        Ok(())
    }
}

/// A denomination as it is printed on the note: without decimals if they are all 0.
fn denomination_text(currency: Currency, denomination: Amount) -> String {
    let text = currency.format(denomination.money());
    match text.split_once('.') {
        Some((whole, decimals)) if decimals.bytes().all(|digit| digit == b'0') => whole.to_owned(),
        _ => text,
    }
}

/// What a mix costs is what is kept small: [`NOTE`] for each note, and besides the points of its cassette.
type Cost = u16;

/// The cost of a note. More than the points of all notes of a dispense, so that the number of notes decides first.
const NOTE: Cost = 512;

/// The cost of a sum that no notes make.
const IMPOSSIBLE: Cost = Cost::MAX;

const _: () = assert!(MAX_NOTES_PER_DISPENSE as usize * MAX_CASSETTES < NOTE as usize);
const _: () = assert!(MAX_NOTES_PER_DISPENSE * (NOTE as u32 + MAX_CASSETTES as u32) < IMPOSSIBLE as u32);

/// Every sum that a terminal can pay, in units, with the cheapest notes for each: a bounded knapsack by dynamic
/// programming. As no sum is above [`MAX_NOTES_PER_DISPENSE`] times the highest denomination, and that is at most
/// [`MAX_DENOMINATION_UNITS`], the table has a bound, whatever is asked for.
struct PayableSums {
    /// For each cassette: the units and the cost of a note, and how many there are.
    cassettes: Vec<(usize, Cost, u32)>,
    /// `costs[i][sum]` is the least cost of `sum` from cassettes `i` and after it; the last is of no cassettes.
    costs: Vec<Vec<Cost>>,
}

impl PayableSums {
    fn of(cassettes: &Cassettes) -> PayableSums {
        let fuller = |than: &Cassette| cassettes.iter().filter(|other| other.notes > than.notes).count();
        let cassettes: Vec<_> = cassettes
            .iter()
            .map(|cassette| {
                let cost = NOTE + fuller(cassette) as Cost;
                let notes = cassette.notes.min(MAX_NOTES_PER_DISPENSE);
                (cassettes.units(*cassette), cost, notes)
            })
            .collect();
        let largest = cassettes[0].0 * MAX_NOTES_PER_DISPENSE as usize;
        let on_hand: usize = cassettes
            .iter()
            .map(|&(units, _, notes)| units * notes as usize)
            .sum();
        let mut of_none = vec![IMPOSSIBLE; largest.min(on_hand) + 1];
        of_none[0] = 0;
        let mut costs = vec![of_none];
        for &(units, cost, notes) in cassettes.iter().rev() {
            let without = &costs[costs.len() - 1];
            let mut with = without.clone();
            for taken in 1..=notes {
                let cost = cost * taken as Cost;
                let skipped = (units * taken as usize).min(with.len());
                for (best, rest) in with[skipped..].iter_mut().zip(without) {
                    *best = (*best).min(rest.saturating_add(cost));
                }
            }
            costs.push(with);
        }
        costs.reverse();
        PayableSums { cassettes, costs }
    }

    /// Whether at most [`MAX_NOTES_PER_DISPENSE`] notes make the sum.
    fn is_payable(&self, sum: usize) -> bool {
        let cost = self.costs[0].get(sum).copied().unwrap_or(IMPOSSIBLE);
        u32::from(cost / NOTE) <= MAX_NOTES_PER_DISPENSE
    }

    /// The cheapest notes for the sum, if it is payable.
    fn mix(&self, sum: usize) -> Option<Notes> {
        if !self.is_payable(sum) {
            return None;
        }
        let mut left = sum;
        let mut counts = Vec::with_capacity(self.cassettes.len());
        for (place, &(units, cost, notes)) in self.cassettes.iter().enumerate() {
            let is_cheapest = |&taken: &u32| {
                let rest = left
                    .checked_sub(units * taken as usize)
                    .map(|rest| self.costs[place + 1][rest]);
                rest.is_some_and(|rest| rest.saturating_add(cost * taken as Cost) == self.costs[place][left])
            };
            let taken = (0..=notes).rev().find(is_cheapest)?;
            left -= units * taken as usize;
            counts.push(taken);
        }
        Some(Notes(counts))
    }

    /// The largest payable sum that is at most `sum`, and the smallest above it; 0 is not counted as one.
    fn nearest(&self, sum: usize) -> (Option<usize>, Option<usize>) {
        let largest = self.costs[0].len() - 1;
        let below = (1..=sum.min(largest)).rev().find(|&sum| self.is_payable(sum));
        let above = (sum.saturating_add(1)..=largest).find(|&sum| self.is_payable(sum));
        (below, above)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dollars(text: &str) -> Cassettes {
        Cassettes::parse(text, Currency::USD).unwrap()
    }

    fn notes(counts: &[u32]) -> Notes {
        Notes::new(counts.to_vec()).unwrap()
    }

    #[test]
    fn cassettes_are_read_and_written_as_people_do() {
        let check = |code: &str, text: &str, written: &str| {
            let cassettes = Cassettes::parse(text, Currency::from_code(code).unwrap()).unwrap();
            assert_eq!(cassettes.to_string(), written);
        };
        check("USD", "50x200,20x500,10x500", "50x200,20x500,10x500");
        check("USD", "10.00x5,50x0", "50x0,10x5");
        check("USD", "0.50x1,2x1", "2x1,0.50x1");
        check("JPY", "10000x2000,1000x10000", "10000x2000,1000x10000");
        check("KWD", "20x1,0.250x1", "20x1,0.250x1");
    }

    #[test]
    fn cassettes_that_cannot_be_are_refused_with_what_to_do() {
        let check = |text: &str, said: &str| {
            let error = Cassettes::parse(text, Currency::USD).unwrap_err().to_string();
            assert!(error.contains(said), "{text:?}: {error}");
        };
        check("", "at least one");
        check("50", "\"50\" is no cassette");
        check("50x", "\"50x\" is no cassette");
        check("50x+1", "is no cassette");
        check("50x1,", "\"\" is no cassette");
        check("50 x1", "is not a sum");
        check("0x1", "more than zero");
        check("50x1,50.00x2", "two cassettes of 50");
        check("50x10001", "at most 10000");
        check("50x99999999999", "at most 10000");
        check("9x1,8x1,7x1,6x1,5x1,4x1,3x1,2x1,1x1", "at most 8 cassettes");
        check("50x1,0.01x1", "too far apart");
        check("92233720368547758.07x1", "more money than can be counted");
    }

    #[test]
    fn an_amount_is_made_of_the_notes_that_are_there() {
        let check = |cassettes: &str, amount: &str, expected: Result<&str, (Option<&str>, Option<&str>)>| {
            let cassettes = dollars(cassettes);
            let amount_of = |text: &str| Currency::USD.parse_amount(text).unwrap();
            let found = cassettes
                .mix(amount_of(amount))
                .map(|notes| cassettes.describe(&notes));
            let expected = expected.map(str::to_owned).map_err(|(below, above)| Unpayable {
                below: below.map(amount_of),
                above: above.map(amount_of),
            });
            assert_eq!(found, expected, "{amount} from {cassettes}");
        };
        check("50x200,20x500,10x500", "180", Ok("3 x 50, 1 x 20, 1 x 10"));
        // The largest notes first would not do.
        check("50x1,20x3", "60", Ok("3 x 20"));
        check("50x0,20x3", "60", Ok("3 x 20"));
        // Two mixes of three notes: it is taken from the fuller cassette.
        check("50x9,20x500,5x9", "60", Ok("3 x 20"));
        check("50x500,20x9,5x500", "60", Ok("1 x 50, 2 x 5"));
        check("50x9,20x9,5x9", "60", Ok("1 x 50, 2 x 5"));
        check("50x200,20x500", "30", Err((Some("20"), Some("40"))));
        check("50x200,20x500", "10", Err((None, Some("20"))));
        check("50x200,20x500", "60.01", Err((Some("60"), Some("70"))));
        check("50x200,20x500", "0.01", Err((None, Some("20"))));
        // Forty notes go out at once and no more.
        check("50x200,20x500", "2000", Ok("40 x 50"));
        check("50x200,20x500", "2010", Err((Some("2000"), None)));
        check("20x500", "92233720368547758.07", Err((Some("800"), None)));
        check("50x1,20x1", "1000", Err((Some("70"), None)));
        check("50x0,20x0", "20", Err((None, None)));
    }

    #[test]
    fn notes_go_in_and_out_all_or_none() {
        let mut cassettes = dollars("50x2,20x9999");
        assert_eq!(
            cassettes.take(&notes(&[3, 1])),
            Err(CassetteError::NotEnough {
                denomination: "50".to_owned(),
                on_hand: 2,
                wanted: 3
            })
        );
        assert_eq!(
            cassettes.put(&notes(&[1, 2])),
            Err(CassetteError::Overfull(10_001))
        );
        let misaligned = Err(CassetteError::Misaligned {
            found: 1,
            cassettes: 2,
        });
        assert_eq!(cassettes.take(&notes(&[1])), misaligned);
        assert_eq!(cassettes.put(&notes(&[1])), misaligned);
        assert_eq!(cassettes, dollars("50x2,20x9999"));
        cassettes.take(&notes(&[2, 999])).unwrap();
        cassettes.put(&notes(&[1, 0])).unwrap();
        assert_eq!(cassettes, dollars("50x1,20x9000"));
        assert_eq!(cassettes.value(), Money::from_minor(18_005_000));
    }

    #[test]
    fn notes_are_written_for_people() {
        let cassettes = dollars("50x2,20x2,0.50x2");
        assert_eq!(cassettes.describe(&notes(&[2, 1, 0])), "2 x 50, 1 x 20");
        assert_eq!(cassettes.describe(&notes(&[0, 0, 1])), "1 x 0.50");
        assert_eq!(cassettes.describe(&cassettes.no_notes()), "no notes");
    }

    #[test]
    fn notes_are_subtracted_only_from_notes_that_hold_them() {
        assert_eq!(notes(&[3, 1]).without(&notes(&[1, 1])), Some(notes(&[2, 0])));
        assert_eq!(notes(&[3, 1]).without(&notes(&[0, 2])), None);
        assert_eq!(notes(&[3, 1]).without(&notes(&[1])), None);
    }

    #[test]
    fn counts_that_no_cassette_holds_are_refused() {
        assert!(Notes::new(vec![10_001]).is_err());
        assert!(Notes::new(vec![1; 9]).is_err());
    }

    /// Every sum in minor units that at most the cap of notes make, with the fewest notes for it, by trying all mixes.
    fn every_mix(cassettes: &Cassettes) -> Vec<(i64, u32)> {
        let mut sums = vec![(0, 0)];
        for cassette in cassettes.iter() {
            let with = |&(sum, notes): &(i64, u32)| {
                (0..=cassette.notes).map(move |taken| {
                    (
                        sum + cassette.denomination.minor() * i64::from(taken),
                        notes + taken,
                    )
                })
            };
            sums = sums.iter().flat_map(with).collect();
            sums.retain(|&(_, notes)| notes <= MAX_NOTES_PER_DISPENSE);
            sums.sort_unstable();
            sums.dedup_by_key(|(sum, _)| *sum);
        }
        sums
    }

    fn some_cassettes() -> impl Strategy<Value = Cassettes> {
        prop::collection::btree_map(1i64..40, 0u32..60, 1..5).prop_map(|counts| {
            let cassettes = counts.into_iter().map(|(denomination, notes)| Cassette {
                denomination: Amount::from_minor(denomination).unwrap(),
                notes,
            });
            Cassettes::new(Currency::USD, cassettes.collect()).unwrap()
        })
    }

    proptest! {
        #[test]
        fn what_can_be_paid_is_paid_with_the_fewest_notes(cassettes in some_cassettes(), minor in 1i64..1800) {
            let amount = Amount::from_minor(minor).unwrap();
            let mixes = every_mix(&cassettes);
            let fewest = mixes.iter().find(|(sum, _)| *sum == minor).map(|(_, notes)| *notes);
            match cassettes.mix(amount) {
                Ok(notes) => {
                    prop_assert_eq!(cassettes.value_of(&notes), amount.money());
                    prop_assert_eq!(Some(notes.number()), fewest);
                    prop_assert!(cassettes.clone().take(&notes).is_ok());
                }
                Err(Unpayable { below, above }) => {
                    prop_assert_eq!(fewest, None);
                    let payable = || mixes.iter().map(|(sum, _)| *sum).filter(|sum| *sum > 0);
                    prop_assert_eq!(below.map(Amount::minor), payable().rfind(|sum| *sum < minor));
                    prop_assert_eq!(above.map(Amount::minor), payable().find(|sum| *sum > minor));
                }
            }
        }

        #[test]
        fn what_is_written_is_read_back(cassettes in some_cassettes()) {
            prop_assert_eq!(Cassettes::parse(&cassettes.to_string(), Currency::USD), Ok(cassettes));
        }
    }
}
