//! Who fails to log in too often must wait, whatever the cards are that he tries.

use std::net::Ipv4Addr;

use atm_tests::TestBank;
use bank_core::limits::{FAILED_LOGINS_PER_ADDRESS, FAILED_LOGINS_PER_CARD};
use bank_core::protocol::{ErrorCode, ReplyBody, RequestBody, Secret};

use crate::wire::{Wire, code, login, reply};

/// That a login with a PIN that nobody has is answered so.
fn fails(terminal: &mut Wire, card: &str, expected: ErrorCode) {
    let answer = terminal.ask(login(card, "9182"));
    assert_eq!(code(&answer), Some(expected), "{card}: {:?}", reply(&answer));
}

#[test]
fn a_card_that_failed_often_must_wait_from_everywhere_whether_or_not_it_exists() {
    let bank = TestBank::generate(3);
    let server = bank.serve();
    for card in ["1", "no such card"] {
        for n in 0..FAILED_LOGINS_PER_CARD.burst as u8 {
            let mut terminal = Wire::terminal_at(&server, Ipv4Addr::new(127, 0, 1, n + 1));
            fails(&mut terminal, card, ErrorCode::LoginRefused);
        }
        let mut terminal = Wire::terminal_at(&server, Ipv4Addr::new(127, 0, 2, 1));
        fails(&mut terminal, card, ErrorCode::TooManyFailures);
        let answer = terminal.ask(login(card, "0001"));
        let ReplyBody::Error { message, .. } = reply(&answer) else {
            panic!("{:?}", reply(&answer));
        };
        assert!(message.contains("seconds"), "{message}");
    }
    let mut terminal = Wire::terminal_at(&server, Ipv4Addr::new(127, 0, 2, 1));
    let answer = terminal.ask(login("2", "0002"));
    assert_eq!(code(&answer), None, "another card is let in at once");
    // A change of PIN is no way around it.
    let change = |old, new| RequestBody::ChangePin {
        old: Secret(old),
        new: Secret(new),
    };
    for _ in 0..3 {
        let answer = terminal.ask(change("9182", "7391"));
        assert_eq!(code(&answer), Some(ErrorCode::LoginRefused));
    }
    fails(&mut terminal, "2", ErrorCode::SessionEnded);
    for _ in 0..3 {
        fails(&mut terminal, "2", ErrorCode::LoginRefused);
    }
    fails(&mut terminal, "2", ErrorCode::TooManyFailures);
}

#[test]
fn an_address_that_failed_often_must_wait_with_every_card_and_nobody_else_must() {
    let bank = TestBank::generate(1);
    let server = bank.serve();
    let mut guesser = Wire::terminal_at(&server, Ipv4Addr::new(127, 0, 3, 1));
    for n in 0..FAILED_LOGINS_PER_ADDRESS.burst {
        fails(&mut guesser, &format!("card {n}"), ErrorCode::LoginRefused);
    }
    fails(&mut guesser, "another", ErrorCode::TooManyFailures);
    let answer = guesser.ask(login("1", "0001"));
    assert_eq!(
        code(&answer),
        Some(ErrorCode::TooManyFailures),
        "even the right PIN"
    );
    let mut again = Wire::terminal_at(&server, Ipv4Addr::new(127, 0, 3, 1));
    fails(&mut again, "1", ErrorCode::TooManyFailures);
    let mut other = Wire::terminal_at(&server, Ipv4Addr::new(127, 0, 3, 2));
    let answer = other.ask(login("1", "0001"));
    assert_eq!(code(&answer), None, "nothing was counted against the card");
}
