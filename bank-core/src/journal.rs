//! The journal's queue and its thread: what is appended under an account's lock becomes durable in groups.
//!
//! Appending cannot fail and does no I/O, so it may happen under a lock; the place for it was reserved
//! before, when nothing was locked yet. The thread takes whatever has gathered while its last commit ran,
//! and commits it as one SQLite transaction with one fsync. So one client pays for one fsync and a
//! hundred clients share one, without a timer.
//!
//! Besides rows, updates of cards and terminals and operators' actions travel in the same commits; they have no Lsn.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_lock::{Semaphore, SemaphoreGuardArc};

use crate::account::{Account, AccountStatus};
use crate::action::Action;
use crate::bank_file::{BankFileError, ClosingWithTotals, NewCard};
use crate::card::CardState;
use crate::cards::{CardCell, PinHash};
use crate::chain::Head;
use crate::durable::{Durable, DurableMark, JournalError, block_on};
use crate::ids::{AccountId, ActionId, CardId, CardNumber, Lsn};
use crate::limits::{JOURNAL_QUEUE_ENTRIES, RECENT_HEADS};
use crate::money::Money;
use crate::row::Row;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex};
use crate::terminal::Terminal;
use crate::time::CutOver;

/// Where the journal's groups go. The bank file is one; tests have others, which fail or wait on demand.
pub(crate) trait Store: Send + 'static {
    /// Makes the batch durable, whole or not at all, and gives the head of the hash chain, if the batch has extended it.
    ///
    /// # Errors
    /// Whatever the disk says. The journal is poisoned by it and calls nothing of the store again.
    fn commit(&mut self, batch: &Batch) -> Result<Option<Head>, BankFileError>;

    /// What must be done between commits. Gives true while the store has work that goes on a step with each commit:
    /// then it is given empty batches when nothing is appended.
    ///
    /// # Errors
    /// As [`Store::commit`].
    fn maintain(&mut self) -> Result<bool, BankFileError>;

    /// Finishes that work, at an orderly end.
    ///
    /// # Errors
    /// As [`Store::commit`].
    fn close(&mut self) -> Result<(), BankFileError>;

    /// How much of the last commit's time went to having it on disk.
    fn sync_time(&self) -> Duration {
        Duration::ZERO
    }
}

/// What a commit was like.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    /// Journal rows in it.
    pub rows: usize,
    /// From the group's being taken to its being durable.
    pub took: Duration,
    /// How much of that went to having it on disk.
    pub sync: Duration,
}

/// Who is told of each commit. It is called by the journal's thread, so it must be quick.
pub type CommitObserver = Box<dyn Fn(Commit) + Send + Sync>;

/// Entries that become durable together.
#[derive(Default)]
pub(crate) struct Batch {
    /// What operators did, dense in number.
    pub(crate) actions: Vec<Action>,
    /// Journal rows, dense in Lsn.
    pub(crate) rows: Vec<Row>,
    /// Other changes to the bank file, in the order in which they were made.
    pub(crate) updates: Vec<Update>,
}

impl Batch {
    fn len(&self) -> usize {
        self.actions.len() + self.rows.len() + self.updates.len()
    }

    fn clear(&mut self) {
        self.actions.clear();
        self.rows.clear();
        self.updates.clear();
    }
}

/// A change to the bank file that moves no money. It holds the shadow of a secret, so it has no `Debug`.
pub(crate) enum Update {
    /// A card's tries or status.
    Card {
        /// Which card.
        number: CardNumber,
        /// What it is now.
        state: CardState,
        /// The card's cell, kept until the update is durable: whoever asks for the card before gets this
        /// cell, and not a reading of the file as it was.
        _cell: Arc<CardCell>,
    },
    /// A card's new PIN.
    Pin {
        /// Which card.
        number: CardNumber,
        /// What it is now.
        pin: Arc<PinHash>,
        /// As above.
        _cell: Arc<CardCell>,
    },
    /// A login was refused.
    RefusedLogin,
    /// A login with a card that is unknown or blocked: what is written in the place of the card's counted try.
    StrayLogin,
    /// A terminal seen for the first time, or with a certificate for the first time, or given a secret, or retired by an operator.
    Terminal(Terminal),
    /// An account's status or limits.
    Account(AccountTerms),
    /// A new account, before its opening, which is appended together with it and applied to it then.
    NewAccount(Box<Account>),
    /// A new card.
    NewCard {
        /// Its number in the bank file.
        id: CardId,
        /// What it is.
        card: Box<NewCard>,
    },
    /// When the next business date begins.
    CutOver(CutOver),
    /// Somebody wants a checkpoint, and to be told when it is done.
    Checkpoint(std::sync::mpsc::Sender<Checkpointed>),
    /// A business date is closed.
    Closing(ClosingWithTotals),
}

