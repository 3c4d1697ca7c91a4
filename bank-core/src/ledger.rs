//! The accounts and the journal together: where a transaction is decided, gets its place and takes effect, once.
//!
//! Everything here happens under account locks, takes microseconds and does no I/O. Whatever needs the disk, such
//! as finding an old id again, is [`crate::Bank`]'s.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use dashmap::{DashMap, Entry};

use crate::account::Account;
use crate::ids::{AccountId, ActionId, Lsn, TxnId};
use crate::journal::{Appended, Journal, Ordered, Slot};
use crate::limits::{ALL_RECENT_IDS, MAX_ID_AHEAD, RECENT_IDS_AGE, RECENT_IDS_SWEEP};
use crate::money::{Currency, Money};
use crate::recent_ids::Seen;
use crate::row::{Contra, Row};
use crate::shared_cell::SharedCell;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use crate::time::{BusinessDate, Moment, Timestamp};
use crate::transaction::{NotPosted, Order, Payee, Posting, Transaction, decide, reverse};

/// All accounts, each in a cell of its own. Their numbers are the bank's, so nobody can choose them such that they hash alike, and
/// a quick hash will do.
pub(crate) type Accounts = DashMap<AccountId, Arc<SharedCell<Account>>, foldhash::fast::RandomState>;

/// An account of an open bank.
#[derive(Clone, Debug)]
pub struct AccountHandle {
    id: AccountId,
    cell: Arc<SharedCell<Account>>,
}

/// An account's balance and the newest row that it depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// What the bank owes the customer.
    pub balance: Money,
    /// In which currency.
    pub currency: Currency,
    /// The row that must be durable before the balance is shown.
    pub lsn: Lsn,
}

impl AccountHandle {
    /// The account's number.
    pub fn id(&self) -> AccountId {
        self.id
    }

    /// The balance, and what it depends on.
    pub fn balance(&self) -> Balance {
        self.cell.read(|account| Balance {
            balance: account.balance,
            currency: account.currency,
            lsn: account.last_lsn,
        })
    }

    #[cfg(test)]
    pub(crate) fn copy(&self) -> Account {
        self.cell.read(Account::clone)
    }

    /// The account as it is, without the ids that it remembers. What it tells depends on its newest row.
    pub(crate) fn view(&self) -> Account {
        self.cell.read(Account::without_recent_ids)
    }

    /// The account's currency, which never changes.
    pub fn currency(&self) -> Currency {
        self.cell.read(|account| account.currency)
    }
}

/// What became of an order that was posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    /// It was decided now: the row is its receipt, once it is durable.
    Decided(Row),
    /// Its id has its outcome in this row, or is used for another order.
    Seen(Lsn),
    /// Its id may be one that the account has forgotten, of which this is the greatest. The journal would tell; nothing
    /// was done.
    PerhapsSeen(TxnId),
    /// Its id is too far ahead of the clock. Nothing was done.
    Ahead,
}

/// What is known of an order's id before it is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Searched {
    /// Nothing.
    No,
    /// It is not in the journal, and nobody else is about to bring it there.
    InVain,
}

pub(crate) struct Ledger {
    accounts: Accounts,
    journal: Journal,
    /// How many transaction ids all accounts keep.
    kept_ids: AtomicUsize,
    /// The accounts that keep some, each once, with the instant from which it is worth while to look for old ones.
    keepers: Mutex<VecDeque<(AccountId, Timestamp)>>,
    /// Days since 1970 of the first business date that is not closed. It is read under an account's lock alone.
    first_open_date: AtomicI32,
}

