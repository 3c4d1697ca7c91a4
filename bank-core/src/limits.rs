//! Every bound of the system, with its unit and the reason for its value.
//!
//! A queue, buffer, frame, wait or session that is not bounded here is a mistake. The `const` asserts at
//! the end say how the limits depend on each other.

use std::time::Duration;

// --- the wire ---------------------------------------------------------------------------------------

/// Bytes of the longest request body. The longest legal one (a `Login` with a 64-byte card and a 12-digit
/// PIN) needs under 100; the rest is room for later messages.
pub const MAX_REQUEST_BYTES: usize = 1024;

/// Bytes of the longest reply body: a statement of [`MAX_STATEMENT_LINES`] lines of at most 128 bytes.
pub const MAX_REPLY_BYTES: usize = 16 * 1024;

/// Bytes of the length that precedes every frame (a big-endian `u32`).
pub const FRAME_HEADER_BYTES: usize = 4;

/// Bytes of a connection's read buffer. It holds at least three of the longest requests, or about a
/// hundred ordinary ones for a client that pipelines; and it is most of what an idle session costs.
pub const READ_BUFFER_BYTES: usize = 4 * 1024;

/// Bytes of replies that a connection gathers before it writes them, whatever else is in its read buffer.
pub const WRITE_BUFFER_BYTES: usize = 32 * 1024;

/// Bytes of replies that the kernel may keep for a client that does not read them: a full write buffer. Left to itself it
/// keeps up to 4 MiB a connection, and what it may keep for all is soon gone, for the others, too. (Linux
/// doubles the number, for what it needs itself.)
pub const SOCKET_SEND_BYTES: usize = WRITE_BUFFER_BYTES;

/// Lines in one statement reply. A mini-statement shows ten; a script may page through more.
pub const MAX_STATEMENT_LINES: u16 = 100;

// --- names and secrets ------------------------------------------------------------------------------

/// Bytes of the longest card number: 19 digits by ISO/IEC 7812, but a holder's name may serve as one.
pub const MAX_CARD_BYTES: usize = 64;

/// Bytes of the longest holder's name.
pub const MAX_HOLDER_BYTES: usize = 128;

/// Characters of a terminal id, as in field 41 of ISO 8583 (card acceptor terminal identification).
pub const MAX_TERMINAL_ID_BYTES: usize = 8;

/// Terminals that a bank knows. One that registers itself on loopback is remembered for ever, so there must be
/// an end to it.
pub const MAX_TERMINALS: usize = 100_000;

/// Bytes of a terminal's secret: a random key.
pub const TERMINAL_SECRET_BYTES: usize = 32;

/// Digits of the shortest PIN (ISO 9564-1).
pub const MIN_PIN_DIGITS: usize = 4;

/// Digits of the longest PIN (ISO 9564-1).
pub const MAX_PIN_DIGITS: usize = 12;

/// PIN tries before a card is blocked. Three is the custom of card issuers.
pub const MAX_PIN_TRIES: u8 = 3;

// --- transaction ids --------------------------------------------------------------------------------

/// Ids that an account keeps. More than can be under way at once, so that whatever is repeated soon is answered without
/// a search, and no request that is merely late on a busy account is called stale.
pub const RECENT_IDS: usize = 16 * 1024;

/// Ids that all accounts together keep before old ones are dropped: 24 MiB, and up to 160 MiB where each is on an account
/// of its own. Beyond that only those of the last [`RECENT_IDS_AGE`] are kept.
pub const ALL_RECENT_IDS: usize = 1024 * 1024;

/// Age from which an id may be dropped. A client repeats within seconds; later its repeat is found by a search.
pub const RECENT_IDS_AGE: Duration = Duration::from_mins(1);

/// Accounts that one posting looks at for ids to drop.
pub const RECENT_IDS_SWEEP: usize = 4;

/// How far ahead of the server's clock an id may be. Clients follow the server's time, so this is room for what they
/// cannot know, and bounds how long an id from a wrong clock makes others stale.
pub const MAX_ID_AHEAD: Duration = Duration::from_mins(5);

// --- the journal ------------------------------------------------------------------------------------

