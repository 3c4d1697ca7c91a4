//! Who is connected, and how operators reach them.
//!
//! A session is a terminal that was let in, until its connection ends: there are as many as connections at most. It has a
//! token of its own for its attention: cancelled by the end of the server, or by an operator who has something to say. Then
//! the session looks what it is, in its own task and at its own pace, between two writes of replies: so what is under way is
//! finished and answered, and a client that reads slowly keeps nobody waiting. On the way of requests nothing is locked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bank_core::limits::MAX_NOTICE_BYTES;
use bank_core::{AccountId, Moment, TerminalId, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::metrics::{Answered, Batch, Metrics, RequestKind};

/// How a terminal has shown who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Whether it speaks TLS.
    pub(crate) tls: bool,
    /// By what: "certificate", "secret" or "nothing".
    pub(crate) proof: &'static str,
}

/// All sessions.
pub(crate) struct Sessions {
    metrics: Arc<Metrics>,
    start: Instant,
    register: Mutex<Register>,
}

#[derive(Default)]
struct Register {
    last_number: u64,
    present: BTreeMap<u64, Arc<Record>>,
    notice: Option<(Arc<str>, Instant)>,
}

/// What is known of a session.
struct Record {
    terminal: TerminalId,
    peer: SocketAddr,
    since: Timestamp,
    shown: Shown,
    /// The account of who is logged in; 0 if nobody is.
    account: AtomicU64,
    /// The milliseconds from the start to the last request times 256, and the number of its kind plus one; 0 before the first.
    last_request: AtomicU64,
    bell: Mutex<Bell>,
}

/// By which a session is told to look up, and what it sees then.
struct Bell {
    token: CancellationToken,
    notice: Option<Arc<str>>,
    disconnected: bool,
}

/// What a session that was told to look up sees.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The server is to end.
    Shutdown,
    /// An operator has ended the session.
    Disconnected,
    /// A line is to be shown.
    Notice(Arc<str>),
    /// Nothing any more.
    Nothing,
}

/// A session as it was at some instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionView {
    pub(crate) number: u64,
    pub(crate) terminal: TerminalId,
    pub(crate) peer: SocketAddr,
    pub(crate) since: Timestamp,
    pub(crate) shown: Shown,
    pub(crate) account: Option<AccountId>,
    /// What was asked last, and how long ago.
    pub(crate) last_request: Option<(RequestKind, Duration)>,
}

/// A session's place among the others. It is left when this is dropped.
pub(crate) struct Presence {
    sessions: Arc<Sessions>,
    number: u64,
    record: Arc<Record>,
    shutdown: CancellationToken,
    attention: CancellationToken,
}

/// Why a line is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoticeError {
    #[error("there is nothing to say: give a text")]
    Empty,
    #[error("the text has {0} bytes, and terminals show {MAX_NOTICE_BYTES} at most: say it in fewer words")]
    TooLong(usize),
    #[error("the text is more than a line, or has other control characters in it")]
    Control,
}

impl Sessions {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Sessions {
        Sessions {
            metrics,
            start: Instant::now(),
            register: Mutex::default(),
        }
    }

