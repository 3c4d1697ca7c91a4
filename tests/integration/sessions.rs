//! What operators see of sessions, and how they reach them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::thread;

use atm_tests::{Server, TestBank, stderr, stdout};
use bank_core::limits::MAX_REPLY_BYTES;
use bank_core::protocol::{
    ErrorCode, Greeting, Hello, MAGIC, NOTICE_ID, Proof, Reply, ReplyBody, Request, RequestBody, Secret,
    VERSION, decode, encode, split,
};
use bank_core::{Moment, TxnId};
use serde_json::Value;

struct Site {
    bank: TestBank,
    socket: PathBuf,
}

impl Site {
    fn new() -> Site {
        let bank = TestBank::load("Ken,2468,100.00\nMia,1357,5.00\n");
        Site {
            socket: bank.directory().join("admin"),
            bank,
        }
    }

    fn serve(&self) -> Server {
        self.bank
            .serve_with(&["--admin-socket", self.socket.to_str().unwrap()])
    }

    fn admin(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let socket = self.socket.to_str().unwrap();
        let done = self
            .bank
            .server_command(&[&["admin", "--admin-socket", socket], arguments].concat());
        (done.status.code(), stdout(&done) + &stderr(&done))
    }

    fn admin_json(&self, arguments: &[&str]) -> Value {
        let (code, said) = self.admin(&[arguments, &["--json"]].concat());
        assert_eq!(code, Some(0), "{said}");
        serde_json::from_str(&said).unwrap()
    }
}

/// A client that hears all that the bank says, also unasked.
struct Ear {
    stream: TcpStream,
    heard: Vec<u8>,
    taken: usize,
}

impl Ear {
    fn connect(server: &Server, terminal: &str) -> Ear {
        let mut ear = Ear {
            stream: server.socket(),
            heard: Vec::new(),
            taken: 0,
        };
        let hello = Hello {
            magic: MAGIC,
            version: VERSION,
            terminal,
            proof: Proof::None,
        };
        ear.say(&hello);
        let welcome = ear.next(|body| matches!(decode(body), Ok(Greeting::Welcome { .. })));
        assert_eq!(welcome, Some(true));
        ear
    }

    fn log_in(&mut self, card: &str, pin: &str) {
        let pin = Secret(pin);
        self.say(&request(1, RequestBody::Login { card, pin }));
        let answer = self.next(|body| matches!(reply(body).body, ReplyBody::LoggedIn { .. }));
        assert_eq!(answer, Some(true));
    }

    fn say(&mut self, message: &impl serde::Serialize) {
        let mut frame = Vec::new();
        encode(message, &mut frame);
        // Whoever was put out cannot write.
        let _ = self.stream.write_all(&frame);
    }

    /// The next frame, as `look` sees it; none when the bank has hung up.
    fn next<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Option<R> {
        loop {
            if let Some((body, used)) = split(&self.heard[self.taken..], MAX_REPLY_BYTES).unwrap() {
                let seen = look(body);
                self.taken += used;
                return Some(seen);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.heard.extend_from_slice(&bytes[..count]),
            }
        }
    }

    fn notice(&mut self) -> String {
        self.next(|body| match reply(body) {
            Reply {
                id: NOTICE_ID,
                lsn: 0,
                body: ReplyBody::Notice { message },
            } => message.to_owned(),
            other => panic!("no notice: {other:?}"),
        })
        .expect("the bank has not hung up")
    }

    /// That the next thing that is heard is the answer to a ping.
    fn assert_quiet(&mut self) {
        self.say(&request(77, RequestBody::Ping));
        assert_eq!(self.next(|body| reply(body).id), Some(77));
    }
}

fn request(id: u32, body: RequestBody<'_>) -> Request<'_> {
    Request { id, body }
}

fn reply(body: &[u8]) -> Reply<'_> {
    decode(body).unwrap()
}

#[test]
fn operators_see_who_is_connected_and_since_when_and_no_holder() {
    let site = Site::new();
    let server = site.serve();
    assert_eq!(site.admin(&["sessions"]).1, "nobody is connected\n");
    assert_eq!(site.admin_json(&["sessions"])["data"], serde_json::json!([]));
    let mut ken = Ear::connect(&server, "ATM-1");
    ken.log_in("Ken", "2468");
    let idle = Ear::connect(&server, "ATM-2");
    ken.say(&request(2, RequestBody::Balance));
    ken.next(|_| ()).unwrap();
    let sessions = site.admin_json(&["sessions"])["data"].clone();
    let peer = ken.stream.local_addr().unwrap().to_string();
    let since = sessions[0]["since"].as_str().unwrap();
    assert!(
        since.ends_with('Z') && since[..4].parse::<u32>().is_ok(),
        "{since}"
    );
    assert!(sessions[0]["idle_ms"].is_u64());
    let shown = |field: &str| [sessions[0][field].clone(), sessions[1][field].clone()];
    assert_eq!(shown("session"), [1, 2]);
    assert_eq!(shown("terminal"), ["ATM-1", "ATM-2"]);
    assert_eq!(shown("last_request"), ["balance".into(), Value::Null]);
    assert_eq!(shown("proof"), ["nothing", "nothing"]);
    assert_eq!(shown("tls"), [false, false]);
    assert_eq!(sessions[0]["peer"], peer);
    assert!(
        sessions[0]["account"].is_u64() && sessions[1]["account"].is_null(),
        "{sessions}"
    );
    let (_, table) = site.admin(&["sessions"]);
    assert!(
        table.starts_with("SESSION  TERMINAL  PROVED BY") && table.lines().count() == 3,
        "{table}"
    );
    assert!(table.contains("balance, ") && table.contains(&peer), "{table}");
    assert!(!(table + &sessions.to_string()).contains("Ken"));
    drop((ken, idle));
    while site.admin(&["sessions"]).1 != "nobody is connected\n" {}
}