/// Journal entries that may wait for the disk. Some 16,000 rows are a quarter of a second of full load:
/// enough for a slow fsync, little enough (about 3 MiB) that a client learns of a stall by waiting.
pub const JOURNAL_QUEUE_ENTRIES: usize = 16 * 1024;

/// Commits whose heads of the hash chain are kept for receipts. A reply is written as soon as its commit is done, so a few would do;
/// of older rows, which are asked for again, the head is read from the bank file. At 48 bytes each they are some 200 KiB.
pub const RECENT_HEADS: usize = 4 * 1024;

/// Bytes of a journal row as the hash chain takes it: no column is longer than a 64-bit number, a transaction id, or a terminal's id.
pub const MAX_ROW_LINK_BYTES: usize = 256;

/// Hexadecimal digits of a head that a receipt must show at least to be compared: 64 bits, which nobody makes fit by trying.
pub const MIN_HEAD_DIGITS: usize = 16;

/// Journal rows between two account checkpoints. It bounds what an opening after a crash must replay (about
/// a second), and is large enough that in a big bank most pages of `accounts` are rewritten for many rows.
pub const ACCOUNT_CHECKPOINT_ROWS: u64 = 512 * 1024;

/// Accounts written by one slice of an account checkpoint, added to a commit that is due anyway. Small, so
/// that no commit is stalled: 64 updates are at most 64 pages.
pub const ACCOUNT_CHECKPOINT_SLICE: usize = 64;

/// Bytes of the write-ahead log after which its pages are copied into the bank file.
pub const WAL_CHECKPOINT_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes of SQLite's page cache for the journal's connection: it appends, so it needs little.
pub const WRITER_CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// Connections that read the bank file at once. Statements, searches and operators have their own bounds below, so that logins,
/// which read one row, never wait for them.
pub const READER_CONNECTIONS: usize = 8;

/// Statements that are read at once.
pub const STATEMENTS_AT_ONCE: usize = 2;

/// Searches for old transactions at once. One may follow an account back to its opening, at some microseconds a row.
pub const SEARCHES_AT_ONCE: usize = 2;

/// Pages that a backup copies between two reports of how far it is: 256 KiB, less than a millisecond.
pub const BACKUP_STEP_PAGES: u16 = 64;

/// How often a commit tries again to begin when another process writes to the bank file, each time waiting
/// [`BANK_FILE_BUSY_WAIT`]: after 20 seconds the bank gives up rather than keep its customers waiting.
pub const BANK_FILE_BUSY_RETRIES: u32 = 3;

/// How long the write-ahead log's starting over waits for readers that still use its old end. They read a card or a
/// statement, which takes a millisecond; meanwhile commits wait.
pub const WAL_RESTART_WAIT: Duration = Duration::from_millis(25);

/// How long a statement waits for a lock that another process holds on the bank file before it fails.
pub const BANK_FILE_BUSY_WAIT: Duration = Duration::from_secs(5);

// --- the server -------------------------------------------------------------------------------------

/// Connections served at once, unless the operator says otherwise.
pub const DEFAULT_CONNECTIONS: usize = 16 * 1024;

/// Connections that the kernel makes before the server has accepted them: as many as may come at once when a restarted
/// server's terminals return. (It makes fewer where the machine's own limit is lower.)
pub const ACCEPT_BACKLOG: u32 = 1024;

/// Connections over the limit that are being told so. When as many wait, accepting stops until one is done.
pub const REFUSALS_AT_ONCE: usize = 64;

/// For a client over the limit to be told so, a handshake of TLS included: as long as it takes, others may be waiting.
pub const REFUSAL_DEADLINE: Duration = Duration::from_secs(2);

/// Open files besides one for each connection: the bank file's connections, logs, and room for an operator.
pub const SPARE_OPEN_FILES: u64 = 128;

/// From accepting a connection to its complete hello.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// From the first byte of a request to its last. A client that drips is not served by waiting.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// Silence after which a connection is closed; a person at an ATM has walked away long before.
pub const IDLE_DEADLINE: Duration = Duration::from_secs(300);

/// For a client to take the replies that were written to it.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// For a client to close after the server has said its last words: closing at once could reset the connection and
/// take from the client what it has not read yet.
pub const CLOSE_LINGER: Duration = Duration::from_millis(500);

/// Bytes of a reply buffer that an idle connection keeps: an ordinary reply.
pub const KEPT_REPLY_BYTES: usize = 512;

