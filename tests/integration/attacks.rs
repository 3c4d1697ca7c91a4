//! Who has read the source, records what goes by, or is a customer or terminal with bad intentions: what they try, and that it fails.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::Instant;

use atm_cli::connection::{Connection, Fate, Outcome};
use atm_tests::{Server, TestBank, program, stderr, stdout};
use bank_core::limits::{CLOSE_LINGER, MAX_PIN_TRIES, MAX_REPLY_BYTES, READ_BUFFER_BYTES, REPLY_DEADLINE};
use bank_core::protocol::{
    ErrorCode, Greeting, Proof, ReplyBody, Request, RequestBody, Secret, decode, encode, split,
};
use bank_core::{AccountId, Amount, CardNumber, TerminalId, TxnId};

use crate::wire::{Wire, code, login, reply};

fn amount(minor: i64) -> Amount {
    Amount::from_minor(minor).unwrap()
}

fn balance(server: &Server, card: &str, pin: &str) -> i64 {
    server.login(card, pin).balance().unwrap().balance.minor()
}

fn number(bank: &TestBank, sql: &str) -> i64 {
    rusqlite::Connection::open(bank.path())
        .unwrap()
        .query_row(sql, [], |row| row.get(0))
        .unwrap()
}

/// That the server stops in order, and the books balance.
fn end(bank: &TestBank, server: Server) -> String {
    let (status, log) = server.stop();
    assert!(status.success() && !log.contains("panicked"), "{log}");
    bank.assert_verifies();
    log
}

/// Carries one connection to the server, and gives all bytes of the client and all of the server.
fn record(server: &Server, work: impl FnOnce(&str)) -> (Vec<u8>, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let to_server = server.socket();
    thread::scope(|scope| {
        let carrying = scope.spawn(|| {
            let client = listener.accept().unwrap().0;
            let down = scope.spawn({
                let (from, to) = (to_server.try_clone().unwrap(), client.try_clone().unwrap());
                move || carry(from, to)
            });
            (carry(client, to_server), down.join().unwrap())
        });
        work(&address);
        carrying.join().unwrap()
    })
}

fn carry(mut from: TcpStream, mut to: TcpStream) -> Vec<u8> {
    let (mut all, mut chunk) = (Vec::new(), [0; 2048]);
    while let Ok(bytes @ 1..) = from.read(&mut chunk) {
        all.extend_from_slice(&chunk[..bytes]);
        to.write_all(&chunk[..bytes]).unwrap();
    }
    let _ = to.shutdown(Shutdown::Write);
    all
}

/// Says what was recorded, and gives the answers.
fn replay(server: &Server, recorded: &[u8]) -> Vec<u8> {
    let mut stream = server.socket();
    stream.write_all(recorded).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).unwrap();
    answers
}

/// The frames after the greeting, in which the server's clock is.
fn after_greeting(answers: &[u8]) -> &[u8] {
    let (_, used) = split(answers, MAX_REPLY_BYTES).unwrap().unwrap();
    &answers[used..]
}

