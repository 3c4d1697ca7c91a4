//! The stress harness, small, so that it does not rot; and that it would notice.

use std::future::Future;
use std::process::Command;
use std::time::Duration;

use atm_tests::stress::load::{Load, MOST_OUTSTANDING, Measured, watch};
use atm_tests::{TestBank, program, stdout};
use bank_core::limits::MAX_REQUEST_BYTES;
use bank_core::protocol::{Greeting, HEAD_BYTES, Receipt, Reply, ReplyBody, VERSION, encode, split};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

#[test]
fn a_run_tells_its_figures_and_that_the_money_is_all_there() {
    let bank = TestBank::generate(20);
    let server = bank.serve();
    let file = bank.directory().join("figures.json");
    for accounts in ["uniform", "zipf", "hot"] {
        let run = Command::new(program("atm-stress"))
            .args([
                "run",
                "--server",
                server.address(),
                "--cards",
                "20",
                "--connections",
                "8",
                "--duration",
                "0.2",
            ])
            .args([
                "--pipeline",
                "4",
                "--mix",
                "deposit=2,withdraw,transfer,balance",
                "--accounts",
                accounts,
                "--json",
            ])
            .arg(&file)
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", atm_tests::stderr(&run));
        assert!(
            stdout(&run).contains("the money is all there"),
            "{}",
            stdout(&run)
        );
        let figures: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(figures["conserved"], true);
        assert!(
            figures["answers"].as_u64().unwrap() >= 32
                && figures["latency_us"]["p99"].as_f64().unwrap() > 0.0
        );
    }
    assert!(server.stop().0.success());
    bank.assert_verifies();
}

/// The times at which requests are due are fixed by the seed, so what was due is a number that no machine changes; and half of
/// what is due here is due in the warm-up.
#[test]
fn an_open_loop_tells_what_was_due_and_draws_a_picture() {
    let bank = TestBank::generate(50);
    let server = bank.serve();
    let (json, svg) = (
        bank.directory().join("figures.json"),
        bank.directory().join("load.svg"),
    );
    let run = Command::new(program("atm-stress"))
        .args(["run", "--server", server.address(), "--cards", "50"])
        .args(["--rate", "2000", "--warm-up", "0.3", "--duration", "0.3"])
        .args(["--connections", "16", "--accounts", "zipf"])
        .args(["--mix", "deposit,withdraw,transfer"])
        .arg("--json")
        .arg(&json)
        .arg("--plot")
        .arg(&svg)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", atm_tests::stderr(&run));
    for words in [
        "open loop at 2,000 requests/s",
        "zipf",
        "sent late",
        "the money is all there",
    ] {
        assert!(
            stdout(&run).contains(words),
            "{words:?} is not in\n{}",
            stdout(&run)
        );
    }
    let figures: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let number = |name: &str| figures[name].as_f64().unwrap();
    let due = number("answers") + number("unsent");
    assert!((500.0..700.0).contains(&due), "{due} were due");
    assert_eq!((number("offered_per_second") * 0.3).round(), due);
    assert!(number("declined") < due && !figures["steps"].as_array().unwrap().is_empty());
    let svg = std::fs::read_to_string(svg).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    for words in [
        "16 connections",
        "answers per second",
        "percentile of answers",
        "99%",
        "requests due",
    ] {
        assert!(svg.contains(words), "{words:?} is not in the picture");
    }
    assert!(server.stop().0.success());
    bank.assert_verifies();
}

/// A server that greets one client, and answers nothing until so many requests have come and `release` is done.
async fn stall(listener: TcpListener, requests: usize, release: impl Future) -> Option<()> {
    let receipt = Receipt {
        txn_id: [7; 16],
        time: 0,
        amount: 1,
        balance: 1,
        currency: *b"USD",
        head: [7; HEAD_BYTES],
    };
    let welcome = Greeting::Welcome {
        version: VERSION,
        server_time: 0,
        max_request_bytes: 0,
        max_reply_bytes: 0,
    };
    let mut release = Some(Box::pin(release));
    let mut stream = listener.accept().await.unwrap().0;
    let (mut received, mut replies, mut count) = (Vec::new(), Vec::new(), 0);
    loop {
        while let Some((body, used)) = split(&received, MAX_REQUEST_BYTES).unwrap() {
            match count {
                0 => encode(&welcome, &mut replies),
                _ => encode(
                    &Reply {
                        id: body[0].into(),
                        lsn: 1,
                        body: ReplyBody::Approved(receipt),
                    },
                    &mut replies,
                ),
            }
            count += 1;
            received.drain(..used);
        }
        if count > requests
            && let Some(release) = release.take()
        {
            release.await;
        }
        if count == 1 || release.is_none() {
            stream.write_all(&replies).await.ok()?;
            replies.clear();
        }
        stream
            .read_buf(&mut received)
            .await
            .ok()
            .filter(|&bytes| bytes > 0)?;
    }
}

/// An open loop of one connection on a server that stalls. `release` is told once the load is well over.
fn on_a_stalling_server(rate: f64, stalled: usize, until_the_end: bool) -> Measured {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (over, release) = oneshot::channel();
        let mut over = Some(over).filter(|_| until_the_end);
        let server = tokio::spawn(stall(listener, stalled, release));
        let load = Load {
            rate: Some(rate),
            ..Load::new(1, 0, Duration::from_millis(200))
        };
        let measured = watch(&address, &load, |step, _| {
            if step.to > load.duration * 2 {
                over.take().map(|over| over.send(()));
            }
        });
        let measured = measured.await.unwrap();
        server.abort();
        measured
    })
}

