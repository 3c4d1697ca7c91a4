//! Clients that speak no protocol, or not enough of it, and the others that must not notice.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use atm_cli::connection::{Connection, Outcome};
use atm_tests::{Server, TestBank};
use bank_core::limits::{MAX_REPLY_BYTES, MAX_REQUEST_BYTES};
use bank_core::protocol::{
    ErrorCode, Greeting, Hello, MAGIC, Proof, Reply, ReplyBody, Request, RequestBody, VERSION, decode,
    encode, split,
};
use bank_core::{Amount, TxnId};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

/// A server, and a customer who works on throughout.
struct Bench {
    bank: TestBank,
    server: Server,
    honest: Connection,
    deposited: i64,
}

impl Bench {
    fn new(arguments: &[&str]) -> Bench {
        let bank = TestBank::generate(1);
        let server = bank.serve_with(arguments);
        Bench {
            honest: server.login("1", "0001"),
            bank,
            server,
            deposited: 0,
        }
    }

    /// The honest customer notices nothing.
    fn honest_goes_on(&mut self) {
        self.deposited += 1;
        let deposited = self
            .honest
            .deposit(TxnId::generate(), Amount::from_minor(1).unwrap());
        let Ok(Outcome::Approved(_, receipt)) = deposited else {
            panic!("{deposited:?}")
        };
        assert_eq!(receipt.balance, 100_000 + self.deposited);
    }

    fn end(self) {
        let (status, log) = self.server.stop();
        assert!(status.success(), "{log}");
        assert!(!log.contains("panicked"), "{log}");
        self.bank.assert_verifies();
    }
}

/// Everything that the server says until it closes the connection.
fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    // A reset is a close, too.
    let _ = stream.read_to_end(&mut all);
    all
}

fn refusal_code(bytes: &[u8]) -> ErrorCode {
    let (body, _) = split(bytes, MAX_REPLY_BYTES).unwrap().expect("a whole frame");
    match decode(body).expect("a greeting") {
        Greeting::Refused { code, .. } => ErrorCode::from_number(code).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn hello() -> Vec<u8> {
    let mut frame = Vec::new();
    encode(
        &Hello {
            magic: MAGIC,
            version: VERSION,
            terminal: "TEST",
            proof: Proof::None,
        },
        &mut frame,
    );
    frame
}

fn introduce(server: &Server) -> TcpStream {
    let mut stream = server.socket();
    stream.write_all(&hello()).unwrap();
    read_frame(&mut stream);
    stream
}

fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).unwrap();
    let mut body = vec![0; u32::from_be_bytes(header) as usize];
    stream.read_exact(&mut body).unwrap();
    body
}

#[test]
fn a_first_frame_that_is_no_hello_is_refused_by_name() {
    let mut bench = Bench::new(&[]);
    let mut version_3 = hello();
    version_3[8] = 3;
    let mut secret = Vec::new();
    let proof = Proof::Secret(bank_core::protocol::Secret(b"x"));
    encode(
        &Hello {
            magic: MAGIC,
            version: VERSION,
            terminal: "TEST",
            proof,
        },
        &mut secret,
    );
    let mut unnamed = Vec::new();
    encode(
        &Hello {
            magic: MAGIC,
            version: VERSION,
            terminal: "no id",
            proof: Proof::None,
        },
        &mut unnamed,
    );
    let mut longer = hello();
    longer[3] += 1;
    longer.push(0);
    let cases: [(&[u8], ErrorCode); 8] = [
        (b"GET / HTTP/1.1\r\n\r\n", ErrorCode::FrameTooLong),
        (&[0xff; 64], ErrorCode::FrameTooLong),
        (&[0, 0, 0, 0], ErrorCode::MalformedFrame),
        (&[0, 0, 0, 3, 1, 2, 3], ErrorCode::MalformedFrame),
        (&version_3, ErrorCode::UnsupportedVersion),
        (&secret, ErrorCode::TerminalRefused),
        (&unnamed, ErrorCode::TerminalRefused),
        (&longer, ErrorCode::MalformedFrame),
    ];
    for (bytes, code) in cases {
        let mut stream = bench.server.socket();
        stream.write_all(bytes).unwrap();
        assert_eq!(refusal_code(&read_to_end(&mut stream)), code, "{bytes:?}");
        bench.honest_goes_on();
    }
    bench.end();
}

#[test]
fn what_came_before_garbage_is_answered_and_then_the_connection_closed() {
    let mut bench = Bench::new(&[]);
    for garbage in [
        &[0, 0, 0, 2, 0xff, 0xff][..],
        &[0x7f, 0, 0, 0],
        &[0, 0, 0, 3, 7, 0, 0],
    ] {
        let mut stream = introduce(&bench.server);
        let mut sent = Vec::new();
        encode(
            &Request {
                id: 7,
                body: RequestBody::Ping,
            },
            &mut sent,
        );
        sent.extend_from_slice(garbage);
        stream.write_all(&sent).unwrap();
        let body = read_frame(&mut stream);
        assert!(matches!(
            decode(&body),
            Ok(Reply {
                id: 7,
                body: ReplyBody::Pong { .. },
                ..
            })
        ));
        let body = read_frame(&mut stream);
        let Ok(Reply {
            id: 0,
            body: ReplyBody::Error { code, .. },
            ..
        }) = decode(&body)
        else {
            panic!("{body:?}")
        };
        assert!(matches!(
            ErrorCode::from_number(code),
            Some(ErrorCode::MalformedFrame | ErrorCode::FrameTooLong)
        ));
        assert!(read_to_end(&mut stream).is_empty());
        bench.honest_goes_on();
    }
    bench.end();
}

