//! Ending doubt: finding what became of a transaction, undoing it, and crediting what a terminal took while the bank
//! was away.
//!
//! Most of this may read the journal and wait for the disk, so it belongs on a thread that may wait. What it gives may be
//! shown when the row that it names is durable, as everything else.
//!
//! Why it is exact although the journal is searched with nothing locked: an id that an account may have forgotten is
//! never posted by a customer's request. Only a terminal's can still use it, and of those one at a time is at work
//! on an original, so what the search did not find is not there until that request has brought it there.

use crate::bank::Bank;
use crate::bank_file::{BankFileError, History};
use crate::durable::JournalError;
use crate::ids::{AccountId, Lsn, TerminalId, TxnId};
use crate::ledger::{AccountHandle, Posted, Searched};
use crate::money::{Amount, Currency, Money};
use crate::row::{Kind, Outcome, Row, SystemAccount, SystemLedger};
use crate::time::{Moment, Timestamp};
use crate::transaction::{Order, Transaction};

/// What is known of an order whose id is not new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It was decided: this is its row.
    Outcome(Row),
    /// The id is that of another transaction.
    OtherBody,
    /// It was never used, and cannot be used any more. A new id must be later than this.
    Stale(Timestamp),
}

/// What became of a terminal's original.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// This: it is in force, or was declined. Of a reversal that was declined, the reversal's row.
    Outcome(Row),
    /// It was undone by this row.
    Reversed(Row),
    /// It was not done by this terminal, nor will it be, once this row is durable.
    Never(Lsn),
}

impl Fate {
    /// The row that must be durable before this is shown.
    pub fn lsn(&self) -> Lsn {
        match self {
            Fate::Outcome(row) | Fate::Reversed(row) => row.lsn,
            Fate::Never(lsn) => *lsn,
        }
    }
}

/// Why a terminal's original is not settled. Nothing happened.
#[derive(Debug, thiserror::Error)]
pub enum SettlingError {
    /// Another request about the same original is at work.
    #[error("the same transaction is being settled by another request")]
    Busy,
    /// The id is too far ahead of the clock.
    #[error("the transaction id is ahead of the clock")]
    Ahead,
    /// The id is that of another transaction.
    #[error("the transaction id is that of another transaction")]
    OtherBody,
    /// The journal has ended, so nothing may be answered.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The bank file could not be read.
    #[error(transparent)]
    BankFile(#[from] BankFileError),
}

/// An order by a terminal that settles: decided now, or found.
enum Settled {
    Now(Row),
    Before { outcome: Row, reversal: Option<Row> },
}

/// What a terminal finds of its original, once it has given up what was never done.
#[expect(clippy::large_enum_variant, reason = "it is taken apart where it comes from")]
enum Original {
    Done { outcome: Row, reversal: Option<Row> },
    Never(Lsn),
}

impl Bank {
    /// The first outcome of an order that [`Bank::post`] did not decide since its id is or may be known. It blocks until
    /// that is durable and read.
    ///
    /// # Errors
    /// [`SettlingError::Journal`] or [`SettlingError::BankFile`].
    pub fn first_outcome(
        &self,
        account: &AccountHandle,
        order: &Order,
        posted: Posted,
    ) -> Result<Repeat, SettlingError> {
        let row = match posted {
            Posted::Decided(row) => Some(row),
            Posted::Seen(lsn) => self.history(account, order.txn_id, lsn)?.outcome,
            Posted::PerhapsSeen(_) => {
                self.history(account, order.txn_id, account.balance().lsn)?
                    .outcome
            }
            Posted::Ahead => return Err(SettlingError::Ahead),
        };
        Ok(match (row, posted) {
            (Some(row), _) if order.has_outcome(&row) => Repeat::Outcome(row),
            (Some(_), _) => Repeat::OtherBody,
            (None, Posted::PerhapsSeen(newest)) => Repeat::Stale(newest.into()),
            (None, _) => {
                let id = order.txn_id;
                return Err(BankFileError::damaged(format!("transaction {id} has lost its row")).into());
            }
        })
    }

