//! Who fails to log in too often must wait, whatever the cards are that he tries.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};

use atm_tests::{Server, TestBank};
use bank_core::limits::{FAILED_LOGINS_PER_ADDRESS, FAILED_LOGINS_PER_CARD};
use bank_core::protocol::{ErrorCode, Reply, ReplyBody, Request, RequestBody, Secret, decode, encode};

use crate::garbage::{hello, read_frame};

/// A terminal at an address of this machine.
struct Terminal(TcpStream);

impl Terminal {
    fn at(server: &Server, address: Ipv4Addr) -> Terminal {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((address, 0).into()).unwrap();
            socket
                .connect(server.address().parse().unwrap())
                .await
                .unwrap()
                .into_std()
        });
        let mut stream = stream.unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.write_all(&hello()).unwrap();
        read_frame(&mut stream);
        Terminal(stream)
    }

    fn ask(&mut self, body: RequestBody<'_>) -> Result<(), (ErrorCode, String)> {
        let mut request = Vec::new();
        encode(&Request { id: 1, body }, &mut request);
        self.0.write_all(&request).unwrap();
        let frame = read_frame(&mut self.0);
        let reply: Reply<'_> = decode(&frame).unwrap();
        match reply.body {
            ReplyBody::Error { code, message } => {
                Err((ErrorCode::from_number(code).unwrap(), message.to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn login(&mut self, card: &str, pin: &str) -> Result<(), (ErrorCode, String)> {
        self.ask(RequestBody::Login {
            card,
            pin: Secret(pin),
        })
    }

    fn fails(&mut self, card: &str, expected: ErrorCode) {
        let (code, message) = self.login(card, "9182").unwrap_err();
        assert_eq!(code, expected, "{card}: {message}");
    }
}

#[test]
fn a_card_that_failed_often_must_wait_from_everywhere_whether_or_not_it_exists() {
    let bank = TestBank::generate(3);
    let server = bank.serve();
    for card in ["1", "no such card"] {
        for n in 0..FAILED_LOGINS_PER_CARD.burst as u8 {
            let mut terminal = Terminal::at(&server, Ipv4Addr::new(127, 0, 1, n + 1));
            terminal.fails(card, ErrorCode::LoginRefused);
        }
        let mut terminal = Terminal::at(&server, Ipv4Addr::new(127, 0, 2, 1));
        terminal.fails(card, ErrorCode::TooManyFailures);
        let (_, message) = terminal.login(card, "0001").unwrap_err();
        assert!(message.contains("seconds"), "{message}");
    }
    let mut terminal = Terminal::at(&server, Ipv4Addr::new(127, 0, 2, 1));
    terminal
        .login("2", "0002")
        .expect("another card is let in at once");
    // A change of PIN is no way around it.
    let change = |old, new| RequestBody::ChangePin {
        old: Secret(old),
        new: Secret(new),
    };
    for _ in 0..3 {
        terminal.ask(change("9182", "7391")).unwrap_err();
    }
    terminal.fails("2", ErrorCode::SessionEnded);
    for _ in 0..3 {
        terminal.fails("2", ErrorCode::LoginRefused);
    }
    terminal.fails("2", ErrorCode::TooManyFailures);
}

#[test]
fn an_address_that_failed_often_must_wait_with_every_card_and_nobody_else_must() {
    let bank = TestBank::generate(1);
    let server = bank.serve();
    let mut guesser = Terminal::at(&server, Ipv4Addr::new(127, 0, 3, 1));
    for n in 0..FAILED_LOGINS_PER_ADDRESS.burst {
        guesser.fails(&format!("card {n}"), ErrorCode::LoginRefused);
    }
    guesser.fails("another", ErrorCode::TooManyFailures);
    let (code, _) = guesser.login("1", "0001").unwrap_err();
    assert_eq!(
        code,
        ErrorCode::TooManyFailures,
        "even the right PIN is not looked at"
    );
    let mut again = Terminal::at(&server, Ipv4Addr::new(127, 0, 3, 1));
    again.fails("1", ErrorCode::TooManyFailures);
    let mut other = Terminal::at(&server, Ipv4Addr::new(127, 0, 3, 2));
    other
        .login("1", "0001")
        .expect("nothing was counted against the card");
}