#[test]
fn random_bytes_disturb_nobody() {
    let mut bench = Bench::new(&[]);
    let mut random = StdRng::seed_from_u64(5);
    for round in 0..200 {
        let mut stream = if round % 2 == 0 {
            bench.server.socket()
        } else {
            introduce(&bench.server)
        };
        let mut bytes = vec![0; random.random_range(1..3000)];
        random.fill_bytes(&mut bytes);
        if round % 3 == 0 {
            // A legal length, so that it is the body that must be understood.
            let length = random.random_range(0..MAX_REQUEST_BYTES as u32);
            bytes.splice(..4.min(bytes.len()), length.to_be_bytes());
        }
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        read_to_end(&mut stream);
    }
    bench.honest_goes_on();
    bench.end();
}

#[test]
fn half_a_frame_and_a_cut_is_not_executed() {
    let mut bench = Bench::new(&[]);
    let mut login = Vec::new();
    let body = RequestBody::Login {
        card: "1",
        pin: bank_core::protocol::Secret("0001"),
    };
    encode(&Request { id: 1, body }, &mut login);
    let mut deposit = Vec::new();
    let body = RequestBody::Deposit {
        txn_id: TxnId::generate().to_bytes(),
        amount: 1_000_000,
    };
    encode(&Request { id: 2, body }, &mut deposit);
    for cut in 1..deposit.len() {
        let mut stream = introduce(&bench.server);
        stream.write_all(&login).unwrap();
        read_frame(&mut stream);
        stream.write_all(&deposit[..cut]).unwrap();
        drop(stream);
    }
    bench.honest_goes_on();
    bench.end();
}

/// A byte at a time, between which the honest customer is served: a drip takes nobody's turn.
#[test]
fn a_slow_drip_delays_nobody() {
    let mut bench = Bench::new(&[]);
    let mut drip = bench.server.socket();
    let mut ping = Vec::new();
    encode(
        &Request {
            id: 7,
            body: RequestBody::Ping,
        },
        &mut ping,
    );
    for byte in hello().into_iter().chain(ping) {
        drip.write_all(&[byte]).unwrap();
        bench.honest_goes_on();
    }
    assert!(matches!(
        decode(&read_frame(&mut drip)),
        Ok(Greeting::Welcome { .. })
    ));
    assert!(matches!(
        decode(&read_frame(&mut drip)),
        Ok(Reply {
            id: 7,
            body: ReplyBody::Pong { .. },
            ..
        })
    ));
    bench.end();
}

