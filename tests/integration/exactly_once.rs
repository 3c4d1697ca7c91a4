//! One id, one outcome, whoever asks how often, when and over what.

use std::io::{Read, Write};
use std::sync::Barrier;
use std::thread;

use atm_cli::connection::{Connection, ConnectionError, Fate, Outcome};
use atm_tests::{Server, TestBank};
use bank_core::limits::{MAX_REPLY_BYTES, RECENT_IDS};
use bank_core::protocol::{
    ErrorCode, Hello, MAGIC, Proof, Receipt, Reply, ReplyBody, Request, RequestBody, Secret, VERSION, decode,
    encode, split,
};
use bank_core::{AccountId, Amount, Moment, Timestamp, TxnId};

fn amount(minor: i64) -> Amount {
    Amount::from_minor(minor).unwrap()
}

fn id(number: u64) -> AccountId {
    AccountId::new(number).unwrap()
}

fn login(server: &Server) -> Connection {
    server.login("1", "0001")
}

/// One of each kind of outcome, asked for by `ask`.
fn ask_all(connection: &mut Connection, ids: [TxnId; 4]) -> [Outcome; 4] {
    [
        connection.deposit(ids[0], amount(500)).unwrap(),
        connection.withdraw(ids[1], amount(200)).unwrap(),
        connection.withdraw(ids[2], amount(99_999_999)).unwrap(),
        connection.transfer(ids[3], id(2), amount(300)).unwrap(),
    ]
}

fn balance(connection: &mut Connection) -> i64 {
    connection.balance().unwrap().balance.minor()
}

#[test]
fn a_repeat_is_answered_with_the_first_receipt_through_reconnect_restart_and_kill() {
    let bank = TestBank::generate(3);
    let mut server = bank.serve();
    let mut connection = login(&server);
    let ids = [(); 4].map(|()| TxnId::generate());
    let first = ask_all(&mut connection, ids);
    let after = balance(&mut connection);
    assert_eq!(ask_all(&mut connection, ids), first, "on the same connection");
    assert_eq!(ask_all(&mut login(&server), ids), first, "on another one");
    for killed in [true, false] {
        if killed {
            server.kill();
        } else {
            assert!(server.stop().0.success());
        }
        server = bank.serve();
        let mut connection = login(&server);
        assert_eq!(
            ask_all(&mut connection, ids),
            first,
            "after a restart, killed: {killed}"
        );
        assert_eq!(balance(&mut connection), after);
    }
    drop(server);
    bank.assert_verifies();
}