#[test]
fn a_session_that_an_operator_ends_is_answered_what_was_done_and_told_why() {
    let site = Site::new();
    let server = site.serve();
    let mut other = Ear::connect(&server, "ATM-2");
    let mut busy = Ear::connect(&server, "ATM-1");
    busy.log_in("Ken", "2468");
    let mut writer = busy.stream.try_clone().unwrap();
    let (approved, last) = thread::scope(|scope| {
        let asking = scope.spawn(move || {
            // So many that the operator comes before the last.
            for id in 10..1_000_000 {
                let mut frame = Vec::new();
                let txn_id = TxnId::at(Moment::now().time).to_bytes();
                encode(
                    &request(id, RequestBody::Deposit { txn_id, amount: 1 }),
                    &mut frame,
                );
                if writer.write_all(&frame).is_err() {
                    return;
                }
            }
            let _ = writer.shutdown(Shutdown::Write);
        });
        let mut approved = 0;
        let mut last = None;
        let mut told = None;
        while let Some((id, approval, code)) = busy.next(|body| {
            let reply = reply(body);
            let code = match reply.body {
                ReplyBody::Error { code, .. } => Some(code),
                _ => None,
            };
            (reply.id, matches!(reply.body, ReplyBody::Approved(_)), code)
        }) {
            assert!(last.is_none(), "nothing comes after the last word");
            if approval {
                approved += 1;
            } else {
                last = Some((id, code));
            }
            if approved == 100 && told.is_none() {
                told = Some(scope.spawn(|| site.admin_json(&["disconnect", "--terminal", "ATM-1"])));
            }
        }
        let told = told.expect("a hundred were done").join().unwrap();
        assert_eq!(told["data"]["sessions"], serde_json::json!([2]));
        asking.join().unwrap();
        (approved, last)
    });
    assert_eq!(last, Some((NOTICE_ID, Some(ErrorCode::Disconnected.number()))));
    other.assert_quiet();
    let (code, said) = site.admin(&["disconnect", "2"]);
    assert!(
        code == Some(1) && said.contains("there is no session 2"),
        "{said}"
    );
    assert_eq!(site.admin(&["disconnect", "1"]).0, Some(0));
    let told = other.next(|body| match reply(body).body {
        ReplyBody::Error { code, message } => (code, message.to_owned()),
        other => panic!("{other:?}"),
    });
    let told = told.unwrap();
    assert_eq!(
        told,
        (124, "The bank's operator has ended this connection.".to_owned())
    );
    assert_eq!(other.next(|_| ()), None);
    Ear::connect(&server, "ATM-1").assert_quiet();
    assert!(server.stop().0.success());
    let proof = site.bank.server_command(&["verify"]);
    // Two openings, and every deposit that was done was answered.
    let rows = format!(" {} journal rows", approved + 2);
    assert!(stdout(&proof).contains(&rows), "{rows}: {}", stdout(&proof));
}

#[test]
fn a_line_is_shown_by_all_terminals_and_those_that_come_and_a_slow_one_keeps_nobody_waiting() {
    let site = Site::new();
    let server = site.serve();
    let mut idle = Ear::connect(&server, "ATM-1");
    // It asks for more than fits between the two, and reads nothing.
    let mut slow = Ear::connect(&server, "ATM-9");
    slow.log_in("Ken", "2468");
    let mut frames = Vec::new();
    for id in 1..20_000 {
        encode(&request(id, RequestBody::Balance), &mut frames);
    }
    slow.stream.set_nonblocking(true).unwrap();
    while let Ok(1..) = slow.stream.write(&frames) {}
    let text = "This branch closes at six.";
    let told = site.admin_json(&["broadcast", text, "--for", "5"]);
    assert_eq!(told["data"], serde_json::json!({ "sessions": 2, "minutes": 5 }));
    assert_eq!(idle.notice(), text);
    idle.assert_quiet();
    let mut late = Ear::connect(&server, "ATM-2");
    assert_eq!(late.notice(), text);
    late.assert_quiet();
    let (code, _) = site.admin(&["broadcast", "Another."]);
    assert_eq!(code, Some(0));
    for ear in [&mut idle, &mut late] {
        assert_eq!(ear.notice(), "Another.");
    }
    assert!(
        site.admin(&["broadcast", "--clear"])
            .1
            .contains("shown to no more")
    );
    Ear::connect(&server, "ATM-3").assert_quiet();
    assert!(
        site.admin(&["broadcast", "--clear"])
            .1
            .contains("no line was standing")
    );
    for (text, why) in [
        ("", "nothing to say"),
        ("two\nlines", "more than a line"),
        (&"x".repeat(241), "fewer words"),
    ] {
        let (code, said) = site.admin(&["broadcast", text]);
        assert!(code == Some(1) && said.contains(why), "{said}");
    }
    assert_eq!(site.admin(&["broadcast"]).0, Some(2));
    assert_eq!(site.admin(&["broadcast", "x", "--clear"]).0, Some(2));
    idle.assert_quiet();
    drop(slow);
    assert!(server.stop().0.success());
}