impl Ledger {
    pub(crate) fn new(accounts: Accounts, journal: Journal, closed_through: Option<BusinessDate>) -> Ledger {
        let mut keepers = VecDeque::new();
        let mut kept_ids = 0;
        for account in &accounts {
            account.read(|account| {
                kept_ids += account.recent_ids.len();
                if let Some(oldest) = account.recent_ids.oldest() {
                    keepers.push_back((account.id, worn_out(oldest)));
                }
            });
        }
        Ledger {
            accounts,
            journal,
            kept_ids: AtomicUsize::new(kept_ids),
            keepers: Mutex::new(keepers),
            first_open_date: AtomicI32::new(closed_through.map_or(i32::MIN, |date| date.next().days())),
        }
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(crate) fn account_count(&self) -> usize {
        self.accounts.len()
    }

    pub(crate) fn account(&self, id: AccountId) -> Option<AccountHandle> {
        // The clone outlives the map's guard, which is gone with this statement.
        let cell = Arc::clone(&*self.accounts.get(&id)?);
        Some(AccountHandle { id, cell })
    }

    /// The numbers of all accounts, in order.
    pub(crate) fn account_ids(&self) -> Vec<AccountId> {
        let mut ids: Vec<_> = self.accounts.iter().map(|account| *account.key()).collect();
        ids.sort_unstable();
        ids
    }

    /// The moment, on a date that is not closed. An account must be locked: see [`Ledger::close_through`].
    fn on_open_date(&self, now: Moment) -> Moment {
        let first_open = BusinessDate::from_days(self.first_open_date.load(Ordering::Relaxed));
        now.not_before(now.time, first_open)
    }

    /// Sees to it that no row gets this date any more, or one before it. When it returns, all rows of these dates have been
    /// appended.
    pub(crate) fn close_through(&self, date: BusinessDate) {
        self.first_open_date
            .fetch_max(date.next().days(), Ordering::Relaxed);
        // Whoever decided by the date so far had an account locked. Once each was locked after him, he has appended his row, and
        // whoever locks one after us finds the new date: the lock puts the two in order.
        for id in self.account_ids() {
            if let Some(account) = self.account(id) {
                account.cell.write(|_| ());
            }
        }
    }

    /// Posts what the bank itself posts, by an action that is in the journal already.
    pub(crate) fn post_by_action(
        &self,
        slot: Slot,
        account: &AccountHandle,
        posting: &Posting,
        action: ActionId,
        now: Moment,
    ) -> Result<Row, NotPosted> {
        account.cell.write(|account| {
            let row = posting.row(account, Some(action), self.on_open_date(now))?;
            Ok(self.carry_out(slot, row, account, None))
        })
    }

    /// Does what an operator orders of one account: `decide` looks at a copy of it and says what becomes durable; the status and limits
    /// that it sets there become the account's.
    pub(crate) fn order<E>(
        &self,
        slots: Vec<Slot>,
        account: &AccountHandle,
        now: Moment,
        decide: impl FnOnce(&mut Account, Moment) -> Result<Ordered, E>,
    ) -> Result<Appended, E> {
        account.cell.write(|account| {
            let mut after = account.without_recent_ids();
            let ordered = decide(&mut after, self.on_open_date(now))?;
            let appended = self.journal.append_order(slots, ordered);
            account.status = after.status;
            account.overdraft_limit = after.overdraft_limit;
            account.daily_limit = after.daily_limit;
            if let Some(row) = &appended.row {
                account.apply(&row.account_change());
            }
            Ok(appended)
        })
    }

    /// Opens an account, unless there is one with its number: `order` says what becomes durable.
    pub(crate) fn open_account(
        &self,
        slots: Vec<Slot>,
        account: Account,
        now: Moment,
        order: impl FnOnce(&Account, Moment) -> Ordered,
    ) -> Option<Appended> {
        let id = account.id;
        let cell = Arc::new(SharedCell::new(account));
        // It is locked before anybody can find it, so that no row comes before its opening; and it can be found before its opening has
        // its place, so that whoever knows that place finds it.
        cell.write(|account| {
            match self.accounts.entry(id) {
                Entry::Occupied(_) => return None,
                Entry::Vacant(place) => drop(place.insert(Arc::clone(&cell))),
            }
            let ordered = order(account, self.on_open_date(now));
            let appended = self.journal.append_order(slots, ordered);
            if let Some(row) = &appended.row {
                account.apply(&row.account_change());
            }
            Some(appended)
        })
    }

    /// Decides an order unless its id is known, gives it its place in the journal and carries it out.
    pub(crate) fn post(
        &self,
        slot: Slot,
        account: &AccountHandle,
        order: &Order,
        now: Moment,
        searched: Searched,
    ) -> Posted {
        let payee = match order.transaction {
            Transaction::Transfer { to, .. } if to != account.id => self.account(to),
            _ => None,
        };
        let (posted, kept) = lock_both(account, payee.as_ref(), |account, payee| {
            match account.recent_ids.look_up(order.txn_id) {
                Seen::At(lsn) => return (Posted::Seen(lsn), 0..0),
                Seen::Perhaps(newest) if searched == Searched::No => {
                    return (Posted::PerhapsSeen(newest), 0..0);
                }
                Seen::Perhaps(_) | Seen::Never => {}
            }
            // Where time went on faster than the clock says, ids do, too.
            if is_ahead(order.txn_id, now.time.max(account.last_time)) {
                return (Posted::Ahead, 0..0);
            }
            let kept = account.recent_ids.len();
            let now = self.on_open_date(now);
            let row = decide(
                order,
                account,
                payee.as_deref().map_or(Payee::None, Payee::Account),
                now,
            );
            let row = self.carry_out(slot, row, account, payee);
            (Posted::Decided(row), kept..account.recent_ids.len())
        });
        self.count_kept(account.id, kept, now.time);
        posted
    }

    /// Undoes an approved row of the account. The caller sees to it that it is done once.
    pub(crate) fn reverse(&self, slot: Slot, account: &AccountHandle, original: &Row, now: Moment) -> Row {
        let payee = match original.contra {
            Contra::Account(payee) => self.account(payee),
            Contra::System(_) => None,
        };
        lock_both(account, payee.as_ref(), |account, payee| {
            let row = reverse(original, account, payee.as_deref(), self.on_open_date(now));
            self.carry_out(slot, row, account, payee)
        })
    }

    fn carry_out(&self, slot: Slot, mut row: Row, account: &mut Account, payee: Option<&mut Account>) -> Row {
        row.lsn = self.journal.append(slot, row);
        // From here on nothing can fail.
        account.apply(&row.account_change());
        if let (Some(payee), Some((_, change))) = (payee, row.payee_change()) {
            payee.apply(&change);
        }
        row
    }

    /// Takes note that an account keeps more ids than before, and drops old ones of some accounts if there are too
    /// many in all.
    fn count_kept(&self, id: AccountId, kept: Range<usize>, now: Timestamp) {
        if kept.is_empty() {
            return;
        }
        if kept.start == 0 {
            self.keepers.lock().push_back((id, worn_out(now)));
        }
        if self.kept_ids.fetch_add(kept.len(), Ordering::Relaxed) > ALL_RECENT_IDS {
            self.sweep(now);
        }
    }

    fn sweep(&self, now: Timestamp) {
        for _ in 0..RECENT_IDS_SWEEP {
            let due = |&mut (_, due): &mut (_, Timestamp)| due <= now;
            let Some((id, _)) = self.keepers.lock().pop_front_if(due) else {
                return;
            };
            let Some(account) = self.account(id) else { continue };
            let (dropped, oldest) = account.cell.write(|account| {
                let kept = account.recent_ids.len();
                account.recent_ids.drop_before(before(now, RECENT_IDS_AGE));
                (kept - account.recent_ids.len(), account.recent_ids.oldest())
            });
            self.kept_ids.fetch_sub(dropped, Ordering::Relaxed);
            if let Some(oldest) = oldest {
                self.keepers.lock().push_back((id, worn_out(oldest)));
            }
        }
    }
}

/// From when on an id of that time is too old to be kept where memory is short.
fn worn_out(time: Timestamp) -> Timestamp {
    Timestamp::from_millis(time.millis().saturating_add(RECENT_IDS_AGE.as_millis() as i64))
}

fn before(time: Timestamp, duration: Duration) -> Timestamp {
    Timestamp::from_millis(time.millis().saturating_sub(duration.as_millis() as i64))
}

/// Runs `work` with one account or two locked. Two transfers the opposite way must not wait for each other, so the
/// lower number is locked first.
fn lock_both<R>(
    account: &AccountHandle,
    payee: Option<&AccountHandle>,
    work: impl FnOnce(&mut Account, Option<&mut Account>) -> R,
) -> R {
    match payee {
        None => account.cell.write(|account| work(account, None)),
        Some(payee) if account.id < payee.id => account
            .cell
            .write(|account| payee.cell.write(|payee| work(account, Some(payee)))),
        Some(payee) => payee
            .cell
            .write(|payee| account.cell.write(|account| work(account, Some(payee)))),
    }
}

fn is_ahead(id: TxnId, now: Timestamp) -> bool {
    Timestamp::from(id).millis() > now.millis().saturating_add(MAX_ID_AHEAD.as_millis() as i64)
}