#[test]
fn asked_at_once_over_many_connections_it_is_done_once() {
    const CONNECTIONS: usize = 8;
    let bank = TestBank::generate(2);
    let server = bank.serve();
    let together = Barrier::new(CONNECTIONS);
    let ids: Vec<_> = (0..50).map(|_| TxnId::generate()).collect();
    let told: Vec<Vec<Outcome>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let mut connection = login(&server);
                let (ids, together) = (&ids, &together);
                scope.spawn(move || {
                    ids.iter()
                        .map(|&id| {
                            together.wait();
                            connection.withdraw(id, amount(10)).unwrap()
                        })
                        .collect()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(told.iter().all(|outcomes| *outcomes == told[0]));
    assert_eq!(balance(&mut login(&server)), 100_000 - 50 * 10);
    assert!(server.stop().0.success());
    bank.assert_verifies();
}

/// Sends requests all at once on a connection of its own, and gives the replies' receipts and rows.
fn pipelined(server: &Server, ids: &[TxnId]) -> Vec<(u64, Receipt)> {
    let mut socket = server.socket();
    let mut out = Vec::new();
    encode(
        &Hello {
            magic: MAGIC,
            version: VERSION,
            terminal: "TEST",
            proof: Proof::None,
        },
        &mut out,
    );
    let login = RequestBody::Login {
        card: "1",
        pin: Secret("0001"),
    };
    encode(&Request { id: 1, body: login }, &mut out);
    for (n, txn_id) in (2..).zip(ids) {
        let body = RequestBody::Deposit {
            txn_id: txn_id.to_bytes(),
            amount: 1,
        };
        encode(&Request { id: n, body }, &mut out);
    }
    let writer = {
        let mut socket = socket.try_clone().unwrap();
        thread::spawn(move || socket.write_all(&out).unwrap())
    };
    let (mut received, mut receipts, mut frames) = (Vec::new(), Vec::new(), 0);
    let mut chunk = [0; 16 * 1024];
    while receipts.len() < ids.len() {
        let mut taken = 0;
        while let Some((body, used)) = split(&received[taken..], MAX_REPLY_BYTES).unwrap() {
            // The welcome and the login come first.
            if frames >= 2 {
                let reply: Reply<'_> = decode(body).unwrap();
                let ReplyBody::Approved(receipt) = reply.body else {
                    panic!("{reply:?}");
                };
                receipts.push((reply.lsn, receipt));
            }
            frames += 1;
            taken += used;
        }
        received.drain(..taken);
        if receipts.len() < ids.len() {
            let bytes = socket.read(&mut chunk).unwrap();
            assert!(bytes > 0, "the server hung up");
            received.extend_from_slice(&chunk[..bytes]);
        }
    }
    writer.join().unwrap();
    receipts
}

#[test]
fn a_hot_account_with_a_thousand_repeats_in_flight_counts_each_once() {
    let bank = TestBank::generate(1);
    let server = bank.serve();
    // Every id comes twice on each of two connections, close together and far apart.
    let ids: Vec<_> = (0..1000).map(|_| TxnId::generate()).collect();
    let twice: Vec<_> = ids.iter().flat_map(|&id| [id, id]).collect();
    let again: Vec<_> = ids.iter().chain(&ids).copied().collect();
    let (first, second) = thread::scope(|scope| {
        let first = scope.spawn(|| pipelined(&server, &twice));
        let second = scope.spawn(|| pipelined(&server, &again));
        (first.join().unwrap(), second.join().unwrap())
    });
    for (n, pair) in first.chunks(2).enumerate() {
        assert_eq!(pair[0], pair[1]);
        assert_eq!((pair[0], pair[0]), (second[n], second[n + ids.len()]));
    }
    assert_eq!(balance(&mut login(&server)), 100_000 + 1000);
    drop(server);
    bank.assert_verifies();
}

#[test]
fn an_id_is_known_after_thousands_of_others_and_what_was_never_used_is_stale() {
    let bank = TestBank::generate(1);
    let server = bank.serve();
    let never_used = TxnId::generate();
    let mut connection = login(&server);
    let early = TxnId::generate();
    let first = connection.deposit(early, amount(7)).unwrap();
    let ids: Vec<_> = (0..RECENT_IDS + 100).map(|_| TxnId::generate()).collect();
    pipelined(&server, &ids);
    assert_eq!(connection.deposit(early, amount(7)).unwrap(), first);
    let Err(ConnectionError::StaleId { newest }) = connection.deposit(never_used, amount(7)) else {
        panic!("it might be one that the account has forgotten");
    };
    assert!(newest >= Timestamp::from(early));
    assert_eq!(balance(&mut connection), 100_000 + 7 + RECENT_IDS as i64 + 100);
    let code = |result: Result<Outcome, ConnectionError>| result.unwrap_err().code();
    let other = connection.withdraw(early, amount(7));
    assert_eq!(code(other), Some(ErrorCode::TxnIdReused));
    let far = TxnId::at(Timestamp::from_millis(Moment::now().time.millis() + 400_000));
    assert_eq!(
        code(connection.deposit(far, amount(7))),
        Some(ErrorCode::TxnIdAhead)
    );
    assert!(server.stop().0.success());
    bank.assert_verifies();
}

#[test]
fn a_terminal_settles_its_own_originals_without_a_login_and_nobody_elses() {
    let bank = TestBank::generate(2);
    let mut server = bank.serve();
    let [done, lost, undone] = [(); 3].map(|()| TxnId::generate());
    let mut connection = login(&server);
    let Outcome::Approved(lsn, receipt) = connection.withdraw(done, amount(10)).unwrap() else {
        panic!("it is covered");
    };
    connection.withdraw(undone, amount(20)).unwrap();
    let advice = TxnId::generate();
    for killed in [false, true] {
        let mut terminal = server.client();
        let mut other = Connection::connect(server.address(), "OTHER".parse().unwrap()).unwrap();
        assert_eq!(
            terminal.resolve(id(1), done).unwrap(),
            Fate::Applied(lsn, receipt)
        );
        assert_eq!(terminal.resolve(id(1), lost).unwrap(), Fate::Never);
        assert!(matches!(
            terminal.reverse(id(1), undone).unwrap(),
            Fate::Reversed(..)
        ));
        for original in [done, undone, advice] {
            assert_eq!(other.resolve(id(1), original).unwrap(), Fate::Never);
            assert_eq!(other.reverse(id(1), original).unwrap(), Fate::Never);
        }
        assert!(matches!(
            login(&server).withdraw(lost, amount(5)).unwrap(),
            Outcome::Declined { code: 11, .. }
        ));
        // The other terminal has given this one up, so nobody credits it any more.
        let credited = terminal.advice(id(1), advice, amount(40));
        assert_eq!(credited.unwrap_err().code(), Some(ErrorCode::TxnIdReused));
        let (_, totals) = terminal.totals().unwrap();
        assert_eq!(totals[0].1.minor(), -10);
        if !killed {
            server.kill();
            server = bank.serve();
        }
    }
    assert!(server.stop().0.success());
    bank.assert_verifies();
}