/// Entries of cards that nobody uses any more, above which they are swept out.
pub const DEAD_CARD_ENTRIES: usize = 1024;

/// For requests in flight to finish once the server was asked to stop.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// First and longest pause after accepting failed (usually because files ran out).
pub const ACCEPT_BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// Logins that may wait for a PIN check, beside those being checked. At 20 checks a second and core it is
/// several seconds of waiting, the most that a person at a terminal takes for working.
pub const PIN_QUEUE: usize = 256;

/// How often something may fail: so often at once, and then once in each interval.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Failures at once.
    pub burst: u32,
    /// After which one of them is forgiven.
    pub each: Duration,
}

/// Refused logins of one card, existing or not. More than its three tries, so that whoever has lost count is told that his
/// PIN was refused.
pub const FAILED_LOGINS_PER_CARD: Pace = Pace {
    burst: 6,
    each: Duration::from_secs(30),
};

/// Refused logins from one address. A branch with ten machines behind one address has some thirty slips an hour; whoever tries
/// the commonest PINs at one card after the other finds it slow.
pub const FAILED_LOGINS_PER_ADDRESS: Pace = Pace {
    burst: 30,
    each: Duration::from_mins(1),
};

/// Places of each table of failed logins, of 8 bytes: with a thousand cards or addresses that fail at a time, two rarely
/// share one.
pub const PACING_PLACES: usize = 64 * 1024;

/// Bytes of an operator's name: as many as a user's name may have on Linux.
pub const MAX_OPERATOR_BYTES: usize = 32;

/// Bytes of the reason that an operator gives: a sentence, since it is kept for ever.
pub const MAX_REASON_BYTES: usize = 200;

/// Accounts, rows or commands that an operator is shown at once at most: some megabytes. Of a statement, the command that reads the bank file shows all.
pub const MAX_ADMIN_LINES: u32 = 10_000;

/// For the reply to an operator's command. Interest on millions of accounts takes minutes.
pub const ADMIN_REPLY_DEADLINE: Duration = Duration::from_mins(30);

/// Rows of interest that are appended before a wait for the disk, so that customers' rows do not stand behind many more.
pub const INTEREST_ROWS_AT_ONCE: u64 = 1024;

/// Commands of operators that read much of the bank file at once, such as a list of accounts.
pub const OPERATORS_READING: usize = 1;

/// Rows of the journal that are added up before SQLite's log may start over, some hundredths of a second.
pub const CLOSING_ROWS_AT_ONCE: u64 = 100_000;

/// Accounts, rows or commands that an operator is shown at once, unless he says otherwise.
pub const ADMIN_LINES: u32 = 100;

/// Differences of a closed business date that are named one by one.
pub const MAX_DIFFERENCES: usize = 20;

/// Operators at once.
pub const ADMIN_CONNECTIONS: usize = 8;

/// Bytes of the path of the operators' socket. Linux takes 107, of which the name under which the socket is made at first needs ten
/// more than its own: a process's number, and what separates it.
pub const MAX_SOCKET_PATH_BYTES: usize = 96;

/// Bytes of an operator's request: a line of JSON.
pub const MAX_ADMIN_LINE_BYTES: usize = 64 * 1024;

/// Bytes of the reply: a line of JSON with a table of all sessions, or of a hundred thousand accounts.
pub const MAX_ADMIN_REPLY_BYTES: usize = 32 * 1024 * 1024;

/// Bytes of a line that operators have shown on every terminal: three lines of its screen.
pub const MAX_NOTICE_BYTES: usize = 240;

/// How long such a line is shown to terminals that connect, unless the operator says otherwise, in minutes.
pub const NOTICE_MINUTES: u16 = 60;

/// The longest that it may be, in minutes: a week.
pub const MAX_NOTICE_MINUTES: u16 = 7 * 24 * 60;

// --- watching the server ----------------------------------------------------------------------------

/// Parts in which the sessions' counters are kept, of some 16 KiB each: more than cores that serve, so that seldom two of them
/// count in the same place.
pub const METRIC_SHARDS: usize = 16;

/// How often the counters are looked at for the operator's page, and how often the page asks.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How many such looks are remembered: five minutes.
pub const WATCH_SAMPLES: usize = 300;

