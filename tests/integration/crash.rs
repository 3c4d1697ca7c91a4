//! Servers killed in the middle of their work, and what the bank file then holds.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use atm_cli::connection::{self, ConnectionError, Outcome};
use atm_tests::{Server, TestBank, program};
use bank_core::{AccountId, Amount, Lsn, Money, TxnId};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rusqlite::{Connection, OpenFlags};

/// Something that the server told a client: after row `lsn` the account had this balance.
#[derive(Debug, Clone, Copy)]
struct Told {
    account: u64,
    lsn: Lsn,
    balance: Money,
}

const ACCOUNTS: u64 = 8;
const CLIENTS: u64 = 16;

#[test]
fn whatever_was_acknowledged_is_in_the_file_after_twenty_kills_under_load() {
    let bank = TestBank::generate(ACCOUNTS);
    let told = Mutex::new(Vec::new());
    let mut random = StdRng::seed_from_u64(2);
    for _ in 0..20 {
        let server = bank.serve();
        let kill_at = random.random_range(1..600);
        kill_under_load(server, kill_at, random.random(), &told);
        let file = Connection::open_with_flags(bank.path(), OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
        check_told(&file, &told.lock().unwrap());
    }
    let told = told.into_inner().unwrap();
    assert!(
        told.len() > 1000,
        "only {} replies came: the load was none",
        told.len()
    );
    bank.assert_verifies();
    // What the restarted server says is what the file says.
    let server = bank.serve();
    for account in 1..=ACCOUNTS {
        let balance = login(&server, account).unwrap().balance().unwrap();
        let file = Connection::open(bank.path()).unwrap();
        check_told(
            &file,
            &[Told {
                account,
                lsn: balance.lsn,
                balance: balance.balance,
            }],
        );
    }
}

fn login(server: &Server, account: u64) -> Result<connection::Connection, ConnectionError> {
    let mut client = connection::Connection::connect(server.address(), "TEST".parse().unwrap())?;
    client.login(&account.to_string().parse().unwrap(), &format!("{account:04}"))?;
    Ok(client)
}

/// Lets clients work until the server has given `kill_at` answers, kills it, and keeps what it told them.
fn kill_under_load(server: Server, kill_at: u64, seed: u64, told: &Mutex<Vec<Told>>) {
    let answers = AtomicU64::new(0);
    let server_slot = Mutex::new(Some(server));
    thread::scope(|scope| {
        for n in 0..CLIENTS {
            let (answers, server_slot) = (&answers, &server_slot);
            let account = n % ACCOUNTS + 1;
            let guard = server_slot.lock().unwrap();
            let Some(server) = guard.as_ref() else { break };
            let Ok(mut client) = login(server, account) else {
                break;
            };
            drop(guard);
            scope.spawn(move || {
                let mut random = StdRng::seed_from_u64(seed ^ n);
                while let Ok(heard) = ask(&mut client, account, &mut random) {
                    told.lock().unwrap().extend(heard);
                    if answers.fetch_add(1, Ordering::SeqCst) + 1 == kill_at
                        && let Some(server) = server_slot.lock().unwrap().take()
                    {
                        server.kill();
                    }
                }
            });
        }
    });
    assert!(
        server_slot.lock().unwrap().is_none(),
        "the server was killed under load"
    );
}

fn ask(
    client: &mut connection::Connection,
    account: u64,
    random: &mut StdRng,
) -> Result<Option<Told>, ConnectionError> {
    let amount = Amount::from_minor(random.random_range(1..5000)).unwrap();
    let outcome = match random.random_range(0..4) {
        0 => {
            let balance = client.balance()?;
            return Ok(Some(Told {
                account,
                lsn: balance.lsn,
                balance: balance.balance,
            }));
        }
        1 => client.deposit(TxnId::generate(), amount)?,
        2 => client.withdraw(TxnId::generate(), amount)?,
        _ => {
            let to = AccountId::new(random.random_range(1..=ACCOUNTS + 1)).unwrap();
            client.transfer(TxnId::generate(), to, amount)?
        }
    };
    let (Outcome::Approved(lsn, receipt) | Outcome::Declined { lsn, receipt, .. }) = outcome;
    Ok(Some(Told {
        account,
        lsn,
        balance: Money::from_minor(receipt.balance),
    }))
}

/// Each thing told must stand in the journal, in exactly the row that was named.
fn check_told(file: &Connection, told: &[Told]) {
    let mut select = file
        .prepare("SELECT account, balance, contra, contra_balance FROM journal WHERE lsn = ?1")
        .unwrap();
    let mut seen: HashMap<u64, [(i64, Option<i64>); 2]> = HashMap::new();
    for Told {
        account,
        lsn,
        balance,
    } in told
    {
        let sides = seen.entry(lsn.get()).or_insert_with(|| {
            select
                .query_row([lsn.get() as i64], |row| {
                    Ok([(row.get(0)?, row.get(1)?), (row.get(2)?, row.get(3)?)])
                })
                .unwrap_or_else(|error| panic!("row {lsn}, which was acknowledged, is lost: {error}"))
        });
        let expected = (*account as i64, Some(balance.minor()));
        assert!(
            sides.contains(&expected),
            "row {lsn} says {sides:?}, but account {account} was told {balance:?}"
        );
    }
}

#[test]
fn a_deposit_survives_kill_9_and_a_restart() {
    let bank = TestBank::load("Ken,2468,100.00\n");
    let server = bank.serve();
    let options = ["--card", "Ken", "--pin-file", "-"];
    let deposited = server.atm_cli(&[&["deposit", "20"], &options[..]].concat(), "2468\n");
    assert!(deposited.status.success());
    server.kill();
    bank.assert_verifies();
    let server = bank.serve();
    let balance = server.atm_cli(&[&["balance"], &options[..]].concat(), "2468\n");
    assert_eq!(atm_tests::stdout(&balance), "120.00 USD\n");
    assert!(server.stop().0.success());
    bank.assert_verifies();
}

#[test]
fn a_load_that_is_killed_leaves_the_old_bank_or_the_new() {
    let bank = TestBank::load("Ken,2468,100.00\n");
    let rows: String = (0..20_000).map(|n| format!("Holder {n},1234,1\n")).collect();
    let list = bank.write("many.csv", format!("holder,pin,balance\n{rows}"));
    let written = || std::fs::metadata(bank.directory().join("bank.db.loading")).map(|file| file.len());
    for bytes in [0, 1, 500_000, 1_500_000, 3_000_000, u64::MAX] {
        let mut loading = std::process::Command::new(program("atm-server"))
            .args([
                "load",
                list.to_str().unwrap(),
                "--pin-profile",
                "fast",
                "--replace",
            ])
            .env("ATM_BANK", bank.path())
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // Killed while it hashes PINs, as soon as it has written so much, or when it was done.
        while bytes > 0
            && !written().is_ok_and(|found| found >= bytes)
            && loading.try_wait().unwrap().is_none()
        {
            thread::yield_now();
        }
        loading.kill().unwrap();
        loading.wait().unwrap();
        bank.assert_verifies();
        let file = Connection::open(bank.path()).unwrap();
        let accounts: i64 = file
            .query_row("SELECT count(*) FROM accounts", [], |row| row.get(0))
            .unwrap();
        let expected: &[i64] = if bytes == u64::MAX {
            &[20_000]
        } else {
            &[1, 20_000]
        };
        assert!(
            expected.contains(&accounts),
            "a bank of {accounts} accounts, neither the old nor the new"
        );
    }
    // And a load that is let through works, whatever the killed ones left behind.
    let loaded = bank.server_command(&[
        "load",
        list.to_str().unwrap(),
        "--pin-profile",
        "fast",
        "--replace",
    ]);
    assert!(loaded.status.success(), "{}", atm_tests::stderr(&loaded));
    bank.assert_verifies();
}
