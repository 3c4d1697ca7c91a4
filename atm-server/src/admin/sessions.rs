//! What operators may do about sessions: see them, end them, and have a line shown by all of them.

use bank_core::limits::MAX_NOTICE_MINUTES;
use bank_core::{AccountId, TerminalId};
use serde_json::json;

use super::AdminReply;
use super::table::{self, Align};
use crate::sessions::{SessionView, Sessions, minutes};

const COLUMNS: [(&str, Align); 7] = [
    ("SESSION", Align::Right),
    ("TERMINAL", Align::Left),
    ("PROVED BY", Align::Left),
    ("PEER", Align::Left),
    ("SINCE (UTC)", Align::Left),
    ("ACCOUNT", Align::Right),
    ("LAST REQUEST", Align::Left),
];

/// The table of all sessions.
pub(super) fn list(sessions: &Sessions) -> AdminReply {
    let sessions = sessions.list();
    let message = if sessions.is_empty() {
        "nobody is connected".to_owned()
    } else {
        table::draw(COLUMNS, &sessions.iter().map(cells).collect::<Vec<_>>())
    };
    let data = sessions.iter().map(|session| {
        json!({
            "session": session.number,
            "terminal": session.terminal.as_str(),
            "tls": session.shown.tls,
            "proof": session.shown.proof,
            "peer": session.peer.to_string(),
            "since": session.since.rfc3339(),
            "account": session.account.map(AccountId::get),
            "last_request": session.last_request.map(|(kind, _)| kind.name()),
            "idle_ms": session.last_request.map(|(_, ago)| ago.as_millis() as u64),
        })
    });
    AdminReply::done(message).with(data.collect())
}

fn cells(session: &SessionView) -> [String; 7] {
    let proof = session.shown.proof;
    [
        session.number.to_string(),
        session.terminal.to_string(),
        if session.shown.tls {
            format!("{proof}, TLS")
        } else {
            proof.to_owned()
        },
        session.peer.to_string(),
        session.since.to_string(),
        session
            .account
            .map_or("-".to_owned(), |account| account.to_string()),
        session.last_request.map_or("-".to_owned(), |(kind, ago)| {
            format!("{}, {} s ago", kind.name(), ago.as_secs())
        }),
    ]
}

/// Ends one session, or all of a terminal.
pub(super) fn disconnect(sessions: &Sessions, session: Option<u64>, terminal: Option<&str>) -> AdminReply {
    let (ended, whom) = match (session, terminal.map(TerminalId::new)) {
        (Some(number), None) => (
            sessions.disconnect(|other, _| other == number),
            format!("session {number}"),
        ),
        (None, Some(Ok(terminal))) => (
            sessions.disconnect(|_, other| other == terminal),
            format!("session of terminal {terminal}"),
        ),
        (None, Some(Err(error))) => return AdminReply::refused(error.to_string()),
        (Some(_), Some(_)) | (None, None) => {
            return AdminReply::refused("name either a session or a terminal");
        }
    };
    if ended.is_empty() {
        return AdminReply::refused(format!(
            "there is no {whom}: \"sessions\" lists those that there are"
        ));
    }
    let numbers = ended.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    AdminReply::done(format!(
        "told to go, once what is under way is answered: session {numbers}"
    ))
    .with(json!({ "sessions": ended }))
}

/// Has a line shown on every terminal.
pub(super) fn broadcast(sessions: &Sessions, text: &str, stands: u16) -> AdminReply {
    if !(1..=MAX_NOTICE_MINUTES).contains(&stands) {
        return AdminReply::refused(format!(
            "a line stands for 1 to {MAX_NOTICE_MINUTES} minutes, and not for {stands}"
        ));
    }
    match sessions.broadcast(text, minutes(stands)) {
        Ok(count) => AdminReply::done(format!(
            "shown to {count} sessions, and for {stands} minutes to those that come"
        ))
        .with(json!({ "sessions": count, "minutes": stands })),
        Err(error) => AdminReply::refused(error.to_string()),
    }
}

/// Shows the line that stands to no more terminals.
pub(super) fn clear(sessions: &Sessions) -> AdminReply {
    AdminReply::done(if sessions.clear_notice() {
        "the line is shown to no more terminals; those that have shown it are not told"
    } else {
        "no line was standing"
    })
}