    /// Tells what became of a terminal's original. One that was never done is given up, so that it never will be.
    ///
    /// # Errors
    /// [`SettlingError`].
    pub fn resolve(
        &self,
        account: &AccountHandle,
        txn_id: TxnId,
        terminal: TerminalId,
        now: Moment,
    ) -> Result<Fate, SettlingError> {
        let _claim = self.claim(account, txn_id)?;
        let (outcome, reversal) = match self.give_up(account, txn_id, terminal, now)? {
            Original::Done { outcome, reversal } => (outcome, reversal),
            Original::Never(lsn) => return Ok(Fate::Never(lsn)),
        };
        Ok(match reversal {
            Some(reversal) if reversal.outcome == Outcome::Approved => Fate::Reversed(reversal),
            _ => Fate::Outcome(outcome),
        })
    }

    /// Undoes a terminal's original, once however often it is asked for. One that was never done is given up; one that
    /// was declined is left as it is.
    ///
    /// # Errors
    /// [`SettlingError`].
    pub fn reverse(
        &self,
        account: &AccountHandle,
        txn_id: TxnId,
        terminal: TerminalId,
        now: Moment,
    ) -> Result<Fate, SettlingError> {
        let _claim = self.claim(account, txn_id)?;
        let (outcome, reversal) = match self.give_up(account, txn_id, terminal, now)? {
            Original::Done { outcome, reversal } => (outcome, reversal),
            Original::Never(lsn) => return Ok(Fate::Never(lsn)),
        };
        if outcome.outcome != Outcome::Approved {
            return Ok(Fate::Outcome(outcome));
        }
        let reversal = match reversal {
            Some(reversal) => reversal,
            None => {
                let slot = self.journal().reserve_blocking()?;
                self.ledger.reverse(slot, account, &outcome, now)
            }
        };
        Ok(match reversal.outcome {
            Outcome::Approved => Fate::Reversed(reversal),
            Outcome::Declined(_) => Fate::Outcome(reversal),
        })
    }

    /// Credits what a terminal has taken, unless its deposit arrived: gives the one outcome of both.
    ///
    /// # Errors
    /// [`SettlingError`].
    pub fn advise(
        &self,
        account: &AccountHandle,
        txn_id: TxnId,
        terminal: TerminalId,
        amount: Amount,
        now: Moment,
    ) -> Result<Row, SettlingError> {
        let _claim = self.claim(account, txn_id)?;
        let order = Order {
            txn_id,
            terminal,
            card: None,
            transaction: Transaction::Advice { amount },
        };
        match self.settle(account, &order, now)? {
            Settled::Now(row) => Ok(row),
            Settled::Before { outcome, .. } if order.has_outcome(&outcome) => Ok(outcome),
            Settled::Before { .. } => Err(SettlingError::OtherBody),
        }
    }

    /// What cash came into a terminal less what went out, by currency, and the row that must be durable before it is shown.
    pub fn cash_totals(&self, terminal: TerminalId) -> (Lsn, Vec<(Currency, Money)>) {
        let books = self.books.lock();
        // Every currency of the bank has an opening account, and these stand together.
        let currencies = books
            .totals
            .keys()
            .skip_while(|ledger| ledger.account < SystemAccount::Opening)
            .take_while(|ledger| ledger.account == SystemAccount::Opening)
            .map(|ledger| ledger.currency);
        let totals = currencies.filter_map(|currency| {
            let cash = SystemLedger {
                account: SystemAccount::Cash,
                currency,
                terminal: Some(terminal),
            };
            // The bank's side is negative where the terminal has cash.
            let total = -books.totals.get(&cash)?;
            let minor = total.clamp(i64::MIN.into(), i64::MAX.into());
            Some((currency, Money::from_minor(minor as i64)))
        });
        (books.lsn, totals.collect())
    }