#[test]
fn a_client_that_pipelines_and_leaves_has_its_requests_done() {
    let bench = Bench::new(&[]);
    let mut stream = introduce(&bench.server);
    let mut sent = Vec::new();
    let body = RequestBody::Login {
        card: "1",
        pin: bank_core::protocol::Secret("0001"),
    };
    encode(&Request { id: 1, body }, &mut sent);
    for id in 2..52 {
        let body = RequestBody::Deposit {
            txn_id: TxnId::generate().to_bytes(),
            amount: 1,
        };
        encode(&Request { id, body }, &mut sent);
    }
    encode(
        &Request {
            id: 52,
            body: RequestBody::Balance,
        },
        &mut sent,
    );
    stream.write_all(&sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let all = read_to_end(&mut stream);
    let (mut rest, mut expected) = (&all[..], 1);
    while let Some((body, used)) = split(rest, MAX_REPLY_BYTES).unwrap() {
        let reply: Reply<'_> = decode(body).unwrap();
        assert_eq!(reply.id, expected, "replies come in order");
        if let ReplyBody::Balance { balance, .. } = reply.body {
            assert_eq!(balance, 100_050);
        }
        expected += 1;
        rest = &rest[used..];
    }
    assert_eq!((expected, rest.len()), (53, 0));
    bench.end();
}

#[test]
fn requests_out_of_place_are_refused_and_the_session_goes_on() {
    let bench = Bench::new(&[]);
    let mut stream = introduce(&bench.server);
    let mut id = 0;
    let mut ask = |body: RequestBody<'_>| {
        id += 1;
        let mut frame = Vec::new();
        encode(&Request { id, body }, &mut frame);
        stream.write_all(&frame).unwrap();
        let body = read_frame(&mut stream);
        let reply: Reply<'_> = decode(&body).unwrap();
        assert_eq!(reply.id, id);
        match reply.body {
            ReplyBody::Error { code, message } => {
                assert!(message.ends_with('.'), "a sentence: {message}");
                ErrorCode::from_number(code)
            }
            _ => None,
        }
    };
    let secret = bank_core::protocol::Secret;
    let (txn_id, v4) = (TxnId::generate().to_bytes(), [0x44; 16]);
    assert_eq!(ask(RequestBody::Balance), Some(ErrorCode::NotLoggedIn));
    assert_eq!(ask(RequestBody::Logout), Some(ErrorCode::NotLoggedIn));
    let change = RequestBody::ChangePin {
        old: secret("0001"),
        new: secret("0002"),
    };
    assert_eq!(ask(change), Some(ErrorCode::NotLoggedIn));
    assert_eq!(
        ask(RequestBody::Deposit { txn_id, amount: 5 }),
        Some(ErrorCode::NotLoggedIn)
    );
    assert_eq!(
        ask(RequestBody::Statement { lines: 5 }),
        Some(ErrorCode::NotLoggedIn)
    );
    assert_eq!(
        ask(RequestBody::Login {
            card: "",
            pin: secret("")
        }),
        Some(ErrorCode::LoginRefused)
    );
    assert_eq!(
        ask(RequestBody::Login {
            card: "1",
            pin: secret("0001")
        }),
        None
    );
    assert_eq!(
        ask(RequestBody::Login {
            card: "1",
            pin: secret("0001")
        }),
        Some(ErrorCode::AlreadyLoggedIn)
    );
    for amount in [0, -1, i64::MIN] {
        assert_eq!(
            ask(RequestBody::Deposit { txn_id, amount }),
            Some(ErrorCode::InvalidAmount)
        );
        assert_eq!(
            ask(RequestBody::Withdraw { txn_id, amount }),
            Some(ErrorCode::InvalidAmount)
        );
        assert_eq!(
            ask(RequestBody::Transfer {
                txn_id,
                to: 1,
                amount
            }),
            Some(ErrorCode::InvalidAmount)
        );
    }
    assert_eq!(
        ask(RequestBody::Deposit {
            txn_id: v4,
            amount: 5
        }),
        Some(ErrorCode::InvalidTxnId)
    );
    assert_eq!(
        ask(RequestBody::Transfer {
            txn_id,
            to: 0,
            amount: 5
        }),
        Some(ErrorCode::InvalidRequest)
    );
    // What settles names an account, which must be there, and an id.
    for (account, txn_id, refused) in [
        (0, txn_id, ErrorCode::InvalidRequest),
        (1, v4, ErrorCode::InvalidTxnId),
        (999, txn_id, ErrorCode::NoSuchAccount),
    ] {
        let amount = 5;
        for body in [
            RequestBody::Reverse { account, txn_id },
            RequestBody::Resolve { account, txn_id },
            RequestBody::Advice {
                account,
                txn_id,
                amount,
            },
        ] {
            assert_eq!(ask(body), Some(refused), "{body:?}");
        }
    }
    let nothing = RequestBody::Advice {
        account: 1,
        txn_id,
        amount: 0,
    };
    assert_eq!(ask(nothing), Some(ErrorCode::InvalidAmount));
    let change = |old, new| RequestBody::ChangePin {
        old: secret(old),
        new: secret(new),
    };
    assert_eq!(ask(change("0001", "12")), Some(ErrorCode::InvalidPin));
    for old in ["", "0002", "0001"] {
        assert_eq!(ask(change(old, "1234")), Some(ErrorCode::WeakPin));
    }
    assert_eq!(ask(change("", "1243")), Some(ErrorCode::LoginRefused));
    assert_eq!(ask(change("0002", "1243")), Some(ErrorCode::LoginRefused));
    assert_eq!(ask(change("0001", "0001")), None);
    assert_eq!(ask(RequestBody::Statement { lines: u16::MAX }), None);
    assert_eq!(ask(RequestBody::Logout), None);
    assert_eq!(ask(RequestBody::Balance), Some(ErrorCode::NotLoggedIn));
    assert_eq!(
        ask(RequestBody::Login {
            card: "1",
            pin: secret("0001")
        }),
        None
    );
    assert_eq!(ask(RequestBody::Balance), None);
    bench.end();
}

#[test]
fn a_thousand_idle_connections_disturb_nobody() {
    let mut bench = Bench::new(&[]);
    let silent: Vec<_> = (0..500).map(|_| bench.server.socket()).collect();
    let introduced: Vec<_> = (0..500).map(|_| introduce(&bench.server)).collect();
    for _ in 0..20 {
        bench.honest_goes_on();
    }
    drop((silent, introduced));
    bench.end();
}

#[test]
fn over_the_limit_of_connections_a_client_is_told_so() {
    let mut bench = Bench::new(&["--connections", "3"]);
    let others = [introduce(&bench.server), introduce(&bench.server)];
    for _ in 0..5 {
        assert_eq!(
            refusal_code(&read_to_end(&mut bench.server.socket())),
            ErrorCode::TooManyConnections
        );
    }
    bench.honest_goes_on();
    drop(others);
    // A place becomes free as soon as the server has seen the client leave.
    while refused(&mut bench.server.socket()) {}
    bench.end();
}

fn refused(stream: &mut TcpStream) -> bool {
    stream.write_all(&hello()).unwrap();
    matches!(decode(&read_frame(stream)), Ok(Greeting::Refused { .. }))
}