/// Terminals that the page shows. A bank with more looks at its metrics by other means.
pub const WATCH_TERMINALS: usize = 500;

/// The least time between two additions of all accounts.
pub const BOOKS_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// How many times as long as an addition took nothing is added up after it, so that a large bank is not busy with itself.
pub const BOOKS_CHECK_REST: u32 = 20;

/// Those who watch at once: a Prometheus or two, and some operators.
pub const WATCH_CONNECTIONS: usize = 32;

/// From a watcher's connecting to the last byte of the answer. There is one request a connection.
pub const HTTP_DEADLINE: Duration = Duration::from_secs(20);

/// Bytes of the head of a watcher's request: what browsers send, and the least that hyper takes.
pub const MAX_HTTP_HEAD_BYTES: usize = 8 * 1024;

/// Lines of it.
pub const MAX_HTTP_HEADERS: usize = 64;

// --- the client -------------------------------------------------------------------------------------

/// For a client's connection to be made.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// For a reply on a bare connection. Longer than the server's own bounds for a busy disk.
pub const REPLY_DEADLINE: Duration = Duration::from_secs(30);

/// For a terminal's request and all its repetitions: what a person who waits for cash bears. After it, what became of
/// a transaction is in doubt.
pub const TRANSACTION_DEADLINE: Duration = Duration::from_secs(30);

/// For one attempt at a terminal's request, with connecting and logging in: a server that hangs leaves time for others.
pub const ATTEMPT_DEADLINE: Duration = Duration::from_secs(10);

/// First and longest pause before a terminal tries again to reach the bank; to each comes as much again at random, so
/// that not all terminals return to a restarted server at once.
pub const RECONNECT_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(4));

/// Connections that the demonstration's server takes: its own terminal, and a few that somebody adds to try it.
pub const DEMO_CONNECTIONS: usize = 16;

/// Notices from the bank that a terminal keeps until somebody can read them; of more, the newest are kept. Shown together, they leave
/// room on a screen for what the customer came for.
pub const MAX_NOTICES: usize = 4;

/// Characters of a notice that are shown: five lines of the narrowest terminal.
pub const MAX_NOTICE_CHARS: usize = MAX_NOTICE_BYTES;

/// Times in a row that a client takes in what the bank says unasked, a few KiB each time: more than all notices that it
/// keeps. A bank that still goes on is not listened to any more.
pub const MAX_UNASKED_READS: usize = 64;

/// How often an idle terminal looks whether the bank has said something: soon enough for whoever comes by, and no work to speak of.
pub const NOTICE_LOOK: Duration = Duration::from_millis(500);

/// After how long a silence an idle terminal asks whether the bank is there, lest the bank should hang up.
pub const KEEP_ALIVE: Duration = Duration::from_mins(1);

/// For the answer to that. Keys are not looked at meanwhile, so it is as long as a person waits for a key to show.
pub const KEEP_ALIVE_DEADLINE: Duration = Duration::from_secs(2);

/// Characters that somebody may type as one answer. A card's number is the longest that is asked for.
pub const MAX_TYPED_CHARS: usize = 64;

/// Columns of the narrowest screen that lines are laid out for. On one that is narrower they are broken by the screen.
pub const NARROWEST_SCREEN: usize = 32;

/// Columns of the widest headings and tables: on a wider line eyes lose their way from a name to its sum.
pub const WIDEST_SCREEN: usize = 80;

/// How often a progress bar is drawn although nothing has moved.
pub const PROGRESS_TICK: Duration = Duration::from_millis(200);

/// Lines of a mini-statement: what fits on a terminal's screen and a receipt.
pub const MINI_STATEMENT_LINES: u16 = 10;

// --- a terminal's cash and journal ------------------------------------------------------------------

/// Cassettes of a terminal: an ATM has four to eight.
pub const MAX_CASSETTES: usize = 8;

/// Notes in one cassette. A real one holds two to three thousand; more than this is a slip of the keyboard.
pub const MAX_CASSETTE_NOTES: u32 = 10_000;

/// Notes that are handed out at once: what a presenter takes.
pub const MAX_NOTES_PER_DISPENSE: u32 = 40;