#[test]
fn a_recorded_session_that_is_replayed_moves_no_money_again() {
    let bank = TestBank::generate(2);
    let mut server = bank.serve();
    let (said, answers) = record(&server, |address| {
        let mut customer = Connection::connect(address, TerminalId::new("ATM-1").unwrap()).unwrap();
        customer.login(&CardNumber::new("1").unwrap(), "0001").unwrap();
        let approved = [
            customer.deposit(TxnId::generate(), amount(500)).unwrap(),
            customer.withdraw(TxnId::generate(), amount(200)).unwrap(),
            customer
                .transfer(TxnId::generate(), AccountId::new(2).unwrap(), amount(300))
                .unwrap(),
        ];
        assert!(
            approved
                .iter()
                .all(|outcome| matches!(outcome, Outcome::Approved(..)))
        );
        customer.logout().unwrap();
    });
    assert_eq!(balance(&server, "1", "0001"), 100_000);
    for restart in [false, false, true, false] {
        if restart {
            end(&bank, server);
            server = bank.serve();
        }
        let again = replay(&server, &said);
        assert!(
            after_greeting(&again) == after_greeting(&answers),
            "the first receipts, byte for byte (after a restart: {restart})"
        );
        assert_eq!(
            (balance(&server, "1", "0001"), balance(&server, "2", "0002")),
            (100_000, 100_300)
        );
    }
    // Half a session tells nothing of an account, and does nothing to it.
    let whole = said.len();
    for cut in [whole - 1, whole / 2, whole / 3] {
        replay(&server, &said[..cut]);
    }
    // Without the login, which an encrypted connection would not show, there is nothing to repeat.
    let (_, hello) = split(&said, MAX_REPLY_BYTES).unwrap().unwrap();
    let (_, shown) = split(&said[hello..], MAX_REPLY_BYTES).unwrap().unwrap();
    let stolen = replay(&server, &[&said[..hello], &said[hello + shown..]].concat());
    let mut refused = after_greeting(&stolen);
    while let Some((body, used)) = split(refused, MAX_REPLY_BYTES).unwrap() {
        assert_eq!(code(body), Some(ErrorCode::NotLoggedIn));
        refused = &refused[used..];
    }
    assert_eq!(balance(&server, "1", "0001"), 100_000);
    end(&bank, server);
    assert_eq!(number(&bank, "SELECT count(*) FROM journal WHERE kind <> 4"), 3);
}

#[test]
fn a_stolen_terminal_id_is_refused_with_the_same_bytes_as_one_that_never_was() {
    let bank = TestBank::generate(1);
    let add = |id: &str| {
        let file = bank.directory().join(id);
        let added = bank.server_command(&["add-terminal", id, "--secret-file", file.to_str().unwrap()]);
        assert!(added.status.success(), "{}", stderr(&added));
        let hex = std::fs::read_to_string(file).unwrap();
        let byte = |n| u8::from_str_radix(&hex[n..n + 2], 16).unwrap();
        (0..64).step_by(2).map(byte).collect::<Vec<_>>()
    };
    let (mine, others) = (add("ATM-1"), add("ATM-2"));
    // One that registered itself, when that was allowed, and has no secret.
    let server = bank.serve();
    Wire::terminal(&server, "SELF");
    end(&bank, server);
    for options in [&["--registered-terminals"][..], &[]] {
        let server = bank.serve_with(options);
        let mut longer = mine.clone();
        longer.push(0);
        let mut wrong = mine.clone();
        wrong[31] ^= 1;
        let proofs: [&[u8]; 7] = [&others, &mine[..31], &longer, &wrong, &[], &[0; 32], &[0; 500]];
        let mut refusals = BTreeSet::new();
        let mut refused = |terminal, proof| {
            let (mut wire, greeting) = Wire::hello(&server, terminal, proof);
            assert!(matches!(
                decode(&greeting),
                Ok(Greeting::Refused { code: 103, .. })
            ));
            let mut rest = Vec::new();
            wire.0.read_to_end(&mut rest).unwrap();
            assert!(rest.is_empty(), "and then the connection is closed");
            refusals.insert(greeting);
        };
        for terminal in ["ATM-1", "SELF", "NEVER"] {
            for proof in proofs {
                refused(terminal, Proof::Secret(Secret(proof)));
            }
        }
        refused("ATM-1", Proof::None);
        if !options.is_empty() {
            refused("SELF", Proof::None);
            refused("NEVER", Proof::None);
        }
        assert_eq!(refusals.len(), 1, "{refusals:?}");
        let proof = Proof::Secret(Secret(&mine));
        assert!(matches!(
            decode(&Wire::hello(&server, "ATM-1", proof).1),
            Ok(Greeting::Welcome { .. })
        ));
        end(&bank, server);
    }
}

