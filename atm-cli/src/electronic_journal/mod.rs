//! The terminal's electronic journal: an append-only file of what the terminal is about to do and has done, and
//! the state that it adds up to.
//!
//! Its format is described in `data/README.md`. It promises that a record whose append returned is on disk, that
//! every record fits the ones before it, and that a journal which somebody has changed is noticed and not guessed
//! at. That whole records are missing from the end it cannot notice: the bank's totals do. It decides nothing: what
//! to write when, and what to do about what is open, is the terminal's business.

mod line;
mod record;
mod state;

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bank_core::files::{FileLock, sync_directory_of};
use bank_core::limits::MAX_TERMINAL_RECORD_BYTES;
use bank_core::{TerminalId, Timestamp};

pub use record::{Answer, Record, Settlement, What};
pub use state::{Close, Inconsistent, OpenTransaction, SinceClose, Stage, Tally, TerminalState};

use crate::dispenser::Cassettes;

/// What can be wrong with a journal or the disk under it.
#[derive(Debug, thiserror::Error)]
pub enum ElectronicJournalError {
    /// A file operation failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// On which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// There is no such file, and nothing to begin one with.
    #[error("there is no terminal journal {}: find it, or, if this is a new machine, say with --cassettes what is in it", .0.display())]
    Missing(PathBuf),
    /// Another terminal has the journal.
    #[error("the terminal journal {} is in use by another terminal: stop that one first", .0.display())]
    InUse(PathBuf),
    /// It is the journal of a terminal with another id.
    #[error("{} is the journal of terminal {found}: give this terminal a journal of its own", path.display())]
    OtherTerminal {
        /// Which file.
        path: PathBuf,
        /// The terminal that it names.
        found: TerminalId,
    },
    /// The contents are not what a terminal wrote.
    #[error("the terminal journal {} is damaged in line {line}: {what}; keep the file and have it looked into", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// How.
        what: String,
    },
    /// Records that do not follow from what is written. Nothing was written.
    #[error(transparent)]
    Inconsistent(#[from] Inconsistent),
    /// A record that is too long to be read again. Nothing was written.
    #[error("a record of {0} bytes is too long for a terminal journal: shorten its note")]
    TooLong(usize),
    /// An earlier write failed, and nobody knows what of it is on disk.
    #[error("the terminal journal {} could not be written before: start the terminal again", .0.display())]
    Poisoned(PathBuf),
}

impl ElectronicJournalError {
    /// For `map_err`: the operating system failed at `path`.
    fn io(path: &Path) -> impl Fn(io::Error) -> ElectronicJournalError {
        move |source| ElectronicJournalError::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// What a power cut left of a record that was never on disk as a whole, and so never acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The line that it would have been.
    pub line: u64,
    /// How many bytes of it there were.
    pub bytes: u64,
}

impl fmt::Display for TornTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TornTail { line, bytes } = self;
        write!(
            f,
            "line {line} was only begun when the power went: its {bytes} bytes do not count"
        )
    }
}

/// A terminal's journal, open for writing by this terminal alone.
#[derive(Debug)]
pub struct ElectronicJournal {
    path: PathBuf,
    file: File,
    /// The checksum of the last line.
    checksum: u32,
    state: TerminalState,
    is_poisoned: bool,
    _lock: FileLock,
}

impl ElectronicJournal {
    /// Opens the journal at `path`, or begins it with the cassettes `first`, which are of no meaning if it is there.
    /// A torn tail is cut off and told.
    ///
    /// # Errors
    /// [`ElectronicJournalError`]; the file is as it was, unless it is the disk that failed.
    pub fn open(
        path: &Path,
        terminal: TerminalId,
        first: Option<&Cassettes>,
        now: Timestamp,
    ) -> Result<(ElectronicJournal, Option<TornTail>), ElectronicJournalError> {
        let path = &real_path(path)?;
        let lock_path = path.with_added_extension("lock");
        let lock = FileLock::take(&lock_path).map_err(|error| match error {
            TryLockError::WouldBlock => ElectronicJournalError::InUse(path.to_owned()),
            TryLockError::Error(error) => ElectronicJournalError::io(&lock_path)(error),
        })?;
        let io = ElectronicJournalError::io(path);
        if !path.try_exists().map_err(&io)? {
            let cassettes = first.ok_or_else(|| ElectronicJournalError::Missing(path.to_owned()))?;
            begin(path, terminal, cassettes, now)?;
        }
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .open(path)
            .map_err(&io)?;
        let replayed = replay(path, BufReader::new(&file), |_, _| ())?;
        let found = replayed.state.terminal();
        if found != terminal {
            return Err(ElectronicJournalError::OtherTerminal {
                path: path.to_owned(),
                found,
            });
        }
        if replayed.torn.is_some() {
            file.set_len(replayed.bytes)
                .and_then(|()| file.sync_all())
                .map_err(&io)?;
        }
        let journal = ElectronicJournal {
            path: path.to_owned(),
            file,
            checksum: replayed.checksum,
            state: replayed.state,
            is_poisoned: false,
            _lock: lock,
        };
        Ok((journal, replayed.torn))
    }

