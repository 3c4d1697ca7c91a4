//! The bytes of every message, pinned. A change here is a change of the protocol.

use super::*;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;

const TXN: [u8; 16] = [
    1, 0x7f, 0x22, 0xe2, 0x79, 0xb0, 0x7c, 0xc3, 0x98, 0xc4, 0xdc, 0x0c, 0x0c, 7, 0x39, 0x8f,
];
const TXN_HEX: &str = "017f22e279b07cc398c4dc0c0c07398f";
const USD: [u8; 3] = *b"USD";
const HEAD: [u8; HEAD_BYTES] = [0xab; HEAD_BYTES];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The message has these bytes after its length, these bytes are that message, and `docs/PROTOCOL.md` says so.
fn check<'a, T: Serialize + Deserialize<'a> + PartialEq + Debug>(
    message: &T,
    bytes: &str,
    frame: &'a mut Vec<u8>,
) {
    let bytes = bytes
        .replace("TXN", TXN_HEX)
        .replace("HEAD", &hex(&HEAD))
        .replace(' ', "");
    encode(message, frame);
    assert_eq!(
        hex(frame),
        format!("{:08x}{bytes}", bytes.len() / 2),
        "{message:?}"
    );
    let page: String = include_str!("../../../docs/PROTOCOL.md").replace([' ', '`'], "");
    assert!(
        page.contains(&bytes.replace(TXN_HEX, "TXN").replace(&hex(&HEAD), "HEAD")),
        "docs/PROTOCOL.md lacks {bytes} of {message:?}"
    );
    let (body, used) = split(frame, 10_000).unwrap().unwrap();
    assert_eq!(used, frame.len());
    assert_eq!(&decode::<T>(body).unwrap(), message);
}

fn request(body: RequestBody<'_>, bytes: &str) {
    check(&Request { id: 7, body }, bytes, &mut Vec::new());
}

fn reply(lsn: u64, body: ReplyBody<'_>, bytes: &str) {
    check(&Reply { id: 7, lsn, body }, bytes, &mut Vec::new());
}

#[test]
fn hello_and_greetings() {
    let hello = Hello {
        magic: MAGIC,
        version: VERSION,
        terminal: "ATM-1",
        proof: Proof::None,
    };
    check(&hello, "41544d42 02 05 41544d2d31 00", &mut Vec::new());
    let proof = Proof::Secret(Secret(&[0xca, 0xfe]));
    check(
        &Hello { proof, ..hello },
        "41544d42 02 05 41544d2d31 01 02 cafe",
        &mut Vec::new(),
    );
    let welcome = Greeting::Welcome {
        version: 2,
        server_time: 1_645_557_742_000,
        max_request_bytes: 1024,
        max_reply_bytes: 16384,
    };
    check(&welcome, "00 02 e0e693aee45f 8008 808001", &mut Vec::new());
    let refused = Greeting::Refused {
        code: 102,
        oldest_version: 2,
        newest_version: 2,
        message: "No.",
    };
    check(&refused, "01 66 02 02 03 4e6f2e", &mut Vec::new());
}

#[test]
fn requests() {
    request(RequestBody::Ping, "07 00");
    request(
        RequestBody::Login {
            card: "Ken",
            pin: Secret("2468"),
        },
        "07 01 03 4b656e 04 32343638",
    );
    request(RequestBody::Logout, "07 02");
    request(RequestBody::Balance, "07 03");
    request(
        RequestBody::Deposit {
            txn_id: TXN,
            amount: 2000,
        },
        "07 04 TXN a01f",
    );
    request(
        RequestBody::Withdraw {
            txn_id: TXN,
            amount: 2000,
        },
        "07 05 TXN a01f",
    );
    request(
        RequestBody::Transfer {
            txn_id: TXN,
            to: 1002,
            amount: 2000,
        },
        "07 06 TXN ea07 a01f",
    );
    request(
        RequestBody::Reverse {
            account: 1001,
            txn_id: TXN,
        },
        "07 07 e907 TXN",
    );
    request(
        RequestBody::Resolve {
            account: 1001,
            txn_id: TXN,
        },
        "07 08 e907 TXN",
    );
    request(
        RequestBody::Advice {
            account: 1001,
            txn_id: TXN,
            amount: 2000,
        },
        "07 09 e907 TXN a01f",
    );
    request(RequestBody::Statement { lines: 10 }, "07 0a 0a");
    request(
        RequestBody::ChangePin {
            old: Secret("2468"),
            new: Secret("1357"),
        },
        "07 0b 04 32343638 04 31333537",
    );
    request(RequestBody::Totals, "07 0c");
}