#[test]
fn another_terminals_transactions_can_be_neither_undone_nor_found_out() {
    let bank = TestBank::generate(2);
    let server = bank.serve();
    let mut customer = server.login("1", "0001");
    let (done, declined) = (TxnId::generate(), TxnId::generate());
    assert!(matches!(
        customer.withdraw(done, amount(700)),
        Ok(Outcome::Approved(..))
    ));
    assert!(matches!(
        customer.withdraw(declined, amount(9_999_999)),
        Ok(Outcome::Declined { .. })
    ));
    let mut thief = Wire::terminal(&server, "THIEF");
    let mut on = |account: u64, txn_id: TxnId| {
        let txn_id = txn_id.to_bytes();
        // More than once, since asking must not change the answer.
        thief.ask_all(&[
            RequestBody::Resolve { account, txn_id },
            RequestBody::Reverse { account, txn_id },
            RequestBody::Reverse { account, txn_id },
            RequestBody::Resolve { account, txn_id },
        ])
    };
    let never = on(1, TxnId::generate());
    assert!(
        never
            .iter()
            .all(|answer| matches!(reply(answer), ReplyBody::Never))
    );
    assert_eq!(
        on(1, done),
        never,
        "of what was done the thief is told what he is told of nothing"
    );
    assert_eq!(on(1, declined), never);
    assert_eq!(on(2, done), never, "the account on which it was not done");
    assert_eq!(balance(&server, "1", "0001"), 99_300);
    // Nor is it there for the thief's own customer, whose account is another.
    let mut accomplice = Wire::terminal(&server, "THIEF");
    accomplice.ask(login("2", "0002"));
    let (account, txn_id) = (1, done.to_bytes());
    assert_eq!(accomplice.ask(RequestBody::Reverse { account, txn_id }), never[1]);
    // An advice under such an id is refused, and credits nobody.
    let amount = 700;
    let advice = accomplice.ask(RequestBody::Advice {
        account,
        txn_id,
        amount,
    });
    assert_eq!(code(&advice), Some(ErrorCode::TxnIdReused));
    assert_eq!(balance(&server, "1", "0001"), 99_300);
    // The terminal where it was done still can do what it may.
    let undone = customer.reverse(AccountId::new(1).unwrap(), done).unwrap();
    assert!(matches!(undone, Fate::Reversed(..)), "{undone:?}");
    assert_eq!(balance(&server, "1", "0001"), 100_000);
    end(&bank, server);
}

/// What 120 tells any terminal, and what a transfer tells any customer: which account numbers there are, and nothing else.
#[test]
fn an_account_that_there_is_not_is_told_to_terminals_and_nothing_about_one_that_there_is() {
    let bank = TestBank::generate(2);
    let server = bank.serve();
    let mut stranger = Wire::terminal(&server, "STRANGER");
    let mut settle = |account| {
        let (txn_id, amount) = (TxnId::generate().to_bytes(), i64::MAX);
        stranger.ask_all(&[
            RequestBody::Resolve { account, txn_id },
            RequestBody::Reverse { account, txn_id },
            RequestBody::Advice {
                account,
                txn_id,
                amount,
            },
        ])
    };
    for answer in settle(3) {
        assert_eq!(code(&answer), Some(ErrorCode::NoSuchAccount));
    }
    let [resolved, reversed, advised] = settle(2).try_into().unwrap();
    assert_eq!(resolved, reversed);
    assert!(matches!(reply(&resolved), ReplyBody::Never));
    assert_eq!(code(&advised), Some(ErrorCode::GivenUp));
    end(&bank, server);
}

