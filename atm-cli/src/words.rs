//! What the bank says, in words that a person or a script can read.

use bank_core::CardNumber;
use bank_core::protocol::ErrorCode;
use bank_core::row::{Contra, Kind};

use crate::connection::StatementLine;

/// What a line records.
pub(crate) fn kind(line: &StatementLine) -> String {
    Kind::from_number(line.kind).map_or_else(|| format!("kind {}", line.kind), |kind| kind.name().to_owned())
}

/// The same for a customer, who need not know how a deposit came to the bank.
pub(crate) fn kind_for_people(line: &StatementLine) -> String {
    match Kind::from_number(line.kind) {
        Some(Kind::Advice) => "deposit".into(),
        Some(Kind::Fence) => "cancelled".into(),
        _ => kind(line),
    }
}

/// What became of it, as scripts know it.
pub(crate) fn code_name(line: &StatementLine) -> String {
    match line.outcome {
        0 => "approved".into(),
        code => ErrorCode::from_number(code).map_or_else(|| code.to_string(), |code| code.name().into()),
    }
}

/// The account or the bank's own account on the other side.
pub(crate) fn other_side(line: &StatementLine) -> String {
    match Contra::from_number(line.contra) {
        Some(Contra::System(system)) => system.name().to_owned(),
        _ => line.contra.to_string(),
    }
}

/// A text from elsewhere without what could drive the terminal it is shown on, or show it in another order than it has.
pub(crate) fn plain(text: &str) -> String {
    // Unicode's ends of lines, and its overrides of the direction in which text runs.
    let turns = |c| matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars()
        .map(|c| if c.is_control() || turns(c) { '\u{fffd}' } else { c })
        .collect()
}

/// A card as a receipt shows it, by which only its holder knows it: its last characters, of a short one no more than half.
pub(crate) fn masked(card: &CardNumber) -> String {
    let text: Vec<char> = card.as_str().chars().collect();
    let hidden = text.len() - (text.len() / 2).min(4);
    plain(&format!("****{}", text[hidden..].iter().collect::<String>()))
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