    /// What all records together say.
    pub fn state(&self) -> &TerminalState {
        &self.state
    }

    /// Writes records, all in one write, and returns when they are on disk. After a power cut in the middle, the
    /// first of them may be there without the others.
    ///
    /// # Errors
    /// [`ElectronicJournalError::Inconsistent`] or [`ElectronicJournalError::TooLong`]: nothing was written. After
    /// [`ElectronicJournalError::Io`] nobody knows what was, and every later append is
    /// [`ElectronicJournalError::Poisoned`].
    pub fn append(&mut self, time: Timestamp, records: &[Record]) -> Result<(), ElectronicJournalError> {
        if self.is_poisoned {
            return Err(ElectronicJournalError::Poisoned(self.path.clone()));
        }
        let mut state = self.state.clone();
        let mut checksum = self.checksum;
        let mut bytes = Vec::new();
        for record in records {
            state.apply(record)?;
            let line;
            (line, checksum) = line::write(checksum, time, record);
            if line.len() > MAX_TERMINAL_RECORD_BYTES {
                return Err(ElectronicJournalError::TooLong(line.len()));
            }
            bytes.extend(line);
        }
        // Everything is checked: from here on only the disk can fail.
        self.is_poisoned = true;
        self.file
            .write_all(&bytes)
            .and_then(|()| self.file.sync_data())
            .map_err(ElectronicJournalError::io(&self.path))?;
        self.is_poisoned = false;
        self.state = state;
        self.checksum = checksum;
        Ok(())
    }
}

/// Reads a journal without its lock, for tools and tests: every record with its time, and what they add up to. A torn
/// tail, which may be a record that is just being written, is left out.
///
/// # Errors
/// [`ElectronicJournalError::Io`] or [`ElectronicJournalError::Damaged`].
pub fn read(path: &Path) -> Result<(Vec<(Timestamp, Record)>, TerminalState), ElectronicJournalError> {
    let file = File::open(path).map_err(ElectronicJournalError::io(path))?;
    let mut records = Vec::new();
    let replayed = replay(path, BufReader::new(file), |time, record| {
        records.push((time, record.clone()));
    })?;
    Ok((records, replayed.state))
}

/// The file that `path` leads to, past any symbolic links: a journal has one lock, whatever it is called.
fn real_path(path: &Path) -> Result<PathBuf, ElectronicJournalError> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
        other => other.map_err(ElectronicJournalError::io(path)),
    }
}

/// Makes a journal with its first line. It gets its name when that line is on disk, so a journal without a whole
/// first line is never a power cut's doing.
fn begin(
    path: &Path,
    terminal: TerminalId,
    cassettes: &Cassettes,
    now: Timestamp,
) -> Result<(), ElectronicJournalError> {
    let opened = Record::Opened {
        terminal,
        cassettes: cassettes.clone(),
    };
    let (line, _) = line::write(line::BEFORE_THE_FIRST, now, &opened);
    let new = path.with_added_extension("new");
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| {
            file.write_all(&line)?;
            file.sync_all()
        })
        .map_err(ElectronicJournalError::io(&new))?;
    fs::rename(&new, path)
        .and_then(|()| sync_directory_of(path))
        .map_err(ElectronicJournalError::io(path))
}

/// What the whole lines of a journal add up to.
#[derive(Debug)]
struct Replayed {
    state: TerminalState,
    /// The checksum of the last of them.
    checksum: u32,
    /// How many bytes they have.
    bytes: u64,
    torn: Option<TornTail>,
}