/// All sums at the edge of what a number holds, in every order that might overflow something.
#[test]
fn sums_at_the_edge_of_what_a_number_holds_break_nothing() {
    let bank = TestBank::generate(4);
    let server = bank.serve();
    let mut hostile = Wire::terminal(&server, "HOSTILE");
    for round in 0..3 {
        for account in 1..=4u64 {
            let (card, pin) = (account.to_string(), format!("{account:04}"));
            hostile.ask(login(&card, &pin));
            for amount in [i64::MAX, i64::MAX - 100_000, 1, i64::MAX - 1] {
                let txn_id = || TxnId::generate().to_bytes();
                let to = account % 4 + 1;
                let deposited = txn_id();
                let answers = hostile.ask_all(&[
                    RequestBody::Deposit {
                        txn_id: deposited,
                        amount,
                    },
                    RequestBody::Advice {
                        account: to,
                        txn_id: txn_id(),
                        amount,
                    },
                    RequestBody::Transfer {
                        txn_id: txn_id(),
                        to,
                        amount,
                    },
                    RequestBody::Reverse {
                        account,
                        txn_id: deposited,
                    },
                    RequestBody::Withdraw {
                        txn_id: txn_id(),
                        amount,
                    },
                    RequestBody::Balance,
                    RequestBody::Totals,
                ]);
                let ReplyBody::Balance { balance, .. } = reply(&answers[5]) else {
                    panic!("round {round}: {:?}", reply(&answers[5]))
                };
                // A reversal may leave less than nothing, but never less than was there.
                assert!(balance > -i64::MAX, "{balance}");
                assert!(matches!(reply(&answers[6]), ReplyBody::Totals(_)));
            }
            hostile.ask(RequestBody::Logout);
        }
    }
    end(&bank, server);
}

/// One packet with two customers in it: each request works on the account of who was logged in when it stands.
#[test]
fn customers_in_one_packet_do_not_get_mixed_up() {
    let bank = TestBank::generate(2);
    let server = bank.serve();
    let txn_id = TxnId::generate().to_bytes();
    let deposit = |amount| RequestBody::Deposit { txn_id, amount };
    let answers = Wire::terminal(&server, "ATM-1").ask_all(&[
        login("1", "0001"),
        deposit(500),
        RequestBody::Logout,
        RequestBody::Balance,
        RequestBody::Statement { lines: 100 },
        login("2", "0002"),
        deposit(700),
        RequestBody::Balance,
        RequestBody::Statement { lines: 100 },
        RequestBody::Logout,
        deposit(900),
        login("1", "0001"),
        deposit(700),
        RequestBody::Balance,
    ]);
    let shown: Vec<_> = answers
        .iter()
        .map(|answer| match reply(answer) {
            ReplyBody::LoggedIn { account, .. } => format!("in {account}"),
            ReplyBody::LoggedOut => "out".to_owned(),
            ReplyBody::Approved(receipt) => format!("+{} = {}", receipt.amount, receipt.balance),
            ReplyBody::Balance { balance, .. } => balance.to_string(),
            ReplyBody::Statement { lines, .. } => format!("{} lines", lines.len()),
            _ => code(answer).unwrap().name().to_owned(),
        })
        .collect();
    assert_eq!(
        shown,
        [
            "in 1",
            "+500 = 100500",
            "out",
            "not_logged_in",
            "not_logged_in",
            "in 2",
            "+700 = 100700",
            "100700",
            "2 lines",
            "out",
            "not_logged_in",
            "in 1",
            "txn_id_reused",
            "100500",
        ]
    );
    end(&bank, server);
}