/// A checkpoint that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpointed {
    /// Up to here the tables of accounts are up to date.
    pub lsn: Lsn,
    /// Whether SQLite's whole log is copied into the database; a reader may be in the way.
    pub whole_log: bool,
}

/// What an operator sets of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AccountTerms {
    pub(crate) account: AccountId,
    pub(crate) status: AccountStatus,
    pub(crate) overdraft_limit: Money,
    pub(crate) daily_limit: Option<Money>,
}

/// What an operator's command makes durable, all of it or nothing.
pub(crate) struct Ordered {
    /// The command's entry; it gets its number when it is appended.
    pub(crate) action: Action,
    /// What it posts.
    pub(crate) row: Option<Row>,
    /// What else it changes.
    pub(crate) updates: Vec<Update>,
}

/// An [`Ordered`] that has its place.
pub(crate) struct Appended {
    /// The command's entry, with its number.
    pub(crate) action: Action,
    /// The row, with its Lsn.
    pub(crate) row: Option<Row>,
    /// The last of it: durable, all of it is.
    pub(crate) last: UpdateNumber,
}

impl Ordered {
    /// A command that posts nothing.
    pub(crate) fn changing(action: Action, updates: Vec<Update>) -> Ordered {
        Ordered {
            action,
            row: None,
            updates,
        }
    }

    /// How many places it takes in the queue at most: an action, a row, and two updates.
    pub(crate) const SLOTS: usize = 4;
}

/// The place of an update of a card or terminal among all updates since the bank was opened. The default is before the
/// first, and so durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UpdateNumber(u64);

/// A place reserved in the queue. It is spent by one append; dropped unspent, it goes to somebody else.
#[derive(Debug)]
#[must_use]
pub struct Slot(SemaphoreGuardArc);

/// The journal of an open bank.
pub struct Journal {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    slots: Arc<Semaphore>,
    queue: Mutex<Queue>,
    arrived: Condvar,
    rows: Arc<DurableMark>,
    updates: Arc<DurableMark>,
    /// The newest commits that had rows.
    heads: Mutex<VecDeque<CommitHead>>,
    /// Set with the queue locked, so that the thread, which waits on the queue, does not overlook it.
    closing: AtomicBool,
    /// Why the thread ended, once it did.
    end: OnceLock<JournalError>,
    observer: OnceLock<CommitObserver>,
}

/// A commit that had rows.
struct CommitHead {
    first: Lsn,
    last: Lsn,
    head: Head,
}

struct Queue {
    batch: Batch,
    last_lsn: Lsn,
    last_action: Option<ActionId>,
    last_update: u64,
}