#[test]
fn replies() {
    let receipt = Receipt {
        txn_id: TXN,
        time: 1_645_557_742_000,
        amount: -2000,
        balance: 10_050,
        currency: USD,
        head: HEAD,
    };
    reply(
        0,
        ReplyBody::Pong {
            server_time: 1_645_557_742_000,
        },
        "07 00 00 e0e693aee45f",
    );
    reply(
        0,
        ReplyBody::LoggedIn {
            account: 1001,
            currency: USD,
            holder: "Ken",
        },
        "07 00 01 e907 555344 03 4b656e",
    );
    reply(0, ReplyBody::LoggedOut, "07 00 02");
    reply(
        300,
        ReplyBody::Balance {
            balance: 10_050,
            currency: USD,
        },
        "07 ac02 03 849d01 555344",
    );
    reply(
        300,
        ReplyBody::Approved(receipt),
        "07 ac02 04 TXN e0e693aee45f 9f1f 849d01 555344 HEAD",
    );
    let message = "Insufficient funds.";
    reply(
        300,
        ReplyBody::Declined {
            code: 4,
            message,
            receipt,
        },
        "07 ac02 05 04 13 496e73756666696369656e742066756e64732e TXN e0e693aee45f 9f1f 849d01 555344 HEAD",
    );
    let line = StatementLine {
        lsn: 300,
        time: 1_645_557_742_000,
        kind: 2,
        outcome: 0,
        amount: -2000,
        balance: 10_050,
        contra: -1,
        terminal: "ATM-1",
        txn_id: Some(TXN),
    };
    reply(
        300,
        ReplyBody::Statement {
            balance: 10_050,
            currency: USD,
            lines: vec![line],
        },
        "07 ac02 06 849d01 555344 01 ac02 e0e693aee45f 02 00 9f1f 849d01 01 05 41544d2d31 01 TXN",
    );
    reply(0, ReplyBody::PinChanged, "07 00 07");
    reply(
        0,
        ReplyBody::Error {
            code: 112,
            message: "Busy.",
        },
        "07 00 08 70 05 427573792e",
    );
    let undone = Receipt {
        amount: 2000,
        ..receipt
    };
    reply(
        300,
        ReplyBody::Reversed(undone),
        "07 ac02 09 TXN e0e693aee45f a01f 849d01 555344 HEAD",
    );
    reply(0, ReplyBody::Never, "07 00 0a");
    reply(
        0,
        ReplyBody::StaleId {
            newest: 1_645_557_742_000,
        },
        "07 00 0b e0e693aee45f",
    );
    let total = CashTotal {
        currency: USD,
        cash: -2000,
    };
    reply(300, ReplyBody::Totals(vec![total]), "07 ac02 0c 01 555344 9f1f");
    reply(
        0,
        ReplyBody::Notice { message: "Hello." },
        "07 00 0d 06 48656c6c6f2e",
    );
}

#[test]
fn a_hello_of_another_version_is_known_as_one() {
    for version in [0, 1, 3] {
        let body = [b'A', b'T', b'M', b'B', version, 0xff, 0xff, 0xff];
        assert_eq!(Hello::decode(&body), Err(HelloError::Version(version.into())));
    }
    for body in [
        &b"GET / HTTP/1.1"[..],
        &[],
        &MAGIC,
        &[b'A', b'T', b'M', b'B', 2],
        &[b'A', b'T', b'M', b'B', 2, 1, b'X', 9],
    ] {
        assert_eq!(Hello::decode(body), Err(HelloError::Frame(FrameError::Malformed)));
    }
}

#[test]
fn secrets_in_messages_do_not_show() {
    let login = Request {
        id: 1,
        body: RequestBody::Login {
            card: "Ken",
            pin: Secret("2468"),
        },
    };
    let change = Request {
        id: 1,
        body: RequestBody::ChangePin {
            old: Secret("2468"),
            new: Secret("1357"),
        },
    };
    let hello = Hello {
        magic: MAGIC,
        version: VERSION,
        terminal: "A",
        proof: Proof::Secret(Secret(b"2468")),
    };
    for shown in [format!("{login:?}"), format!("{change:?}"), format!("{hello:?}")] {
        assert!(
            !shown.contains("2468") && !shown.contains("1357") && !shown.contains("50, 52"),
            "{shown}"
        );
    }
}

#[test]
fn the_longest_login_and_statement_fit_their_limits() {
    use crate::limits::{
        MAX_CARD_BYTES, MAX_PIN_DIGITS, MAX_REPLY_BYTES, MAX_REQUEST_BYTES, MAX_STATEMENT_LINES,
    };
    let (card, pin) = ("x".repeat(MAX_CARD_BYTES), "9".repeat(MAX_PIN_DIGITS));
    let mut frame = Vec::new();
    encode(
        &Request {
            id: u32::MAX,
            body: RequestBody::Login {
                card: &card,
                pin: Secret(&pin),
            },
        },
        &mut frame,
    );
    assert!(frame.len() <= MAX_REQUEST_BYTES, "{}", frame.len());
    let line = StatementLine {
        lsn: u64::MAX,
        time: i64::MIN,
        kind: u8::MAX,
        outcome: u16::MAX,
        amount: i64::MIN,
        balance: i64::MIN,
        contra: i64::MIN,
        terminal: "ATM-9999",
        txn_id: Some(TXN),
    };
    let lines = vec![line; usize::from(MAX_STATEMENT_LINES)];
    let body = ReplyBody::Statement {
        balance: i64::MIN,
        currency: USD,
        lines,
    };
    frame.clear();
    encode(
        &Reply {
            id: u32::MAX,
            lsn: u64::MAX,
            body,
        },
        &mut frame,
    );
    assert!(frame.len() <= MAX_REPLY_BYTES, "{}", frame.len());
}