/// The highest denomination of a terminal, in units of the largest sum that divides all its denominations: of 500
/// and 5 it is 100. It bounds the table of payable sums (this many entries for each note of a dispense).
pub const MAX_DENOMINATION_UNITS: usize = 2_000;

/// Bytes of one line of a terminal's journal. The longest is a settlement whose note holds a host's message whole,
/// of which JSON makes at most six times as many bytes.
pub const MAX_TERMINAL_RECORD_BYTES: usize = 128 * 1024;

/// Between one note and the next that a tray's file is given: the notes of a real dispenser come more slowly, but one
/// by one all the same.
pub const NOTE_PACE: Duration = Duration::from_millis(2);

/// Digits of the supervisor's code that a terminal makes, and the fewest that one may have.
pub const SUPERVISOR_CODE_DIGITS: usize = 8;

/// Wrong codes in a row after which a terminal lets no supervisor in until it is started again.
pub const MAX_CODE_TRIES: u8 = 3;

// --- files that a person gives us -------------------------------------------------------------------

/// Bytes of the longest list of accounts: it is checked as a whole, and so held in memory as a whole.
pub const MAX_LIST_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// Bytes of the longest file of settings: a hundred times what a complete one has with all its comments.
pub const MAX_CONFIG_BYTES: u64 = 256 * 1024;

/// Days for which a private authority's own certificate is good: longer than the machines whose certificates it makes.
pub const AUTHORITY_DAYS: i32 = 3650;

/// Bytes of the longest file of certificates or of a key: a chain of ten, or a key of any kind.
pub const MAX_PEM_BYTES: u64 = 64 * 1024;

/// Bytes of the longest pepper file: a few hundred keys.
pub const MAX_PEPPER_FILE_BYTES: u64 = 64 * 1024;

const _: () = {
    assert!(READ_BUFFER_BYTES >= FRAME_HEADER_BYTES + MAX_REQUEST_BYTES);
    assert!(WRITE_BUFFER_BYTES >= FRAME_HEADER_BYTES + MAX_REPLY_BYTES);
    assert!(MAX_REPLY_BYTES >= MAX_STATEMENT_LINES as usize * 128);
    assert!(MAX_REQUEST_BYTES >= MAX_CARD_BYTES + MAX_PIN_DIGITS + 64);
    assert!(MAX_TERMINAL_RECORD_BYTES >= 6 * MAX_REPLY_BYTES + 1024);
    assert!(MAX_NOTES_PER_DISPENSE <= MAX_CASSETTE_NOTES);
    assert!(MIN_PIN_DIGITS <= MAX_PIN_DIGITS);
    assert!(JOURNAL_QUEUE_ENTRIES as u64 * 4 < ACCOUNT_CHECKPOINT_ROWS);
    // One more adds up the books for those who watch, and one reads for an operator's command that changes something.
    assert!(READER_CONNECTIONS > STATEMENTS_AT_ONCE + SEARCHES_AT_ONCE + OPERATORS_READING + 2);
    assert!(RECENT_IDS >= JOURNAL_QUEUE_ENTRIES);
    assert!(RECENT_IDS_AGE.as_secs() > REPLY_DEADLINE.as_secs());
    assert!(REQUEST_DEADLINE.as_secs() <= IDLE_DEADLINE.as_secs());
    assert!(REFUSAL_DEADLINE.as_millis() > 2 * CLOSE_LINGER.as_millis());
    assert!(WRITE_DEADLINE.as_secs() <= SHUTDOWN_GRACE.as_secs());
    assert!(HTTP_DEADLINE.as_secs() > REQUEST_DEADLINE.as_secs());
    assert!(REPLY_DEADLINE.as_secs() > REQUEST_DEADLINE.as_secs());
    assert!(2 * KEEP_ALIVE.as_secs() < IDLE_DEADLINE.as_secs());
    assert!(MAX_TYPED_CHARS >= MAX_CARD_BYTES);
    assert!(2 * ATTEMPT_DEADLINE.as_secs() < TRANSACTION_DEADLINE.as_secs());
    assert!(2 * RECONNECT_BACKOFF.1.as_secs() < ATTEMPT_DEADLINE.as_secs());
    assert!(REPLY_DEADLINE.as_secs() > (BANK_FILE_BUSY_RETRIES as u64 + 1) * BANK_FILE_BUSY_WAIT.as_secs());
};
