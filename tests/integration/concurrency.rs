//! Many sessions at once.

use std::sync::Barrier;
use std::thread;

use atm_cli::connection::Outcome;
use atm_tests::TestBank;
use bank_core::{AccountId, Amount, Money, TxnId};

#[test]
fn two_hundred_sessions_on_one_joint_account_add_up_exactly() {
    const SESSIONS: u64 = 200;
    const EACH: u64 = 20;
    // Every session has a card of its own on the one account.
    let rows: String = (0..SESSIONS)
        .map(|n| format!("Holder {n},{:04},1,{}\n", n, if n == 0 { "0" } else { "" }))
        .collect();
    let bank = TestBank::load(&format!("holder,pin,account,balance\n{rows}"));
    let server = bank.serve();
    let together = Barrier::new(SESSIONS as usize);
    let withdrawn: i64 = thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|n| {
                let (server, together) = (&server, &together);
                scope.spawn(move || {
                    let mut client = server.login(&format!("Holder {n}"), &format!("{n:04}"));
                    together.wait();
                    (0..EACH)
                        .map(|i| {
                            let amount = Amount::from_minor((n * EACH + i) as i64 + 1).unwrap();
                            assert!(matches!(
                                client.deposit(TxnId::generate(), amount),
                                Ok(Outcome::Approved(..))
                            ));
                            let one = Amount::from_minor(1).unwrap();
                            match client.withdraw(TxnId::generate(), one).unwrap() {
                                Outcome::Approved(..) => 1,
                                declined => panic!("{declined:?}"),
                            }
                        })
                        .sum::<i64>()
                })
            })
            .collect();
        sessions.into_iter().map(|session| session.join().unwrap()).sum()
    });
    let deposited: i64 = (1..=(SESSIONS * EACH) as i64).sum();
    let balance = server.login("Holder 7", "0007").balance().unwrap();
    assert_eq!(balance.balance, Money::from_minor(deposited - withdrawn));
    assert!(server.stop().0.success());
    bank.assert_verifies();
}

/// Transfers round a ring lock every pair of neighbours in both orders; a dead lock would never end.
#[test]
fn transfers_in_all_directions_neither_lock_up_nor_lose_a_cent() {
    const ACCOUNTS: u64 = 4;
    let bank = TestBank::generate(ACCOUNTS);
    let server = bank.serve();
    thread::scope(|scope| {
        for n in 1..=ACCOUNTS {
            for step in 1..ACCOUNTS {
                let server = &server;
                scope.spawn(move || {
                    let mut client = server.login(&n.to_string(), &format!("{n:04}"));
                    let to = AccountId::new((n - 1 + step) % ACCOUNTS + 1).unwrap();
                    for _ in 0..50 {
                        client
                            .transfer(TxnId::generate(), to, Amount::from_minor(777).unwrap())
                            .unwrap();
                    }
                });
            }
        }
    });
    let total: i64 = (1..=ACCOUNTS)
        .map(|n| {
            server
                .login(&n.to_string(), &format!("{n:04}"))
                .balance()
                .unwrap()
                .balance
                .minor()
        })
        .sum();
    assert_eq!(total, ACCOUNTS as i64 * 100_000);
    assert!(server.stop().0.success());
    bank.assert_verifies();
}

#[test]
fn three_tries_are_three_however_many_guess_at_once() {
    let bank = TestBank::load("Ken,2468,100\n");
    let server = bank.serve();
    let together = Barrier::new(100);
    // Nobody guesses right, so each guess that is looked at is counted.
    thread::scope(|scope| {
        for n in 0..100 {
            let (server, together) = (&server, &together);
            scope.spawn(move || {
                let mut client = server.client();
                let card = bank_core::CardNumber::new("Ken").unwrap();
                together.wait();
                assert!(client.login(&card, &format!("{n:04}")).is_err());
            });
        }
    });
    drop(server);
    let file = rusqlite::Connection::open(bank.path()).unwrap();
    let (tries, status): (i64, String) = file
        .query_row("SELECT tries, status FROM cards", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!((tries, status.as_str()), (3, "blocked"));
}