/// A logout on one connection is no logout on another, and none of what is asked after it is done.
#[test]
fn what_is_asked_while_others_log_out_is_done_for_its_own_customer_or_not_at_all() {
    const CONNECTIONS: usize = 6;
    let bank = TestBank::generate(2);
    let server = bank.serve();
    let together = Barrier::new(CONNECTIONS);
    let approved: i64 = thread::scope(|scope| {
        let racing = |n: usize| {
            let (server, together) = (&server, &together);
            scope.spawn(move || {
                let mut wire = Wire::terminal(server, "RACER");
                let (card, pin) = if n.is_multiple_of(2) {
                    ("1", "0001")
                } else {
                    ("2", "0002")
                };
                together.wait();
                let mut approved = 0;
                for _ in 0..20 {
                    let deposit = || RequestBody::Deposit {
                        txn_id: TxnId::generate().to_bytes(),
                        amount: 1,
                    };
                    let bodies = [
                        login(card, pin),
                        deposit(),
                        deposit(),
                        RequestBody::Logout,
                        deposit(),
                    ];
                    let answers = wire.ask_all(&bodies);
                    assert!(
                        answers[1..3]
                            .iter()
                            .all(|answer| matches!(reply(answer), ReplyBody::Approved(_)))
                    );
                    assert_eq!(code(&answers[4]), Some(ErrorCode::NotLoggedIn));
                    approved += 2;
                }
                approved
            })
        };
        let threads: Vec<_> = (0..CONNECTIONS).map(racing).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let sums = [balance(&server, "1", "0001"), balance(&server, "2", "0002")];
    assert_eq!(sums, [100_000 + approved / 2; 2]);
    end(&bank, server);
}

/// A client that reads nothing is put out; the kernel would go on offering it the replies for minutes, and a client that
/// keeps coming back would have it keep ever more.
#[test]
fn what_a_client_that_was_put_out_has_not_read_is_not_kept() {
    let bank = TestBank::generate(1);
    let server = bank.serve();
    let mut wire = Wire::terminal(&server, "SLOW");
    wire.ask(login("1", "0001"));
    for _ in 0..100 {
        let txn_id = TxnId::generate().to_bytes();
        wire.ask(RequestBody::Deposit { txn_id, amount: 1 });
    }
    // As many as the server takes into its buffer, so that it closes with nothing unread, for which the kernel would reset.
    let mut packet = Vec::new();
    while packet.len() < READ_BUFFER_BYTES - 20 {
        let body = RequestBody::Statement { lines: 100 };
        encode(&Request { id: 7, body }, &mut packet);
    }
    wire.0.write_all(&packet).unwrap();
    let port = wire.0.local_addr().unwrap().port();
    // The server's end of the connection: its state and the bytes that are kept.
    let kept = || {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        sockets.lines().find_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let (bytes, _) = words[4].split_once(':')?;
            let is_it = words[2].ends_with(&format!(":{port:04X}"));
            is_it.then(|| u64::from_str_radix(bytes, 16).unwrap())
        })
    };
    let began = Instant::now();
    let mut most = 0;
    while let Some(bytes) = kept() {
        most = most.max(bytes);
        assert!(
            began.elapsed() < REPLY_DEADLINE,
            "{bytes} bytes are still kept, long after every deadline"
        );
        thread::park_timeout(CLOSE_LINGER);
    }
    assert!(most > 1000, "it has read all");
    drop(wire);
    end(&bank, server);
}