    /// Takes in a session of a connection that ends when `shutdown` is cancelled. What stands to be shown is shown to it, too.
    pub(crate) fn enter(
        self: &Arc<Sessions>,
        terminal: TerminalId,
        peer: SocketAddr,
        shown: Shown,
        shutdown: &CancellationToken,
    ) -> Presence {
        let attention = shutdown.child_token();
        let mut register = lock(&self.register);
        let now = Instant::now();
        let notice = register.notice.as_ref().filter(|(_, until)| *until > now);
        let notice = notice.map(|(text, _)| Arc::clone(text));
        if notice.is_some() {
            attention.cancel();
        }
        let record = Arc::new(Record {
            terminal,
            peer,
            since: Moment::now().time,
            shown,
            account: AtomicU64::new(0),
            last_request: AtomicU64::new(0),
            bell: Mutex::new(Bell {
                token: attention.clone(),
                notice,
                disconnected: false,
            }),
        });
        register.last_number += 1;
        let number = register.last_number;
        register.present.insert(number, Arc::clone(&record));
        drop(register);
        Presence {
            sessions: Arc::clone(self),
            number,
            record,
            shutdown: shutdown.clone(),
            attention,
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        lock(&self.register).present.len()
    }

    /// How many each terminal has.
    pub(crate) fn by_terminal(&self) -> BTreeMap<TerminalId, u64> {
        let mut sessions = BTreeMap::new();
        for record in lock(&self.register).present.values() {
            *sessions.entry(record.terminal).or_default() += 1;
        }
        sessions
    }

    /// All of them, the oldest first.
    pub(crate) fn list(&self) -> Vec<SessionView> {
        let register = lock(&self.register);
        let now = self.start.elapsed();
        let view = |(&number, record): (&u64, &Arc<Record>)| {
            let last = record.last_request.load(Ordering::Relaxed);
            let kind = RequestKind::from_number((last as u8).wrapping_sub(1));
            SessionView {
                number,
                terminal: record.terminal,
                peer: record.peer,
                since: record.since,
                shown: record.shown,
                account: AccountId::new(record.account.load(Ordering::Relaxed)).ok(),
                last_request: kind.map(|kind| (kind, now.saturating_sub(millis(last >> 8)))),
            }
        };
        register.present.iter().map(view).collect()
    }

    /// Ends the sessions that are meant: what they are in the middle of is finished and answered, and then they are told.
    /// Gives their numbers.
    pub(crate) fn disconnect(&self, meant: impl Fn(u64, TerminalId) -> bool) -> Vec<u64> {
        let register = lock(&self.register);
        let meant = register
            .present
            .iter()
            .filter(|(number, record)| meant(**number, record.terminal));
        meant
            .map(|(&number, record)| {
                record.ring(|bell| bell.disconnected = true);
                number
            })
            .collect()
    }

    /// Has a line shown by every session, and for so long by those that come. It takes the place of an earlier one. Gives how
    /// many sessions there are.
    pub(crate) fn broadcast(&self, text: &str, stands: Duration) -> Result<usize, NoticeError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(NoticeError::Empty);
        }
        if text.len() > MAX_NOTICE_BYTES {
            return Err(NoticeError::TooLong(text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err(NoticeError::Control);
        }
        let text: Arc<str> = text.into();
        let mut register = lock(&self.register);
        register.notice = Some((Arc::clone(&text), Instant::now() + stands));
        for record in register.present.values() {
            record.ring(|bell| bell.notice = Some(Arc::clone(&text)));
        }
        Ok(register.present.len())
    }

    /// Shows the line that stands to nobody any more who has not seen it. Gives whether there was one.
    pub(crate) fn clear_notice(&self) -> bool {
        let mut register = lock(&self.register);
        for record in register.present.values() {
            lock(&record.bell).notice = None;
        }
        register
            .notice
            .take()
            .is_some_and(|(_, until)| until > Instant::now())
    }
}

impl Record {
    fn ring(&self, what: impl FnOnce(&mut Bell)) {
        let mut bell = lock(&self.bell);
        what(&mut bell);
        bell.token.cancel();
    }
}

impl Presence {
    /// What the session waits on beside its client: when it is cancelled, [`Presence::look_up`] tells why.
    pub(crate) fn attention(&self) -> &CancellationToken {
        &self.attention
    }

    /// What there is to see; from now on the session waits for what comes next.
    pub(crate) fn look_up(&mut self) -> Seen {
        if self.shutdown.is_cancelled() {
            return Seen::Shutdown;
        }
        let mut bell = lock(&self.record.bell);
        if bell.disconnected {
            return Seen::Disconnected;
        }
        self.attention = self.shutdown.child_token();
        bell.token = self.attention.clone();
        bell.notice.take().map_or(Seen::Nothing, Seen::Notice)
    }

    pub(crate) fn log_in(&self, account: AccountId) {
        self.record.account.store(account.get(), Ordering::Relaxed);
    }

    pub(crate) fn log_out(&self) {
        self.record.account.store(0, Ordering::Relaxed);
    }

    /// Counts what became of a request.
    pub(crate) fn answered(&self, kind: RequestKind, answered: Answered) {
        self.sessions.metrics.answered(self.number, kind, answered);
    }

