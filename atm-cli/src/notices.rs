//! What the bank's operators have said to whoever stands before the terminal: the newest lines, fit for any screen.

use std::collections::VecDeque;

use bank_core::limits::{MAX_NOTICE_CHARS, MAX_NOTICES};

use crate::words::plain;

/// Notices that nobody has read yet.
#[derive(Debug, Default)]
pub(crate) struct Notices(VecDeque<String>);

impl Notices {
    /// Keeps a notice, without what is not printable and what is too long.
    pub(crate) fn hear(&mut self, message: &str) {
        let mut shown: String = message.chars().take(MAX_NOTICE_CHARS).collect();
        if shown.len() < message.len() {
            shown.push_str(" ...");
        }
        self.keep(plain(&shown));
    }

    /// Takes all of the others', which are newer.
    pub(crate) fn take_from(&mut self, others: &mut Notices) {
        others.0.drain(..).for_each(|notice| self.keep(notice));
    }

    /// All of them, the oldest first.
    pub(crate) fn take(&mut self) -> Vec<String> {
        self.0.drain(..).collect()
    }

    fn keep(&mut self, notice: String) {
        if self.0.len() == MAX_NOTICES {
            self.0.pop_front();
        }
        self.0.push_back(notice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_without_what_could_drive_a_screen() {
        let mut notices = Notices::default();
        for n in 0..=MAX_NOTICES {
            notices.hear(&format!("{n}\u{1b}[2J\u{202e}"));
        }
        let kept = notices.take();
        assert_eq!(kept.len(), MAX_NOTICES);
        assert_eq!(kept[0], "1\u{fffd}[2J\u{fffd}");
        assert!(notices.take().is_empty(), "each is read once");
        notices.hear(&"ä".repeat(100_000));
        assert!(notices.take()[0].chars().count() < MAX_NOTICE_CHARS + 10);
    }
}
