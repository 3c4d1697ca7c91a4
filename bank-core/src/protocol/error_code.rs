//! Why a request was not done, as a number that programs can rely on.

use crate::transaction::Decline;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $iso:literal;)*) => {
        /// Why a request was not done. Codes are only ever added.
        ///
        /// 1 to 99 are declines: outcomes, durable and final, and the same numbers as in the journal. From 100 on
        /// nothing happened, and the request may be repeated once what is wrong has been mended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum ErrorCode {
            $($(#[$doc])* $variant = $number,)*
        }

        impl ErrorCode {
            /// Every code, in the order of their numbers.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$variant,)*];

            /// The name that scripts know it by.
            pub const fn name(self) -> &'static str {
                match self { $(ErrorCode::$variant => $name,)* }
            }

            /// The nearest response code of ISO 8583 (field 39).
            pub const fn iso_8583(self) -> &'static str {
                match self { $(ErrorCode::$variant => $iso,)* }
            }

            /// The code with that number, if this side knows it.
            pub fn from_number(number: u16) -> Option<ErrorCode> {
                match number { $($number => Some(ErrorCode::$variant),)* _ => None }
            }
        }
    };
}

error_codes! {
    /// The account is closed.
    AccountClosed = 1, "account_closed", "45";
    /// The account is frozen.
    AccountFrozen = 2, "account_frozen", "62";
    /// The withdrawal would pass the daily limit.
    DailyLimit = 3, "daily_limit", "61";
    /// The balance and the overdraft do not cover it.
    InsufficientFunds = 4, "insufficient_funds", "51";
    /// The balance would pass what an account can hold.
    BalanceTooLarge = 5, "balance_too_large", "13";
    /// A transfer from an account to itself.
    SameAccount = 6, "same_account", "12";
    /// There is no such payee.
    NoSuchPayee = 7, "no_such_payee", "14";
    /// The payee's account is frozen or closed.
    PayeeUnavailable = 8, "payee_unavailable", "57";
    /// The payee's account is in another currency.
    OtherCurrency = 9, "other_currency", "57";
    /// The payee's balance would pass what an account can hold.
    PayeeBalanceTooLarge = 10, "payee_balance_too_large", "13";
    /// The terminal gave the transaction up before the bank had done it.
    GivenUp = 11, "given_up", "12";
    /// The reversal would pass what an account can hold.
    CannotReverse = 12, "cannot_reverse", "21";

    /// A frame holds no message. The connection is closed.
    MalformedFrame = 100, "malformed_frame", "30";
    /// A frame is longer than the limit. The connection is closed.
    FrameTooLong = 101, "frame_too_long", "30";
    /// The server does not speak the version of the protocol that was asked for. The connection is closed.
    UnsupportedVersion = 102, "unsupported_version", "30";
    /// The terminal is not known, or did not prove itself. The connection is closed.
    TerminalRefused = 103, "terminal_refused", "58";
    /// Somebody must log in first.
    NotLoggedIn = 104, "not_logged_in", "57";
    /// Somebody is logged in already, and must log out first.
    AlreadyLoggedIn = 105, "already_logged_in", "57";
    /// The card is unknown or blocked, or the PIN is wrong.
    LoginRefused = 106, "login_refused", "55";
    /// The card was blocked, which ended this session.
    SessionEnded = 107, "session_ended", "75";
    /// An amount is not above zero.
    InvalidAmount = 108, "invalid_amount", "13";
    /// A transaction id is no UUID of version 7.
    InvalidTxnId = 109, "invalid_txn_id", "12";
    /// A request asks for what cannot be asked for.
    InvalidRequest = 110, "invalid_request", "12";
    /// This server does not do that yet.
    NotSupported = 111, "not_supported", "40";
    /// Too many ask for the same at once: ask again.
    Busy = 112, "busy", "91";
    /// The server is stopping. The connection is closed.
    ShuttingDown = 113, "shutting_down", "91";
    /// The server has as many connections as it takes. The connection is closed.
    TooManyConnections = 114, "too_many_connections", "91";
    /// The client took too long to say something. The connection is closed.
    TimedOut = 115, "timed_out", "68";
    /// Something is wrong with the bank itself; its log says what.
    InternalError = 116, "internal_error", "96";
    /// A new PIN is not 4 to 12 digits.
    InvalidPin = 117, "invalid_pin", "12";
    /// The transaction id is that of another transaction.
    TxnIdReused = 118, "txn_id_reused", "94";
    /// The transaction id is more than five minutes ahead of the server's clock.
    TxnIdAhead = 119, "txn_id_ahead", "12";
    /// There is no such account.
    NoSuchAccount = 120, "no_such_account", "14";
    /// A new PIN is among those that are guessed first.
    WeakPin = 121, "weak_pin", "12";
    /// Too many logins with this card, or from this address, were refused: ask again later. No PIN was looked at.
    TooManyFailures = 122, "too_many_failures", "75";
    /// The server speaks TLS, and the client did not. The connection is closed.
    TlsRequired = 123, "tls_required", "30";
    /// An operator has ended this connection. What was under way is answered; the connection is closed.
    Disconnected = 124, "disconnected", "91";
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn number(self) -> u16 {
        self as u16
    }
}

impl From<Decline> for ErrorCode {
    fn from(decline: Decline) -> ErrorCode {
        match decline {
            Decline::AccountClosed => ErrorCode::AccountClosed,
            Decline::AccountFrozen => ErrorCode::AccountFrozen,
            Decline::DailyLimit => ErrorCode::DailyLimit,
            Decline::InsufficientFunds => ErrorCode::InsufficientFunds,
            Decline::BalanceTooLarge => ErrorCode::BalanceTooLarge,
            Decline::SameAccount => ErrorCode::SameAccount,
            Decline::NoSuchPayee => ErrorCode::NoSuchPayee,
            Decline::PayeeUnavailable => ErrorCode::PayeeUnavailable,
            Decline::OtherCurrency => ErrorCode::OtherCurrency,
            Decline::PayeeBalanceTooLarge => ErrorCode::PayeeBalanceTooLarge,
            Decline::GivenUp => ErrorCode::GivenUp,
            Decline::CannotReverse => ErrorCode::CannotReverse,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declines_number_and_name_are_the_same_on_the_wire_and_in_the_journal() {
        for decline in Decline::ALL {
            let code = ErrorCode::from(decline);
            assert_eq!(
                (code.number(), code.name()),
                (u16::from(decline.number()), decline.name())
            );
        }
    }

    #[test]
    fn every_code_is_found_by_its_number_and_documented() {
        let page = include_str!("../../../docs/PROTOCOL.md");
        for &code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code.number()), Some(code));
            let row = format!("| {} | `{}` | {} |", code.number(), code.name(), code.iso_8583());
            assert!(page.contains(&row), "docs/PROTOCOL.md lacks the row {row}");
        }
        assert_eq!(ErrorCode::from_number(0), None);
    }
}