    /// Sees to it that no other terminal's request about the original is at work.
    fn claim(&self, account: &AccountHandle, txn_id: TxnId) -> Result<Claim<'_>, SettlingError> {
        let key = (account.id(), txn_id);
        if self.settling.insert(key) {
            Ok(Claim { bank: self, key })
        } else {
            Err(SettlingError::Busy)
        }
    }

    /// Gives an original up unless it was done: then gives what was found of it, if it is this terminal's.
    fn give_up(
        &self,
        account: &AccountHandle,
        txn_id: TxnId,
        terminal: TerminalId,
        now: Moment,
    ) -> Result<Original, SettlingError> {
        let fence = Order {
            txn_id,
            terminal,
            card: None,
            transaction: Transaction::GiveUp,
        };
        Ok(match self.settle(account, &fence, now)? {
            Settled::Now(row) => Original::Never(row.lsn),
            // That another terminal has used the id is none of this one's business.
            Settled::Before { outcome, .. }
                if outcome.kind == Kind::Fence || outcome.terminal != Some(terminal) =>
            {
                Original::Never(outcome.lsn)
            }
            Settled::Before { outcome, reversal } => Original::Done { outcome, reversal },
        })
    }

    /// Posts an order of a terminal that settles, unless the id has its outcome, however old it is. The id is claimed.
    fn settle(&self, account: &AccountHandle, order: &Order, now: Moment) -> Result<Settled, SettlingError> {
        let mut searched = Searched::No;
        loop {
            let slot = self.journal().reserve_blocking()?;
            match self.ledger.post(slot, account, order, now, searched) {
                Posted::Decided(row) => return Ok(Settled::Now(row)),
                Posted::Ahead => return Err(SettlingError::Ahead),
                Posted::Seen(_) | Posted::PerhapsSeen(_) => {}
            }
            let newest = account.balance().lsn;
            let History { outcome, reversal } = self.history(account, order.txn_id, newest)?;
            match outcome {
                Some(outcome) => return Ok(Settled::Before { outcome, reversal }),
                None if searched == Searched::No => searched = Searched::InVain,
                None => {
                    let id = order.txn_id;
                    return Err(BankFileError::damaged(format!("transaction {id} has lost its row")).into());
                }
            }
        }
    }

    /// What the journal holds under an id from the account's row `newest` back. It waits until that row is durable.
    fn history(&self, account: &AccountHandle, txn_id: TxnId, newest: Lsn) -> Result<History, SettlingError> {
        self.journal().durable(newest).wait()?;
        Ok(self
            .readers
            .history(account.id(), account.currency(), newest, txn_id)?)
    }
}