/// More guesses than a card has tries, in one packet: the fourth is not looked at, even if it is right.
#[test]
fn guesses_in_one_packet_are_counted_one_by_one() {
    let bank = TestBank::generate(1);
    let server = bank.serve();
    let mut session = server.login("1", "0001");
    let guesses = [
        login("1", "9990"),
        login("1", "9991"),
        login("1", "9992"),
        login("1", "0001"),
        login("1", "0001"),
        RequestBody::Balance,
    ];
    let answers = Wire::terminal(&server, "THIEF").ask_all(&guesses);
    assert_eq!(code(&answers[0]), Some(ErrorCode::LoginRefused));
    assert!(
        answers[..5].iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    assert_eq!(code(&answers[5]), Some(ErrorCode::NotLoggedIn));
    assert_eq!(
        session.balance().unwrap_err().code(),
        Some(ErrorCode::SessionEnded),
        "the sessions of a blocked card end"
    );
    end(&bank, server);
    assert_eq!(
        number(
            &bank,
            "SELECT count(*) FROM cards WHERE status = 'blocked' AND tries = 3"
        ),
        1
    );
}

/// The right PIN among a hundred guesses at once opens the card only if it is among the first three.
#[test]
fn of_guesses_over_a_hundred_connections_at_once_three_are_looked_at() {
    const CONNECTIONS: usize = 100;
    // A hash that takes its time, so that guesses overlap in the server.
    let bank = TestBank::generate_with(1, &["--pin-profile", "standard"]);
    let server = bank.serve();
    let mut session = server.login("1", "0001");
    let mut wires: Vec<_> = (0..CONNECTIONS)
        .map(|_| Wire::terminal(&server, "THIEF"))
        .collect();
    let together = Barrier::new(CONNECTIONS);
    let answers: Vec<Vec<u8>> = thread::scope(|scope| {
        let threads: Vec<_> = wires
            .iter_mut()
            .zip(5000..)
            .map(|(wire, pin): (_, u32)| {
                let together = &together;
                scope.spawn(move || {
                    together.wait();
                    wire.ask(login("1", &pin.to_string()))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // After some that were refused, the others are told to wait.
    let refused = |answer: &Vec<u8>| code(answer) == Some(ErrorCode::LoginRefused);
    let told_to_wait = |answer: &Vec<u8>| code(answer) == Some(ErrorCode::TooManyFailures);
    assert!(
        answers
            .iter()
            .all(|answer| refused(answer) || told_to_wait(answer)),
        "{answers:?}"
    );
    assert!(answers.iter().filter(|answer| refused(answer)).count() >= usize::from(MAX_PIN_TRIES));
    assert!(
        told_to_wait(&wires[0].ask(login("1", "0001"))),
        "even the right PIN"
    );
    assert_eq!(
        session.balance().unwrap_err().code(),
        Some(ErrorCode::SessionEnded)
    );
    end(&bank, server);
    let tries = number(&bank, "SELECT tries FROM cards WHERE status = 'blocked'");
    assert_eq!(tries, i64::from(MAX_PIN_TRIES), "exactly so many were counted");
}

/// Changes of one PIN to many at once: one is done, and only its PIN opens the card.
#[test]
fn of_changes_of_a_pin_at_once_one_is_done() {
    let bank = TestBank::generate(1);
    let server = bank.serve();
    let mut sessions = [(); 3].map(|()| {
        let mut wire = Wire::terminal(&server, "ATM-1");
        wire.ask(login("1", "0001"));
        wire
    });
    let together = Barrier::new(sessions.len());
    let news = ["7001", "7002", "7003"];
    let changed: Vec<&str> = thread::scope(|scope| {
        let threads: Vec<_> = sessions
            .iter_mut()
            .zip(news)
            .map(|(wire, new)| {
                let together = &together;
                scope.spawn(move || {
                    together.wait();
                    let (old, new_pin) = (Secret("0001"), Secret(new));
                    let answer = wire.ask(RequestBody::ChangePin { old, new: new_pin });
                    matches!(reply(&answer), ReplyBody::PinChanged).then_some(new)
                })
            })
            .collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().unwrap())
            .collect()
    });
    let [changed] = changed[..] else {
        panic!("all of {changed:?} were told that theirs is the PIN")
    };
    let mut wire = Wire::terminal(&server, "ATM-1");
    assert!(matches!(
        reply(&wire.ask(login("1", changed))),
        ReplyBody::LoggedIn { .. }
    ));
    wire.ask(RequestBody::Logout);
    let stale = news.into_iter().find(|new| *new != changed).unwrap();
    for pin in ["0001", stale] {
        assert_eq!(
            code(&wire.ask(login("1", pin))),
            Some(ErrorCode::LoginRefused),
            "{pin}"
        );
    }
    end(&bank, server);
}

/// Guesses at `ChangePin` are tries as at `Login`: a session that somebody left open is no way around the count.
#[test]
fn guesses_through_an_open_session_block_the_card_and_end_it() {
    let bank = TestBank::generate(1);
    let server = bank.serve();
    let mut wire = Wire::terminal(&server, "ATM-1");
    let guess = |old| RequestBody::ChangePin {
        old: Secret(old),
        new: Secret("8642"),
    };
    let answers = wire.ask_all(&[
        login("1", "0001"),
        guess("9990"),
        guess("9991"),
        guess("9992"),
        guess("0001"),
        RequestBody::Balance,
        login("1", "0001"),
    ]);
    let codes: Vec<_> = answers[1..].iter().map(|answer| code(answer)).collect();
    let (refused, ended, out) = (
        ErrorCode::LoginRefused,
        ErrorCode::SessionEnded,
        ErrorCode::NotLoggedIn,
    );
    assert_eq!(codes, [refused, refused, refused, ended, out, refused].map(Some));
    end(&bank, server);
}

/// The 65th that is refused waits until one of the 64 before it has left or been given up, and so does whoever comes after it.
#[test]
fn when_too_many_are_being_refused_the_others_wait_and_are_served_in_their_turn() {
    let bank = TestBank::generate(1);
    let server = bank.serve_with(&["--connections", "1"]);
    let mut honest = server.login("1", "0001");
    // They are told, and do not leave.
    let crowd: Vec<_> = (0..300).map(|_| server.socket()).collect();
    honest.deposit(TxnId::generate(), amount(1)).unwrap();
    for mut one in crowd {
        let mut said = Vec::new();
        one.read_to_end(&mut said).unwrap();
        let (body, used) = split(&said, MAX_REPLY_BYTES).unwrap().unwrap();
        assert!(matches!(decode(body), Ok(Greeting::Refused { code: 114, .. })));
        assert_eq!(used, said.len());
    }
    drop(honest);
    let full = || {
        let (_, greeting) = Wire::hello(&server, "ATM-1", Proof::None);
        matches!(decode(&greeting), Ok(Greeting::Refused { .. }))
    };
    // The place is free as soon as the server has seen its holder leave.
    while full() {}
    end(&bank, server);
}

/// The server's open files would grow without an end if it accepted and told everybody at once.
#[test]
fn accepting_stops_while_as_many_are_being_refused_as_may_be() {
    let bank = TestBank::generate(1);
    let server = bank.serve_with(&["--connections", "1"]);
    let honest = server.client();
    let most = thread::scope(|scope| {
        let (crowd, come) = mpsc::channel();
        scope.spawn({
            let server = &server;
            move || {
                let crowd_of: Vec<_> = (0..400).map(|_| server.socket()).collect();
                drop(crowd);
                for mut one in crowd_of {
                    let _ = one.read_to_end(&mut Vec::new());
                }
            }
        });
        let mut most = 0;
        while come.try_recv() == Err::<(), _>(mpsc::TryRecvError::Empty) {
            let files = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
            most = most.max(files.count());
        }
        most
    });
    assert!(most > 64, "{most}");
    // Besides the refused: the one who is served, the next who waits, the bank file, the log and the runtime.
    assert!(most < 64 + 50, "{most} files were open");
    drop(honest);
    end(&bank, server);
}

/// Runs `atm-stress attack`, and gives its exit code, what it printed, and its figures.
fn attack(arguments: &[&str]) -> (Option<i32>, String, Option<serde_json::Value>) {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("figures.json");
    let run = Command::new(program("atm-stress"))
        .arg("attack")
        .args(arguments)
        .arg("--json")
        .arg(&file)
        .output()
        .unwrap();
    let figures = std::fs::read_to_string(file).ok();
    let figures = figures.and_then(|figures| serde_json::from_str(&figures).ok());
    (run.status.code(), stdout(&run) + &stderr(&run), figures)
}

#[test]
fn slow_clients_are_put_out_and_the_honest_are_served() {
    let (code, text, figures) = attack(&[
        "slowloris",
        "--connections",
        "100",
        "--honest",
        "4",
        "--duration",
        "1",
        "--rounds",
        "1",
    ]);
    assert_eq!(code, Some(0), "{text}");
    let figures = figures.unwrap();
    for kind in ["says_nothing", "drips_a_hello", "drips_a_request"] {
        assert!(figures[kind]["told_why"].as_u64() >= Some(25), "{text}");
    }
    assert!(figures["never_reads"]["put_out"].as_u64() >= Some(25), "{text}");
    assert!(
        figures["memory"]["most_unread"].as_u64() > Some(100_000),
        "nobody was slow to read: {text}"
    );
}

/// The answers are judged here; the times are, where the machine is left alone, by the checks before a change lands.
#[test]
fn refusals_are_alike_byte_for_byte() {
    let (code, text, figures) = attack(&["enumeration", "--tries", "10", "--pin-profile", "fast"]);
    assert!(text.contains("unknown card and wrong PIN"), "{text}");
    // With so few tries four standard errors are more than half, so nothing is told by time.
    assert_eq!(code, Some(0), "{text}");
    assert!(figures.unwrap()["blocked_card_auc"]["auc"].is_number(), "{text}");
}
