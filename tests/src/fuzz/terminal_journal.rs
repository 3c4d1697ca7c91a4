//! A terminal's electronic journal, opened over whatever bytes a file holds.
//!
//! Whatever they are, it is opened or called damaged. What is accepted is accepted again, now and with more after it, and
//! means the same; only a torn tail is cut off, and once.

use std::fs;
use std::path::Path;

use atm_cli::electronic_journal::{ElectronicJournal, ElectronicJournalError, Record, TornTail, read};
use bank_core::{Money, TerminalId, Timestamp};

use super::files::file;

const NOW: Timestamp = Timestamp::from_millis(1);

/// The bytes of the file.
pub fn bytes(contents: &[u8]) {
    let path = file("journal", contents);
    let Some((journal, torn)) = open(&path) else {
        assert_eq!(
            fs::read(&path).expect("the file is there"),
            contents,
            "it was changed"
        );
        return;
    };
    let kept = fs::read(&path).expect("the file is there");
    let cut = torn.map_or(0, |torn| torn.bytes as usize);
    assert!(contents.starts_with(&kept) && kept.len() + cut == contents.len());
    let (records, state) = read(&path).expect("what was opened can be read");
    assert_eq!(&state, journal.state());
    drop(journal);
    let (mut journal, torn) = open(&path).expect("what was accepted is accepted again");
    assert_eq!((journal.state(), torn), (&state, None));

    let close = Record::Closed {
        number: state.last_close().map_or(1, |last| last.number + 1),
        host_total: Money::ZERO,
        terminal_total: state.net_cash(),
    };
    journal.append(NOW, &[close]).expect("a day can always be closed");
    let closed = journal.state().clone();
    drop(journal);
    let (journal, torn) = open(&path).expect("what was appended is accepted");
    assert_eq!((journal.state(), torn), (&closed, None));
    drop(journal);

    let Some((_, Record::Opened { cassettes, .. })) = records.first() else {
        panic!("the first record is the opening")
    };
    let copy = file("copy", b"");
    fs::remove_file(&copy).expect("it was just made");
    let (mut copied, _) = ElectronicJournal::open(&copy, state.terminal(), Some(cassettes), NOW)
        .expect("a new journal is begun");
    for (time, record) in &records[1..] {
        copied
            .append(*time, std::slice::from_ref(record))
            .expect("what was read can be written");
    }
    drop(copied);
    let (again, copied) = read(&copy).expect("what was written can be read");
    assert_eq!(copied, state);
    assert!(again[1..] == records[1..], "the records are others");
}

/// Records, a line each, to which the right checksums are added: so they are looked at, and not only their checksums. What
/// follows the last line end has a right checksum and lacks its line end.
pub fn records(lines: &[u8]) {
    let mut journal = Vec::new();
    let mut checksum = 0u32;
    for line in lines.split_inclusive(|&byte| byte == b'\n') {
        let json = line.strip_suffix(b"\n").unwrap_or(line);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&checksum.to_be_bytes());
        hasher.update(json);
        checksum = hasher.finalize();
        journal.extend(format!("{checksum:08x} ").into_bytes());
        journal.extend(line);
    }
    bytes(&journal);
}

/// The journal, unless it is damaged or another terminal's.
fn open(path: &Path) -> Option<(ElectronicJournal, Option<TornTail>)> {
    let terminal = TerminalId::new("ATM-1").expect("a terminal's id");
    match ElectronicJournal::open(path, terminal, None, NOW) {
        Ok(opened) => Some(opened),
        Err(ElectronicJournalError::Damaged { .. } | ElectronicJournalError::OtherTerminal { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}