    /// Counts requests whose replies were written now.
    pub(crate) fn took(&self, batch: &mut Batch) {
        if let Some((last, began)) = self.sessions.metrics.took(self.number, batch) {
            let since_start = began.saturating_duration_since(self.sessions.start).as_millis() as u64;
            let packed = since_start << 8 | u64::from(last.number() + 1);
            self.record.last_request.store(packed, Ordering::Relaxed);
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        lock(&self.sessions.register).present.remove(&self.number);
    }
}

/// Nothing that is done with one of these locks can leave it half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// That many minutes.
pub(crate) fn minutes(minutes: u16) -> Duration {
    Duration::new(u64::from(minutes) * 60, 0)
}

fn millis(millis: u64) -> Duration {
    Duration::new(millis / 1000, (millis % 1000) as u32 * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::new(60, 0);

    fn sessions() -> (Arc<Sessions>, CancellationToken) {
        let sessions = Sessions::new(Arc::new(Metrics::new()));
        (Arc::new(sessions), CancellationToken::new())
    }

    fn enter(sessions: &Arc<Sessions>, terminal: &str, shutdown: &CancellationToken) -> Presence {
        let shown = Shown {
            tls: false,
            proof: "nothing",
        };
        let peer = "127.0.0.1:1".parse().unwrap();
        sessions.enter(terminal.parse().unwrap(), peer, shown, shutdown)
    }

    #[test]
    fn a_session_is_listed_while_it_is_there() {
        let (sessions, shutdown) = sessions();
        let first = enter(&sessions, "ATM-1", &shutdown);
        let second = enter(&sessions, "ATM-2", &shutdown);
        first.log_in(AccountId::new(1006).unwrap());
        let balance = RequestKind::from_number(3).unwrap();
        let mut batch = Batch::default();
        batch.add(balance);
        first.took(&mut batch);
        let listed = sessions.list();
        assert_eq!(
            listed.iter().map(|session| session.number).collect::<Vec<_>>(),
            [1, 2]
        );
        assert_eq!(listed[0].account.map(AccountId::get), Some(1006));
        assert_eq!(listed[0].last_request.map(|(kind, _)| kind), Some(balance));
        assert_eq!((listed[1].account, listed[1].last_request), (None, None));
        first.log_out();
        assert_eq!(sessions.list()[0].account, None);
        drop(first);
        assert_eq!(sessions.list()[0].number, 2);
        drop(second);
        assert_eq!((sessions.count(), sessions.list().len()), (0, 0));
        assert_eq!(
            enter(&sessions, "ATM-1", &shutdown).number,
            3,
            "no number is given twice"
        );
    }

    #[test]
    fn a_notice_is_seen_once_by_who_is_there_and_by_who_comes_while_it_stands() {
        let (sessions, shutdown) = sessions();
        let mut there = enter(&sessions, "ATM-1", &shutdown);
        assert_eq!(there.look_up(), Seen::Nothing);
        assert_eq!(sessions.broadcast(" Closing at six. ", MINUTE), Ok(1));
        assert!(there.attention().is_cancelled());
        assert_eq!(there.look_up(), Seen::Notice("Closing at six.".into()));
        assert!(!there.attention().is_cancelled());
        assert_eq!(there.look_up(), Seen::Nothing);
        let mut comes = enter(&sessions, "ATM-2", &shutdown);
        assert!(comes.attention().is_cancelled());
        assert_eq!(comes.look_up(), Seen::Notice("Closing at six.".into()));
        assert!(sessions.clear_notice() && !sessions.clear_notice());
        assert!(!enter(&sessions, "ATM-3", &shutdown).attention().is_cancelled());
        sessions.broadcast("Gone.", Duration::ZERO).unwrap();
        assert_eq!(there.look_up(), Seen::Notice("Gone.".into()));
        assert!(
            !enter(&sessions, "ATM-3", &shutdown).attention().is_cancelled(),
            "it stands no more"
        );
        assert!(!sessions.clear_notice());
        sessions.broadcast("Unseen.", MINUTE).unwrap();
        sessions.clear_notice();
        assert_eq!(there.look_up(), Seen::Nothing);
    }

    #[test]
    fn what_is_no_line_is_not_shown() {
        let (sessions, _) = sessions();
        let longest = "x".repeat(MAX_NOTICE_BYTES);
        assert_eq!(sessions.broadcast(&longest, MINUTE), Ok(0));
        let longer = longest + "x";
        assert_eq!(
            sessions.broadcast(&longer, MINUTE),
            Err(NoticeError::TooLong(longer.len()))
        );
        assert_eq!(sessions.broadcast("  ", MINUTE), Err(NoticeError::Empty));
        for text in ["two\nlines", "\x1b[2Jred", "a\u{85}b"] {
            assert_eq!(sessions.broadcast(text, MINUTE), Err(NoticeError::Control));
        }
    }

    #[test]
    fn only_the_sessions_that_are_meant_are_ended() {
        let (sessions, shutdown) = sessions();
        let mut all = ["ATM-1", "ATM-2", "ATM-1"].map(|terminal| enter(&sessions, terminal, &shutdown));
        assert!(sessions.disconnect(|number, _| number == 9).is_empty());
        assert_eq!(
            sessions.disconnect(|_, terminal| terminal.as_str() == "ATM-1"),
            [1, 3]
        );
        assert_eq!(
            all.each_mut().map(Presence::look_up),
            [Seen::Disconnected, Seen::Nothing, Seen::Disconnected]
        );
        shutdown.cancel();
        assert!(
            all[1].attention().is_cancelled(),
            "also with a token that is not its first"
        );
        assert_eq!(all[1].look_up(), Seen::Shutdown);
    }
}