/// The server answers nothing before it has a hundred requests, which a closed loop would never send. The first was due
/// long before the hundredth, and its latency tells so, however fast the machine is.
#[test]
fn an_open_loop_goes_on_sending_and_does_not_hide_a_stall() {
    let measured = on_a_stalling_server(1000.0, 100, false);
    assert!(measured.answers >= 100, "{} answers", measured.answers);
    assert!(
        measured.latency_us(100.0) > 60_000.0,
        "a hundred requests at a thousand a second"
    );
    assert!(measured.latency_us(0.0) < measured.latency_us(100.0));
}

/// The bound on what is outstanding holds, and what could not be sent for it is told and not forgotten.
#[test]
fn an_open_loop_tells_what_it_never_sent() {
    let measured = on_a_stalling_server(20_000.0, MOST_OUTSTANDING, true);
    let open = measured.open.as_ref().unwrap();
    assert_eq!(measured.answers, MOST_OUTSTANDING as u64);
    assert_eq!(
        (open.offered * 0.2).round() as u64,
        measured.answers + open.unsent
    );
    assert!(
        (2500..3500).contains(&open.unsent),
        "{} of about 4000 less {MOST_OUTSTANDING}",
        open.unsent
    );
}

#[test]
fn a_load_that_cannot_be_is_refused() {
    for wrong in [
        &["--rate", "0"][..],
        &["--rate", "nan"],
        &["--rate", "10", "--pipeline", "2"],
        &["--zipf-exponent", "-1"],
        &["--duration", "soon"],
        &["--warm-up", "-1"],
        &["--echo", "--server", "127.0.0.1:1"],
    ] {
        let run = Command::new(program("atm-stress"))
            .arg("run")
            .args(wrong)
            .output()
            .unwrap();
        assert_eq!(
            run.status.code(),
            Some(2),
            "{wrong:?}: {}",
            atm_tests::stderr(&run)
        );
    }
}

/// Money that comes from elsewhere while the load lasts is money that the load cannot account for.
#[test]
fn a_run_notices_money_that_it_did_not_move() {
    let bank = TestBank::generate(1);
    let server = bank.serve();
    let mut other = server.login("1", "0001");
    let mut run = Command::new(program("atm-stress"))
        .args([
            "run",
            "--server",
            server.address(),
            "--cards",
            "1",
            "--connections",
            "1",
            "--duration",
            "1",
        ])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let amount = bank_core::Amount::from_minor(1).unwrap();
    while run.try_wait().unwrap().is_none() {
        other.deposit(bank_core::TxnId::generate(), amount).unwrap();
    }
    let run = run.wait_with_output().unwrap();
    assert_eq!(run.status.code(), Some(1));
    assert!(
        stdout(&run).contains("MONEY IS NOT CONSERVED: account 1"),
        "{}",
        stdout(&run)
    );
}

#[test]
fn a_load_on_a_bank_that_does_not_fit_is_explained() {
    let bank = TestBank::load("Ken,2468,1\n");
    let server = bank.serve();
    let run = Command::new(program("atm-stress"))
        .args(["run", "--server", server.address()])
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(1));
    assert!(
        atm_tests::stderr(&run).contains("atm-server generate"),
        "{}",
        atm_tests::stderr(&run)
    );
}

#[test]
fn a_bench_tells_each_work_beside_the_echo_server() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bench.json");
    let bench = Command::new(program("atm-stress"))
        .args(["bench", "--rounds", "2", "--seconds", "0.05", "--accounts", "50"])
        .args([
            "--connections",
            "1,4",
            "--pipeline",
            "1,3",
            "--echo-workers",
            "2",
            "--json",
        ])
        .arg(&file)
        .output()
        .unwrap();
    assert!(bench.status.success(), "{}", atm_tests::stderr(&bench));
    let figures: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let mut rows = Vec::new();
    for row in figures["rows"].as_array().unwrap() {
        let number = |value: &serde_json::Value| value.as_f64().unwrap();
        let spread = |ratio: &serde_json::Value| {
            assert!(0.0 < number(&ratio["min"]), "{row}");
            assert!(number(&ratio["min"]) <= number(&ratio["median"]), "{row}");
            assert!(number(&ratio["median"]) <= number(&ratio["max"]), "{row}");
        };
        spread(&row["ratio_to_echo"]);
        let latency = &row["latency_us"];
        assert!(number(&latency["p50"]) <= number(&latency["p99"]), "{row}");
        assert!(number(&latency["p99"]) <= number(&latency["p999"]), "{row}");
        assert!(
            number(&row["per_second"]) > 0.0 && number(&row["echo_per_second"]) > 0.0,
            "{row}"
        );
        let work = row["work"].as_str().unwrap().to_owned();
        let (connections, pipeline) = (number(&row["connections"]), number(&row["pipeline"]));
        if (work.as_str(), connections, pipeline) == ("transaction", 1.0, 1.0) {
            spread(&row["ratio_to_sqlite"]);
        } else {
            assert!(row["ratio_to_sqlite"].is_null(), "{row}");
        }
        rows.push((connections, pipeline, work));
    }
    let expected: Vec<_> = [(1.0, 1.0), (1.0, 3.0), (4.0, 1.0), (4.0, 3.0)]
        .into_iter()
        .flat_map(|(connections, pipeline)| {
            ["transaction", "balance", "hot"].map(|work| (connections, pipeline, work.to_owned()))
        })
        .collect();
    assert_eq!(rows, expected);
    assert!(stdout(&bench).contains("hot/transaction"), "{}", stdout(&bench));
}