/// Reads a journal from its beginning and shows every record to `each`.
fn replay(
    path: &Path,
    mut journal: impl BufRead,
    mut each: impl FnMut(Timestamp, &Record),
) -> Result<Replayed, ElectronicJournalError> {
    let io = ElectronicJournalError::io(path);
    let mut state: Option<TerminalState> = None;
    let (mut checksum, mut bytes, mut torn) = (line::BEFORE_THE_FIRST, 0, None);
    let mut text = Vec::new();
    for number in 1.. {
        let damaged = |what: String| ElectronicJournalError::Damaged {
            path: path.to_owned(),
            line: number,
            what,
        };
        text.clear();
        // Never more than a line may have, whatever the file is.
        let mut line = journal.by_ref().take(MAX_TERMINAL_RECORD_BYTES as u64);
        if line.read_until(b'\n', &mut text).map_err(&io)? == 0 {
            break;
        }
        let Some((json, its_checksum)) = line::check(checksum, &text) else {
            let is_last = journal.fill_buf().map_err(&io)?.is_empty();
            if !is_last || state.is_none() || line::is_changed(checksum, &text) {
                return Err(damaged("its checksum is wrong".to_owned()));
            }
            torn = Some(TornTail {
                line: number,
                bytes: text.len() as u64,
            });
            break;
        };
        let (time, record) = line::read(json).map_err(damaged)?;
        match &mut state {
            None => TerminalState::begin(&record).map(|begun| state = Some(begun)),
            Some(state) => state.apply(&record),
        }
        .map_err(|error| damaged(error.to_string()))?;
        each(time, &record);
        checksum = its_checksum;
        bytes += text.len() as u64;
    }
    let state = state.ok_or_else(|| ElectronicJournalError::Damaged {
        path: path.to_owned(),
        line: 1,
        what: "it is missing".to_owned(),
    })?;
    Ok(Replayed {
        state,
        checksum,
        bytes,
        torn,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use bank_core::{AccountId, Amount, Currency, Lsn, Money, TxnId};

    use super::*;
    use crate::dispenser::Notes;

    fn terminal() -> TerminalId {
        TerminalId::new("ATM-1").unwrap()
    }

    fn cassettes() -> Cassettes {
        Cassettes::parse("50x10,20x10", Currency::USD).unwrap()
    }

    fn open_journal(path: &Path) -> Result<(ElectronicJournal, Option<TornTail>), ElectronicJournalError> {
        ElectronicJournal::open(path, terminal(), Some(&cassettes()), Timestamp::from_millis(1))
    }

    /// Ids of ever later transactions.
    fn id(number: u8) -> TxnId {
        let mut bytes = [0; 16];
        (bytes[5], bytes[6], bytes[8]) = (number, 0x70, 0x80);
        TxnId::from_bytes(bytes).unwrap()
    }

    fn notes(counts: &[u32]) -> Notes {
        Notes::new(counts.to_vec()).unwrap()
    }

    /// A day with every record in it.
    fn a_day() -> Vec<Record> {
        let account = AccountId::new(1001).unwrap();
        let amount = |minor| Amount::from_minor(minor).unwrap();
        let intent = |number, what, minor, counts: &[u32]| Record::Intent {
            id: id(number),
            account,
            what,
            amount: amount(minor),
            notes: notes(counts),
        };
        let answered = |number, outcome| Record::Answered {
            id: id(number),
            outcome,
            lsn: Lsn::new(7),
        };
        let settled = |number, how, note: &str| Record::Settled {
            id: id(number),
            how,
            note: note.to_owned(),
        };
        vec![
            intent(1, What::Withdrawal, 9_000, &[1, 2]),
            answered(1, Answer::Approved),
            Record::Dispensing {
                id: id(1),
                before: notes(&[10, 10]),
                notes: notes(&[1, 2]),
            },
            Record::Decided {
                id: id(1),
                dispensed: notes(&[1, 0]),
            },
            Record::Advised {
                id: id(2),
                account,
                amount: amount(4_000),
                original: id(1),
            },
            settled(2, Settlement::Credited, ""),
            settled(1, Settlement::Done, "two notes \"stuck\"\n\u{e9}"),
            intent(3, What::Withdrawal, 5_000, &[1, 0]),
            answered(3, Answer::Approved),
            Record::Dispensing {
                id: id(3),
                before: notes(&[9, 10]),
                notes: notes(&[1, 0]),
            },
            Record::Dispensed { id: id(3) },
            settled(3, Settlement::Done, ""),
            intent(4, What::Deposit, 7_000, &[]),
            answered(4, Answer::Declined(5)),
            Record::Returned { id: id(4) },
            settled(4, Settlement::Declined, ""),
            intent(5, What::Transfer, 100, &[]),
            settled(5, Settlement::Never, ""),
            Record::Replenished {
                notes: notes(&[2, 0]),
            },
            Record::Emptied { content: Money::ZERO },
            Record::Closed {
                number: 1,
                host_total: Money::from_minor(-10_000),
                terminal_total: Money::from_minor(-10_000),
            },
        ]
    }

    /// The bytes of a journal of that day, and the state at its end.
    fn a_day_on_disk() -> (Vec<u8>, TerminalState) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let (mut journal, _) = open_journal(&path).unwrap();
        for (time, record) in (2..).zip(a_day()) {
            journal.append(Timestamp::from_millis(time), &[record]).unwrap();
        }
        (fs::read(&path).unwrap(), journal.state)
    }

    fn replay_bytes(bytes: &[u8]) -> Result<Replayed, ElectronicJournalError> {
        replay(Path::new("journal"), bytes, |_, _| ())
    }

    #[track_caller]
    fn assert_damaged(bytes: &[u8], what: &str) {
        let replayed = replay_bytes(bytes);
        assert!(
            matches!(replayed, Err(ElectronicJournalError::Damaged { .. })),
            "{what}: {replayed:?}"
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let (mut journal, torn) = open_journal(&path).unwrap();
        assert_eq!(torn, None);
        let time = Timestamp::from_millis(5);
        journal.append(time, &a_day()).unwrap();

        let (records, state) = read(&path).unwrap();
        let opened = Record::Opened {
            terminal: terminal(),
            cassettes: cassettes(),
        };
        let mut expected = vec![(Timestamp::from_millis(1), opened)];
        expected.extend(a_day().into_iter().map(|record| (time, record)));
        assert_eq!(records, expected);
        assert_eq!(&state, journal.state());
        assert_eq!(state.cassettes().to_string(), "50x10,20x10");

        drop(journal);
        let other = Cassettes::parse("10x1", Currency::USD).unwrap();
        let (journal, torn) = ElectronicJournal::open(&path, terminal(), Some(&other), time).unwrap();
        assert_eq!((journal.state(), torn), (&state, None));
    }

    /// The journal of that day as it must be written for ever, or the format has another version.
    const A_DAY: &str = include_str!("a_day.journal");

    #[test]
    fn the_format_is_pinned() {
        let (bytes, _) = a_day_on_disk();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text, A_DAY);
    }

    #[test]
    fn a_new_journal_is_its_owners_alone_and_leaves_nothing_beside_it_but_its_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let (_journal, _) = open_journal(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut names: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["journal", "journal.lock"]);
    }

    #[test]
    fn a_torn_tail_is_cut_off_wherever_it_was_torn() {
        let (bytes, _) = a_day_on_disk();
        let whole = 1 + bytes[..bytes.len() - 1]
            .iter()
            .rposition(|&byte| byte == b'\n')
            .unwrap();
        let kept = replay_bytes(&bytes[..whole]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let check = |contents: &[u8]| {
            fs::write(&path, contents).unwrap();
            let (journal, torn) = open_journal(&path).unwrap();
            let line = a_day().len() as u64 + 1;
            let bytes = (contents.len() - whole) as u64;
            assert_eq!(torn, (bytes > 0).then_some(TornTail { line, bytes }));
            assert_eq!(journal.state(), &kept.state);
            assert_eq!(fs::metadata(&path).unwrap().len(), whole as u64);
        };
        for end in whole..bytes.len() {
            check(&bytes[..end]);
        }
        let mut garbled = bytes.clone();
        garbled[whole + 20] = 0;
        check(&garbled);
    }

    #[test]
    fn a_journal_goes_on_after_a_torn_tail() {
        let (bytes, state) = a_day_on_disk();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        let (mut journal, torn) = open_journal(&path).unwrap();
        assert!(torn.is_some());
        let last = &a_day()[a_day().len() - 1..];
        journal.append(Timestamp::from_millis(99), last).unwrap();
        assert_eq!(read(&path).unwrap().1, state);
    }

    #[test]
    fn a_changed_bit_before_the_last_record_is_noticed() {
        let (mut bytes, _) = a_day_on_disk();
        let last = 1 + bytes[..bytes.len() - 1]
            .iter()
            .rposition(|&byte| byte == b'\n')
            .unwrap();
        for place in 0..last {
            for bit in 0..8 {
                bytes[place] ^= 1 << bit;
                assert_damaged(&bytes, &format!("bit {bit} of byte {place}"));
                bytes[place] ^= 1 << bit;
            }
        }
    }

    #[test]
    fn a_line_that_is_removed_or_repeated_or_swapped_is_noticed() {
        let (bytes, _) = a_day_on_disk();
        let lines: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
        for place in 0..lines.len() - 1 {
            let mut removed = lines.clone();
            removed.remove(place);
            assert_damaged(&removed.concat(), &format!("line {place} removed"));
            let mut repeated = lines.clone();
            repeated.insert(place, lines[place]);
            assert_damaged(&repeated.concat(), &format!("line {place} repeated"));
            let mut swapped = lines.clone();
            swapped.swap(place, place + 1);
            assert_damaged(&swapped.concat(), &format!("line {place} swapped with the next"));
        }
        assert_damaged(lines[1], "a last line alone");
        assert_damaged(b"", "nothing at all");
    }

    #[test]
    fn a_record_that_cannot_follow_is_refused_even_with_a_right_checksum() {
        let (mut bytes, state) = a_day_on_disk();
        let checksum = replay_bytes(&bytes).unwrap().checksum;
        let stray = Record::Dispensed { id: id(9) };
        bytes.extend(line::write(checksum, Timestamp::from_millis(9), &stray).0);
        assert_damaged(&bytes, "a stray record");

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let (mut journal, _) = open_journal(&path).unwrap();
        journal.append(Timestamp::from_millis(2), &a_day()).unwrap();
        let replenished = Record::Replenished {
            notes: notes(&[1, 1]),
        };
        let refused = journal.append(Timestamp::from_millis(3), &[replenished, stray]);
        assert!(matches!(refused, Err(ElectronicJournalError::Inconsistent(_))));
        assert_eq!(read(&path).unwrap().1, state);
        assert_eq!(journal.state(), &state);
    }

    #[test]
    fn a_second_terminal_is_refused_until_the_first_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let link = directory.path().join("link");
        let first = open_journal(&path).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for name in [&path, &link] {
            let refused = open_journal(name).map(|_| ()).unwrap_err();
            assert!(refused.to_string().contains("/journal is in use"), "{refused}");
        }
        drop(first);
        open_journal(&path).unwrap();
    }

    #[test]
    fn a_journal_is_begun_only_with_cassettes_and_kept_to_its_terminal() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let open = |terminal: &str, cassettes: Option<&Cassettes>| {
            let terminal = TerminalId::new(terminal).unwrap();
            ElectronicJournal::open(&path, terminal, cassettes, Timestamp::from_millis(1)).map(|_| ())
        };
        assert!(matches!(
            open("ATM-1", None),
            Err(ElectronicJournalError::Missing(_))
        ));
        open("ATM-1", Some(&cassettes())).unwrap();
        open("ATM-1", None).unwrap();
        assert!(matches!(
            open("ATM-2", None),
            Err(ElectronicJournalError::OtherTerminal { .. })
        ));
    }

    #[test]
    fn after_a_failed_write_the_journal_takes_nothing_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let (mut journal, _) = open_journal(&path).unwrap();
        let state = journal.state().clone();
        let disk = std::mem::replace(
            &mut journal.file,
            OpenOptions::new().write(true).open("/dev/full").unwrap(),
        );
        let time = Timestamp::from_millis(2);
        let failed = journal.append(time, &a_day());
        assert!(matches!(failed, Err(ElectronicJournalError::Io { .. })));
        // Though the disk has room again.
        journal.file = disk;
        let refused = journal.append(time, &a_day());
        assert!(matches!(refused, Err(ElectronicJournalError::Poisoned(_))));
        assert_eq!(journal.state(), &state);
        assert_eq!(read(&path).unwrap().0.len(), 1);
    }

    #[test]
    fn a_note_that_could_not_be_read_again_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let (mut journal, _) = open_journal(&path).unwrap();
        let mut records = a_day();
        if let Record::Settled { note, .. } = &mut records[6] {
            *note = "x".repeat(MAX_TERMINAL_RECORD_BYTES);
        }
        let time = Timestamp::from_millis(2);
        let refused = journal.append(time, &records);
        assert!(matches!(refused, Err(ElectronicJournalError::TooLong(_))));
        journal.append(time, &a_day()).unwrap();
    }
}