impl Journal {
    /// Starts the journal's thread on a store whose newest row and action are these.
    pub(crate) fn start(store: impl Store, last_lsn: Lsn, last_action: Option<ActionId>) -> Journal {
        let shared = Arc::new(Shared {
            slots: Arc::new(Semaphore::new(JOURNAL_QUEUE_ENTRIES)),
            queue: Mutex::new(Queue {
                batch: Batch::default(),
                last_lsn,
                last_action,
                last_update: 0,
            }),
            arrived: Condvar::new(),
            rows: DurableMark::new(last_lsn.get()),
            updates: DurableMark::new(0),
            heads: Mutex::default(),
            closing: AtomicBool::new(false),
            end: OnceLock::new(),
            observer: OnceLock::new(),
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            store,
            batch: Batch::default(),
        };
        let thread = thread::Builder::new()
            .name("journal".into())
            .spawn(move || writer.run())
            .expect("the operating system gives the journal its thread");
        Journal {
            shared,
            thread: Mutex::new(Some(thread)),
        }
    }

    /// Waits for a place in the queue. Nothing may be locked meanwhile.
    ///
    /// # Errors
    /// If the journal has ended.
    pub async fn reserve(&self) -> Result<Slot, JournalError> {
        let guard = match self.shared.slots.try_acquire_arc() {
            Some(guard) => guard,
            None => self.shared.slots.acquire_arc().await,
        };
        self.still_open(Slot(guard))
    }

    /// The blocking twin of [`Journal::reserve`].
    ///
    /// # Errors
    /// If the journal has ended.
    pub fn reserve_blocking(&self) -> Result<Slot, JournalError> {
        block_on(self.reserve())
    }

    fn still_open(&self, slot: Slot) -> Result<Slot, JournalError> {
        self.check_open()?;
        Ok(slot)
    }

    /// Gives the row its place, the next one, and gives that back. The order of appends is the order of Lsns,
    /// so whoever appends under an account's lock has that account's rows in order.
    pub(crate) fn append(&self, slot: Slot, mut row: Row) -> Lsn {
        self.push(slot, |queue| {
            row.lsn = queue.last_lsn.next();
            queue.last_lsn = row.lsn;
            queue.batch.rows.push(row);
            row.lsn
        })
    }

    /// Appends a change that is no row.
    pub(crate) fn append_update(&self, slot: Slot, update: Update) -> UpdateNumber {
        self.push(slot, |queue| {
            queue.last_update += 1;
            queue.batch.updates.push(update);
            UpdateNumber(queue.last_update)
        })
    }

    /// Reserves all places that an operator's command may take.
    ///
    /// # Errors
    /// If the journal has ended.
    pub(crate) fn reserve_for_order(&self) -> Result<Vec<Slot>, JournalError> {
        (0..Ordered::SLOTS).map(|_| self.reserve_blocking()).collect()
    }

    /// Appends what an operator's command makes durable, all of it to the same commit.
    pub(crate) fn append_order(&self, mut slots: Vec<Slot>, mut ordered: Ordered) -> Appended {
        let spare = slots.split_off(1 + usize::from(ordered.row.is_some()) + ordered.updates.len());
        let Some(last) = slots.pop() else {
            unreachable!("an order has at least its action")
        };
        slots.into_iter().for_each(|slot| slot.0.forget());
        drop(spare);
        self.push(last, |queue| {
            let id = ActionId::after(queue.last_action);
            queue.last_action = Some(id);
            ordered.action.id = id;
            if let Some(row) = &mut ordered.row {
                row.lsn = queue.last_lsn.next();
                row.action = Some(id);
                queue.last_lsn = row.lsn;
                ordered.action.lsn = Some(row.lsn);
                for update in &mut ordered.updates {
                    if let Update::NewAccount(account) = update {
                        account.apply(&row.account_change());
                    }
                }
                queue.batch.rows.push(*row);
            }
            queue.last_update += 1 + ordered.updates.len() as u64;
            queue.batch.actions.push(ordered.action.clone());
            queue.batch.updates.append(&mut ordered.updates);
            Appended {
                action: ordered.action,
                row: ordered.row,
                last: UpdateNumber(queue.last_update),
            }
        })
    }

    /// The head as of the commit that a durable row is in, if that is not too long ago to be kept here.
    pub(crate) fn head_at(&self, lsn: Lsn) -> Option<Head> {
        let heads = self.shared.heads.lock();
        let commit = heads.get(heads.partition_point(|commit| commit.last < lsn))?;
        (commit.first <= lsn).then_some(commit.head)
    }

    /// Spends a slot on one entry, and wakes the thread if it may be waiting for one.
    fn push<R>(&self, slot: Slot, add: impl FnOnce(&mut Queue) -> R) -> R {
        slot.0.forget();
        let mut queue = self.shared.queue.lock();
        let first = queue.batch.len() == 0;
        let added = add(&mut queue);
        drop(queue);
        if first {
            self.shared.arrived.notify_one();
        }
        added
    }

    /// Waits until the row `lsn`, and so every row before it, is durable.
    pub fn durable(&self, lsn: Lsn) -> Durable {
        self.shared.rows.wait(lsn.get())
    }

    /// Waits until the update, and every one before it, is durable.
    pub fn update_durable(&self, number: UpdateNumber) -> Durable {
        self.shared.updates.wait(number.0)
    }

    /// The newest durable row.
    pub fn durable_lsn(&self) -> Lsn {
        Lsn::new(self.shared.rows.get())
    }

    /// The newest row, whether or not it is durable yet.
    pub fn appended_lsn(&self) -> Lsn {
        self.shared.queue.lock().last_lsn
    }

    /// The newest update, whether or not it is durable yet.
    pub(crate) fn appended_update(&self) -> UpdateNumber {
        UpdateNumber(self.shared.queue.lock().last_update)
    }

    /// Entries that wait for the journal's thread to take them.
    pub fn queued(&self) -> usize {
        self.shared.queue.lock().batch.len()
    }

    /// Whether it still takes entries.
    ///
    /// # Errors
    /// If the journal has ended, or is about to.
    pub fn check_open(&self) -> Result<(), JournalError> {
        if self.shared.closing.load(Ordering::Acquire) {
            return Err(self.shared.end.get().cloned().unwrap_or(JournalError::Closed));
        }
        Ok(())
    }

    /// Has somebody told of each commit from now on. The first one stays.
    pub fn observe(&self, observer: CommitObserver) {
        let _ = self.shared.observer.set(observer);
    }

    /// Waits until the journal ends, by a failed commit or by being closed, and gives the reason.
    pub async fn ended(&self) -> JournalError {
        match self.shared.rows.wait(u64::MAX).await {
            Err(error) => error,
            Ok(()) => JournalError::Closed,
        }
    }

    /// Commits what was appended, finishes the store's work and ends the thread. Later appends are refused
    /// their slots.
    ///
    /// # Errors
    /// If a commit failed, now or before.
    pub fn close(&self) -> Result<(), JournalError> {
        self.shared.stop_taking();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's thread panicked");
        }
        match self.shared.end.get() {
            Some(error @ JournalError::Failed(_)) => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

impl Drop for Journal {
    /// A journal that nobody closed ends without finishing the store's work, as after a crash.
    fn drop(&mut self) {
        self.shared.end(&JournalError::Closed);
        if let Some(thread) = self.thread.get_mut().take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Nothing more becomes durable. Whoever waits, for durability or for a slot, is told.
    fn end(&self, error: &JournalError) {
        // Slots are refused before anybody is told, so that who was told gets none.
        let error = self.end.get_or_init(|| error.clone());
        self.stop_taking();
        self.rows.end(error);
        self.updates.end(error);
        self.slots.add_permits(JOURNAL_QUEUE_ENTRIES);
    }

    fn keep_head(&self, first: Lsn, last: Lsn, head: Head) {
        let mut heads = self.heads.lock();
        if heads.len() == RECENT_HEADS {
            heads.pop_front();
        }
        heads.push_back(CommitHead { first, last, head });
    }

    fn stop_taking(&self) {
        let queue = self.queue.lock();
        self.closing.store(true, Ordering::Release);
        drop(queue);
        self.arrived.notify_one();
    }
}

/// The journal's thread.
struct Writer<S> {
    shared: Arc<Shared>,
    store: S,
    batch: Batch,
}

impl<S: Store> Writer<S> {
    fn run(mut self) {
        // Should the thread panic, nothing it had taken may be waited for in vain.
        let shared = Arc::clone(&self.shared);
        let _end = EndOnDrop(&shared);
        let error = match self.commit_until_closed() {
            Ok(()) => JournalError::Closed,
            Err(error) => {
                tracing::error!(%error, "a commit failed: the journal is poisoned");
                JournalError::Failed(Arc::new(error))
            }
        };
        self.shared.end(&error);
    }

    fn commit_until_closed(&mut self) -> Result<(), BankFileError> {
        let mut busy = false;
        while self.take(busy) {
            if busy || self.batch.len() > 0 {
                let began = Instant::now();
                let head = self.store.commit(&self.batch)?;
                if let Some(observer) = self.shared.observer.get() {
                    observer(Commit {
                        rows: self.batch.rows.len(),
                        took: began.elapsed(),
                        sync: self.store.sync_time(),
                    });
                }
                if let (Some(first), Some(last)) = (self.batch.rows.first(), self.batch.rows.last()) {
                    if let Some(head) = head {
                        self.shared.keep_head(first.lsn, last.lsn, head);
                    }
                    self.shared.rows.advance(last.lsn.get());
                }
                let updates = self.batch.updates.len() + self.batch.actions.len();
                self.shared
                    .updates
                    .advance(self.shared.updates.get() + updates as u64);
                self.batch.clear();
            }
            busy = self.store.maintain()?;
        }
        if self.shared.end.get().is_none() {
            self.store.close()
        } else {
            Ok(())
        }
    }

    /// Takes what has gathered; waits for something unless `busy` with other work. False at the end.
    fn take(&mut self, busy: bool) -> bool {
        let mut queue = self.shared.queue.lock();
        while queue.batch.len() == 0 {
            if self.shared.closing.load(Ordering::Acquire) {
                return false;
            }
            if busy {
                return true;
            }
            self.shared.arrived.wait(&mut queue);
        }
        std::mem::swap(&mut queue.batch, &mut self.batch);
        drop(queue);
        self.shared.slots.add_permits(self.batch.len());
        true
    }
}

struct EndOnDrop<'a>(&'a Shared);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end(&JournalError::Closed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::AccountId;
    use crate::money::{Currency, Money};
    use crate::row::{Contra, Kind, Outcome, SystemAccount};
    use crate::time::{Moment, Timestamp};
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// A store whose every commit reports the Lsns it was given and waits to be told what to answer.
    struct Gated {
        batches: Sender<Vec<u64>>,
        answers: Receiver<Result<(), BankFileError>>,
    }

    impl Store for Gated {
        fn commit(&mut self, batch: &Batch) -> Result<Option<Head>, BankFileError> {
            self.batches
                .send(batch.rows.iter().map(|row| row.lsn.get()).collect())
                .unwrap();
            let answer: Result<(), BankFileError> = self.answers.recv().unwrap();
            answer.map(|()| batch.rows.last().map(|row| Head([row.lsn.get() as u8; 32])))
        }

        fn maintain(&mut self) -> Result<bool, BankFileError> {
            Ok(false)
        }

        fn close(&mut self) -> Result<(), BankFileError> {
            self.batches.send(vec![]).unwrap();
            Ok(())
        }
    }

    struct Bench {
        journal: Journal,
        batches: Receiver<Vec<u64>>,
        answers: Sender<Result<(), BankFileError>>,
    }

    fn bench() -> Bench {
        let (batches_in, batches) = channel();
        let (answers, answers_out) = channel();
        let store = Gated {
            batches: batches_in,
            answers: answers_out,
        };
        Bench {
            journal: Journal::start(store, Lsn::new(10), None),
            batches,
            answers,
        }
    }

    impl Bench {
        fn append(&self) -> Lsn {
            self.journal
                .append(self.journal.reserve_blocking().unwrap(), row())
        }
    }

    fn row() -> Row {
        Row {
            lsn: Lsn::ZERO,
            moment: Moment::at(Timestamp::from_millis(0)),
            kind: Kind::Opening,
            outcome: Outcome::Approved,
            txn_id: None,
            account: AccountId::new(1).unwrap(),
            contra: Contra::System(SystemAccount::Opening),
            terminal: None,
            amount: Money::ZERO,
            balance: Money::ZERO,
            prev_lsn: Lsn::ZERO,
            contra_side: None,
            original: None,
            card: None,
            action: None,
            period: None,
            currency: Currency::USD,
        }
    }

    fn failure() -> BankFileError {
        BankFileError::Damaged {
            what: "for the test".into(),
        }
    }

    #[test]
    fn what_gathers_during_a_commit_becomes_one_group() {
        let bench = bench();
        assert_eq!(bench.append().get(), 11);
        assert_eq!(bench.batches.recv().unwrap(), [11]);
        let last = (0..5).map(|_| bench.append()).last().unwrap();
        assert_eq!(
            bench.journal.durable_lsn().get(),
            10,
            "nothing is durable before its commit has returned"
        );
        assert_eq!(bench.journal.head_at(Lsn::new(11)), None, "nor has it a head");
        bench.answers.send(Ok(())).unwrap();
        assert_eq!(bench.batches.recv().unwrap(), [12, 13, 14, 15, 16]);
        assert_eq!(bench.journal.durable_lsn().get(), 11);
        bench.answers.send(Ok(())).unwrap();
        bench.journal.durable(last).wait().unwrap();
    }

    #[test]
    fn a_failed_commit_is_final() {
        let bench = bench();
        let first = bench.append();
        bench.batches.recv().unwrap();
        let second = bench.append();
        bench.answers.send(Err(failure())).unwrap();
        for lsn in [first, second] {
            assert!(matches!(
                bench.journal.durable(lsn).wait(),
                Err(JournalError::Failed(_))
            ));
        }
        assert!(
            bench.journal.durable(Lsn::new(10)).wait().is_ok(),
            "what was durable stays answered"
        );
        assert!(matches!(
            bench.journal.reserve_blocking(),
            Err(JournalError::Failed(_))
        ));
        assert!(matches!(block_on(bench.journal.ended()), JournalError::Failed(_)));
        assert!(matches!(bench.journal.close(), Err(JournalError::Failed(_))));
        assert!(
            bench.batches.try_recv().is_err(),
            "the store is called no more, not even to close it"
        );
    }

    #[test]
    fn a_full_queue_makes_writers_wait_until_a_group_is_taken() {
        let bench = bench();
        bench.append();
        bench.batches.recv().unwrap();
        let slots: Vec<_> = (0..JOURNAL_QUEUE_ENTRIES)
            .map(|_| bench.journal.reserve_blocking().unwrap())
            .collect();
        let mut waiting = Box::pin(bench.journal.reserve());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        let mut slots = slots.into_iter();
        bench.journal.append(slots.next().unwrap(), row());
        assert!(
            waiting.as_mut().poll(&mut context).is_pending(),
            "an append does not free its place"
        );
        bench.answers.send(Ok(())).unwrap();
        assert_eq!(bench.batches.recv().unwrap(), [12]);
        assert!(
            waiting.as_mut().poll(&mut context).is_ready(),
            "the taken group does"
        );
        drop(slots);
        bench.answers.send(Ok(())).unwrap();
    }

    #[test]
    fn an_unspent_slot_goes_to_somebody_else() {
        let bench = bench();
        let slots: Vec<_> = (0..JOURNAL_QUEUE_ENTRIES)
            .map(|_| bench.journal.reserve_blocking().unwrap())
            .collect();
        drop(slots);
        drop(bench.journal.reserve_blocking().unwrap());
    }

    #[test]
    fn those_who_wait_for_a_slot_are_told_of_the_end() {
        let bench = bench();
        bench.append();
        bench.batches.recv().unwrap();
        let slots: Vec<_> = (0..JOURNAL_QUEUE_ENTRIES)
            .map(|_| bench.journal.reserve_blocking().unwrap())
            .collect();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| bench.journal.reserve_blocking());
            bench.answers.send(Err(failure())).unwrap();
            assert!(matches!(waiting.join().unwrap(), Err(JournalError::Failed(_))));
        });
        drop(slots);
    }

    #[test]
    fn closing_commits_what_was_appended() {
        let bench = bench();
        let lsn = bench.append();
        bench.answers.send(Ok(())).unwrap();
        bench.journal.close().unwrap();
        assert!(bench.journal.durable(lsn).wait().is_ok());
        assert_eq!(
            bench.batches.iter().take(2).collect::<Vec<_>>(),
            [vec![11], vec![]]
        );
        assert!(matches!(
            bench.journal.reserve_blocking(),
            Err(JournalError::Closed)
        ));
    }
}
