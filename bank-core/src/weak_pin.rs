//! PINs that are guessed first, and so are not to be chosen.
//!
//! A card allows three guesses, so what matters is how many people choose the same few PINs. A PIN is weak if it is a
//! repetition, a run, a year, or among the twenty that people choose most (DataGenetics, "PIN number analysis", 2012). This
//! is a pure function of the digits. It says nothing of what a thief may know of a customer, such as a date of birth.

/// The PINs of four digits that are most often chosen, the first of them by one person in ten.
const MOST_CHOSEN: [&[u8; 4]; 20] = [
    b"1234", b"1111", b"0000", b"1212", b"7777", b"1004", b"2000", b"4444", b"2222", b"6969", b"9999",
    b"3333", b"5555", b"6666", b"1122", b"1313", b"8888", b"4321", b"2001", b"1010",
];

/// Whether a PIN of these digits, in ASCII, is one that is guessed first.
pub(crate) fn is_weak(digits: &[u8]) -> bool {
    is_repetition(digits)
        || is_run(digits)
        || (digits.len() == 4 && matches!(digits[..2], [b'1', b'9'] | [b'2', b'0']))
        || MOST_CHOSEN.iter().any(|chosen| digits == *chosen)
}

/// One block again and again: 1111, 1212, 123123.
fn is_repetition(digits: &[u8]) -> bool {
    (1..=digits.len() / 2)
        .filter(|block| digits.len().is_multiple_of(*block))
        .any(|block| digits[block..] == digits[..digits.len() - block])
}

/// Each digit the one after, or before, the last: 1234, 9876, and past the end of the digits, 7890 and 2109.
fn is_run(digits: &[u8]) -> bool {
    let steps_by = |step| {
        digits
            .windows(2)
            .all(|pair| (pair[0] - b'0' + step) % 10 == pair[1] - b'0')
    };
    steps_by(1) || steps_by(9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_guessed_first_is_weak_and_nothing_else() {
        for weak in [
            "0000",
            "7777777",
            "999999999999",
            "1212",
            "6969",
            "123123",
            "12341234",
            "246246246",
            "1234",
            "4567890",
            "7890",
            "8901",
            "9876",
            "3210",
            "2109",
            "1098",
            "109876543210",
            "1900",
            "1984",
            "1999",
            "2000",
            "2099",
            "1004",
            "1122",
            "2001",
            "1010",
        ] {
            assert!(is_weak(weak.as_bytes()), "{weak}");
        }
        for good in [
            "2468",
            "1357",
            "8642",
            "2580",
            "1221",
            "1235",
            "1243",
            "1899",
            "2100",
            "19845",
            "121",
            "12121",
            "123412",
            "1123",
            "98764",
            "13579",
            "246813579024",
        ] {
            assert!(!is_weak(good.as_bytes()), "{good}");
        }
        for chosen in MOST_CHOSEN {
            assert!(is_weak(chosen));
        }
    }
}