/// An original that a request is at work on, until this is dropped.
struct Claim<'a> {
    bank: &'a Bank,
    key: (AccountId, TxnId),
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.bank.settling.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::RECENT_IDS;
    use crate::test_bank::{Site, account, amount, moment, order, post_at, post_order};
    use crate::transaction::Decline;

    const NOW: i64 = 100;

    fn terminal(id: &str) -> TerminalId {
        id.parse().unwrap()
    }

    fn withdraw(minor: i64) -> Transaction {
        Transaction::Withdraw {
            amount: amount(minor),
        }
    }

    fn repeat(bank: &Bank, number: u64, order: &Order) -> Repeat {
        let posted = post_order(bank, number, order, moment(NOW));
        bank.first_outcome(&account(bank, number), order, posted).unwrap()
    }

    fn never(fate: Fate) -> bool {
        matches!(fate, Fate::Never(_))
    }

    fn decided(posted: Posted) -> Row {
        match posted {
            Posted::Decided(row) => row,
            other => panic!("{other:?}"),
        }
    }

    /// Ways to make a bank forget: by itself, by a restart after a crash, and by one in order, after which only the
    /// greatest id of each account is known.
    fn restarts() -> [fn(&Site, Bank) -> Bank; 3] {
        [
            |_, bank| bank,
            |site, bank| {
                drop(bank);
                site.open()
            },
            |site, bank| {
                bank.close().unwrap();
                drop(bank);
                site.open()
            },
        ]
    }

    #[test]
    fn a_repeat_gets_the_first_outcome_through_any_restart() {
        for restart in restarts() {
            let site = Site::new();
            let mut bank = site.open();
            let orders = [
                order(Transaction::Deposit { amount: amount(5) }, moment(1)),
                order(withdraw(9999), moment(2)),
                order(
                    Transaction::Transfer {
                        to: AccountId::new(2).unwrap(),
                        amount: amount(7),
                    },
                    moment(3),
                ),
            ];
            let firsts = orders.map(|order| decided(post_order(&bank, 1, &order, moment(3))));
            bank = restart(&site, bank);
            post_at(&bank, 1, Transaction::Deposit { amount: amount(1) }, moment(4));
            for (order, first) in orders.iter().zip(firsts) {
                assert_eq!(repeat(&bank, 1, order), Repeat::Outcome(first));
                let other = Order {
                    transaction: withdraw(1),
                    ..*order
                };
                assert_eq!(repeat(&bank, 1, &other), Repeat::OtherBody);
                let elsewhere = Order {
                    terminal: terminal("ATM-2"),
                    ..*order
                };
                assert_eq!(repeat(&bank, 1, &elsewhere), Repeat::OtherBody);
            }
            // Under the same id another account has another transaction.
            let on_another = decided(post_order(&bank, 3, &orders[0], moment(NOW)));
            assert_eq!(on_another.outcome, Outcome::Approved);
            assert_eq!(account(&bank, 1).balance().balance.minor(), 1000 + 5 - 7 + 1);
        }
    }

    #[test]
    fn a_repeat_is_known_after_more_transactions_than_an_account_remembers() {
        let site = Site::new();
        let bank = site.open();
        let first = order(Transaction::Deposit { amount: amount(5) }, moment(1));
        let row = decided(post_order(&bank, 1, &first, moment(1)));
        let mut last = row;
        for _ in 0..RECENT_IDS + 10 {
            let slot = bank.journal().reserve_blocking().unwrap();
            let next = order(Transaction::Deposit { amount: amount(1) }, moment(2));
            last = decided(bank.post(slot, &account(&bank, 1), &next, moment(2)));
        }
        bank.journal().durable(last.lsn).wait().unwrap();
        assert!(matches!(
            post_order(&bank, 1, &first, moment(NOW)),
            Posted::PerhapsSeen(_)
        ));
        assert_eq!(repeat(&bank, 1, &first), Repeat::Outcome(row));
        // What was never asked for and is too old to be known for new is stale, by what it says of the newest.
        let late = order(Transaction::Deposit { amount: amount(5) }, moment(0));
        assert!(matches!(repeat(&bank, 1, &late), Repeat::Stale(newest) if newest >= moment(1).time));
        assert_eq!(
            account(&bank, 1).balance().lsn,
            last.lsn,
            "none of these did anything"
        );
    }

    #[test]
    fn an_id_from_the_future_is_refused_unless_it_is_known() {
        let site = Site::new();
        let bank = site.open();
        let ahead = |seconds| order(Transaction::Deposit { amount: amount(5) }, moment(seconds));
        let allowed = ahead(300);
        let row = decided(post_order(&bank, 1, &allowed, moment(0)));
        assert_eq!(post_order(&bank, 1, &ahead(301), moment(0)), Posted::Ahead);
        // The clock was set back: what is known is known all the same.
        assert_eq!(post_order(&bank, 1, &allowed, moment(-60)), Posted::Seen(row.lsn));
        let far = ahead(301);
        let settled = bank.resolve(&account(&bank, 1), far.txn_id, far.terminal, moment(0));
        assert!(matches!(settled, Err(SettlingError::Ahead)));
    }

    #[test]
    fn resolving_ends_doubt_for_good() {
        for restart in restarts() {
            let site = Site::new();
            let mut bank = site.open();
            let done = order(withdraw(5), moment(1));
            let declined = order(withdraw(9999), moment(2));
            let lost = order(withdraw(7), moment(3));
            let rows = [done, declined].map(|order| decided(post_order(&bank, 1, &order, moment(3))));
            let resolve = |bank: &Bank, order: &Order, terminal| {
                bank.resolve(&account(bank, 1), order.txn_id, terminal, moment(NOW))
                    .unwrap()
            };
            assert!(never(resolve(&bank, &lost, lost.terminal)));
            bank = restart(&site, bank);
            for _ in 0..2 {
                assert_eq!(resolve(&bank, &done, done.terminal), Fate::Outcome(rows[0]));
                assert_eq!(resolve(&bank, &declined, done.terminal), Fate::Outcome(rows[1]));
                assert!(never(resolve(&bank, &lost, lost.terminal)));
                // Another terminal is told the same of what was done as of what was not, and changes nothing by asking.
                assert!(never(resolve(&bank, &done, terminal("ATM-2"))));
            }
            let Repeat::Outcome(fence) = repeat(&bank, 1, &lost) else {
                panic!("a late copy meets the fence");
            };
            assert_eq!(fence.outcome, Outcome::Declined(Decline::GivenUp));
            assert_eq!(account(&bank, 1).balance().balance.minor(), 995);
            assert_eq!(site.query("SELECT count(*) FROM journal"), 10 + 3);
        }
    }

    #[test]
    fn a_reversal_undoes_once_and_before_its_original_it_forbids_it() {
        for restart in restarts() {
            let site = Site::new();
            let mut bank = site.open();
            let to = AccountId::new(2).unwrap();
            let transfer = order(
                Transaction::Transfer {
                    to,
                    amount: amount(5),
                },
                moment(1),
            );
            let declined = order(withdraw(9999), moment(2));
            let late = order(withdraw(7), moment(3));
            let rows = [transfer, declined].map(|order| decided(post_order(&bank, 1, &order, moment(3))));
            let reverse = |bank: &Bank, order: &Order, terminal| {
                bank.reverse(&account(bank, 1), order.txn_id, terminal, moment(NOW))
                    .unwrap()
            };
            bank = restart(&site, bank);
            assert!(never(reverse(&bank, &transfer, terminal("ATM-2"))));
            let Fate::Reversed(reversal) = reverse(&bank, &transfer, transfer.terminal) else {
                panic!("it is undone");
            };
            bank = restart(&site, bank);
            for _ in 0..2 {
                assert_eq!(
                    reverse(&bank, &transfer, transfer.terminal),
                    Fate::Reversed(reversal)
                );
                assert_eq!(
                    bank.resolve(
                        &account(&bank, 1),
                        transfer.txn_id,
                        transfer.terminal,
                        moment(NOW)
                    )
                    .unwrap(),
                    Fate::Reversed(reversal)
                );
                assert_eq!(
                    reverse(&bank, &declined, declined.terminal),
                    Fate::Outcome(rows[1])
                );
                assert!(never(reverse(&bank, &late, late.terminal)));
            }
            assert_eq!(
                repeat(&bank, 1, &transfer),
                Repeat::Outcome(rows[0]),
                "the original's outcome stays what it was"
            );
            assert!(matches!(repeat(&bank, 1, &late), Repeat::Outcome(fence) if fence.kind == Kind::Fence));
            for number in [1, 2] {
                assert_eq!(account(&bank, number).balance().balance.minor(), 1000);
            }
            bank.close().unwrap();
            let proof = crate::bank_file::verify(&site.path()).unwrap();
            assert!(proof.holds(), "{:?}", proof.problems);
        }
    }

    #[test]
    fn an_advice_and_its_deposit_are_one_whichever_comes_first_and_however_late() {
        for restart in restarts() {
            let site = Site::new();
            let mut bank = site.open();
            let five = Transaction::Deposit { amount: amount(5) };
            let (arrived, lost, given_up) = (
                order(five, moment(1)),
                order(five, moment(2)),
                order(five, moment(3)),
            );
            let first = decided(post_order(&bank, 1, &arrived, moment(3)));
            let fate = bank.resolve(&account(&bank, 1), given_up.txn_id, given_up.terminal, moment(3));
            assert!(never(fate.unwrap()));
            // So much later that the account knows no id for new that old.
            post_at(&bank, 1, withdraw(1), moment(50));
            bank = restart(&site, bank);
            let advise = |bank: &Bank, order: &Order, minor| {
                bank.advise(
                    &account(bank, 1),
                    order.txn_id,
                    order.terminal,
                    amount(minor),
                    moment(NOW),
                )
            };
            assert_eq!(advise(&bank, &arrived, 5).unwrap(), first);
            assert!(matches!(
                advise(&bank, &arrived, 6),
                Err(SettlingError::OtherBody)
            ));
            let credited = advise(&bank, &lost, 5).unwrap();
            assert_eq!(
                (credited.kind, credited.outcome),
                (Kind::Advice, Outcome::Approved)
            );
            bank = restart(&site, bank);
            assert_eq!(advise(&bank, &lost, 5).unwrap(), credited);
            assert_eq!(repeat(&bank, 1, &lost), Repeat::Outcome(credited));
            assert_eq!(
                advise(&bank, &given_up, 5).unwrap().outcome,
                Outcome::Declined(Decline::GivenUp)
            );
            assert_eq!(account(&bank, 1).balance().balance.minor(), 1000 + 5 - 1 + 5);
            let (lsn, totals) = bank.cash_totals(lost.terminal);
            assert_eq!(lsn, bank.journal().durable_lsn());
            assert_eq!(totals, [(Currency::USD, Money::from_minor(9))]);
            assert_eq!(bank.cash_totals(terminal("ATM-2")).1, []);
        }
    }

    #[test]
    fn an_original_is_settled_by_one_request_at_a_time() {
        let site = Site::new();
        let bank = site.open();
        let original = order(withdraw(5), moment(1));
        decided(post_order(&bank, 1, &original, moment(1)));
        let held = bank.claim(&account(&bank, 1), original.txn_id).unwrap();
        let reverse = || {
            bank.reverse(
                &account(&bank, 1),
                original.txn_id,
                original.terminal,
                moment(NOW),
            )
        };
        assert!(matches!(reverse(), Err(SettlingError::Busy)));
        drop(held);
        assert!(matches!(reverse(), Ok(Fate::Reversed(_))));
    }

    /// Of many who ask the same at once, through any doors, one is decided and all are told the same.
    #[test]
    fn racing_requests_agree() {
        let site = Site::new();
        let bank = site.open();
        for round in 0..50 {
            let original = order(withdraw(1), moment(round));
            let fates: Vec<_> = std::thread::scope(|scope| {
                let ask = |n: u64| {
                    let (bank, original) = (&bank, &original);
                    scope.spawn(move || match n % 2 {
                        0 => match repeat(bank, 1, original) {
                            Repeat::Outcome(row) => Some(Fate::Outcome(row)),
                            other => panic!("{other:?}"),
                        },
                        _ => bank
                            .resolve(&account(bank, 1), original.txn_id, original.terminal, moment(NOW))
                            .ok(),
                    })
                };
                let threads: Vec<_> = (0..6).map(ask).collect();
                threads
                    .into_iter()
                    .filter_map(|thread| thread.join().unwrap())
                    .collect()
            });
            let never = |fate: &Fate| match fate {
                Fate::Never(_) => true,
                Fate::Outcome(row) => row.kind == Kind::Fence,
                Fate::Reversed(_) => false,
            };
            let fenced = never(&fates[0]);
            assert!(fates.iter().all(|fate| never(fate) == fenced), "{fates:?}");
        }
        assert_eq!(site.query("SELECT count(*) FROM journal"), 10 + 50);
    }
}
